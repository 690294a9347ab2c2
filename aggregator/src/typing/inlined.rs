//! Bounds what becomes of conditions when DataFusion moves them towards the tables. In a condition that moves below
//! `SELECT n + n AS n`, each `n` becomes `n + n`; below thirty of them, it becomes a billion.

use std::collections::HashMap;

use datafusion::{
    common::{
        Column, Result,
        tree_node::{TreeNode as _, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan},
};
use proto::{Code, Problem};

use crate::query::failure;

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
}

impl Conditions {
    /// The size of each column of the plan, as an expression over columns of tables. Counts the conditions in it.
    fn sizes_of_columns(&mut self, plan: &LogicalPlan) -> Result<Vec<usize>> {
        crate::sql::on_deep_stack(|| self.sizes_on_this_stack(plan))
    }

    fn sizes_on_this_stack(&mut self, plan: &LogicalPlan) -> Result<Vec<usize>> {
        plan.apply_subqueries(|subquery| {
            self.sizes_of_columns(subquery)?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        let inputs = plan.inputs();
        let mut sizes = Vec::with_capacity(inputs.len());
        for input in &inputs {
            sizes.push(self.sizes_of_columns(input)?);
        }
        let columns = || InputColumns::new(&inputs, &sizes);
        let count = plan.schema().fields().len();
        Ok(match plan {
            LogicalPlan::Filter(filter) => {
                self.count(&filter.predicate, &columns());
                sizes.pop().unwrap_or_default()
            }
            LogicalPlan::Join(join) => {
                if let Some(filter) = &join.filter {
                    self.count(filter, &columns());
                }
                let both: Vec<usize> = sizes.concat();
                // A semi-join or an anti-join returns the columns of one side only.
                if both.len() == count { both } else { vec![1; count] }
            }
            LogicalPlan::Projection(projection) => {
                let columns = columns();
                projection.expr.iter().map(|expr| columns.size(expr)).collect()
            }
            LogicalPlan::Aggregate(aggregate) => {
                let columns = columns();
                let keys = aggregate.group_expr.iter().map(|expr| columns.size(expr));
                keys.chain(std::iter::repeat(1)).take(count).collect()
            }
            LogicalPlan::Union(_) => (0..count)
                .map(|index| {
                    sizes
                        .iter()
                        .filter_map(|sizes| sizes.get(index))
                        .max()
                        .copied()
                        .unwrap_or(1)
                })
                .collect(),
            LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Sort(_)
            | LogicalPlan::Distinct(_)
            | LogicalPlan::Window(_) => {
                let mut passed = sizes.pop().unwrap_or_default();
                passed.resize(count, 1);
                passed
            }
            // No condition moves below anything else.
            _ => vec![1; count],
        })
    }

    fn count(&mut self, condition: &Expr, columns: &InputColumns) {
        self.written = self.written.saturating_add(super::expansion::node_count(condition));
        self.inlined = self.inlined.saturating_add(columns.size(condition));
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

    /// The number of nodes of an expression in which each column stands for its own.
    fn size(&self, expr: &Expr) -> usize {
        let mut size = 0_usize;
        let visited = expr.apply(|node| {
            size = size.saturating_add(match node {
                Expr::Column(column) => self.sizes.get(column).copied().unwrap_or(self.largest),
                _ => 1,
            });
            Ok(TreeNodeRecursion::Continue)
        });
        debug_assert!(visited.is_ok(), "the visitor never fails");
        size
    }
}
