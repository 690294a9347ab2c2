//! `/v1/definitions`: lists, exports, applies and tries definitions. Each is a statement or a list of them.

use axum::{
    Json,
    body::Body,
    extract::{Query, Request, State, rejection::QueryRejection},
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use proto::{Code, Problem};
use serde::Deserialize;
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::{
    answer::respond,
    body,
    error::HttpError,
    openapi::schemas,
    shape::bad_query,
    sql::{QueryOptionsBody, author},
    state::AppState,
};
use crate::{
    answer::SqlQuery,
    definition_file::{self, FILE_BYTES_MAX},
    doors::answer_writer::AnswerFormat,
};

/// Documents that are tried unless the request says otherwise.
const TRIED_DOCUMENTS: usize = 20;

/// Lists the current versions of definitions.
#[utoipa::path(
    get,
    path = "/v1/definitions",
    operation_id = "list_definitions",
    tag = "Definitions",
    responses((status = 200, description = "The rows, in the format that Accept asks for", content((schemas::StatementAnswer = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (String = "text/tab-separated-values"), (Vec<u8> = "application/vnd.apache.arrow.stream"))))
)]
pub(super) async fn list(State(app): State<AppState>, headers: HeaderMap) -> Result<Response, HttpError> {
    let format = AnswerFormat::of(&headers)?;
    let query = SqlQuery {
        sql: "SHOW DEFINITIONS".to_owned(),
        ..SqlQuery::default()
    };
    Ok(respond(app.engine.query(query).await?, format).await?)
}

/// Returns all versions in use as a file of statements.
#[utoipa::path(
    get,
    path = "/v1/definitions/export",
    operation_id = "export_definitions",
    tag = "Definitions",
    responses((status = 200, description = "A file of statements", body = String, content_type = "text/plain"))
)]
pub(super) async fn export(State(app): State<AppState>) -> Response {
    let file = definition_file::export(&app.engine.catalog());
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], file).into_response()
}

/// The query string of `apply`.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ApplyOptions {
    /// Only says what would change.
    #[serde(default)]
    dry_run: bool,
}

/// Changes the definitions to what a file says, wholly or not at all.
#[utoipa::path(
    post,
    path = "/v1/definitions/apply",
    operation_id = "apply_definitions",
    tag = "Definitions",
    params(ApplyOptions, ("Rachis-Author" = Option<String>, Header, description = "Who makes a change of definitions")),
    request_body(content = String, content_type = "text/plain", description = "A file of statements"),
    responses((status = 200, description = "What was changed, or would be", body = Object))
)]
pub(super) async fn apply(
    State(app): State<AppState>,
    options: Result<Query<ApplyOptions>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let Query(options) = options.map_err(|e| bad_query(&e).hint("?dry_run=true only says what would change"))?;
    let bytes = body::read(&headers, body, FILE_BYTES_MAX, None).await?;
    let text = String::from_utf8(bytes.to_vec())
        .map_err(|e| Problem::new(Code::BadSql, format!("the file is not UTF-8: {e}")))?;
    let author = author(&headers)?;
    let changes = app.engine.apply_definitions(text, author, options.dry_run).await?;
    Ok(Json(json!({ "applied": !options.dry_run, "changes": changes })).into_response())
}

/// The body of `try`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct TryBody {
    /// A CREATE statement of a field or a parser.
    sql: String,
    /// The number of documents: 20 by default.
    #[serde(default)]
    limit: Option<usize>,
    #[serde(flatten)]
    options: QueryOptionsBody,
}

/// Shows what a definition would find in some documents. Nothing is stored.
#[utoipa::path(
    post,
    path = "/v1/definitions/try",
    operation_id = "try_definition",
    tag = "Definitions",
    request_body = TryBody,
    responses((status = 200, description = "The rows, in the format that Accept asks for", content((schemas::StatementAnswer = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (String = "text/tab-separated-values"), (Vec<u8> = "application/vnd.apache.arrow.stream"))))
)]
pub(super) async fn try_definition(State(app): State<AppState>, request: Request) -> Result<Response, HttpError> {
    let format = AnswerFormat::of(request.headers())?;
    let hint = "send {\"sql\": \"CREATE FIELD events.double AS ms * 2\"}, if needed with limit, at_least, allow_partial, \
                timeout_ms, scan and query_id";
    let body: TryBody = body::json(request, hint).await?;
    let query = SqlQuery {
        sql: format!("TRY LIMIT {} {}", body.limit.unwrap_or(TRIED_DOCUMENTS), body.sql),
        options: body.options.parse()?,
        ..SqlQuery::default()
    };
    Ok(respond(app.engine.query(query).await?, format).await?)
}
