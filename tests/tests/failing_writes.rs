//! A write that fails is never retried and never lies: the shard closes, opens again from what is on disk, and goes on
//! with nothing lost and nothing twice.
//!
//! The failure is real: the operating system lets no file of the server grow beyond a limit, so the log ahead of the
//! writes cannot.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Server, Settings, eventually, server};

const FILE_BYTES_MAX: u64 = 4 << 20;
const PUSHES: usize = 24;
const DOCUMENTS: usize = 500;

/// The server where a file that is too big gives an error instead of a signal that ends the process.
fn patient(folder: &std::path::Path) -> Settings {
    let wrapper = folder.join("rachis");
    fs::write(
        &wrapper,
        format!(
            "#!/bin/sh\ntrap '' XFSZ\nexec '{}' \"$@\"\n",
            server::binary().display()
        ),
    )
    .expect("written");
    fs::set_permissions(&wrapper, fs::Permissions::from_mode(0o755)).expect("a program");
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
async fn a_shard_whose_write_fails_opens_again_with_nothing_lost_and_nothing_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(patient(folder.path())).await;
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
            let answer = request.body(body(push)).send().await.expect("the process lives");
            let status = answer.status().as_u16();
            let said: Value = answer.json().await.expect("JSON");
            if status == 200 {
                assert_eq!(said["accepted"], json!(DOCUMENTS), "{said}");
                break;
            }
            assert!(
                matches!(status, 429 | 503 | 504) && said["hint"].is_string(),
                "{status} {said}"
            );
            failures += u32::from(said["code"] == "unknown_outcome");
            tokio::task::yield_now().await;
        }
        assert_eq!(
            server.sql("select count(*) from events").await.one(),
            &json!((push + 1) * DOCUMENTS),
            "after push {push}"
        );
    }
    assert!(failures >= 2, "writes failed {failures} times");
    let twice = "select count(*) from (select push, n from events group by push, n having count(*) > 1) t";
    assert_eq!(server.sql(twice).await.one(), &json!(0));
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
