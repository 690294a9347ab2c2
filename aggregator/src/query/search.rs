//! A search: a condition and the first documents by an order, from every shard, merged; a page at a time.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray as _, RecordBatch},
        compute::{SortOptions, concat_batches},
        datatypes::{Int64Type, SchemaRef},
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
    value::{time_of_int, time_of_text},
};
use proto::{Address, Catalog, Code, CollectionName, Problem, SourceName, ingest::ShardId, record::Format};

use super::{
    Engine,
    context::QueryContext,
    cursor, failure,
    pins::{PinnedCollection, Pins},
    shard_table::schema_of,
    world::PinnedWorld,
};
use crate::{
    answer::{Hit, SearchAnswer, SearchQuestion, Stats},
    sql::{self, World as _},
};

/// Hits of a page that names no limit.
const HITS: usize = 20;
/// Hits of a page at most.
const HITS_MAX: usize = 10_000;
/// Shards that are asked at once.
const SHARDS_AT_ONCE: usize = 64;
/// What makes a hit, besides the sort key.
const SHOWN: [&str; 6] = ["_id", "_doc", "_source", "_partition", "_offset", "_item"];

/// Answers a search.
pub(super) async fn run(engine: &Engine, context: &Arc<QueryContext>, question: &SearchQuestion, started: Instant) -> Result<SearchAnswer, Problem> {
    let limit = question.limit.unwrap_or(HITS);
    if limit > HITS_MAX {
        return Err(Problem::new(Code::BadRequest, format!("a page of {limit} hits"))
            .hint(format!("a page holds {HITS_MAX} at most; `after` gives the next one")));
    }
    let name: CollectionName = question.collection.parse().map_err(|e: proto::address::Malformed| Problem::new(Code::BadRequest, e.to_string()))?;
    let catalog = engine.catalog();
    let pins = Pins::take(context, &catalog, &BTreeSet::from([name.clone()]), &question.at_least).await?;
    pins.complete_or(question.allow_partial)?;
    let pinned = pins.collection(&name).ok_or_else(|| super::pins::no_collection(&name, &catalog))?;
    let world = PinnedWorld::new(Arc::clone(&catalog), &pins);
    let (condition, columns, warnings) = sql::search_condition(&question.query, &name, &world)?;
    warnings.into_iter().for_each(|warning| context.report.warn(warning));
    let filter = filter(engine, condition, columns, question)?;
    let keys = vec![sort_key(question.sort.as_deref(), &name, &world, context)?];
    let after = question.after.as_deref().map(|text| cursor::read(text, &keys)).transpose()?;
    let page = Page { keys, after, limit };
    let (found, total) = page.collect(context, pinned, filter, engine.options.query_bytes_max).await?;
    let (hits, last) = page.merge(&found, &catalog)?;
    let after = last.filter(|_| hits.len() == limit && limit > 0).map(|last| cursor::write(&page.keys, &last));
    let mut stats =
        Stats { query_id: Some(context.id), elapsed_ms: u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX), ..Stats::default() };
    pins.fill(&mut stats);
    context.report.fill(&mut stats);
    Ok(SearchAnswer { hits, total, after, stats })
}

/// The search and its bounds in time as conditions that a leaf decides.
fn filter(engine: &Engine, condition: Expr, mut columns: Vec<Column>, question: &SearchQuestion) -> Result<Vec<Expr>, Problem> {
    let bound = |text: &str| instant(text).map(|micros| lit(ScalarValue::TimestampMicrosecond(Some(micros), Some("UTC".into()))));
    let mut all = condition;
    if let Some(from) = &question.from {
        all = all.and(col("_time").gt_eq(bound(from)?));
    }
    if let Some(to) = &question.to {
        all = all.and(col("_time").lt(bound(to)?));
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
    let simple = simplifier.coerce(all, &schema).and_then(|all| simplifier.simplify(all)).map_err(failure::problem)?;
    let yes = lit(true);
    let conditions: Vec<Expr> = split_conjunction_owned(simple).into_iter().filter(|part| *part != yes).collect();
    match conditions.iter().find(|part| !is_exact(part)) {
        Some(part) => Err(Problem::new(Code::NotSupported, format!("a search cannot decide {part}")).hint("ask by SQL: SELECT … WHERE search('…')")),
        None => Ok(conditions),
    }
}

/// Microseconds since 1970: a time as statements and documents spell it, or a number of seconds, milli-, micro- or nanoseconds by its size.
fn instant(text: &str) -> Result<i64, Problem> {
    let text = text.trim();
    text.parse().ok().and_then(time_of_int).or_else(|| time_of_text(text)).ok_or_else(|| {
        let shown: String = text.chars().take(100).collect();
        Problem::new(Code::BadRequest, format!("{shown:?} is not a time"))
            .hint("write 2026-01-31T10:00:00Z, 2026-01-31, or a number of seconds or milliseconds since 1970")
    })
}

/// `_time`, newest first, unless something else was said; a path from the smallest on.
fn sort_key(sort: Option<&str>, collection: &CollectionName, world: &PinnedWorld, context: &QueryContext) -> Result<SortKey, Problem> {
    let said = sort.map(str::trim).filter(|sort| !sort.is_empty()).unwrap_or("_time:desc");
    let (name, descending) = match said.rsplit_once(':') {
        Some((name, "desc")) => (name, true),
        Some((name, "asc")) => (name, false),
        _ => (said, said == "_time"),
    };
    let key = |column| Ok(SortKey { column, descending, nulls_first: false });
    if name == "_score" {
        return Err(Problem::new(Code::NotSupported, "hits have no score yet").hint("sort by _time or by a path"));
    }
    if let Some(always) = Column::always(name) {
        return key(always);
    }
    if world.catalog().field(collection, name).is_some() {
        return Err(Problem::new(Code::NotSupported, format!("a search cannot sort by the field {name}"))
            .hint("ask by SQL: SELECT … WHERE search('…') ORDER BY …"));
    }
    let path = Path::parse(name).map_err(|e| Problem::new(Code::BadRequest, format!("sort: {e}")).hint("write sort=user.name:desc"))?;
    key(typed(path, collection, world, context))
}

/// The path in its own type; one of mixed kinds in the order of ORDER BY.
fn typed(path: Path, collection: &CollectionName, world: &PinnedWorld, context: &QueryContext) -> Column {
    use plan::Kinds;
    let known = world.paths(collection);
    let spelled = path.to_string().to_lowercase();
    let mut alike = known.paths.keys().filter(|other| other.to_string().to_lowercase() == spelled);
    let path = match (known.paths.contains_key(&path), alike.next(), alike.next()) {
        (false, Some(only), None) => only.clone(),
        _ => path,
    };
    let kinds = known.paths.get(&path).copied().unwrap_or_default();
    if kinds == Kinds::default() && !known.overflow {
        context.report.warn(format!("no document has {path}, so nothing is sorted by it"));
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
            query: context.id,
            shard,
            read: context.read,
            time_path: pinned.time_path.clone(),
            columns: columns.clone(),
            filter: filter.clone(),
            stage: Stage::Top { keys: self.keys.clone(), after: self.after.clone(), limit: self.limit },
            deadline: context.deadline,
        };
        let requests: Vec<ScanRequest> = pinned.shards.iter().map(|(shard, _)| request(*shard)).collect();
        let shards = stream::iter(requests).map(|request| one_shard(context, request, scan, &bytes, bytes_max)).buffer_unordered(SHARDS_AT_ONCE);
        let (mut batches, mut total) = (Vec::new(), 0);
        for (rows, matched) in shards.try_collect::<Vec<_>>().await? {
            batches.extend(rows);
            total += matched;
        }
        Ok((concat_batches(&schema, &batches).map_err(|e| failure::problem(DataFusionError::from(e)))?, total))
    }

    /// The page's hits in order, and where it ends.
    fn merge(&self, found: &RecordBatch, catalog: &Catalog) -> Result<(Vec<Hit>, Option<After>), Problem> {
        let broken = |e: DataFusionError| failure::problem(e);
        let rows = Rows::of(found)?;
        let field = |key: &SortKey| {
            SortField::new_with_options(key.column.view.to.arrow(), SortOptions { descending: key.descending, nulls_first: key.nulls_first })
        };
        let converter = RowConverter::new(self.keys.iter().map(field).collect()).map_err(|e| broken(e.into()))?;
        let keys = self.keys.iter().map(|key| column(found, &key.column)).collect::<Result<Vec<ArrayRef>, _>>()?;
        let ranks = converter.convert_columns(&keys).map_err(|e| broken(e.into()))?;
        let addresses = (0..found.num_rows()).map(|row| rows.address(row)).collect::<Result<Vec<Address>, _>>()?;
        let mut order: Vec<usize> = (0..found.num_rows()).collect();
        order.sort_unstable_by(|a, b| ranks.row(*a).cmp(&ranks.row(*b)).then_with(|| addresses[*a].cmp(&addresses[*b])));
        order.truncate(self.limit);
        let hits = order.iter().map(|row| rows.hit(*row, &addresses[*row], catalog)).collect();
        let Some(last) = order.last() else { return Ok((hits, None)) };
        let values = keys.iter().map(|key| ScalarValue::try_from_array(key, *last)).collect::<Result<_, _>>().map_err(broken)?;
        Ok((hits, Some(After { values, address: addresses[*last].clone() })))
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
                    return Err(Problem::new(Code::LimitReached, "the hits of this page need more memory than a query may have")
                        .hint("ask for smaller pages with limit"));
                }
                batches.push(batch);
            }
            Chunk::End(trailer) => {
                context.report.add(scan, &trailer);
                return Ok((batches, trailer.matched));
            }
        }
    }
    Err(Problem::new(Code::Incomplete, format!("shard {} stopped answering half-way", shard.number)).hint("try again"))
}

fn column(found: &RecordBatch, column: &Column) -> Result<ArrayRef, Problem> {
    let missing = || Problem::new(Code::Internal, format!("a leaf did not send {}", column.name()));
    found.column_by_name(&column.name()).cloned().ok_or_else(missing)
}

/// What was found, by what it is.
struct Rows {
    schema: SchemaRef,
    found: RecordBatch,
}

impl Rows {
    fn of(found: &RecordBatch) -> Result<Self, Problem> {
        for name in SHOWN {
            let always = Column::always(name).ok_or_else(|| Problem::new(Code::Internal, format!("{name} is no column")))?;
            let array = column(found, &always)?;
            if *array.data_type() != always.view.to.arrow() {
                return Err(Problem::new(Code::Internal, format!("a leaf sent {name} as {}", array.data_type())));
            }
        }
        Ok(Self { schema: found.schema(), found: found.clone() })
    }

    fn array(&self, name: &str) -> &ArrayRef {
        let (index, _) = self.schema.column_with_name(name).expect("checked when it was made");
        self.found.column(index)
    }

    fn text(&self, name: &str, row: usize) -> &str {
        let array = self.array(name).as_string_view();
        if array.is_null(row) { "" } else { array.value(row) }
    }

    fn int(&self, name: &str, row: usize) -> i64 {
        self.array(name).as_primitive::<Int64Type>().value(row)
    }

    /// With the item always: it stands for the first of many and for the only one alike, and orders as both do.
    fn address(&self, row: usize) -> Result<Address, Problem> {
        let source: SourceName =
            self.text("_source", row).parse().map_err(|e: proto::address::Malformed| Problem::new(Code::Internal, e.to_string()))?;
        let partition = i32::try_from(self.int("_partition", row)).unwrap_or_default();
        let item = u32::try_from(self.int("_item", row)).unwrap_or_default();
        Ok(Address { source, partition, offset: self.int("_offset", row), item: Some(item) })
    }

    fn hit(&self, row: usize, address: &Address, catalog: &Catalog) -> Hit {
        let (id, document) = (self.text("_id", row).to_owned(), self.text("_doc", row).to_owned());
        let text_source = catalog.sources.get(&address.source).is_some_and(|source| source.settings.rules.format == Format::Text);
        let own = |id: &Address| (&id.source, id.partition, id.offset) == (&address.source, address.partition, address.offset);
        // A document without a key is named by its address, spelled as it is; of one with a key only a later item shows.
        let spelled = match id.parse::<Address>() {
            Ok(own_address) if own(&own_address) => id.clone(),
            _ => Address { item: address.item.filter(|item| *item > 0), ..address.clone() }.to_string(),
        };
        let json = !text_source && (address.source.is_push() || proto::json::parse(document.as_bytes()).is_ok());
        Hit { id, address: spelled, document, json }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for text in [
            "2026-01-31T10:00:00Z",
            "2026-01-31T11:00:00+01:00",
            "2026-01-31 10:00:00",
            "2026-01-31T10:00:00.0",
            "1769853600",
            "1769853600000",
            "1769853600000000",
            "1769853600000000000",
        ] {
            assert_eq!(instant(text), Ok(1_769_853_600_000_000), "{text}");
        }
        assert_eq!(instant("2026-01-31"), Ok(1_769_817_600_000_000));
        for text in ["", "yesterday", "2026-13-01", "1e9"] {
            assert_eq!(instant(text).map_err(|p| p.code), Err(Code::BadRequest), "{text}");
        }
    }
}
