//! The summary of a run: counts of verdicts, and the failures by class.

use std::collections::{BTreeMap, BTreeSet};

use tests::{process::TestDir, statements::Family};

use super::judge::{Failure, FailureKind, JudgedStatement, Verdict};

/// Failures that are printed; the file has all of them.
const SHOWN_MAX: usize = 25;
/// Percentage of statements for which DuckDB may have no answer (an integer too large for it).
const NO_ORACLE_ANSWER_PERCENT_MAX: u64 = 8;
/// Percentage of statements that may have more rows than the row limit.
const TRUNCATED_PERCENT_MAX: u64 = 1;
/// Percentage of statements that must find something.
const FOUND_PERCENT_MIN: u64 = 50;

#[derive(Default)]
pub(super) struct RunSummary {
    pub(super) total: u64,
    found: u64,
    invalid: u64,
    truncated: u64,
    families: BTreeMap<Family, u64>,
    /// Errors of DuckDB.
    no_oracle_answer: Vec<String>,
    unsupported: BTreeMap<&'static str, u64>,
    pub(super) failures: Vec<Failure>,
}

impl RunSummary {
    pub(super) fn add(&mut self, judged: JudgedStatement) {
        let JudgedStatement {
            family,
            text,
            verdict,
            failure,
        } = judged;
        self.total += 1;
        *self.families.entry(family).or_default() += 1;
        match verdict {
            Verdict::Correct { found } => self.found += u64::from(found),
            Verdict::NoOracleAnswer(error) => self.no_oracle_answer.push(error),
            Verdict::Unsupported(feature) => {
                let statements = self.unsupported.entry(feature).or_default();
                if *statements == 0 {
                    eprintln!("not supported, {feature}: {text}");
                }
                *statements += 1;
            }
            Verdict::Invalid => self.invalid += 1,
            Verdict::Truncated => self.truncated += 1,
            Verdict::Failed(..) => {}
        }
        self.failures.extend(failure);
    }

    pub(super) fn text(&self) -> String {
        let errors: BTreeSet<String> = self
            .no_oracle_answer
            .iter()
            .map(|error| error.lines().next().unwrap_or_default().chars().take(100).collect())
            .collect();
        format!(
            "{} statements: {} found something, {} were invalid and refused, {} are over the row limit, DuckDB had no \
             answer to {} {errors:?}, not supported {:?}, {} failed; {:?}",
            self.total,
            self.found,
            self.invalid,
            self.truncated,
            self.no_oracle_answer.len(),
            self.unsupported,
            self.failures.len(),
            self.families
        )
    }

    /// Asserts that enough statements were compared and found something, since empty answers prove nothing.
    pub(super) fn assert_meaningful(&self) {
        let correct = self.total - self.failures.len() as u64;
        assert!(
            self.no_oracle_answer.len() as u64 * 100 <= self.total * NO_ORACLE_ANSWER_PERCENT_MAX,
            "DuckDB had no answer to {} statements",
            self.no_oracle_answer.len()
        );
        assert!(
            self.truncated * 100 <= self.total * TRUNCATED_PERCENT_MAX,
            "{} statements are over the row limit",
            self.truncated
        );
        assert!(
            self.found * 100 >= correct * FOUND_PERCENT_MIN,
            "only {} of {correct} statements found something",
            self.found
        );
    }

    /// Prints one failure of each class, the most frequent class first, and writes all of them to a file.
    pub(super) fn print_failures(&self, seed: u64, folder: &TestDir) {
        let mut classes: BTreeMap<(FailureKind, String), Vec<&Failure>> = BTreeMap::new();
        for failure in &self.failures {
            classes
                .entry((failure.kind, failure.class()))
                .or_default()
                .push(failure);
        }
        let mut classes: Vec<_> = classes.into_iter().collect();
        classes.sort_by_key(|(_, failures)| std::cmp::Reverse(failures.len()));
        for ((kind, class), failures) in classes.iter().take(SHOWN_MAX) {
            eprintln!("\n{} × {kind:?}: {class}\n{}", failures.len(), failures[0].text(seed));
        }
        if !classes.is_empty() {
            let all: Vec<String> = classes
                .iter()
                .flat_map(|(_, failures)| failures)
                .map(|failure| failure.text(seed))
                .collect();
            let file = folder.path().join("differences.txt");
            std::fs::write(&file, all.join("\n")).expect("a file of differences");
            eprintln!("\n{} classes; all differences: {}", classes.len(), file.display());
        }
    }
}
