//! VictoriaLogs: JSON lines over HTTP, questions in LogsQL.

use std::{path::PathBuf, process::Command, time::Instant};

use anyhow::{Context as _, Result};
use async_trait::async_trait;
use reqwest::Client;
use serde_json::Value;
use tempfile::TempDir;
use tests::process::Process;

use super::{Loaded, System, TimedRows, http};
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
}

impl VictoriaLogs {
    /// Starts it with its defaults, except that it keeps old events.
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("benches-victoria-logs-").tempdir()?;
        let address = tests::unused_address();
        let mut command = Command::new(rivals::victoria_logs()?);
        command
            .arg(format!("-storageDataPath={}", folder.path().join("data").display()))
            .arg(format!("-httpListenAddr={address}"))
            .arg("-retentionPeriod=100y");
        let process = Process::start("VictoriaLogs", &mut command, &folder.path().join("log"))?;
        let mut started = Self {
            process,
            folder,
            client: http::client()?,
            url: format!("http://{address}"),
        };
        let (client, health) = (&started.client, format!("{}/health", started.url));
        http::wait_until_ready(&mut started.process, || client.get(&health))
            .await
            .context("VictoriaLogs")?;
        Ok(started)
    }

    /// The lines of an answer, each a flat object.
    fn lines(body: &[u8]) -> Result<Vec<Value>> {
        let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines
            .map(|line| serde_json::from_slice(line).context("a line is not JSON"))
            .collect()
    }

    async fn count(&self) -> Result<u64> {
        let request = self.client.get(format!("{}/select/logsql/query", self.url));
        let (body, _) = http::timed(request.query(&[("query", "* | stats count() n")])).await?;
        let lines = Self::lines(&body)?;
        let count = lines.first().and_then(|line| line["n"].as_str()).context("no count")?;
        Ok(count.parse()?)
    }
}

/// The parameters of an insert: which field is the time, which has few values, and which is the text of an event.
fn insert_parameters(set: DocumentSet) -> [(&'static str, &'static str); 3] {
    match set {
        DocumentSet::Bluesky => [
            ("_time_field", "time_us"),
            ("_stream_fields", "commit.collection"),
            ("_msg_field", "commit.record.text"),
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
        let (client, url) = (&self.client, format!("{}/insert/jsonline", self.url));
        let parameters = insert_parameters(documents.set);
        let insert = |body: Vec<u8>| {
            let request = client.post(&url).query(&parameters).body(body);
            async move { http::timed(request).await.map(drop) }
        };
        let started = Instant::now();
        documents.send(insert).await?;
        http::timed(client.get(format!("{}/internal/force_flush", self.url))).await?;
        let time = started.elapsed();
        Ok(Loaded {
            reason: Some(self.process.log_tail()),
            ..Loaded::new(time, documents, self.count().await?)?
        })
    }

    async fn ask(&mut self, question: &Question) -> Result<TimedRows> {
        let text = &question.victoria_logs;
        let request = self.client.get(format!("{}/select/logsql/query", self.url));
        let (body, time) = http::timed(request.query(&[("query", text.query)])).await?;
        let row = |line: Value| match question.answer {
            AnswerKind::Rows => text.columns.iter().map(|column| line[*column].clone()).collect(),
            AnswerKind::Documents => vec![line],
        };
        Ok(TimedRows {
            rows: Self::lines(&body)?.into_iter().map(row).collect(),
            time,
        })
    }
}
