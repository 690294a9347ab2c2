//! Walks over expressions and plans. They do what DataFusion's methods of the same names do, and call the closure through
//! a pointer: DataFusion's own are compiled again, with all that they call, for every closure, which was a tenth of the
//! aggregator's code.

use std::sync::Arc;

use datafusion::{
    common::{
        Result,
        tree_node::{Transformed, TreeNode, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan},
    physical_expr::PhysicalExpr,
    physical_plan::ExecutionPlan,
};

/// What a change of a node returns.
pub type Changed<N> = Result<Transformed<N>>;

/// A node of a tree: an expression or an operator, logical or physical.
pub trait Walk: Sized {
    /// Changes all nodes, each after those below it. See [`TreeNode::transform_up`].
    ///
    /// # Errors
    /// The first error of `change`.
    fn transform_up(self, change: impl FnMut(Self) -> Changed<Self>) -> Changed<Self>;

    /// Changes all nodes, each before those below it. See [`TreeNode::transform_down`].
    ///
    /// # Errors
    /// The first error of `change`.
    fn transform_down(self, change: impl FnMut(Self) -> Changed<Self>) -> Changed<Self>;

    /// Changes the nodes directly below this one. See [`TreeNode::map_children`].
    ///
    /// # Errors
    /// The first error of `change`.
    fn map_children(self, change: impl FnMut(Self) -> Changed<Self>) -> Changed<Self>;

    /// Visits all nodes, each before those below it. See [`TreeNode::apply`].
    ///
    /// # Errors
    /// The first error of `visit`.
    fn apply<'n>(&'n self, visit: impl FnMut(&'n Self) -> Result<TreeNodeRecursion>) -> Result<TreeNodeRecursion>;

    /// Visits the nodes directly below this one. See [`TreeNode::apply_children`].
    ///
    /// # Errors
    /// The first error of `visit`.
    fn apply_children<'n>(
        &'n self,
        visit: impl FnMut(&'n Self) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion>;

    /// Whether `test` is true of this node or of one below it. See [`TreeNode::exists`].
    ///
    /// # Errors
    /// The first error of `test`.
    fn exists(&self, mut test: impl FnMut(&Self) -> Result<bool>) -> Result<bool> {
        let mut found = false;
        self.apply(|node| {
            found = test(node)?;
            Ok(match found {
                true => TreeNodeRecursion::Stop,
                false => TreeNodeRecursion::Continue,
            })
        })?;
        Ok(found)
    }
}

/// Compiles the walks over one type of node, once.
macro_rules! walk {
    ($node:ty) => {
        impl Walk for $node {
            fn transform_up(self, mut change: impl FnMut(Self) -> Changed<Self>) -> Changed<Self> {
                #[inline(never)]
                fn walk(node: $node, change: &mut dyn FnMut($node) -> Changed<$node>) -> Changed<$node> {
                    TreeNode::transform_up(node, change)
                }
                walk(self, &mut change)
            }

            fn transform_down(self, mut change: impl FnMut(Self) -> Changed<Self>) -> Changed<Self> {
                #[inline(never)]
                fn walk(node: $node, change: &mut dyn FnMut($node) -> Changed<$node>) -> Changed<$node> {
                    TreeNode::transform_down(node, change)
                }
                walk(self, &mut change)
            }

            fn map_children(self, mut change: impl FnMut(Self) -> Changed<Self>) -> Changed<Self> {
                #[inline(never)]
                fn walk(node: $node, change: &mut dyn FnMut($node) -> Changed<$node>) -> Changed<$node> {
                    TreeNode::map_children(node, change)
                }
                walk(self, &mut change)
            }

            fn apply<'n>(
                &'n self,
                mut visit: impl FnMut(&'n Self) -> Result<TreeNodeRecursion>,
            ) -> Result<TreeNodeRecursion> {
                #[inline(never)]
                fn walk<'n>(
                    node: &'n $node,
                    visit: &mut dyn FnMut(&'n $node) -> Result<TreeNodeRecursion>,
                ) -> Result<TreeNodeRecursion> {
                    TreeNode::apply(node, visit)
                }
                walk(self, &mut visit)
            }

            fn apply_children<'n>(
                &'n self,
                mut visit: impl FnMut(&'n Self) -> Result<TreeNodeRecursion>,
            ) -> Result<TreeNodeRecursion> {
                #[inline(never)]
                fn walk<'n>(
                    node: &'n $node,
                    visit: &mut dyn FnMut(&'n $node) -> Result<TreeNodeRecursion>,
                ) -> Result<TreeNodeRecursion> {
                    TreeNode::apply_children(node, visit)
                }
                walk(self, &mut visit)
            }
        }
    };
}

walk!(Expr);
walk!(LogicalPlan);
walk!(Arc<dyn PhysicalExpr>);
walk!(Arc<dyn ExecutionPlan>);

/// Changes the expressions of one operator. See [`LogicalPlan::map_expressions`].
///
/// # Errors
/// The first error of `change`.
#[inline(never)]
pub fn map_expressions(plan: LogicalPlan, change: &mut dyn FnMut(Expr) -> Changed<Expr>) -> Changed<LogicalPlan> {
    plan.map_expressions(change)
}

/// Visits the expressions of one operator. See [`LogicalPlan::apply_expressions`].
///
/// # Errors
/// The first error of `visit`.
#[inline(never)]
pub fn apply_expressions(
    plan: &LogicalPlan,
    visit: &mut dyn FnMut(&Expr) -> Result<TreeNodeRecursion>,
) -> Result<TreeNodeRecursion> {
    plan.apply_expressions(visit)
}

/// Changes the plans of the subqueries in the expressions of one operator. See [`LogicalPlan::map_subqueries`].
///
/// # Errors
/// The first error of `change`.
#[inline(never)]
pub fn map_subqueries(
    plan: LogicalPlan,
    change: &mut dyn FnMut(LogicalPlan) -> Changed<LogicalPlan>,
) -> Changed<LogicalPlan> {
    plan.map_subqueries(change)
}

/// Visits the plans of the subqueries in the expressions of one operator. See [`LogicalPlan::apply_subqueries`].
///
/// # Errors
/// The first error of `visit`.
#[inline(never)]
pub fn apply_subqueries(
    plan: &LogicalPlan,
    visit: &mut dyn FnMut(&LogicalPlan) -> Result<TreeNodeRecursion>,
) -> Result<TreeNodeRecursion> {
    plan.apply_subqueries(visit)
}

/// Changes all operators of a plan and of its subqueries, each after those below it. See
/// [`LogicalPlan::transform_up_with_subqueries`].
///
/// # Errors
/// The first error of `change`.
#[inline(never)]
pub fn transform_up_with_subqueries(
    plan: LogicalPlan,
    change: &mut dyn FnMut(LogicalPlan) -> Changed<LogicalPlan>,
) -> Changed<LogicalPlan> {
    plan.transform_up_with_subqueries(change)
}

/// Changes all operators of a plan and of its subqueries, each before those below it. See
/// [`LogicalPlan::transform_down_with_subqueries`].
///
/// # Errors
/// The first error of `change`.
#[inline(never)]
pub fn transform_down_with_subqueries(
    plan: LogicalPlan,
    change: &mut dyn FnMut(LogicalPlan) -> Changed<LogicalPlan>,
) -> Changed<LogicalPlan> {
    plan.transform_down_with_subqueries(change)
}

/// Visits all operators of a plan and of its subqueries, each before those below it. See
/// [`LogicalPlan::apply_with_subqueries`].
///
/// # Errors
/// The first error of `visit`.
#[inline(never)]
pub fn apply_with_subqueries(
    plan: &LogicalPlan,
    visit: &mut dyn FnMut(&LogicalPlan) -> Result<TreeNodeRecursion>,
) -> Result<TreeNodeRecursion> {
    plan.apply_with_subqueries(visit)
}
