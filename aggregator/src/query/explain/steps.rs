//! The operators of a plan as steps. Operators that only pass rows on, such as those that spread them over threads, are
//! no steps.

use std::{sync::Arc, time::Duration};

use datafusion::{
    common::JoinType,
    physical_expr::{
        PhysicalExpr,
        expressions::{CastExpr, Column, Literal},
    },
    physical_plan::{
        ExecutionPlan,
        aggregates::{AggregateExec, AggregateMode},
        coalesce_partitions::CoalescePartitionsExec,
        empty::EmptyExec,
        filter::FilterExec,
        joins::{CrossJoinExec, HashJoinExec, JoinOnRef, NestedLoopJoinExec, SortMergeJoinExec, utils::JoinFilter},
        limit::GlobalLimitExec,
        placeholder_row::PlaceholderRowExec,
        projection::ProjectionExec,
        scalar_subquery::ScalarSubqueryExec,
        sorts::{sort::SortExec, sort_preserving_merge::SortPreservingMergeExec},
        union::UnionExec,
        unnest::UnnestExec,
        windows::{BoundedWindowAggExec, WindowAggExec},
        work_table::WorkTableExec,
    },
};

use super::{
    expressions::{aggregate, keys, list, name, shown},
    scan::{self, grouped, milliseconds},
};
use crate::query::{report::QueryReport, shard_scan::ShardScan};

/// Operators that pass rows on.
const NO_STEPS: [&str; 9] = [
    "CoalesceBatchesExec",
    "CoalescePartitionsExec",
    "CooperativeExec",
    "ForgetConstantsExec",
    "LocalLimitExec",
    "RepartitionExec",
    "SortPreservingMergeExec",
    "WatchedExec",
    "BufferExec",
];

/// What is shown of a plan.
#[derive(Clone, Copy)]
pub(super) struct Shown<'a> {
    /// The counts of its run, if it ran.
    pub report: Option<&'a QueryReport>,
    /// The rows that the answer may have if the statement has no LIMIT.
    pub rows_max: Option<usize>,
}

impl Shown<'_> {
    /// The number of rows that a limit in the plan stands for. One more than allowed is read to see whether there are
    /// more.
    pub(super) fn rows(&self, limit: usize) -> usize {
        self.rows_max.filter(|rows| rows + 1 == limit).unwrap_or(limit)
    }

    fn first(&self, limit: usize) -> String {
        match self.rows(limit) {
            rows if rows == limit => format!("First {}", rows_of(limit)),
            rows => format!("First {}, as the statement has no LIMIT", rows_of(rows)),
        }
    }
}

/// A step of a plan.
#[derive(Debug, Default)]
pub(super) struct PlanStep {
    title: String,
    pub details: Vec<String>,
    /// What it returned, and its own time.
    ran: Option<(usize, Duration)>,
    inputs: Vec<PlanStep>,
}

impl PlanStep {
    /// A step without details and inputs.
    pub(super) fn new(title: impl Into<String>) -> Self {
        Self {
            title: title.into(),
            ..Self::default()
        }
    }

    /// The step of an operator, with those of its inputs; with its counts if it ran.
    pub(super) fn of(plan: &Arc<dyn ExecutionPlan>, shown: &Shown) -> Self {
        let mut step = match described(plan, shown) {
            Some(title) => Self::new(title),
            None => match plan.downcast_ref::<ShardScan>() {
                Some(scan) => scan::step(scan, shown),
                None => match plan.children().as_slice() {
                    [input] => return Self::of(input, shown),
                    _ => Self::new(spelled_out(plan.name())),
                },
            },
        };
        step.ran = shown.report.and_then(|_| {
            let metrics = plan.metrics()?;
            let time = metrics.elapsed_compute().unwrap_or_default();
            Some((metrics.output_rows()?, Duration::from_nanos(time as u64)))
        });
        step.inputs = plan.children().iter().map(|input| Self::of(input, shown)).collect();
        if plan.is::<ScalarSubqueryExec>() {
            let (main, subqueries) = step.inputs.split_at_mut(1);
            for (number, subquery) in subqueries.iter_mut().enumerate() {
                subquery.title = format!("Subquery {}: {}", number + 1, subquery.title);
            }
            if let [main] = main {
                main.title = format!("Then: {}", main.title);
            }
            step.inputs.rotate_left(1);
        }
        step
    }

    /// A line for each step and each detail, inputs below what reads them.
    pub(super) fn lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        self.write(0, &mut lines);
        lines
    }

    fn write(&self, depth: usize, lines: &mut Vec<String>) {
        let indent = "  ".repeat(depth);
        let ran = self.ran.map(|(rows, time)| {
            let noun = if rows == 1 { "row" } else { "rows" };
            match time < Duration::from_micros(10) {
                true => format!("  ({} {noun})", grouped(rows as u64)),
                false => format!("  ({} {noun}, {})", grouped(rows as u64), milliseconds(time)),
            }
        });
        lines.push(format!("{indent}{}{}", self.title, ran.unwrap_or_default()));
        lines.extend(self.details.iter().map(|detail| format!("{indent}  - {detail}")));
        for input in &self.inputs {
            input.write(depth + 1, lines);
        }
    }
}

/// What an operator does; none if it only passes rows on, or is a scan.
fn described(plan: &Arc<dyn ExecutionPlan>, statement: &Shown) -> Option<String> {
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        return Some(match sort.fetch() {
            Some(rows) => format!("{} by {}", statement.first(rows), keys(sort.expr())),
            None => format!("Sort by {}", keys(sort.expr())),
        });
    }
    if let Some(merge) = plan.downcast_ref::<SortPreservingMergeExec>() {
        // Mostly each of its inputs has been sorted and cut to as many rows.
        let is_sorted = |input: &Arc<dyn ExecutionPlan>| cuts_to(input, merge.fetch());
        return match merge.fetch() {
            Some(rows) if !is_sorted(merge.input()) => {
                Some(format!("First {} by {}", rows_of(rows), keys(merge.expr())))
            }
            _ => None,
        };
    }
    if let Some(merge) = plan.downcast_ref::<CoalescePartitionsExec>() {
        let rows = merge.fetch()?;
        return (!cuts_to(merge.input(), Some(rows))).then(|| statement.first(rows));
    }
    if let Some(limit) = plan.downcast_ref::<GlobalLimitExec>() {
        return match (limit.skip(), limit.fetch()) {
            (0, Some(rows)) if cuts_to(limit.input(), Some(rows)) => None,
            (0, Some(rows)) => Some(statement.first(rows)),
            (skipped, Some(rows)) => Some(format!("Skip {}, then the first {}", rows_of(skipped), rows_of(rows))),
            (skipped, None) => Some(format!("Skip {}", rows_of(skipped))),
        };
    }
    if let Some(projection) = plan.downcast_ref::<ProjectionExec>() {
        let computed = projection.expr().iter().filter(|part| is_computed(&part.expr));
        let computed: Vec<String> = computed.map(|part| shown(&part.expr)).collect();
        return (!computed.is_empty()).then(|| format!("Compute {}", list(computed)));
    }
    if let Some(filter) = plan.downcast_ref::<FilterExec>() {
        return Some(format!("Keep rows where {}", shown(filter.predicate())));
    }
    if let Some(aggregate) = plan.downcast_ref::<AggregateExec>() {
        return Some(aggregated(aggregate));
    }
    if let Some(title) = joined(plan) {
        return Some(title);
    }
    let windows = (plan.downcast_ref::<WindowAggExec>().map(WindowAggExec::window_expr)).or_else(|| {
        plan.downcast_ref::<BoundedWindowAggExec>()
            .map(BoundedWindowAggExec::window_expr)
    });
    if let Some(windows) = windows {
        let calls = windows.iter().map(|window| name(window.name()).into_owned());
        return Some(format!("Window functions: {}", list(calls)));
    }
    if plan.is::<UnionExec>() {
        return Some("All rows of the parts below".to_owned());
    }
    if plan.is::<UnnestExec>() {
        return Some("Unnest lists: a row for each item".to_owned());
    }
    if plan.is::<ScalarSubqueryExec>() {
        return Some("First the subqueries, each once".to_owned());
    }
    if plan.is::<PlaceholderRowExec>() {
        return Some("One row without a table".to_owned());
    }
    if plan.is::<EmptyExec>() {
        return Some("No rows: they cannot exist".to_owned());
    }
    if plan.is::<WorkTableExec>() {
        return Some("Rows of the round before".to_owned());
    }
    match plan.name() {
        "DataSourceExec" => Some("Rows in memory: of a system table, VALUES or a series".to_owned()),
        "RecursiveQueryExec" => Some("Recursive query: repeat the second part until it adds no rows".to_owned()),
        _ => None,
    }
}

fn rows_of(count: usize) -> String {
    let noun = if count == 1 { "row" } else { "rows" };
    format!("{} {noun}", grouped(count as u64))
}

/// Whether an operator returns no more than these rows, and says so as a step.
fn cuts_to(plan: &Arc<dyn ExecutionPlan>, rows: Option<usize>) -> bool {
    if let Some(sort) = plan.downcast_ref::<SortExec>() {
        return sort.fetch() == rows;
    }
    let passes_on = NO_STEPS.contains(&plan.name()) || plan.is::<ProjectionExec>();
    match plan.children().as_slice() {
        [input] if passes_on => cuts_to(input, rows),
        _ => false,
    }
}

/// Whether an expression is more than a column or a constant.
fn is_computed(expr: &Arc<dyn PhysicalExpr>) -> bool {
    match expr.downcast_ref::<CastExpr>() {
        Some(cast) => is_computed(cast.expr()),
        None => !expr.is::<Column>() && !expr.is::<Literal>(),
    }
}

fn aggregated(operator: &AggregateExec) -> String {
    let calls = list(operator.aggr_expr().iter().map(|call| aggregate(call)));
    let groups = operator.group_expr().expr().iter();
    let groups = list(groups.map(|(group, group_name)| match group.is::<Column>() {
        true => shown(group),
        false => name(group_name).into_owned(),
    }));
    let what = match (calls.is_empty(), groups.is_empty()) {
        (true, _) => format!("distinct values of {groups}"),
        (false, true) => calls,
        (false, false) => format!("{calls} by {groups}"),
    };
    match operator.mode() {
        AggregateMode::Partial | AggregateMode::PartialReduce => format!("Aggregate on each thread: {what}"),
        AggregateMode::Final | AggregateMode::FinalPartitioned => format!("Combine partial aggregates: {what}"),
        AggregateMode::Single | AggregateMode::SinglePartitioned => format!("Aggregate: {what}"),
    }
}

fn joined(plan: &Arc<dyn ExecutionPlan>) -> Option<String> {
    let equal = |pairs: JoinOnRef<'_>| {
        let pair = |(left, right): &(_, _)| format!("{} = {}", shown(left), shown(right));
        pairs.iter().map(pair).collect::<Vec<_>>()
    };
    let (kind, mut on, filter) = if let Some(join) = plan.downcast_ref::<HashJoinExec>() {
        (*join.join_type(), equal(join.on()), join.filter())
    } else if let Some(join) = plan.downcast_ref::<SortMergeJoinExec>() {
        (join.join_type(), equal(join.on()), join.filter().as_ref())
    } else if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
        (*join.join_type(), Vec::new(), join.filter())
    } else if plan.is::<CrossJoinExec>() {
        return Some("Join every row with every row".to_owned());
    } else {
        return None;
    };
    let is_by_equality = !on.is_empty();
    on.extend(filter.map(|filter: &JoinFilter| shown(filter.expression())));
    let kind = match kind {
        JoinType::Inner => "Join",
        JoinType::Left => "Left join",
        JoinType::Right => "Right join",
        JoinType::Full => "Full join",
        JoinType::LeftSemi | JoinType::RightSemi => "Keep rows that have a match",
        JoinType::LeftAnti | JoinType::RightAnti => "Keep rows that have no match",
        JoinType::LeftMark | JoinType::RightMark => "Mark rows that have a match",
    };
    let how = match is_by_equality {
        true if plan.is::<HashJoinExec>() => "; the first input is kept in memory",
        true => "; both inputs are sorted",
        false => "; every pair of rows is compared",
    };
    Some(format!("{kind} on {}{how}", on.join(" AND ")))
}

/// `SymmetricHashJoinExec`: `Symmetric hash join`.
fn spelled_out(operator: &str) -> String {
    let operator = operator.strip_suffix("Exec").unwrap_or(operator);
    let mut words = String::new();
    for (index, letter) in operator.chars().enumerate() {
        match letter.is_uppercase() && index > 0 {
            true => words.extend([' '].into_iter().chain(letter.to_lowercase())),
            false => words.push(letter),
        }
    }
    words
}
