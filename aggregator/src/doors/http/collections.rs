//! `/v1/collections`: lists, creates, alters and drops collections, and describes what is in them.

use std::collections::BTreeMap;

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use futures::{StreamExt as _, stream};
use plan::{Kinds, scan::PathStatus};
use proto::{
    Catalog, CollectionName, PositionVector,
    catalog::{Change, Collection},
    ingest::{Outcomes, PartitionStatus},
    limits::PATHS_MAX,
};
use serde_json::{Value, json};

use super::{
    body,
    error::{HttpError, PathText, path_text},
    openapi::schemas,
    state::AppState,
};
use crate::{
    doors::{
        collections::{PutCollection, upsert},
        names::{collection_name, find_collection},
        time_paths::time_paths,
    },
    query::CollectionFields,
    sql::{self, DefinedColumn},
};

/// Collections whose status is fetched at once.
const STATUS_CONCURRENCY_MAX: usize = 64;

const HINT: &str = "a collection takes {\"shards\": 4, \"replicas\": 2, \"time_path\": \"created_at\", \"retention\": \"30d\"}; all are optional";

/// Lists all collections.
#[utoipa::path(
    get,
    path = "/v1/collections",
    operation_id = "list_collections",
    tag = "Collections",
    responses((status = 200, description = "All collections", body = schemas::Collections))
)]
pub(super) async fn list(State(app): State<AppState>) -> Result<Response, HttpError> {
    let catalog = app.engine.catalog();
    let described: Vec<_> = catalog
        .collections
        .iter()
        .map(|(name, collection)| describe(&app, &catalog, name, collection))
        .collect();
    let collections: Vec<Value> = stream::iter(described).buffered(STATUS_CONCURRENCY_MAX).collect().await;
    Ok(Json(json!({ "collections": collections })).into_response())
}

/// Shows a collection.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}",
    operation_id = "get_collection",
    tag = "Collections",
    params(("collection" = String, Path, description = "Its name")),
    responses((status = 200, description = "The collection", body = schemas::Collection))
)]
pub(super) async fn get(State(app): State<AppState>, path: PathText) -> Result<Response, HttpError> {
    let name = collection_name(&path_text(path)?)?;
    let catalog = app.engine.catalog();
    let collection = find_collection(&catalog, &name)?;
    Ok(Json(describe(&app, &catalog, &name, collection).await).into_response())
}

/// Creates a collection or alters its settings.
#[utoipa::path(
    put,
    path = "/v1/collections/{collection}",
    operation_id = "put_collection",
    tag = "Collections",
    params(("collection" = String, Path, description = "Its name")),
    request_body = PutCollection,
    responses((status = 200, description = "The altered collection", body = schemas::Collection), (status = 201, description = "The created collection", body = schemas::Collection))
)]
pub(super) async fn put(State(app): State<AppState>, path: PathText, request: Request) -> Result<Response, HttpError> {
    let name = collection_name(&path_text(path)?)?;
    let put = upsert(&app.engine, &name, body::json(request, HINT).await?).await?;
    let status = if put.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let collection = find_collection(&put.catalog, &name)?;
    let mut described = describe(&app, &put.catalog, &name, collection).await;
    if let Some(warning) = put.warning {
        described["warnings"] = json!([warning]);
    }
    Ok((status, Json(described)).into_response())
}

/// Drops a collection and its documents.
#[utoipa::path(
    delete,
    path = "/v1/collections/{collection}",
    operation_id = "drop_collection",
    tag = "Collections",
    params(("collection" = String, Path, description = "Its name")),
    responses((status = 200, description = "The name of the dropped collection", body = Object))
)]
pub(super) async fn delete(State(app): State<AppState>, path: PathText) -> Result<Response, HttpError> {
    let name = collection_name(&path_text(path)?)?;
    let change = Change::DropCollection { name: name.clone() };
    app.engine.change_catalog(change).await?;
    Ok(Json(json!({ "dropped": name })).into_response())
}

/// Lists the names that queries can use: first the defined fields, then the paths of the documents.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/fields",
    operation_id = "list_fields",
    tag = "Collections",
    params(("collection" = String, Path, description = "Its name")),
    responses((status = 200, description = "The fields and paths", body = schemas::Fields))
)]
pub(super) async fn fields(State(app): State<AppState>, path: PathText) -> Result<Response, HttpError> {
    let name = collection_name(&path_text(path)?)?;
    let CollectionFields {
        fields: paths,
        may_have_more,
    } = app.engine.fields(&name).await?;
    let catalog = app.engine.catalog();
    let settings = &find_collection(&catalog, &name)?.settings;
    let defined = sql::defined_columns(&catalog, &name);
    let defined = defined.iter().map(defined_json);
    let fields: Vec<Value> = defined.chain(paths.iter().map(path_json)).collect();
    let mut warnings = Vec::new();
    if may_have_more {
        warnings.push(format!(
            "a shard lists at most {PATHS_MAX} paths: {name} may have more, and queries can use them"
        ));
    }
    Ok(Json(json!({
        "collection": name,
        "fields": fields,
        "time_path": settings.time_path,
        "time_paths": time_paths(&paths),
        "warnings": warnings,
    }))
    .into_response())
}

/// A field, a parser, or a path of one. It is computed when a query reads it, so there are no statistics of its values.
fn defined_json(column: &DefinedColumn) -> Value {
    let data_type = column
        .data_type
        .and_then(|of| plan::Type::TABLE.iter().find(|row| row.0 == of));
    json!({
        "path": column.path,
        "kind": column.kind.as_str(),
        "type": data_type.map(|row| row.2),
        "kinds": [],
        "in_arrays": false,
        "documents": null,
        "indexed": null,
        "sample": null,
        "definition": column.definition,
        "version": column.version,
    })
}

fn path_json(field: &PathStatus) -> Value {
    let native = field
        .kinds
        .native()
        .and_then(|native| plan::Type::TABLE.iter().find(|row| row.0 == native))
        .map(|row| row.2);
    json!({
        "path": field.path.to_string(),
        "kind": "path",
        "type": native,
        "kinds": field.kinds.names(),
        "in_arrays": field.kinds.any(Kinds::ELEMENT),
        "documents": field.documents,
        "indexed": field.indexed,
        "sample": field.sample,
    })
}

async fn describe(app: &AppState, catalog: &Catalog, name: &CollectionName, collection: &Collection) -> Value {
    let sources: Vec<String> = catalog.sources_of(name).map(|(source, _)| source.to_string()).collect();
    let mut described = json!({
        "name": name,
        "uid": collection.uid.to_string(),
        "version": collection.version,
        "settings": collection.settings,
        "sources": sources,
        "position": null,
        "statistics": null,
    });
    match app.engine.roles.ingest.partitions(collection.uid).await {
        Ok(partitions) => {
            let mut of_shards: BTreeMap<u32, PositionVector> = BTreeMap::new();
            for PartitionStatus { shard, position, .. } in &partitions {
                let of_shard = of_shards.entry(shard.number).or_default();
                of_shard.advance(&position.source, position.partition, position.offset);
            }
            for shard in collection.shards() {
                // One that has nothing yet has no partitions.
                of_shards.entry(shard.number).or_default();
            }
            let position = collection.merged_positions(of_shards.iter().map(|(number, of)| (*number, of)));
            described["position"] = position.to_string().into();
            let outcomes: Outcomes = partitions.iter().map(|partition| partition.outcomes).sum();
            described["statistics"] = json!(outcomes);
        }
        // The catalog part of the description does not need the leaves.
        Err(problem) => described["away"] = problem.to_string().into(),
    }
    described
}
