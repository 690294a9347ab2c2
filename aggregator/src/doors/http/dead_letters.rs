//! `/v1/collections/{c}/dead-letters`: shows a dead letter, ingests some again, deletes them.

use std::collections::BTreeSet;

use axum::{
    Json,
    extract::{
        Path, Query, Request, State,
        rejection::{PathRejection, QueryRejection},
    },
    response::{IntoResponse, Response},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use plan::scan::DeadRecord;
use proto::{
    Address, Code, Problem, SourceName,
    limits::{DOCUMENT_BYTES_MAX, PUSH_BYTES_MAX},
    record::{Format, Key, TimeKind},
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{
    body,
    error::{HttpError, PathText, bad_path, path_text},
    openapi::schemas,
    shape::bad_query,
    state::AppState,
};
use crate::{
    doors::{
        names::{collection_name, find_collection},
        sources::check_key,
    },
    query::{RedriveRequest, Redriven, RejectedLetter},
};

const HINT: &str = "{\"source\": \"orders\", \"code\": \"not_json\"} ingests such dead letters again; {} all; \
                    {\"addresses\": [\"orders/0@17\"], \"value\": \"…\"} one with another value; format and key as of a source";

/// The query string of [`clear`].
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields, default)]
#[into_params(parameter_in = Query)]
pub(super) struct DeadLetterFilter {
    /// Only those of this source; the source of pushes is `push`.
    source: Option<String>,
}

/// Which dead letters to ingest again, and how.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct RedriveBody {
    /// Only those of this source; the source of pushes is `push`.
    #[schema(value_type = Option<String>)]
    source: Option<SourceName>,
    /// Only those with this code, for example `not_json`.
    code: Option<String>,
    /// Only those at these addresses.
    #[schema(value_type = Option<Vec<String>>)]
    addresses: Option<BTreeSet<Address>>,
    /// The value of the record, instead of its own. Requires a single address.
    value: Option<String>,
    /// `json` or `text`, instead of the format of the source.
    #[schema(value_type = Option<String>)]
    format: Option<Format>,
    /// `record` or a path, instead of the key of the source.
    #[schema(value_type = Option<String>)]
    key: Option<Key>,
    /// `next` of an earlier answer, to go on there.
    #[schema(value_type = Option<String>)]
    from: Option<Address>,
    /// Only count them.
    dry_run: bool,
}

/// Shows a dead letter with its record.
#[utoipa::path(
    get,
    path = "/v1/collections/{collection}/dead-letters/{*address}",
    operation_id = "get_dead_letter",
    tag = "Dead letters",
    params(("collection" = String, Path, description = "Its name"), ("address" = String, Path, description = "The address of the dead letter, percent-encoded")),
    responses((status = 200, description = "The dead letter", body = schemas::DeadLetter))
)]
pub(super) async fn get(
    State(app): State<AppState>,
    path: Result<Path<(String, String)>, PathRejection>,
) -> Result<Response, HttpError> {
    let Path((collection, address)) = path.map_err(|e| bad_path(&e))?;
    let name = collection_name(&collection)?;
    let address: Address = address.parse().map_err(Problem::from)?;
    let found = app.engine.dead_letter(&name, &address).await?;
    let found = found.ok_or_else(|| {
        Problem::new(
            Code::NotFound,
            format!("collection {name} has no dead letter at {address}"),
        )
        .hint("select address from rachis.dead_letters; one that was ingested again, or cleared, is gone")
    })?;
    Ok(Json(described(&found)).into_response())
}

/// Ingests dead letters again, each once. One that still cannot become a document stays.
#[utoipa::path(
    post,
    path = "/v1/collections/{collection}/dead-letters/redrive",
    operation_id = "redrive_dead_letters",
    tag = "Dead letters",
    params(("collection" = String, Path, description = "Its name")),
    request_body = RedriveBody,
    responses((status = 200, description = "What became of them", body = schemas::RedriveAnswer))
)]
pub(super) async fn redrive(
    State(app): State<AppState>,
    path: PathText,
    request: Request,
) -> Result<Response, HttpError> {
    let name = collection_name(&path_text(path)?)?;
    let body: RedriveBody = body::json_up_to(request, PUSH_BYTES_MAX, HINT).await?;
    if body.value.is_some() && body.addresses.as_ref().is_none_or(|addresses| addresses.len() != 1) {
        let problem = Problem::new(Code::BadRequest, "value requires addresses with exactly one address");
        return Err(problem.hint(HINT).into());
    }
    if body
        .value
        .as_ref()
        .is_some_and(|value| value.len() > DOCUMENT_BYTES_MAX)
    {
        let detail = format!("value has more than {DOCUMENT_BYTES_MAX} bytes");
        return Err(Problem::new(Code::TooLarge, detail).into());
    }
    if body.addresses.is_some() && (body.source.is_some() || body.code.is_some()) {
        let problem = Problem::new(Code::BadRequest, "addresses excludes source and code");
        return Err(problem.hint(HINT).into());
    }
    check_key(body.key.as_ref())?;
    let dry_run = body.dry_run;
    let request = RedriveRequest {
        source: body.source,
        code: body.code,
        addresses: body.addresses,
        value: body.value.map(Into::into),
        format: body.format,
        key: body.key,
        from: body.from,
        dry_run,
    };
    let redriven = app.engine.redrive(&name, &request).await?;
    Ok(Json(answer(&redriven, dry_run)).into_response())
}

/// Deletes the dead letters of a collection, or of one of its sources, so that partitions that stopped because of them
/// continue. The source need not exist: a dropped source may have left dead letters.
#[utoipa::path(
    delete,
    path = "/v1/collections/{collection}/dead-letters",
    operation_id = "clear_dead_letters",
    tag = "Dead letters",
    params(("collection" = String, Path, description = "Its name"), DeadLetterFilter),
    responses((status = 200, description = "How many were deleted", body = Object))
)]
pub(super) async fn clear(
    State(app): State<AppState>,
    path: PathText,
    query: Result<Query<DeadLetterFilter>, QueryRejection>,
) -> Result<Response, HttpError> {
    let name = collection_name(&path_text(path)?)?;
    let Query(DeadLetterFilter { source }) = query.map_err(|e| {
        bad_query(&e).hint("?source=NAME clears the dead letters of one source only; the source of pushes is push")
    })?;
    let source: Option<SourceName> = source.map(|source| source.parse()).transpose().map_err(Problem::from)?;
    let catalog = app.engine.catalog();
    let collection = find_collection(&catalog, &name)?;
    let cleared = app
        .engine
        .roles
        .ingest
        .clear_dead_letters(collection.uid, source.as_ref())
        .await?;
    Ok(
        Json(json!({ "collection": name, "source": source, "cleared": cleared.letters, "complete": cleared.complete }))
            .into_response(),
    )
}

fn answer(redriven: &Redriven, dry_run: bool) -> Value {
    let next = redriven.next.as_ref().map(Address::to_string);
    let error = |error: &RejectedLetter| json!({ "address": error.address.to_string(), "code": error.code, "detail": error.detail });
    let errors: Vec<Value> = redriven.errors.iter().map(error).collect();
    if dry_run {
        return json!({
            "dead_letters": redriven.redriven,
            "rejected": redriven.rejected,
            "errors": errors,
            "dry_run": true,
            "next": next,
        });
    }
    json!({
        "redriven": redriven.redriven,
        "rejected": redriven.rejected,
        "gone": redriven.gone,
        "errors": errors,
        "position": redriven.position.to_string(),
        "next": next,
    })
}

/// A dead letter for people and programs.
fn described(found: &DeadRecord) -> Value {
    let DeadRecord { letter, record } = found;
    let mut described = json!({
        "address": letter.address.to_string(),
        "ingested": rfc3339(letter.ingested_ms),
        "code": letter.code,
        "detail": letter.detail,
        "length": letter.length,
        "complete": found.is_whole(),
        "value": text_or_base64(&letter.bytes),
    });
    if let Some(record) = record {
        let headers = record.headers.iter();
        described["time"] = match record.time_kind {
            TimeKind::None => Value::Null,
            TimeKind::Create | TimeKind::Append => rfc3339(record.time_ms).into(),
        };
        described["key"] = record.key.as_deref().map_or(Value::Null, text_or_base64);
        described["headers"] = headers
            .map(|(name, value)| json!({ "name": name, "value": value.as_deref().map(text_or_base64) }))
            .collect();
    }
    described
}

/// `{"text": …}`, or `{"base64": …}` if it is not UTF-8.
fn text_or_base64(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "base64": BASE64_STANDARD.encode(bytes) }),
    }
}

fn rfc3339(ms: i64) -> Option<String> {
    let time = chrono::DateTime::from_timestamp_millis(ms)?;
    Some(time.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}
