//! `/v1/nodes`: removes nodes from the cluster.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use proto::{Code, Problem, catalog::Change, cluster::NodeName};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use super::{
    error::{HttpError, PathText, path_text},
    shape::bad_query,
    state::AppState,
};

/// The query string of a removal.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct RemoveOptions {
    /// Also a leaf that holds shards: its disk is lost, and a new leaf of its name fills them again.
    #[serde(default)]
    lost: bool,
}

/// Removes a node that does not run any more from the cluster.
#[utoipa::path(
    delete,
    path = "/v1/nodes/{node}",
    operation_id = "remove_node",
    tag = "Monitoring",
    params(("node" = String, Path, description = "Its name"), RemoveOptions),
    responses((status = 200, description = "The name of the removed node", body = Object))
)]
pub(super) async fn remove(
    State(app): State<AppState>,
    path: PathText,
    options: Result<Query<RemoveOptions>, QueryRejection>,
) -> Result<Response, HttpError> {
    let text = path_text(path)?;
    let Query(options) = options.map_err(|e| bad_query(&e).hint("?lost=true also removes a leaf that holds shards"))?;
    let name: NodeName = text.parse().map_err(Problem::from)?;
    let nodes = app.engine.roles.nodes.status().await;
    let (catalog, found) = (app.engine.catalog(), nodes.into_iter().find(|node| node.name == text));
    let (Some(member), Some(node)) = (catalog.members.get(&name), found) else {
        return Err(Problem::new(Code::NotFound, format!("the cluster has no node {name}"))
            .hint("`select * from rachis.nodes` lists its nodes")
            .into());
    };
    if node.report.is_ok_and(|report| report.instance == Some(member.instance)) {
        return Err(Problem::new(
            Code::InUse,
            format!("{name} cannot be removed: it runs at {}", member.url),
        )
        .hint("stop it first; while it runs, it joins again")
        .into());
    }
    let instance = member.instance;
    let RemoveOptions { lost } = options;
    let from_snapshots = lost && app.engine.snapshot_store().is_ok();
    let removed = Change::RemoveMember {
        name,
        instance,
        lost,
        from_snapshots,
    };
    app.engine.change_catalog(removed).await?;
    Ok(Json(json!({ "removed": text })).into_response())
}
