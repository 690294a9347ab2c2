//! `/v1/sources`: creates, alters, suspends and drops sources, and shows the progress of each partition.

use axum::{
    Json,
    extract::{Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
};
use proto::{
    Catalog, Code, Problem, SourceName,
    catalog::{Change, Source, SourceSettings},
    limits::PREVIEW_RECORDS_MAX,
    record::{self, Format, Record},
};
use serde_json::{Value, json};

use super::{
    body,
    error::{HttpError, PathText, path_text},
    openapi::schemas,
    shape,
    state::AppState,
};
use crate::{
    doors::{
        names::{find_source, source_name},
        source_config,
        sources::{check, upsert},
    },
    query::TailStatuses,
};

/// Records of a preview by default.
const PREVIEW_RECORDS: usize = 10;

const HINT: &str = "a source is {\"collection\", \"topic\", \"config\": {\"bootstrap.servers\": …}, \"format\", \"key\", \
                    \"start\"}; format, key and start are optional";

/// Lists all sources.
#[utoipa::path(
    get,
    path = "/v1/sources",
    operation_id = "list_sources",
    tag = "Sources",
    responses((status = 200, description = "All sources", body = schemas::Sources))
)]
pub(super) async fn list(State(app): State<AppState>) -> Result<Response, HttpError> {
    let catalog = app.engine.catalog();
    let tails = app.engine.tails().await?;
    let sources: Vec<Value> = catalog
        .sources
        .iter()
        .map(|(name, source)| describe(name, source, &tails))
        .collect();
    Ok(Json(json!({ "sources": sources })).into_response())
}

/// Shows a source.
#[utoipa::path(
    get,
    path = "/v1/sources/{source}",
    operation_id = "get_source",
    tag = "Sources",
    params(("source" = String, Path, description = "Its name")),
    responses((status = 200, description = "The source", body = schemas::DescribedSource))
)]
pub(super) async fn get(State(app): State<AppState>, path: PathText) -> Result<Response, HttpError> {
    let name = source_name(&path_text(path)?)?;
    Ok(Json(source_json(&app, &app.engine.catalog(), &name).await?).into_response())
}

/// Creates a source, and its collection if needed, or alters its settings.
#[utoipa::path(
    put,
    path = "/v1/sources/{source}",
    operation_id = "put_source",
    tag = "Sources",
    params(("source" = String, Path, description = "Its name")),
    request_body = schemas::SourceBody,
    responses((status = 200, description = "The altered source", body = schemas::DescribedSource), (status = 201, description = "The created source", body = schemas::DescribedSource))
)]
pub(super) async fn put(State(app): State<AppState>, path: PathText, request: Request) -> Result<Response, HttpError> {
    let name = source_name(&path_text(path)?)?;
    let (created, catalog) = upsert(&app.engine, &name, parse_settings(body::json(request, HINT).await?)?).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    Ok((status, Json(source_json(&app, &catalog, &name).await?)).into_response())
}

fn parse_settings(body: Value) -> Result<SourceSettings, Problem> {
    let settings: SourceSettings =
        shape::from_value(&source_config::stringify_values(body)).map_err(|problem| problem.hint(HINT))?;
    match (settings.partitions, settings.ends.is_empty()) {
        (None, true) => Ok(settings),
        _ => Err(Problem::new(
            Code::BadRequest,
            "partitions and ends cannot be set: the topic determines them",
        )
        .hint(HINT)),
    }
}

/// Drops a source. Its documents stay.
#[utoipa::path(
    delete,
    path = "/v1/sources/{source}",
    operation_id = "drop_source",
    tag = "Sources",
    params(("source" = String, Path, description = "Its name")),
    responses((status = 200, description = "The name of the dropped source", body = Object))
)]
pub(super) async fn delete(State(app): State<AppState>, path: PathText) -> Result<Response, HttpError> {
    let name = source_name(&path_text(path)?)?;
    let change = Change::DropSource { name: name.clone() };
    app.engine.change_catalog(change).await?;
    Ok(Json(json!({ "dropped": name })).into_response())
}

/// Suspends ingest from a source.
#[utoipa::path(
    post,
    path = "/v1/sources/{source}/suspend",
    operation_id = "suspend_source",
    tag = "Sources",
    params(("source" = String, Path, description = "Its name")),
    responses((status = 200, description = "The source", body = schemas::DescribedSource))
)]
pub(super) async fn suspend(State(app): State<AppState>, path: PathText) -> Result<Response, HttpError> {
    set_suspended(&app, path, true).await
}

/// Resumes ingest from a suspended source.
#[utoipa::path(
    post,
    path = "/v1/sources/{source}/resume",
    operation_id = "resume_source",
    tag = "Sources",
    params(("source" = String, Path, description = "Its name")),
    responses((status = 200, description = "The source", body = schemas::DescribedSource))
)]
pub(super) async fn resume(State(app): State<AppState>, path: PathText) -> Result<Response, HttpError> {
    set_suspended(&app, path, false).await
}

async fn set_suspended(app: &AppState, path: PathText, suspended: bool) -> Result<Response, HttpError> {
    let name = source_name(&path_text(path)?)?;
    let change = Change::SuspendSource {
        name: name.clone(),
        suspended,
    };
    let catalog = app.engine.change_catalog(change).await?;
    Ok(Json(source_json(app, &catalog, &name).await?).into_response())
}

/// Shows sample records of a source: with a body, as a source with these settings would ingest them; without one, of
/// the existing source. Stores nothing.
#[utoipa::path(
    post,
    path = "/v1/sources/{source}/preview",
    operation_id = "preview_source",
    tag = "Sources",
    params(("source" = String, Path, description = "Its name")),
    request_body(content = Option<schemas::SourceBody>, description = "The settings to try; `{}` for those of the source. `limit` is the number of records"),
    responses((status = 200, description = "The records, as documents", body = Object))
)]
pub(super) async fn preview(
    State(app): State<AppState>,
    path: PathText,
    request: Request,
) -> Result<Response, HttpError> {
    let name = source_name(&path_text(path)?)?;
    let catalog = app.engine.catalog();
    let existing = catalog.sources.get(&name);
    let mut body: Value = body::json(request, HINT).await?;
    let limit = take_limit(&mut body)?;
    let settings = match existing {
        Some(source) if body.as_object().is_some_and(serde_json::Map::is_empty) => source.settings.clone(),
        None if body.as_object().is_some_and(serde_json::Map::is_empty) => {
            let hint = "send the settings to preview: {\"topic\", \"config\": {\"bootstrap.servers\": …}}";
            return Err(
                Problem::new(Code::NotFound, format!("source {name} does not exist yet"))
                    .hint(hint)
                    .into(),
            );
        }
        _ => check(parse_settings(body)?, existing)?,
    };
    let partitions = app.engine.roles.source_admin.ends(&settings).await?.len();
    let records = app.engine.roles.source_admin.preview(&settings, limit).await?;
    let samples: Vec<Value> = records
        .iter()
        .map(|(partition, record)| sample(*partition, record, settings.rules.format))
        .collect();
    Ok(Json(json!({ "topic": settings.topic, "partitions": partitions, "records": samples })).into_response())
}

/// Removes `limit` from the body, because it is not a setting of a source.
fn take_limit(body: &mut Value) -> Result<usize, Problem> {
    let Some(value) = body.as_object_mut().and_then(|body| body.remove("limit")) else {
        return Ok(PREVIEW_RECORDS);
    };
    let limit = value
        .as_u64()
        .and_then(|limit| usize::try_from(limit).ok())
        .filter(|limit| (1..=PREVIEW_RECORDS_MAX).contains(limit));
    limit.ok_or_else(|| {
        Problem::new(Code::BadRequest, format!("limit cannot be {value}"))
            .hint(format!("set it to a number from 1 to {PREVIEW_RECORDS_MAX}"))
    })
}

fn sample(partition: i32, record: &Record, format: Format) -> Value {
    let (document, problem) = match &record.value {
        record::RecordValue::Null => (Value::Null, None),
        record::RecordValue::One(bytes) => sample_document(bytes, format),
        record::RecordValue::Many(items) => (json!(format!("{} items", items.len())), None),
    };
    let text = |bytes: &bytes::Bytes| String::from_utf8_lossy(bytes).into_owned();
    let headers: Vec<Value> = record
        .headers
        .iter()
        .map(|(name, value)| json!({ "name": name, "value": value.as_ref().map(text) }))
        .collect();
    let time = (record.time_kind != record::TimeKind::None)
        .then(|| chrono::DateTime::from_timestamp_millis(record.time_ms))
        .flatten();
    json!({
        "partition": partition,
        "offset": record.offset,
        "key": record.key.as_ref().map(text),
        "time": time.map(|time| time.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true)),
        "headers": headers,
        "document": document,
        "problem": problem,
    })
}

/// A value as a document or, if it cannot be one, as text and the reason.
fn sample_document(bytes: &[u8], format: Format) -> (Value, Option<Value>) {
    let text = || Value::String(String::from_utf8_lossy(bytes).into_owned());
    match format {
        Format::Text => match std::str::from_utf8(bytes) {
            Ok(_) => (text(), None),
            Err(error) => (text(), Some(json!({ "code": "not_utf8", "detail": error.to_string() }))),
        },
        Format::Json => match proto::json::parse(bytes) {
            Ok(_) => (serde_json::from_slice(bytes).unwrap_or_else(|_| text()), None),
            Err(why) => (text(), Some(json!({ "code": why.as_str(), "detail": why.to_string() }))),
        },
    }
}

pub(super) async fn source_json(app: &AppState, catalog: &Catalog, name: &SourceName) -> Result<Value, Problem> {
    let source = find_source(catalog, name)?;
    Ok(describe(name, source, &app.engine.tails().await?))
}

fn describe(name: &SourceName, source: &Source, tails: &TailStatuses) -> Value {
    let settings = &source.settings;
    let partitions: Vec<Value> = tails
        .rows
        .iter()
        .filter(|row| row.source == *name)
        .map(|row| {
            json!({
                "partition": row.partition,
                "state": row.state,
                "end": row.end,
                "lag": row.lag,
                "error": row.error,
            })
        })
        .collect();
    json!({
        "name": name,
        "collection": settings.collection,
        "topic": settings.topic,
        "config": source_config::redacted(&settings.config),
        "format": settings.rules.format,
        "key": settings.rules.key,
        "start": settings.start,
        "suspended": source.suspended,
        "skips": source.skips,
        "version": source.version,
        "partitions": partitions,
        "away": tails.unavailable,
    })
}

#[cfg(test)]
mod tests;
