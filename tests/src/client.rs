//! What a client does: plain HTTP to one server, or to each aggregator of a cluster in turn.

use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::PATIENCE;

/// A client of one server, or of several that are one service.
pub struct Client {
    urls: Vec<String>,
    turn: AtomicUsize,
    http: reqwest::Client,
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
        assert!(
            self.rows.len() == 1 && self.rows[0].len() == 1,
            "not one value: {self:?}"
        );
        &self.rows[0][0]
    }
}

impl Client {
    /// Of these addresses.
    pub fn new(urls: Vec<String>) -> Self {
        let http = reqwest::Client::builder()
            .no_proxy()
            .timeout(PATIENCE)
            .build()
            .expect("a client");
        Self {
            urls,
            turn: AtomicUsize::new(0),
            http,
        }
    }

    /// The address whose turn it is.
    pub fn url(&self) -> &str {
        &self.urls[self.turn.fetch_add(1, Ordering::Relaxed) % self.urls.len()]
    }

    /// A request to a path such as `/v1/collections`.
    pub fn request(&self, method: reqwest::Method, path: &str) -> reqwest::RequestBuilder {
        self.http.request(method, format!("{}{path}", self.url()))
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
        read_json(
            self.request(
                reqwest::Method::POST,
                &format!("/v1/collections/{collection}/documents"),
            )
            .body(body),
        )
        .await
    }

    /// A document's bytes, if it is there.
    pub async fn document(&self, collection: &str, id: &str) -> Result<Option<Vec<u8>>> {
        let mut url = reqwest::Url::parse(self.url())?;
        url.path_segments_mut()
            .ok()
            .context("a base")?
            .extend(["v1", "collections", collection, "documents", id]);
        let answer = self.http.get(url).send().await?;
        match answer.status().as_u16() {
            404 => Ok(None),
            200 => Ok(Some(answer.bytes().await?.to_vec())),
            status => bail!("{status}: {}", answer.text().await?),
        }
    }

    /// Creates a source that reads a topic.
    pub async fn source(
        &self,
        name: &str,
        collection: &str,
        topic: &str,
        bootstrap: &str,
        further: Value,
    ) -> Result<Value> {
        let mut body =
            json!({ "collection": collection, "topic": topic, "config": { "bootstrap.servers": bootstrap } });
        for (key, value) in further.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.json(reqwest::Method::PUT, &format!("/v1/sources/{name}"), body)
            .await
    }
}

async fn read_json(request: reqwest::RequestBuilder) -> Result<Value> {
    let answer = request.send().await?;
    let status = answer.status();
    let text = answer.text().await?;
    ensure!(status.is_success(), "{status}: {text}");
    serde_json::from_str(&text).with_context(|| format!("not JSON: {text}"))
}
