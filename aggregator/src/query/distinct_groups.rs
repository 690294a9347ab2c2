//! Counts distinct values by grouping, so that leaves group and send each value once, not once for each document.
//!
//! ```text
//! before                                    after
//! Aggregate type: count(DISTINCT login)     Projection
//!   Scan                                      Aggregate type: count(login), sum(n)
//!                                               Aggregate type, login: count(*) AS n
//!                                                 Scan
//! ```
//!
//! DataFusion has a rule for this, which is switched off: it may lose a group key above a join. It also skips aggregates
//! with another `count`, or with the aliases that keep the names of a statement.

use std::sync::Arc;

use datafusion::{
    arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, FieldRef},
    common::{Column, DFSchema, Result, tree_node::Transformed},
    functions_aggregate::sum::sum_udaf,
    logical_expr::{
        Aggregate, Expr, ExprSchemable as _, LogicalPlan, Projection,
        expr::{AggregateFunction, AggregateFunctionParams},
        lit, when,
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule},
};

/// The column with the values that are counted.
const VALUE: &str = "rachis_distinct";
/// How the names of our columns begin.
const NAMES: &str = "rachis_";

/// Replaces distinct counts of one expression by two aggregates.
#[derive(Debug)]
pub(super) struct DistinctGroups;

impl OptimizerRule for DistinctGroups {
    fn name(&self) -> &'static str {
        "distinct_groups"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if let LogicalPlan::Aggregate(aggregate) = &plan
            && let Some(value) = counted_value(aggregate)?
        {
            return Ok(Transformed::yes(grouped(aggregate, value)?));
        }
        Ok(Transformed::no(plan))
    }
}

/// The expression whose distinct values are counted, if all other results can be computed from those of its groups.
fn counted_value(aggregate: &Aggregate) -> Result<Option<&Expr>> {
    let has_grouping_sets = matches!(aggregate.group_expr.first(), Some(Expr::GroupingSet(_)));
    // DataFusion extends the dependencies of its input to the columns of an aggregate. Between two aggregates they would
    // be wrong, and the second would lose a key.
    let has_dependencies = !aggregate.input.schema().functional_dependencies().is_empty();
    let has_our_name = |field: &FieldRef| field.name().starts_with(NAMES);
    if has_grouping_sets || has_dependencies || aggregate.schema.fields().iter().any(has_our_name) {
        return Ok(None);
    }
    let mut value = None;
    for expr in &aggregate.aggr_expr {
        let Some(AggregateFunction { func, params }) = call(expr) else {
            return Ok(None);
        };
        let plain = params.filter.is_none() && params.order_by.is_empty();
        let follows = match (func.name(), params.distinct, params.args.as_slice()) {
            // What is computed stays here: leaves do not count the values for which an expression has no result.
            ("count", true, [arg @ Expr::Column(_)]) => {
                has_one_spelling(&arg.get_type(aggregate.input.schema())?) && *value.get_or_insert(arg) == arg
            }
            ("count", false, _) => true,
            // Integers are summed as decimals. A sum of floating-point numbers depends on the order of its parts.
            ("sum", false, _) => {
                let sum = expr.get_type(aggregate.input.schema())?;
                matches!(sum, DataType::Decimal128(DECIMAL128_MAX_PRECISION, _))
            }
            ("min" | "max", false, [arg]) => {
                let schema = aggregate.input.schema();
                arg.get_type(schema)? == expr.get_type(schema)?
            }
            _ => false,
        };
        if !plain || !follows {
            return Ok(None);
        }
    }
    Ok(value)
}

/// The call behind the name of a result.
pub(super) fn call(expr: &Expr) -> Option<&AggregateFunction> {
    match expr {
        Expr::Alias(alias) => call(&alias.expr),
        Expr::AggregateFunction(call) => Some(call),
        _ => None,
    }
}

/// Whether values of this type are equal exactly if their bytes are. Floating-point numbers are not: groups and distinct
/// counts could differ in zeros and NaNs.
fn has_one_spelling(data_type: &DataType) -> bool {
    data_type.is_string() || data_type.is_integer() || matches!(data_type, DataType::Boolean | DataType::Timestamp(..))
}

/// The two aggregates, and a projection to the columns of the original one.
fn grouped(aggregate: &Aggregate, value: &Expr) -> Result<LogicalPlan> {
    let part = |number: usize| format!("rachis_part_{number}");
    let mut groups = aggregate.group_expr.clone();
    groups.push(value.clone().alias(VALUE));
    let calls = || aggregate.aggr_expr.iter().filter_map(call).enumerate();
    let parts = calls()
        .filter(|(_, call)| !call.params.distinct)
        .map(|(number, call)| Expr::AggregateFunction(call.clone()).alias(part(number)))
        .collect();
    let inner = Aggregate::try_new(Arc::clone(&aggregate.input), groups, parts)?;
    let keys: Vec<Expr> = columns(&inner.schema).take(aggregate.group_expr.len()).collect();
    let of_parts = calls().map(|(number, call)| {
        let (func, argument) = match (call.func.name(), call.params.distinct) {
            (_, true) => (Arc::clone(&call.func), VALUE.to_owned()),
            ("count", false) => (sum_udaf(), part(number)),
            _ => (Arc::clone(&call.func), part(number)),
        };
        let params = AggregateFunctionParams {
            args: vec![Expr::Column(Column::new_unqualified(argument))],
            distinct: false,
            ..call.params.clone()
        };
        Expr::AggregateFunction(AggregateFunction { func, params }).alias(part(number))
    });
    let outer = Aggregate::try_new(Arc::new(LogicalPlan::Aggregate(inner)), keys, of_parts.collect())?;
    let is_count: Vec<bool> = calls()
        .map(|(_, call)| call.func.name() == "count" && !call.params.distinct)
        .collect();
    let group_count = aggregate.group_expr.len();
    let named: Vec<Expr> = columns(&outer.schema)
        .zip(aggregate.schema.iter())
        .enumerate()
        .map(|(at, (column, (relation, field)))| {
            // Without groups and rows, the sum is NULL and the count is 0.
            let counts = at.checked_sub(group_count).is_some_and(|number| is_count[number]);
            let value = match counts {
                true => when(column.clone().is_not_null(), column).otherwise(lit(0_i64))?,
                false => column,
            };
            Ok(match at < group_count {
                true => value,
                false => value.alias_qualified(relation.cloned(), field.name()),
            })
        })
        .collect::<Result<_>>()?;
    Projection::try_new(named, Arc::new(LogicalPlan::Aggregate(outer))).map(LogicalPlan::Projection)
}

fn columns(schema: &DFSchema) -> impl Iterator<Item = Expr> {
    schema
        .iter()
        .map(|(relation, field)| Expr::Column(Column::new(relation.cloned(), field.name())))
}
