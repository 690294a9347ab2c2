//! `rachis push`: files into a collection, block by block, each under a key of its own, so that a push that broke off
//! is simply run again.

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
    http::{Client, problem},
    output,
    push_blocks::{BLOCK_BYTES_MAX, Blocks, spreads_over_lines},
};
use crate::cli;

/// Bytes that a server takes at once: a list cannot be cut, so it must fit.
const LIST_BYTES_MAX: usize = 64 << 20;
/// Bytes of a file that are read at once.
const READ_BYTES: usize = 1 << 20;
/// How long a server that is busy, away or unsure is asked again.
const PATIENCE: Duration = Duration::from_secs(120);
/// The slowest network that a push waits for: a server that accepts a connection and stays silent must not hold it for
/// good.
const SLOWEST_BYTES_PER_SECOND: u64 = 64 << 10;
/// How long a push may be silent before it says what it waits for, and how long the server may take to know.
const QUIET_MAX: Duration = Duration::from_secs(2);
const AWAY_WAIT: Duration = Duration::from_secs(15);
const PAUSE_FIRST: Duration = Duration::from_millis(100);
const PAUSE_LAST: Duration = Duration::from_secs(5);
/// Rejected items that are told; more are counted.
const ERRORS_TOLD_MAX: u64 = 10;

/// Pushes all files.
pub async fn run(arguments: cli::Push) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let bar = progress(&arguments.files);
    let mut push = Push {
        client,
        arguments: &arguments,
        bar: bar.clone(),
        sum: Sum::default(),
    };
    let begun = Instant::now();
    let mut result = Ok(());
    for file in &arguments.files {
        result = push.file(file).await;
        if result.is_err() {
            break;
        }
    }
    bar.finish_and_clear();
    let Sum {
        accepted,
        rejected,
        repeated,
        bytes,
        ..
    } = push.sum;
    let seconds = begun.elapsed().as_secs_f64().max(0.001);
    output::note(&format!(
        "{accepted} documents accepted, {rejected} rejected, {:.1} MB in {seconds:.1} s",
        bytes as f64 / 1e6
    ));
    if repeated > 0 {
        output::note(&format!(
            "{repeated} of them had been pushed before and were not stored again; --again would store them once more"
        ));
    }
    result?;
    match rejected {
        0 => Ok(()),
        _ => Err(Failure::new(format!("{rejected} items were rejected"))
            .hint("select * from rachis.dead_letters shows them")),
    }
}

#[derive(Default)]
struct Sum {
    accepted: u64,
    rejected: u64,
    /// Of both: items that an earlier push had brought.
    repeated: u64,
    bytes: u64,
    /// Items of the file so far.
    items: u64,
}

struct Push<'a> {
    client: Client,
    arguments: &'a cli::Push,
    bar: ProgressBar,
    sum: Sum,
}

/// A block on its way.
struct Block {
    bytes: Vec<u8>,
    key: String,
    /// Whether its lines are documents whatever they look like.
    lines: bool,
}

impl Push<'_> {
    async fn file(&mut self, path: &Path) -> Result<(), Failure> {
        let failed = |e: io::Error| Failure::new(format!("cannot read {}: {e}", path.display()));
        let source = Source::open(path, self.bar.clone()).map_err(failed)?;
        let identity = self.identity(path, source.metadata.as_ref());
        let named_lines = self.arguments.ndjson || is_named_lines(path);
        let mut blocks = Blocks::new(source.reader, BLOCK_BYTES_MAX, LIST_BYTES_MAX);
        self.sum.items = 0;
        let mut current = blocks.next().map_err(failed)?;
        let is_list = !named_lines && current.trim_ascii_start().starts_with(b"[");
        let spread = !named_lines && spreads_over_lines(&current);
        let cut = |blocks: &mut Blocks<_>, block| {
            if spread {
                blocks.cut_at_document(block)
            } else {
                Ok(block)
            }
        };
        current = cut(&mut blocks, current).map_err(failed)?;
        let mut number = 0u64;
        while !current.is_empty() {
            let mut next = blocks.next().and_then(|next| cut(&mut blocks, next)).map_err(failed)?;
            while is_list && !next.is_empty() {
                if current.len() + next.len() > LIST_BYTES_MAX {
                    return Err(
                        Failure::new(format!("{} is one list of over {LIST_BYTES_MAX} bytes", path.display()))
                            .hint("write one document a line (jq -c '.[]'); if its lines are lists, say --ndjson"),
                    );
                }
                current.append(&mut next);
                next = blocks.next().map_err(failed)?;
            }
            // What fits into one block may also be documents over several lines: the server looks.
            let lines = named_lines || !spread && (number > 0 || !next.is_empty() && !is_list);
            let block = Block {
                bytes: std::mem::take(&mut current),
                key: format!("{identity}-{number}"),
                lines,
            };
            self.block(path, block).await?;
            number += 1;
            current = next;
        }
        Ok(())
    }

    /// Names the file for as long as it is that file: a copy, or a new file in its place, is another.
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

    async fn block(&mut self, path: &Path, block: Block) -> Result<(), Failure> {
        let answer = self.send(&block).await.map_err(|refused| match refused {
            Refused::Changed(failure) => failure.hint(format!(
                "{} is not what it was when it was pushed before; --again pushes all of it once more",
                path.display()
            )),
            Refused::Failed(failure) => failure,
        })?;
        self.sum.bytes += block.bytes.len() as u64;
        let told_before = self.sum.rejected;
        let (accepted, rejected) = (
            answer["accepted"].as_u64().unwrap_or(0),
            answer["rejected"].as_u64().unwrap_or(0),
        );
        let room = ERRORS_TOLD_MAX.saturating_sub(told_before) as usize;
        for error in answer["errors"].as_array().into_iter().flatten().take(room) {
            let index = self.sum.items + error["index"].as_u64().unwrap_or(0);
            let text = format!(
                "{}: item {index}: {}",
                path.display(),
                error["detail"].as_str().unwrap_or("rejected")
            );
            self.note(&text);
        }
        self.sum.accepted += accepted;
        self.sum.rejected += rejected;
        self.sum.items += accepted + rejected;
        if answer["repeated"] == true {
            self.sum.repeated += accepted + rejected;
        }
        Ok(())
    }

    /// Sends a block until it is known what became of it.
    async fn send(&self, block: &Block) -> Result<Value, Refused> {
        let begun = Instant::now();
        let until = begun + PATIENCE;
        let mut pause = PAUSE_FIRST;
        let mut told = false;
        loop {
            let content_type = if block.lines {
                "application/x-ndjson"
            } else {
                "application/json"
            };
            let request = self
                .client
                .request(Method::POST, &["collections", &self.arguments.collection, "documents"])
                .header("content-type", content_type)
                .header("idempotency-key", &block.key)
                .timeout(PATIENCE + Duration::from_secs(block.bytes.len() as u64 / SLOWEST_BYTES_PER_SECOND))
                .body(block.bytes.clone());
            let again = match self.answer_of(request).await {
                Err(error) => self.client.unreachable(&error),
                Ok(response) => match response.status() {
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                        problem(response).await
                    }
                    StatusCode::CONFLICT => return Err(Refused::Changed(problem(response).await)),
                    status => return read(status, response).await.map_err(Refused::Failed),
                },
            };
            if Instant::now() + pause > until {
                return Err(Refused::Failed(again));
            }
            if begun.elapsed() >= QUIET_MAX && !std::mem::replace(&mut told, true) {
                let seconds = until.saturating_duration_since(Instant::now()).as_secs();
                self.note(&format!("{again}\ntrying again for up to {seconds} seconds"));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(PAUSE_LAST);
        }
    }

    /// Sends a request. Where no answer comes for a while, it says what is waited for.
    async fn answer_of(&self, request: reqwest::RequestBuilder) -> reqwest::Result<reqwest::Response> {
        let mut sent = std::pin::pin!(request.send());
        if let Ok(answer) = tokio::time::timeout(QUIET_MAX, &mut sent).await {
            return answer;
        }
        self.note("waiting: the server has not said yet that the documents are stored");
        tokio::select! {
            answer = &mut sent => return answer,
            away = self.away() => away.iter().for_each(|line| self.note(&format!("waiting: {line}"))),
        }
        sent.await
    }

    /// What the server knows to be away or not in order.
    async fn away(&self) -> Vec<String> {
        let sql =
            "SELECT name, coalesce(error, state) AS why FROM rachis.nodes WHERE state <> 'up' OR error IS NOT NULL";
        let request = self
            .client
            .request(Method::POST, &["sql"])
            .header("accept", "application/json")
            .json(&serde_json::json!({ "sql": sql }));
        match tokio::time::timeout(AWAY_WAIT, self.client.json(request)).await {
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
            Err(_) => vec!["the server does not answer a question either".to_owned()],
        }
    }

    fn note(&self, text: &str) {
        self.bar.suspend(|| output::note(text));
    }
}

enum Refused {
    /// The key was used with other bytes.
    Changed(Failure),
    Failed(Failure),
}

/// What became of a block: also where none of its items was accepted.
async fn read(status: StatusCode, response: reqwest::Response) -> Result<Value, Failure> {
    let text = response
        .text()
        .await
        .map_err(|e| Failure::of("the answer broke off", &e))?;
    let body: Value =
        serde_json::from_str(&text).map_err(|_| Failure::new(format!("the server answered {status}: {text}")))?;
    match status.is_success() || body["rejected"].is_u64() {
        true => Ok(body),
        false => {
            Err(super::http::problem_of(&body).unwrap_or_else(|| Failure::new(format!("the server answered {status}"))))
        }
    }
}

fn is_named_lines(path: &Path) -> bool {
    let name = path.to_string_lossy().to_ascii_lowercase();
    let name = name.strip_suffix(".gz").or(name.strip_suffix(".zst")).unwrap_or(&name);
    [".ndjson", ".jsonl"].iter().any(|ending| name.ends_with(ending))
}

/// A file being read: unpacked, and counted on the bar as it is on disk.
struct Source {
    reader: Box<dyn BufRead>,
    metadata: Option<std::fs::Metadata>,
}

impl Source {
    fn open(path: &Path, bar: ProgressBar) -> io::Result<Self> {
        if path == Path::new("-") {
            return Ok(Self {
                reader: unpacked(Counted {
                    inner: io::stdin(),
                    bar,
                })?,
                metadata: None,
            });
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        Ok(Self {
            reader: unpacked(Counted { inner: file, bar })?,
            metadata: Some(metadata),
        })
    }
}

/// What a file holds, unpacked where its first bytes say that it is packed.
fn unpacked(file: impl Read + 'static) -> io::Result<Box<dyn BufRead>> {
    let mut packed = BufReader::with_capacity(READ_BYTES, file);
    let begins = packed.fill_buf()?;
    let refused = |what: &str, command: &str| {
        Err(io::Error::other(format!(
            "it is {what}, and nothing was sent; {command}"
        )))
    };
    match begins {
        [0x1f, 0x8b, ..] => Ok(Box::new(BufReader::with_capacity(
            READ_BYTES,
            flate2::bufread::MultiGzDecoder::new(packed),
        ))),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Box::new(BufReader::with_capacity(
            READ_BYTES,
            zstd::stream::read::Decoder::with_buffer(packed)?,
        ))),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => refused(
            "packed with xz",
            "unpack it on the way: xz -dc FILE | rachis push COLLECTION -",
        ),
        [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, ..] => refused(
            "packed with bzip2",
            "unpack it on the way: bzip2 -dc FILE | rachis push COLLECTION -",
        ),
        [b'P', b'K', 3, 4, ..] => refused(
            "a ZIP archive",
            "unpack it on the way: unzip -p FILE | rachis push COLLECTION -",
        ),
        _ => Ok(Box::new(packed)),
    }
}

struct Counted<R> {
    inner: R,
    bar: ProgressBar,
}

impl<R: Read> Read for Counted<R> {
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
    fn a_file_name_may_say_that_it_has_lines() {
        for (name, lines) in [
            ("a.ndjson", true),
            ("a.jsonl.gz", true),
            ("A.NDJSON.zst", true),
            ("a.json", false),
            ("a.gz", false),
            ("ndjson", false),
        ] {
            assert_eq!(is_named_lines(Path::new(name)), lines, "{name}");
        }
    }
}
