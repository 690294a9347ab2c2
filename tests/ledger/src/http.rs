//! Speaks HTTP with the server, wherever it is now.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use reqwest::{Method, StatusCode};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, value::RawValue};

/// Everything is pushed and produced into this collection.
pub const COLLECTION: &str = "ledger";

/// Cheap to clone; all clones follow the server. Where it has several doors, each is asked in turn.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    urls: Arc<RwLock<Vec<String>>>,
    turn: Arc<AtomicUsize>,
}

/// A page of hits.
#[derive(Deserialize)]
pub struct Hits {
    pub hits: Vec<Hit>,
    pub total: u64,
    #[serde(default)]
    pub after: Option<String>,
}

/// A hit with its document as it came over the wire.
#[derive(Deserialize)]
pub struct Hit {
    pub id: String,
    pub document: Box<RawValue>,
}

/// What came back, whatever its status.
pub struct Reply {
    pub status: StatusCode,
    pub text: String,
}

impl Client {
    pub fn new() -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .connect_timeout(Duration::from_secs(2))
            .build()?;
        Ok(Self {
            http,
            urls: Arc::default(),
            turn: Arc::default(),
        })
    }

    /// The server is there now.
    pub fn moved(&self, urls: Vec<String>) {
        *self.urls.write().unwrap_or_else(PoisonError::into_inner) = urls;
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let urls = self.urls.read().unwrap_or_else(PoisonError::into_inner);
        let url = urls
            .get(self.turn.fetch_add(1, Ordering::Relaxed) % urls.len().max(1))
            .cloned()
            .unwrap_or_default();
        self.http.request(method, format!("{url}{path}"))
    }

    /// Whether the process at an address says that it is ready.
    pub async fn is_ready(&self, url: &str) -> bool {
        matches!(self.http.get(format!("{url}/readyz")).timeout(Duration::from_secs(5)).send().await, Ok(reply) if reply.status().is_success())
    }

    /// What the process at an address counts.
    pub async fn metrics(&self, url: &str) -> Result<String> {
        Ok(self
            .http
            .get(format!("{url}/metrics"))
            .timeout(Duration::from_millis(500))
            .send()
            .await?
            .text()
            .await?)
    }

    /// Sends newline-separated documents. `Err`: nobody knows what became of them.
    pub async fn push(&self, key: Option<&str>, body: String) -> reqwest::Result<Reply> {
        let mut request = self
            .request(Method::POST, &format!("/v1/collections/{COLLECTION}/documents"))
            .header("content-type", "application/x-ndjson");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        reply(request.timeout(Duration::from_secs(30)).body(body)).await
    }

    pub async fn put(&self, path: &str, body: Value) -> Result<()> {
        let reply = reply(self.request(Method::PUT, path).json(&body)).await?;
        if !reply.status.is_success() {
            bail!("PUT {path}: {}: {}", reply.status, reply.text);
        }
        Ok(())
    }

    /// A document by its id; `None` if there is none.
    pub async fn document(&self, id: &str) -> Result<Option<String>> {
        let reply = reply(self.request(
            Method::GET,
            &format!("/v1/collections/{COLLECTION}/documents/{}", percent(id)),
        ))
        .await?;
        match reply.status {
            StatusCode::OK => Ok(Some(reply.text)),
            StatusCode::NOT_FOUND => Ok(None),
            status => bail!("document {id}: {status}: {}", reply.text),
        }
    }

    pub async fn search(&self, query: &str, limit: usize, after: Option<&str>) -> Result<Hits> {
        let mut request = self
            .request(Method::GET, &format!("/v1/collections/{COLLECTION}/search"))
            .query(&[("q", query), ("limit", &limit.to_string())]);
        if let Some(after) = after {
            request = request.query(&[("after", after)]);
        }
        let reply = reply(request).await?;
        if !reply.status.is_success() {
            bail!("search {query}: {}: {}", reply.status, reply.text);
        }
        serde_json::from_str(&reply.text).with_context(|| format!("search {query}: {}", reply.text))
    }

    /// The rows of a statement.
    pub async fn rows<R: DeserializeOwned>(&self, question: Value) -> Result<Vec<R>> {
        #[derive(Deserialize)]
        struct Rows<R> {
            rows: Vec<R>,
            stats: BTreeMap<String, Value>,
        }
        let reply = reply(self.request(Method::POST, "/v1/sql").json(&question)).await?;
        if !reply.status.is_success() {
            bail!("{question}: {}: {}", reply.status, reply.text);
        }
        let rows: Rows<R> = serde_json::from_str(&reply.text)
            .with_context(|| format!("{question}: {}", reply.text.chars().take(2_000).collect::<String>()))?;
        for cut in ["truncated", "partial"] {
            if rows.stats.get(cut) != Some(&Value::Bool(false)) {
                bail!("{question}: the answer is {cut}: {:?}", rows.stats);
            }
        }
        Ok(rows.rows)
    }
}

async fn reply(request: reqwest::RequestBuilder) -> reqwest::Result<Reply> {
    let response = request.send().await?;
    Ok(Reply {
        status: response.status(),
        text: response.text().await?,
    })
}

/// An id as one piece of a path.
fn percent(id: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    id.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
