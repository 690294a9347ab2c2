//! A data folder that an earlier release wrote answers as it did then: documents, searches, deletes, dead letters,
//! definitions and losses.
//!
//! The folders are `tests/kept/*.tar.gz`, one for each release whose folder this one must read. To add the folder of
//! this release, run this and commit the new file:
//!
//! ```text
//! RACHIS_KEEP_FOLDER=1 ./tests/run --test kept_folder
//! ```

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use reqwest::Method;
use serde_json::{Value, json};
use tests::{Client, Kafka, Server, Settings, kafka::NewRecord, query_both};

/// What every kept folder answers. `_ingested` is not among it: it differs from folder to folder.
fn expected() -> Vec<(&'static str, Value)> {
    vec![
        ("select count(*), sum(n), max(n) from orders", json!([[49, 1492, 100]])),
        (
            "select n, text from orders where _id = 'o1'",
            json!([[100, "disk full"]]),
        ),
        ("select n from orders where _id = 'o2'", json!([])),
        (
            r#"select count(*) from orders where search('text:"disk full"')"#,
            json!([[13]]),
        ),
        (
            "select _offset, n from orders where n between 40 and 54 order by n",
            json!([[39, 40], [53, 53], [54, 54]]),
        ),
        ("select sum(double_n) from orders", json!([[2984]])),
        ("select count(*) from big_orders", json!([[21]])),
        (
            "select count(*), min(_time), max(_time) from events",
            json!([[30, "2024-01-01T00:00:00Z", "2024-01-01T00:00:00Z"]]),
        ),
        (
            "select count(*) from events where tags is not null and level = 'error'",
            json!([[10]]),
        ),
        (
            "select source, code from rachis.dead_letters",
            json!([["orders", "not_json"]]),
        ),
        (
            "select source, partition, from_offset, through_offset, reason from rachis.losses",
            json!([["orders", 0, 43, 52, "skipped on request"]]),
        ),
    ]
}

fn kept() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kept")
}

fn tar(arguments: &[&str], folder: &Path, archive: &Path) {
    let status = Command::new("tar")
        .args(arguments)
        .arg(archive)
        .arg("-C")
        .arg(folder)
        .arg("data")
        .status();
    assert!(status.expect("tar runs").success(), "{}", archive.display());
}

async fn answers_as_expected(server: &Client, of: &str) {
    for (sql, rows) in expected() {
        let found = match sql.contains("rachis.") {
            true => server.sql(sql).await.rows,
            false => query_both(server, sql).await,
        };
        assert_eq!(json!(found), rows, "{of}: {sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folders_of_earlier_releases_answer_as_they_did() {
    if std::env::var_os("RACHIS_KEEP_FOLDER").is_some() {
        keep_folder().await;
    }
    let mut archives: Vec<PathBuf> = std::fs::read_dir(kept())
        .expect("the kept folders")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "gz"))
        .collect();
    archives.sort();
    assert!(!archives.is_empty(), "no folder was kept");
    for archive in archives {
        let name = archive.display().to_string();
        let unpack = |folder: &Path| tar(&["-xzf"], folder, &archive);
        let mut server = Server::start_on(Settings::default(), unpack).await;
        answers_as_expected(&server, &name).await;
        assert!(
            !server.log_tail().contains("rebuilding"),
            "{name}: its splits are read, not built again"
        );
        server
            .push("events", r#"{"level":"info"}"#)
            .await
            .expect("it takes documents");
        server.stop();
        server.restart().await;
        server.eventually("select count(*) from events", json!(31)).await;
    }
}

fn order(n: usize, full: bool) -> Option<Vec<u8>> {
    let text = if full { "disk full" } else { "all fine" };
    Some(format!(r#"{{"n":{n},"text":"{text}","ratio":{n}.5,"deep":{{"list":[{n},"x"]}}}}"#).into_bytes())
}

fn keyed(n: usize) -> NewRecord {
    NewRecord::keyed(format!("o{n}"), order(n, n.is_multiple_of(4)))
}

async fn source(server: &Client, action: &str, body: Value) {
    let answer = server
        .json(Method::POST, &format!("/v1/sources/orders/{action}"), body)
        .await;
    answer.expect("an answer");
}

/// Writes the folder of this release.
async fn keep_folder() {
    let kafka = Kafka::start().await;
    kafka.create_topic("orders", 1, &[]).await;
    let mut records: Vec<NewRecord> = (1..=40).map(keyed).collect();
    records.extend([
        NewRecord::keyed("o1", order(100, true)),
        NewRecord::keyed("o2", None),
        NewRecord::keyed("o3", Some(b"{oops".to_vec())),
    ]);
    kafka.produce("orders", records).await;
    let mut server = Server::start(Settings::default().small_splits()).await;
    let options = json!({ "key": "record" });
    let created = server
        .source("orders", "orders", "orders", &kafka.bootstrap(), options)
        .await;
    created.expect("a source");
    server.eventually("select count(*) from orders", json!(39)).await;
    source(&server, "suspend", json!({})).await;
    kafka.produce("orders", (43..63).map(keyed).collect()).await;
    source(&server, "skip", json!({ "to": { "0": 53 } })).await;
    source(&server, "resume", json!({})).await;
    server.eventually("select count(*) from orders", json!(49)).await;
    let levels = ["error", "info", "warn"];
    let events = (0..30).map(|n| {
        let level = levels[n % 3];
        json!({ "_id": format!("e{}", n), "at": "2024-01-01T00:00:00Z", "level": level, "tags": ["a", n] }).to_string()
    });
    let events: Vec<String> = events.collect();
    server.push("events", events.join("\n")).await.expect("a push");
    server
        .push("events", events[..5].join("\n"))
        .await
        .expect("documents that are replaced");
    let settings = json!({ "time_path": "at" });
    server
        .json(Method::PUT, "/v1/collections/events", settings)
        .await
        .expect("settings");
    server.sql("create field orders.double_n as (n * 2)").await;
    server
        .sql("create view big_orders as select * from orders where n > 30")
        .await;
    server.wait_for_splits(79).await;
    answers_as_expected(&server, "before it is kept").await;
    server.stop();
    let data = server.data_dir();
    let archive = kept().join(format!("data-{}.tar.gz", env!("CARGO_PKG_VERSION")));
    tar(
        &["--exclude=ballast", "--exclude=LOG*", "-czf"],
        data.parent().expect("a parent"),
        &archive,
    );
}
