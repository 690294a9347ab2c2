//! `rachis cluster`: makes the change log of a new cluster, shows how the nodes are, and makes a lost log anew.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use proto::{
    Catalog, Problem,
    catalog::State,
    client::Peer,
    cluster::{Members, Role},
    limits::MESSAGE_BYTES_MAX,
    wire::node::{DescribeRequest, Description, WatchRequest, node_client::NodeClient},
};
use serde_json::{Value, json};
use tailer::changes::topic;
use tokio::sync::watch;

use crate::{
    cli::{self, ClusterAction},
    client::{Failure, collection::write_list, output},
    settings,
};

/// How long a node may take to say how it is.
const ASK_WAIT: Duration = Duration::from_secs(3);

/// Does what was typed.
pub async fn run(arguments: cli::Cluster) -> Result<(), Failure> {
    match arguments.action {
        ClusterAction::Init(cluster) => {
            let kafka = settings::load(cluster.config.as_deref())?.cluster.kafka()?;
            let id = topic::init(&kafka).await.map_err(told)?;
            output::note(&format!("cluster {}: its change log is topic {} at {}", id.simple(), kafka.changes_topic, kafka.servers));
            Ok(())
        }
        ClusterAction::Status(status) => show(status).await,
        ClusterAction::RestoreChanges(restore) => {
            let kafka = settings::load(restore.cluster.config.as_deref())?.cluster.kafka()?;
            let file = restore.from.display();
            let bytes = std::fs::read(&restore.from).map_err(|e| Failure::new(format!("cannot read {file}: {e}")))?;
            let state: State = serde_json::from_slice(&bytes)
                .map_err(|e| Failure::new(format!("{file} is no copy of a catalog: {e}")).hint("it is catalog.json in a node's data folder"))?;
            let (offset, changes) = (state.offset, state.catalog.version);
            topic::restore(&kafka, state).await.map_err(told)?;
            output::note(&format!("the change log goes on from {changes} changes, which were read through record {offset}"));
            Ok(())
        }
    }
}

fn told(problem: Problem) -> Failure {
    let failure = Failure::new(problem.detail);
    match problem.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

async fn show(arguments: cli::ClusterStatus) -> Result<(), Failure> {
    let members = settings::load(arguments.cluster.config.as_deref())?.cluster.members()?;
    let (nodes, newest) = ask(&members).await?;
    let away = nodes.iter().filter(|node| node["state"] != "up").count();
    let shards = newest.as_ref().map(|state| shards(&state.catalog)).unwrap_or_default();
    match arguments.output {
        cli::ListOutput::Table => {
            write_list(
                &Value::Array(nodes),
                &["name", "role", "state", "version", "log_offset", "log_hash", "trouble", "url"],
                cli::ListOutput::Table,
            )?;
            output::write(b"\n")?;
            write_list(&Value::Array(shards), &["collection", "shard", "leaf"], cli::ListOutput::Table)?;
        }
        _ => output::pretty(&json!({ "nodes": nodes, "shards": shards }))?,
    }
    match away {
        0 => Ok(()),
        away => Err(Failure::new(format!("{away} of {} nodes do not answer", members.nodes.len()))),
    }
}

/// What each node says of itself, and the newest state that one has.
async fn ask(members: &Members) -> Result<(Vec<Value>, Option<State>), Failure> {
    let catalog = watch::channel(Arc::<Catalog>::default()).1;
    let ask = |((role, name), url): (&(Role, proto::cluster::NodeName), &String)| {
        let (role, url, peer) = (*role, url.clone(), Peer::new(name.clone(), url, catalog.clone()));
        async move {
            let peer = peer.map_err(told)?;
            let answer = tokio::time::timeout(ASK_WAIT, describe(&peer)).await;
            let answer = answer.unwrap_or_else(|_| Err(Problem::new(proto::Code::Unavailable, format!("{} does not answer", peer.name))));
            Ok::<_, Failure>((row(&peer, role, &url, &answer), answer.ok().map(|description| (description, peer))))
        }
    };
    let mut rows = Vec::new();
    let mut best: Option<(Description, Peer)> = None;
    for answer in join_all(members.nodes.iter().map(ask)).await {
        let (row, description) = answer?;
        rows.push(row);
        if let Some((description, peer)) = description
            && best.as_ref().is_none_or(|(known, _)| description.offset > known.offset)
        {
            best = Some((description, peer));
        }
    }
    let newest = match best {
        Some((_, peer)) => tokio::time::timeout(ASK_WAIT, state(&peer)).await.ok().and_then(Result::ok),
        None => None,
    };
    Ok((rows, newest))
}

async fn describe(peer: &Peer) -> Result<Description, Problem> {
    let answer = NodeClient::new(peer.control.clone()).describe(peer.request(DescribeRequest {}, ASK_WAIT)).await;
    answer.map(tonic::Response::into_inner).map_err(|status| peer.problem(status))
}

async fn state(peer: &Peer) -> Result<State, Problem> {
    let mut client = NodeClient::new(peer.control.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut pieces = client.watch(WatchRequest {}).await.map_err(|status| peer.problem(status))?.into_inner();
    let mut bytes = Vec::new();
    while let Some(piece) = pieces.message().await.map_err(|status| peer.problem(status))? {
        bytes.extend_from_slice(&piece.bytes);
        if piece.last {
            break;
        }
    }
    serde_json::from_slice(&bytes).map_err(|e| proto::wire::problem::malformed(&e.to_string()))
}

fn row(peer: &Peer, role: Role, url: &str, answer: &Result<Description, Problem>) -> Value {
    let mut row = json!({ "name": peer.name.as_str(), "role": role.word(), "url": url });
    let more = match answer {
        Ok(told) => json!({
            "state": "up",
            "version": told.version,
            "cluster": told.cluster,
            "log_offset": told.offset,
            "log_hash": format!("{:016x}", told.hash),
            "trouble": told.trouble,
        }),
        Err(problem) => json!({ "state": "away", "trouble": problem.detail }),
    };
    if let (Some(row), Value::Object(more)) = (row.as_object_mut(), more) {
        row.extend(more);
    }
    row
}

fn shards(catalog: &Catalog) -> Vec<Value> {
    let of = |(name, collection): (&proto::CollectionName, &proto::catalog::Collection)| {
        let placed =
            |number: u32| json!({ "collection": name.as_str(), "shard": number, "leaf": collection.leaf_of(number).map(|leaf| leaf.as_str()) });
        (0..collection.settings.shards).map(placed).collect::<Vec<_>>()
    };
    catalog.collections.iter().flat_map(of).collect()
}
