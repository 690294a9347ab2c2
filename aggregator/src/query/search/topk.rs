//! Searches a collection in the order of a column, by the operators of SQL's top-k: every shard sends its first documents,
//! which are merged. The plan is made directly, because planning a statement takes longer than most searches.

use std::sync::Arc;

use datafusion::{
    arrow::{array::RecordBatch, compute::SortOptions},
    common::DFSchema,
    error::DataFusionError,
    logical_expr::{Expr, col, lit, simplify::SimplifyContext, utils::split_conjunction_owned},
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{LexOrdering, PhysicalSortExpr, expressions::col as column_expr},
    physical_plan::{ExecutionPlan, sorts::sort_preserving_merge::SortPreservingMergeExec},
    scalar::ScalarValue,
};
use plan::{
    Column, Kinds, Path, Type,
    pushdown::is_exact,
    scan::{PageStart, SortKey, Stage},
};
use proto::{Catalog, CollectionName, Problem};

use super::{
    HitPage, SearchContext, TimeRange,
    hit::{ADDRESS_COLUMNS, DocumentRows, HIT_COLUMNS, column},
    sort_path,
    statement::collect_rows,
};
use crate::{
    answer::Hit,
    failure,
    query::{Engine, context::QueryContext, cursor, planner, read_views::QueryViews, shard_scan::ShardScan},
    sql::{self, SchemaContext as _},
};

/// Searches a collection. Returns None if leaves cannot evaluate the filter exactly or cannot sort by the key.
pub(super) async fn run(search: &SearchContext<'_>, name: &CollectionName) -> Result<Option<HitPage>, Problem> {
    let SearchContext {
        engine,
        context,
        request,
        read_views,
        limit,
        ..
    } = search;
    let Some(column) = sort_column(search, name)? else {
        return Ok(None);
    };
    let (condition, columns, warnings) = sql::search_condition(&request.query, name, *read_views)?;
    let Some(filter) = exact_filter(engine, condition, columns, search.time_range)? else {
        return Ok(None);
    };
    warnings.into_iter().for_each(|warning| context.report.warn(warning));
    let collection = read_views
        .collection(name)
        .ok_or_else(|| crate::query::no_collection(name, read_views.catalog()))?;
    let keys = vec![SortKey {
        column,
        descending: search.sort.descending,
        nulls_first: false,
    }];
    let after = request
        .after
        .as_deref()
        .map(|text| cursor::read(text, &keys))
        .transpose()?;
    let scan_number = context.next_scan();
    let stage = Stage::Top {
        keys: keys.clone(),
        after,
        limit: *limit,
        counts_all: true,
    };
    let columns = page_columns(&keys);
    let schema = plan::column::schema(&columns);
    let scan = ShardScan::new(scan_number, collection, columns, filter, stage, schema);
    let physical = merged(scan, &keys).map_err(failure::problem)?;
    let rows = collect_rows(search, planner::executable(engine, context, read_views, physical)).await?;
    let rows = rows.slice(0, rows.num_rows().min(*limit));
    let (hits, last) = hits(&rows, &keys, read_views.catalog())?;
    let after = last
        .filter(|_| hits.len() == *limit && *limit > 0)
        .map(|last| cursor::write(&keys, &last));
    let total = context.report.matched(scan_number);
    Ok(Some(HitPage { hits, total, after }))
}

/// The columns to read: those of the hits and the sort keys.
fn page_columns(keys: &[SortKey]) -> Vec<Column> {
    let mut columns: Vec<Column> = HIT_COLUMNS.iter().filter_map(|name| Column::system(name)).collect();
    for key in keys {
        if !columns.contains(&key.column) {
            columns.push(key.column.clone());
        }
    }
    columns
}

/// Merges the rows of all shards as SQL does. Each shard returns its own in this order, with ties ordered by address.
/// All are read, because the last message of a shard says how many match.
fn merged(scan: ShardScan, keys: &[SortKey]) -> Result<Arc<dyn ExecutionPlan>, DataFusionError> {
    let schema = scan.schema();
    let ties = ADDRESS_COLUMNS
        .iter()
        .map(|name| ((*name).to_owned(), SortOptions::new(false, false)));
    let by = keys
        .iter()
        .map(|key| (key.column.name(), SortOptions::new(key.descending, key.nulls_first)))
        .chain(ties)
        .map(|(name, options)| Ok(PhysicalSortExpr::new(column_expr(&name, &schema)?, options)))
        .collect::<Result<Vec<_>, DataFusionError>>()?;
    let by = LexOrdering::new(by).ok_or_else(|| DataFusionError::Internal("a search without sort keys".into()))?;
    Ok(Arc::new(SortPreservingMergeExec::new(by, Arc::new(scan))))
}

/// The hits of a page. Also returns the position of the last one.
fn hits(rows: &RecordBatch, keys: &[SortKey], catalog: &Catalog) -> Result<(Vec<Hit>, Option<PageStart>), Problem> {
    let documents = DocumentRows::new(rows)?;
    let (mut hits, mut last) = (Vec::with_capacity(rows.num_rows()), None);
    for row in 0..rows.num_rows() {
        let address = documents.address(row)?;
        hits.push(documents.hit(row, &address, catalog));
        last = Some((row, address));
    }
    let Some((row, address)) = last else {
        return Ok((hits, None));
    };
    let value = |key: &SortKey| {
        let values = column(rows, &key.column)?;
        ScalarValue::try_from_array(&values, row).map_err(failure::problem)
    };
    let values = keys.iter().map(value).collect::<Result<_, _>>()?;
    Ok((hits, Some(PageStart { values, address })))
}

/// The column to sort by; None if it is a field or lies inside one, because a leaf cannot compute fields.
fn sort_column(search: &SearchContext<'_>, collection: &CollectionName) -> Result<Option<Column>, Problem> {
    let name = search.sort.name.as_deref().unwrap_or("_time");
    if let Some(system_column) = Column::system(name) {
        return Ok(Some(system_column));
    }
    let path = sort_path(name)?;
    let is_field = search
        .read_views
        .catalog()
        .fields(collection)
        .filter_map(|(field, _)| Path::parse(field).ok())
        .any(|field| has_prefix(&path, &field));
    Ok((!is_field).then(|| path_column(path, collection, search.read_views, search.context)))
}

/// Whether a path begins with the steps of a field, ignoring case.
fn has_prefix(path: &Path, field: &Path) -> bool {
    let lower = |path: &Path, steps: usize| {
        Path::new(path.steps().iter().take(steps).cloned().collect())
            .to_string()
            .to_lowercase()
    };
    let steps = field.steps().len();
    path.steps().len() >= steps && lower(path, steps) == lower(field, steps)
}

/// The condition and the time range as filters for a leaf; None if a leaf cannot evaluate one of them exactly.
fn exact_filter(
    engine: &Engine,
    condition: Expr,
    mut columns: Vec<Column>,
    time_range: TimeRange,
) -> Result<Option<Vec<Expr>>, Problem> {
    let timestamp = |micros: i64| lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())));
    let mut all = condition;
    if let Some(from) = time_range.from {
        all = all.and(col("_time").gt_eq(timestamp(from)));
    }
    if let Some(to) = time_range.to {
        all = all.and(col("_time").lt(timestamp(to)));
    }
    let time = Column::system("_time").filter(|time| !columns.contains(time));
    columns.extend(time);
    let schema = DFSchema::try_from(plan::column::schema(&columns).as_ref().clone()).map_err(failure::problem)?;
    let simplify_context = SimplifyContext::builder()
        .with_config_options(Arc::clone(engine.sessions.settings()))
        .with_schema(Arc::new(schema.clone()))
        .with_current_time()
        .build();
    let simplifier = ExprSimplifier::new(simplify_context);
    let simplified = simplifier
        .coerce(all, &schema)
        .and_then(|all| plan::simplify::simplify(all, &simplifier))
        .map_err(failure::problem)?;
    let always_true = lit(true);
    let filter: Vec<Expr> = split_conjunction_owned(simplified)
        .into_iter()
        .filter(|part| *part != always_true)
        .collect();
    Ok(filter.iter().all(is_exact).then_some(filter))
}

/// The column of a path in the path's own type. A path of mixed kinds is sorted by rank, as ORDER BY does.
fn path_column(path: Path, collection: &CollectionName, read_views: &QueryViews, context: &QueryContext) -> Column {
    let known = read_views.paths(collection);
    let lower = path.to_string().to_lowercase();
    let mut same_ignoring_case = known
        .paths
        .keys()
        .filter(|other| other.to_string().to_lowercase() == lower);
    let path = match (
        known.paths.contains_key(&path),
        same_ignoring_case.next(),
        same_ignoring_case.next(),
    ) {
        (false, Some(only), None) => only.clone(),
        _ => path,
    };
    let kinds = known.paths.get(&path).copied().unwrap_or_default();
    if kinds == Kinds::default() && !known.overflow {
        context
            .report
            .warn(format!("no document has {path}, so the hits are not sorted by it"));
    }
    match kinds.native() {
        Some(Type::Json) | None => Column::path(path, Type::Rank),
        Some(native) => Column::path(path, native),
    }
}
