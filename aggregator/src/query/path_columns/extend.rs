//! Adds columns for reads of paths to a plan, down to its scans.

use std::{collections::HashSet, sync::Arc};

use datafusion::{
    common::{Column, DFSchema, Result, tree_node::Transformed},
    datasource::{provider_as_source, source_as_provider},
    logical_expr::{Expr, Join, JoinType, LogicalPlan, Projection, SubqueryAlias, TableScan, TableScanBuilder},
};
use plan::{ColumnSource, PathType, Type, walk::Walk as _};

use crate::{
    query::shard_table::ShardTable,
    typing::{PathRead, joined},
};

/// A plan with added columns, and for each read the column with the same values, if the plan can provide one.
type ExtendedPlan = (LogicalPlan, Vec<Option<Column>>);

/// Adds columns with the values of these reads to a plan, as far as the plan can provide them. It takes all reads at
/// once, because every change to a plan recomputes its schema.
pub(super) fn add_columns(plan: &LogicalPlan, reads: &[PathRead]) -> Result<ExtendedPlan> {
    let unchanged = || Ok((plan.clone(), vec![None; reads.len()]));
    if reads.is_empty() {
        return unchanged();
    }
    match plan {
        LogicalPlan::TableScan(scan) => add_to_scan(scan, reads),
        LogicalPlan::SubqueryAlias(alias) => add_below_alias(alias, reads),
        LogicalPlan::Projection(projection) => add_to_projection(projection, reads),
        LogicalPlan::Filter(_) | LogicalPlan::Sort(_) | LogicalPlan::Limit(_) | LogicalPlan::Window(_) => {
            let inputs = plan.inputs();
            let Some(input) = inputs.first() else {
                return unchanged();
            };
            let inner: Vec<Option<PathRead>> = reads
                .iter()
                .map(|read| input.schema().has_column(&read.column).then(|| read.clone()))
                .collect();
            let (input, columns) = add_some_columns(input, &inner)?;
            let mut input = Some(input);
            let extended = plan
                .clone()
                .map_children(|child| Ok(Transformed::yes(input.take().unwrap_or(child))))?
                .data
                .recompute_schema()?;
            Ok((extended, columns))
        }
        LogicalPlan::Join(join) => add_to_join(join, reads),
        _ => unchanged(),
    }
}

/// As [`add_columns`], for reads of which some are None because they do not exist below.
fn add_some_columns(plan: &LogicalPlan, reads: &[Option<PathRead>]) -> Result<ExtendedPlan> {
    let existing: Vec<PathRead> = reads.iter().flatten().cloned().collect();
    let (plan, columns) = add_columns(plan, &existing)?;
    let mut columns = columns.into_iter();
    Ok((
        plan,
        reads
            .iter()
            .map(|read| read.as_ref().and_then(|_| columns.next().flatten()))
            .collect(),
    ))
}

fn add_below_alias(alias: &SubqueryAlias, reads: &[PathRead]) -> Result<ExtendedPlan> {
    let inner: Vec<Option<PathRead>> = reads
        .iter()
        .map(|read| read_below(alias.input.schema(), &alias.schema, read))
        .collect();
    let (input, columns) = add_some_columns(&alias.input, &inner)?;
    let aliased = SubqueryAlias::try_new(Arc::new(input), alias.alias.clone())?;
    let outer = |column: Column| Column::new(Some(alias.alias.clone()), column.name);
    Ok((
        LogicalPlan::SubqueryAlias(aliased),
        columns.into_iter().map(|column| column.map(outer)).collect(),
    ))
}

/// The read over the column at the same position below an alias.
fn read_below(inner: &DFSchema, outer: &DFSchema, read: &PathRead) -> Option<PathRead> {
    let position = outer.maybe_index_of_column(&read.column)?;
    Some(PathRead {
        column: Column::from(inner.qualified_field(position)),
        ..read.clone()
    })
}

fn add_to_join(join: &Join, reads: &[PathRead]) -> Result<ExtendedPlan> {
    let has_left = !matches!(join.join_type, JoinType::RightSemi | JoinType::RightAnti);
    let has_right = !matches!(
        join.join_type,
        JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark
    );
    let is_left = |read: &PathRead| has_left && join.left.schema().has_column(&read.column);
    let is_right = |read: &PathRead| has_right && join.right.schema().has_column(&read.column);
    let (left, right): (Vec<_>, Vec<_>) = reads
        .iter()
        .map(|read| {
            (
                is_left(read).then(|| read.clone()),
                (!is_left(read) && is_right(read)).then(|| read.clone()),
            )
        })
        .unzip();
    let (left, left_columns) = add_some_columns(&join.left, &left)?;
    let (right, right_columns) = add_some_columns(&join.right, &right)?;
    let extended = Join {
        left: Arc::new(left),
        right: Arc::new(right),
        ..join.clone()
    };
    let columns = left_columns
        .into_iter()
        .zip(right_columns)
        .map(|(left, right)| left.or(right))
        .collect();
    Ok((LogicalPlan::Join(extended).recompute_schema()?, columns))
}

fn add_to_projection(projection: &Projection, reads: &[PathRead]) -> Result<ExtendedPlan> {
    let inner: Vec<Option<PathRead>> = reads
        .iter()
        .map(|read| read_below_projection(projection, read))
        .collect();
    let (input, columns) = add_some_columns(&projection.input, &inner)?;
    let mut expr = projection.expr.clone();
    let mut existing: HashSet<Column> = projection.schema.columns().into_iter().collect();
    let mut add = |read: &PathRead, column: Column| {
        let relation = read.column.relation.clone();
        let path = plan::Column {
            source: ColumnSource::Path(read.path.clone()),
            read_as: read.path_type,
        };
        // The columns of one projection have different names, and so do columns whose names begin with these.
        let name = format!("{}\u{1}{}", read.column.name, path.name());
        let added = Column::new(relation.clone(), name.clone());
        if existing.insert(added.clone()) {
            expr.push(Expr::Column(column).alias_qualified(relation, name));
        }
        added
    };
    let columns = reads
        .iter()
        .zip(columns)
        .map(|(read, column)| column.map(|column| add(read, column)))
        .collect();
    Ok((
        LogicalPlan::Projection(Projection::try_new(expr, Arc::new(input))?),
        columns,
    ))
}

/// The read over the input of a projection, if the projection has the column as it is or as JSON at a path.
fn read_below_projection(projection: &Projection, read: &PathRead) -> Option<PathRead> {
    const JSON: PathType = PathType {
        to: Type::Json,
        cast: false,
    };
    let position = projection.schema.maybe_index_of_column(&read.column)?;
    match projection.expr[position].clone().unalias() {
        Expr::Column(column) => Some(PathRead { column, ..read.clone() }),
        other => {
            let inner = PathRead::of(&other).filter(|inner| inner.path_type == JSON)?;
            Some(PathRead {
                path: joined(&inner.path, &read.path),
                column: inner.column,
                path_type: read.path_type,
            })
        }
    }
}

fn add_to_scan(scan: &TableScan, reads: &[PathRead]) -> Result<ExtendedPlan> {
    let provider = source_as_provider(&scan.source)?;
    let wanted: Vec<Option<plan::Column>> = reads.iter().map(PathRead::scan_column).collect();
    let table = provider.downcast_ref::<ShardTable>();
    let Some(table) = table.filter(|_| wanted.iter().any(Option::is_some)) else {
        return Ok((LogicalPlan::TableScan(scan.clone()), vec![None; reads.len()]));
    };
    let (table, positions) = table.with_columns(wanted.iter().flatten().cloned());
    let mut projection = scan
        .projection
        .clone()
        .unwrap_or_else(|| (0..scan.source.schema().fields().len()).collect());
    let mut projected: HashSet<usize> = projection.iter().copied().collect();
    projection.extend(positions.into_iter().filter(|position| projected.insert(*position)));
    let source = provider_as_source(Arc::new(table));
    let extended = TableScanBuilder::new(scan.table_name.clone(), source)
        .with_projection(Some(projection))
        .with_filters(scan.filters.clone())
        .with_fetch(scan.fetch)
        .build()?;
    let qualified = |column: plan::Column| Column::new(Some(scan.table_name.clone()), column.name());
    Ok((
        LogicalPlan::TableScan(extended),
        wanted.into_iter().map(|column| column.map(qualified)).collect(),
    ))
}
