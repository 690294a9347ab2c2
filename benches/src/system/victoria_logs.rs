//! VictoriaLogs: JSON lines over HTTP, questions in LogsQL.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Instant,
};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use tempfile::TempDir;
use tests::process::Process;

use super::{Loaded, PushServer, System, TimedRows, http};
use crate::{
    answer::AnswerKind,
    documents::{DocumentFile, DocumentSet},
    question::Question,
    rivals,
};

/// A running server. Its process is dropped before its folder.
pub(crate) struct VictoriaLogs {
    process: Process,
    folder: TempDir,
    client: Client,
    url: String,
    address: String,
}

impl VictoriaLogs {
    /// Starts it with its defaults, except that it keeps old events.
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("benches-victoria-logs-").tempdir()?;
        let address = tests::unused_address();
        let mut started = Self {
            process: spawn(folder.path(), &address)?,
            folder,
            client: http::client()?,
            url: format!("http://{address}"),
            address,
        };
        started.wait_until_ready().await?;
        Ok(started)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let (client, health) = (&self.client, format!("{}/health", self.url));
        http::wait_until_ready(&mut self.process, || client.get(&health))
            .await
            .context("VictoriaLogs")
    }

    fn query(&self, query: &str) -> RequestBuilder {
        let request = self.client.get(format!("{}/select/logsql/query", self.url));
        request.query(&[("query", query)])
    }

    /// The lines of an answer, each a flat object.
    fn lines(body: &[u8]) -> Result<Vec<Value>> {
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).context("a line is not JSON"))
            .collect()
    }
}

fn spawn(folder: &Path, address: &str) -> Result<Process> {
    let mut command = Command::new(rivals::victoria_logs()?);
    command
        .arg(format!("-storageDataPath={}", folder.join("data").display()))
        .arg(format!("-httpListenAddr={address}"))
        .arg("-retentionPeriod=100y");
    Process::start("VictoriaLogs", &mut command, &folder.join("log"))
}

/// The parameters of an insert: which field is the time, which has few values, and which is the text of an event.
fn insert_parameters(set: DocumentSet) -> [(&'static str, &'static str); 3] {
    match set {
        DocumentSet::Bluesky | DocumentSet::Giant => [
            ("_time_field", "time_us"),
            ("_stream_fields", "commit.collection"),
            ("_msg_field", "commit.record.text"),
        ],
        // An expression needs `time_us`, which would be gone if it were the time.
        DocumentSet::Texts => [
            ("_time_field", "ingested"),
            ("_stream_fields", "commit.collection"),
            ("_msg_field", "commit.record.text"),
        ],
        DocumentSet::Lines => [
            ("_time_field", "time"),
            ("_stream_fields", "host"),
            ("_msg_field", "line"),
        ],
        DocumentSet::Gh => [
            ("_time_field", "created_at"),
            ("_stream_fields", "type"),
            ("_msg_field", "payload.comment.body"),
        ],
    }
}

#[async_trait(?Send)]
impl System for VictoriaLogs {
    fn process_id(&self) -> u32 {
        self.process.pid()
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// The time includes a forced flush, which makes all documents visible; they are on disk up to 5 s later.
    async fn load(&mut self, documents: &DocumentFile) -> Result<Loaded> {
        let server = &*self;
        let insert = |body: Vec<u8>| async move { server.push(documents.set, body).await.map(drop) };
        let started = Instant::now();
        documents.send(insert).await?;
        http::timed(self.client.get(format!("{}/internal/force_flush", self.url))).await?;
        let time = started.elapsed();
        Ok(Loaded {
            reason: Some(self.process.log_tail()),
            ..Loaded::new(time, documents, self.count(documents.set).await?)?
        })
    }

    async fn ask(&self, question: &Question) -> Result<TimedRows> {
        let text = &question.victoria_logs;
        let (body, time) = http::timed(self.query(text.query)).await?;
        let row = |line: Value| match question.answer {
            AnswerKind::Rows | AnswerKind::Search => text.columns.iter().map(|column| line[*column].clone()).collect(),
            AnswerKind::Documents => vec![line],
        };
        Ok(TimedRows {
            rows: Self::lines(&body)?.into_iter().map(row).collect(),
            time,
            index_time: None,
        })
    }
}

#[async_trait(?Send)]
impl PushServer for VictoriaLogs {
    async fn create(&mut self, _: DocumentSet) -> Result<()> {
        Ok(())
    }

    async fn push(&self, set: DocumentSet, lines: Vec<u8>) -> Result<u64> {
        let request = self.client.post(format!("{}/insert/jsonline", self.url));
        http::timed(request.query(&insert_parameters(set)).body(lines)).await?;
        // It does not say how many it refused.
        Ok(0)
    }

    async fn marks_from(&self, _: DocumentSet, from: u64) -> Result<Vec<u64>> {
        let (body, _) = http::timed(self.query(&format!("marker:>={from} | fields marker"))).await?;
        let lines = Self::lines(&body)?;
        Ok(lines
            .iter()
            .filter_map(|line| line["marker"].as_str()?.parse().ok())
            .collect())
    }

    async fn count(&self, _: DocumentSet) -> Result<u64> {
        let (body, _) = http::timed(self.query("* | stats count() n")).await?;
        let lines = Self::lines(&body)?;
        let count = lines.first().and_then(|line| line["n"].as_str()).context("no count")?;
        Ok(count.parse()?)
    }

    async fn ask_something(&self) -> Result<()> {
        self.count(DocumentSet::Bluesky).await.map(drop)
    }

    fn lookup(&self, _: DocumentSet, path: &str, value: &str) -> RequestBuilder {
        self.query(&format!("{path:?}:={value:?}"))
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    async fn restart(&mut self) -> Result<()> {
        self.process = spawn(self.folder.path(), &self.address)?;
        self.wait_until_ready().await
    }
}
