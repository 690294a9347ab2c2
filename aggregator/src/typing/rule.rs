//! The rule that gives a planned statement its types: every expression is lowered, and what groups, sorts, joins and
//! sets compare becomes what is equal and ordered as values are. It runs before DataFusion's own coercion, which then
//! finds nothing left to guess.

use std::sync::Arc;

use datafusion::{
    common::{
        Column, DFSchema, Result,
        tree_node::{Transformed, TreeNode as _, TreeNodeRecursion},
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

use super::{
    aggregates::sort,
    columns::read_as_columns,
    correlated::{columns_compared, map_inputs},
    lower::{condition, lower, unified, with_types_taken},
    operand::{Class, Operand, bad, described},
    size,
};

/// The rule.
#[derive(Debug)]
pub struct Types;

impl AnalyzerRule for Types {
    fn name(&self) -> &str {
        "types"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let told = told(plan_typed(plan)?)?;
        match reads_once(&told) {
            true => Ok(told),
            false => read_as_columns(columns_compared(told)?),
        }
    }
}

/// Whether nothing but one table is read: then filters reach its scan before anything has to be a column.
fn reads_once(plan: &LogicalPlan) -> bool {
    let mut tables = 0;
    let looked = plan.apply_with_subqueries(|node| {
        tables += usize::from(matches!(node, LogicalPlan::TableScan(_)));
        Ok(TreeNodeRecursion::Continue)
    });
    looked.is_ok() && tables <= 1
}

/// An expression over the columns of a schema, with its types.
pub fn typed(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let parts = size::parts(&expr);
    let copies = |node: &Expr| {
        matches!(
            node,
            Expr::InList(_) | Expr::Between(_) | Expr::Case(_) | Expr::ScalarFunction(_)
        )
    };
    let lowered = expr.transform_up(|node| {
        let may_copy = copies(&node);
        if may_copy {
            size::check(&node, parts)?;
        }
        let lowered = lower(node, schema)?;
        if may_copy {
            size::check(&lowered, parts)?;
        }
        Ok(Transformed::yes(lowered))
    })?;
    let lowered = lowered.data;
    Ok(lowered.transform_up(|node| with_types_taken(node, schema))?.data)
}

fn plan_typed(plan: LogicalPlan) -> Result<LogicalPlan> {
    crate::sql::deep(|| node_typed(map_inputs(plan, &mut plan_typed)?))
}

fn node_typed(plan: LogicalPlan) -> Result<LogicalPlan> {
    if let LogicalPlan::TableScan(_) = plan {
        return Ok(plan);
    }
    let schema = match plan.inputs().as_slice() {
        [input] => Arc::clone(input.schema()),
        inputs => Arc::new(merge_schema(inputs)),
    };
    let names = NamePreserver::new(&plan);
    let typed_exprs = plan.map_expressions(|expr| {
        if let Expr::GroupingSet(set) = expr {
            return Ok(Transformed::yes(Expr::GroupingSet(each_key(set, |key| {
                key_typed(key, &schema)
            })?)));
        }
        let name = names.save(&expr);
        Ok(Transformed::yes(name.restore(typed(expr, &schema)?)))
    })?;
    let plan = match typed_exprs.data {
        LogicalPlan::Aggregate(aggregate) => grouped(aggregate, &schema)?,
        LogicalPlan::Sort(sort) => sorted(sort, &schema)?,
        LogicalPlan::Filter(Filter { predicate, input, .. }) => {
            return Ok(LogicalPlan::Filter(Filter::try_new(
                condition(predicate, &schema)?,
                input,
            )?));
        }
        LogicalPlan::Join(join) => joined(join, &schema)?,
        LogicalPlan::Distinct(Distinct::All(input)) => {
            LogicalPlan::Distinct(Distinct::All(Arc::new(with_columns(&input, |column| column.key())?)))
        }
        LogicalPlan::Distinct(Distinct::On(on)) => first_of_each(on, &schema)?,
        LogicalPlan::Union(union) => LogicalPlan::Union(alike(union)?),
        other => other,
    };
    plan.recompute_schema()
}

/// The same columns by the same names, each seen another way.
fn with_columns(input: &LogicalPlan, see: impl Fn(&Operand) -> Expr) -> Result<LogicalPlan> {
    let schema = input.schema();
    let columns = schema
        .iter()
        .map(Column::from)
        .map(|column| Operand::of(Expr::Column(column), schema))
        .collect::<Result<Vec<_>>>()?;
    with_seen(input, &columns, columns.iter().map(see).collect())
}

fn with_seen(input: &LogicalPlan, columns: &[Operand], seen: Vec<Expr>) -> Result<LogicalPlan> {
    if columns.iter().zip(&seen).all(|(column, seen)| column.expr == *seen) {
        return Ok(input.clone());
    }
    let named = seen
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

/// What a user sees: JSON of one kind in the type of that kind.
fn told(plan: LogicalPlan) -> Result<LogicalPlan> {
    with_columns(&plan, Operand::native)
}

fn grouped(aggregate: Aggregate, schema: &DFSchema) -> Result<LogicalPlan> {
    let one = |expr: Expr| match expr {
        Expr::GroupingSet(set) => Ok(Expr::GroupingSet(each_key(set, |expr| key(expr, schema))?)),
        other => key(other, schema),
    };
    let group_expr = aggregate
        .group_expr
        .into_iter()
        .map(one)
        .collect::<Result<Vec<Expr>>>()?;
    let named = grouping_set_to_exprlist(&group_expr)?;
    // What `grouping` asks of is what is grouped by.
    let asked = |node: Expr| match node {
        Expr::AggregateFunction(mut call) if call.func.name() == "grouping" => {
            for arg in &mut call.params.args {
                if let Some(key) = named
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
        .map(|expr| Ok(expr.transform(asked)?.data))
        .collect::<Result<_>>()?;
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(
        aggregate.input,
        group_expr.clone(),
        aggr_expr,
    )?))
}

/// `SELECT DISTINCT ON (keys) …`: the first row of each key, in the order of ORDER BY.
fn first_of_each(on: DistinctOn, schema: &DFSchema) -> Result<LogicalPlan> {
    let keys = on
        .on_expr
        .into_iter()
        .map(|expr| Ok(Operand::of(expr, schema)?.key()))
        .collect::<Result<Vec<_>>>()?;
    let order = on
        .sort_expr
        .unwrap_or_default()
        .into_iter()
        .map(|key| sort(key, schema))
        .collect::<Result<Vec<_>>>()?;
    let first =
        |(place, expr): (usize, Expr)| first_value(expr.unalias(), order.clone()).alias(format!("\u{1}first_{place}"));
    let firsts: Vec<Expr> = on.select_expr.into_iter().enumerate().map(first).collect();
    let names: Vec<Column> = (0..firsts.len())
        .map(|place| Column::from_name(format!("\u{1}first_{place}")))
        .collect();
    let grouped = LogicalPlan::Aggregate(Aggregate::try_new(on.input, keys.clone(), firsts)?);
    // The keys are the first columns of what was grouped, and of its order.
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

/// Grouping sets with each of their keys as another one.
fn each_key(set: GroupingSet, change: impl Fn(Expr) -> Result<Expr>) -> Result<GroupingSet> {
    let all = |keys: Vec<Expr>| keys.into_iter().map(&change).collect::<Result<Vec<_>>>();
    Ok(match set {
        GroupingSet::Rollup(keys) => GroupingSet::Rollup(all(keys)?),
        GroupingSet::Cube(keys) => GroupingSet::Cube(all(keys)?),
        GroupingSet::GroupingSets(sets) => GroupingSet::GroupingSets(sets.into_iter().map(all).collect::<Result<_>>()?),
    })
}

/// A key with its types, under the name that it had.
fn key_typed(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let (relation, name) = expr.qualified_name();
    let typed = typed(expr.clone(), schema)?;
    Ok(if typed == expr {
        typed
    } else {
        typed.alias_qualified(relation, name)
    })
}

/// What is grouped by, under the name that it had.
fn key(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let (relation, name) = expr.qualified_name();
    let (operand, plain) = match expr {
        Expr::Alias(alias) => (Operand::of(*alias.expr, schema)?, false),
        other => (Operand::of(other, schema)?, true),
    };
    let key = operand.key();
    Ok(if plain && key == operand.expr {
        key
    } else {
        key.alias_qualified(relation, name)
    })
}

fn sorted(sort: Sort, schema: &DFSchema) -> Result<LogicalPlan> {
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

fn joined(mut join: Join, schema: &DFSchema) -> Result<LogicalPlan> {
    let pair = |(left, right): (Expr, Expr)| {
        super::compare::equal_pair(
            &Operand::of(left, join.left.schema())?,
            &Operand::of(right, join.right.schema())?,
        )
    };
    join.on = std::mem::take(&mut join.on)
        .into_iter()
        .map(pair)
        .collect::<Result<_>>()?;
    join.filter = join.filter.take().map(|filter| condition(filter, schema)).transpose()?;
    Ok(LogicalPlan::Join(join))
}

/// The inputs of a UNION, each column of one type: where a column is JSON in one and typed in another, it is JSON.
fn alike(union: Union) -> Result<Union> {
    let columns_of = |input: &Arc<LogicalPlan>| {
        let schema = input.schema();
        schema
            .iter()
            .map(|column| Operand::of(Expr::Column(Column::from(column)), schema))
            .collect::<Result<Vec<_>>>()
    };
    let columns = union.inputs.iter().map(columns_of).collect::<Result<Vec<_>>>()?;
    let mut seen: Vec<Vec<Expr>> = vec![Vec::new(); columns.len()];
    for place in 0..columns.first().map_or(0, Vec::len) {
        let values: Vec<Operand> = columns
            .iter()
            .filter_map(|columns| columns.get(place).cloned())
            .collect();
        let json = values.iter().any(|value| value.kinds().is_some());
        let exprs = match (json, unified(&values)) {
            // A text does not take in what another input has.
            (true, Ok((_, Some(Class::Text)))) => values
                .iter()
                .map(|value| {
                    if value.kinds().is_some() {
                        value.expr.clone()
                    } else {
                        value.canonical()
                    }
                })
                .collect(),
            (true, Ok((exprs, _))) => exprs,
            _ => {
                for pair in values.windows(2) {
                    if type_union_coercion(pair[0].data_type(), pair[1].data_type()).is_none() {
                        let (a, b) = (described(&pair[0]), described(&pair[1]));
                        return Err(bad(
                            format!("column {} of a UNION is {a} in one query and {b} in another", place + 1),
                            "convert one of them: x::text",
                        ));
                    }
                }
                values.into_iter().map(|value| value.expr).collect()
            }
        };
        exprs
            .into_iter()
            .zip(&mut seen)
            .for_each(|(expr, seen): (Expr, &mut Vec<Expr>)| seen.push(expr));
    }
    let inputs = union
        .inputs
        .iter()
        .zip(&columns)
        .zip(seen)
        .map(|((input, columns), seen)| Ok(Arc::new(with_seen(input, columns, seen)?)));
    Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?)
}
