//! Tables of the cluster's nodes and of the queries that they run.

use proto::node::{NodeStatus, RunningQuery};

use super::{super::Engine, cell::Cell};

/// `rachis.queries`: the running queries, including the one that reads this table.
pub(super) async fn queries(engine: &Engine) -> Vec<Vec<Cell>> {
    let row = |(node, query): (String, RunningQuery)| {
        vec![
            Cell::text(query.id.to_string()),
            Cell::text(node),
            Cell::text(query.text),
            Cell::Time(Some(query.started_ms)),
            Cell::count(query.elapsed_ms),
        ]
    };
    engine.queries().await.into_iter().map(row).collect()
}

/// `rachis.nodes`. A node that does not answer is `away`, and its row has the error.
pub(super) async fn nodes(engine: &Engine) -> Vec<Vec<Cell>> {
    let row = |node: NodeStatus| {
        let mut row = vec![
            Cell::text(node.name),
            Cell::text(node.role),
            Cell::text(if node.report.is_ok() { "up" } else { "away" }),
            Cell::text(node.url),
        ];
        match node.report {
            Ok(report) => row.extend([
                Cell::text(report.version),
                Cell::Time(Some(report.started_ms)),
                Cell::Int(Some(report.log.offset)),
                Cell::text(format!("{:016x}", report.log.hash)),
                Cell::Text(report.log.fault),
            ]),
            Err(problem) => row.extend([
                Cell::Text(None),
                Cell::Time(None),
                Cell::Int(None),
                Cell::Text(None),
                Cell::text(problem.detail),
            ]),
        }
        row
    };
    engine.roles.nodes.status().await.into_iter().map(row).collect()
}
