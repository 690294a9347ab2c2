//! Tables of the cluster's nodes and of the queries that they run.

use proto::{
    catalog::Controller,
    node::{NodeQueries, NodeStatus, RunningQuery},
};
use serde_json::{Value, json};

use super::super::Engine;

/// `rachis.queries`: the running queries, including the one that reads this table. The row of a node that does not answer
/// has the error.
pub(super) async fn queries(engine: &Engine) -> Vec<Value> {
    let row = |node: &str, query: RunningQuery| {
        json!({
            "id": query.id.to_string(),
            "node": node,
            "text": query.text,
            "started": query.started_ms,
            "elapsed_ms": query.elapsed_ms,
            "documents": query.documents,
            "documents_scanned": query.documents_scanned,
            "memory_bytes": query.memory_bytes,
            "memory_bytes_most": query.memory_bytes_most,
        })
    };
    let rows = |NodeQueries { node, queries }: NodeQueries| match queries {
        Ok(queries) => queries.into_iter().map(|query| row(&node, query)).collect(),
        Err(problem) => vec![json!({ "node": node, "error": problem.to_string() })],
    };
    engine.queries().await.into_iter().flat_map(rows).collect()
}

/// `rachis.controller`: which aggregator replaces lost replicas, and whether it may. No row before
/// there is one or they are held.
pub(super) fn controller(engine: &Engine) -> Vec<Value> {
    let catalog = engine.catalog();
    let row = |controller: &Controller| json!({ "node": controller.node, "epoch": controller.epoch, "held": controller.held });
    let known = Some(&catalog.controller).filter(|controller| **controller != Controller::default());
    known.into_iter().map(row).collect()
}

/// `rachis.nodes`. A node that does not answer is `away`, and its row has the error.
pub(super) async fn nodes(engine: &Engine) -> Vec<Value> {
    let catalog = engine.catalog();
    let draining = |name: &str| catalog.draining.iter().any(|leaf| leaf.as_str() == name);
    let row = |node: NodeStatus| match node.report {
        Ok(report) => json!({
            "name": node.name,
            "role": node.role,
            "zone": node.zone,
            "capacity": node.capacity,
            "draining": draining(&node.name),
            "state": "up",
            "url": node.url,
            "version": report.version,
            "started": report.started_ms,
            "log_offset": report.log.offset,
            "log_hash": format!("{:016x}", report.log.hash),
            "error": report.log.fault,
        }),
        Err(problem) => json!({
            "name": node.name,
            "role": node.role,
            "zone": node.zone,
            "capacity": node.capacity,
            "draining": draining(&node.name),
            "state": "away",
            "url": node.url,
            "error": problem.detail,
        }),
    };
    engine.roles.nodes.status().await.into_iter().map(row).collect()
}
