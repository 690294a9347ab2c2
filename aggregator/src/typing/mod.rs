//! Assigns types to statements: DataFusion derives the type of every expression, and this module decides what that type
//! means for JSON paths with values of several kinds.
//!
//! ```text
//! resolved statement ─ DataFusion's planner with untyped functions (`untyped`)
//!                    ─ `assign_types`: lowers each node by the types of its inputs (`lower`, `compare`)
//!                    ─ DataFusion's rules
//! ```
//!
//! In a resolved statement every path is a JSON column. An operator or a function reads it as a number, a text or a
//! time once the types of its operands are known. Names and scopes are not handled here: `sql` has already resolved
//! them.

mod aggregates;
mod assign_types;
mod callable;
mod compare;
mod correlated;
mod expansion;
mod inlined;
mod literals;
mod lower;
mod operand;
mod path_read;
mod untyped;

use std::sync::Arc;

use datafusion::{
    execution::{SessionStateBuilder, SessionStateDefaults},
    optimizer::{
        Optimizer, OptimizerRule,
        analyzer::{resolve_grouping_function::ResolveGroupingFunction, type_coercion::TypeCoercion},
    },
};

pub(crate) use assign_types::reads_one_table;
pub(crate) use callable::{check_function, is_aggregate};
pub(crate) use lower::TIME_UNITS;
pub(crate) use path_read::{PathRead, condition_over_columns, joined};
pub(crate) use untyped::type_of;

/// A session that plans statements with untyped functions and then assigns their types.
pub(crate) fn session() -> SessionStateBuilder {
    let mut planners: Vec<Arc<dyn datafusion::logical_expr::planner::ExprPlanner>> =
        vec![Arc::new(untyped::UntypedPlanner)];
    planners.extend(SessionStateDefaults::default_expr_planners());
    SessionStateBuilder::new()
        .with_expr_planners(planners)
        .with_type_planner(Arc::new(untyped::UntypedPlanner))
        .with_scalar_functions(untyped::scalar_functions())
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(untyped::aggregate_functions())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_analyzer_rules(vec![
            Arc::new(assign_types::AssignTypes),
            Arc::new(ResolveGroupingFunction::new()),
            Arc::new(TypeCoercion::new()),
        ])
        .with_optimizer_rules(optimizer_rules())
}

/// DataFusion's optimizer rules, adapted to JSON documents.
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules = Optimizer::new().rules;
    // Documents are not structs, and the resolver itself rewrites ALL and ANY over a subquery. DataFusion's rule for
    // distinct counts may lose a group key above a join; `query::distinct_groups` replaces it.
    let unused = [
        "extract_leaf_expressions",
        "push_down_leaf_projections",
        "rewrite_set_comparison",
        "single_distinct_aggregation_to_group_by",
    ];
    rules.retain(|rule| !unused.contains(&rule.name()));
    let simplify: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(plan::simplify::Simplify::default());
    rules
        .iter_mut()
        .filter(|rule| rule.name() == simplify.name())
        .for_each(|rule| *rule = Arc::clone(&simplify));
    rules
}
