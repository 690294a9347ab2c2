//! A scan in the words of the statement: what the leaves do, and, once it ran, how they decided each condition and what
//! they read.

use std::{collections::BTreeMap, time::Duration};

use datafusion::logical_expr::utils::split_conjunction;
use plan::{
    Column,
    scan::{ColumnReads, ConditionCounts, ScanTrailer, Stage},
};

use super::{
    expressions::{aggregate, column, condition, list, name, ordered, shown},
    steps::{PlanStep, Shown},
};
use crate::query::shard_scan::ShardScan;

/// The step of a scan.
pub(super) fn step(scan: &ShardScan, statement: &Shown) -> PlanStep {
    let ran = statement.report.map(|report| report.of_scan(scan.number));
    let shards = plural(scan.shards() as u64, "shard");
    let mut step = PlanStep::new(format!(
        "Scan {}: {} in {shards}",
        scan.collection(),
        plural(scan.documents(), "document")
    ));
    let conditions: Vec<String> = (scan.filter.iter())
        .flat_map(|filter| split_conjunction(filter))
        .map(condition)
        .collect();
    let counts = ran.as_ref().map(|ran| ran.conditions.as_slice());
    for (number, text) in conditions.iter().enumerate() {
        let decided = counts.map(|counts| decided(counts.get(number).copied().unwrap_or_default()));
        step.details.push(match decided {
            Some(decided) => format!("where {text}: {decided}"),
            None => format!("where {text}"),
        });
    }
    if scan.has_join_filters() {
        let joined: Vec<String> = scan.join_keys().iter().map(shown).collect();
        let excluded = counts.map(|counts| counts.get(conditions.len()..).unwrap_or_default());
        let how = excluded.map(|more| match more {
            [] if ran.as_ref().is_none_or(|ran| ran.documents == 0) => ": nothing was read".to_owned(),
            [] => ": not used, the other side has too many values".to_owned(),
            more => format!(
                ": {}",
                decided(more.iter().fold(ConditionCounts::default(), |mut sum, counts| {
                    sum.add(counts);
                    sum
                }))
            ),
        });
        step.details.push(format!(
            "only documents that the other side of the join may match, by {}{}",
            list(joined),
            how.unwrap_or_default()
        ));
    }
    step.details.extend(pushed(&scan.stage, statement));
    match &ran {
        Some(ran) => step.details.extend(ran.lines(scan.documents())),
        None if !scan.columns.is_empty() => {
            let mut names: Vec<String> = scan.columns.iter().map(column).collect();
            names.dedup();
            step.details.push(format!("reads {}", list(names)));
        }
        None => {}
    }
    step
}

/// What the leaves do with the documents that pass.
fn pushed(stage: &Stage, statement: &Shown) -> Option<String> {
    match stage {
        Stage::Rows { limit: None } => None,
        Stage::Rows { limit: Some(limit) } => {
            let rows = plural(statement.rows(*limit) as u64, "row");
            Some(format!("each shard stops after {rows}"))
        }
        Stage::Top { keys, limit, .. } => {
            let keys = keys.iter().map(|key| ordered(column(&key.column), key.descending));
            let rows = plural(statement.rows(*limit) as u64, "row");
            Some(format!("the leaves return the first {rows} by {}", list(keys)))
        }
        Stage::Partial(partial) => {
            let groups: Vec<String> = (partial.group_by.expr().iter())
                .map(|(group, _)| shown(group))
                .collect();
            let calls = list(partial.aggregates.iter().map(|call| aggregate(call)));
            Some(match (calls.is_empty(), groups.is_empty()) {
                (true, _) => format!("the leaves return distinct values of {}", list(groups)),
                (false, true) => format!("the leaves compute {calls}"),
                (false, false) => format!("the leaves compute {calls} by {}", list(groups)),
            })
        }
    }
}

/// What the shards of a scan have counted, in sum.
#[derive(Debug, Default)]
pub(in crate::query) struct ScanSums {
    documents: u64,
    matched: u64,
    shipped: u64,
    cached: u64,
    /// How long the slowest shard took to answer.
    pub(in crate::query) answer_time: Duration,
    conditions: Vec<ConditionCounts>,
    /// By the names of columns.
    reads: BTreeMap<String, ColumnReads>,
}

impl ScanSums {
    /// Adds the counts of a shard.
    pub(in crate::query) fn add(&mut self, trailer: &ScanTrailer) {
        self.documents += trailer.documents;
        self.matched += trailer.matched;
        self.shipped += trailer.shipped;
        self.cached += trailer.counts.cached;
        let conditions = self.conditions.len().max(trailer.conditions.len());
        self.conditions.resize(conditions, ConditionCounts::default());
        for (sum, counts) in self.conditions.iter_mut().zip(&trailer.conditions) {
            sum.add(counts);
        }
        for (read, reads) in &trailer.column_reads {
            self.reads.entry(read.name()).or_default().add(reads);
        }
    }

    /// A column in the words of the statement; with its type, if it is read as several.
    fn read_name(&self, flat: &str) -> String {
        let shown = |flat: &str| Column::parse(flat).map_or_else(|| name(flat).into_owned(), |read| column(&read));
        let own = shown(flat);
        let is_read_twice = self.reads.keys().any(|other| other != flat && shown(other) == own);
        match Column::parse(flat).filter(|_| is_read_twice) {
            Some(read) => format!("{own} as {}", crate::answer::type_name(&read.read_as.to.arrow())),
            None => own,
        }
    }

    fn lines(&self, documents: u64) -> Vec<String> {
        let mut lines = Vec::new();
        if self.cached > 0 {
            let cached = plural(self.cached, "document");
            lines.push(format!(
                "the partial aggregates of {cached} came from the cache of the leaves"
            ));
        }
        let skipped = documents.saturating_sub(self.documents);
        if skipped > 0 {
            let skipped = plural(skipped, "document");
            lines.push(format!("{skipped} not looked at: the step above needed no more rows"));
        }
        for (read, reads) in &self.reads {
            lines.push(format!("read {}: {}", self.read_name(read), read_from(reads)));
        }
        let matched = plural(self.matched, "document");
        let shipped = plural(self.shipped, "row");
        // None if the answer was not read to its end.
        let within = match self.answer_time {
            Duration::ZERO => String::new(),
            time => format!(" within {}", milliseconds(time)),
        };
        lines.push(format!("{matched} passed; the leaves returned {shipped}{within}"));
        lines
    }
}

fn decided(counts: ConditionCounts) -> String {
    let ConditionCounts {
        pruned,
        index,
        distinct,
        bytes,
        evaluated,
    } = counts;
    let parts = [
        (pruned, "part", "of splits left out by least and greatest values"),
        (index, "document", "decided by the index"),
        (distinct, "document", "decided by the distinct values of the column"),
        (bytes, "document", "excluded by the bytes of the newest documents"),
        (evaluated, "document", "decided by evaluating it on values"),
    ];
    let said = parts.into_iter().filter(|(count, ..)| *count > 0);
    let said: Vec<String> = said
        .map(|(count, noun, how)| format!("{} {how}", plural(count, noun)))
        .collect();
    match said.is_empty() {
        true => "nothing was left to decide".to_owned(),
        false => said.join(", "),
    }
}

fn read_from(reads: &ColumnReads) -> String {
    let ColumnReads {
        stored,
        asked,
        tail,
        unstored,
        outside,
    } = *reads;
    let raw = [
        (asked, "raw, as the request says"),
        (tail, "raw, of the newest documents, which are in no split yet"),
        (unstored, "raw, where splits have no such column"),
        (
            outside,
            "raw, as columns have no arrays, objects, long texts, big numbers or exact JSON",
        ),
    ];
    let from = [(stored, "from columns")].into_iter().chain(raw);
    let said = from.filter(|(count, _)| *count > 0);
    let said: Vec<String> = said.map(|(count, how)| format!("{} {how}", grouped(count))).collect();
    said.join("; ")
}

/// `1 document`, `11,351 documents`.
fn plural(count: u64, noun: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {noun}{s}", grouped(count))
}

/// With commas between thousands.
pub(super) fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let from_end = |index: usize| digits.len() - index;
    let with_comma = |(index, digit): (usize, char)| match index > 0 && from_end(index).is_multiple_of(3) {
        true => vec![',', digit],
        false => vec![digit],
    };
    digits.chars().enumerate().flat_map(with_comma).collect()
}

/// `0.12 ms`, `15 ms`.
pub(super) fn milliseconds(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 10.0 {
        format!("{ms:.2} ms")
    } else {
        format!("{ms:.0} ms")
    }
}
