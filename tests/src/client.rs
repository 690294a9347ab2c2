//! A plain HTTP client of one server, or of a cluster's aggregators in turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::{Kafka, WAIT_MAX};

/// A client of one server, or of several servers of one service.
pub struct Client {
    urls: Vec<String>,
    next: AtomicUsize,
    http: reqwest::Client,
}

/// An answer to a SQL statement.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Column names and types.
    pub columns: Vec<(String, String)>,
    /// Rows, with values in column order.
    pub rows: Vec<Vec<Value>>,
    /// Statistics and warnings.
    pub stats: Value,
}

impl Answer {
    /// The only value of the only row.
    pub fn single_value(&self) -> &Value {
        assert!(
            self.rows.len() == 1 && self.rows[0].len() == 1,
            "expected exactly one value: {self:?}"
        );
        &self.rows[0][0]
    }
}

impl Client {
    /// A client that uses these URLs in turn.
    pub fn new(urls: Vec<String>) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(WAIT_MAX)
            .build()
            .expect("a client");
        Self {
            urls,
            next: AtomicUsize::new(0),
            http,
        }
    }

    /// The URL for the next request.
    pub fn url(&self) -> &str {
        &self.urls[self.next.fetch_add(1, Ordering::Relaxed) % self.urls.len()]
    }

    /// Builds a request to a path (`/v1/collections`).
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url()))
    }

    /// Sends JSON and parses the JSON response; an error status becomes an error that contains the body.
    pub async fn json(&self, method: reqwest::Method, path: &str, body: Value) -> Result<Value> {
        read_json(self.request(method, path).json(&body)).await
    }

    /// Sends a GET request and parses the JSON response.
    pub async fn get(&self, path: &str) -> Result<Value> {
        read_json(self.request(reqwest::Method::GET, path)).await
    }

    /// Runs a SQL statement; `options` are further keys of the request body.
    pub async fn query(&self, sql: &str, options: Value) -> Result<Answer> {
        let mut body = json!({ "sql": sql });
        for (key, value) in options.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        let answer = self
            .json(reqwest::Method::POST, "/v1/sql", body)
            .await
            .with_context(|| sql.to_owned())?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let columns: Vec<(String, String)> = answer["columns"]
            .as_array()
            .context("no columns")?
            .iter()
            .map(|c| (text(&c["name"]), text(&c["type"])))
            .collect();
        let values = |row: &Value| columns.iter().map(|(name, _)| row[name].clone()).collect();
        let rows = answer["rows"]
            .as_array()
            .context("no rows")?
            .iter()
            .map(values)
            .collect();
        Ok(Answer {
            columns,
            rows,
            stats: answer["stats"].clone(),
        })
    }

    /// Runs a SQL statement that must succeed.
    pub async fn sql(&self, sql: &str) -> Answer {
        self.query(sql, json!({})).await.expect("an answer")
    }

    /// Waits until splits on disk have at least this many documents.
    pub async fn wait_for_splits(&self, documents: usize) {
        let sql = "select sum(documents) from rachis.splits where place = 'disk'";
        crate::eventually(&format!("{documents} documents are in splits on disk"), || async {
            let answer = self.query(sql, json!({})).await?;
            ensure!(answer.rows[0][0].as_f64() >= Some(documents as f64), "{answer:?}");
            Ok(())
        })
        .await;
    }

    /// Waits until a statement returns exactly this single value.
    pub async fn eventually(&self, sql: &str, value: Value) {
        crate::eventually(&format!("{sql} is {value}"), || async {
            let answer = self.query(sql, json!({})).await?;
            ensure!(answer.rows == [[value.clone()]], "{:?}", answer.rows);
            Ok(())
        })
        .await;
    }

    /// Waits until each of so many replicas of every shard has the same, and something.
    pub async fn wait_until_replicas_are_equal(&self, replicas: usize) {
        let sql = format!(
            "select collection, shard, source, partition, from_offset, count(digest) from rachis.digests group by all \
             having count(digest) <> {replicas} or count(distinct digest) <> 1"
        );
        crate::eventually("all replicas are equal", || async {
            let blocks = self
                .query("select count(digest) from rachis.digests", json!({}))
                .await?;
            ensure!(blocks.single_value().as_u64() > Some(0), "no replica has anything");
            let different = self.query(&sql, json!({})).await?.rows;
            ensure!(different.is_empty(), "{different:?}");
            Ok(())
        })
        .await;
    }

    /// Pushes documents to a collection.
    pub async fn push(&self, collection: &str, body: impl Into<reqwest::Body>) -> Result<Value> {
        read_json(
            self.request(
                reqwest::Method::POST,
                &format!("/v1/collections/{collection}/documents"),
            )
            .body(body),
        )
        .await
    }

    /// A document's bytes, if it exists.
    pub async fn document(&self, collection: &str, id: &str) -> Result<Option<Vec<u8>>> {
        let mut url = reqwest::Url::parse(self.url())?;
        url.path_segments_mut()
            .ok()
            .context("the URL cannot be a base")?
            .extend(["v1", "collections", collection, "documents", id]);
        let answer = self.http.get(url).send().await?;
        match answer.status().as_u16() {
            404 => Ok(None),
            200 => Ok(Some(answer.bytes().await?.to_vec())),
            status => bail!("{status}: {}", answer.text().await?),
        }
    }

    /// Creates a source that reads a topic; `options` are further keys of its definition.
    pub async fn source(
        &self,
        name: &str,
        collection: &str,
        topic: &str,
        bootstrap: &str,
        options: Value,
    ) -> Result<Value> {
        let mut body =
            json!({ "collection": collection, "topic": topic, "config": { "bootstrap.servers": bootstrap } });
        for (key, value) in options.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.json(reqwest::Method::PUT, &format!("/v1/sources/{name}"), body)
            .await
    }

    /// Creates a source that reads the topic of its name into the collection of its name.
    pub async fn source_of_topic(&self, topic: &str, kafka: &Kafka) {
        self.source(topic, topic, topic, &kafka.bootstrap(), json!({}))
            .await
            .expect("a source");
    }
}

/// Runs a query from index and columns and from raw documents; both must return the same rows.
pub async fn query_both(server: &Client, sql: &str) -> Vec<Vec<Value>> {
    let auto = server.query(sql, json!({})).await.expect("an answer");
    let raw = server
        .query(sql, json!({ "scan": "raw" }))
        .await
        .expect("an answer from raw documents");
    assert_eq!(auto.rows, raw.rows, "{sql}: the index and the raw documents differ");
    auto.rows
}

async fn read_json(request: reqwest::RequestBuilder) -> Result<Value> {
    let answer = request.send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}
