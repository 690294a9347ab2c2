//! The statistics and warnings of a query, summed over its scans.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use plan::{
    ColumnSource, Type,
    functions::WarningCounts,
    scan::{CastFailure, ScanTrailer},
};
use proto::ingest::ShardId;

use super::explain::ScanSums;
use crate::answer::Stats;

/// The number of warnings in one answer, at most.
const WARNINGS_MAX: usize = 100;

/// The sums, shared by all scans of a query.
#[derive(Debug, Default)]
pub(super) struct QueryReport {
    sums: Mutex<Sums>,
    /// Warnings of expressions that are computed above the scans.
    pub warning_counts: WarningCounts,
}

#[derive(Debug, Default)]
struct Sums {
    /// The latest trailer of each shard in each scan.
    trailers: BTreeMap<(usize, ShardId), ScanTrailer>,
    warnings: Vec<String>,
    /// How long the slowest shard of each scan took to answer.
    answer_times: BTreeMap<usize, Duration>,
    /// Documents in each shard that a scan reads.
    documents: BTreeMap<(usize, ShardId), u64>,
}

impl QueryReport {
    /// Replaces the statistics of one shard in a scan. Any of them may be the last: a scan under a LIMIT is not read to
    /// its end.
    pub(super) fn record(&self, scan: usize, shard: ShardId, trailer: ScanTrailer) {
        self.sums.lock().trailers.insert((scan, shard), trailer);
    }

    /// Notes that a shard has answered a scan, and how long that took.
    pub(super) fn answered(&self, scan: usize, time: Duration) {
        let mut sums = self.sums.lock();
        let slowest = sums.answer_times.entry(scan).or_default();
        *slowest = time.max(*slowest);
    }

    /// Notes that a scan reads a shard of so many documents.
    pub(super) fn begun(&self, scan: usize, shard: ShardId, documents: u64) {
        self.sums.lock().documents.insert((scan, shard), documents);
    }

    /// How many documents the scans read that have begun, and how many of these they have scanned so far.
    pub(super) fn progress(&self) -> (u64, u64) {
        let sums = self.sums.lock();
        let scanned = sums.trailers.values().map(|trailer| trailer.documents).sum();
        (sums.documents.values().sum(), scanned)
    }

    /// Forgets everything: the query runs again.
    pub(super) fn reset(&self) {
        *self.sums.lock() = Sums::default();
        self.warning_counts.take();
    }

    /// Adds a warning to the answer.
    pub(super) fn warn(&self, warning: impl Into<String>) {
        push_distinct(&mut self.sums.lock().warnings, warning.into());
    }

    /// How many documents have passed the filter of a scan.
    pub(super) fn matched(&self, scan: usize) -> u64 {
        let sums = self.sums.lock();
        let of_scan = sums.trailers.iter().filter(|((number, _), _)| *number == scan);
        of_scan.map(|(_, trailer)| trailer.matched).sum()
    }

    /// What the shards of a scan have counted.
    pub(super) fn of_scan(&self, scan: usize) -> ScanSums {
        let (sums, mut of_scan) = (self.sums.lock(), ScanSums::default());
        let trailers = sums.trailers.iter().filter(|((number, _), _)| *number == scan);
        trailers.for_each(|(_, trailer)| of_scan.add(trailer));
        of_scan.answer_time = sums.answer_times.get(&scan).copied().unwrap_or_default();
        of_scan
    }

    /// Whether there is no warning so far.
    pub(super) fn is_silent(&self) -> bool {
        self.sums.lock().warnings.is_empty() && self.warning_counts.is_empty()
    }

    /// Writes the sums into an answer's statistics.
    pub(super) fn fill(&self, stats: &mut Stats) {
        let sums = self.sums.lock();
        // Counts are summed over the shards of a scan. If several scans read a column, only the largest count becomes a
        // warning.
        let mut failures: BTreeMap<(String, usize), CastFailure> = BTreeMap::new();
        for ((scan, _), trailer) in &sums.trailers {
            stats.documents_scanned += trailer.documents;
            stats.rows_shipped += trailer.shipped;
            stats.read.add(&trailer.counts);
            stats.index_time += trailer.index_time;
            for failure in &trailer.cast_failures {
                let sum = failures
                    .entry((failure.column.name(), *scan))
                    .or_insert_with(|| CastFailure {
                        values: 0,
                        total: 0,
                        ..failure.clone()
                    });
                sum.values += failure.values;
                sum.total += failure.total;
            }
        }
        let mut largest_by_column: BTreeMap<&str, &CastFailure> = BTreeMap::new();
        for ((column, _), failure) in &failures {
            let largest = largest_by_column.entry(column).or_insert(failure);
            if failure.values > largest.values {
                *largest = failure;
            }
        }
        // Those of all shards and of this node are one sum.
        let counts = WarningCounts::default();
        counts.add(&self.warning_counts.counts());
        for trailer in sums.trailers.values() {
            counts.add(&trailer.warnings);
        }
        sums.warnings
            .iter()
            .cloned()
            .chain(counts.messages())
            .chain(
                largest_by_column
                    .values()
                    .filter(|failure| failure.values > 0)
                    .map(|failure| describe(failure)),
            )
            .for_each(|w| push_distinct(&mut stats.warnings, w));
    }
}

fn push_distinct(warnings: &mut Vec<String>, warning: String) {
    if warnings.len() < WARNINGS_MAX && !warnings.contains(&warning) {
        warnings.push(warning);
    }
}

/// `ms: 1 of 4 values was not a number`.
fn describe(failure: &CastFailure) -> String {
    let subject = match &failure.column.source {
        ColumnSource::Path(path) => path.to_string(),
        _ => failure.column.name(),
    };
    let (one, many) = match failure.column.read_as.to {
        Type::Bool => ("a boolean", "booleans"),
        Type::Int | Type::Double => ("a number", "numbers"),
        Type::Text => ("text", "text"),
        Type::Time => ("a timestamp", "timestamps"),
        Type::Json | Type::Canonical | Type::Rank => ("JSON", "JSON"),
    };
    let verdict = if failure.values == 1 {
        format!("was not {one}")
    } else {
        format!("were not {many}")
    };
    // If no value has the type, the query probably meant a cast.
    let name = Type::TABLE
        .iter()
        .find(|row| row.0 == failure.column.read_as.to)
        .map_or("text", |row| row.2)
        .to_lowercase();
    let hint = match failure.values == failure.total && !failure.column.read_as.cast {
        true => {
            let number = matches!(failure.column.read_as.to, Type::Int | Type::Double);
            let or_time = if number {
                ", or ::timestamp if they are times"
            } else {
                ""
            };
            format!("; use {subject}::{name} to convert values where possible{or_time}")
        }
        false => String::new(),
    };
    format!(
        "{subject}: {} of {} values {verdict}{hint}",
        failure.values, failure.total
    )
}

#[cfg(test)]
mod tests {
    use plan::{Column, Path};
    use proto::CollectionUid;

    use super::*;

    #[test]
    fn cast_failures_are_summed_over_shards_and_reported_once_for_two_scans() {
        let failure = |values, of| CastFailure {
            column: Column::path(Path::of_keys(["ms"]), Type::Double),
            values,
            total: of,
        };
        let trailer = |values, of| ScanTrailer {
            cast_failures: vec![failure(values, of)],
            documents: 2,
            ..ScanTrailer::default()
        };
        let shard = |number| ShardId {
            collection: CollectionUid(uuid::Uuid::nil()),
            number,
        };
        let report = QueryReport::default();
        report.record(0, shard(0), trailer(7, 7));
        report.record(0, shard(0), trailer(1, 3));
        report.record(0, shard(1), trailer(0, 1));
        report.record(1, shard(0), trailer(1, 4));
        let mut stats = Stats::default();
        report.fill(&mut stats);
        assert_eq!(stats.warnings, ["ms: 1 of 4 values was not a number"]);
        assert_eq!(stats.documents_scanned, 6);
    }

    #[test]
    fn values_without_a_result_are_summed_over_shards_and_this_node() {
        let report = QueryReport::default();
        for number in 0..2 {
            let shard = ShardId {
                collection: CollectionUid(uuid::Uuid::nil()),
                number,
            };
            let trailer = ScanTrailer {
                warnings: vec![("sqrt".to_owned(), 1, 2)],
                ..ScanTrailer::default()
            };
            report.record(0, shard, trailer);
        }
        report.warning_counts.count("sqrt", 1, 3);
        let mut stats = Stats::default();
        report.fill(&mut stats);
        assert_eq!(stats.warnings, ["sqrt: 3 of 7 values had no result and are NULL"]);
    }
}
