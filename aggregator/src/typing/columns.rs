//! The rule that reads views of JSON as columns: `json_get(user, 'id', 'int')` over a scan of `user` becomes the scan's
//! column `user.id:int`, through sub-queries, views and WITH queries. So a path that is seen through a view keeps its
//! column and its index.
//!
//! ```text
//!   Projection: json_get(v.user, 'id', 'int')        Projection: v."user.id:int"
//!     SubqueryAlias: v                          ->     SubqueryAlias: v
//!       Projection: e."user:json" AS user                Projection: e."user:json" AS user, e."user.id:int" AS "user.id:int"
//!         TableScan: e                                     TableScan: e
//! ```
//!
//! The answer is the same either way: both show what [`plan::value::view`] shows. A search of a path's value goes to
//! the index as well, which leaves few documents to look into.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use datafusion::{
    common::{
        Column, Result,
        tree_node::{Transformed, TreeNode as _, TreeNodeRecursion},
    },
    datasource::{provider_as_source, source_as_provider},
    logical_expr::{
        Expr, Join, JoinType, LogicalPlan, Projection, SubqueryAlias, TableScan, TableScanBuilder,
        expr::ScalarFunction, expr_rewriter::NamePreserver,
    },
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule, optimize_projections::OptimizeProjections},
};
use plan::{Path, Type, View, What, functions::json, path::Step, search::Clause};

use super::operand::literal;
use crate::query::ShardTableProvider;

/// The rule.
#[derive(Debug)]
pub struct ReadAsColumns;

impl OptimizerRule for ReadAsColumns {
    fn name(&self) -> &str {
        "read_as_columns"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let read = plan.transform_up_with_subqueries(rewritten)?;
        match read.transformed {
            // What was read for its paths alone is not read any more.
            true => Ok(Transformed::yes(
                OptimizeProjections::new().rewrite(read.data, config)?.data,
            )),
            false => Ok(read),
        }
    }
}

/// The rule, for a plan as it was planned: what is compared in a correlated sub-query has to be a column before it
/// becomes a join.
pub fn read_as_columns(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(rewritten)?.data)
}

/// `json_get(column, path, view)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Call {
    column: Column,
    path: Path,
    view: View,
}

impl Call {
    fn of(expr: &Expr) -> Option<Self> {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else {
            return None;
        };
        let [Expr::Column(column), path, word, ..] = args.as_slice() else {
            return None;
        };
        if func.name() != json::GET {
            return None;
        }
        let text = |expr: &Expr| {
            literal(expr)
                .and_then(|value| value.try_as_str().flatten())
                .map(str::to_owned)
        };
        Some(Self {
            column: column.clone(),
            path: Path::try_from(text(path)?).ok()?,
            view: json::view_of(&text(word)?)?,
        })
    }

    /// The column of a scan that shows the same.
    fn scanned(&self) -> Option<plan::Column> {
        let read = plan::Column::parse(&self.column.name)?;
        match read.what {
            What::Path(path) if read.view.to == Type::Json => Some(plan::Column {
                what: What::Path(joined(&path, &self.path)),
                view: self.view,
            }),
            // A document of JSON: its paths are its columns.
            What::Doc if !self.path.steps().is_empty() => Some(plan::Column {
                what: What::Path(self.path.clone()),
                view: self.view,
            }),
            _ => None,
        }
    }
}

fn joined(path: &Path, further: &Path) -> Path {
    Path::new(
        path.steps()
            .iter()
            .chain(further.steps())
            .cloned()
            .collect::<Vec<Step>>(),
    )
}

/// A condition with every view of JSON as the column that a leaf reads for it, and with the index's answer beside every
/// search of a path.
pub fn over_columns(condition: Expr) -> Result<Expr> {
    let column = |column: plan::Column| Expr::Column(Column::new_unqualified(column.name()));
    let read = |node: Expr| match Call::of(&node).and_then(|call| call.scanned()) {
        Some(view) => Ok(Transformed::yes(column(view))),
        None => Ok(match searched(&node) {
            Some(search) => Transformed::yes(column(search).and(node)),
            None => Transformed::no(node),
        }),
    };
    Ok(condition.transform(read)?.data)
}

/// The search of documents that finds at least those in which this search of a stored path's value matches. It may find
/// more: it looks through lists on the way to the path, where the value is NULL, and without a path it looks
/// everywhere.
fn searched(node: &Expr) -> Option<plan::Column> {
    let call = |expr: &Expr, name: &str| match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == name => Some(args.clone()),
        _ => None,
    };
    let [value, clause] = call(node, json::SEARCH_MATCH)?.try_into().ok()?;
    let value = call(&value, json::TO_JSON)
        .and_then(|arguments| arguments.into_iter().next())
        .unwrap_or(value);
    let (Expr::Column(column), Some(clause)) = (value, literal(&clause)) else {
        return None;
    };
    let mut clause: Clause = serde_json::from_str(clause.try_as_str().flatten()?).ok()?;
    let read = plan::Column::parse(&column.name)?;
    let What::Path(path) = read.what else { return None };
    clause.path = clause.path.map(|further| joined(&path, &further));
    (read.view.to == Type::Json).then(|| plan::Column::search(clause))
}

fn rewritten(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    use LogicalPlan::{Aggregate, Filter, Join, Sort, Window};
    if !matches!(
        plan,
        LogicalPlan::Projection(_) | Filter(_) | Aggregate(_) | Sort(_) | Window(_) | Join(_)
    ) {
        return Ok(Transformed::no(plan));
    }
    let (mut calls, mut seen) = (Vec::new(), HashSet::new());
    plan.apply_expressions(|expr| {
        expr.apply(|node| {
            calls.extend(Call::of(node).filter(|call| seen.insert(call.clone())));
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    if calls.is_empty() {
        return Ok(Transformed::no(plan));
    }
    let mut inputs: Vec<LogicalPlan> = plan.inputs().into_iter().cloned().collect();
    let mut columns: HashMap<Call, Column> = HashMap::new();
    for input in &mut inputs {
        let wanted: Vec<Call> = calls
            .iter()
            .filter(|call| !columns.contains_key(*call) && input.schema().has_column(&call.column))
            .cloned()
            .collect();
        let (with, shown) = provided(input, &wanted)?;
        *input = with;
        columns.extend(
            wanted
                .into_iter()
                .zip(shown)
                .filter_map(|(call, column)| Some((call, column?))),
        );
    }
    if columns.is_empty() {
        return Ok(Transformed::no(plan));
    }
    let (schema, own_columns) = (
        Arc::clone(plan.schema()),
        matches!(plan, LogicalPlan::Projection(_) | Aggregate(_)),
    );
    let names = NamePreserver::new(&plan);
    let replaced = |node: Expr| match Call::of(&node).and_then(|call| columns.get(&call)) {
        Some(column) => Ok(Transformed::yes(Expr::Column(column.clone()))),
        None => Ok(Transformed::no(node)),
    };
    let sort = matches!(plan, Sort(_));
    let plan = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let expr = expr.transform(replaced)?.data;
        Ok(Transformed::yes(if sort { expr } else { name.restore(expr) }))
    })?;
    let mut inputs = inputs.into_iter();
    let plan = plan
        .data
        .map_children(|child| Ok(Transformed::yes(inputs.next().unwrap_or(child))))?
        .data
        .recompute_schema()?;
    if own_columns {
        return Ok(Transformed::yes(plan));
    }
    // What goes on is what went on before.
    let before = schema.iter().map(|column| Expr::Column(Column::from(column))).collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(
        before,
        Arc::new(plan),
    )?)))
}

/// A plan with more columns, and for each call the column that shows the same, if there is one.
type Provided = (LogicalPlan, Vec<Option<Column>>);

/// The plan with columns that show what these calls show, as far as it can have them. All calls at once: each column
/// that is added to a plan makes its schema anew.
fn provided(plan: &LogicalPlan, calls: &[Call]) -> Result<Provided> {
    let unchanged = || Ok((plan.clone(), vec![None; calls.len()]));
    if calls.is_empty() {
        return unchanged();
    }
    match plan {
        LogicalPlan::TableScan(scan) => scanned(scan, calls),
        LogicalPlan::SubqueryAlias(alias) => {
            let inner: Vec<Option<Call>> = calls
                .iter()
                .map(|call| below(alias.input.schema(), &alias.schema, call))
                .collect();
            let (input, columns) = provided_for_some(&alias.input, &inner)?;
            let aliased = SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?;
            let outer = |column: Column| Column::new(Some(alias.alias.clone()), column.name);
            Ok((
                LogicalPlan::SubqueryAlias(aliased),
                columns.into_iter().map(|column| column.map(outer)).collect(),
            ))
        }
        LogicalPlan::Projection(projection) => projected(projection, calls),
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Window(_) => {
            let inputs = plan.inputs();
            let Some(input) = inputs.first() else {
                return unchanged();
            };
            let inner: Vec<Option<Call>> = calls
                .iter()
                .map(|call| input.schema().has_column(&call.column).then(|| call.clone()))
                .collect();
            let (input, columns) = provided_for_some(input, &inner)?;
            let mut input = Some(input);
            let with = plan
                .clone()
                .map_children(|child| Ok(Transformed::yes(input.take().unwrap_or(child))))?
                .data
                .recompute_schema()?;
            Ok((with, columns))
        }
        LogicalPlan::Join(join) => {
            let has_left = !matches!(join.join_type, JoinType::RightSemi | JoinType::RightAnti);
            let has_right = !matches!(
                join.join_type,
                JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
            );
            let of_left = |call: &Call| has_left && join.left.schema().has_column(&call.column);
            let of_right = |call: &Call| has_right && join.right.schema().has_column(&call.column);
            let (left, right): (Vec<_>, Vec<_>) = calls
                .iter()
                .map(|call| {
                    (
                        of_left(call).then(|| call.clone()),
                        (!of_left(call) && of_right(call)).then(|| call.clone()),
                    )
                })
                .unzip();
            let (left, left_columns) = provided_for_some(&join.left, &left)?;
            let (right, right_columns) = provided_for_some(&join.right, &right)?;
            let with = Join {
                left: Arc::new(left),
                right: Arc::new(right),
                ..join.clone()
            };
            let columns = left_columns
                .into_iter()
                .zip(right_columns)
                .map(|(left, right)| left.or(right))
                .collect();
            Ok((LogicalPlan::Join(with).recompute_schema()?, columns))
        }
        _ => unchanged(),
    }
}

/// The same where some calls have no meaning for this plan.
fn provided_for_some(plan: &LogicalPlan, calls: &[Option<Call>]) -> Result<Provided> {
    let known: Vec<Call> = calls.iter().flatten().cloned().collect();
    let (plan, columns) = provided(plan, &known)?;
    let mut columns = columns.into_iter();
    Ok((
        plan,
        calls
            .iter()
            .map(|call| call.as_ref().and_then(|_| columns.next().flatten()))
            .collect(),
    ))
}

/// The call over the column that stands at the same place below.
fn below(inner: &datafusion::common::DFSchema, outer: &datafusion::common::DFSchema, call: &Call) -> Option<Call> {
    let place = outer.maybe_index_of_column(&call.column)?;
    Some(Call {
        column: Column::from(inner.qualified_field(place)),
        ..call.clone()
    })
}

fn projected(projection: &Projection, calls: &[Call]) -> Result<Provided> {
    let inner = |call: &Call| {
        let place = projection.schema.maybe_index_of_column(&call.column)?;
        match projection.expr[place].clone().unalias() {
            Expr::Column(column) => Some(Call { column, ..call.clone() }),
            other => Call::of(&other)
                .filter(|inner| {
                    inner.view
                        == View {
                            to: Type::Json,
                            cast: false,
                        }
                })
                .map(|inner| Call {
                    path: joined(&inner.path, &call.path),
                    column: inner.column,
                    view: call.view,
                }),
        }
    };
    let inner: Vec<Option<Call>> = calls.iter().map(inner).collect();
    let (input, columns) = provided_for_some(&projection.input, &inner)?;
    let mut expr = projection.expr.clone();
    let mut known: HashSet<Column> = projection.schema.columns().into_iter().collect();
    let mut shown = |call: &Call, column: Column| {
        // Columns of one projection have different names, so these have too.
        let (relation, name) = (
            call.column.relation.clone(),
            plan::Column {
                what: What::Path(call.path.clone()),
                view: call.view,
            }
            .name(),
        );
        let name = format!("{}\u{1}{name}", call.column.name);
        let own = Column::new(relation.clone(), name.clone());
        if known.insert(own.clone()) {
            expr.push(Expr::Column(column).alias_qualified(relation, name));
        }
        own
    };
    let columns = calls
        .iter()
        .zip(columns)
        .map(|(call, column)| column.map(|column| shown(call, column)))
        .collect();
    Ok((
        LogicalPlan::Projection(Projection::try_new(expr, Arc::new(input))?),
        columns,
    ))
}

fn scanned(scan: &TableScan, calls: &[Call]) -> Result<Provided> {
    let provider = source_as_provider(&scan.source)?;
    let wanted: Vec<Option<plan::Column>> = calls.iter().map(Call::scanned).collect();
    let table = ShardTableProvider::of(provider.as_ref());
    let Some(table) = table.filter(|_| wanted.iter().any(Option::is_some)) else {
        return Ok((LogicalPlan::TableScan(scan.clone()), vec![None; calls.len()]));
    };
    let (table, places) = table.with_columns(wanted.iter().flatten().cloned());
    let mut projection = scan
        .projection
        .clone()
        .unwrap_or_else(|| (0..scan.source.schema().fields().len()).collect());
    let mut projected: HashSet<usize> = projection.iter().copied().collect();
    projection.extend(places.into_iter().filter(|place| projected.insert(*place)));
    let source = provider_as_source(Arc::new(table));
    let with = TableScanBuilder::new(scan.table_name.clone(), source)
        .with_projection(Some(projection))
        .with_filters(scan.filters.clone())
        .with_fetch(scan.fetch)
        .build()?;
    let shown = |wanted: plan::Column| Column::new(Some(scan.table_name.clone()), wanted.name());
    Ok((
        LogicalPlan::TableScan(with),
        wanted.into_iter().map(|wanted| wanted.map(shown)).collect(),
    ))
}
