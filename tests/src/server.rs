//! The server under test: `rachis dev` as a process, and a client that speaks plain HTTP to it.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{
    PATIENCE,
    process::{Folder, Process},
};

/// How a server is started.
#[derive(Clone, Default)]
pub struct Settings {
    /// Further environment variables (`RACHIS_…`).
    pub environment: Vec<(String, String)>,
    /// Another binary than the one built.
    pub binary: Option<PathBuf>,
    /// Where its folder is made, if not where temporary folders are.
    pub place: Option<PathBuf>,
}

impl Settings {
    /// With one more environment variable.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Splits and merges at small sizes, so that a test of some thousand documents sees merges of merges.
    pub fn small_splits(self) -> Self {
        self.with("RACHIS_LEAF__PUBLISH_DOCUMENTS", 500)
            .with("RACHIS_LEAF__SPLIT_DOCUMENTS", 1000)
            .with("RACHIS_LEAF__MERGE_SPLITS", 3)
            .with("RACHIS_LEAF__SPLIT_IDLE_MS", 300)
    }

    /// Nothing reaches disk as a split: everything is answered from the tail and micro-splits.
    pub fn no_splits(self) -> Self {
        self.with("RACHIS_LEAF__SPLIT_DOCUMENTS", 100_000_000)
            .with("RACHIS_LEAF__SPLIT_BYTES", 1_u64 << 40)
            .with("RACHIS_LEAF__SPLIT_IDLE_MS", 86_400_000)
    }
}

/// A running server.
pub struct Server {
    process: Process,
    folder: Folder,
    settings: Settings,
    url: String,
    client: reqwest::Client,
}

/// An answer to a SQL question.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Names and types of the columns.
    pub columns: Vec<(String, String)>,
    /// Rows, values in the order of the columns.
    pub rows: Vec<Vec<Value>>,
    /// What is said about it.
    pub stats: Value,
}

impl Answer {
    /// The only value of the only row.
    pub fn one(&self) -> &Value {
        assert!(self.rows.len() == 1 && self.rows[0].len() == 1, "not one value: {self:?}");
        &self.rows[0][0]
    }
}

/// The binary that was built beside the test.
pub fn binary() -> PathBuf {
    std::env::var_os("RACHIS_BIN").map_or_else(|| built("rachis"), PathBuf::from)
}

/// A program of this workspace, beside the test's own executable.
pub fn built(name: &str) -> PathBuf {
    let this = std::env::current_exe().expect("a process has an executable");
    // A test lies in <target>/<profile>/deps, a program of the workspace in <target>/<profile>.
    let program = this.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|program| program.is_file());
    program.unwrap_or_else(|| panic!("{name} is not built beside {}; run ./tests/run", this.display()))
}

impl Server {
    /// Starts a server on an empty folder and waits until it is ready.
    pub async fn start(settings: Settings) -> Self {
        let place = settings.place.clone().unwrap_or_else(std::env::temp_dir);
        let folder = Folder::new_in(&place, "server").expect("a temporary folder");
        let process = spawn(&folder.path(), &settings).expect("the server starts");
        let client = reqwest::Client::builder().timeout(PATIENCE).build().expect("a client");
        let mut server = Self { process, folder, settings, url: String::new(), client };
        server.wait_until_ready().await.expect("the server is ready");
        server
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let begun = std::time::Instant::now();
        let listening = self.folder.path().join("data/listening");
        loop {
            if let Some(status) = self.process.ended() {
                bail!("the server ended with {status}\n{}", self.log_end());
            }
            if let Ok(url) = std::fs::read_to_string(&listening) {
                self.url = url.trim().to_owned();
                let ready = self.client.get(format!("{}/readyz", self.url)).timeout(Duration::from_secs(2)).send().await;
                if ready.is_ok_and(|answer| answer.status().is_success()) {
                    return Ok(());
                }
            }
            ensure!(begun.elapsed() < PATIENCE, "not ready within {PATIENCE:?}\n{}", self.log_end());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The end of its log.
    pub fn log_end(&self) -> String {
        let log = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(40)..].join("\n")
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts it again on its folder, killed or stopped before, with these settings from now on.
    pub async fn start_again_with(&mut self, settings: Settings) {
        self.settings = settings;
        self.start_again().await;
    }

    /// Starts it again on its folder.
    pub async fn start_again(&mut self) {
        self.process = spawn(&self.folder.path(), &self.settings).expect("the server starts again");
        self.wait_until_ready().await.expect("the server is ready again");
    }

    /// Ends it in order.
    pub fn stop(&mut self) {
        let status = self.process.stop().expect("it ends");
        assert!(status.success(), "an ordered stop ends with {status}\n{}", self.log_end());
    }

    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// Where it listens.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A request to a path such as `/v1/collections`.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.client.request(method, format!("{}{path}", self.url))
    }

    /// Sends JSON and reads JSON; an error status is an error with its body.
    pub async fn json(&self, method: reqwest::Method, path: &str, body: Value) -> Result<Value> {
        read_json(self.request(method, path).json(&body)).await
    }

    /// Reads JSON.
    pub async fn get(&self, path: &str) -> Result<Value> {
        read_json(self.request(reqwest::Method::GET, path)).await
    }

    /// Asks a SQL question with the further keys of its body.
    pub async fn ask(&self, sql: &str, further: Value) -> Result<Answer> {
        let mut body = json!({ "sql": sql });
        for (key, value) in further.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let answer = self.json(reqwest::Method::POST, "/v1/sql", body).await.with_context(|| sql.to_owned())?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let columns: Vec<(String, String)> =
            answer["columns"].as_array().context("no columns")?.iter().map(|c| (text(&c["name"]), text(&c["type"]))).collect();
        let values = |row: &Value| columns.iter().map(|(name, _)| row[name].clone()).collect();
        let rows = answer["rows"].as_array().context("no rows")?.iter().map(values).collect();
        Ok(Answer { columns, rows, stats: answer["stats"].clone() })
    }

    /// Asks a SQL question.
    pub async fn sql(&self, sql: &str) -> Answer {
        self.ask(sql, json!({})).await.expect("an answer")
    }

    /// Waits until a question has one value, and it is this.
    pub async fn eventually(&self, sql: &str, value: Value) {
        crate::eventually(&format!("{sql} is {value}"), || async {
            let answer = self.ask(sql, json!({})).await?;
            ensure!(answer.rows == [[value.clone()]], "{:?}", answer.rows);
            Ok(())
        })
        .await;
    }

    /// Pushes a body to a collection.
    pub async fn push(&self, collection: &str, body: impl Into<reqwest::Body>) -> Result<Value> {
        read_json(self.request(reqwest::Method::POST, &format!("/v1/collections/{collection}/documents")).body(body)).await
    }

    /// A document's bytes, if it is there.
    pub async fn document(&self, collection: &str, id: &str) -> Result<Option<Vec<u8>>> {
        let mut url = reqwest::Url::parse(&self.url)?;
        url.path_segments_mut().ok().context("a base")?.extend(["v1", "collections", collection, "documents", id]);
        let answer = self.client.get(url).send().await?;
        match answer.status().as_u16() {
            404 => Ok(None),
            200 => Ok(Some(answer.bytes().await?.to_vec())),
            status => bail!("{status}: {}", answer.text().await?),
        }
    }

    /// Creates a source that reads a topic.
    pub async fn source(&self, name: &str, collection: &str, topic: &str, bootstrap: &str, further: Value) -> Result<Value> {
        let mut body = json!({ "collection": collection, "topic": topic, "config": { "bootstrap.servers": bootstrap } });
        for (key, value) in further.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.json(reqwest::Method::PUT, &format!("/v1/sources/{name}"), body).await
    }
}

async fn read_json(request: reqwest::RequestBuilder) -> Result<Value> {
    let answer = request.send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}

fn spawn(folder: &Path, settings: &Settings) -> Result<Process> {
    let data = folder.join("data");
    // The file of the run before would name an address that nobody listens on.
    let _ = std::fs::remove_file(data.join("listening"));
    let mut command = Command::new(settings.binary.clone().unwrap_or_else(binary));
    command.arg("dev").arg("--data").arg(&data).args(["--listen", "127.0.0.1:0"]);
    command.env_remove("RACHIS_URL").envs(settings.environment.iter().cloned());
    Process::start("rachis", &mut command, &folder.join("log"))
}
