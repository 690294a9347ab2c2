//! Optimizer rule: pushes top-k (ORDER BY with LIMIT) down to the leaves. The sort stays and sorts the rows of all shards.
//!
//! ```text
//!   SortExec(fetch=k)                   SortExec(fetch=k)
//!     [ProjectionExec]                    [ProjectionExec]
//!       ShardScan(rows)        ->           ShardScan(top k)
//! ```

use std::sync::Arc;

use datafusion::{
    common::tree_node::{Transformed, TransformedResult as _},
    config::ConfigOptions,
    error::Result,
    physical_expr::{PhysicalExpr, PhysicalSortExpr, expressions::Column as PhysicalColumn},
    physical_optimizer::PhysicalOptimizerRule,
    physical_plan::{
        ExecutionPlan,
        execution_plan::{ChildrenPropertiesMode, ReplaceChildrenOptions},
        projection::ProjectionExec,
        sorts::sort::SortExec,
    },
};
use plan::scan::{SortKey, Stage};
use plan::walk::Walk as _;

use super::shard_scan::ShardScan;

/// The largest k that is pushed down, because a leaf keeps the sort keys of k rows in memory.
pub(super) const TOP_ROWS_MAX: usize = 100_000;

/// The columns of a document's address, in its order.
pub(super) const ADDRESS_COLUMNS: [&str; 4] = ["_source", "_partition", "_offset", "_item"];

#[derive(Debug)]
pub(super) struct TopKPushdown;

impl PhysicalOptimizerRule for TopKPushdown {
    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|node| {
            let Some(input) = node.downcast_ref::<SortExec>().and_then(push_down) else {
                return Ok(Transformed::no(node));
            };
            let options = ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute);
            node.replace_children(vec![input], options).map(Transformed::yes)
        })
        .data()
    }

    fn name(&self) -> &str {
        "TopKPushdown"
    }

    fn schema_check(&self) -> bool {
        true
    }
}

/// The input of a sort with the top-k pushed into its scan.
fn push_down(sort: &SortExec) -> Option<Arc<dyn ExecutionPlan>> {
    let limit = sort.fetch().filter(|limit| *limit <= TOP_ROWS_MAX)?;
    let input = sort.input();
    if let Some(scan) = input.downcast_ref::<ShardScan>() {
        return scan_with_top(scan, sort.expr().iter(), limit, &|index| Some(index));
    }
    let projection = input.downcast_ref::<ProjectionExec>()?;
    let scan = projection.input().downcast_ref::<ShardScan>()?;
    let below = |index: usize| column_index(&projection.expr().get(index)?.expr);
    let scan = scan_with_top(scan, sort.expr().iter(), limit, &below)?;
    Arc::clone(input)
        .replace_children(
            vec![scan],
            ReplaceChildrenOptions::new(ChildrenPropertiesMode::Recompute),
        )
        .ok()
}

fn scan_with_top<'a>(
    scan: &ShardScan,
    keys: impl Iterator<Item = &'a PhysicalSortExpr>,
    limit: usize,
    column_of: &dyn Fn(usize) -> Option<usize>,
) -> Option<Arc<dyn ExecutionPlan>> {
    if !scan.returns_all_rows() {
        return None;
    }
    let key = |sort: &PhysicalSortExpr| {
        let column = scan.columns.get(column_of(column_index(&sort.expr)?)?)?.clone();
        Some(SortKey {
            column,
            descending: sort.options.descending,
            nulls_first: sort.options.nulls_first,
        })
    };
    let mut keys = keys.map(key).collect::<Option<Vec<_>>>()?;
    drop_address(&mut keys);
    Some(Arc::new(scan.with_stage(
        Stage::Top {
            keys,
            after: None,
            limit,
            counts_all: false,
        },
        scan.schema(),
    )))
}

/// Drops the last keys if they only order ties by address, which leaves do anyway.
fn drop_address(keys: &mut Vec<SortKey>) {
    let only_orders_ties = |start: &usize| {
        let (before, ties) = keys.split_at(*start);
        let mut address = ADDRESS_COLUMNS
            .iter()
            .filter(|name| before.iter().all(|key| key.column.name() != **name));
        ties.iter()
            .all(|key| !key.descending && address.next().is_some_and(|name| key.column.name() == *name))
    };
    let start = (1..keys.len()).find(only_orders_ties);
    keys.truncate(start.unwrap_or(keys.len()));
}

fn column_index(expression: &Arc<dyn PhysicalExpr>) -> Option<usize> {
    expression.downcast_ref::<PhysicalColumn>().map(PhysicalColumn::index)
}
