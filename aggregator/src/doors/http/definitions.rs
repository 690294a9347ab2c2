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

use super::{
    answer::respond,
    body,
    error::HttpError,
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

/// `GET /v1/definitions`: the current versions.
pub(super) async fn list(State(app): State<AppState>, headers: HeaderMap) -> Result<Response, HttpError> {
    let format = AnswerFormat::of(&headers)?;
    let query = SqlQuery {
        sql: "SHOW DEFINITIONS".to_owned(),
        ..SqlQuery::default()
    };
    Ok(respond(app.engine.query(query).await?, format).await?)
}

/// `GET /v1/definitions/export`: all versions in use as a file of statements.
pub(super) async fn export(State(app): State<AppState>) -> Response {
    let file = definition_file::export(&app.engine.catalog());
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], file).into_response()
}

/// The query string of `apply`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ApplyOptions {
    #[serde(default)]
    dry_run: bool,
}

/// `POST /v1/definitions/apply`: changes the catalog to what a file says, wholly or not at all. With `dry_run`, it only says
/// what would change.
pub(super) async fn apply(
    State(app): State<AppState>,
    options: Result<Query<ApplyOptions>, QueryRejection>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, HttpError> {
    let Query(options) = options.map_err(|e| Problem::new(Code::BadRequest, e.body_text()))?;
    let bytes = body::read(&headers, body, FILE_BYTES_MAX, None).await?;
    let text = String::from_utf8(bytes.to_vec())
        .map_err(|e| Problem::new(Code::BadSql, format!("the file is not UTF-8: {e}")))?;
    let author = author(&headers)?;
    let changes = app.engine.apply_definitions(text, author, options.dry_run).await?;
    Ok(Json(json!({ "applied": !options.dry_run, "changes": changes })).into_response())
}

/// The body of `try`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TryBody {
    /// A CREATE statement of a field or a parser.
    sql: String,
    #[serde(default)]
    limit: Option<usize>,
    #[serde(flatten)]
    options: QueryOptionsBody,
}

/// `POST /v1/definitions/try`: what a definition would find in some documents. Nothing is stored.
pub(super) async fn try_definition(State(app): State<AppState>, request: Request) -> Result<Response, HttpError> {
    let format = AnswerFormat::of(request.headers())?;
    let body: TryBody = body::json(request).await?;
    let query = SqlQuery {
        sql: format!("TRY LIMIT {} {}", body.limit.unwrap_or(TRIED_DOCUMENTS), body.sql),
        options: body.options.parse()?,
        ..SqlQuery::default()
    };
    Ok(respond(app.engine.query(query).await?, format).await?)
}
