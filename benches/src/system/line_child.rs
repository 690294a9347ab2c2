//! A child process that answers one line of JSON with another, one request after the other.
//!
//! An answer has `seconds`, what the request took inside the child, and `rows` or `documents`; or only `error`.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines},
    process::{Child, ChildStdin, ChildStdout, Command},
    sync::Mutex,
};

use super::{Loaded, TimedRows};
use crate::documents::DocumentFile;

/// The child; it is killed when this is dropped.
pub(super) struct LineChild {
    name: &'static str,
    child: Child,
    pipes: Mutex<Pipes>,
    log: PathBuf,
}

struct Pipes {
    input: ChildStdin,
    output: Lines<BufReader<ChildStdout>>,
}

/// An answer of the child.
#[derive(Debug, Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum LineResponse {
    Failed { error: String },
    Loaded { seconds: f64, documents: u64 },
    Rows { seconds: f64, rows: Vec<Vec<Value>> },
}

impl LineChild {
    /// Starts a command; its standard error goes to `log`.
    pub(super) fn start(name: &'static str, command: &mut Command, log: &Path) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(File::create(log)?)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {name}"))?;
        let input = child.stdin.take().context("no standard input")?;
        let output = child.stdout.take().context("no standard output")?;
        Ok(Self {
            name,
            child,
            pipes: Mutex::new(Pipes {
                input,
                output: BufReader::new(output).lines(),
            }),
            log: log.to_owned(),
        })
    }

    /// Its process id; 0 if it has exited.
    pub(super) fn process_id(&self) -> u32 {
        self.child.id().unwrap_or_default()
    }

    async fn request(&self, request: &impl Serialize) -> Result<LineResponse> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        let mut pipes = self.pipes.lock().await;
        pipes.input.write_all(line.as_bytes()).await?;
        pipes.input.flush().await?;
        let Some(response) = pipes.output.next_line().await? else {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            bail!("{} has exited: {log}", self.name);
        };
        match serde_json::from_str(&response) {
            Ok(LineResponse::Failed { error }) => bail!("{}: {error}", self.name),
            Ok(response) => Ok(response),
            Err(_) => bail!("{} answered {response:?}", self.name),
        }
    }

    /// Sends a request to load the documents.
    pub(super) async fn load(&self, request: &impl Serialize, documents: &DocumentFile) -> Result<Loaded> {
        match self.request(request).await? {
            LineResponse::Loaded {
                seconds,
                documents: loaded,
            } => Loaded::new(Duration::from_secs_f64(seconds), documents, loaded),
            other => bail!("{} answered a load with {other:?}", self.name),
        }
    }

    /// Sends a request for rows.
    pub(super) async fn ask(&self, request: &impl Serialize) -> Result<TimedRows> {
        match self.request(request).await? {
            LineResponse::Rows { seconds, rows } => Ok(TimedRows {
                rows,
                time: Duration::from_secs_f64(seconds),
                index_time: None,
            }),
            other => bail!("{} answered a question with {other:?}", self.name),
        }
    }
}
