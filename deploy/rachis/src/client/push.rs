//! `rachis push`: pushes files into a collection in blocks. Each block has its own idempotency key, so an interrupted
//! push can simply be run again.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use xxhash_rust::xxh3::Xxh3;

use super::{
    Failure,
    http::{Client, broke_off, failure_from_problem, failure_from_response},
    output,
    push_blocks::{BLOCK_BYTES_MAX, Blocks, is_multiline},
};
use crate::cli;

/// Bytes of the largest request that a server accepts. A JSON array is sent whole, so it must fit.
const ARRAY_BYTES_MAX: usize = 64 << 20;
/// Bytes of the read buffer.
const READ_BYTES: usize = 1 << 20;
/// How long a block is retried while the server is busy, unavailable or does not know the outcome.
const RETRY_MAX: Duration = Duration::from_secs(120);
/// The slowest network that a request may have. It bounds how long a server that accepts a connection and stays silent
/// can block a push.
const RATE_MIN_BYTES_PER_SECOND: u64 = 64 << 10;
/// How long a push may be silent before it reports what it waits for.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// Timeout for asking the server which nodes are unavailable.
const NODES_TIMEOUT: Duration = Duration::from_secs(15);
/// The pause between retries doubles from the minimum to the maximum.
const PAUSE_MIN: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// Rejected items that are reported; further ones are only counted.
const ERRORS_SHOWN_MAX: u64 = 10;

/// Pushes all files.
pub(crate) async fn run(arguments: cli::PushArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let bar = progress(&arguments.files);
    let mut push = PushRun {
        client,
        arguments: &arguments,
        bar: bar.clone(),
        totals: Totals::default(),
    };
    let started = Instant::now();
    let mut result = Ok(());
    for file in &arguments.files {
        result = push.push_file(file).await;
        if result.is_err() {
            break;
        }
    }
    bar.finish_and_clear();
    let Totals {
        accepted,
        rejected,
        repeated,
        bytes,
        ..
    } = push.totals;
    let seconds = started.elapsed().as_secs_f64().max(0.001);
    output::note(&format!(
        "{accepted} documents accepted, {rejected} rejected, {:.1} MB in {seconds:.1} s",
        bytes as f64 / 1e6
    ));
    if repeated > 0 {
        output::note(&format!(
            "{repeated} of them had been pushed before and were not stored again; --again stores them again"
        ));
    }
    result?;
    match rejected {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{rejected} items were rejected")).hint(format!(
            "`rachis dead-letters list {}` lists them",
            arguments.collection
        ))),
    }
}

#[derive(Default)]
struct Totals {
    accepted: u64,
    rejected: u64,
    /// Of both: items that an earlier push had already sent.
    repeated: u64,
    bytes: u64,
    /// Items of the current file so far.
    file_items: u64,
}

struct PushRun<'a> {
    client: Client,
    arguments: &'a cli::PushArgs,
    bar: ProgressBar,
    totals: Totals,
}

/// A block to send.
struct Block {
    bytes: Vec<u8>,
    key: String,
    /// Whether each line is a document, even if the block starts with `[`.
    ndjson: bool,
}

impl PushRun<'_> {
    async fn push_file(&mut self, path: &Path) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::new(format!("cannot read {}: {e}", path.display()));
        let input = InputFile::open(path, self.bar.clone()).map_err(failed)?;
        let identity = self.identity(path, input.metadata.as_ref());
        let is_ndjson = self.arguments.ndjson || has_ndjson_name(path);
        let mut blocks = Blocks::new(input.reader, BLOCK_BYTES_MAX, ARRAY_BYTES_MAX);
        self.totals.file_items = 0;
        let mut current = blocks.next().map_err(failed)?;
        let is_array = !is_ndjson && current.trim_ascii_start().starts_with(b"[");
        let multiline = !is_ndjson && is_multiline(&current);
        let cut = |blocks: &mut Blocks<_>, block| {
            if multiline {
                blocks.cut_at_document(block)
            } else {
                Ok(block)
            }
        };
        current = cut(&mut blocks, current).map_err(failed)?;
        let mut number = 0u64;
        while !current.is_empty() {
            let mut next = blocks.next().and_then(|next| cut(&mut blocks, next)).map_err(failed)?;
            while is_array && !next.is_empty() {
                if current.len() + next.len() > ARRAY_BYTES_MAX {
                    return Err(array_too_long(path));
                }
                current.append(&mut next);
                next = blocks.next().map_err(failed)?;
            }
            // A file of a single block may also hold multi-line documents: the server detects its format.
            let ndjson = is_ndjson || !multiline && (number > 0 || !next.is_empty() && !is_array);
            let block = Block {
                bytes: std::mem::take(&mut current),
                key: format!("{identity}-{number}"),
                ndjson,
            };
            self.push_block(path, block).await?;
            number += 1;
            current = next;
        }
        Ok(())
    }

    /// Identifies the file by path, device and inode: a copy, or a new file at the same path, is another file.
    fn identity(&self, path: &Path, metadata: Option<&std::fs::Metadata>) -> String {
        let Some(metadata) = metadata.filter(|_| !self.arguments.again) else {
            return format!("run-{}", uuid::Uuid::now_v7().simple());
        };
        let mut hasher = Xxh3::new();
        let place = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        hasher.update(place.as_os_str().as_encoded_bytes());
        hasher.update(&metadata.dev().to_le_bytes());
        hasher.update(&metadata.ino().to_le_bytes());
        hasher.update(self.arguments.collection.as_bytes());
        hasher.update(&[u8::from(self.arguments.ndjson)]);
        format!("file-{:032x}", hasher.digest128())
    }

    async fn push_block(&mut self, path: &Path, block: Block) -> Result<(), Failure> {
        let answer = self.send(&block).await.map_err(|error| match error {
            SendError::Changed(failure) => failure.hint(format!(
                "{} has changed since it was pushed; --again pushes all of it again",
                path.display()
            )),
            SendError::Failed(failure) => failure,
        })?;
        self.totals.bytes += block.bytes.len() as u64;
        let shown_before = self.totals.rejected;
        let (accepted, rejected) = (
            answer["accepted"].as_u64().unwrap_or(0),
            answer["rejected"].as_u64().unwrap_or(0),
        );
        let show = ERRORS_SHOWN_MAX.saturating_sub(shown_before) as usize;
        for error in answer["errors"].as_array().into_iter().flatten().take(show) {
            let index = self.totals.file_items + error["index"].as_u64().unwrap_or(0);
            let text = format!(
                "{}: item {index}: {}",
                path.display(),
                error["detail"].as_str().unwrap_or("rejected")
            );
            self.note(&text);
        }
        self.totals.accepted += accepted;
        self.totals.rejected += rejected;
        self.totals.file_items += accepted + rejected;
        if answer["repeated"] == true {
            self.totals.repeated += accepted + rejected;
        }
        Ok(())
    }

    /// Sends a block, with retries until its outcome is known.
    async fn send(&self, block: &Block) -> Result<Value, SendError> {
        let started = Instant::now();
        let deadline = started + RETRY_MAX;
        let mut pause = PAUSE_MIN;
        let mut reported = false;
        loop {
            let content_type = if block.ndjson {
                "application/x-ndjson"
            } else {
                "application/json"
            };
            let request = self
                .client
                .request(Method::POST, &["collections", &self.arguments.collection, "documents"])
                .header("content-type", content_type)
                .header("idempotency-key", &block.key)
                .timeout(RETRY_MAX + Duration::from_secs(block.bytes.len() as u64 / RATE_MIN_BYTES_PER_SECOND))
                .body(block.bytes.clone());
            let retryable = match self.response_to(request).await {
                Err(error) => self.client.unreachable(&error),
                Ok(response) => match response.status() {
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                        failure_from_response(response).await
                    }
                    StatusCode::CONFLICT => return Err(SendError::Changed(failure_from_response(response).await)),
                    status => return read_outcome(status, response).await.map_err(SendError::Failed),
                },
            };
            if Instant::now() + pause > deadline {
                return Err(SendError::Failed(retryable));
            }
            if started.elapsed() >= SILENCE_MAX && !std::mem::replace(&mut reported, true) {
                let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
                self.note(&format!("{retryable}\nretrying for up to {seconds} seconds"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// Sends a request. If no response arrives for a while, reports what it waits for.
    async fn response_to(&self, request: reqwest::RequestBuilder) -> reqwest::Result<reqwest::Response> {
        let mut sent = std::pin::pin!(request.send());
        if let Ok(response) = tokio::time::timeout(SILENCE_MAX, &mut sent).await {
            return response;
        }
        self.note("waiting: the server has not yet acknowledged the documents");
        tokio::select! {
            response = &mut sent => return response,
            nodes = self.unhealthy_nodes() => nodes.iter().for_each(|line| self.note(&format!("waiting: {line}"))),
        }
        sent.await
    }

    /// The nodes that the server knows to be unavailable or faulty, with the reasons.
    async fn unhealthy_nodes(&self) -> Vec<String> {
        let sql =
            "SELECT name, coalesce(error, state) AS why FROM rachis.nodes WHERE state <> 'up' OR error IS NOT NULL";
        let body = serde_json::json!({ "sql": sql });
        match tokio::time::timeout(NODES_TIMEOUT, self.client.sql(&body)).await {
            Ok(Ok(answer)) => {
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                answer["rows"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .map(|row| format!("{}: {}", text(&row["name"]), text(&row["why"])))
                    .collect()
            }
            Ok(Err(failure)) => vec![failure.to_string()],
            Err(_) => vec!["the server does not respond to queries either".to_owned()],
        }
    }

    fn note(&self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }
}

enum SendError {
    /// The key was used before with other bytes.
    Changed(Failure),
    Failed(Failure),
}

/// The outcome of a block, also if none of its items was accepted.
async fn read_outcome(status: StatusCode, response: reqwest::Response) -> Result<Value, Failure> {
    let text = response.text().await.map_err(|e| broke_off(&e))?;
    let body: Value =
        serde_json::from_str(&text).map_err(|_| Failure::new(format!("the server returned {status}: {text}")))?;
    match status.is_success() || body["rejected"].is_u64() {
        true => Ok(body),
        false => {
            Err(failure_from_problem(&body).unwrap_or_else(|| Failure::new(format!("the server returned {status}"))))
        }
    }
}

fn array_too_long(path: &Path) -> Failure {
    Failure::new(format!(
        "{} is a JSON array of more than {ARRAY_BYTES_MAX} bytes",
        path.display()
    ))
    .hint("write one document per line (jq -c '.[]'); if each line is an array, add --ndjson")
}

/// Whether the name ends in `.ndjson` or `.jsonl`, compressed or not.
fn has_ndjson_name(path: &Path) -> bool {
    let name = path.to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
    [".ndjson", ".jsonl"].iter().any(|ending| name.ends_with(ending))
}

/// A file being read. It is decompressed; the progress bar counts compressed bytes.
struct InputFile {
    reader: Box<dyn BufRead>,
    metadata: Option<std::fs::Metadata>,
}

impl InputFile {
    fn open(path: &Path, bar: ProgressBar) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self {
                reader: decompressed(CountingReader {
                    inner: io::stdin(),
                    bar,
                })?,
                metadata: None,
            });
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            reader: decompressed(CountingReader { inner: file, bar })?,
            metadata: Some(metadata),
        })
    }
}

/// Decompresses a file; its first bytes show the format.
fn decompressed(file: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    let mut compressed = BufReader::with_capacity(READ_BYTES, file);
    let start = compressed.fill_buf()?;
    let unsupported = |what: &str, command: &str| {
        Err(io::Error::other(format!(
            "{what} is not supported, and nothing was sent; use {command} | rachis push COLLECTION -"
        )))
    };
    match start {
        [0x1f, 0x8b, ..] => Ok(Box::new(BufReader::with_capacity(
            READ_BYTES,
            flate2::bufread::MultiGzDecoder::new(compressed),
        ))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Box::new(BufReader::with_capacity(
            READ_BYTES,
            zstd::stream::read::Decoder::with_buffer(compressed)?,
        ))),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => unsupported("xz compression", "xz -dc FILE"),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => unsupported("bzip2 compression", "bzip2 -dc FILE"),
        [b'P', b'K', 3, 4, ..] => unsupported("a ZIP archive", "unzip -p FILE"),
        _ => Ok(Box::new(compressed)),
    }
}

struct CountingReader<R> {
    inner: R,
    bar: ProgressBar,
}

impl<R: Read> Read for CountingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.bar.inc(read as u64);
        Ok(read)
    }
}

fn progress(files: &[PathBuf]) -> ProgressBar {
    let sizes: Option<Vec<u64>> = files
        .iter()
        .map(|file| std::fs::metadata(file).ok().filter(|m| m.is_file()).map(|m| m.len()))
        .collect();
    match sizes {
        Some(sizes) => ProgressBar::new(sizes.iter().sum())
            .with_style(style("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")),
        None => ProgressBar::no_length().with_style(style("{spinner} {bytes} {bytes_per_sec}")),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_name_may_say_that_it_is_ndjson() {
        for (name, is_ndjson) in [
            ("a.ndjson", true),
            ("a.jsonl.gz", true),
            ("A.NDJSON.zst", true),
            ("a.json", false),
            ("a.gz", false),
            ("ndjson", false),
        ] {
            assert_eq!(has_ndjson_name(Path::new(name)), is_ndjson, "{name}");
        }
    }
}
