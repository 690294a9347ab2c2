//! What the clients of all servers share: one kept connection pool, and how a request is timed.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use reqwest::{Client, RequestBuilder, StatusCode};
use serde_json::Value;
use tests::process::Process;

/// How long a server may take to start, and to answer a request.
const START_MAX: Duration = Duration::from_secs(120);
const REQUEST_MAX: Duration = Duration::from_secs(600);

/// A client that keeps its connections.
pub(crate) fn client() -> Result<Client> {
    Ok(Client::builder().no_proxy().timeout(REQUEST_MAX).build()?)
}

/// Sends a request. Returns the body, and the time from sending until its last byte was read.
pub(crate) async fn timed(request: RequestBuilder) -> Result<(Vec<u8>, Duration)> {
    let started = Instant::now();
    let response = request.send().await?;
    let status = response.status();
    let body = response.bytes().await?;
    let time = started.elapsed();
    ensure!(status.is_success(), "{status}: {}", String::from_utf8_lossy(&body));
    Ok((body.to_vec(), time))
}

/// Sends a request and parses its answer; an error status becomes an error that contains the body.
pub(crate) async fn json(request: RequestBuilder) -> Result<Value> {
    let (body, _) = timed(request).await?;
    serde_json::from_slice(&body).with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&body)))
}

/// Like [`json`], but sends the request again as long as the server has no room for it (503).
pub(crate) async fn json_when_accepted(request: RequestBuilder) -> Result<Value> {
    const PAUSE: Duration = Duration::from_millis(50);
    let started = Instant::now();
    loop {
        let attempt = request.try_clone().context("the request cannot be sent twice")?;
        let response = attempt.send().await?;
        let status = response.status();
        if status != StatusCode::SERVICE_UNAVAILABLE || started.elapsed() > REQUEST_MAX {
            let body = response.text().await?;
            ensure!(status.is_success(), "{status}: {body}");
            return serde_json::from_str(&body).with_context(|| format!("not JSON: {body}"));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until a server answers this request with success.
pub(crate) async fn wait_until_ready(process: &mut Process, request: impl Fn() -> RequestBuilder) -> Result<()> {
    let started = Instant::now();
    loop {
        if let Some(status) = process.exit_status() {
            anyhow::bail!("it exited with {status}; {}", process.log_tail());
        }
        if request()
            .send()
            .await
            .is_ok_and(|response| response.status().is_success())
        {
            return Ok(());
        }
        ensure!(
            started.elapsed() < START_MAX,
            "it does not answer; {}",
            process.log_tail()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
