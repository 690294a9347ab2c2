//! What the server answers to a SQL statement: rows, or an error, which must be worded for users.

use serde_json::{Value, json};

use crate::Client;

/// Planner internals that no user should see in an error.
const PLANNER_WORDS: [&str; 44] = [
    "Internal error",
    "Physical plan does not support",
    "OneOf(",
    "coercion from",
    "This feature is not implemented",
    "Error during planning",
    "Schema error",
    "type_coercion",
    "Utf8View",
    "LogicalPlan",
    "DataFusion",
    "subquery_alias",
    "rachis_0",
    "Execution error",
    "Arrow error",
    "Cast error",
    "CAST(",
    "LargeUtf8",
    "Int64",
    "Int32",
    "Float64",
    "Decimal128",
    "Timestamp(",
    "ScalarValue",
    "ScalarFunction",
    "ScalarSubquery",
    "SchemaError",
    "ptimizer rule",
    "panicked",
    "TypeSignature",
    "RecordBatch",
    "ParserError",
    "Exec:",
    "No function matches",
    "failed to match any signature",
    "hysical input schema",
    "does not satisfy",
    "Candidate functions",
    "Cannot coerce",
    "common type to coerce",
    "compatible types",
    "Incompatible inputs",
    "infer common argument",
    "Utf8",
];

/// What the server answered.
#[derive(Debug, Clone)]
pub enum SqlResponse {
    /// A complete answer.
    Rows {
        /// The rows, with values in column order.
        rows: Vec<Vec<Value>>,
        /// The answer's warnings.
        warnings: Value,
    },
    /// The answer was truncated at the row limit, so it cannot be compared.
    Truncated,
    /// An error.
    Error {
        /// The HTTP status.
        status: u16,
        /// The detail and the hint.
        detail: String,
    },
}

/// Whether an error is fit for a user to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ErrorWording {
    /// Worded for users.
    Plain,
    /// Leaks this word of the planner.
    Internal(&'static str),
    /// The server itself failed.
    ServerError,
}

/// Sends a statement; `scan` is `auto` (by columns) or `raw` (from raw documents).
pub async fn fetch(client: &Client, sql: &str, scan: &str) -> SqlResponse {
    let request = client
        .request(reqwest::Method::POST, "/v1/sql")
        .json(&json!({ "sql": sql, "scan": scan }));
    let response = request
        .send()
        .await
        .unwrap_or_else(|error| panic!("no response to {sql}: {error}"));
    let status = response.status().as_u16();
    let body: Value = response
        .json()
        .await
        .unwrap_or_else(|error| panic!("the response to {sql} is not JSON: {error}"));
    if status != 200 {
        let text = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        return SqlResponse::Error {
            status,
            detail: format!("{} {}", text("detail"), text("hint")).trim().to_owned(),
        };
    }
    if body["stats"]["truncated"] != false {
        return SqlResponse::Truncated;
    }
    let names: Vec<&str> = body["columns"]
        .as_array()
        .expect("columns")
        .iter()
        .filter_map(|column| column["name"].as_str())
        .collect();
    let rows = body["rows"]
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| names.iter().map(|name| row[*name].clone()).collect())
        .collect();
    SqlResponse::Rows {
        rows,
        warnings: body["stats"]["warnings"].clone(),
    }
}

/// Classifies the wording of an error.
pub fn error_wording(status: u16, detail: &str) -> ErrorWording {
    if status >= 500 {
        return ErrorWording::ServerError;
    }
    PLANNER_WORDS
        .iter()
        .find(|word| detail.contains(**word))
        .map_or(ErrorWording::Plain, |word| ErrorWording::Internal(word))
}

/// The first words of an error without names and values: what it has in common with other errors of its kind.
pub fn error_class(detail: &str) -> String {
    /// How many words make a class.
    const WORDS_MAX: usize = 9;
    let plain = |word: &&str| {
        word.chars()
            .all(|c| c.is_ascii_alphabetic() || c == ',' || c == '.' || c == ':')
    };
    detail
        .split_whitespace()
        .filter(plain)
        .take(WORDS_MAX)
        .collect::<Vec<_>>()
        .join(" ")
}
