//! Rachis: `rachis dev` with its default settings, documents by push (or from Kafka), questions in SQL.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use reqwest::{Method, RequestBuilder, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tests::{Client, Kafka, Server, Settings};

use super::{Loaded, PushServer, System, TimedRows, http};
use crate::{
    answer::{AnswerKind, Facet, search_rows},
    documents::{DocumentFile, DocumentSet},
    question::{FIELDS, PARSER, Question},
};

/// The server of this repository.
pub(crate) struct RachisServer(Server);

impl RachisServer {
    /// Starts it in a fresh folder. It keeps no aggregate states: the suites compare how fast an answer is computed.
    pub(crate) async fn start() -> Self {
        let settings = Settings::default().with("RACHIS_LEAF__KEPT_STATES_BYTES_MAX", 1);
        Self(Server::start(settings).await)
    }

    /// Starts it in a fresh folder with its default settings: it keeps aggregate states.
    pub(crate) async fn start_with_cache() -> Self {
        Self(Server::start(Settings::default()).await)
    }

    /// Starts it as [`Self::start`] does; it erases what was deleted after this time.
    pub(crate) async fn start_with_erasure_after(kept: Duration) -> Self {
        let settings = Settings::default()
            .with("RACHIS_LEAF__KEPT_STATES_BYTES_MAX", 1)
            .with("RACHIS_LEAF__DELETED_KEPT_MS", kept.as_millis());
        Self(Server::start(settings).await)
    }

    /// Its client.
    pub(crate) fn client(&self) -> &Client {
        &self.0
    }

    /// Stops it in order.
    pub(crate) fn stop(&mut self) {
        self.0.stop();
    }

    /// Loads a topic that has all documents, through a source.
    pub(crate) async fn load_from_kafka(&self, kafka: &Kafka, documents: &DocumentFile) -> Result<Loaded> {
        let time = ingest_topic(&self.0, kafka, documents.set.name(), documents.documents).await?;
        Loaded::new(time, documents, documents.documents)
    }

    /// Pushes all documents.
    pub(crate) async fn push_all(&self, documents: &DocumentFile) -> Result<()> {
        let push = |body: Vec<u8>| async move {
            let refused = self.push(documents.set, body).await?;
            ensure!(refused == 0, "{refused} documents were rejected");
            anyhow::Ok(())
        };
        documents.send(push).await
    }
}

/// Creates the source `TOPIC-source`, which reads a topic into the collection of its name, and returns the time until
/// all documents are visible.
pub(crate) async fn ingest_topic(client: &Client, kafka: &Kafka, topic: &str, documents: u64) -> Result<Duration> {
    let started = Instant::now();
    let source = format!("{topic}-source");
    client
        .source(&source, topic, topic, &kafka.bootstrap(), json!({}))
        .await?;
    wait_for_documents(client, topic, documents).await?;
    Ok(started.elapsed())
}

/// Waits until so many documents are visible: nothing is missing, nothing is there twice.
pub(crate) async fn wait_for_documents(client: &Client, collection: &str, documents: u64) -> Result<()> {
    const WAIT_MAX: Duration = Duration::from_secs(1800);
    let (started, mut count) = (Instant::now(), 0);
    while count < documents {
        ensure!(started.elapsed() < WAIT_MAX, "only {count} documents of {documents}");
        tokio::time::sleep(Duration::from_millis(20)).await;
        count = count_documents(client, collection).await?;
    }
    ensure!(count == documents, "{count} documents of {documents}");
    Ok(())
}

/// How many documents of a collection are visible.
pub(crate) async fn count_documents(client: &Client, collection: &str) -> Result<u64> {
    let answer = client
        .query(&format!("select count(*) from {collection}"), json!({}))
        .await?;
    answer.single_value().as_u64().context("no count")
}

/// A request for the rows of a statement.
pub(crate) fn sql_request(client: &Client, sql: &str) -> RequestBuilder {
    client.request(Method::POST, "/v1/sql").json(&json!({ "sql": sql }))
}

/// Asks a question in SQL, timed until the last byte of the answer.
pub(crate) async fn ask_sql(client: &Client, sql: &str) -> Result<TimedRows> {
    let (body, time) = http::timed(sql_request(client, sql)).await?;
    let answer: Value = serde_json::from_slice(&body).context("the answer is not JSON")?;
    ensure!(answer["stats"]["truncated"] == json!(false), "the answer is truncated");
    let columns = answer["columns"].as_array().context("no columns")?;
    let names: Vec<&str> = columns.iter().filter_map(|column| column["name"].as_str()).collect();
    let values = |row: &Value| names.iter().map(|name| row[*name].clone()).collect();
    let rows = answer["rows"].as_array().context("no rows")?;
    Ok(TimedRows {
        rows: rows.iter().map(values).collect(),
        time,
        index_time: answer["stats"]["index_us"].as_u64().map(Duration::from_micros),
    })
}

/// Searches a collection, timed until the last byte of the answer.
async fn ask_search(client: &Client, collection: &str, body: &'static str) -> Result<TimedRows> {
    let path = format!("/v1/collections/{collection}/search");
    let request = client.request(Method::POST, &path);
    let (answer, time) = http::timed(request.header(CONTENT_TYPE, "application/json").body(body)).await?;
    let answer: Value = serde_json::from_slice(&answer).context("the answer is not JSON")?;
    let hits = answer["hits"].as_array().into_iter().flatten();
    let hits: Vec<_> = hits
        .map(|hit| (hit["score"].as_f64(), &hit["document"]["created_at"]))
        .collect();
    let facets = answer["facets"].as_object().into_iter().flatten();
    let facets: Vec<_> = facets
        .map(|(name, values)| {
            let values = values.as_array().into_iter().flatten();
            let values = values.map(|value| (&value["value"], &value["count"])).collect();
            Facet {
                name,
                values,
                others: &answer["others"][name],
            }
        })
        .collect();
    let histogram = answer["histogram"].as_array();
    let histogram = histogram.map(|all| all.iter().map(|one| (&one["time"], &one["count"])).collect());
    Ok(TimedRows {
        rows: search_rows(&answer["total"], &hits, &facets, histogram),
        time,
        index_time: None,
    })
}

/// The visible values of `marker` that are at least `from`.
pub(crate) async fn marks_from(client: &Client, collection: &str, from: u64) -> Result<Vec<u64>> {
    let sql = format!("select marker from {collection} where marker >= {from}");
    let rows = ask_sql(client, &sql).await?.rows;
    Ok(rows.iter().filter_map(|row| row.first()?.as_u64()).collect())
}

#[async_trait(?Send)]
impl System for RachisServer {
    fn process_id(&self) -> u32 {
        self.0.process().pid()
    }

    fn folder(&self) -> PathBuf {
        self.0.data_dir()
    }

    async fn load(&mut self, documents: &DocumentFile) -> Result<Loaded> {
        let started = Instant::now();
        self.push_all(documents).await?;
        let time = started.elapsed();
        Loaded::new(time, documents, self.count(documents.set).await?)
    }

    async fn define(&mut self, set: DocumentSet) -> Result<()> {
        let statements: &[&str] = match set {
            DocumentSet::Texts => &FIELDS,
            DocumentSet::Lines => &[PARSER],
            _ => &[],
        };
        for statement in statements {
            self.0.query(statement, json!({})).await?;
        }
        Ok(())
    }

    async fn ask(&self, question: &Question) -> Result<TimedRows> {
        match question.answer {
            AnswerKind::Search => ask_search(&self.0, DocumentSet::Gh.name(), question.rachis).await,
            _ => ask_sql(&self.0, question.rachis).await,
        }
    }
}

#[async_trait(?Send)]
impl PushServer for RachisServer {
    async fn create(&mut self, set: DocumentSet) -> Result<()> {
        let path = format!("/v1/collections/{}", set.name());
        self.0.json(Method::PUT, &path, json!({})).await.map(drop)
    }

    async fn push(&self, set: DocumentSet, lines: Vec<u8>) -> Result<u64> {
        let path = format!("/v1/collections/{}/documents", set.name());
        let request = self.0.request(Method::POST, &path);
        let request = request.header(CONTENT_TYPE, "application/x-ndjson").body(lines);
        let answer = http::json_when_accepted(request).await?;
        answer["rejected"].as_u64().context("no count of rejected documents")
    }

    async fn marks_from(&self, set: DocumentSet, from: u64) -> Result<Vec<u64>> {
        marks_from(&self.0, set.name(), from).await
    }

    async fn count(&self, set: DocumentSet) -> Result<u64> {
        count_documents(&self.0, set.name()).await
    }

    async fn ask_something(&self) -> Result<()> {
        ask_sql(&self.0, "select count(*) from rachis.collections")
            .await
            .map(drop)
    }

    fn lookup(&self, set: DocumentSet, path: &str, value: &str) -> RequestBuilder {
        sql_request(
            &self.0,
            &format!("select _doc from {} where {path} = '{value}'", set.name()),
        )
    }

    fn kill(&mut self) {
        self.0.kill();
    }

    async fn restart(&mut self) -> Result<()> {
        self.0.restart().await;
        Ok(())
    }
}
