//! Warnings about values for which an expression had no result: counted per query and per operation.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

/// Operations that one query tells apart.
const OPERATIONS_MAX: usize = 50;
/// All other operations together.
const OTHERS: &str = "other operations";

/// Counts of values without a result, by the operation that had none for them. Clones share the counts.
#[derive(Debug, Clone, Default)]
pub struct WarningCounts(Arc<Mutex<BTreeMap<String, (u64, u64)>>>);

impl WarningCounts {
    /// Counts `failed` values that had no result (they are NULL), out of `total`.
    pub fn count(&self, operation: &str, failed: u64, total: u64) {
        let mut counts = self.0.lock();
        let operation = match counts.contains_key(operation) || counts.len() < OPERATIONS_MAX {
            true => operation,
            false => OTHERS,
        };
        let (failed_sum, total_sum) = match counts.get_mut(operation) {
            Some(sums) => sums,
            None => counts.entry(operation.to_owned()).or_default(),
        };
        *failed_sum += failed;
        *total_sum += total;
    }

    /// What tells these counts from others. Clones have the same.
    pub(super) fn id(&self) -> *const () {
        Arc::as_ptr(&self.0).cast()
    }

    /// The counts of all operations: how many values had no result, and how many there were.
    pub fn counts(&self) -> Vec<(String, u64, u64)> {
        let counts = self.0.lock();
        let count = |(operation, (failed, total)): (&String, &(u64, u64))| (operation.clone(), *failed, *total);
        counts.iter().map(count).collect()
    }

    /// Adds other counts.
    pub fn add(&self, others: &[(String, u64, u64)]) {
        for (operation, failed, total) in others {
            self.count(operation, *failed, *total);
        }
    }

    /// Whether nothing was counted, not even values that had a result.
    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Whether some value had no result.
    pub fn has_failures(&self) -> bool {
        self.0.lock().values().any(|(failed, _)| *failed > 0)
    }

    /// Moves these counts out, so that counting starts anew.
    pub fn take(&self) -> Self {
        Self(Arc::new(Mutex::new(std::mem::take(&mut *self.0.lock()))))
    }

    /// Adds what was counted for `rows` rows as if it had been counted for as many documents.
    pub fn add_for_documents(&self, other: &Self, rows: u64, documents: u64) {
        let of_documents = |count: u64| (u128::from(count) * u128::from(documents) / u128::from(rows.max(1))) as u64;
        for (operation, (failed, total)) in other.0.lock().iter() {
            self.count(operation, of_documents(*failed), of_documents(*total));
        }
    }

    /// The operations that had no result for some value.
    pub fn failed_operations(&self) -> Vec<String> {
        let counts = self.0.lock();
        let failed = counts.iter().filter(|(_, (failed, _))| *failed > 0);
        failed.map(|(operation, _)| operation.clone()).collect()
    }

    /// One text per operation, for example `sqrt: 1 of 4 values had no result and are NULL`.
    pub fn messages(&self) -> Vec<String> {
        let counts = self.0.lock();
        let with_failures = counts.iter().filter(|(_, (failed, _))| *failed > 0);
        with_failures
            .map(|(operation, (failed, total))| {
                // `-` reads texts as numbers: if none of them is a number, they may be times.
                let advice = match operation.ends_with("as DOUBLE") && failed == total {
                    true => "; if they are times, convert them: x::timestamp",
                    false => "",
                };
                format!("{operation}: {failed} of {total} values had no result and are NULL{advice}")
            })
            .collect()
    }
}
