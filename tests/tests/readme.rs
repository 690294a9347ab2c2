//! The commands of "Five minutes" in the README work as printed and have the results that the README describes; the usual
//! mistakes of `mistakes.md` get the messages that it lists.

use std::{io::Write as _, path::Path, process::Command};

use serde_json::json;
use tests::{Kafka, Server, Settings, kafka::NewRecord, server};

/// The indented lines of a section.
fn block(readme: &str, section: &str) -> String {
    let from = readme
        .split_once(&format!("## {section}\n"))
        .unwrap_or_else(|| panic!("README.md has no section {section:?}"))
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
async fn the_commands_of_five_minutes_work_as_printed() {
    let readme = include_str!("../../README.md");
    let kafka = Kafka::start().await;
    kafka.create_topic("clicks", 2, &[]).await;
    kafka
        .produce(
            "clicks",
            (0..10)
                .map(|n| NewRecord::value(format!("{{\"click\":{n}}}")))
                .collect(),
        )
        .await;
    let server = Server::start(Settings {
        demo: true,
        ..Settings::default()
    })
    .await;
    // As for a reader who has started the demo and then reads on.
    let of_web_3 = "SELECT count(*) >= 20 FROM logs WHERE host = 'web-3' AND line LIKE '203%s'";
    server.eventually(of_web_3, json!(true)).await;
    let folder = tempfile::tempdir().expect("a folder");
    write_gzip(
        &folder.path().join("more.ndjson.gz"),
        b"{\"user\":{\"name\":\"eve\"},\"ms\":30}\n",
    );

    let commands = block(readme, "Five minutes");
    let (default_url, default_broker) = (["http://127.0.0.1", "7700"].join(":"), ["localhost", "9092"].join(":"));
    assert!(
        commands.contains(&default_url) && commands.contains(&default_broker),
        "{commands}"
    );
    let script = commands
        .replace(&default_url, server.url())
        .replace(&default_broker, &kafka.bootstrap());
    let stdout = run_script(&script, folder.path(), server.url());

    // Ada, Bob (whose "slow" is not a number) and, once, the document of the file, which was pushed twice.
    let answer = server.sql("SELECT count(*), sum(ms) FROM events").await;
    assert_eq!(answer.rows, [[json!(3), json!(42)]], "{stdout}");
    assert!(answer.stats["warnings"].to_string().contains("ms"), "{}", answer.stats);
    // The parser and the field apply to all lines, and the mistake is undone.
    let apart = "SELECT count(*) FROM logs WHERE (access.took IS NULL) <> (line NOT LIKE '203.%') \
                 OR line LIKE '203.%' AND round(ms) <> regexp_extract(line, '([0-9.]+)m?s$', 1)::double \
                 * CASE WHEN line LIKE '%ms' THEN 1 ELSE 1000 END";
    assert_eq!(server.sql(apart).await.rows, [[json!(0)]], "{stdout}");
    let exported = std::fs::read_to_string(folder.path().join("definitions.sql")).expect("the file");
    assert!(exported.contains("CREATE OR REPLACE PARSER logs.access"), "{exported}");
    server.eventually("select count(*) from clicks", json!(10)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn usual_mistakes_get_a_message_with_a_hint() {
    let server = Server::start(Settings::default()).await;
    let commands = block(include_str!("../../README.md"), "Five minutes");
    let documents: Vec<&str> = commands
        .split('\'')
        .filter(|text| text.starts_with("{\"user\""))
        .collect();
    assert_eq!(documents.len(), 2, "{commands}");
    server.push("events", documents.join("\n")).await.expect("a push");
    let mistakes = include_str!("../mistakes.md").split("\n## ").skip(1);
    let (mut count, mut complaints) = (0, Vec::new());
    for mistake in mistakes {
        count += 1;
        let lines = |prefix: &'static str| mistake.lines().filter_map(move |line| line.strip_prefix(prefix));
        let command: Vec<&str> = lines("    ").collect();
        let program = format!(
            "rachis() {{ '{}' \"$@\"; }}\n{}",
            server::binary().display(),
            command.join("\n")
        );
        let output = Command::new("bash")
            .args(["-c", &program])
            .env("RACHIS_URL", server.url())
            .output()
            .expect("bash runs");
        let printed = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        let missing: Vec<&str> = lines("> ")
            .filter(|said| !printed.iter().any(|text| text.contains(said)))
            .collect();
        let is_said = lines("> ").next().is_some();
        if !missing.is_empty() || !is_said {
            complaints.push(format!("{program}\n{}\nlacks {missing:?}", printed.join("\n")));
        }
    }
    assert!(
        count >= 20 && complaints.is_empty(),
        "{count} mistakes\n{}",
        complaints.join("\n\n")
    );
}

fn write_gzip(path: &Path, bytes: &[u8]) {
    let file = std::fs::File::create(path).expect("a file");
    let mut compressed = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    compressed.write_all(bytes).expect("written");
    compressed.finish().expect("written");
}

/// Runs the commands in a folder and, after them, the last push once more. Returns what they print.
fn run_script(script: &str, folder: &Path, url: &str) -> String {
    let program = format!(
        "set -euxo pipefail\nrachis() {{ '{}' \"$@\"; }}\n{script}\nrachis push events more.ndjson.gz\n",
        server::binary().display()
    );
    let output = Command::new("bash")
        .args(["-c", &program])
        .current_dir(folder)
        .env("RACHIS_URL", url)
        .output()
        .expect("bash runs");
    let stdout = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{}\n{stdout}",
        String::from_utf8_lossy(&output.stderr)
    );
    stdout
}
