//! The ledger can fail: it finds each bug that is seeded into a server.
//!
//! The server with the bugs is a binary of its own, which `tests/run` builds. Each bug gets the cheapest run that can
//! show it; the points at which the server ends itself are where order and atomicity are decided.

use std::process::Command;

use tests::{Settings, server};

struct SeededBug {
    name: &'static str,
    /// Where the server ends itself, for bugs that only a crash reveals.
    crash_at: &'static [&'static str],
    arguments: &'static [&'static str],
    /// Texts of which the report of the ledger must contain at least one.
    findings: &'static [&'static str],
}

const BUGS: [SeededBug; 6] = [
    SeededBug {
        name: "dead-letter-dropped",
        crash_at: &[],
        arguments: &["--push-only", "--kills", "1", "--records", "3000"],
        findings: &["dead letters:", "the outcomes do not add up"],
    },
    SeededBug {
        name: "position-in-second-batch",
        crash_at: &["between-batches"],
        arguments: &["--push-only", "--kills", "6", "--records", "6000"],
        findings: &["findings"],
    },
    SeededBug {
        name: "request-row-outside",
        crash_at: &["between-batches"],
        arguments: &["--push-only", "--kills", "8", "--records", "8000"],
        findings: &["is there twice", "repeated", "409 is promised"],
    },
    // A second sender runs ahead of the tailer, batch by batch. Without the check, the events that it skipped are
    // mistaken for duplicates.
    SeededBug {
        name: "no-gap-check",
        crash_at: &[],
        arguments: &["--kills", "1", "--records", "4000"],
        findings: &["is missing", "findings"],
    },
    SeededBug {
        name: "manifest-before-files",
        crash_at: &["manifest-before-files"],
        arguments: &["--push-only", "--kills", "6", "--records", "12000"],
        findings: &["findings"],
    },
    SeededBug {
        name: "delete-per-split",
        crash_at: &[],
        arguments: &["--push-only", "--kills", "4", "--records", "12000"],
        findings: &["and should not be", "is there twice"],
    },
];

/// Most of a run is waiting, so several run at once.
#[test]
fn the_ledger_finds_every_seeded_bug() {
    std::thread::scope(|scope| {
        for bugs in BUGS.chunks(2) {
            scope.spawn(|| bugs.iter().for_each(assert_found));
        }
    });
}

fn assert_found(bug: &SeededBug) {
    let report = run(bug);
    assert!(
        bug.findings.iter().any(|finding| report.contains(finding)),
        "{}: none of {:?} in\n{report}",
        bug.name,
        bug.findings
    );
}

/// The bugs are off unless one is switched on. The tailer of this server is always overtaken by a second sender.
#[test]
fn without_a_bug_the_same_run_is_clean() {
    let output = ledger()
        .args(["--kills", "1", "--records", "4000"])
        .output()
        .expect("the ledger runs");
    let report = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{}\n{report}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        report.contains("every acknowledged record that was not deleted is there exactly once"),
        "{report}"
    );
}

/// The ledger, to be run with the server that has the bugs.
fn ledger() -> Command {
    let mut command = Command::new(server::workspace_binary("ledger"));
    command
        .arg("--server")
        .arg(server::workspace_binary("rachis-mutant"))
        .args(["--seed", &tests::seed().to_string()]);
    command
        .arg("--kafka-jars")
        .arg(tests::kafka::jars().expect("Kafka's jars"))
        .envs(Settings::default().small_splits().environment);
    command
}

/// Runs the ledger with a bug switched on and returns its report.
fn run(bug: &SeededBug) -> String {
    let mut command = ledger();
    command.args(["--bug", bug.name]).args(bug.arguments);
    command.args(bug.crash_at.iter().flat_map(|point| ["--crash-at", point]));
    let output = command.output().expect("the ledger runs");
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    // The ledger succeeds if it has found the bug.
    assert!(
        output.status.success(),
        "{} was not found: {}\n{}\n{report}",
        bug.name,
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    report
}
