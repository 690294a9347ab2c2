//! OpenSearch: one node in a JVM of its own, documents by bulk requests, questions in its query DSL.

use std::{
    cell::OnceCell,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use reqwest::{Client, RequestBuilder, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tempfile::TempDir;
use tests::process::Process;

use super::{Loaded, PushServer, System, TimedRows, http};
use crate::{
    answer::{AnswerKind, Facet, search_rows},
    documents::{DocumentFile, DocumentSet},
    question::Question,
    rivals,
};

/// What the runner does not set: one node, on loopback, that ignores how full the disk is.
const SETTINGS: &str = "\
network.host: 127.0.0.1
discovery.type: single-node
cluster.routing.allocation.disk.threshold_enabled: false
";

/// The file of its output.
const LOG: &str = "output";

/// A running node. Its process is dropped before its folder.
pub(crate) struct OpenSearch {
    process: Process,
    folder: TempDir,
    client: Client,
    url: String,
    /// The name of the index; empty until documents are loaded.
    index: &'static str,
}

impl OpenSearch {
    /// Starts a node with a heap of 2 GiB. The runner chooses a free port.
    pub(crate) async fn start() -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("benches-open-search-").tempdir()?;
        let config = folder.path().join("config");
        fs::create_dir(&config)?;
        fs::write(config.join("opensearch.yml"), SETTINGS)?;
        let mut started = Self {
            process: spawn(folder.path())?,
            folder,
            client: http::client()?,
            url: String::new(),
            index: "",
        };
        started.wait_until_ready().await.context("OpenSearch")?;
        Ok(started)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let port = wait_for_port(&mut self.process, &self.folder.path().join(LOG)).await?;
        self.url = format!("http://127.0.0.1:{port}");
        let (client, health) = (&self.client, format!("{}/_cluster/health", self.url));
        let health = || client.get(&health).query(&[("wait_for_status", "yellow")]);
        http::wait_until_ready(&mut self.process, health).await
    }

    fn index_url(&self, rest: &str) -> String {
        format!("{}/{}{rest}", self.url, self.index)
    }

    fn bulk(&self, lines: &[u8]) -> RequestBuilder {
        let mut body = Vec::with_capacity(lines.len() + lines.len() / 16);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            body.extend_from_slice(b"{\"index\":{}}\n");
            body.extend_from_slice(line);
            body.push(b'\n');
        }
        self.client
            .post(self.index_url("/_bulk"))
            .query(&[("filter_path", "errors,items.*.error.reason")])
            .header(CONTENT_TYPE, "application/x-ndjson")
            .body(body)
    }
}

/// Starts the runner with an empty log, in which it prints its port.
fn spawn(folder: &Path) -> Result<Process> {
    let log = folder.join(LOG);
    let _ = fs::remove_file(&log);
    let mut command = Command::new("java");
    command
        .args(["-Xmx2g", "-cp"])
        .arg(rivals::open_search_jars()?.join("*"))
        .arg("org.codelibs.opensearch.runner.OpenSearchRunner")
        .args(["-clusterName", "benches", "-numOfNode", "1", "-basePath"])
        .arg(folder)
        .arg("-confPath")
        .arg(folder.join("config"));
    Process::start("OpenSearch", &mut command, &log)
}

/// The port that the runner prints before it starts the node.
async fn wait_for_port(process: &mut Process, log: &Path) -> Result<u16> {
    const WAIT_MAX: Duration = Duration::from_secs(60);
    let started = Instant::now();
    loop {
        let text = fs::read_to_string(log).unwrap_or_default();
        let port = text
            .lines()
            .find_map(|line| line.strip_prefix("HTTP Port:")?.trim().parse().ok());
        if let Some(port) = port {
            return Ok(port);
        }
        ensure!(
            process.exit_status().is_none() && started.elapsed() < WAIT_MAX,
            "it does not start; {}",
            process.log_tail()
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[async_trait(?Send)]
impl System for OpenSearch {
    fn process_id(&self) -> u32 {
        self.process.pid()
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().join("node_1/data")
    }

    /// A bulk request is durable when it is answered; the time includes a refresh, which makes all documents visible.
    async fn load(&mut self, documents: &DocumentFile) -> Result<Loaded> {
        self.create(documents.set).await?;
        let (system, reason) = (&*self, OnceCell::new());
        let reason_slot = &reason;
        let insert = |body: Vec<u8>| async move {
            let answer = http::json(system.bulk(&body)).await?;
            if let Some(item) = answer["items"].as_array().and_then(|items| items.first()) {
                let _ = reason_slot.set(item["index"]["error"]["reason"].to_string());
            }
            anyhow::Ok(())
        };
        let started = Instant::now();
        documents.send(insert).await?;
        http::json(system.client.post(system.index_url("/_refresh"))).await?;
        let time = started.elapsed();
        // Else the log of writes, which repeats all documents, lies on disk until the index has been idle for minutes.
        http::json(system.client.post(system.index_url("/_flush"))).await?;
        let count = http::json(system.client.get(system.index_url("/_count"))).await?;
        Ok(Loaded {
            reason: reason.into_inner(),
            ..Loaded::new(time, documents, count["count"].as_u64().context("no count")?)?
        })
    }

    async fn ask(&self, question: &Question) -> Result<TimedRows> {
        let dsl = question.open_search.as_ref().context("no text for OpenSearch")?;
        let request = self
            .client
            .post(self.index_url("/_search"))
            .query(&[("request_cache", "false")])
            .header(CONTENT_TYPE, "application/json")
            .body(dsl.body);
        let (body, time) = http::timed(request).await?;
        let answer: Value = serde_json::from_slice(&body).context("the answer is not JSON")?;
        ensure!(answer["timed_out"] == json!(false), "the search timed out");
        Ok(TimedRows {
            rows: rows(question.answer, &answer)?,
            time,
            index_time: None,
        })
    }
}

/// The rows of a search: its documents, its aggregations or the number of its hits.
fn rows(kind: AnswerKind, answer: &Value) -> Result<Vec<Vec<Value>>> {
    if kind == AnswerKind::Documents {
        let hits = answer["hits"]["hits"].as_array().context("no hits")?;
        return Ok(hits.iter().map(|hit| vec![hit["_source"].clone()]).collect());
    }
    if kind == AnswerKind::Search {
        return Ok(rows_of_search(answer));
    }
    if answer["aggregations"].is_null() {
        return Ok(vec![vec![answer["hits"]["total"]["value"].clone()]]);
    }
    let mut rows = Vec::new();
    aggregation_rows(&answer["aggregations"], &[], &mut rows);
    Ok(rows)
}

fn rows_of_search(answer: &Value) -> Vec<Vec<Value>> {
    let hits = answer["hits"]["hits"].as_array().into_iter().flatten();
    let hits: Vec<_> = hits
        .map(|hit| (hit["_score"].as_f64(), &hit["_source"]["created_at"]))
        .collect();
    let aggregations = answer["aggregations"].as_object().into_iter().flatten();
    let (mut facets, mut histogram) = (Vec::new(), None);
    for (name, of) in aggregations {
        let buckets = of["buckets"].as_array().into_iter().flatten();
        let counts = buckets.map(|bucket| {
            let key = bucket.get("key_as_string").unwrap_or(&bucket["key"]);
            (key, &bucket["doc_count"])
        });
        let counts: Vec<_> = counts.collect();
        match of["sum_other_doc_count"].is_null() {
            true => histogram = Some(counts),
            false => facets.push(Facet {
                name,
                values: counts,
                others: &of["sum_other_doc_count"],
            }),
        }
    }
    search_rows(&answer["hits"]["total"]["value"], &hits, &facets, histogram)
}

/// Appends the rows of aggregations: for each innermost bucket its keys and count, or one row of all metrics in the
/// order of their names.
fn aggregation_rows(aggregations: &Value, keys: &[Value], rows: &mut Vec<Vec<Value>>) {
    let mut named: Vec<(&String, &Value)> = aggregations.as_object().into_iter().flatten().collect();
    named.sort_by_key(|(name, _)| *name);
    let Some(buckets) = named.iter().find_map(|(_, value)| value["buckets"].as_array()) else {
        return rows.push(named.iter().map(|(_, metric)| metric["value"].clone()).collect());
    };
    for bucket in buckets {
        let key = bucket.get("key_as_string").unwrap_or(&bucket["key"]);
        let mut keys = keys.to_vec();
        keys.push(key.clone());
        let mut inner = bucket.as_object().into_iter().flatten();
        if inner.any(|(_, value)| value["buckets"].is_array()) {
            aggregation_rows(bucket, &keys, rows);
        } else {
            keys.push(bucket["doc_count"].clone());
            rows.push(keys);
        }
    }
}

#[async_trait(?Send)]
impl PushServer for OpenSearch {
    /// One shard without replicas and the default mapping, but with room for the many paths of real events.
    async fn create(&mut self, set: DocumentSet) -> Result<()> {
        self.index = set.name();
        let settings = json!({
            "index.number_of_shards": 1,
            "index.number_of_replicas": 0,
            "index.mapping.total_fields.limit": 10_000,
        });
        let request = self.client.put(self.index_url(""));
        http::json(request.json(&json!({ "settings": settings })))
            .await
            .map(drop)
    }

    async fn push(&self, _: DocumentSet, lines: Vec<u8>) -> Result<u64> {
        let answer = http::json(self.bulk(&lines)).await?;
        Ok(answer["items"].as_array().map_or(0, |refused| refused.len() as u64))
    }

    async fn marks_from(&self, _: DocumentSet, from: u64) -> Result<Vec<u64>> {
        let search = json!({
            "size": 1_000,
            "query": { "range": { "marker": { "gte": from } } },
            "_source": ["marker"],
        });
        let answer = http::json(self.client.post(self.index_url("/_search")).json(&search)).await?;
        let hits = answer["hits"]["hits"].as_array().context("no hits")?;
        Ok(hits
            .iter()
            .filter_map(|hit| hit["_source"]["marker"].as_u64())
            .collect())
    }

    async fn count(&self, _: DocumentSet) -> Result<u64> {
        http::json(self.client.post(self.index_url("/_refresh"))).await?;
        let count = http::json(self.client.get(self.index_url("/_count"))).await?;
        count["count"].as_u64().context("no count")
    }

    async fn ask_something(&self) -> Result<()> {
        http::json(
            self.client
                .get(format!("{}/_cat/indices", self.url))
                .query(&[("format", "json")]),
        )
        .await
        .map(drop)
    }

    fn lookup(&self, _: DocumentSet, path: &str, value: &str) -> RequestBuilder {
        let search = json!({ "query": { "term": { format!("{path}.keyword"): value } } });
        let request = self.client.post(self.index_url("/_search"));
        request.query(&[("request_cache", "false")]).json(&search)
    }

    fn kill(&mut self) {
        self.process.kill();
    }

    async fn restart(&mut self) -> Result<()> {
        self.process = spawn(self.folder.path())?;
        self.wait_until_ready().await
    }
}
