//! The planning rule that reads paths as columns: `json_get(user, 'id', 'int')` over a scan of `user` becomes the
//! column `user.id:int` of the scan, also through subqueries, views and WITH queries. A path read through a view
//! thereby keeps its column and its index.
//!
//! ```text
//!   Projection: json_get(v.user, 'id', 'int')     Projection: v."user.id:int"
//!     SubqueryAlias: v                        ->    SubqueryAlias: v
//!       Projection: e."user:json" AS user             Projection: e."user:json" AS user,
//!                                                                 e."user.id:int" AS "user.id:int"
//!         TableScan: e                                  TableScan: e
//! ```
//!
//! The result is the same either way (see [`PathRead`]).

mod extend;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use datafusion::{
    common::{
        Column, Result,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    config::ConfigOptions,
    logical_expr::{Expr, LogicalPlan, Projection, expr_rewriter::NamePreserver},
    optimizer::{AnalyzerRule, ApplyOrder, OptimizerConfig, OptimizerRule, optimize_projections::OptimizeProjections},
};
use plan::walk::{Walk as _, apply_expressions, map_expressions, transform_up_with_subqueries};

use self::extend::add_columns;
use crate::typing::{PathRead, reads_one_table};

/// The rule, for both phases of planning.
#[derive(Debug)]
pub(super) struct ReadPathsAsColumns;

/// Before optimization: a path that a correlated subquery compares must be a column before the subquery becomes a join.
impl AnalyzerRule for ReadPathsAsColumns {
    fn name(&self) -> &str {
        "read_paths_as_columns"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        match reads_one_table(&plan) {
            true => Ok(plan),
            false => Ok(transform_up_with_subqueries(plan, &mut rewrite_node)?.data),
        }
    }
}

impl OptimizerRule for ReadPathsAsColumns {
    fn name(&self) -> &str {
        "read_paths_as_columns"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let rewritten = transform_up_with_subqueries(plan, &mut rewrite_node)?;
        match rewritten.transformed {
            // Columns that were read only for their paths are no longer needed.
            true => Ok(Transformed::yes(
                OptimizeProjections::new().rewrite(rewritten.data, config)?.data,
            )),
            false => Ok(rewritten),
        }
    }
}

/// Replaces the reads of paths in one node with columns, as far as the inputs can provide these.
fn rewrite_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    use LogicalPlan::{Aggregate, Filter, Join, Projection, Sort, Window};
    if !matches!(
        plan,
        Projection(_) | Filter(_) | Aggregate(_) | Sort(_) | Window(_) | Join(_)
    ) {
        return Ok(Transformed::no(plan));
    }
    let reads = path_reads(&plan)?;
    if reads.is_empty() {
        return Ok(Transformed::no(plan));
    }
    let mut inputs: Vec<LogicalPlan> = plan.inputs().into_iter().cloned().collect();
    let mut columns: HashMap<PathRead, Column> = HashMap::new();
    for input in &mut inputs {
        let wanted: Vec<PathRead> = reads
            .iter()
            .filter(|read| !columns.contains_key(*read) && input.schema().has_column(&read.column))
            .cloned()
            .collect();
        let (extended, added) = add_columns(input, &wanted)?;
        *input = extended;
        columns.extend(
            wanted
                .into_iter()
                .zip(added)
                .filter_map(|(read, column)| Some((read, column?))),
        );
    }
    if columns.is_empty() {
        return Ok(Transformed::no(plan));
    }
    Ok(Transformed::yes(replace_reads(plan, inputs, &columns)?))
}

/// All distinct reads of paths in the expressions of one node.
fn path_reads(plan: &LogicalPlan) -> Result<Vec<PathRead>> {
    let (mut reads, mut seen) = (Vec::new(), HashSet::new());
    apply_expressions(plan, &mut |expr| {
        expr.apply(|node| {
            reads.extend(PathRead::of(node).filter(|read| seen.insert(read.clone())));
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(reads)
}

/// The node over new inputs, with columns in place of reads. Its own columns stay the same.
fn replace_reads(
    plan: LogicalPlan,
    inputs: Vec<LogicalPlan>,
    columns: &HashMap<PathRead, Column>,
) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let defines_columns = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_));
    let is_sort = matches!(plan, LogicalPlan::Sort(_));
    let names = NamePreserver::new(&plan);
    let replace = |node: Expr| match PathRead::of(&node).and_then(|read| columns.get(&read)) {
        Some(column) => Ok(Transformed::yes(Expr::Column(column.clone()))),
        None => Ok(Transformed::no(node)),
    };
    let plan = map_expressions(plan, &mut |expr| {
        let name = names.save(&expr);
        let expr = expr.transform_up(replace)?.data;
        Ok(Transformed::yes(if is_sort { expr } else { name.restore(expr) }))
    })?;
    let mut inputs = inputs.into_iter();
    let plan = plan
        .data
        .map_children(|child| Ok(Transformed::yes(inputs.next().unwrap_or(child))))?
        .data
        .recompute_schema()?;
    if defines_columns {
        return Ok(plan);
    }
    // The node passes on the columns of its inputs: hide those that were added.
    let own_columns = schema.iter().map(|column| Expr::Column(Column::from(column))).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(
        own_columns,
        Arc::new(plan),
    )?))
}
