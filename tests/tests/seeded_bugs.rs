//! The ledger can fail: each bug that was put into a server on purpose is found by it.
//!
//! The server with the bugs is a binary of another name, which `tests/run` builds. Each bug gets the cheapest run that
//! can show it: the points at which the server ends itself are chosen where order and atomicity are decided.

use std::process::Command;

use tests::{Settings, server};

struct Bug {
    name: &'static str,
    /// Where the server ends itself, for bugs that only a crash shows.
    crash_at: &'static [&'static str],
    arguments: &'static [&'static str],
    /// What the ledger says about it.
    finding: &'static [&'static str],
}

const BUGS: [Bug; 6] = [
    Bug {
        name: "dead-letter-dropped",
        crash_at: &[],
        arguments: &["--push-only", "--kills", "1", "--records", "3000"],
        finding: &["dead letters:", "the outcomes do not add up"],
    },
    Bug {
        name: "position-in-second-batch",
        crash_at: &["between-batches"],
        arguments: &["--push-only", "--kills", "6", "--records", "6000"],
        finding: &["findings"],
    },
    Bug {
        name: "request-row-outside",
        crash_at: &["between-batches"],
        arguments: &["--push-only", "--kills", "8", "--records", "8000"],
        finding: &["is there twice", "repeated", "409 is promised"],
    },
    // The server's tailer is overtaken by a second one, batch by batch: without the check, what was overtaken is taken
    // for known.
    Bug {
        name: "no-gap-check",
        crash_at: &[],
        arguments: &["--kills", "1", "--records", "4000"],
        finding: &["is missing", "findings"],
    },
    Bug {
        name: "manifest-before-files",
        crash_at: &["manifest-before-files"],
        arguments: &["--push-only", "--kills", "6", "--records", "12000"],
        finding: &["findings"],
    },
    Bug {
        name: "delete-per-split",
        crash_at: &[],
        arguments: &["--push-only", "--kills", "4", "--records", "12000"],
        finding: &["and should not be", "is there twice"],
    },
];

#[test]
fn the_ledger_finds_every_seeded_bug() {
    for bug in BUGS {
        let said = run(&bug);
        assert!(
            bug.finding.iter().any(|finding| said.contains(finding)),
            "{}: none of {:?} in\n{said}",
            bug.name,
            bug.finding
        );
    }
}

/// The binary with the bugs has them switched off unless one is asked for, and its tailer is overtaken all the time.
#[test]
fn without_a_bug_the_same_run_is_clean() {
    let output = ledger()
        .args(["--kills", "1", "--records", "4000"])
        .output()
        .expect("the ledger runs");
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success(),
        "{}\n{}\n{said}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        said.contains("every acknowledged record is there exactly once"),
        "{said}"
    );
}

/// The ledger with the server that has the bugs.
fn ledger() -> Command {
    let mut command = Command::new(server::built("ledger"));
    command
        .arg("--server")
        .arg(server::built("rachis-mutant"))
        .args(["--seed", &tests::seed().to_string()]);
    command
        .arg("--kafka-jars")
        .arg(tests::kafka::jars().expect("Kafka's jars"))
        .envs(Settings::default().small_splits().environment);
    command
}

/// What the ledger says of a run with a bug.
fn run(bug: &Bug) -> String {
    let mut command = ledger();
    command.args(["--bug", bug.name]).args(bug.arguments);
    command.args(bug.crash_at.iter().flat_map(|point| ["--crash-at", point]));
    let output = command.output().expect("the ledger runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // The ledger ends well where it found the bug.
    assert!(
        output.status.success(),
        "{} was not found: {}\n{}\n{said}",
        bug.name,
        output.status,
        String::from_utf8_lossy(&output.stderr)
    );
    said
}
