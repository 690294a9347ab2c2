//! `GET` and `POST /v1/saved/{name}@{version}`: calls a saved query, by query string or by JSON body.

use std::collections::BTreeMap;

use axum::{
    extract::{Query, Request, State, rejection::QueryRejection},
    http::HeaderMap,
    response::Response,
};
use proto::{Code, Problem, catalog::is_plain_name};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    answer::respond,
    body,
    error::{HttpError, PathText, path_text},
    openapi::schemas,
    shape::bad_query,
    sql::QueryOptionsBody,
    state::AppState,
};
use crate::{
    answer::SqlQuery,
    doors::{answer_writer::AnswerFormat, names::is_versioned_name},
};

/// The JSON body of a call.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct CallBody {
    /// Values by the names of the parameters.
    #[serde(default)]
    parameters: BTreeMap<String, Value>,
    #[serde(flatten)]
    options: QueryOptionsBody,
}

/// Calls a saved query, with parameters and options in the query string.
#[utoipa::path(
    get,
    path = "/v1/saved/{query}",
    operation_id = "call_query",
    tag = "SQL",
    params(("query" = String, Path, description = "Its name: `name`, `name@2` or `name@tag`"), QueryOptionsBody),
    responses((status = 200, description = "The rows, in the format that Accept asks for", content((schemas::StatementAnswer = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (String = "text/tab-separated-values"), (Vec<u8> = "application/vnd.apache.arrow.stream"))))
)]
pub(super) async fn by_query(
    State(app): State<AppState>,
    path: PathText,
    headers: HeaderMap,
    query: Result<Query<Vec<(String, String)>>, QueryRejection>,
) -> Result<Response, HttpError> {
    let Query(pairs) = query.map_err(|e| bad_query(&e))?;
    let mut given = BTreeMap::new();
    for (name, value) in pairs {
        if given.insert(name.clone(), value).is_some() {
            return Err(Problem::new(Code::BadRequest, format!("{name} is given twice")).into());
        }
    }
    let mut option = |name: &str| given.remove(name);
    let invalid = |name: &str, value: &str| Problem::new(Code::BadRequest, format!("{name} cannot be {value:?}"));
    let options = QueryOptionsBody {
        at_least: match option("at_least") {
            Some(text) => Some(text.parse().map_err(|_| invalid("at_least", &text))?),
            None => None,
        },
        allow_partial: match option("allow_partial") {
            Some(text) => text.parse().map_err(|_| invalid("allow_partial", &text))?,
            None => false,
        },
        timeout_ms: match option("timeout_ms") {
            Some(text) => Some(text.parse().map_err(|_| invalid("timeout_ms", &text))?),
            None => None,
        },
        scan: match option("scan") {
            Some(text) => serde_json::from_value(Value::String(text.clone())).map_err(|_| invalid("scan", &text))?,
            None => Default::default(),
        },
        query_id: option("query_id"),
    };
    let parameters = given.into_iter().map(|(name, value)| (name, Value::String(value)));
    let parameters = parameters.collect();
    call(&app, path, &headers, CallBody { parameters, options }).await
}

/// Calls a saved query, with parameters and options in the body.
#[utoipa::path(
    post,
    path = "/v1/saved/{query}",
    operation_id = "call_query_by_body",
    tag = "SQL",
    params(("query" = String, Path, description = "Its name: `name`, `name@2` or `name@tag`")),
    request_body = CallBody,
    responses((status = 200, description = "The rows, in the format that Accept asks for", content((schemas::StatementAnswer = "application/json"), (String = "application/x-ndjson"), (String = "text/csv"), (String = "text/tab-separated-values"), (Vec<u8> = "application/vnd.apache.arrow.stream"))))
)]
pub(super) async fn by_body(
    State(app): State<AppState>,
    path: PathText,
    request: Request,
) -> Result<Response, HttpError> {
    let headers = request.headers().clone();
    let hint = "send {\"parameters\": {\"name\": \"value\"}}, if needed with at_least, allow_partial, timeout_ms, scan and \
                query_id";
    let body = body::json(request, hint).await?;
    call(&app, path, &headers, body).await
}

async fn call(app: &AppState, path: PathText, headers: &HeaderMap, body: CallBody) -> Result<Response, HttpError> {
    let format = AnswerFormat::of(headers)?;
    let name = path_text(path)?;
    if !is_versioned_name(&name) {
        let problem = Problem::new(Code::NotFound, format!("{name:?} is not the name of a saved query"));
        return Err(problem
            .hint("write /v1/saved/name, /v1/saved/name@2 or /v1/saved/name@tag")
            .into());
    }
    // Values are bound to places; only names become part of the statement.
    let (mut places, mut parameters) = (Vec::new(), Vec::new());
    for (name, value) in body.parameters {
        if !is_plain_name(&name.to_ascii_lowercase()) {
            return Err(Problem::new(Code::BadRequest, format!("the query has no parameter {name:?}")).into());
        }
        parameters.push(value);
        places.push(format!("\"{name}\" => ${}", parameters.len()));
    }
    let query = SqlQuery {
        sql: format!("CALL \"{name}\"({})", places.join(", ")),
        parameters,
        options: body.options.parse()?,
        ..SqlQuery::default()
    };
    let answer = app.engine.query(query).await?;
    Ok(respond(answer, format).await?)
}
