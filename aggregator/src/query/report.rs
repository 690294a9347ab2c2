//! Adds up what the scans of a query have read, for the answer's statistics.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use plan::{
    Type, What,
    functions::Notices,
    scan::{Misfit, Trailer},
};
use proto::ingest::ShardId;

use crate::answer::Stats;

/// Warnings told in one answer.
const WARNINGS_MAX: usize = 100;

/// Sums over all scans of a query; shared by them.
#[derive(Debug, Default)]
pub(super) struct Report {
    sums: Mutex<Sums>,
    /// What expressions above the scans have to say.
    pub notices: Notices,
}

#[derive(Debug, Default)]
struct Sums {
    /// The newest statistics of each shard in each scan.
    told: BTreeMap<(usize, ShardId), Trailer>,
    warnings: Vec<String>,
}

impl Report {
    /// Replaces the statistics of one shard's part of a scan. They may be the last ones: a scan that has given enough
    /// rows is not read to its end.
    pub fn tell(&self, scan: usize, shard: ShardId, trailer: Trailer) {
        self.sums.lock().told.insert((scan, shard), trailer);
    }

    /// Something else the user should know.
    pub fn warn(&self, warning: impl Into<String>) {
        push(&mut self.sums.lock().warnings, warning.into());
    }

    /// Writes the sums into an answer's statistics.
    pub fn fill(&self, stats: &mut Stats) {
        let sums = self.sums.lock();
        // Each scan's counts are summed over its shards; of two scans of one column, only the larger count becomes a
        // warning.
        let mut misfits: BTreeMap<(String, usize), Misfit> = BTreeMap::new();
        for ((scan, _), trailer) in &sums.told {
            stats.documents_scanned += trailer.documents;
            stats.rows_shipped += trailer.shipped;
            stats.read.add(&trailer.counts);
            for misfit in &trailer.misfits {
                let sum = misfits.entry((misfit.column.name(), *scan)).or_insert_with(|| Misfit {
                    values: 0,
                    of: 0,
                    ..misfit.clone()
                });
                sum.values += misfit.values;
                sum.of += misfit.of;
            }
        }
        let mut widest: BTreeMap<&str, &Misfit> = BTreeMap::new();
        for ((column, _), misfit) in &misfits {
            let known = widest.entry(column).or_insert(misfit);
            if misfit.values > known.values {
                *known = misfit;
            }
        }
        let told = sums.told.values().flat_map(|trailer| trailer.warnings.iter().cloned());
        sums.warnings
            .iter()
            .cloned()
            .chain(told)
            .chain(self.notices.warnings())
            .chain(widest.values().filter(|m| m.values > 0).map(|m| described(m)))
            .for_each(|w| push(&mut stats.warnings, w));
    }
}

fn push(warnings: &mut Vec<String>, warning: String) {
    if warnings.len() < WARNINGS_MAX && !warnings.contains(&warning) {
        warnings.push(warning);
    }
}

/// `ms: 1 of 4 values was not a number`.
fn described(misfit: &Misfit) -> String {
    let subject = match &misfit.column.what {
        What::Path(path) => path.to_string(),
        _ => misfit.column.name(),
    };
    let (one, many) = match misfit.column.view.to {
        Type::Bool => ("a boolean", "booleans"),
        Type::Int | Type::Double => ("a number", "numbers"),
        Type::Text => ("a text", "texts"),
        Type::Time => ("a timestamp", "timestamps"),
        Type::Json | Type::Canonical | Type::Rank => ("JSON", "JSON"),
    };
    let verdict = if misfit.values == 1 {
        format!("was not {one}")
    } else {
        format!("were not {many}")
    };
    // Where nothing fits, another type was meant.
    let name = Type::TABLE
        .iter()
        .find(|row| row.0 == misfit.column.view.to)
        .map_or("text", |row| row.2)
        .to_lowercase();
    let hint = match misfit.values == misfit.of && !misfit.column.view.cast {
        true => format!("; {subject}::{name} converts what can be converted"),
        false => String::new(),
    };
    format!("{subject}: {} of {} values {verdict}{hint}", misfit.values, misfit.of)
}

#[cfg(test)]
mod tests {
    use plan::{Column, Path};
    use proto::CollectionUid;

    use super::*;

    #[test]
    fn misfits_are_summed_over_shards_and_told_once_for_two_scans() {
        let misfit = |values, of| Misfit {
            column: Column::path(Path::of_keys(["ms"]), Type::Double),
            values,
            of,
        };
        let trailer = |values, of| Trailer {
            misfits: vec![misfit(values, of)],
            documents: 2,
            ..Trailer::default()
        };
        let shard = |number| ShardId {
            collection: CollectionUid(uuid::Uuid::nil()),
            number,
        };
        let report = Report::default();
        report.tell(0, shard(0), trailer(7, 7));
        report.tell(0, shard(0), trailer(1, 3));
        report.tell(0, shard(1), trailer(0, 1));
        report.tell(1, shard(0), trailer(1, 4));
        let mut stats = Stats::default();
        report.fill(&mut stats);
        assert_eq!(stats.warnings, ["ms: 1 of 4 values was not a number"]);
        assert_eq!(stats.documents_scanned, 6);
    }
}
