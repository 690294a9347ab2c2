//! Failed writes: the leaf never retries one and never acknowledges one. The shard closes, reopens from disk and
//! continues without loss or duplicates.
//!
//! The failure is real: an operating system limit caps the size of the server's files, so the write-ahead log cannot
//! grow past it.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Server, Settings, eventually, server};

const FILE_BYTES_MAX: u64 = 4 << 20;
const PUSHES: usize = 24;
const DOCUMENTS: usize = 500;

/// Wraps the server binary so that a write past the file size limit returns an error instead of raising SIGXFSZ.
fn ignoring_sigxfsz(folder: &std::path::Path) -> Settings {
    let wrapper = folder.join("rachis");
    fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\ntrap '' XFSZ\nexec '{}' \"$@\"\n",
            server::binary().display()
        ),
    )
    .expect("written");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("the wrapper is executable");
    Settings {
        binary: Some(wrapper),
        ..Settings::default()
    }
}

fn body(push: usize) -> String {
    (0..DOCUMENTS)
        .map(|n| {
            format!(
                "{{\"push\":{push},\"n\":{n},\"text\":\"{}\"}}\n",
                "all is well ".repeat(60)
            )
        })
        .collect()
}

#[tokio::test]
async fn a_shard_reopens_after_a_failed_write_without_loss_or_duplicates() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(ignoring_sigxfsz(folder.path())).await;
    let pid = server.process().pid().to_string();
    let limited = Command::new("prlimit")
        .args(["--pid", &pid, &format!("--fsize={FILE_BYTES_MAX}:unlimited")])
        .status()
        .expect("prlimit runs");
    assert!(limited.success());

    let mut failures = 0;
    for push in 0..PUSHES {
        loop {
            let request = server
                .request(Method::POST, "/v1/collections/events/documents")
                .header("idempotency-key", format!("push {push}"));
            let answer = request.body(body(push)).send().await.expect("the server responds");
            let status = answer.status().as_u16();
            let response: Value = answer.json().await.expect("JSON");
            if status == 200 {
                assert_eq!(response["accepted"], json!(DOCUMENTS), "{response}");
                break;
            }
            assert!(
                matches!(status, 429 | 503 | 504) && response["hint"].is_string(),
                "{status} {response}"
            );
            failures += u32::from(response["code"] == "unknown_outcome");
            tokio::task::yield_now().await;
        }
        assert_eq!(
            server.sql("select count(*) from events").await.single_value(),
            &json!((push + 1) * DOCUMENTS),
            "after push {push}"
        );
    }
    assert!(failures >= 2, "writes failed {failures} times");
    let duplicated = "select count(*) from (select push, n from events group by push, n having count(*) > 1) t";
    assert_eq!(server.sql(duplicated).await.single_value(), &json!(0));
    eventually("the server is ready", async || {
        anyhow::ensure!(
            server
                .request(Method::GET, "/readyz")
                .send()
                .await?
                .status()
                .is_success()
        );
        Ok(())
    })
    .await;
}
