//! What the server says to a statement: rows, or a refusal that must be in words of our own.

use serde_json::{Value, json};

use crate::Client;

/// Words of the planner that no user should see.
pub const FORBIDDEN: [&str; 44] = [
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

/// What the server says.
#[derive(Debug, Clone)]
pub enum Told {
    /// An answer.
    Rows {
        /// Rows, values in the order of the columns.
        rows: Vec<Vec<Value>>,
        /// What was said about it.
        warnings: Value,
    },
    /// The answer was cut at the row limit, so it cannot be compared.
    Cut,
    /// None.
    Refused {
        /// The status.
        status: u16,
        /// Why, with the hint.
        detail: String,
    },
}

/// What is wrong with a refusal, if it is not for a user's eyes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// Our own words.
    Ours,
    /// A word of the planner.
    PlannersWord(&'static str),
    /// The server failed.
    Failed,
}

/// Asks, by columns (`auto`) or from raw documents (`raw`).
pub async fn ask(client: &Client, sql: &str, scan: &str) -> Told {
    let request = client
        .request(reqwest::Method::POST, "/v1/sql")
        .json(&json!({ "sql": sql, "scan": scan }));
    let answer = request
        .send()
        .await
        .unwrap_or_else(|error| panic!("the server does not answer {sql}: {error}"));
    let status = answer.status().as_u16();
    let body: Value = answer
        .json()
        .await
        .unwrap_or_else(|error| panic!("no JSON for {sql}: {error}"));
    if status != 200 {
        let word = |key: &str| body[key].as_str().unwrap_or_default().to_owned();
        return Told::Refused {
            status,
            detail: format!("{} {}", word("detail"), word("hint")).trim().to_owned(),
        };
    }
    if body["stats"]["truncated"] != false {
        return Told::Cut;
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
    Told::Rows {
        rows,
        warnings: body["stats"]["warnings"].clone(),
    }
}

/// Whose words a refusal is in.
pub fn refusal(status: u16, detail: &str) -> Refusal {
    if status >= 500 {
        return Refusal::Failed;
    }
    FORBIDDEN
        .iter()
        .find(|word| detail.contains(**word))
        .map_or(Refusal::Ours, |word| Refusal::PlannersWord(word))
}

/// The first words of a refusal without what it says it of: what it has in common with others.
pub fn class(detail: &str) -> String {
    /// Words that make a class.
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
