//! `rachis sql`: runs a statement and writes the answer as it arrives.

use std::io::Read;

use http_body_util::BodyExt as _;
use reqwest::{
    Body, Method,
    header::{ACCEPT, HeaderMap, TE},
};
use serde_json::{Value, json};

use super::{
    Failure,
    http::{Client, broke_off, failure_from_problem},
    output::{self, SqlAnswer, note_warnings},
};
use crate::cli::{self, Output};

/// The statistics of a JSON answer are within this many bytes of its end.
const STATS_BYTES_MAX: usize = 1 << 20;

/// Runs the statement and streams the answer.
pub(crate) async fn run(arguments: cli::SqlArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let accept = match arguments.output {
        Output::Table | Output::Json => "application/json",
        Output::Ndjson => "application/x-ndjson",
        Output::Csv => "text/csv",
    };
    let request = client
        .request(Method::POST, &["sql"])
        .header(ACCEPT, accept)
        .header(TE, "trailers")
        .json(&request_body(&arguments)?);
    let response = client.send(request).await?;
    match arguments.output {
        Output::Table => {
            let text = response.text().await.map_err(|e| broke_off(&e))?;
            let answer: SqlAnswer =
                serde_json::from_str(&text).map_err(|e| Failure::with_cause("cannot parse the answer", &e))?;
            output::write(answer.table().as_bytes())?;
            output::note_stats(answer.rows.len(), &answer.stats);
            require_complete(&answer.stats)
        }
        Output::Json => {
            let mut end = Vec::new();
            stream_body(response, |chunk| {
                end.extend_from_slice(chunk);
                end.drain(..end.len().saturating_sub(STATS_BYTES_MAX));
                output::write(chunk)
            })
            .await?;
            output::write(b"\n")?;
            finish_json(&end)
        }
        Output::Csv => {
            let header = stats_of(response.headers());
            let trailers = stream_body(response, output::write).await?;
            let stats = header.or_else(|| stats_of(&trailers)).unwrap_or_default();
            note_warnings(&stats);
            require_complete(&stats)
        }
        Output::Ndjson => {
            let mut rows = NdjsonRows::default();
            stream_body(response, |chunk| output::write(&rows.push(chunk))).await?;
            rows.finish()
        }
    }
}

/// Passes each chunk of the body to `write` and returns the trailers.
async fn stream_body(
    response: reqwest::Response,
    mut write: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<HeaderMap, Failure> {
    let (mut body, mut trailers) = (Body::from(response), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(|e| broke_off(&e))?.into_data() {
            Ok(chunk) => write(&chunk)?,
            Err(other) => trailers.extend(other.into_trailers().unwrap_or_default()),
        }
    }
    Ok(trailers)
}

/// The statistics of a CSV answer, which has them in a header or trailer.
fn stats_of(headers: &HeaderMap) -> Option<Value> {
    serde_json::from_slice(headers.get("rachis-stats")?.as_bytes()).ok()
}

/// Evaluates the statistics at the end of a JSON answer. They do not contain the text they start with, so its last
/// occurrence is their start.
fn finish_json(end: &[u8]) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(end);
    let stats = text
        .rsplit_once("],\"stats\":")
        .and_then(|(_, stats)| serde_json::from_str::<Value>(stats.trim_end().strip_suffix('}')?).ok());
    match stats {
        Some(stats) => {
            note_warnings(&stats);
            require_complete(&stats)
        }
        None => Err(Failure::new("the answer ended early: its statistics are missing")),
    }
}

/// Fails for a truncated answer in every output format, so that no program takes it for the whole result.
fn require_complete(stats: &Value) -> Result<(), Failure> {
    match stats["truncated"] == true {
        true => Err(
            Failure::truncated("the answer was truncated and is not the complete result")
                .hint("add a LIMIT to the statement to choose how many rows are returned"),
        ),
        false => Ok(()),
    }
}

fn request_body(arguments: &cli::SqlArgs) -> Result<Value, Failure> {
    let mut sql = arguments.statement.clone();
    if sql == "-" {
        sql.clear();
        std::io::stdin()
            .read_to_string(&mut sql)
            .map_err(|e| Failure::new(format!("cannot read standard input: {e}")))?;
    }
    let parameter = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    let parameters: Vec<Value> = arguments.parameters.iter().map(parameter).collect();
    let mut body = json!({ "sql": sql, "parameters": parameters, "allow_partial": arguments.allow_partial });
    if let Some(author) = &arguments.author {
        body["author"] = author.as_str().into();
    }
    if let Some(at_least) = &arguments.at_least {
        body["at_least"] = at_least.as_str().into();
    }
    if let Some(timeout_ms) = arguments.timeout_ms {
        body["timeout_ms"] = timeout_ms.into();
    }
    if arguments.raw {
        body["scan"] = "raw".into();
    }
    Ok(body)
}

/// Splits an NDJSON answer into rows and its last line, which holds the statistics or an error.
#[derive(Default)]
struct NdjsonRows {
    /// The last complete line so far, which may be the end line, and the incomplete line after it.
    pending: Vec<u8>,
}

impl NdjsonRows {
    /// Adds a chunk and returns the lines that are certainly rows.
    fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        self.pending.extend_from_slice(chunk);
        let ends: Vec<usize> = self
            .pending
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .map(|(at, _)| at + 1)
            .collect();
        let rows_end = ends.len().checked_sub(2).map_or(0, |before_last| ends[before_last]);
        let rest = self.pending.split_off(rows_end);
        std::mem::replace(&mut self.pending, rest)
    }

    /// Evaluates the last line.
    fn finish(self) -> Result<(), Failure> {
        let last: Value = serde_json::from_slice(&self.pending)
            .map_err(|_| Failure::new("the answer ended early: its last line is missing"))?;
        if last["error"].is_object() {
            return Err(failure_from_problem(&last["error"]).unwrap_or_else(|| Failure::new("the answer ended early")));
        }
        note_warnings(&last["end"]["stats"]);
        require_complete(&last["end"]["stats"])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_never_a_row_however_the_answer_is_chunked() {
        let answer = b"{\"a\":1}\n{\"a\":2}\n{\"end\":{\"stats\":{}}}\n";
        for cut in 0..answer.len() {
            let mut lines = NdjsonRows::default();
            let mut rows = lines.push(&answer[..cut]);
            rows.extend(lines.push(&answer[cut..]));
            assert_eq!(rows, b"{\"a\":1}\n{\"a\":2}\n", "cut at {cut}");
            assert!(lines.finish().is_ok());
        }
        let mut lines = NdjsonRows::default();
        lines.push(b"{\"a\":1}\n{\"error\":{\"detail\":\"too slow\"}}\n");
        assert_eq!(lines.finish().map_err(|f| f.to_string()), Err("error: too slow".into()));
        assert!(NdjsonRows::default().finish().is_err());
    }
}
