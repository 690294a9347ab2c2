//! The analyzer rule that assigns types to a planned statement. It lowers every expression, and makes groups, sorts,
//! joins and set operations compare values as `=` and ORDER BY do. It runs before DataFusion's own type coercion, which
//! then has nothing left to infer.

use std::sync::Arc;

use datafusion::{
    common::{
        Column, DFSchema, Result,
        tree_node::{Transformed, TreeNodeRecursion},
    },
    config::ConfigOptions,
    functions_aggregate::first_last::first_value,
    logical_expr::{
        Aggregate, Distinct, DistinctOn, Expr, Filter, GroupingSet, Join, LogicalPlan, LogicalPlanBuilder, Projection,
        Sort, Union,
        expr_rewriter::NamePreserver,
        type_coercion::binary::type_union_coercion,
        utils::{grouping_set_to_exprlist, merge_schema},
    },
    optimizer::AnalyzerRule,
};
use plan::walk::{Walk as _, apply_with_subqueries, map_expressions};

use super::{
    aggregates::lower_sort,
    correlated::{compare_by_columns, map_inputs},
    expansion::{check_expansion, node_count},
    inlined::check_inlined_conditions,
    lower::{arguments::coerce_to_signature, condition, lower, unify},
    operand::{Operand, TypeClass, bad_sql, describe_type},
};

/// The analyzer rule.
#[derive(Debug)]
pub(super) struct AssignTypes;

impl AnalyzerRule for AssignTypes {
    fn name(&self) -> &str {
        "assign_types"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        // Users see JSON of a single kind in the type of that kind.
        let typed = map_columns(&type_plan(plan)?, Operand::native)?;
        check_inlined_conditions(&typed)?;
        match reads_one_table(&typed) {
            true => Ok(typed),
            false => compare_by_columns(typed),
        }
    }
}

/// Whether the plan reads at most one table. Its filters then reach the scan before a path has to be a column.
pub(crate) fn reads_one_table(plan: &LogicalPlan) -> bool {
    let mut tables = 0;
    let visited = apply_with_subqueries(plan, &mut |node| {
        tables += usize::from(matches!(node, LogicalPlan::TableScan(_)));
        Ok(TreeNodeRecursion::Continue)
    });
    visited.is_ok() && tables <= 1
}

/// Assigns types to an expression over the columns of a schema.
fn type_expression(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let written_nodes = node_count(&expr);
    let copies_operands = |node: &Expr| {
        matches!(
            node,
            Expr::InList(_) | Expr::Between(_) | Expr::Case(_) | Expr::ScalarFunction(_)
        )
    };
    let lowered = expr.transform_up(|node| {
        let may_copy = copies_operands(&node);
        if may_copy {
            check_expansion(&node, written_nodes)?;
        }
        let lowered = lower(node, schema)?;
        // A comparison of values of different kinds may become a CASE with copies of both.
        if may_copy || matches!(lowered, Expr::Case(_)) {
            check_expansion(&lowered, written_nodes)?;
        }
        Ok(Transformed::yes(lowered))
    })?;
    let lowered = lowered.data;
    Ok(lowered.transform_up(|node| coerce_to_signature(node, schema))?.data)
}

fn type_plan(plan: LogicalPlan) -> Result<LogicalPlan> {
    crate::deep_stack::on_deep_stack(|| type_node(map_inputs(plan, &mut type_plan)?))
}

/// Assigns types to one node whose inputs have their types.
fn type_node(plan: LogicalPlan) -> Result<LogicalPlan> {
    if let LogicalPlan::TableScan(_) = plan {
        return Ok(plan);
    }
    let schema = match plan.inputs().as_slice() {
        [input] => Arc::clone(input.schema()),
        inputs => Arc::new(merge_schema(inputs)),
    };
    let names = NamePreserver::new(&plan);
    let typed_exprs = map_expressions(plan, &mut |expr| {
        if let Expr::GroupingSet(set) = expr {
            return Ok(Transformed::yes(Expr::GroupingSet(map_keys(set, |key| {
                type_grouping_key(key, &schema)
            })?)));
        }
        let name = names.save(&expr);
        Ok(Transformed::yes(name.restore(type_expression(expr, &schema)?)))
    })?;
    let plan = match typed_exprs.data {
        LogicalPlan::Aggregate(aggregate) => type_aggregate(aggregate, &schema)?,
        LogicalPlan::Sort(sort) => type_sort(sort, &schema)?,
        LogicalPlan::Filter(Filter { predicate, input, .. }) => {
            return Ok(LogicalPlan::Filter(Filter::try_new(
                condition(predicate, &schema)?,
                input,
            )?));
        }
        LogicalPlan::Join(join) => type_join(join, &schema)?,
        LogicalPlan::Distinct(Distinct::All(input)) => {
            LogicalPlan::Distinct(Distinct::All(Arc::new(map_columns(&input, Operand::group_key)?)))
        }
        LogicalPlan::Distinct(Distinct::On(on)) => lower_distinct_on(on, &schema)?,
        LogicalPlan::Union(union) => LogicalPlan::Union(type_union(union)?),
        other => other,
    };
    plan.recompute_schema()
}

/// Replaces each column of the plan with an expression over it, under the same name.
fn map_columns(input: &LogicalPlan, convert: impl Fn(&Operand) -> Expr) -> Result<LogicalPlan> {
    let columns = columns_of(input)?;
    let exprs = columns.iter().map(convert).collect();
    replace_columns(input, &columns, exprs)
}

fn columns_of(input: &LogicalPlan) -> Result<Vec<Operand>> {
    let schema = input.schema();
    schema
        .iter()
        .map(|column| Operand::of(Expr::Column(Column::from(column)), schema))
        .collect()
}

fn replace_columns(input: &LogicalPlan, columns: &[Operand], exprs: Vec<Expr>) -> Result<LogicalPlan> {
    if columns.iter().zip(&exprs).all(|(column, expr)| column.expr == *expr) {
        return Ok(input.clone());
    }
    let named = exprs
        .into_iter()
        .zip(input.schema().iter())
        .zip(columns)
        .map(|((expr, (relation, field)), column)| match expr == column.expr {
            true => expr,
            false => expr.alias_qualified(relation.cloned(), field.name()),
        });
    Ok(LogicalPlan::Projection(Projection::try_new(
        named.collect(),
        Arc::new(input.clone()),
    )?))
}

fn type_aggregate(aggregate: Aggregate, schema: &DFSchema) -> Result<LogicalPlan> {
    let group_key_or_set = |expr: Expr| match expr {
        Expr::GroupingSet(set) => Ok(Expr::GroupingSet(map_keys(set, |expr| group_key(expr, schema))?)),
        other => group_key(other, schema),
    };
    let group_expr = aggregate
        .group_expr
        .into_iter()
        .map(group_key_or_set)
        .collect::<Result<Vec<Expr>>>()?;
    let keys = grouping_set_to_exprlist(&group_expr)?;
    // DataFusion finds the arguments of `grouping` among the group keys, so they must be the same expressions.
    let grouping_of_keys = |node: Expr| match node {
        Expr::AggregateFunction(mut call) if call.func.name() == "grouping" => {
            for arg in &mut call.params.args {
                if let Some(key) = keys
                    .iter()
                    .find(|key| (**key).clone().unalias() == arg.clone().unalias())
                {
                    *arg = (*key).clone();
                }
            }
            Ok(Transformed::yes(Expr::AggregateFunction(call)))
        }
        other => Ok(Transformed::no(other)),
    };
    let aggr_expr = aggregate
        .aggr_expr
        .into_iter()
        .map(|expr| Ok(expr.transform_up(grouping_of_keys)?.data))
        .collect::<Result<_>>()?;
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(
        aggregate.input,
        group_expr.clone(),
        aggr_expr,
    )?))
}

/// `SELECT DISTINCT ON (keys) …`: the first row of each key, in the order of ORDER BY.
fn lower_distinct_on(on: DistinctOn, schema: &DFSchema) -> Result<LogicalPlan> {
    let keys = on
        .on_expr
        .into_iter()
        .map(|expr| Ok(Operand::of(expr, schema)?.group_key()))
        .collect::<Result<Vec<_>>>()?;
    let order = on
        .sort_expr
        .unwrap_or_default()
        .into_iter()
        .map(|key| lower_sort(key, schema))
        .collect::<Result<Vec<_>>>()?;
    let first = |(position, expr): (usize, Expr)| {
        first_value(expr.unalias(), order.clone()).alias(format!("\u{1}first_{position}"))
    };
    let firsts: Vec<Expr> = on.select_expr.into_iter().enumerate().map(first).collect();
    let names: Vec<Column> = (0..firsts.len())
        .map(|position| Column::from_name(format!("\u{1}first_{position}")))
        .collect();
    let grouped = LogicalPlan::Aggregate(Aggregate::try_new(on.input, keys.clone(), firsts)?);
    // The keys are the first columns of the aggregate, and the first keys of ORDER BY.
    let key_columns = grouped.schema().columns().into_iter().take(keys.len());
    let by_key = order
        .iter()
        .zip(key_columns)
        .map(|(sort, column)| datafusion::logical_expr::SortExpr {
            expr: Expr::Column(column),
            ..sort.clone()
        });
    let by_key: Vec<_> = by_key.collect();
    let ordered = LogicalPlanBuilder::from(grouped).sort(by_key)?.build()?;
    let shown = names
        .into_iter()
        .zip(on.schema.iter())
        .map(|(column, (relation, field))| Expr::Column(column).alias_qualified(relation.cloned(), field.name()));
    Ok(LogicalPlan::Projection(Projection::try_new(
        shown.collect(),
        Arc::new(ordered),
    )?))
}

fn map_keys(set: GroupingSet, convert: impl Fn(Expr) -> Result<Expr>) -> Result<GroupingSet> {
    let all = |keys: Vec<Expr>| keys.into_iter().map(&convert).collect::<Result<Vec<_>>>();
    Ok(match set {
        GroupingSet::Rollup(keys) => GroupingSet::Rollup(all(keys)?),
        GroupingSet::Cube(keys) => GroupingSet::Cube(all(keys)?),
        GroupingSet::GroupingSets(sets) => GroupingSet::GroupingSets(sets.into_iter().map(all).collect::<Result<_>>()?),
    })
}

/// Assigns types to a key of a grouping set, which keeps its name.
fn type_grouping_key(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let (relation, name) = expr.qualified_name();
    let typed = type_expression(expr.clone(), schema)?;
    Ok(if typed == expr {
        typed
    } else {
        typed.alias_qualified(relation, name)
    })
}

/// The expression by which DataFusion groups for this key of GROUP BY. It keeps the name of the key.
fn group_key(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let (relation, name) = expr.qualified_name();
    let (operand, has_no_alias) = match expr {
        Expr::Alias(alias) => (Operand::of(*alias.expr, schema)?, false),
        other => (Operand::of(other, schema)?, true),
    };
    let key = operand.group_key();
    Ok(if has_no_alias && key == operand.expr {
        key
    } else {
        key.alias_qualified(relation, name)
    })
}

fn type_sort(sort: Sort, schema: &DFSchema) -> Result<LogicalPlan> {
    let key = |key: datafusion::logical_expr::SortExpr| {
        let expr = match key.expr {
            Expr::Alias(alias) => *alias.expr,
            other => other,
        };
        Ok(datafusion::logical_expr::SortExpr {
            expr: Operand::of(expr, schema)?.sort_key(),
            ..key
        })
    };
    Ok(LogicalPlan::Sort(Sort {
        expr: sort.expr.into_iter().map(key).collect::<Result<_>>()?,
        ..sort
    }))
}

fn type_join(mut join: Join, schema: &DFSchema) -> Result<LogicalPlan> {
    let equality = |(left, right): (Expr, Expr)| {
        super::compare::equality_operands(
            &Operand::of(left, join.left.schema())?,
            &Operand::of(right, join.right.schema())?,
        )
    };
    join.on = std::mem::take(&mut join.on)
        .into_iter()
        .map(equality)
        .collect::<Result<_>>()?;
    join.filter = join.filter.take().map(|filter| condition(filter, schema)).transpose()?;
    Ok(LogicalPlan::Join(join))
}

/// Gives each column of a UNION one type in all inputs. A column that is JSON in one input and typed in another becomes
/// JSON.
fn type_union(union: Union) -> Result<Union> {
    let columns = union
        .inputs
        .iter()
        .map(|input| columns_of(input))
        .collect::<Result<Vec<_>>>()?;
    let mut converted: Vec<Vec<Expr>> = vec![Vec::new(); columns.len()];
    for position in 0..columns.first().map_or(0, Vec::len) {
        let values: Vec<Operand> = columns
            .iter()
            .filter_map(|columns| columns.get(position).cloned())
            .collect();
        let exprs = unify_union_column(position, values)?;
        exprs
            .into_iter()
            .zip(&mut converted)
            .for_each(|(expr, converted): (Expr, &mut Vec<Expr>)| converted.push(expr));
    }
    let inputs = union
        .inputs
        .iter()
        .zip(&columns)
        .zip(converted)
        .map(|((input, columns), exprs)| Ok(Arc::new(replace_columns(input, columns, exprs)?)));
    Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?)
}

/// One column of a UNION, given as its values in each input.
fn unify_union_column(position: usize, values: Vec<Operand>) -> Result<Vec<Expr>> {
    let has_json = values.iter().any(|value| value.kinds().is_some());
    match (has_json, unify(&values)) {
        // A text column in one input does not turn the values of the others into texts.
        (true, Ok((_, Some(TypeClass::Text)))) => Ok(values
            .iter()
            .map(|value| match value.kinds() {
                Some(_) => value.expr.clone(),
                None => value.canonical(),
            })
            .collect()),
        (true, Ok((exprs, _))) => Ok(exprs),
        _ => {
            for pair in values.windows(2) {
                if type_union_coercion(pair[0].data_type(), pair[1].data_type()).is_none() {
                    let (a, b) = (describe_type(&pair[0]), describe_type(&pair[1]));
                    return Err(bad_sql(
                        format!(
                            "column {} of a UNION is {a} in one query and {b} in another",
                            position + 1
                        ),
                        "convert one of them: x::text",
                    ));
                }
            }
            Ok(values.into_iter().map(|value| value.expr).collect())
        }
    }
}
