//! Scan statistics: what a scan counts for its trailer.

use std::time::Duration;

use plan::{
    Column,
    functions::WarningCounts,
    scan::{CastFailure, ColumnReads, ConditionCounts, ReadCounts, ScanTrailer},
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
    /// The time that was spent deciding conditions by indexes, by all threads.
    pub index_time: Duration,
    cast_failures: Vec<(u64, u64)>,
    /// How each condition was decided.
    pub conditions: Vec<ConditionCounts>,
    /// From where each column was read.
    pub column_reads: Vec<ColumnReads>,
    /// Values for which an expression had no result.
    pub warnings: WarningCounts,
}

/// What a scan counts about the documents themselves, however it reads them.
#[derive(Debug, Clone)]
pub(super) struct CountedValues {
    documents: u64,
    matched: u64,
    cast_failures: Vec<(u64, u64)>,
}

impl ScanStats {
    /// What was counted, if nothing has warned of it.
    pub(super) fn counted(&self) -> Option<CountedValues> {
        self.warnings.is_empty().then(|| CountedValues {
            documents: self.documents,
            matched: self.matched,
            cast_failures: self.cast_failures.clone(),
        })
    }

    /// Adds what an earlier scan with the same columns has counted, without reading anything.
    pub(super) fn add_cached(&mut self, counted: &CountedValues) {
        self.documents += counted.documents;
        self.matched += counted.matched;
        self.counts.cached += counted.documents;
        for (column, (failures, total)) in counted.cast_failures.iter().enumerate() {
            self.count_values(column, *total, *failures);
        }
    }

    /// Adds what the scan of a part of the view has counted. Its warnings are shared.
    pub(super) fn add(&mut self, part: &Self) {
        self.documents += part.documents;
        self.matched += part.matched;
        self.counts.add(&part.counts);
        self.index_time += part.index_time;
        for (counts, more) in self.conditions.iter_mut().zip(&part.conditions) {
            counts.add(more);
        }
        for (reads, more) in self.column_reads.iter_mut().zip(&part.column_reads) {
            reads.add(more);
        }
        for (column, (failures, total)) in part.cast_failures.iter().enumerate() {
            self.count_values(column, *total, *failures);
        }
    }

    /// For this many columns and conditions; the filter adds its warnings to these.
    pub(super) fn new(columns: usize, conditions: usize, warnings: WarningCounts) -> Self {
        Self {
            cast_failures: vec![(0, 0); columns],
            conditions: vec![ConditionCounts::default(); conditions],
            column_reads: vec![ColumnReads::default(); columns],
            warnings,
            ..Self::default()
        }
    }

    /// Counts documents that passed the filter and whose values of these columns were read from the segment's columns.
    pub(super) fn count_read(&mut self, columns: &[usize], documents: u64) {
        self.documents += documents;
        self.matched += documents;
        self.counts.columns += documents * columns.len() as u64;
        for column in columns {
            self.column_reads[*column].stored += documents;
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
        let reads = (columns.iter().zip(&self.column_reads)).filter(|(_, reads)| **reads != ColumnReads::default());
        ScanTrailer {
            documents: self.documents,
            matched: self.matched,
            shipped: self.shipped,
            counts: self.counts,
            index_time: self.index_time,
            cast_failures,
            warnings: self.warnings.counts(),
            conditions: match self
                .conditions
                .iter()
                .all(|counts| *counts == ConditionCounts::default())
            {
                true => Vec::new(),
                false => self.conditions.clone(),
            },
            column_reads: reads.map(|(column, reads)| (column.clone(), *reads)).collect(),
        }
    }
}
