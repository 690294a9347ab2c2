//! `rachis search`: one page of hits.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{Failure, http::Client, output};
use crate::cli::{self, Output};

#[derive(Deserialize)]
struct SearchAnswer<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
    total: u64,
    after: Option<String>,
    stats: Value,
}

#[derive(Deserialize)]
struct Hit<'a> {
    /// `None` for a row of a view without ids.
    id: Option<String>,
    #[serde(borrow)]
    document: &'a RawValue,
}

/// Searches and writes one page of hits.
pub(crate) async fn run(arguments: cli::SearchArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let request = client
        .request(Method::POST, &["collections", &arguments.collection, "search"])
        .json(&request_body(&arguments));
    let text = client.text(request).await?;
    let answer: SearchAnswer =
        serde_json::from_str(&text).map_err(|e| Failure::with_cause("cannot parse the answer", &e))?;
    let shown = match arguments.output {
        Output::Json => format!("{text}\n"),
        Output::Ndjson => ndjson(&answer.hits),
        Output::Csv => csv(&answer.hits),
        Output::Table => table(&answer.hits),
    };
    output::write(shown.as_bytes())?;
    if arguments.output != Output::Json {
        note_stats(&answer);
    }
    Ok(())
}

fn request_body(arguments: &cli::SearchArgs) -> Value {
    let mut body = json!({ "q": arguments.query });
    let options = [
        ("from", &arguments.from),
        ("to", &arguments.to),
        ("sort", &arguments.sort),
        ("after", &arguments.after),
    ];
    for (key, value) in options {
        if let Some(value) = value {
            body[key] = value.as_str().into();
        }
    }
    if let Some(limit) = arguments.limit {
        body["limit"] = limit.into();
    }
    body
}

fn ndjson(hits: &[Hit]) -> String {
    hits.iter()
        .map(|hit| format!("{}\n", one_line(hit.document.get())))
        .collect()
}

fn csv(hits: &[Hit]) -> String {
    let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
    let row = |hit: &Hit| {
        format!(
            "{},{}\n",
            hit.id.as_deref().map_or(String::new(), quoted),
            quoted(hit.document.get())
        )
    };
    let rows: String = hits.iter().map(row).collect();
    format!("id,document\n{rows}")
}

fn table(hits: &[Hit]) -> String {
    let rows: Vec<Value> = hits
        .iter()
        .map(|hit| json!({ "id": hit.id, "document": one_line(hit.document.get()) }))
        .collect();
    output::objects(&Value::Array(rows), &["id", "document"])
}

fn note_stats(answer: &SearchAnswer) {
    output::note(&format!(
        "{} of {} hits in {} ms",
        answer.hits.len(),
        answer.total,
        answer.stats["elapsed_ms"]
    ));
    output::note_warnings(&answer.stats);
    if let Some(after) = &answer.after {
        output::note(&format!("next page: --after {after}"));
    }
}

/// A document on one line. Line breaks in JSON are always whitespace between tokens, so a space is equivalent.
fn one_line(document: &str) -> String {
    document.replace(['\n', '\r'], " ")
}
