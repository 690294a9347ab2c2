//! Searches a collection in the order of a column: every shard sends its first documents, which are merged.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch},
        compute::concat_batches,
        error::ArrowError,
        row::RowConverter,
    },
    common::DFSchema,
    error::DataFusionError,
    logical_expr::{Expr, col, lit, simplify::SimplifyContext, utils::split_conjunction_owned},
    optimizer::simplify_expressions::ExprSimplifier,
    scalar::ScalarValue,
};
use futures::{TryStreamExt as _, future::try_join_all};
use plan::{
    Column, Kinds, Path, Type,
    pushdown::is_exact,
    scan::{PageStart, ScanChunk, ScanRequest, ScanStream, SortKey, Stage},
};
use proto::{Address, Catalog, Code, CollectionName, Problem, ingest::ShardId};

use super::{
    HitPage, SearchContext, TimeRange,
    hit::{DocumentRows, HIT_COLUMNS, column},
    page_too_large, sort_path,
};
use crate::{
    answer::Hit,
    failure,
    query::{
        Engine,
        context::QueryContext,
        cursor,
        read_views::{CollectionViews, QueryViews},
    },
    sql::{self, SchemaContext as _},
};

/// Limit on the shards that are scanned at once.
const SHARDS_AT_ONCE_MAX: usize = 64;

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
    let page = TopKPage {
        keys,
        after,
        limit: *limit,
    };
    let (rows, total) = page
        .collect(context, collection, filter, engine.options.query_bytes_max)
        .await?;
    let (hits, last) = page.merge(&rows, read_views.catalog())?;
    let after = last
        .filter(|_| hits.len() == *limit && *limit > 0)
        .map(|last| cursor::write(&page.keys, &last));
    Ok(Some(HitPage { hits, total, after }))
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

/// The requested page.
struct TopKPage {
    keys: Vec<SortKey>,
    after: Option<PageStart>,
    limit: usize,
}

impl TopKPage {
    /// The columns to read: those of the hits and the sort keys.
    fn columns(&self) -> Vec<Column> {
        let mut columns: Vec<Column> = HIT_COLUMNS.iter().filter_map(|name| Column::system(name)).collect();
        for key in &self.keys {
            if !columns.contains(&key.column) {
                columns.push(key.column.clone());
            }
        }
        columns
    }

    /// Reads the first documents of every shard, and counts all matches.
    async fn collect(
        &self,
        context: &Arc<QueryContext>,
        collection: &CollectionViews,
        filter: Vec<Expr>,
        bytes_max: usize,
    ) -> Result<(RecordBatch, u64), Problem> {
        let (columns, scan, bytes) = (self.columns(), context.next_scan(), AtomicUsize::new(0));
        let schema = plan::column::schema(&columns);
        let request = |shards: Vec<ShardId>| ScanRequest {
            shards,
            read: context.read,
            time_path: collection.time_path.clone(),
            columns: columns.clone(),
            filter: filter.clone(),
            stage: Stage::Top {
                keys: self.keys.clone(),
                after: self.after.clone(),
                limit: self.limit,
                counts_all: true,
            },
            deadline: context.deadline(),
        };
        let (mut batches, mut total) = (Vec::new(), 0);
        for at_once in collection.shards.chunks(SHARDS_AT_ONCE_MAX) {
            let shards: Vec<ShardId> = at_once.iter().map(|(shard, _)| *shard).collect();
            let answers = collection.views.scan(request(shards.clone()));
            let answers = shards.into_iter().zip(answers);
            let answers = answers.map(|(shard, chunks)| read_shard(context, shard, chunks, scan, &bytes, bytes_max));
            for (rows, matched) in try_join_all(answers).await? {
                batches.extend(rows);
                total += matched;
            }
        }
        Ok((
            concat_batches(&schema, &batches).map_err(|e| failure::problem(DataFusionError::from(e)))?,
            total,
        ))
    }

    /// Merges the documents of all shards into the page's hits. Also returns the position of the last hit.
    fn merge(&self, rows: &RecordBatch, catalog: &Catalog) -> Result<(Vec<Hit>, Option<PageStart>), Problem> {
        let documents = DocumentRows::new(rows)?;
        let keys = self
            .keys
            .iter()
            .map(|key| column(rows, &key.column))
            .collect::<Result<Vec<ArrayRef>, _>>()?;
        let addresses = (0..rows.num_rows())
            .map(|row| documents.address(row))
            .collect::<Result<Vec<Address>, _>>()?;
        let order = self.first_rows(&keys, &addresses)?;
        let hits = order
            .iter()
            .map(|row| documents.hit(*row, &addresses[*row], catalog))
            .collect();
        let Some(last) = order.last() else {
            return Ok((hits, None));
        };
        let values = keys
            .iter()
            .map(|key| ScalarValue::try_from_array(key, *last))
            .collect::<Result<_, _>>()
            .map_err(failure::problem)?;
        let end = PageStart {
            values,
            address: addresses[*last].clone(),
        };
        Ok((hits, Some(end)))
    }

    /// The rows of the page, sorted by the keys and then by address.
    fn first_rows(&self, keys: &[ArrayRef], addresses: &[Address]) -> Result<Vec<usize>, Problem> {
        let arrow_error = |e: ArrowError| failure::problem(DataFusionError::from(e));
        let sort_fields = self.keys.iter().map(SortKey::sort_field).collect();
        let converter = RowConverter::new(sort_fields).map_err(arrow_error)?;
        let sort_rows = converter.convert_columns(keys).map_err(arrow_error)?;
        let mut order: Vec<usize> = (0..addresses.len()).collect();
        order.sort_unstable_by(|a, b| {
            sort_rows
                .row(*a)
                .cmp(&sort_rows.row(*b))
                .then_with(|| addresses[*a].cmp(&addresses[*b]))
        });
        order.truncate(self.limit);
        Ok(order)
    }
}

/// Reads the first documents of one shard. Also returns how many match in it.
async fn read_shard(
    context: &QueryContext,
    shard: ShardId,
    mut chunks: ScanStream,
    scan: usize,
    bytes: &AtomicUsize,
    bytes_max: usize,
) -> Result<(Vec<RecordBatch>, u64), Problem> {
    let mut batches = Vec::new();
    while let Some(chunk) = chunks.try_next().await? {
        match chunk {
            ScanChunk::Rows(batch) => {
                let size = batch.get_array_memory_size();
                if bytes.fetch_add(size, Ordering::Relaxed) + size > bytes_max {
                    return Err(page_too_large());
                }
                batches.push(batch);
            }
            ScanChunk::Progress(trailer) => context.report.record(scan, shard, trailer),
            ScanChunk::End(trailer) => {
                let matched = trailer.matched;
                context.report.record(scan, shard, trailer);
                return Ok((batches, matched));
            }
        }
    }
    Err(Problem::new(
        Code::Incomplete,
        format!("the answer of shard {} ended early", shard.number),
    )
    .hint("retry"))
}
