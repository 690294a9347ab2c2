//! Nothing is lost or duplicated, and no definition is forgotten, while the ledger program kills, pauses and restarts
//! the real server and a real broker under load.
//!
//! The long form is one command: `ledger --server RACHIS --kills 300 --records 1000000`, with the paths that
//! `tests/run` prints.

use std::process::Command;

use tests::{Settings, server};

/// Runs the ledger and returns its report; fails if it has findings.
fn ledger(settings: &Settings, arguments: &[&str]) -> String {
    let output = Command::new(server::workspace_binary("ledger"))
        .arg("--server")
        .arg(settings.binary.clone().unwrap_or_else(server::binary))
        .args(["--seed", &tests::seed().to_string()])
        .args(arguments)
        .envs(settings.environment.iter().cloned())
        .output()
        .expect("the ledger runs");
    let (report, log) = (
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    );
    assert!(output.status.success(), "{}\n{log}\n{report}", output.status);
    eprintln!("{report}");
    report
}

/// The number before these words in a report; 0 if it does not contain them.
fn count_of(words: &str, report: &str) -> u64 {
    let Some((before, _)) = report.split_once(words) else {
        return 0;
    };
    let number = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    number
        .parse()
        .unwrap_or_else(|_| panic!("no number before {words:?} in {report}"))
}

/// Without enough changes and questions, it proves little that none was wrong.
fn assert_definitions_changed(report: &str) {
    assert!(count_of(" changes of definitions", report) >= 100, "{report}");
    assert!(count_of(" questions right after one", report) >= 80, "{report}");
}

/// Without enough removals between the kills, it proves little that nothing else vanished.
fn assert_documents_were_removed(report: &str) {
    assert!(count_of(" deletes, ", report) >= 15, "{report}");
    assert!(count_of(" removals of expired documents", report) >= 3, "{report}");
    assert!(count_of(" questions right after a removal", report) >= 15, "{report}");
}

#[test]
fn kills_of_server_and_broker_lose_and_duplicate_nothing() {
    let jars = tests::kafka::jars().expect("Kafka's jars");
    // More records than must be acknowledged: while the broker is down the producer gives up records, the more the
    // slower the machine.
    let report = ledger(
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
    assert!(count_of(" kills (", &report) >= 10, "{report}");
    assert!(count_of(" kills of the broker", &report) >= 1, "{report}");
    assert!(count_of(" spreads of a partition", &report) >= 1, "{report}");
    assert!(count_of(" with a batch in flight", &report) >= 5, "{report}");
    assert!(count_of(" acknowledged", &report) >= 20_000, "{report}");
    assert_definitions_changed(&report);
    assert_documents_were_removed(&report);
}

#[test]
fn kills_and_pauses_of_every_role_lose_and_duplicate_nothing() {
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
    let report = ledger(&Settings::default().small_splits(), &arguments);
    assert!(count_of(" kills (", &report) >= 14, "{report}");
    assert!(count_of(" spreads of a partition", &report) >= 1, "{report}");
    assert!(
        count_of(" batches refused", &report) >= 1,
        "leaves refuse batches that were sent twice or by a tailer that was paused: {report}"
    );
    assert!(count_of(" acknowledged", &report) >= 12_000, "{report}");
    assert_definitions_changed(&report);
    assert_documents_were_removed(&report);
}

#[test]
fn leaves_that_die_freeze_join_leave_and_lose_disks_and_networks_lose_and_duplicate_nothing_and_are_not_missed() {
    let jars = tests::kafka::jars().expect("Kafka's jars");
    let arguments = [
        "--apart",
        "--replicas",
        "2",
        "--moves",
        "--cuts",
        "--kills",
        "12",
        "--records",
        "20000",
        "--kafka-jars",
        &jars.display().to_string(),
    ];
    let report = ledger(&Settings::default().small_splits(), &arguments);
    assert!(count_of(" kills (", &report) >= 12, "{report}");
    let (added, drained) = (count_of(" leaves added", &report), count_of(" leaves drained", &report));
    assert!(added >= 1 && drained >= 1 && added + drained >= 4, "{report}");
    assert!(count_of(" queries of the probe", &report) >= 100, "{report}");
    assert!(count_of(" disks emptied", &report) >= 1, "{report}");
    assert!(count_of(" spreads of a partition", &report) >= 1, "{report}");
    let cuts = ["a tailer", "a leaf", "an aggregator"].map(|of| count_of(&format!(" network cuts of {of}"), &report));
    assert!(cuts.iter().sum::<u64>() >= 3, "{report}");
    assert!(count_of(" acknowledged", &report) >= 12_000, "{report}");
    assert_definitions_changed(&report);
}

#[test]
fn pushes_survive_kills_without_kafka() {
    let report = ledger(
        &Settings::default().small_splits(),
        &["--push-only", "--kills", "6", "--records", "8000"],
    );
    assert!(count_of(" kills (", &report) >= 6, "{report}");
    assert!(count_of(" with a batch in flight", &report) >= 3, "{report}");
}
