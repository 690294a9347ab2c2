//! The optimizer rule that reads paths as columns: `json_get(user, 'id', 'int')` over a scan of `user` becomes the
//! column `user.id:int` of the scan, also through subqueries, views and WITH queries. A path read through a view
//! thereby keeps its column and its index.
//!
//! ```text
//!   Projection: json_get(v.user, 'id', 'int')     Projection: v."user.id:int"
//!     SubqueryAlias: v                        ->    SubqueryAlias: v
//!       Projection: e."user:json" AS user             Projection: e."user:json" AS user,
//!                                                                 e."user.id:int" AS "user.id:int"
//!         TableScan: e                                  TableScan: e
//! ```
//!
//! The result is the same either way, because both return what [`plan::value::read_value`] returns. A search in the
//! value of a path is also sent to the index, which leaves few documents to check.

mod extend;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use datafusion::{
    common::{
        Column, Result,
        tree_node::{Transformed, TreeNode as _, TreeNodeRecursion},
    },
    logical_expr::{Expr, LogicalPlan, Projection, expr::ScalarFunction, expr_rewriter::NamePreserver},
    optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule, optimize_projections::OptimizeProjections},
};
use plan::{ColumnSource, Path, PathType, Type, functions::json, path::Step, search::Clause};

use self::extend::add_columns;
use super::operand::literal;

/// The optimizer rule.
#[derive(Debug)]
pub(super) struct ReadPathsAsColumns;

impl OptimizerRule for ReadPathsAsColumns {
    fn name(&self) -> &str {
        "read_paths_as_columns"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let rewritten = plan.transform_up_with_subqueries(rewrite_node)?;
        match rewritten.transformed {
            // Columns that were read only for their paths are no longer needed.
            true => Ok(Transformed::yes(
                OptimizeProjections::new().rewrite(rewritten.data, config)?.data,
            )),
            false => Ok(rewritten),
        }
    }
}

/// Applies the rule before optimization: a path that a correlated subquery compares must be a column before the
/// subquery becomes a join.
pub(super) fn read_paths_as_columns(plan: LogicalPlan) -> Result<LogicalPlan> {
    Ok(plan.transform_up_with_subqueries(rewrite_node)?.data)
}

/// `json_get(column, path, path_type)`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PathRead {
    column: Column,
    path: Path,
    path_type: PathType,
}

impl PathRead {
    fn of(expr: &Expr) -> Option<Self> {
        let Expr::ScalarFunction(ScalarFunction { func, args }) = expr else {
            return None;
        };
        let [Expr::Column(column), path, path_type, ..] = args.as_slice() else {
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
            path_type: json::parse_path_type(&text(path_type)?)?,
        })
    }

    /// The column of a scan with the same values, if the read is over a column of a scan.
    fn scan_column(&self) -> Option<plan::Column> {
        let read = plan::Column::parse(&self.column.name)?;
        match read.source {
            ColumnSource::Path(path) if read.read_as.to == Type::Json => Some(plan::Column {
                source: ColumnSource::Path(joined(&path, &self.path)),
                read_as: self.path_type,
            }),
            // The paths of the whole document are columns.
            ColumnSource::Doc if !self.path.steps().is_empty() => Some(plan::Column {
                source: ColumnSource::Path(self.path.clone()),
                read_as: self.path_type,
            }),
            _ => None,
        }
    }
}

/// One path followed by another.
fn joined(path: &Path, further: &Path) -> Path {
    Path::new(
        path.steps()
            .iter()
            .chain(further.steps())
            .cloned()
            .collect::<Vec<Step>>(),
    )
}

/// Replaces every read of a path in a condition with the column that a leaf reads for it, and combines every search of
/// a path with the result of the index.
pub(crate) fn condition_over_columns(condition: Expr) -> Result<Expr> {
    let to_expr = |column: plan::Column| Expr::Column(Column::new_unqualified(column.name()));
    let replace = |node: Expr| match PathRead::of(&node).and_then(|read| read.scan_column()) {
        Some(column) => Ok(Transformed::yes(to_expr(column))),
        None => Ok(match search_column(&node) {
            Some(search) => Transformed::yes(to_expr(search).and(node)),
            None => Transformed::no(node),
        }),
    };
    Ok(condition.transform(replace)?.data)
}

/// For a search in the value of a stored path, the search of documents that finds at least all documents in which it
/// matches. It may find more: it also looks inside lists on the way to the path, where the value is NULL, and without a
/// path it looks everywhere.
fn search_column(node: &Expr) -> Option<plan::Column> {
    let arguments = |expr: &Expr, name: &str| match expr {
        Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == name => Some(args.clone()),
        _ => None,
    };
    let [value, clause] = arguments(node, json::SEARCH_MATCH)?.try_into().ok()?;
    let value = arguments(&value, json::TO_JSON)
        .and_then(|arguments| arguments.into_iter().next())
        .unwrap_or(value);
    let (Expr::Column(column), Some(clause)) = (value, literal(&clause)) else {
        return None;
    };
    let mut clause: Clause = serde_json::from_str(clause.try_as_str().flatten()?).ok()?;
    let read = plan::Column::parse(&column.name)?;
    let ColumnSource::Path(path) = read.source else {
        return None;
    };
    clause.path = clause.path.map(|further| joined(&path, &further));
    (read.read_as.to == Type::Json).then(|| plan::Column::search(clause))
}

/// Replaces the reads of paths in one node with columns, as far as the inputs can provide these.
fn rewrite_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    use LogicalPlan::{Aggregate, Filter, Join, Projection, Sort, Window};
    if !matches!(
        plan,
        Projection(_) | Filter(_) | Aggregate(_) | Sort(_) | Window(_) | Join(_)
    ) {
        return Ok(Transformed::no(plan));
    }
    let reads = path_reads(&plan)?;
    if reads.is_empty() {
        return Ok(Transformed::no(plan));
    }
    let mut inputs: Vec<LogicalPlan> = plan.inputs().into_iter().cloned().collect();
    let mut columns: HashMap<PathRead, Column> = HashMap::new();
    for input in &mut inputs {
        let wanted: Vec<PathRead> = reads
            .iter()
            .filter(|read| !columns.contains_key(*read) && input.schema().has_column(&read.column))
            .cloned()
            .collect();
        let (extended, added) = add_columns(input, &wanted)?;
        *input = extended;
        columns.extend(
            wanted
                .into_iter()
                .zip(added)
                .filter_map(|(read, column)| Some((read, column?))),
        );
    }
    if columns.is_empty() {
        return Ok(Transformed::no(plan));
    }
    Ok(Transformed::yes(replace_reads(plan, inputs, &columns)?))
}

/// All distinct reads of paths in the expressions of one node.
fn path_reads(plan: &LogicalPlan) -> Result<Vec<PathRead>> {
    let (mut reads, mut seen) = (Vec::new(), HashSet::new());
    plan.apply_expressions(|expr| {
        expr.apply(|node| {
            reads.extend(PathRead::of(node).filter(|read| seen.insert(read.clone())));
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(reads)
}

/// The node over new inputs, with columns in place of reads. Its own columns stay the same.
fn replace_reads(
    plan: LogicalPlan,
    inputs: Vec<LogicalPlan>,
    columns: &HashMap<PathRead, Column>,
) -> Result<LogicalPlan> {
    let schema = Arc::clone(plan.schema());
    let defines_columns = matches!(plan, LogicalPlan::Projection(_) | LogicalPlan::Aggregate(_));
    let is_sort = matches!(plan, LogicalPlan::Sort(_));
    let names = NamePreserver::new(&plan);
    let replace = |node: Expr| match PathRead::of(&node).and_then(|read| columns.get(&read)) {
        Some(column) => Ok(Transformed::yes(Expr::Column(column.clone()))),
        None => Ok(Transformed::no(node)),
    };
    let plan = plan.map_expressions(|expr| {
        let name = names.save(&expr);
        let expr = expr.transform(replace)?.data;
        Ok(Transformed::yes(if is_sort { expr } else { name.restore(expr) }))
    })?;
    let mut inputs = inputs.into_iter();
    let plan = plan
        .data
        .map_children(|child| Ok(Transformed::yes(inputs.next().unwrap_or(child))))?
        .data
        .recompute_schema()?;
    if defines_columns {
        return Ok(plan);
    }
    // The node passes on the columns of its inputs: hide those that were added.
    let own_columns = schema.iter().map(|column| Expr::Column(Column::from(column))).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(
        own_columns,
        Arc::new(plan),
    )?))
}
