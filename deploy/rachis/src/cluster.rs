//! `rachis cluster`: creates the change log of a new cluster, shows the status of the nodes, and restores a lost log.

use proto::{
    Catalog, Problem,
    catalog::State,
    client::nodes::RemoteNodes,
    cluster::Members,
    node::{NodeStatus, Nodes as _},
};
use serde_json::{Value, json};
use tailer::{create_change_log, restore_change_log};

use crate::{
    cli::{self, ClusterAction},
    client::{Failure, http::Client, output},
    settings,
};

/// Columns of the table of nodes.
const NODE_KEYS: [&str; 8] = [
    "name",
    "role",
    "state",
    "version",
    "log_offset",
    "log_hash",
    "trouble",
    "url",
];
/// Columns of the table of shards.
const SHARD_KEYS: [&str; 3] = ["collection", "shard", "leaf"];

/// Runs `rachis cluster`.
pub(crate) async fn run(arguments: cli::ClusterArgs) -> Result<(), Failure> {
    match arguments.action {
        ClusterAction::Init(cluster) => init(cluster).await,
        ClusterAction::Status(status) => show(status).await,
        ClusterAction::RestoreChanges(restore) => restore_changes(restore).await,
    }
}

async fn init(cluster: cli::ClusterConfigArgs) -> Result<(), Failure> {
    let settings = settings::load(cluster.config.as_deref())?.cluster;
    let kafka = settings.kafka()?;
    require_no_cluster(&settings).await?;
    let id = create_change_log(&kafka).await.map_err(to_failure)?;
    output::note(&format!(
        "created cluster {}; its change log is topic {} at {}",
        id.simple(),
        kafka.changes_topic,
        kafka.servers
    ));
    Ok(())
}

async fn restore_changes(restore: cli::RestoreChangesArgs) -> Result<(), Failure> {
    let kafka = settings::load(restore.cluster.config.as_deref())?.cluster.kafka()?;
    let file = restore.from.display();
    let bytes = std::fs::read(&restore.from).map_err(|e| Failure::new(format!("cannot read {file}: {e}")))?;
    let state: State = serde_json::from_slice(&bytes).map_err(|e| {
        Failure::new(format!("{file} is not a copy of the catalog: {e}"))
            .hint("use the catalog.json in a node's data folder")
    })?;
    let (offset, changes) = (state.offset, state.catalog.version);
    restore_change_log(&kafka, state).await.map_err(to_failure)?;
    output::note(&format!(
        "restored the change log: it continues after {changes} changes (the lost log was read through offset {offset})"
    ));
    Ok(())
}

fn to_failure(problem: Problem) -> Failure {
    let failure = Failure::new(problem.detail);
    match problem.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// Fails if the nodes already belong to a cluster: a second log must not be created for them. A lost log is restored
/// from their copies instead.
async fn require_no_cluster(settings: &settings::ClusterSettings) -> Result<(), Failure> {
    let newest = RemoteNodes::new("", &settings.members()?)
        .map_err(to_failure)?
        .newest_state()
        .await;
    match newest.filter(|state| state.cluster.is_some()) {
        None => Ok(()),
        Some(state) => Err(Failure::new(format!(
            "the cluster already exists: its nodes have read {} changes",
            state.catalog.version
        ))
        .hint(
            "if its change log is lost, restore it with `rachis cluster restore-changes --from FILE`; FILE is the \
             catalog.json of an up-to-date node",
        )),
    }
}

async fn show(arguments: cli::ClusterStatusArgs) -> Result<(), Failure> {
    let ClusterView { nodes, shards } = cluster_view(&arguments).await?;
    let (down, all) = (nodes.iter().filter(|node| node["state"] != "up").count(), nodes.len());
    match arguments.output {
        cli::ListOutput::Table => {
            let (nodes, shards) = (Value::Array(nodes), Value::Array(shards));
            output::list(&nodes, &NODE_KEYS, cli::ListOutput::Table)?;
            output::write(b"\n")?;
            output::list(&shards, &SHARD_KEYS, cli::ListOutput::Table)?;
        }
        _ => output::pretty(&json!({ "nodes": nodes, "shards": shards }))?,
    }
    match down {
        0 => Ok(()),
        down => Err(Failure::new(format!("{down} of {all} nodes do not respond"))),
    }
}

/// The nodes of a cluster and the placement of its shards, as rows.
struct ClusterView {
    nodes: Vec<Value>,
    shards: Vec<Value>,
}

async fn cluster_view(arguments: &cli::ClusterStatusArgs) -> Result<ClusterView, Failure> {
    if let Some(url) = &arguments.url {
        return ask_aggregator(url).await;
    }
    let members = settings::load(arguments.cluster.config.as_deref())?.cluster.members()?;
    if !members.nodes.is_empty() {
        return ask_nodes(&members).await;
    }
    match std::env::var("RACHIS_URL").ok().filter(|url| !url.is_empty()) {
        Some(url) => ask_aggregator(&url).await,
        None => Err(Failure::usage("the settings list no nodes: [cluster] is missing")
            .hint("select the settings file of the nodes with --config, or an aggregator with --url or RACHIS_URL")),
    }
}

/// Asks each node.
async fn ask_nodes(members: &Members) -> Result<ClusterView, Failure> {
    let remote = RemoteNodes::new("", members).map_err(to_failure)?;
    let (nodes, newest) = tokio::join!(remote.status(), remote.newest_state());
    Ok(ClusterView {
        nodes: nodes.iter().map(node_row).collect(),
        shards: newest
            .as_ref()
            .map(|state| shard_rows(&state.catalog))
            .unwrap_or_default(),
    })
}

/// Asks one aggregator for all nodes.
async fn ask_aggregator(url: &str) -> Result<ClusterView, Failure> {
    let client = Client::new(url)?;
    let rows = async |sql: &str| {
        let answer = client.sql(&json!({ "sql": sql })).await?;
        Ok::<_, Failure>(answer["rows"].as_array().cloned().unwrap_or_default())
    };
    let nodes =
        rows("SELECT name, role, url, state, version, log_offset, log_hash, error AS trouble FROM rachis.nodes")
            .await?;
    let shards =
        rows("SELECT collection, shard, leaf FROM rachis.shards ORDER BY collection, shard LIMIT 1000000").await?;
    Ok(ClusterView { nodes, shards })
}

fn node_row(node: &NodeStatus) -> Value {
    let mut row = json!({ "name": node.name, "role": node.role, "url": node.url });
    let report = match &node.report {
        Ok(report) => json!({
            "state": "up",
            "version": report.version,
            "cluster": report.log.cluster.map(|cluster| cluster.simple().to_string()),
            "log_offset": report.log.offset,
            "log_hash": format!("{:016x}", report.log.hash),
            "trouble": report.log.fault,
        }),
        Err(problem) => json!({ "state": "away", "trouble": problem.detail }),
    };
    if let (Some(row), Value::Object(report)) = (row.as_object_mut(), report) {
        row.extend(report);
    }
    row
}

fn shard_rows(catalog: &Catalog) -> Vec<Value> {
    let rows = |(name, collection): (&proto::CollectionName, &proto::catalog::Collection)| {
        let row = |number: u32| {
            let leaf = collection.leaf_of(number).map(|leaf| leaf.as_str());
            json!({ "collection": name.as_str(), "shard": number, "leaf": leaf })
        };
        (0..collection.settings.shards).map(row).collect::<Vec<_>>()
    };
    catalog.collections.iter().flat_map(rows).collect()
}
