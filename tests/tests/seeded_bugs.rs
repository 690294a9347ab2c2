//! The ledger can fail: each bug that was put into a server on purpose is found by it.
//!
//! The server with the bugs is a binary of another name, which `tests/run` builds. Each bug gets the cheapest run that can show it: the
//! points at which the server ends itself are chosen where order and atomicity are decided.

use std::process::Command;

use tests::{Settings, server};

struct Bug {
    name: &'static str,
    /// Where the server ends itself, for bugs that only a crash shows.
    crash_at: &'static [&'static str],
    arguments: &'static [&'static str],
    /// Whether splits are merged. A merge that is cut off loses nothing even with the bug, because the splits it was to replace are there.
    merging: bool,
    /// What the ledger says about it.
    finding: &'static [&'static str],
}

const BUGS: [Bug; 5] = [
    Bug {
        name: "dead-letter-dropped",
        crash_at: &[],
        arguments: &["--push-only", "--kills", "1", "--records", "3000"],
        merging: true,
        finding: &["dead letters:", "the outcomes do not add up"],
    },
    Bug {
        name: "position-in-second-batch",
        crash_at: &["between-batches"],
        arguments: &["--push-only", "--kills", "6", "--records", "6000"],
        merging: true,
        finding: &["findings"],
    },
    Bug {
        name: "request-row-outside",
        crash_at: &["between-batches"],
        arguments: &["--push-only", "--kills", "8", "--records", "8000"],
        merging: true,
        finding: &["is there twice", "repeated", "409 is promised"],
    },
    Bug {
        name: "manifest-before-files",
        crash_at: &["manifest-before-files"],
        arguments: &["--push-only", "--kills", "6", "--records", "12000"],
        merging: false,
        finding: &["findings"],
    },
    Bug {
        name: "delete-per-split",
        crash_at: &[],
        arguments: &["--push-only", "--kills", "4", "--records", "12000"],
        merging: true,
        finding: &["and should not be", "is there twice"],
    },
];

#[test]
fn the_ledger_finds_every_seeded_bug() {
    for bug in BUGS {
        let said = run(&bug);
        assert!(bug.finding.iter().any(|finding| said.contains(finding)), "{}: none of {:?} in\n{said}", bug.name, bug.finding);
    }
}

/// What the ledger says of a run with a bug.
fn run(bug: &Bug) -> String {
    let mut command = Command::new(server::built("ledger"));
    command.arg("--server").arg(server::built("rachis-mutant")).args(["--bug", bug.name, "--seed", &tests::seed().to_string()]).args(bug.arguments);
    let settings = Settings::default().small_splits();
    let settings = if bug.merging { settings } else { settings.with("RACHIS_LEAF__MERGE_SPLITS", 1_000) };
    command.args(bug.crash_at.iter().flat_map(|point| ["--crash-at", point])).envs(settings.environment);
    let output = command.output().expect("the ledger runs");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    // The ledger ends well where it found the bug.
    assert!(output.status.success(), "{} was not found: {}\n{}\n{said}", bug.name, output.status, String::from_utf8_lossy(&output.stderr));
    said
}
