//! `rachis sql`

use std::io::Read;

use futures::StreamExt;
use reqwest::{Method, header::ACCEPT};
use serde_json::{Value, json};

use super::{
    Failure,
    http::{Client, problem_of},
    output::{self, Answer},
};
use crate::cli::{self, Output};

/// Asks, and writes the answer as it comes.
pub async fn run(arguments: cli::Sql) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let accept = match arguments.output {
        Output::Table | Output::Json => "application/json",
        Output::Ndjson => "application/x-ndjson",
        Output::Csv => "text/csv",
    };
    let request = client.request(Method::POST, &["sql"]).header(ACCEPT, accept).json(&question(&arguments)?);
    let response = client.send(request).await?;
    let broke_off = |e: reqwest::Error| Failure::of("the answer broke off", &e);
    match arguments.output {
        Output::Table => {
            let text = response.text().await.map_err(broke_off)?;
            let answer: Answer = serde_json::from_str(&text).map_err(|e| Failure::of("the answer is not understood", &e))?;
            output::write(answer.table().as_bytes())?;
            output::note_stats(answer.rows.len(), &answer.stats);
            Ok(())
        }
        Output::Json | Output::Csv => {
            let stats = response.headers().get("rachis-stats").and_then(|value| serde_json::from_slice::<Value>(value.as_bytes()).ok());
            let mut body = response.bytes_stream();
            while let Some(piece) = body.next().await {
                output::write(&piece.map_err(broke_off)?)?;
            }
            if arguments.output == Output::Json {
                output::write(b"\n")?;
            }
            note_warnings(&stats.unwrap_or_default());
            Ok(())
        }
        Output::Ndjson => {
            let mut lines = Lines::default();
            let mut body = response.bytes_stream();
            while let Some(piece) = body.next().await {
                output::write(&lines.rows(&piece.map_err(broke_off)?))?;
            }
            lines.end()
        }
    }
}

fn question(arguments: &cli::Sql) -> Result<Value, Failure> {
    let mut sql = arguments.statement.clone();
    if sql == "-" {
        sql.clear();
        std::io::stdin().read_to_string(&mut sql).map_err(|e| Failure::new(format!("cannot read standard input: {e}")))?;
    }
    let parameter = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    let parameters: Vec<Value> = arguments.parameters.iter().map(parameter).collect();
    let mut question = json!({ "sql": sql, "parameters": parameters, "allow_partial": arguments.allow_partial });
    if let Some(at_least) = &arguments.at_least {
        question["at_least"] = at_least.as_str().into();
    }
    if let Some(timeout_ms) = arguments.timeout_ms {
        question["timeout_ms"] = timeout_ms.into();
    }
    if arguments.raw {
        question["scan"] = "raw".into();
    }
    Ok(question)
}

/// The lines of an answer as they come: all but the last are rows.
#[derive(Default)]
struct Lines {
    /// A whole line that may be the last, then what has come of the next.
    waiting: Vec<u8>,
}

impl Lines {
    /// The rows that are known to be rows now.
    fn rows(&mut self, piece: &[u8]) -> Vec<u8> {
        self.waiting.extend_from_slice(piece);
        let ends: Vec<usize> = self.waiting.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1).collect();
        let sure = ends.len().checked_sub(2).map_or(0, |before_last| ends[before_last]);
        let rest = self.waiting.split_off(sure);
        std::mem::replace(&mut self.waiting, rest)
    }

    /// What the last line says.
    fn end(self) -> Result<(), Failure> {
        let last: Value = serde_json::from_slice(&self.waiting).map_err(|_| Failure::new("the answer broke off: it has no end line"))?;
        if last["error"].is_object() {
            return Err(problem_of(&last["error"]).unwrap_or_else(|| Failure::new("the answer broke off")));
        }
        note_warnings(&last["end"]["stats"]);
        Ok(())
    }
}

fn note_warnings(stats: &Value) {
    for warning in stats["warnings"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        output::note(&format!("warning: {warning}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_no_row_however_the_bytes_are_cut() {
        let answer = b"{\"a\":1}\n{\"a\":2}\n{\"end\":{\"stats\":{}}}\n";
        for cut in 0..answer.len() {
            let mut lines = Lines::default();
            let mut rows = lines.rows(&answer[..cut]);
            rows.extend(lines.rows(&answer[cut..]));
            assert_eq!(rows, b"{\"a\":1}\n{\"a\":2}\n", "cut at {cut}");
            assert!(lines.end().is_ok());
        }
        let mut lines = Lines::default();
        lines.rows(b"{\"a\":1}\n{\"error\":{\"detail\":\"too slow\"}}\n");
        assert_eq!(lines.end().map_err(|f| f.to_string()), Err("error: too slow".into()));
        assert!(Lines::default().end().is_err());
    }
}
