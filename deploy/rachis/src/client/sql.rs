//! `rachis sql`: runs statements and writes each answer as it arrives. Without a statement, at a terminal, it becomes
//! [`interactive`].

use std::io::{IsTerminal as _, Read as _};

use aggregator::statements;
use http_body_util::BodyExt as _;
use reqwest::{
    Body, Method, RequestBuilder,
    header::{ACCEPT, HeaderMap, TE},
};
use serde_json::{Value, json};

use super::{
    Failure, export,
    http::{Client, broke_off, failure_from_problem},
    interactive,
    output::{self, Cells, SqlAnswer, note_warnings},
};
use crate::cli::{self, Output, sql_output::SqlOutput};

/// The statistics of a JSON answer are within this many bytes of its end.
const STATS_BYTES_MAX: usize = 1 << 20;

/// Runs the statements of the arguments, of a file or of standard input.
pub(crate) async fn run(mut arguments: cli::SqlArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let text = match (&arguments.statement, &arguments.file) {
        (_, Some(file)) => {
            std::fs::read_to_string(file).map_err(|e| Failure::new(format!("cannot read {}: {e}", file.display())))?
        }
        (Some(text), None) if text != "-" => text.clone(),
        (None, None) if std::io::stdin().is_terminal() => {
            if !std::io::stdout().is_terminal() {
                let failure = Failure::usage("there is no statement, and the output is no terminal for the shell");
                return Err(failure.hint("give a statement or a file (-f FILE)"));
            }
            return interactive::run(client, arguments).await;
        }
        _ => standard_input()?,
    };
    let found = statements(&text);
    if found.is_empty() {
        let hint = "give it as an argument, in a file (-f FILE), on standard input, or at a terminal";
        return Err(Failure::usage("there is no statement").hint(hint));
    }
    arguments.all_rows |= matches!(arguments.output, SqlOutput::File(_));
    let format = match (&arguments.output, found.len()) {
        (SqlOutput::File(file), 1) => return export::run(&client, &arguments, &text, file).await,
        (SqlOutput::Shown(format), 1) => return stream(&client, &arguments, &text, *format).await,
        (SqlOutput::Shown(Output::Arrow) | SqlOutput::File(_), _) => {
            let failure =
                Failure::usage("a file, or an Arrow stream, has the answer of one statement; this text has several");
            return Err(failure.hint("run them one by one"));
        }
        (SqlOutput::Shown(format), _) => *format,
    };
    let mut truncated = None;
    for (index, statement) in found.iter().enumerate() {
        if index > 0 && format == Output::Table {
            output::write(b"\n")?;
        }
        match stream(&client, &arguments, statement.text, format).await {
            Err(failure) if failure.is_truncated() => truncated = Some(failure),
            other => other
                .map_err(|failure| failure.within(&format!("statement {} (line {})", index + 1, statement.at.0)))?,
        }
    }
    truncated.map_or(Ok(()), Err)
}

fn standard_input() -> Result<String, Failure> {
    let mut text = String::new();
    std::io::stdin()
        .read_to_string(&mut text)
        .map_err(|e| Failure::new(format!("cannot read standard input: {e}")))?;
    Ok(text)
}

/// The request of a statement, whose answer has this format.
pub(crate) fn request(client: &Client, arguments: &cli::SqlArgs, sql: &str, format: Output) -> RequestBuilder {
    let accept = match format {
        Output::Table | Output::Json => "application/json",
        Output::Ndjson => "application/x-ndjson",
        Output::Csv => "text/csv",
        Output::Tsv => "text/tab-separated-values",
        Output::Arrow => "application/vnd.apache.arrow.stream",
    };
    let request = client.request(Method::POST, &["sql"]).header(ACCEPT, accept);
    request.header(TE, "trailers").json(&request_body(arguments, sql))
}

/// Runs one statement and streams the answer.
async fn stream(client: &Client, arguments: &cli::SqlArgs, sql: &str, format: Output) -> Result<(), Failure> {
    if format == Output::Table {
        let response = client.send(request(client, arguments, sql, format)).await?;
        let text = response.text().await.map_err(|e| broke_off(&e))?;
        let answer = parse_answer(&text, sql)?;
        output::write(answer.table(Cells::of_stdout()).as_bytes())?;
        output::note_stats(answer.rows.len(), &answer.stats);
        return require_complete(&answer.stats);
    }
    let stats = pass_on(client, arguments, sql, format, &mut |chunk| output::write(chunk)).await?;
    note_warnings(&stats);
    require_complete(&stats)
}

/// The answer of a statement as JSON.
pub(crate) fn parse_answer<'a>(text: &'a str, sql: &str) -> Result<SqlAnswer<'a>, Failure> {
    let mut answer: SqlAnswer =
        serde_json::from_str(text).map_err(|e| Failure::with_cause("cannot parse the answer", &e))?;
    answer.is_explained = first_word(sql) == "EXPLAIN";
    Ok(answer)
}

/// The first word of a statement, in capitals.
pub(crate) fn first_word(sql: &str) -> String {
    let mut rest = sql.trim_start();
    loop {
        let comment_end = match rest.get(..2) {
            Some("--") => rest.find('\n'),
            Some("/*") => rest.find("*/").map(|at| at + 2),
            _ => break,
        };
        rest = comment_end.map_or("", |end| &rest[end..]).trim_start();
    }
    let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_');
    rest[..end.unwrap_or(rest.len())].to_uppercase()
}

/// Sends a statement and writes its answer, in any format but a table, as it arrives. Returns the statistics.
pub(crate) async fn pass_on(
    client: &Client,
    arguments: &cli::SqlArgs,
    sql: &str,
    format: Output,
    write: &mut (dyn FnMut(&[u8]) -> Result<(), Failure> + Send),
) -> Result<Value, Failure> {
    let response = client.send(request(client, arguments, sql, format)).await?;
    match format {
        Output::Table | Output::Json => {
            let mut end = Vec::new();
            stream_body(response, |chunk| {
                end.extend_from_slice(chunk);
                end.drain(..end.len().saturating_sub(STATS_BYTES_MAX));
                write(chunk)
            })
            .await?;
            write(b"\n")?;
            stats_of_json(&end)
        }
        Output::Csv | Output::Tsv | Output::Arrow => {
            let header = stats_of(response.headers());
            let trailers = stream_body(response, write).await?;
            header.or_else(|| stats_of(&trailers)).ok_or_else(no_statistics)
        }
        Output::Ndjson => {
            let mut rows = NdjsonRows::default();
            stream_body(response, |chunk| write(&rows.push(chunk))).await?;
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

/// The statistics of an answer that has them in a header or trailer.
pub(crate) fn stats_of(headers: &HeaderMap) -> Option<Value> {
    serde_json::from_slice(headers.get("rachis-stats")?.as_bytes()).ok()
}

/// The statistics at the end of a JSON answer. They do not contain the text they start with, so its last
/// occurrence is their start.
fn stats_of_json(end: &[u8]) -> Result<Value, Failure> {
    let text = String::from_utf8_lossy(end);
    let stats = text
        .rsplit_once("],\"stats\":")
        .and_then(|(_, stats)| serde_json::from_str::<Value>(stats.trim_end().strip_suffix('}')?).ok());
    stats.ok_or_else(no_statistics)
}

/// The failure of an answer without the end that every whole answer has.
fn no_statistics() -> Failure {
    Failure::new("the answer ended early: its statistics are missing")
        .hint("if a proxy is between, let it pass the trailers of HTTP/1.1 responses")
}

/// Fails for a truncated answer in every output format, so that no program takes it for the whole result.
pub(super) fn require_complete(stats: &Value) -> Result<(), Failure> {
    match stats["truncated"] == true {
        true => Err(
            Failure::truncated("the answer was truncated and is not the complete result")
                .hint("add a LIMIT to the statement, or get all rows with --all-rows or in a file (-o FILE)"),
        ),
        false => Ok(()),
    }
}

fn request_body(arguments: &cli::SqlArgs, sql: &str) -> Value {
    let parameter = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    let parameters: Vec<Value> = arguments.parameters.iter().map(parameter).collect();
    let mut body = json!({ "sql": sql, "parameters": parameters });
    if let Some(author) = &arguments.author {
        body["author"] = author.as_str().into();
    }
    if arguments.all_rows {
        body["all_rows"] = true.into();
    }
    add_options(&mut body, &arguments.options);
    body
}

/// Adds the options of a statement or a search to the body of its request.
pub(crate) fn add_options(body: &mut Value, options: &cli::QueryArgs) {
    body["allow_partial"] = options.allow_partial.into();
    if let Some(at_least) = &options.at_least {
        body["at_least"] = at_least.as_str().into();
    }
    if let Some(timeout_ms) = options.timeout_ms {
        body["timeout_ms"] = timeout_ms.into();
    }
    if options.raw {
        body["scan"] = "raw".into();
    }
}

/// Splits an NDJSON answer into rows and its last line, which holds the statistics or an error.
#[derive(Default)]
struct NdjsonRows {
    /// The last complete line so far, which may be the end line, and the incomplete line after it.
    pending: Vec<u8>,
    /// Where the incomplete line begins.
    open_line: usize,
}

impl NdjsonRows {
    /// Adds a chunk and returns the lines that are certainly rows.
    fn push(&mut self, chunk: &[u8]) -> Vec<u8> {
        let before = self.pending.len();
        self.pending.extend_from_slice(chunk);
        let line_end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte == b'\n');
        let Some(last) = line_end(chunk) else {
            return Vec::new();
        };
        let rows_end = line_end(&chunk[..last]).map_or(self.open_line, |end| before + end + 1);
        self.open_line = before + last + 1 - rows_end;
        let rest = self.pending.split_off(rows_end);
        std::mem::replace(&mut self.pending, rest)
    }

    /// The statistics in the last line.
    fn finish(self) -> Result<Value, Failure> {
        let mut last: Value = serde_json::from_slice(&self.pending)
            .map_err(|_| Failure::new("the answer ended early: its last line is missing"))?;
        if last["error"].is_object() {
            return Err(failure_from_problem(&last["error"]).unwrap_or_else(|| Failure::new("the answer ended early")));
        }
        match last["end"]["stats"].take() {
            stats @ Value::Object(_) => Ok(stats),
            _ => Err(no_statistics()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_word_of_a_statement_follows_its_comments() {
        for sql in [
            "explain select 1",
            " -- a\n/* b */ EXPLAIN(ANALYZE) SELECT 1",
            "Explain",
        ] {
            assert_eq!(first_word(sql), "EXPLAIN", "{sql}");
        }
        for sql in ["", "--", "/* a", "(select 1)", "é", "-"] {
            assert_ne!(first_word(sql), "EXPLAIN", "{sql}");
        }
    }

    #[test]
    fn the_last_line_is_never_a_row_however_the_answer_is_chunked() {
        let answer = b"{\"a\":1}\n{\"a\":2}\n{\"end\":{\"stats\":{}}}\n";
        for length in 1..=answer.len() {
            let mut lines = NdjsonRows::default();
            let rows: Vec<u8> = answer.chunks(length).flat_map(|chunk| lines.push(chunk)).collect();
            assert_eq!(rows, b"{\"a\":1}\n{\"a\":2}\n", "chunks of {length}");
            assert!(lines.finish().is_ok());
        }
        let mut lines = NdjsonRows::default();
        lines.push(b"{\"a\":1}\n{\"error\":{\"detail\":\"too slow\"}}\n");
        assert_eq!(lines.finish().map_err(|f| f.to_string()), Err("error: too slow".into()));
        assert!(NdjsonRows::default().finish().is_err());
        let mut cut = NdjsonRows::default();
        cut.push(b"{\"a\":1}\n{\"a\":2}\n");
        assert!(
            cut.finish()
                .is_err_and(|failure| failure.to_string().contains("statistics are missing"))
        );
    }
}
