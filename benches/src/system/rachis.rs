//! Rachis: `rachis dev` with its default settings, documents by push (or from Kafka), questions in SQL.

use std::{path::PathBuf, time::Instant};

use anyhow::{Context as _, Result, ensure};
use async_trait::async_trait;
use reqwest::{Method, header::CONTENT_TYPE};
use serde_json::{Value, json};
use tests::{Kafka, Server, Settings};

use super::{Loaded, System, TimedRows, http};
use crate::{documents::DocumentFile, measure, question::Question};

/// The server of this repository.
pub(crate) struct RachisServer(Server);

impl RachisServer {
    /// Starts it in a fresh folder.
    pub(crate) async fn start() -> Self {
        Self(Server::start(Settings::default()).await)
    }

    /// Loads a topic that has all documents, through a source.
    pub(crate) async fn load_from_kafka(&self, kafka: &Kafka, documents: &DocumentFile) -> Result<Loaded> {
        let time = measure::ingest_topic(&self.0, kafka, documents.set.name(), documents.documents).await?;
        Loaded::new(time, documents, documents.documents)
    }
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
        let name = documents.set.name();
        let path = format!("/v1/collections/{name}/documents");
        let push = |body: Vec<u8>| {
            let request = self.0.request(Method::POST, &path);
            let request = request.header(CONTENT_TYPE, "application/x-ndjson").body(body);
            async move {
                let answer = http::json_when_accepted(request).await?;
                ensure!(answer["rejected"] == json!(0), "documents were rejected: {answer}");
                anyhow::Ok(())
            }
        };
        let started = Instant::now();
        documents.send(push).await?;
        let time = started.elapsed();
        let answer = self.0.query(&format!("select count(*) from {name}"), json!({})).await?;
        let count = answer.rows.first().and_then(|row| row.first()?.as_u64());
        Loaded::new(time, documents, count.context("no count")?)
    }

    async fn ask(&mut self, question: &Question) -> Result<TimedRows> {
        let request = self.0.request(Method::POST, "/v1/sql");
        let (body, time) = http::timed(request.json(&json!({ "sql": question.rachis }))).await?;
        let answer: Value = serde_json::from_slice(&body).context("the answer is not JSON")?;
        ensure!(answer["stats"]["truncated"] == json!(false), "the answer is truncated");
        let columns = answer["columns"].as_array().context("no columns")?;
        let names: Vec<&str> = columns.iter().filter_map(|column| column["name"].as_str()).collect();
        let values = |row: &Value| names.iter().map(|name| row[*name].clone()).collect();
        let rows = answer["rows"].as_array().context("no rows")?;
        Ok(TimedRows {
            rows: rows.iter().map(values).collect(),
            time,
        })
    }
}
