//! Bounds what becomes of conditions when DataFusion moves them towards the tables. In a condition that moves below
//! `SELECT n + n AS n`, each `n` becomes `n + n`; below thirty of them, it becomes a billion.

use std::collections::HashMap;

use datafusion::{
    common::{Column, JoinType, Result, tree_node::TreeNodeRecursion},
    logical_expr::{Expr, LogicalPlan},
};
use plan::walk::apply_subqueries;
use proto::{Code, Problem};

use super::expansion::{expanded_size, node_count};
use crate::failure;

/// Nodes to which all conditions of a statement may grow. The limit applies only if that is over four times their size
/// as written. DataFusion plans this many within a second.
const INLINED_NODES_MAX: usize = 20_000;

/// Returns an error if the conditions of a plan would grow too much.
pub(super) fn check_inlined_conditions(plan: &LogicalPlan) -> Result<()> {
    let mut conditions = Conditions::default();
    conditions.sizes_of_columns(plan)?;
    if conditions.inlined <= INLINED_NODES_MAX || conditions.inlined / 4 <= conditions.written {
        return Ok(());
    }
    Err(failure::error(
        Problem::new(
            Code::TooComplex,
            format!(
                "the conditions of the statement grow to over {INLINED_NODES_MAX} nodes: each column in them stands for \
                 its expression in a query inside, and that uses columns of the next query several times"
            ),
        )
        .hint("use fewer computed columns in conditions around nested queries"),
    ))
}

/// The number of nodes of all conditions.
#[derive(Default)]
struct Conditions {
    written: usize,
    inlined: usize,
    /// The columns of the queries around the current subquery, outermost first.
    outer: Vec<InputColumns>,
}

impl Conditions {
    /// The size of each column of the plan, as an expression over columns of tables. Counts the conditions in it.
    fn sizes_of_columns(&mut self, plan: &LogicalPlan) -> Result<Vec<usize>> {
        crate::deep_stack::on_deep_stack(|| self.sizes_on_this_stack(plan))
    }

    fn sizes_on_this_stack(&mut self, plan: &LogicalPlan) -> Result<Vec<usize>> {
        let inputs = plan.inputs();
        let mut sizes = Vec::with_capacity(inputs.len());
        for input in &inputs {
            sizes.push(self.sizes_of_columns(input)?);
        }
        let columns = InputColumns::new(&inputs, &sizes);
        let first = sizes.first().cloned().unwrap_or_default();
        let count = plan.schema().fields().len();
        let mut passed: Vec<usize> = match plan {
            LogicalPlan::Filter(filter) => {
                self.count(&filter.predicate, &columns);
                first
            }
            LogicalPlan::Join(join) => {
                if let Some(filter) = &join.filter {
                    self.count(filter, &columns);
                }
                match join.join_type {
                    JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => first,
                    JoinType::RightSemi | JoinType::RightAnti | JoinType::RightMark => {
                        sizes.last().cloned().unwrap_or_default()
                    }
                    JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => sizes.concat(),
                }
            }
            LogicalPlan::Projection(projection) => {
                let size = |expr| self.size(expr, &columns);
                projection.expr.iter().map(size).collect()
            }
            LogicalPlan::Aggregate(aggregate) => {
                let size = |expr| self.size(expr, &columns);
                aggregate.group_expr.iter().map(size).collect()
            }
            LogicalPlan::Unnest(unnest) => {
                let dependencies = unnest.dependency_indices.iter();
                dependencies
                    .map(|index| first.get(*index).copied().unwrap_or(1))
                    .collect()
            }
            LogicalPlan::Union(_) => {
                let largest = |index: usize| sizes.iter().filter_map(|sizes| sizes.get(index)).max();
                (0..count).map(|index| largest(index).copied().unwrap_or(1)).collect()
            }
            // No condition moves below a limit.
            LogicalPlan::Limit(_) => Vec::new(),
            _ => first,
        };
        passed.resize(count, 1);
        self.outer.push(columns);
        apply_subqueries(plan, &mut |subquery| {
            self.sizes_of_columns(subquery)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        self.outer.pop();
        Ok(passed)
    }

    fn count(&mut self, condition: &Expr, columns: &InputColumns) {
        self.written = self.written.saturating_add(node_count(condition));
        self.inlined = self.inlined.saturating_add(self.size(condition, columns));
    }

    /// The number of nodes of an expression in which each column stands for its own.
    fn size(&self, expr: &Expr, columns: &InputColumns) -> usize {
        expanded_size(expr, &|node| match node {
            Expr::Column(column) => Some(columns.sizes.get(column).copied().unwrap_or(columns.largest)),
            Expr::OuterReferenceColumn(_, column) => {
                let found = self.outer.iter().rev().find_map(|outer| outer.sizes.get(column));
                Some(found.copied().unwrap_or(1))
            }
            _ => None,
        })
    }
}

/// The columns that an expression can use, and their sizes.
struct InputColumns {
    sizes: HashMap<Column, usize>,
    largest: usize,
}

impl InputColumns {
    fn new(inputs: &[&LogicalPlan], sizes: &[Vec<usize>]) -> Self {
        let columns = inputs.iter().zip(sizes).flat_map(|(input, sizes)| {
            let columns = input.schema().columns();
            columns.into_iter().zip(sizes.iter().copied())
        });
        Self {
            largest: sizes.iter().flatten().max().copied().unwrap_or(1),
            sizes: columns.collect(),
        }
    }
}
