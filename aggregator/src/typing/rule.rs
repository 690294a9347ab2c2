//! The rule that gives a planned statement its types: every expression is lowered, and what groups, sorts, joins and sets compare becomes what
//! is equal and ordered as values are. It runs before DataFusion's own coercion, which then finds nothing left to guess.

use std::sync::Arc;

use datafusion::{
    common::{
        Column, DFSchema, Result,
        tree_node::{Transformed, TreeNode as _, TreeNodeRecursion},
    },
    config::ConfigOptions,
    logical_expr::{
        Aggregate, BinaryExpr, Distinct, Expr, Filter, GroupingSet, Join, LogicalPlan, Operator, Projection, Sort, Union,
        expr_rewriter::NamePreserver, lit, type_coercion::binary::type_union_coercion, utils::merge_schema,
    },
    optimizer::AnalyzerRule,
};

use super::{
    columns::read_as_columns,
    correlated::columns_compared,
    lower::{check_types, condition, lower, unified},
    operand::{Class, Operand, bad, described},
};

/// The rule.
#[derive(Debug)]
pub struct Types;

impl AnalyzerRule for Types {
    fn name(&self) -> &str {
        "types"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        let typed = plan.transform_up_with_subqueries(|node| Ok(Transformed::yes(node_typed(node)?)))?.data;
        let told = told(typed)?;
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
    let lowered = expr.transform_up(|node| Ok(Transformed::yes(lower(node, schema)?)))?.data;
    lowered.apply(|node| {
        check_types(node, schema)?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(lowered)
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
    let shown = !matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
    let typed_exprs = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let expr = typed(expr, &schema)?;
        Ok(Transformed::yes(name.restore(if shown { expr.transform_up(nullable)?.data } else { expr })))
    })?;
    let plan = match typed_exprs.data {
        LogicalPlan::Aggregate(aggregate) => grouped(aggregate, &schema)?,
        LogicalPlan::Sort(sort) => sorted(sort, &schema)?,
        LogicalPlan::Filter(Filter { predicate, input, .. }) => {
            return Ok(LogicalPlan::Filter(Filter::try_new(condition(predicate, &schema)?, input)?));
        }
        LogicalPlan::Join(join) => joined(join, &schema)?,
        LogicalPlan::Distinct(Distinct::All(input)) => LogicalPlan::Distinct(Distinct::All(Arc::new(with_columns(&input, |column| column.key())?))),
        LogicalPlan::Union(union) => LogicalPlan::Union(alike(union)?),
        other => other,
    };
    plan.recompute_schema()
}

/// `x IS TRUE` as DataFusion computes it: it says that it is never NULL, and its operator says that it may be, which a grouping refuses.
fn nullable(expr: Expr) -> Result<Transformed<Expr>> {
    let compared =
        |value: Expr, op, literal: bool| Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(value), op, Box::new(lit(literal))))));
    match expr {
        Expr::IsTrue(value) => compared(*value, Operator::IsNotDistinctFrom, true),
        Expr::IsFalse(value) => compared(*value, Operator::IsNotDistinctFrom, false),
        Expr::IsNotTrue(value) => compared(*value, Operator::IsDistinctFrom, true),
        Expr::IsNotFalse(value) => compared(*value, Operator::IsDistinctFrom, false),
        other => Ok(Transformed::no(other)),
    }
}

/// The same columns by the same names, each seen another way.
fn with_columns(input: &LogicalPlan, see: impl Fn(&Operand) -> Expr) -> Result<LogicalPlan> {
    let schema = input.schema();
    let columns = schema.iter().map(Column::from).map(|column| Operand::of(Expr::Column(column), schema)).collect::<Result<Vec<_>>>()?;
    with_seen(input, &columns, columns.iter().map(see).collect())
}

fn with_seen(input: &LogicalPlan, columns: &[Operand], seen: Vec<Expr>) -> Result<LogicalPlan> {
    if columns.iter().zip(&seen).all(|(column, seen)| column.expr == *seen) {
        return Ok(input.clone());
    }
    let named = seen.into_iter().zip(input.schema().iter()).zip(columns).map(|((expr, (relation, field)), column)| match expr == column.expr {
        true => expr,
        false => expr.alias_qualified(relation.cloned(), field.name()),
    });
    Ok(LogicalPlan::Projection(Projection::try_new(named.collect(), Arc::new(input.clone()))?))
}

/// What a user sees: JSON of one kind in the type of that kind.
fn told(plan: LogicalPlan) -> Result<LogicalPlan> {
    with_columns(&plan, Operand::native)
}

fn grouped(aggregate: Aggregate, schema: &DFSchema) -> Result<LogicalPlan> {
    let keys = |exprs: Vec<Expr>| exprs.into_iter().map(|expr| key(expr, schema)).collect::<Result<Vec<_>>>();
    let one = |expr: Expr| match expr {
        Expr::GroupingSet(GroupingSet::Rollup(exprs)) => Ok(Expr::GroupingSet(GroupingSet::Rollup(keys(exprs)?))),
        Expr::GroupingSet(GroupingSet::Cube(exprs)) => Ok(Expr::GroupingSet(GroupingSet::Cube(keys(exprs)?))),
        Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => {
            Ok(Expr::GroupingSet(GroupingSet::GroupingSets(sets.into_iter().map(keys).collect::<Result<_>>()?)))
        }
        other => key(other, schema),
    };
    let group_expr = aggregate.group_expr.into_iter().map(one).collect::<Result<_>>()?;
    Ok(LogicalPlan::Aggregate(Aggregate::try_new(aggregate.input, group_expr, aggregate.aggr_expr)?))
}

/// What is grouped by, under the name that it had.
fn key(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    let (relation, name) = expr.qualified_name();
    let (operand, plain) = match expr {
        Expr::Alias(alias) => (Operand::of(*alias.expr, schema)?, false),
        other => (Operand::of(other, schema)?, true),
    };
    let key = operand.key();
    Ok(if plain && key == operand.expr { key } else { key.alias_qualified(relation, name) })
}

fn sorted(sort: Sort, schema: &DFSchema) -> Result<LogicalPlan> {
    let key = |key: datafusion::logical_expr::SortExpr| {
        let expr = match key.expr {
            Expr::Alias(alias) => *alias.expr,
            other => other,
        };
        Ok(datafusion::logical_expr::SortExpr { expr: Operand::of(expr, schema)?.sort_key(), ..key })
    };
    Ok(LogicalPlan::Sort(Sort { expr: sort.expr.into_iter().map(key).collect::<Result<_>>()?, ..sort }))
}

fn joined(mut join: Join, schema: &DFSchema) -> Result<LogicalPlan> {
    let pair =
        |(left, right): (Expr, Expr)| super::compare::equal_pair(&Operand::of(left, join.left.schema())?, &Operand::of(right, join.right.schema())?);
    join.on = std::mem::take(&mut join.on).into_iter().map(pair).collect::<Result<_>>()?;
    join.filter = join.filter.take().map(|filter| condition(filter, schema)).transpose()?;
    Ok(LogicalPlan::Join(join))
}

/// The inputs of a UNION, each column of one type: where a column is JSON in one and typed in another, it is JSON.
fn alike(union: Union) -> Result<Union> {
    let columns_of = |input: &Arc<LogicalPlan>| {
        let schema = input.schema();
        schema.iter().map(|column| Operand::of(Expr::Column(Column::from(column)), schema)).collect::<Result<Vec<_>>>()
    };
    let columns = union.inputs.iter().map(columns_of).collect::<Result<Vec<_>>>()?;
    let mut seen: Vec<Vec<Expr>> = vec![Vec::new(); columns.len()];
    for place in 0..columns.first().map_or(0, Vec::len) {
        let values: Vec<Operand> = columns.iter().filter_map(|columns| columns.get(place).cloned()).collect();
        let json = values.iter().any(|value| value.kinds().is_some());
        let exprs = match (json, unified(&values)) {
            // A text does not take in what another input has.
            (true, Ok((_, Some(Class::Text)))) => {
                values.iter().map(|value| if value.kinds().is_some() { value.expr.clone() } else { value.canonical() }).collect()
            }
            (true, Ok((exprs, _))) => exprs,
            _ => {
                for pair in values.windows(2) {
                    if type_union_coercion(pair[0].data_type(), pair[1].data_type()).is_none() {
                        let (a, b) = (described(pair[0].class()), described(pair[1].class()));
                        return Err(bad(
                            format!("column {} of a UNION is {a} in one query and {b} in another", place + 1),
                            "convert one of them: x::text",
                        ));
                    }
                }
                values.into_iter().map(|value| value.expr).collect()
            }
        };
        exprs.into_iter().zip(&mut seen).for_each(|(expr, seen): (Expr, &mut Vec<Expr>)| seen.push(expr));
    }
    let inputs = union.inputs.iter().zip(&columns).zip(seen).map(|((input, columns), seen)| Ok(Arc::new(with_seen(input, columns, seen)?)));
    Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?)
}
