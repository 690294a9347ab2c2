//! The report of a run: what was done and what was found.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use crate::{Run, questions::Probed};

/// Findings printed of each check.
const PRINTED_MAX: usize = 40;

/// What was done to the server and the broker.
#[derive(Clone, Default)]
pub(crate) struct Disturbances {
    /// Description -> how often.
    pub counts: BTreeMap<&'static str, usize>,
    /// Kills while something was in flight.
    pub kills_in_flight: usize,
}

impl Disturbances {
    pub(crate) fn add(&mut self, what: &'static str) {
        *self.counts.entry(what).or_default() += 1;
    }

    pub(crate) fn add_kill(&mut self, what: &'static str, in_flight: u64) {
        self.add(what);
        self.kills_in_flight += usize::from(in_flight > 0);
    }

    fn kills(&self) -> usize {
        self.counts
            .iter()
            .filter(|(what, _)| what.starts_with("kills") || what.starts_with("ends"))
            .map(|(_, count)| count)
            .sum()
    }
}

/// What a run did and what it found.
pub(crate) struct Report {
    seed: u64,
    kills_wanted: usize,
    disturbances: Disturbances,
    refused_batches: u64,
    acknowledged: u64,
    retried_pushes: u64,
    reads_after_push: u64,
    stale_reads: u64,
    definitions: usize,
    questions: u64,
    deletes: u64,
    expiries: u64,
    questions_after_removal: u64,
    redrives: u64,
    redriven: u64,
    probe: Option<(u64, Duration)>,
    /// When they were found, and what.
    findings: Vec<(String, Vec<String>)>,
    pub elapsed: Duration,
}

impl Report {
    pub(crate) fn new(
        seed: u64,
        kills_wanted: usize,
        disturbances: Disturbances,
        refused_batches: u64,
        probed: Option<&Probed>,
        run: &Run,
    ) -> Self {
        let ledger = &run.ledger;
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            seed,
            kills_wanted,
            disturbances,
            refused_batches,
            acknowledged: ledger.acknowledged(),
            retried_pushes: count(&ledger.retried_pushes),
            reads_after_push: count(&ledger.reads_after_push),
            stale_reads: count(&ledger.stale_reads),
            definitions: run.changes.count(),
            questions: count(&run.changes.questions),
            deletes: count(&run.removals.deletes),
            expiries: count(&run.removals.expiries),
            questions_after_removal: count(&run.removals.questions),
            redrives: count(&run.redrives.answers),
            redriven: count(&run.redrives.dead_letters),
            probe: probed.map(|probed| (probed.queries, probed.gap)),
            findings: vec![("while the load ran".to_owned(), ledger.problems())],
            elapsed: Duration::ZERO,
        }
    }

    /// Adds what a check found.
    pub(crate) fn add(&mut self, when: &str, findings: Vec<String>) {
        self.findings.push((when.to_owned(), findings));
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.findings.iter().all(|(_, found)| found.is_empty())
    }

    /// Whether less was done than was asked for: then a clean check proves little.
    pub(crate) fn has_too_few_kills(&self) -> bool {
        self.disturbances.kills() < self.kills_wanted || self.disturbances.kills_in_flight * 2 < self.kills_wanted
    }

    /// The summary line, which is parsed by the tests that run this program.
    pub(crate) fn summary(&self) -> String {
        let counts: Vec<String> = self
            .disturbances
            .counts
            .iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        let probe = self.probe.map_or_else(String::new, |(queries, gap)| {
            format!(
                "; {queries} queries of the probe, at most {:.1} s without a complete answer",
                gap.as_secs_f64()
            )
        });
        format!(
            "seed {}: {} kills ({}), {} with a batch in flight; {} batches refused; {} acknowledged; \
             {} pushes retried; {} reads right after a push, {} stale; {} changes of definitions, {} questions right \
             after one; {} deletes, {} removals of expired documents, {} questions right after a removal; {} redrives \
             of {} dead letters{}; {:.0} s",
            self.seed,
            self.disturbances.kills(),
            counts.join(", "),
            self.disturbances.kills_in_flight,
            self.refused_batches,
            self.acknowledged,
            self.retried_pushes,
            self.reads_after_push,
            self.stale_reads,
            self.definitions,
            self.questions,
            self.deletes,
            self.expiries,
            self.questions_after_removal,
            self.redrives,
            self.redriven,
            probe,
            self.elapsed.as_secs_f64(),
        )
    }

    pub(crate) fn print(&self) {
        println!("ledger: {}", self.summary());
        for (when, found) in self.findings.iter().filter(|(_, found)| !found.is_empty()) {
            println!("{} findings {when}:", found.len());
            for finding in found.iter().take(PRINTED_MAX) {
                println!("    {finding}");
            }
        }
        if self.is_clean() {
            println!(
                "ledger: every acknowledged record that was not deleted is there exactly once: by SQL, by search, by id and in raw bytes; \
                 all counters add up; every acknowledged version of a definition is there once, at every node"
            );
        }
    }
}
