//! `rachis cluster`: makes the change log of a new cluster, shows how the nodes are, and makes a lost log anew.

use proto::{
    Catalog, Problem,
    catalog::State,
    client::nodes::RemoteNodes,
    cluster::Members,
    node::{NodeStatus, Nodes as _},
};
use reqwest::{Method, header::ACCEPT};
use serde_json::{Value, json};
use tailer::changes::topic;

use crate::{
    cli::{self, ClusterAction},
    client::{Failure, collection::write_list, http::Client, output},
    settings,
};

/// Does what was typed.
pub async fn run(arguments: cli::Cluster) -> Result<(), Failure> {
    match arguments.action {
        ClusterAction::Init(cluster) => {
            let settings = settings::load(cluster.config.as_deref())?.cluster;
            let kafka = settings.kafka()?;
            refuse_second(&settings).await?;
            let id = topic::init(&kafka).await.map_err(told)?;
            output::note(&format!(
                "cluster {}: its change log is topic {} at {}",
                id.simple(),
                kafka.changes_topic,
                kafka.servers
            ));
            Ok(())
        }
        ClusterAction::Status(status) => show(status).await,
        ClusterAction::RestoreChanges(restore) => {
            let kafka = settings::load(restore.cluster.config.as_deref())?.cluster.kafka()?;
            let file = restore.from.display();
            let bytes = std::fs::read(&restore.from).map_err(|e| Failure::new(format!("cannot read {file}: {e}")))?;
            let state: State = serde_json::from_slice(&bytes).map_err(|e| {
                Failure::new(format!("{file} is not a copy of a catalog: {e}"))
                    .hint("it is catalog.json in a node's data folder")
            })?;
            let (offset, changes) = (state.offset, state.catalog.version);
            topic::restore(&kafka, state).await.map_err(told)?;
            output::note(&format!(
                "the change log goes on from {changes} changes, which were read through record {offset}"
            ));
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

/// Nodes that know their cluster must not get another one: where its log is lost, it is to be made anew from what they
/// know.
async fn refuse_second(settings: &settings::Cluster) -> Result<(), Failure> {
    let there = RemoteNodes::new("", &settings.members()?)
        .map_err(told)?
        .newest_state()
        .await;
    match there.filter(|state| state.cluster.is_some()) {
        None => Ok(()),
        Some(state) => Err(Failure::new(format!("the cluster exists already: its nodes know {} changes", state.catalog.version)).hint(
            "if its log is lost, `rachis cluster restore-changes --from FILE` makes it anew; FILE is the catalog.json of a node that is up to date",
        )),
    }
}

async fn show(arguments: cli::ClusterStatus) -> Result<(), Failure> {
    let (nodes, shards) = match arguments.url {
        Some(url) => seen_by(&url).await?,
        None => {
            let members = settings::load(arguments.cluster.config.as_deref())?.cluster.members()?;
            let url = std::env::var("RACHIS_URL").ok().filter(|url| !url.is_empty());
            match (members.nodes.is_empty(), url) {
                (false, _) => seen_from_here(&members).await?,
                (true, Some(url)) => seen_by(&url).await?,
                (true, None) => {
                    return Err(Failure::usage("no cluster is described: [cluster] is missing")
                        .hint("--config names the file that all nodes have; --url or RACHIS_URL names an aggregator to ask instead"));
                }
            }
        }
    };
    let (away, all) = (nodes.iter().filter(|node| node["state"] != "up").count(), nodes.len());
    match arguments.output {
        cli::ListOutput::Table => {
            write_list(
                &Value::Array(nodes),
                &[
                    "name",
                    "role",
                    "state",
                    "version",
                    "log_offset",
                    "log_hash",
                    "trouble",
                    "url",
                ],
                cli::ListOutput::Table,
            )?;
            output::write(b"\n")?;
            write_list(
                &Value::Array(shards),
                &["collection", "shard", "leaf"],
                cli::ListOutput::Table,
            )?;
        }
        _ => output::pretty(&json!({ "nodes": nodes, "shards": shards }))?,
    }
    match away {
        0 => Ok(()),
        away => Err(Failure::new(format!("{away} of {all} nodes do not answer"))),
    }
}

/// Nodes and shards as this process finds them, node by node.
async fn seen_from_here(members: &Members) -> Result<(Vec<Value>, Vec<Value>), Failure> {
    let asked = RemoteNodes::new("", members).map_err(told)?;
    let (nodes, newest) = tokio::join!(asked.status(), asked.newest_state());
    Ok((
        nodes.iter().map(row).collect(),
        newest.as_ref().map(|state| shards(&state.catalog)).unwrap_or_default(),
    ))
}

/// Nodes and shards as an aggregator sees them.
async fn seen_by(url: &str) -> Result<(Vec<Value>, Vec<Value>), Failure> {
    let client = Client::new(url)?;
    let rows = async |sql: &str| {
        let request = client
            .request(Method::POST, &["sql"])
            .header(ACCEPT, "application/json")
            .json(&json!({ "sql": sql }));
        client
            .json(request)
            .await
            .map(|answer| answer["rows"].as_array().cloned().unwrap_or_default())
    };
    let nodes =
        rows("SELECT name, role, url, state, version, log_offset, log_hash, error AS trouble FROM rachis.nodes")
            .await?;
    let shards =
        rows("SELECT collection, shard, leaf FROM rachis.shards ORDER BY collection, shard LIMIT 1000000").await?;
    Ok((nodes, shards))
}

fn row(node: &NodeStatus) -> Value {
    let mut row = json!({ "name": node.name, "role": node.role, "url": node.url });
    let more = match &node.report {
        Ok(report) => json!({
            "state": "up",
            "version": report.version,
            "cluster": report.log.cluster.map(|cluster| cluster.simple().to_string()),
            "log_offset": report.log.offset,
            "log_hash": format!("{:016x}", report.log.hash),
            "trouble": report.log.trouble,
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
        let placed = |number: u32| json!({ "collection": name.as_str(), "shard": number, "leaf": collection.leaf_of(number).map(|leaf| leaf.as_str()) });
        (0..collection.settings.shards).map(placed).collect::<Vec<_>>()
    };
    catalog.collections.iter().flat_map(of).collect()
}
