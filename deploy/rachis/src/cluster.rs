//! `rachis cluster`: creates the change log of a new cluster, shows the status of the nodes, removes nodes, and restores a
//! lost log. Draining and holding are in [`moves`].

use std::sync::Arc;

use proto::{
    Catalog,
    catalog::{Collection, State},
    client::nodes::RemoteNodes,
    node::{NodeStatus, Nodes as _},
};
use reqwest::Method;
use serde_json::{Value, json};
use tailer::{ClusterKafka, create_change_log, read_change_log, restore_change_log};
use tokio::sync::watch;

use crate::{
    cli::{self, ClusterAction},
    client::{Failure, http::Client, output},
    moves, settings,
};

/// Columns of the table of nodes.
const NODE_KEYS: [&str; 11] = [
    "name",
    "role",
    "state",
    "draining",
    "zone",
    "capacity",
    "version",
    "log_offset",
    "log_hash",
    "error",
    "url",
];
/// Columns of the table of shards.
const SHARD_KEYS: [&str; 3] = ["collection", "shard", "replicas"];

/// Runs `rachis cluster`.
pub(crate) async fn run(arguments: cli::ClusterArgs) -> Result<(), Failure> {
    match arguments.action {
        ClusterAction::Init(arguments) => init(arguments).await,
        ClusterAction::Status(status) => show(status).await,
        ClusterAction::Drain(leaf) => moves::drain(leaf).await,
        ClusterAction::Hold(arguments) => moves::hold(arguments).await,
        ClusterAction::Remove(member) => remove(member).await,
        ClusterAction::RestoreChanges(restore) => restore_changes(restore).await,
    }
}

async fn init(arguments: cli::InitArgs) -> Result<(), Failure> {
    let kafka = settings::load(arguments.cluster.config.as_deref())?.cluster.kafka()?;
    let id = create_change_log(&kafka, arguments.beside).await?;
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
    restore_change_log(&kafka, state).await?;
    output::note(&format!(
        "restored the change log: it continues after {changes} changes (the lost log was read through offset {offset})"
    ));
    Ok(())
}

/// Removes a node from the cluster.
async fn remove(arguments: cli::RemoveMemberArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let request = client.request(Method::DELETE, &["nodes", &arguments.name]);
    client.send(request.query(&[("lost", arguments.lost)])).await?;
    let name = &arguments.name;
    output::note(&format!("removed {name} from the cluster"));
    if arguments.lost {
        let sql = "SELECT string_agg('shard ' || shard || ' of ' || collection, ', ') AS shards FROM rachis.shards \
                   WHERE leaf = $1 AND error IS NOT NULL";
        // The node is removed, whatever becomes of this question.
        let answer = client
            .sql(&json!({ "sql": sql, "parameters": [name] }))
            .await
            .unwrap_or_default();
        if let Some(shards) = answer["rows"][0]["shards"].as_str() {
            output::note(&format!(
                "no other leaf has {shards}: start a new leaf with the name {name}, which fills them from a snapshot or from Kafka"
            ));
        }
    }
    Ok(())
}

async fn show(arguments: cli::ClusterStatusArgs) -> Result<(), Failure> {
    let ClusterView {
        nodes,
        shards,
        controller,
        moving,
    } = cluster_view(&arguments).await?;
    let (down, all) = (nodes.iter().filter(|node| node["state"] != "up").count(), nodes.len());
    match arguments.output {
        cli::ListOutput::Table => {
            let (nodes, shards) = (Value::Array(nodes), Value::Array(shards));
            output::list(&nodes, &NODE_KEYS, cli::ListOutput::Table)?;
            output::write(b"\n")?;
            output::list(&shards, &SHARD_KEYS, cli::ListOutput::Table)?;
            if moving > 0 {
                output::note(&format!(
                    "shards on their way to another leaf: {moving} (`rachis sql 'SELECT * FROM rachis.moves'`)"
                ));
            }
            match (controller["held"] == true, controller["node"].as_str()) {
                (true, _) => output::note("lost replicas are not replaced until `rachis cluster hold --release`"),
                (false, Some(node)) => output::note(&format!(
                    "controller: {node} (replaces the replicas of leaves that are away for long)"
                )),
                (false, None) => {}
            }
        }
        _ => {
            let view = json!({ "nodes": nodes, "shards": shards, "controller": controller, "moving": moving });
            output::pretty(&view)?;
        }
    }
    match down {
        0 => Ok(()),
        down => Err(Failure::new(format!("{down} of {all} nodes do not respond"))),
    }
}

/// The nodes of a cluster and the placement of its shards, as rows, which aggregator replaces lost replicas, and how many
/// shards are on their way to another leaf.
struct ClusterView {
    nodes: Vec<Value>,
    shards: Vec<Value>,
    controller: Value,
    moving: u64,
}

async fn cluster_view(arguments: &cli::ClusterStatusArgs) -> Result<ClusterView, Failure> {
    if let Some(url) = &arguments.url {
        return ask_aggregator(url).await;
    }
    let settings = settings::load(arguments.cluster.config.as_deref())?.cluster;
    let aggregator = std::env::var("RACHIS_URL").ok().filter(|url| !url.is_empty());
    match (settings.has_kafka(), aggregator) {
        (true, aggregator) => match (ask_members(&settings.kafka()?).await, aggregator) {
            // The aggregator knows more than a log that cannot be read.
            (Err(failure), Some(url)) => {
                output::note(&format!("{failure}; asking {url}"));
                ask_aggregator(&url).await
            }
            (view, _) => view,
        },
        (false, Some(url)) => ask_aggregator(&url).await,
        (false, None) => Err(
            Failure::usage("the settings name no Kafka: kafka in [cluster] is missing")
                .hint("select the settings file of the nodes with --config, or an aggregator with --url or RACHIS_URL"),
        ),
    }
}

/// The catalog of a cluster, from its change log.
pub(crate) async fn catalog_of(kafka: &ClusterKafka) -> Result<Catalog, Failure> {
    let read = read_change_log(kafka, State::default()).await;
    read.map(|state| state.catalog).map_err(|problem| {
        Failure::new(format!("the change log cannot be read: {}", problem.detail))
            .hint("ask an aggregator, which knows the members without the log: --url URL")
    })
}

/// Reads the change log, and asks each member.
async fn ask_members(kafka: &ClusterKafka) -> Result<ClusterView, Failure> {
    let catalog = Arc::new(catalog_of(kafka).await?);
    let nodes = RemoteNodes::new("", watch::channel(catalog.clone()).1).status().await;
    Ok(ClusterView {
        nodes: nodes.iter().map(|node| node_row(node, &catalog)).collect(),
        shards: shard_rows(&catalog),
        controller: json!(catalog.controller),
        moving: moving(&catalog),
    })
}

/// Asks one aggregator for all nodes.
async fn ask_aggregator(url: &str) -> Result<ClusterView, Failure> {
    let client = Client::new(url)?;
    let rows = async |sql: &str| {
        let answer = client.sql(&json!({ "sql": sql })).await?;
        Ok::<_, Failure>(answer["rows"].as_array().cloned().unwrap_or_default())
    };
    let nodes = rows(
        "SELECT name, role, url, zone, capacity, state, draining, version, log_offset, log_hash, error \
         FROM rachis.nodes",
    )
    .await?;
    let shards =
        rows("SELECT collection, shard, leaf, replicas FROM rachis.shards ORDER BY collection, shard LIMIT 1000000")
            .await?;
    // An aggregator of an older release has no such tables.
    let row = async |sql: &str| rows(sql).await.ok().and_then(|rows| rows.into_iter().next());
    let controller = row("SELECT node, epoch, held FROM rachis.controller").await;
    let moving = row("SELECT count(*) AS moving FROM (SELECT DISTINCT collection, shard FROM rachis.moves)").await;
    Ok(ClusterView {
        nodes,
        shards,
        controller: controller.unwrap_or_default(),
        moving: moving.and_then(|row| row["moving"].as_u64()).unwrap_or(0),
    })
}

/// How many shards are on their way to another leaf.
fn moving(catalog: &Catalog) -> u64 {
    let of = |collection: &Collection| {
        (0..collection.settings.shards)
            .filter(|shard| collection.is_moving(*shard))
            .count()
    };
    catalog.collections.values().map(of).sum::<usize>() as u64
}

fn node_row(node: &NodeStatus, catalog: &Catalog) -> Value {
    let mut row = json!({
        "name": node.name,
        "role": node.role,
        "url": node.url,
        "zone": node.zone,
        "capacity": node.capacity,
        "draining": catalog.draining.iter().any(|leaf| leaf.as_str() == node.name),
    });
    let report = match &node.report {
        Ok(report) => json!({
            "state": "up",
            "version": report.version,
            "cluster": report.log.cluster.map(|cluster| cluster.simple().to_string()),
            "log_offset": report.log.offset,
            "log_hash": format!("{:016x}", report.log.hash),
            "error": report.log.fault,
        }),
        Err(problem) => json!({ "state": "away", "error": problem.detail }),
    };
    if let (Some(row), Value::Object(report)) = (row.as_object_mut(), report) {
        row.extend(report);
    }
    row
}

fn shard_rows(catalog: &Catalog) -> Vec<Value> {
    let rows = |(name, collection): (&proto::CollectionName, &Collection)| {
        let row = |number: u32| {
            let leaf = collection.serving(number).next().map(|leaf| leaf.as_str());
            let replicas = collection.describe_replicas(number);
            json!({ "collection": name.as_str(), "shard": number, "leaf": leaf, "replicas": replicas })
        };
        (0..collection.settings.shards).map(row).collect::<Vec<_>>()
    };
    catalog.collections.iter().flat_map(rows).collect()
}
