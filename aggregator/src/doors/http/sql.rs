//! `POST /v1/sql`: a statement with parameters and options as JSON, or just the statement as plain text.

use std::time::Duration;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, header},
    response::Response,
};
use plan::scan::ScanSource;
use proto::{Code, PositionVector, Problem};
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use super::{
    answer::respond,
    body::{self, media_type},
    error::HttpError,
    openapi::schemas,
    shape,
    state::AppState,
};
use crate::{
    answer::{QueryOptions, SqlQuery},
    doors::answer_writer::AnswerFormat,
};

/// Bytes of a request besides those of its statement: parameters and JSON escapes.
const EXTRA_BYTES_MAX: usize = 4 << 20;

/// The JSON body of a request.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct SqlBody {
    /// The statement.
    sql: String,
    /// The values of `$1`, `$2` and so on.
    #[serde(default)]
    parameters: Vec<serde_json::Value>,
    /// Who makes a change of definitions.
    #[serde(default)]
    author: Option<String>,
    /// Returns all rows of a statement without a LIMIT, instead of the first 10,000. Without timeout_ms, it may work as
    /// long as any query.
    #[serde(default)]
    all_rows: bool,
    #[serde(flatten)]
    options: QueryOptionsBody,
}

/// The options of any query, SQL or search.
#[derive(Debug, Default, Deserialize, IntoParams, ToSchema)]
#[into_params(parameter_in = Query)]
pub(super) struct QueryOptionsBody {
    /// Waits until the answer contains this position.
    #[serde(default)]
    #[param(value_type = Option<String>)]
    #[schema(value_type = Option<String>)]
    pub at_least: Option<PositionVector>,
    /// Answers without the shards that are missing.
    #[serde(default)]
    pub allow_partial: bool,
    /// When to give up, in milliseconds.
    #[serde(default)]
    pub timeout_ms: Option<u64>,
    /// What is read.
    #[serde(default)]
    pub scan: ScanSourceBody,
    /// A UUID by which the query can be cancelled.
    #[serde(default)]
    pub query_id: Option<String>,
}

/// What a query reads: whatever is fastest, or only raw documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ScanSourceBody {
    #[default]
    Auto,
    Raw,
}

impl QueryOptionsBody {
    pub(super) fn parse(self) -> Result<QueryOptions, Problem> {
        if self.timeout_ms == Some(0) {
            return Err(
                Problem::new(Code::BadRequest, "timeout_ms cannot be 0").hint("set it to at least 1, or leave it out")
            );
        }
        Ok(QueryOptions {
            at_least: self.at_least.unwrap_or_default(),
            allow_partial: self.allow_partial,
            timeout: self.timeout_ms.map(Duration::from_millis),
            read: match self.scan {
                ScanSourceBody::Auto => ScanSource::Auto,
                ScanSourceBody::Raw => ScanSource::Raw,
            },
            id: self.query_id.as_deref().map(QueryOptions::parse_query_id).transpose()?,
        })
    }
}

/// Runs a statement.
#[utoipa::path(
    post,
    path = "/v1/sql",
    operation_id = "sql",
    tag = "SQL",
    params(("Rachis-Author" = Option<String>, Header, description = "Who makes a change of definitions")),
    request_body(description = "The statement, alone or with parameters and options", content((SqlBody = "application/json"), (String = "text/plain"))),
    responses((status = 200, description = "The rows, in the format that Accept asks for", content((schemas::StatementAnswer = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (String = "text/tab-separated-values"), (Vec<u8> = "application/vnd.apache.arrow.stream"))))
)]
pub(super) async fn run(State(app): State<AppState>, headers: HeaderMap, body: Body) -> Result<Response, HttpError> {
    let format = AnswerFormat::of(&headers)?;
    let bytes = body::read(
        &headers,
        body,
        app.engine.options.statement_bytes_max.saturating_add(EXTRA_BYTES_MAX),
        None,
    )
    .await?;
    let query = parse(&headers, &bytes)?;
    let answer = app.engine.query(query).await?;
    Ok(respond(answer, format).await?)
}

fn parse(headers: &HeaderMap, bytes: &[u8]) -> Result<SqlQuery, Problem> {
    if !is_json(headers, bytes)? {
        let sql = std::str::from_utf8(bytes)
            .map_err(|e| Problem::new(Code::BadSql, format!("the statement is not UTF-8: {e}")))?;
        return Ok(SqlQuery {
            sql: sql.to_owned(),
            author: author(headers)?,
            ..SqlQuery::default()
        });
    }
    let body: SqlBody = shape::read(bytes).map_err(|problem| {
        problem.hint(
            "send {\"sql\": \"SELECT 1\"}, if needed with parameters, author, all_rows, at_least, allow_partial, timeout_ms, scan \
             and query_id, or the statement as text/plain",
        )
    })?;
    Ok(SqlQuery {
        sql: body.sql,
        parameters: body.parameters,
        author: body.author.map_or_else(|| author(headers), |author| Ok(Some(author)))?,
        all_rows: body.all_rows,
        options: body.options.parse()?,
    })
}

/// Who makes a change, from the header `Rachis-Author`.
pub(super) fn author(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let Some(value) = headers.get("rachis-author") else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value.as_bytes());
    text.map(|text| Some(text.to_owned()))
        .map_err(|_| Problem::new(Code::BadRequest, "the header Rachis-Author is not UTF-8"))
}

/// Whether a body is JSON: by its content type or, if that is missing or generic, by its first character.
fn is_json(headers: &HeaderMap, bytes: &[u8]) -> Result<bool, Problem> {
    let content_type = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    match media_type(content_type).as_str() {
        "application/json" => Ok(true),
        "text/plain" | "application/sql" | "text/sql" => Ok(false),
        "" | "application/x-www-form-urlencoded" | "application/octet-stream" => {
            Ok(bytes.trim_ascii_start().starts_with(b"{"))
        }
        other => Err(Problem::new(
            Code::UnsupportedMedia,
            format!("the content type {other:?} is not supported for SQL statements"),
        )
        .hint("send application/json or text/plain")),
    }
}

#[cfg(test)]
mod tests;
