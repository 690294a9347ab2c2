//! Nothing lost, nothing twice: the ledger program kills, pauses and restarts the real server and a real broker under
//! load, in every run.
//!
//! The long way is one command: `ledger --server RACHIS --kills 300 --records 1000000`, with the paths that `tests/run`
//! prints.

use std::process::Command;

use tests::{Settings, server};

/// Runs the ledger; fails with its findings. What it says at the end is given back.
fn ledger(settings: &Settings, arguments: &[&str]) -> String {
    let output = Command::new(server::built("ledger"))
        .arg("--server")
        .arg(settings.binary.clone().unwrap_or_else(server::binary))
        .args(["--seed", &tests::seed().to_string()])
        .args(arguments)
        .envs(settings.environment.iter().cloned())
        .output()
        .expect("the ledger runs");
    let (said, noted) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{}\n{noted}\n{said}", output.status);
    eprintln!("{said}");
    said
}

/// The number before these words in the ledger's last line.
fn told(said: &str, words: &str) -> u64 {
    let before = said.split(words).next().unwrap_or_default();
    let number = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    number
        .parse()
        .unwrap_or_else(|_| panic!("no number before {words:?} in {said}"))
}

#[test]
fn nothing_is_lost_and_nothing_is_twice_while_server_and_broker_are_killed() {
    let jars = tests::kafka::jars().expect("Kafka's jars");
    // More than have to be acknowledged: the producer gives up records while the broker is dead, the more the slower
    // the machine.
    let said = ledger(
        &Settings::default().small_splits(),
        &[
            "--kills",
            "12",
            "--records",
            "36000",
            "--kafka-jars",
            &jars.display().to_string(),
        ],
    );
    assert!(told(&said, " kills (") >= 10, "{said}");
    assert!(told(&said, " kills of the broker") >= 1, "{said}");
    assert!(told(&said, " with a batch in flight") >= 5, "{said}");
    assert!(told(&said, " acknowledged") >= 20_000, "{said}");
}

#[test]
fn nothing_is_lost_and_nothing_is_twice_while_processes_of_all_roles_are_killed_and_frozen() {
    let jars = tests::kafka::jars().expect("Kafka's jars");
    let arguments = [
        "--apart",
        "--kills",
        "14",
        "--records",
        "20000",
        "--kafka-jars",
        &jars.display().to_string(),
    ];
    let said = ledger(&Settings::default().small_splits(), &arguments);
    assert!(told(&said, " kills (") >= 14, "{said}");
    assert!(
        told(&said, " batches refused") >= 1,
        "what was sent twice, or by one who was frozen, is refused: {said}"
    );
    assert!(told(&said, " acknowledged") >= 12_000, "{said}");
}

#[test]
fn pushes_survive_kills_without_a_log_before_them() {
    let said = ledger(
        &Settings::default().small_splits(),
        &["--push-only", "--kills", "6", "--records", "8000"],
    );
    assert!(told(&said, " kills (") >= 6, "{said}");
    assert!(told(&said, " with a batch in flight") >= 3, "{said}");
}
