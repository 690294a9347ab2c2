//! `rachis search`: one page of hits.

use std::collections::BTreeMap;

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use super::{Failure, http::Client, output, sql};
use crate::cli::{self, SearchOutput};

#[derive(Deserialize)]
struct SearchAnswer<'a> {
    #[serde(borrow)]
    hits: Vec<Hit<'a>>,
    total: u64,
    after: Option<String>,
    #[serde(default)]
    facets: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    others: BTreeMap<String, u64>,
    #[serde(default)]
    histogram: Vec<Value>,
    #[serde(default)]
    fields: Vec<Value>,
    #[serde(default)]
    fields_documents: u64,
    stats: Value,
}

#[derive(Deserialize)]
struct Hit<'a> {
    /// `None` for a row of a view without ids.
    id: Option<String>,
    #[serde(default)]
    highlight: BTreeMap<String, Vec<String>>,
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
        SearchOutput::Json => format!("{text}\n"),
        SearchOutput::Ndjson => ndjson(&answer.hits),
        SearchOutput::Csv => csv(&answer.hits),
        SearchOutput::Table => table(&answer),
    };
    output::write(shown.as_bytes())?;
    if arguments.output != SearchOutput::Json {
        note_stats(&answer, arguments.output);
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
        ("highlight", &arguments.highlight),
        ("facets", &arguments.facets),
        ("histogram", &arguments.histogram),
    ];
    for (key, value) in options {
        if let Some(value) = value {
            body[key] = value.as_str().into();
        }
    }
    if let Some(limit) = arguments.limit {
        body["limit"] = limit.into();
    }
    if let Some(documents) = arguments.fields {
        body["fields"] = documents.into();
    }
    sql::add_options(&mut body, &arguments.options);
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

/// Tables of the hits and of what was asked about all matches.
fn table(answer: &SearchAnswer) -> String {
    let found = |(path, fragments): (&String, &Vec<String>)| format!("{path}: {}", fragments.join(" … "));
    let hit = |hit: &Hit| {
        let found: Vec<String> = hit.highlight.iter().map(found).collect();
        json!({ "id": hit.id, "found": found.join(", "), "document": one_line(hit.document.get()) })
    };
    let has_found = answer.hits.iter().any(|hit| !hit.highlight.is_empty());
    let keys: &[&str] = if has_found {
        &["id", "found", "document"]
    } else {
        &["id", "document"]
    };
    let mut tables = Vec::new();
    if !answer.hits.is_empty() {
        let hits = answer.hits.iter().map(hit).collect();
        tables.push(output::objects(&hits, keys));
    }
    for (path, values) in &answer.facets {
        let row = |value: &Value| json!({ "value": value["value"], "matches": value["count"] });
        let mut rows: Vec<Value> = values.iter().map(row).collect();
        if let Some(others) = answer.others.get(path).filter(|others| **others > 0) {
            rows.push(json!({ "value": "(others)", "matches": others }));
        }
        let table = output::objects(&Value::Array(rows), &["value", "matches"]);
        tables.push(format!("{path}\n{table}"));
    }
    if !answer.histogram.is_empty() {
        let row = |bucket: &Value| json!({ "time": bucket["time"], "matches": bucket["count"] });
        let rows = answer.histogram.iter().map(row).collect();
        tables.push(output::objects(&rows, &["time", "matches"]));
    }
    if !answer.fields.is_empty() {
        let list = |values: &Value| {
            let texts = values.as_array().into_iter().flatten();
            let texts: Vec<String> = texts
                .map(|text| text.as_str().map_or_else(|| text.to_string(), str::to_owned))
                .collect();
            texts.join(", ")
        };
        let row = |field: &Value| {
            let (kinds, samples) = (list(&field["kinds"]), list(&field["samples"]));
            json!({ "path": field["path"], "kinds": kinds, "matches": field["documents"], "samples": samples })
        };
        let rows = answer.fields.iter().map(row).collect();
        tables.push(output::objects(&rows, &["path", "kinds", "matches", "samples"]));
    }
    tables.join("\n")
}

fn note_stats(answer: &SearchAnswer, form: SearchOutput) {
    output::note(&format!(
        "{} of {} hits in {} ms",
        answer.hits.len(),
        answer.total,
        answer.stats["elapsed_ms"]
    ));
    let has_more = !(answer.facets.is_empty() && answer.histogram.is_empty() && answer.fields.is_empty());
    if has_more && form != SearchOutput::Table {
        output::note("facets, histogram and fields are shown by --output table and json");
    }
    if !answer.fields.is_empty() {
        output::note(&format!("fields of the newest {} matches", answer.fields_documents));
    }
    output::note_warnings(&answer.stats);
    if let Some(after) = &answer.after {
        output::note(&format!("next page: --after {after}"));
    }
}

/// A document on one line. Line breaks in JSON are always whitespace between tokens, so a space is equivalent.
fn one_line(document: &str) -> String {
    document.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    #[test]
    fn the_options_of_a_search_are_in_its_request() {
        let request = |options: &[&str]| {
            let words = ["rachis", "search", "events", "disk"].iter().chain(options);
            match Cli::try_parse_from(words).expect("valid arguments").command {
                Command::Search(arguments) => request_body(&arguments),
                other => panic!("{other:?}"),
            }
        };
        assert_eq!(request(&[]), json!({ "q": "disk", "allow_partial": false }));
        assert_eq!(
            request(&["--raw", "--allow-partial", "--timeout-ms=500", "--at-least=push/0@12"]),
            json!({
                "q": "disk",
                "allow_partial": true,
                "timeout_ms": 500,
                "at_least": "push/0@12",
                "scan": "raw",
            })
        );
    }
}
