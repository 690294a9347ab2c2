//! What a run did and what it found.

use std::{collections::BTreeMap, sync::atomic::Ordering, time::Duration};

use crate::book::{self, Book};

/// Findings of one moment that are printed.
const PRINTED_MAX: usize = 40;

/// What a run did and what it found.
pub struct Report {
    seed: u64,
    kills_wanted: usize,
    done: BTreeMap<&'static str, usize>,
    in_flight: usize,
    refused: u64,
    acknowledged: u64,
    retried: u64,
    asked: u64,
    missed: u64,
    findings: Vec<(String, Vec<String>)>,
    pub elapsed: Duration,
}

impl Report {
    pub fn new(
        seed: u64,
        kills_wanted: usize,
        done: BTreeMap<&'static str, usize>,
        in_flight: usize,
        refused: u64,
        book: &Book,
    ) -> Self {
        let count = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        Self {
            seed,
            kills_wanted,
            done,
            in_flight,
            refused,
            acknowledged: book::acknowledged(&book.entries()),
            retried: count(&book.retried),
            asked: count(&book.asked),
            missed: count(&book.missed),
            findings: vec![("while the load ran".to_owned(), book.complaints())],
            elapsed: Duration::ZERO,
        }
    }

    /// What was found at this moment.
    pub fn add(&mut self, moment: &str, findings: Vec<String>) {
        self.findings.push((moment.to_owned(), findings));
    }

    pub fn is_clean(&self) -> bool {
        self.findings.iter().all(|(_, found)| found.is_empty())
    }

    fn kills(&self) -> usize {
        self.done
            .iter()
            .filter(|(what, _)| what.starts_with("kills") || what.starts_with("ends"))
            .map(|(_, count)| count)
            .sum()
    }

    /// Whether less was done than was asked for: then a clean check says little.
    pub fn kills_too_few(&self) -> bool {
        self.kills() < self.kills_wanted || self.in_flight * 2 < self.kills_wanted
    }

    /// One line, read by the test that runs this program.
    pub fn line(&self) -> String {
        let done: Vec<String> = self
            .done
            .iter()
            .map(|(what, count)| format!("{count} {what}"))
            .collect();
        format!(
            "seed {}: {} kills ({}), {} with a batch in flight; {} batches refused; {} acknowledged; {} pushes sent again; {} questions asked at once, {} missed; {:.0} s",
            self.seed,
            self.kills(),
            done.join(", "),
            self.in_flight,
            self.refused,
            self.acknowledged,
            self.retried,
            self.asked,
            self.missed,
            self.elapsed.as_secs_f64(),
        )
    }

    pub fn print(&self) {
        println!("ledger: {}", self.line());
        for (moment, found) in self.findings.iter().filter(|(_, found)| !found.is_empty()) {
            println!("{} findings {moment}:", found.len());
            for finding in found.iter().take(PRINTED_MAX) {
                println!("    {finding}");
            }
        }
        if self.is_clean() {
            println!(
                "ledger: every acknowledged record is there exactly once: by SQL, by search, by id and in raw bytes; all counters add up"
            );
        }
    }
}
