//! The documents of a collection by the order of one of their columns: every shard sends its first, and they are
//! merged.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch},
        compute::{SortOptions, concat_batches},
        row::{RowConverter, SortField},
    },
    common::DFSchema,
    error::DataFusionError,
    logical_expr::{Expr, col, lit, simplify::SimplifyContext, utils::split_conjunction_owned},
    optimizer::simplify_expressions::ExprSimplifier,
    scalar::ScalarValue,
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use plan::{
    Column, Path, Type,
    pushdown::is_exact,
    scan::{After, Chunk, ScanRequest, SortKey, Stage},
};
use proto::{Address, Catalog, Code, CollectionName, Problem, ingest::ShardId};

use super::{
    Asked, Bounds, Found,
    hit::{Rows, SHOWN, column},
    page_too_large, sort_path,
};
use crate::{
    answer::Hit,
    query::{
        Engine, context::QueryContext, cursor, failure, pins::PinnedCollection, shard_table::schema_of,
        world::PinnedWorld,
    },
    sql::{self, World as _},
};

/// Shards that are asked at once.
const SHARDS_AT_ONCE: usize = 64;

/// Answers a search of a collection, if leaves can decide and order it.
pub async fn run(asked: &Asked<'_>, name: &CollectionName) -> Result<Option<Found>, Problem> {
    let Asked {
        engine,
        context,
        question,
        pins,
        world,
        limit,
        ..
    } = asked;
    let Some(column) = sort_column(asked, name)? else {
        return Ok(None);
    };
    let (condition, columns, warnings) = sql::search_condition(&question.query, name, *world)?;
    let Some(filter) = filter(engine, condition, columns, asked.bounds)? else {
        return Ok(None);
    };
    warnings.into_iter().for_each(|warning| context.report.warn(warning));
    let pinned = pins
        .collection(name)
        .ok_or_else(|| crate::query::no_collection(name, world.catalog()))?;
    let keys = vec![SortKey {
        column,
        descending: asked.sort.descending,
        nulls_first: false,
    }];
    let after = question
        .after
        .as_deref()
        .map(|text| cursor::read(text, &keys))
        .transpose()?;
    let page = Page {
        keys,
        after,
        limit: *limit,
    };
    let (found, total) = page
        .collect(context, pinned, filter, engine.options.query_bytes_max)
        .await?;
    let (hits, last) = page.merge(&found, world.catalog())?;
    let after = last
        .filter(|_| hits.len() == *limit && *limit > 0)
        .map(|last| cursor::write(&page.keys, &last));
    Ok(Some(Found { hits, total, after }))
}

/// The column that a search sorts by, if it is one and no field.
fn sort_column(asked: &Asked<'_>, collection: &CollectionName) -> Result<Option<Column>, Problem> {
    let name = asked.sort.name.as_deref().unwrap_or("_time");
    if let Some(always) = Column::always(name) {
        return Ok(Some(always));
    }
    let path = sort_path(name)?;
    let field = asked
        .world
        .catalog()
        .fields(collection)
        .filter_map(|(field, _)| Path::parse(field).ok())
        .any(|field| begins(&path, &field));
    Ok((!field).then(|| typed(path, collection, asked.world, asked.context)))
}

/// Whether a field, in any case of letters, is a beginning of a path.
fn begins(path: &Path, field: &Path) -> bool {
    let lower = |path: &Path, steps: usize| {
        Path::new(path.steps().iter().take(steps).cloned().collect())
            .to_string()
            .to_lowercase()
    };
    let steps = field.steps().len();
    path.steps().len() >= steps && lower(path, steps) == lower(field, steps)
}

/// The search and its bounds in time as conditions that a leaf decides; None where it cannot decide one.
fn filter(
    engine: &Engine,
    condition: Expr,
    mut columns: Vec<Column>,
    bounds: Bounds,
) -> Result<Option<Vec<Expr>>, Problem> {
    let instant = |micros: i64| lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into())));
    let mut all = condition;
    if let Some(from) = bounds.from {
        all = all.and(col("_time").gt_eq(instant(from)));
    }
    if let Some(to) = bounds.to {
        all = all.and(col("_time").lt(instant(to)));
    }
    let time = Column::always("_time").filter(|time| !columns.contains(time));
    columns.extend(time);
    let schema = DFSchema::try_from(schema_of(&columns).as_ref().clone()).map_err(failure::problem)?;
    let setting = SimplifyContext::builder()
        .with_config_options(Arc::clone(engine.sessions.settings()))
        .with_schema(Arc::new(schema.clone()))
        .with_current_time()
        .build();
    let simplifier = ExprSimplifier::new(setting);
    let simple = simplifier
        .coerce(all, &schema)
        .and_then(|all| plan::simplify::simplify(all, &simplifier))
        .map_err(failure::problem)?;
    let yes = lit(true);
    let conditions: Vec<Expr> = split_conjunction_owned(simple)
        .into_iter()
        .filter(|part| *part != yes)
        .collect();
    Ok(conditions.iter().all(is_exact).then_some(conditions))
}

/// The path in its own type; one of mixed kinds in the order of ORDER BY.
fn typed(path: Path, collection: &CollectionName, world: &PinnedWorld, context: &QueryContext) -> Column {
    use plan::Kinds;
    let known = world.paths(collection);
    let spelled = path.to_string().to_lowercase();
    let mut alike = known
        .paths
        .keys()
        .filter(|other| other.to_string().to_lowercase() == spelled);
    let path = match (known.paths.contains_key(&path), alike.next(), alike.next()) {
        (false, Some(only), None) => only.clone(),
        _ => path,
    };
    let kinds = known.paths.get(&path).copied().unwrap_or_default();
    if kinds == Kinds::default() && !known.overflow {
        context
            .report
            .warn(format!("no document has {path}, so nothing is sorted by it"));
    }
    match kinds.native() {
        Some(Type::Json) | None => Column::path(path, Type::Rank),
        Some(native) => Column::path(path, native),
    }
}

/// What is asked for.
struct Page {
    keys: Vec<SortKey>,
    after: Option<After>,
    limit: usize,
}

impl Page {
    fn columns(&self) -> Vec<Column> {
        let mut columns: Vec<Column> = SHOWN.iter().filter_map(|name| Column::always(name)).collect();
        for key in &self.keys {
            if !columns.contains(&key.column) {
                columns.push(key.column.clone());
            }
        }
        columns
    }

    /// Every shard's first documents, and how many match in all.
    async fn collect(
        &self,
        context: &Arc<QueryContext>,
        pinned: &PinnedCollection,
        filter: Vec<Expr>,
        bytes_max: usize,
    ) -> Result<(RecordBatch, u64), Problem> {
        let (columns, scan, bytes) = (self.columns(), context.next_scan(), AtomicUsize::new(0));
        let schema = schema_of(&columns);
        let request = |shard: ShardId| ScanRequest {
            query: context.views,
            shard,
            read: context.read,
            time_path: pinned.time_path.clone(),
            columns: columns.clone(),
            filter: filter.clone(),
            stage: Stage::Top {
                keys: self.keys.clone(),
                after: self.after.clone(),
                limit: self.limit,
            },
            deadline: context.deadline(),
        };
        let requests: Vec<ScanRequest> = pinned.shards.iter().map(|(shard, _)| request(*shard)).collect();
        let shards = stream::iter(requests)
            .map(|request| one_shard(context, request, scan, &bytes, bytes_max))
            .buffer_unordered(SHARDS_AT_ONCE);
        let (mut batches, mut total) = (Vec::new(), 0);
        for (rows, matched) in shards.try_collect::<Vec<_>>().await? {
            batches.extend(rows);
            total += matched;
        }
        Ok((
            concat_batches(&schema, &batches).map_err(|e| failure::problem(DataFusionError::from(e)))?,
            total,
        ))
    }

    /// The page's hits in order, and where it ends.
    fn merge(&self, found: &RecordBatch, catalog: &Catalog) -> Result<(Vec<Hit>, Option<After>), Problem> {
        let broken = |e: DataFusionError| failure::problem(e);
        let rows = Rows::of(found)?;
        let field = |key: &SortKey| {
            SortField::new_with_options(
                key.column.view.to.arrow(),
                SortOptions {
                    descending: key.descending,
                    nulls_first: key.nulls_first,
                },
            )
        };
        let converter = RowConverter::new(self.keys.iter().map(field).collect()).map_err(|e| broken(e.into()))?;
        let keys = self
            .keys
            .iter()
            .map(|key| column(found, &key.column))
            .collect::<Result<Vec<ArrayRef>, _>>()?;
        let ranks = converter.convert_columns(&keys).map_err(|e| broken(e.into()))?;
        let addresses = (0..found.num_rows())
            .map(|row| rows.address(row))
            .collect::<Result<Vec<Address>, _>>()?;
        let mut order: Vec<usize> = (0..found.num_rows()).collect();
        order.sort_unstable_by(|a, b| {
            ranks
                .row(*a)
                .cmp(&ranks.row(*b))
                .then_with(|| addresses[*a].cmp(&addresses[*b]))
        });
        order.truncate(self.limit);
        let hits = order
            .iter()
            .map(|row| rows.hit(*row, &addresses[*row], catalog))
            .collect();
        let Some(last) = order.last() else {
            return Ok((hits, None));
        };
        let values = keys
            .iter()
            .map(|key| ScalarValue::try_from_array(key, *last))
            .collect::<Result<_, _>>()
            .map_err(broken)?;
        Ok((
            hits,
            Some(After {
                values,
                address: addresses[*last].clone(),
            }),
        ))
    }
}

/// One shard's first documents and how many match in it.
async fn one_shard(
    context: &QueryContext,
    request: ScanRequest,
    scan: usize,
    bytes: &AtomicUsize,
    bytes_max: usize,
) -> Result<(Vec<RecordBatch>, u64), Problem> {
    let (shard, mut batches) = (request.shard, Vec::new());
    let mut chunks = context.leaf.scan(request);
    while let Some(chunk) = chunks.try_next().await? {
        match chunk {
            Chunk::Rows(batch) => {
                let size = batch.get_array_memory_size();
                if bytes.fetch_add(size, Ordering::Relaxed) + size > bytes_max {
                    return Err(page_too_large());
                }
                batches.push(batch);
            }
            Chunk::SoFar(trailer) => context.report.tell(scan, shard, trailer),
            Chunk::End(trailer) => {
                let matched = trailer.matched;
                context.report.tell(scan, shard, trailer);
                return Ok((batches, matched));
            }
        }
    }
    Err(Problem::new(
        Code::Incomplete,
        format!("shard {} stopped answering half-way", shard.number),
    )
    .hint("try again"))
}
