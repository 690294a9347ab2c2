//! `/v1/rebalance`, `/v1/nodes/{node}/drain` and `/v1/replacements/hold`: move shards between the leaves of a cluster, and
//! keep the controller from it.

use axum::{
    Json,
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse, Response},
};
use proto::{
    Code, Problem,
    catalog::Change,
    cluster::{NodeName, Role},
};
use serde::Deserialize;
use serde_json::json;
use utoipa::IntoParams;

use super::{
    error::{HttpError, PathText, path_text},
    shape::bad_query,
    state::AppState,
};
use crate::query::moves::plan_json;

/// The query string of a call that moves shards.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct MoveOptions {
    /// Only says what would be moved.
    #[serde(default)]
    dry_run: bool,
}

impl MoveOptions {
    fn of(options: Result<Query<Self>, QueryRejection>) -> Result<Self, Problem> {
        let Query(options) = options.map_err(|e| bad_query(&e).hint("?dry_run=true only says what would be moved"))?;
        Ok(options)
    }
}

/// Moves shards so that each has its replicas, in different zones, and each leaf holds bytes in proportion to its capacity.
#[utoipa::path(
    post,
    path = "/v1/rebalance",
    operation_id = "rebalance",
    tag = "Monitoring",
    params(MoveOptions),
    responses((
        status = 200,
        description = "What is moved: `moves` to which leaf and instead of which one, `retired` surplus replicas, \
                       `unplaced` shards for which there is no leaf; and how many replicas are `under_way`",
        body = Object,
    ))
)]
pub(super) async fn rebalance(
    State(app): State<AppState>,
    options: Result<Query<MoveOptions>, QueryRejection>,
) -> Result<Response, HttpError> {
    let options = MoveOptions::of(options)?;
    start(&app, None, options).await
}

/// Moves all shards of a leaf to others, and gives it no new ones.
#[utoipa::path(
    post,
    path = "/v1/nodes/{node}/drain",
    operation_id = "drain_node",
    tag = "Monitoring",
    params(("node" = String, Path, description = "The name of the leaf"), MoveOptions),
    responses((status = 200, description = "What is moved, as `/v1/rebalance` says it", body = Object))
)]
pub(super) async fn drain(
    State(app): State<AppState>,
    path: PathText,
    options: Result<Query<MoveOptions>, QueryRejection>,
) -> Result<Response, HttpError> {
    let (leaf, options) = (leaf(&app, path)?, MoveOptions::of(options)?);
    if !options.dry_run {
        drain_leaf(&app, leaf.clone(), true).await?;
    }
    start(&app, Some(&leaf), options).await
}

/// Lets a leaf take shards again, and gives up the moves away from it. What has been moved away stays where it is until the
/// next rebalance.
#[utoipa::path(
    delete,
    path = "/v1/nodes/{node}/drain",
    operation_id = "undrain_node",
    tag = "Monitoring",
    params(("node" = String, Path, description = "The name of the leaf")),
    responses((status = 200, description = "The name of the leaf", body = Object))
)]
pub(super) async fn undrain(State(app): State<AppState>, path: PathText) -> Result<Response, HttpError> {
    let leaf = leaf(&app, path)?;
    drain_leaf(&app, leaf.clone(), false).await?;
    let given_up = app.engine.give_up_moves(&leaf).await?;
    Ok(Json(json!({ "takes_shards": leaf, "given_up": given_up })).into_response())
}

/// Keeps the controller from replacing replicas of leaves that are away. What is on its way goes on.
#[utoipa::path(
    post,
    path = "/v1/replacements/hold",
    operation_id = "hold_replacements",
    tag = "Monitoring",
    responses((status = 200, description = "That they are held", body = Object))
)]
pub(super) async fn hold(State(app): State<AppState>) -> Result<Response, HttpError> {
    hold_replacements(&app, true).await
}

/// Lets the controller replace replicas of leaves that are away.
#[utoipa::path(
    delete,
    path = "/v1/replacements/hold",
    operation_id = "release_replacements",
    tag = "Monitoring",
    responses((status = 200, description = "That they are not held", body = Object))
)]
pub(super) async fn release(State(app): State<AppState>) -> Result<Response, HttpError> {
    hold_replacements(&app, false).await
}

async fn hold_replacements(app: &AppState, held: bool) -> Result<Response, HttpError> {
    app.engine.hold_replacements(held).await?;
    Ok(Json(json!({ "held": held })).into_response())
}

async fn start(app: &AppState, draining: Option<&NodeName>, options: MoveOptions) -> Result<Response, HttpError> {
    let plan = app.engine.plan_moves(draining).await?;
    let starts = !options.dry_run && !plan.is_empty();
    if starts {
        app.engine.start_moves(&plan).await?;
    }
    Ok(Json(plan_json(&app.engine.catalog(), &plan, starts)).into_response())
}

async fn drain_leaf(app: &AppState, leaf: NodeName, draining: bool) -> Result<(), Problem> {
    app.engine
        .change_catalog(Change::DrainLeaf { leaf, draining })
        .await
        .map(drop)
}

/// The leaf in the path.
fn leaf(app: &AppState, path: PathText) -> Result<NodeName, Problem> {
    let name: NodeName = path_text(path)?.parse()?;
    let catalog = app.engine.catalog();
    match catalog.members.get(&name).map(|member| member.role) {
        Some(Role::Leaf) => Ok(name),
        Some(role) => {
            let detail = format!("{name} is not a leaf: the {role} holds no shards");
            Err(Problem::new(Code::BadRequest, detail).hint("stop it, then `rachis cluster remove` removes it"))
        }
        None => Err(Problem::new(Code::NotFound, format!("the cluster has no node {name}"))
            .hint("`select * from rachis.nodes` lists its nodes")),
    }
}
