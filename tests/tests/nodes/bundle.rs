//! The debug bundle holds every node, but no secret and no document.

use std::{
    path::Path,
    process::{Command, Output},
};

use serde_json::json;
use tests::{Cluster, Settings};

use super::SMALL;

/// A value in a document, and in a dead letter.
const PRIVATE: &str = "a-private-word";
/// A password in the settings of a source.
const SECRET: &str = "a-secret-word";

#[tokio::test]
async fn a_debug_bundle_holds_every_node_but_no_secret_and_no_document() {
    let mut cluster = Cluster::start(SMALL, Settings::default()).await;
    cluster
        .push("events", format!("{{\"text\":\"{PRIVATE}\"}}\nnot JSON {PRIVATE}"))
        .await
        .expect("a push");
    cluster.kafka.create_topic("clicks", 1, &[]).await;
    let config = json!({ "bootstrap.servers": cluster.kafka.bootstrap(), "sasl.password": SECRET });
    cluster
        .source(
            "clicks",
            "clicks",
            "clicks",
            &cluster.kafka.bootstrap(),
            json!({ "config": config }),
        )
        .await
        .expect("a source");
    cluster.kill("tailer-1");
    for (name, by_config) in [("by-url", false), ("by-config", true)] {
        let folder = cluster.data_dir(name);
        std::fs::create_dir_all(&folder).expect("a folder");
        let file = folder.join("bundle.tar.gz");
        let output = make_bundle(&cluster, &file, by_config);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{stderr}");
        assert!(stderr.contains("tailer-1"), "the missing node is reported: {stderr}");
        unpack(&file, &folder);
        check_contents(&cluster, &files_below(&folder));
    }
}

/// Makes a bundle through an aggregator or, given the settings of the cluster, although the node of the URL is down.
fn make_bundle(cluster: &Cluster, file: &Path, by_config: bool) -> Output {
    let url_of = |name: &str| {
        cluster
            .nodes()
            .find(|node| node.name == name)
            .expect("a node")
            .url
            .clone()
    };
    let mut command = Command::new(tests::server::binary());
    command
        .args(["debug", "bundle", "--output"])
        .arg(file)
        .env_remove("RACHIS_CONFIG")
        .env_remove("RACHIS_URL");
    match by_config {
        true => command
            .arg("--config")
            .arg(cluster.config())
            .args(["--url", &url_of("tailer-1")]),
        false => command.args(["--url", &url_of("aggregator-2")]),
    };
    command.output().expect("the command runs")
}

fn unpack(file: &Path, folder: &Path) {
    assert!(
        Command::new("tar")
            .arg("-xzf")
            .arg(file)
            .arg("-C")
            .arg(folder)
            .status()
            .expect("tar runs")
            .success()
    );
}

fn check_contents(cluster: &Cluster, files: &[(String, Vec<u8>)]) {
    let text = |end: &str| {
        let (_, bytes) = files
            .iter()
            .find(|(path, _)| path.ends_with(end))
            .unwrap_or_else(|| panic!("{end} is in {:?}", files.iter().map(|f| &f.0).collect::<Vec<_>>()));
        String::from_utf8_lossy(bytes).into_owned()
    };
    for node in cluster
        .nodes()
        .map(|node| &node.name)
        .filter(|name| *name != "tailer-1")
    {
        assert!(
            text(&format!("nodes/{node}/metrics")).contains("process_resident_memory_bytes"),
            "{node}"
        );
        assert!(text(&format!("nodes/{node}/readyz")).contains("status"), "{node}");
    }
    assert!(
        text("tables/nodes.json").contains("leaf-1")
            && text("tables/shards.json").contains("events")
            && text("settings/sources.json").contains("***")
    );
    assert!(text("about.json").contains("tailer-1"), "{}", text("about.json"));
    for (path, bytes) in files.iter().filter(|(path, _)| !path.ends_with(".gz")) {
        let text = String::from_utf8_lossy(bytes);
        assert!(!text.contains(SECRET) && !text.contains(PRIVATE), "{path}: {text}");
    }
}

fn files_below(folder: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        match path.is_dir() {
            true => found.extend(files_below(&path)),
            false => found.push((path.display().to_string(), std::fs::read(&path).expect("a file"))),
        }
    }
    found
}
