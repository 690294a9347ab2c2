//! The README's five minutes can be typed as they stand, and say what the README says of them.

use std::{io::Write as _, process::Command};

use serde_json::json;
use tests::{Kafka, Server, Settings, kafka::Produce, server};

/// The indented block of a section, in which the server is at its usual address.
fn block(readme: &str, section: &str) -> String {
    let from = readme
        .split_once(&format!("## {section}\n"))
        .expect("the section is there")
        .1;
    let until = from.split_once("\n## ").map_or(from, |(section, _)| section);
    let lines: Vec<&str> = until
        .lines()
        .filter_map(|line| {
            if line.is_empty() {
                Some("")
            } else {
                line.strip_prefix("    ")
            }
        })
        .collect();
    lines.join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn the_five_minutes_of_the_readme_work_as_they_stand() {
    let readme = include_str!("../../README.md");
    let kafka = Kafka::start().await;
    kafka.create_topic("clicks", 2, &[]).await;
    kafka
        .produce(
            "clicks",
            (0..10).map(|n| Produce::value(format!("{{\"click\":{n}}}"))).collect(),
        )
        .await;
    let server = Server::start(Settings::default()).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = std::fs::File::create(folder.path().join("more.ndjson.gz")).expect("a file");
    let mut packed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    packed
        .write_all(b"{\"user\":{\"name\":\"eve\"},\"ms\":30}\n")
        .expect("written");
    packed.finish().expect("written");

    let usual = block(readme, "Five minutes with it");
    let (usual_url, usual_broker) = (["http://127.0.0.1", "7700"].join(":"), ["localhost", "9092"].join(":"));
    assert!(usual.contains(&usual_url) && usual.contains(&usual_broker), "{usual}");
    let script = usual
        .replace(&usual_url, server.url())
        .replace(&usual_broker, &kafka.bootstrap());
    let rachis = server::binary();
    let program = format!(
        "set -euxo pipefail\nrachis() {{ '{}' \"$@\"; }}\n{script}\nrachis push events more.ndjson.gz\n",
        rachis.display()
    );
    let output = Command::new("bash")
        .args(["-c", &program])
        .current_dir(folder.path())
        .env("RACHIS_URL", server.url())
        .output()
        .expect("bash runs");
    let (said, noted) = (
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
    assert!(output.status.success(), "{noted}\n{said}");

    // Ada, Bob (whose "slow" is no number) and once what the file holds, which was pushed twice.
    let answer = server.sql("SELECT count(*), sum(ms) FROM events").await;
    assert_eq!(answer.rows, [[json!(3), json!(42)]], "{said}");
    assert!(answer.stats["warnings"].to_string().contains("ms"), "{}", answer.stats);
    assert_eq!(
        server
            .sql("select round(seconds, 1) from events where user.name = 'eve'")
            .await
            .rows,
        [[json!(0.0)]]
    );
    server.eventually("select count(*) from clicks", json!(10)).await;
}
