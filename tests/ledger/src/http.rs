//! The HTTP client of the ledger; it follows the server to new addresses.

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

/// The collection that all events go into.
pub(crate) const COLLECTION: &str = "ledger";

/// Cheap to clone; all clones share the addresses and use them round-robin.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    urls: Arc<RwLock<Vec<String>>>,
    next: Arc<AtomicUsize>,
}

/// One page of search hits.
#[derive(Deserialize)]
pub(crate) struct Hits {
    pub hits: Vec<Hit>,
    pub total: u64,
    #[serde(default)]
    pub after: Option<String>,
}

/// A hit with its document exactly as received.
#[derive(Deserialize)]
pub(crate) struct Hit {
    pub id: String,
    pub document: Box<RawValue>,
}

/// The answer to a delete.
#[derive(Deserialize)]
pub(crate) struct Deleted {
    pub deleted: u64,
}

/// A response of any status.
pub(crate) struct Reply {
    pub status: StatusCode,
    pub text: String,
}

impl Client {
    pub(crate) fn new() -> Result<Self> {
        let http = reqwest::Client::builder()
            .timeout(Duration::from_secs(60))
            .connect_timeout(Duration::from_secs(2))
            .build()?;
        Ok(Self {
            http,
            urls: Arc::default(),
            next: Arc::default(),
        })
    }

    /// Sends further requests to these addresses.
    pub(crate) fn set_urls(&self, urls: Vec<String>) {
        *self.urls.write().unwrap_or_else(PoisonError::into_inner) = urls;
    }

    /// A client of each address.
    pub(crate) fn of_each_node(&self) -> Result<Vec<Self>> {
        let urls = self.urls.read().unwrap_or_else(PoisonError::into_inner);
        let of_one = |url: &String| {
            let client = Self::new()?;
            client.set_urls(vec![url.clone()]);
            Ok(client)
        };
        urls.iter().map(of_one).collect()
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let urls = self.urls.read().unwrap_or_else(PoisonError::into_inner);
        let url = urls
            .get(self.next.fetch_add(1, Ordering::Relaxed) % urls.len().max(1))
            .cloned()
            .unwrap_or_default();
        self.http.request(method, format!("{url}{path}"))
    }

    /// Whether the process at an address reports that it has started. Replicas on a leaf may have to catch up.
    pub(crate) async fn has_started(&self, url: &str) -> bool {
        let request = self.http.get(format!("{url}/readyz")).timeout(Duration::from_secs(5));
        let Ok(reply) = request.send().await else { return false };
        let is_ready = reply.status().is_success();
        is_ready
            || reply
                .text()
                .await
                .is_ok_and(|text| text.contains("replicas on this leaf"))
    }

    /// The metrics of the process at an address.
    pub(crate) async fn metrics(&self, url: &str) -> Result<String> {
        Ok(self
            .http
            .get(format!("{url}/metrics"))
            .timeout(Duration::from_millis(500))
            .send()
            .await?
            .text()
            .await?)
    }

    /// Sends newline-separated documents. On `Err` their outcome is unknown.
    pub(crate) async fn push(&self, key: Option<&str>, body: String) -> reqwest::Result<Reply> {
        let mut request = self
            .request(Method::POST, &format!("/v1/collections/{COLLECTION}/documents"))
            .header("content-type", "application/x-ndjson");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        reply(request.timeout(Duration::from_secs(30)).body(body)).await
    }

    pub(crate) async fn put(&self, path: &str, body: Value) -> Result<Value> {
        let reply = reply(self.request(Method::PUT, path).json(&body)).await?;
        if !reply.status.is_success() {
            bail!("PUT {path}: {}: {}", reply.status, reply.text);
        }
        Ok(serde_json::from_str(&reply.text)?)
    }

    pub(crate) async fn post(&self, path: &str, body: Value) -> Result<Value> {
        let reply = reply(self.request(Method::POST, path).json(&body)).await?;
        if !reply.status.is_success() {
            bail!("POST {path}: {}: {}", reply.status, reply.text);
        }
        Ok(serde_json::from_str(&reply.text)?)
    }

    /// A document by its id; `None` if it does not exist.
    pub(crate) async fn document(&self, id: &str) -> Result<Option<String>> {
        let reply = reply(self.request(
            Method::GET,
            &format!("/v1/collections/{COLLECTION}/documents/{}", percent_encode(id)),
        ))
        .await?;
        match reply.status {
            StatusCode::OK => Ok(Some(reply.text)),
            StatusCode::NOT_FOUND => Ok(None),
            status => bail!("document {id}: {status}: {}", reply.text),
        }
    }

    /// Deletes the document with an id. Returns how many there were.
    pub(crate) async fn delete(&self, id: &str) -> Result<u64> {
        let path = format!("/v1/collections/{COLLECTION}/documents/{}", percent_encode(id));
        let reply = reply(self.request(Method::DELETE, &path)).await?;
        match reply.status {
            StatusCode::OK => Ok(serde_json::from_str::<Deleted>(&reply.text)?.deleted),
            StatusCode::NOT_FOUND => Ok(0),
            status => bail!("deletion of {id}: {status}: {}", reply.text),
        }
    }

    /// Removes a node that has ended from the cluster.
    pub(crate) async fn delete_node(&self, name: &str) -> Result<()> {
        let reply = reply(self.request(Method::DELETE, &format!("/v1/nodes/{name}"))).await?;
        if !reply.status.is_success() {
            bail!("removal of {name}: {}: {}", reply.status, reply.text);
        }
        Ok(())
    }

    pub(crate) async fn search(&self, query: &str, limit: usize, after: Option<&str>) -> Result<Hits> {
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

    /// The rows of a query. Fails if the result is incomplete.
    pub(crate) async fn rows<R: DeserializeOwned>(&self, query: Value) -> Result<Vec<R>> {
        #[derive(Deserialize)]
        struct Rows<R> {
            rows: Vec<R>,
            stats: BTreeMap<String, Value>,
        }
        let reply = reply(self.request(Method::POST, "/v1/sql").json(&query)).await?;
        if !reply.status.is_success() {
            bail!("{query}: {}: {}", reply.status, reply.text);
        }
        let rows: Rows<R> = serde_json::from_str(&reply.text)
            .with_context(|| format!("{query}: {}", reply.text.chars().take(2_000).collect::<String>()))?;
        for defect in ["truncated", "partial"] {
            if rows.stats.get(defect) != Some(&Value::Bool(false)) {
                bail!("{query}: the result is {defect}: {:?}", rows.stats);
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

/// Percent-encodes an id as one path segment.
fn percent_encode(id: &str) -> String {
    let unreserved = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    id.bytes()
        .map(|byte| {
            if unreserved(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}
