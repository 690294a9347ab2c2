//! `rachis sql`

use std::io::Read;

use http_body_util::BodyExt as _;
use reqwest::{
    Body, Method,
    header::{ACCEPT, HeaderMap, TE},
};
use serde_json::{Value, json};

use super::{
    Failure,
    http::{Client, problem_of},
    output::{self, Answer},
};
use crate::cli::{self, Output};

/// Bytes at the end of a JSON answer in which its statistics are.
const STATS_BYTES_MAX: usize = 1 << 20;

/// Asks, and writes the answer as it comes.
pub async fn run(arguments: cli::Sql) -> Result<(), Failure> {
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
        .json(&question(&arguments)?);
    let response = client.send(request).await?;
    match arguments.output {
        Output::Table => {
            let text = response.text().await.map_err(|e| broke_off(&e))?;
            let answer: Answer =
                serde_json::from_str(&text).map_err(|e| Failure::of("the answer is not understood", &e))?;
            output::write(answer.table().as_bytes())?;
            output::note_stats(answer.rows.len(), &answer.stats);
            whole(&answer.stats)
        }
        Output::Json => {
            let mut end = Vec::new();
            pieces(response, |piece| {
                end.extend_from_slice(piece);
                end.drain(..end.len().saturating_sub(STATS_BYTES_MAX));
                output::write(piece)
            })
            .await?;
            output::write(b"\n")?;
            end_of_json(&end)
        }
        Output::Csv => {
            let header = stats_of(response.headers());
            let trailers = pieces(response, output::write).await?;
            let stats = header.or_else(|| stats_of(&trailers)).unwrap_or_default();
            note_warnings(&stats);
            whole(&stats)
        }
        Output::Ndjson => {
            let mut lines = Lines::default();
            pieces(response, |piece| output::write(&lines.rows(piece))).await?;
            lines.end()
        }
    }
}

fn broke_off(error: &reqwest::Error) -> Failure {
    Failure::of("the answer broke off", error)
}

/// Hands on the bytes of an answer as they come; its trailers, if it has any.
async fn pieces(
    response: reqwest::Response,
    mut write: impl FnMut(&[u8]) -> Result<(), Failure>,
) -> Result<HeaderMap, Failure> {
    let (mut body, mut trailers) = (Body::from(response), HeaderMap::new());
    while let Some(frame) = body.frame().await {
        match frame.map_err(|e| broke_off(&e))?.into_data() {
            Ok(piece) => write(&piece)?,
            Err(other) => trailers.extend(other.into_trailers().unwrap_or_default()),
        }
    }
    Ok(trailers)
}

/// The statistics of an answer that has no place for them in its body.
fn stats_of(headers: &HeaderMap) -> Option<Value> {
    serde_json::from_slice(headers.get("rachis-stats")?.as_bytes()).ok()
}

/// What the statistics at the end of a JSON answer say. Nothing in them looks like their own beginning, so the last
/// such place is it.
fn end_of_json(end: &[u8]) -> Result<(), Failure> {
    let text = String::from_utf8_lossy(end);
    let stats = text
        .rsplit_once("],\"stats\":")
        .and_then(|(_, stats)| serde_json::from_str::<Value>(stats.trim_end().strip_suffix('}')?).ok());
    match stats {
        Some(stats) => {
            note_warnings(&stats);
            whole(&stats)
        }
        None => Err(Failure::new("the answer broke off: its statistics are missing")),
    }
}

/// Fails for an answer that was cut, however it was written: a program must not take it for all there is.
fn whole(stats: &Value) -> Result<(), Failure> {
    match stats["truncated"] == true {
        true => Err(Failure::cut("the answer was cut and is not the whole result")
            .hint("a LIMIT in the statement sets how many rows may be returned")),
        false => Ok(()),
    }
}

fn question(arguments: &cli::Sql) -> Result<Value, Failure> {
    let mut sql = arguments.statement.clone();
    if sql == "-" {
        sql.clear();
        std::io::stdin()
            .read_to_string(&mut sql)
            .map_err(|e| Failure::new(format!("cannot read standard input: {e}")))?;
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
        let ends: Vec<usize> = self
            .waiting
            .iter()
            .enumerate()
            .filter(|(_, byte)| **byte == b'\n')
            .map(|(at, _)| at + 1)
            .collect();
        let sure = ends.len().checked_sub(2).map_or(0, |before_last| ends[before_last]);
        let rest = self.waiting.split_off(sure);
        std::mem::replace(&mut self.waiting, rest)
    }

    /// What the last line says.
    fn end(self) -> Result<(), Failure> {
        let last: Value = serde_json::from_slice(&self.waiting)
            .map_err(|_| Failure::new("the answer broke off: it has no end line"))?;
        if last["error"].is_object() {
            return Err(problem_of(&last["error"]).unwrap_or_else(|| Failure::new("the answer broke off")));
        }
        note_warnings(&last["end"]["stats"]);
        whole(&last["end"]["stats"])
    }
}

fn note_warnings(stats: &Value) {
    for warning in stats["warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
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
