//! `rachis search`

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{Failure, http::Client, output};
use crate::cli::{self, Output};

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
    total: u64,
    after: Option<String>,
    stats: Value,
}

#[derive(Deserialize)]
struct Hit<'a> {
    /// None for a row of a view that shows none.
    id: Option<String>,
    #[serde(borrow)]
    document: &'a RawValue,
}

/// Searches, and writes the hits of one page.
pub async fn run(arguments: cli::Search) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let mut question = json!({ "q": arguments.query });
    let further = [
        ("from", &arguments.from),
        ("to", &arguments.to),
        ("sort", &arguments.sort),
        ("after", &arguments.after),
    ];
    for (key, value) in further {
        if let Some(value) = value {
            question[key] = value.as_str().into();
        }
    }
    if let Some(limit) = arguments.limit {
        question["limit"] = limit.into();
    }
    let request = client
        .request(Method::POST, &["collections", &arguments.collection, "search"])
        .json(&question);
    let text = client
        .send(request)
        .await?
        .text()
        .await
        .map_err(|e| Failure::of("the answer broke off", &e))?;
    let answer: Answer = serde_json::from_str(&text).map_err(|e| Failure::of("the answer is not understood", &e))?;
    match arguments.output {
        Output::Json => output::write(format!("{text}\n").as_bytes())?,
        Output::Ndjson => {
            let lines: String = answer
                .hits
                .iter()
                .map(|hit| format!("{}\n", one_line(hit.document.get())))
                .collect();
            output::write(lines.as_bytes())?;
        }
        Output::Csv => {
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let row = |hit: &Hit| {
                format!(
                    "{},{}\n",
                    hit.id.as_deref().map_or(String::new(), quoted),
                    quoted(hit.document.get())
                )
            };
            let rows: String = answer.hits.iter().map(row).collect();
            output::write(format!("id,document\n{rows}").as_bytes())?;
        }
        Output::Table => {
            let rows: Vec<Value> = answer
                .hits
                .iter()
                .map(|hit| json!({ "id": hit.id, "document": one_line(hit.document.get()) }))
                .collect();
            output::write(output::objects(&Value::Array(rows), &["id", "document"]).as_bytes())?;
        }
    }
    if arguments.output != Output::Json {
        output::note(&format!(
            "{} of {} hits in {} ms",
            answer.hits.len(),
            answer.total,
            answer.stats["elapsed_ms"]
        ));
        for warning in answer.stats["warnings"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            output::note(&format!("warning: {warning}"));
        }
        if let Some(after) = answer.after {
            output::note(&format!("the next page: --after {after}"));
        }
    }
    Ok(())
}

/// A document in one line: between its values a line break is a blank as any other.
fn one_line(document: &str) -> String {
    document.replace(['\n', '\r'], " ")
}
