//! Types: DataFusion says the type of every expression, and here is what that means for values of several kinds.
//!
//! ```text
//! resolved statement ─ DataFusion's planner, types open (`open`) ─ `rule`: each node with the types of its inputs (`lower`, `compare`)
//!                        ─ DataFusion's rules ─ `columns`: views of JSON become columns of scans
//! ```
//!
//! Every path is a JSON column in a resolved statement. What an operator or a function makes of it, a number, a text, a
//! time, is a view of it, chosen when the types of its operands are known. What it is not: names and scopes, which
//! `sql` resolves before.

mod aggregates;
mod columns;
mod compare;
mod correlated;
mod literals;
mod lower;
mod open;
mod operand;
mod rule;
mod size;
mod table;

use std::sync::Arc;

use datafusion::{
    execution::{SessionStateBuilder, SessionStateDefaults},
    optimizer::{
        Optimizer, OptimizerRule,
        analyzer::{resolve_grouping_function::ResolveGroupingFunction, type_coercion::TypeCoercion},
    },
};

pub use columns::over_columns;
pub use open::type_of;
pub use rule::typed;
pub use table::{is_aggregate, offered};

/// A session in which statements are planned with their types open and get them afterwards.
pub fn session() -> SessionStateBuilder {
    let mut planners: Vec<Arc<dyn datafusion::logical_expr::planner::ExprPlanner>> = vec![Arc::new(open::Planner)];
    planners.extend(SessionStateDefaults::default_expr_planners());
    let mut rules = Optimizer::new().rules;
    // Documents are not structs, and the resolver rewrites ALL and ANY of a sub-query itself.
    let unused = [
        "extract_leaf_expressions",
        "push_down_leaf_projections",
        "rewrite_set_comparison",
    ];
    rules.retain(|rule| !unused.contains(&rule.name()));
    let simplify: Arc<dyn OptimizerRule + Send + Sync> = Arc::new(plan::simplify::Simplify::default());
    rules
        .iter_mut()
        .filter(|rule| rule.name() == simplify.name())
        .for_each(|rule| *rule = Arc::clone(&simplify));
    rules.push(Arc::new(columns::ReadAsColumns));
    SessionStateBuilder::new()
        .with_expr_planners(planners)
        .with_type_planner(Arc::new(open::Planner))
        .with_scalar_functions(open::scalar())
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(open::aggregates())
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_analyzer_rules(vec![
            Arc::new(rule::Types),
            Arc::new(ResolveGroupingFunction::new()),
            Arc::new(TypeCoercion::new()),
        ])
        .with_optimizer_rules(rules)
}
