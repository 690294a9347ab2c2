//! `rachis push`: pushes files into a collection in blocks. Each block has its own idempotency key, and is remembered, so a
//! push can simply be run again: after an interruption, or after lines were appended to a file.

mod blocks;
mod columnar;
mod files;
mod input;
mod memory;

use std::{
    io::{self, IsTerminal as _},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::{Duration, Instant, UNIX_EPOCH},
};

use indicatif::{HumanBytes, HumanDuration, ProgressBar, ProgressStyle};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use xxhash_rust::xxh3::Xxh3;

use self::{
    blocks::Cut,
    input::Input,
    memory::{FileIdentity, FileMemory, KnownBlock},
};
use super::{
    Failure,
    http::{Client, broke_off, failure_from_problem, failure_from_response},
    output,
};
use crate::cli::{self, PushFormat};

/// How long a block is retried while the server is busy, unavailable or does not know the outcome.
const RETRY_MAX: Duration = Duration::from_secs(120);
/// The slowest network that a request may have. It bounds how long a server that accepts a connection and stays silent
/// can block a push.
const RATE_MIN_BYTES_PER_SECOND: u64 = 64 << 10;
/// How long a push may be silent before it reports what it waits for.
const SILENCE_MAX: Duration = Duration::from_secs(2);
/// How often a push says how far it is if there is no terminal for a bar.
const PROGRESS_EVERY: Duration = Duration::from_secs(10);
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
    let files = files::expand(&arguments.files)?;
    let memory_folder = memory::folder();
    if let Some(folder) = &memory_folder {
        memory::prepare(folder).map_err(|error| no_memory(folder, &error))?;
    }
    let mut push = PushRun {
        client,
        arguments: &arguments,
        collection: String::new(),
        memory_folder,
        bar: progress(&files),
        said_at: Instant::now(),
        totals: Totals::default(),
    };
    push.collection = push.collection_uid().await?;
    let started = Instant::now();
    let (mut result, mut failed) = (Ok(()), 0);
    for file in &files {
        match push.push_file(file).await {
            Err(PushError::File(failure)) if files.len() > 1 => {
                failed += 1;
                push.note(&failure.to_string());
            }
            Err(PushError::File(failure) | PushError::All(failure)) => {
                result = Err(failure);
                break;
            }
            Ok(()) => {}
        }
    }
    push.bar.finish_and_clear();
    let Totals {
        accepted,
        rejected,
        repeated,
        bytes,
        ..
    } = push.totals;
    let seconds = started.elapsed().as_secs_f64().max(0.001);
    let of_files = if files.len() > 1 {
        format!(" from {} files", files.len())
    } else {
        String::new()
    };
    output::note(&format!(
        "{accepted} new documents accepted{of_files}, {rejected} rejected, {:.1} MB in {seconds:.1} s ({:.1} MB/s)",
        bytes as f64 / 1e6,
        bytes as f64 / 1e6 / seconds,
    ));
    if repeated > 0 {
        output::note(&format!(
            "{repeated} items had been pushed before and were not stored again; --again stores them again"
        ));
    }
    result?;
    if failed > 0 {
        let failure = Failure::new(format!("{failed} of {} files could not be pushed", files.len()));
        return Err(failure.hint("the errors above say why; the next push of the same files sends what is missing"));
    }
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
    /// Items that an earlier push had already sent.
    repeated: u64,
    bytes: u64,
    /// Items of the current file so far.
    file_items: u64,
}

struct PushRun<'a> {
    client: Client,
    arguments: &'a cli::PushArgs,
    /// The uid of the collection.
    collection: String,
    memory_folder: Option<PathBuf>,
    bar: ProgressBar,
    /// When a line last said how far the push is.
    said_at: Instant,
    totals: Totals,
}

/// A block to send.
struct Block {
    bytes: Vec<u8>,
    key: String,
    content_type: &'static str,
}

impl PushRun<'_> {
    /// The uid of the collection, which is created if it does not exist: what was pushed into a dropped one is pushed again.
    /// Retries while the server is unavailable.
    async fn collection_uid(&self) -> Result<String, Failure> {
        let segments = ["collections", &self.arguments.collection];
        let get = || self.client.request(Method::GET, &segments);
        let put = || self.client.request(Method::PUT, &segments).json(&json!({}));
        let (_, described) = match self.until_answered(get).await? {
            (StatusCode::NOT_FOUND, _) => match self.until_answered(put).await? {
                // Somebody else has created it.
                (StatusCode::CONFLICT, _) => self.until_answered(get).await?,
                created => created,
            },
            answered => answered,
        };
        match described["uid"].as_str() {
            Some(uid) => Ok(uid.to_owned()),
            None => Err(failure_from_problem(&described)
                .unwrap_or_else(|| Failure::new("the answer does not describe the collection"))),
        }
    }

    async fn push_file(&mut self, path: &Path) -> Result<(), PushError> {
        let failed = |e: io::Error| PushError::File(Failure::new(format!("cannot read {}: {e}", path.display())));
        self.bar
            .set_message(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        let mut input = Input::open(path, self.arguments.format, &self.bar).map_err(failed)?;
        if let Some(guess) = &input.guess {
            self.note(&format!("{}: {guess}", path.display()));
        }
        let identity = self.identity(path, &input);
        let mut memory = self.memory(path, identity.as_ref())?;
        let key = |memory: &FileMemory, number: usize| format!("file-{}-{number}", memory.key());
        self.totals.file_items = 0;
        let known: Vec<KnownBlock> = memory.blocks().to_vec();
        let mut ends_with_line = true;
        for (number, known) in known.iter().enumerate() {
            let bytes = input.blocks.exactly(known.bytes).map_err(failed)?;
            if !known.is(input.blocks.header(), &bytes) {
                return Err(PushError::File(changed(path)));
            }
            ends_with_line = bytes.ends_with(b"\n");
            match known.items {
                Some(items) => {
                    self.totals.repeated += items;
                    self.totals.file_items += items;
                }
                None => {
                    let key = key(&memory, number);
                    self.send_noted(path, &mut input, &mut memory, bytes, key).await?;
                }
            }
        }
        let mut is_cut = false;
        for number in known.len().. {
            let mut bytes = input.blocks.next().map_err(failed)?;
            let unfinished = input.unfinished_line(&bytes).map_err(failed)?;
            is_cut |= unfinished > 0;
            bytes.truncate(bytes.len() - unfinished);
            if bytes.is_empty() {
                break;
            }
            // The end of a line, or of an array, whose beginning was pushed before.
            let is_continued = number == known.len()
                && number > 0
                && !ends_with_line
                && !bytes.starts_with(b"\n")
                && !bytes.starts_with(b"\r\n");
            if is_continued || number > 0 && *input.blocks.cut() == Cut::Array && !bytes.trim_ascii().is_empty() {
                return Err(PushError::File(changed(path)));
            }
            let known = KnownBlock::new(input.blocks.header(), &bytes);
            memory.begin(known).map_err(|e| PushError::All(not_remembered(&e)))?;
            let key = key(&memory, number);
            self.send_noted(path, &mut input, &mut memory, bytes, key).await?;
        }
        match is_cut {
            true => Err(PushError::File(is_unfinished(path))),
            false => Ok(()),
        }
    }

    /// Pushes the block that was noted last, and notes what became of it.
    async fn send_noted(
        &mut self,
        path: &Path,
        input: &mut Input,
        memory: &mut FileMemory,
        bytes: Vec<u8>,
        key: String,
    ) -> Result<(), PushError> {
        let items = match bytes.trim_ascii().is_empty() {
            true => 0,
            false => {
                let block = self.block(input, bytes, key);
                let block =
                    block.map_err(|e| PushError::File(Failure::new(format!("cannot read {}: {e}", path.display()))))?;
                match self.push_block(path, block).await {
                    Ok(items) => items,
                    Err(SendError::Refused(failure)) => {
                        memory.refuse().map_err(|e| PushError::All(not_remembered(&e)))?;
                        let sent = match self.totals.file_items {
                            0 => String::new(),
                            items => format!(", in the block after its first {items} items"),
                        };
                        return Err(PushError::File(failure.within(&format!("{}{sent}", path.display()))));
                    }
                    Err(SendError::Changed(failure)) => {
                        return Err(PushError::File(failure.hint(format!(
                            "{} has changed since it was pushed; --again pushes all of it again",
                            path.display()
                        ))));
                    }
                    Err(SendError::Failed(failure)) => return Err(PushError::All(failure)),
                }
            }
        };
        let acknowledged = memory.acknowledge(items);
        acknowledged.map_err(|e| PushError::All(not_remembered(&e)))
    }

    /// A block as it is sent.
    fn block(&self, input: &mut Input, mut bytes: Vec<u8>, key: String) -> io::Result<Block> {
        let content_type = match input.format {
            PushFormat::Csv => "text/csv",
            PushFormat::Tsv => "text/tab-separated-values",
            PushFormat::Ndjson | PushFormat::Parquet | PushFormat::Arrow => "application/x-ndjson",
            // A file of a single block may also hold multi-line documents: the server detects its format.
            PushFormat::Json => {
                let is_whole = self.totals.file_items == 0 && input.blocks.is_at_end()?;
                match is_whole || *input.blocks.cut() != Cut::Lines {
                    true => "application/json",
                    false => "application/x-ndjson",
                }
            }
        };
        if let Cut::Rows(header) = input.blocks.cut() {
            bytes.splice(..0, header.bytes.iter().copied());
        }
        Ok(Block {
            bytes,
            key,
            content_type,
        })
    }

    /// What the file is known by. Standard input has no identity.
    fn identity(&self, path: &Path, input: &Input) -> Option<FileIdentity> {
        let metadata = input.metadata.as_ref().filter(|metadata| metadata.is_file())?;
        let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
        let hash = |of: &[&[u8]]| {
            let mut hasher = Xxh3::new();
            of.iter().for_each(|bytes| hasher.update(bytes));
            hasher.update(self.collection.as_bytes());
            if let Some(column) = &self.arguments.column {
                hasher.update(column.as_bytes());
            }
            format!("{:032x}", hasher.digest128())
        };
        // A file system gives the inode of a deleted file to the next one. Where it does not say when a file was created, the
        // path must tell them apart.
        let created = metadata.created().ok();
        let created = created
            .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
            .map(|since| since.as_nanos());
        let which = created.map_or(path.as_os_str().as_encoded_bytes().to_vec(), |nanos| {
            nanos.to_le_bytes().to_vec()
        });
        Some(FileIdentity {
            inode: hash(&[&metadata.dev().to_le_bytes(), &metadata.ino().to_le_bytes(), &which]),
            place: hash(&[path.as_os_str().as_encoded_bytes()]),
            path,
        })
    }

    /// What was pushed of a file.
    fn memory(&self, path: &Path, identity: Option<&FileIdentity>) -> Result<FileMemory, PushError> {
        let (Some(identity), Some(folder)) = (identity, &self.memory_folder) else {
            return Ok(FileMemory::none(identity, identity.is_none() || self.arguments.again));
        };
        let failed = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock => PushError::File(
                Failure::new(format!("another push of {} is running", path.display())).hint("wait until it has ended"),
            ),
            _ => PushError::All(no_memory(folder, &error).within(&path.display().to_string())),
        };
        let mut memory = FileMemory::open(folder, identity, self.arguments.again).map_err(failed)?;
        if memory.is_certain(folder, identity) {
            return Ok(memory);
        }
        let unread =
            |error: io::Error| PushError::File(Failure::new(format!("cannot read {}: {error}", path.display())));
        let is_alike = !memory.blocks().is_empty() && self.has_blocks(path, memory.blocks()).map_err(unread)?;
        if is_alike && !self.arguments.resume {
            return Err(PushError::File(replaced(path)));
        }
        if is_alike {
            memory.adopt(folder, identity).map_err(failed)?;
            return Ok(memory);
        }
        drop(memory);
        FileMemory::open(folder, identity, true).map_err(failed)
    }

    /// Whether a file begins with these blocks.
    fn has_blocks(&self, path: &Path, known: &[KnownBlock]) -> io::Result<bool> {
        let mut input = Input::open(path, self.arguments.format, &ProgressBar::hidden())?;
        for known in known {
            let bytes = input.blocks.exactly(known.bytes)?;
            if !known.is(input.blocks.header(), &bytes) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Pushes a block. Returns the number of its items.
    async fn push_block(&mut self, path: &Path, block: Block) -> Result<u64, SendError> {
        let answer = self.send(&block).await?;
        self.totals.bytes += block.bytes.len() as u64;
        let (accepted, rejected) = (
            answer["accepted"].as_u64().unwrap_or(0),
            answer["rejected"].as_u64().unwrap_or(0),
        );
        let is_repeated = answer["repeated"] == true;
        let show = match is_repeated {
            true => 0,
            false => ERRORS_SHOWN_MAX.saturating_sub(self.totals.rejected) as usize,
        };
        for error in answer["errors"].as_array().into_iter().flatten().take(show) {
            let index = self.totals.file_items + error["index"].as_u64().unwrap_or(0);
            let text = format!(
                "{}: item {index}: {}",
                path.display(),
                error["detail"].as_str().unwrap_or("rejected")
            );
            self.note(&text);
        }
        let items = accepted + rejected;
        self.totals.file_items += items;
        match is_repeated {
            true => self.totals.repeated += items,
            false => {
                self.totals.accepted += accepted;
                self.totals.rejected += rejected;
            }
        }
        self.say_progress();
        Ok(items)
    }

    /// Without a terminal there is no bar: says how far the push is from time to time.
    fn say_progress(&mut self) {
        if io::stderr().is_terminal() || self.said_at.elapsed() < PROGRESS_EVERY {
            return;
        }
        self.said_at = Instant::now();
        let rate = HumanBytes(self.bar.per_sec() as u64);
        let (read, documents) = (HumanBytes(self.bar.position()), self.totals.accepted);
        let left = match self.bar.length() {
            Some(length) => format!(" of {}, {} left", HumanBytes(length), HumanDuration(self.bar.eta())),
            None => String::new(),
        };
        output::note(&format!("{documents} documents, {read}{left}, {rate}/s"));
    }

    /// Sends a block, with retries until its outcome is known.
    async fn send(&self, block: &Block) -> Result<Value, SendError> {
        let request = || {
            let segments = ["collections", &self.arguments.collection, "documents"];
            let wait = RETRY_MAX + Duration::from_secs(block.bytes.len() as u64 / RATE_MIN_BYTES_PER_SECOND);
            let request = self.client.request(Method::POST, &segments);
            let request = match &self.arguments.column {
                Some(column) => request.query(&[("column", column)]),
                None => request,
            };
            request
                .header("content-type", block.content_type)
                .header("idempotency-key", &block.key)
                .timeout(wait)
                .body(block.bytes.clone())
        };
        let (status, answer) = self.until_answered(request).await.map_err(SendError::Failed)?;
        // Also if none of its items was accepted.
        if status.is_success() || answer["rejected"].is_u64() {
            return Ok(answer);
        }
        let failure =
            failure_from_problem(&answer).unwrap_or_else(|| Failure::new(format!("the server returned {status}")));
        Err(match status {
            StatusCode::CONFLICT => SendError::Changed(failure),
            status if status.is_client_error() => SendError::Refused(failure),
            _ => SendError::Failed(failure),
        })
    }

    /// Sends a request until it has an answer, which is JSON.
    async fn until_answered(
        &self,
        request: impl Fn() -> reqwest::RequestBuilder,
    ) -> Result<(StatusCode, Value), Failure> {
        let started = Instant::now();
        let deadline = started + RETRY_MAX;
        let mut pause = PAUSE_MIN;
        let mut reported = false;
        loop {
            let retryable = match self.response_to(request()).await {
                Err(error) => self.client.unreachable(&error),
                Ok(response) => match response.status() {
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                        failure_from_response(response).await
                    }
                    status => {
                        let text = response.text().await.map_err(|e| broke_off(&e))?;
                        let not_json = |_| Failure::new(format!("the server returned {status}: {text}"));
                        return Ok((status, serde_json::from_str(&text).map_err(not_json)?));
                    }
                },
            };
            if Instant::now() + pause > deadline {
                return Err(retryable);
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

/// Why a file could not be pushed.
enum PushError {
    /// For a reason of its own.
    File(Failure),
    /// For a reason that other files would meet, too.
    All(Failure),
}

enum SendError {
    /// The key was used before with other bytes.
    Changed(Failure),
    /// The server has stored nothing of it.
    Refused(Failure),
    /// The outcome may be unknown.
    Failed(Failure),
}

fn changed(path: &Path) -> Failure {
    Failure::new(format!(
        "{} has changed since it was pushed, other than by lines at its end",
        path.display()
    ))
    .hint("--again pushes all of it again")
}

fn replaced(path: &Path) -> Failure {
    Failure::new(format!(
        "{} is another file than the one that was pushed from this path, and begins with the same bytes",
        path.display()
    ))
    .hint("--resume pushes only what is new, if it is a copy that has grown; --again pushes all of it")
}

fn is_unfinished(path: &Path) -> Failure {
    Failure::new(format!(
        "the last line of {} was not pushed: it has no line break, and its document or row does not end",
        path.display()
    ))
    .hint("push the file again when the line is complete; if it is, end it with a line break")
}

fn no_memory(folder: &Path, error: &io::Error) -> Failure {
    Failure::new(format!(
        "cannot remember what is pushed in {}: {error}",
        folder.display()
    ))
    .hint("XDG_STATE_HOME names another folder for it")
}

fn not_remembered(error: &io::Error) -> Failure {
    Failure::new(format!("cannot remember what was pushed: {error}"))
        .hint("free space in $XDG_STATE_HOME/rachis/push or ~/.local/state/rachis/push, and run the command again")
}

fn progress(files: &[PathBuf]) -> ProgressBar {
    let sizes: Option<Vec<u64>> = files
        .iter()
        .map(|file| std::fs::metadata(file).ok().filter(|m| m.is_file()).map(|m| m.len()))
        .collect();
    match sizes {
        Some(sizes) => ProgressBar::new(sizes.iter().sum())
            .with_style(style("{msg} {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")),
        None => ProgressBar::no_length().with_style(style("{msg} {spinner} {bytes} {bytes_per_sec}")),
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}
