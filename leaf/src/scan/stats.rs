//! Scan statistics: what a scan counts for its trailer.

use plan::{
    Column,
    functions::WarningCounts,
    scan::{CastFailure, ReadCounts, ScanTrailer},
};

/// Counters of one scan.
#[derive(Debug, Default)]
pub(super) struct ScanStats {
    /// Documents to which the filter was applied.
    pub documents: u64,
    /// Documents that passed the filter.
    pub matched: u64,
    /// Rows returned.
    pub shipped: u64,
    /// How often index, columns and raw documents were read.
    pub counts: ReadCounts,
    cast_failures: Vec<(u64, u64)>,
    warnings: WarningCounts,
}

impl ScanStats {
    /// For this many columns; the filter adds its warnings to these.
    pub(super) fn new(columns: usize, warnings: WarningCounts) -> Self {
        Self {
            cast_failures: vec![(0, 0); columns],
            warnings,
            ..Self::default()
        }
    }

    /// Counts the values that were read from a column, and those among them that do not convert to its type.
    pub(super) fn count_values(&mut self, column: usize, present: u64, cast_failures: u64) {
        let (failures, total) = &mut self.cast_failures[column];
        *failures += cast_failures;
        *total += present;
    }

    /// The trailer with the counts so far.
    pub(super) fn trailer(&self, columns: &[Column]) -> ScanTrailer {
        let cast_failures = columns
            .iter()
            .zip(&self.cast_failures)
            .filter(|(_, (_, total))| *total > 0);
        let cast_failures = cast_failures
            .map(|(column, (values, total))| CastFailure {
                column: column.clone(),
                values: *values,
                total: *total,
            })
            .collect();
        ScanTrailer {
            documents: self.documents,
            matched: self.matched,
            shipped: self.shipped,
            counts: self.counts,
            cast_failures,
            warnings: self.warnings.messages(),
        }
    }
}
