//! A leaf, a change log and a tailer in memory. The leaf computes every request by brute force and remembers what it
//! was asked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Instant,
};

use async_trait::async_trait;
use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array},
        compute::{SortOptions, and_kleene, concat_batches, filter_record_batch, take_record_batch},
        row::{OwnedRow, RowConverter, SortField},
    },
    common::DFSchema,
    datasource::memory::MemorySourceConfig,
    physical_plan::{
        ExecutionPlan as _,
        aggregates::{AggregateExec, AggregateMode},
        collect,
    },
    prelude::SessionContext,
    scalar::ScalarValue,
};
use futures::{StreamExt as _, stream};
use parking_lot::Mutex;
use plan::{
    Column, Kinds, Path, PathKinds, Type, What,
    clause::Matcher,
    path::Step,
    scan::{
        After, Chunk, DeadLetter, Document, FieldStatus, Misfit, PartialAggregate, Pinned, QueryId, Scan, ScanRequest,
        ScanStream, ShardStatus, SortKey, Stage, Trailer,
    },
};
use proto::{
    Address, Catalog, Code, CollectionUid, PositionVector, Problem, SourceName,
    catalog::{Change, ChangeRecord, SourceSettings},
    ingest::{Batch, Ingest, Loss, PartitionStatus, Push, Pushed, Pushes, ShardId, Stored, Verdict},
    record::{Record, RequestKey},
    status::TailStatus,
    tailer::{Changes, LogHealth, Tailing},
};
use serde_json::Value;
use tokio::sync::watch;

use super::super::shard_table::schema_of;

/// A leaf in memory.
#[derive(Default)]
pub struct FakeLeaf {
    pub shards: Mutex<BTreeMap<ShardId, Vec<(Address, Value)>>>,
    pub requests: Mutex<Vec<ScanRequest>>,
    pub pinned: Mutex<BTreeSet<(QueryId, ShardId)>>,
    pub wanted: Mutex<Vec<(ShardId, PositionVector)>>,
    /// How often it was started.
    pub boot: AtomicU64,
    /// Shards that do not answer.
    pub away: Mutex<BTreeSet<u32>>,
    /// What scans do instead of answering.
    pub fault: Mutex<Option<Fault>>,
    /// Scans that wait for ever and were not dropped yet.
    pub hanging: Arc<AtomicUsize>,
}

/// What scans do instead of answering.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Fault {
    Hang,
    NoTrailer,
    Panic,
}

struct Hanging(Arc<AtomicUsize>);

impl Drop for Hanging {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl FakeLeaf {
    /// Adds a document to a shard.
    pub fn add(&self, shard: ShardId, document: Value) {
        let mut shards = self.shards.lock();
        let documents = shards.entry(shard).or_default();
        let address = Address {
            source: SourceName::push(),
            partition: i32::try_from(shard.number).expect("small"),
            offset: documents.len() as i64,
            item: None,
        };
        documents.push((address, document));
    }

    fn compute(&self, request: &ScanRequest) -> (Vec<RecordBatch>, Trailer) {
        let documents = self.shards.lock().get(&request.shard).cloned().unwrap_or_default();
        let mut wanted = request.columns.clone();
        let more = request.filter.iter().flat_map(|f| {
            f.column_refs()
                .into_iter()
                .map(|c| Column::parse(&c.name).expect("a flat name"))
                .collect::<Vec<_>>()
        });
        let keys = if let Stage::Top { keys, .. } = &request.stage {
            keys.clone()
        } else {
            Vec::new()
        };
        for column in more.chain(keys.iter().map(|key| key.column.clone())) {
            if !wanted.contains(&column) {
                wanted.push(column);
            }
        }
        let mut misfits = Vec::new();
        let arrays = wanted
            .iter()
            .map(|column| array(column, &documents, &mut misfits))
            .collect::<Vec<ArrayRef>>();
        let options = RecordBatchOptions::new().with_row_count(Some(documents.len()));
        let all = RecordBatch::try_new_with_options(schema_of(&wanted), arrays, &options).expect("a batch");
        let passes = passing(request, &all);
        let addresses: Vec<Address> = documents
            .iter()
            .zip(passes.iter())
            .filter(|(_, passes)| *passes == Some(true))
            .map(|((a, _), _)| a.clone())
            .collect();
        let matched = filter_record_batch(&all, &passes).expect("filtered");
        let shown = matched
            .project(&(0..request.columns.len()).collect::<Vec<_>>())
            .expect("projected");
        let batches = match &request.stage {
            Stage::Rows { limit } => vec![shown.slice(0, shown.num_rows().min(limit.unwrap_or(usize::MAX)))],
            Stage::Top { keys, after, limit } => vec![top(&matched, &shown, &addresses, keys, after.as_ref(), *limit)],
            Stage::Partial(partial) => partial_states(partial, shown),
        };
        let shipped = batches.iter().map(|b| b.num_rows() as u64).sum();
        (
            batches,
            Trailer {
                documents: documents.len() as u64,
                matched: addresses.len() as u64,
                shipped,
                misfits,
                ..Trailer::default()
            },
        )
    }
}

fn passing(request: &ScanRequest, all: &RecordBatch) -> BooleanArray {
    let schema = DFSchema::try_from(all.schema().as_ref().clone()).expect("a schema");
    let state = SessionContext::new().state();
    let mut passes = BooleanArray::from(vec![true; all.num_rows()]);
    for condition in &request.filter {
        assert!(
            condition.column_refs().iter().all(|c| c.relation.is_none()),
            "{condition} has a qualifier"
        );
        let physical = state
            .create_physical_expr(condition.clone(), &schema)
            .expect("a physical expression");
        let value = physical
            .evaluate(all)
            .expect("evaluated")
            .into_array(all.num_rows())
            .expect("an array");
        passes = and_kleene(&passes, value.as_boolean()).expect("and");
    }
    passes
}

/// The first rows by the keys and then the address.
fn top(
    matched: &RecordBatch,
    shown: &RecordBatch,
    addresses: &[Address],
    keys: &[SortKey],
    after: Option<&After>,
    limit: usize,
) -> RecordBatch {
    let field = |key: &SortKey| {
        SortField::new_with_options(
            key.column.view.to.arrow(),
            SortOptions {
                descending: key.descending,
                nulls_first: key.nulls_first,
            },
        )
    };
    let converter = RowConverter::new(keys.iter().map(field).collect()).expect("a converter");
    let arrays = |batch: &RecordBatch| {
        keys.iter()
            .map(|key| Arc::clone(batch.column_by_name(&key.column.name()).expect("a key")))
            .collect::<Vec<_>>()
    };
    let rows = converter.convert_columns(&arrays(matched)).expect("rows");
    let after: Option<(OwnedRow, Address)> = after.map(|after| {
        let values: Vec<ArrayRef> = after
            .values
            .iter()
            .map(|value| value.to_array().expect("an array"))
            .collect();
        (
            converter.convert_columns(&values).expect("rows").row(0).owned(),
            after.address.clone(),
        )
    });
    let mut order: Vec<(OwnedRow, &Address, u32)> = (0..matched.num_rows())
        .map(|i| (rows.row(i).owned(), &addresses[i], i as u32))
        .collect();
    order.retain(|(row, address, _)| {
        after
            .as_ref()
            .is_none_or(|(after_row, after_address)| (row, *address) > (after_row, after_address))
    });
    order.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let winners: UInt32Array = order.iter().take(limit).map(|(_, _, index)| *index).collect();
    take_record_batch(shown, &winners).expect("taken")
}

/// DataFusion's own partial operator over the rows.
fn partial_states(partial: &PartialAggregate, rows: RecordBatch) -> Vec<RecordBatch> {
    // A leaf does not know which kinds a path has had.
    let rows = rows.with_schema(Arc::clone(&partial.input));
    let rows = rows.expect("the schema is the planned one");
    let source = MemorySourceConfig::try_new_exec(&[vec![rows]], Arc::clone(&partial.input), None).expect("a source");
    let aggregate = AggregateExec::try_new(
        AggregateMode::Partial,
        partial.group_by.clone(),
        partial.aggregates.clone(),
        partial.filters.clone(),
        source,
        Arc::clone(&partial.input),
    );
    let aggregate = aggregate.expect("an aggregate");
    assert_eq!(
        aggregate.schema(),
        partial.output,
        "the states' schema is the planned one"
    );
    let run = async {
        collect(Arc::new(aggregate), SessionContext::new().task_ctx())
            .await
            .expect("states")
    };
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .build()
                    .expect("a runtime")
                    .block_on(run)
            })
            .join()
            .expect("no panic")
    })
}

fn array(column: &Column, documents: &[(Address, Value)], misfits: &mut Vec<Misfit>) -> ArrayRef {
    let (mut there, mut unfit) = (0, 0);
    let values: Vec<ScalarValue> = documents
        .iter()
        .map(|(address, document)| {
            let value = scalar(column, address, document);
            if let What::Path(path) = &column.what {
                let found = at(document, path);
                there += u64::from(found.is_some_and(|v| !v.is_null()));
                unfit += u64::from(found.is_some_and(|v| !v.is_null()) && value.is_null());
            }
            value
        })
        .collect();
    if there > 0 {
        misfits.push(Misfit {
            column: column.clone(),
            values: unfit,
            of: there,
        });
    }
    match values.is_empty() {
        true => datafusion::arrow::array::new_empty_array(&column.view.to.arrow()),
        false => ScalarValue::iter_to_array(values).expect("one type"),
    }
}

fn at<'a>(document: &'a Value, path: &Path) -> Option<&'a Value> {
    path.steps().iter().try_fold(document, |value, step| match step {
        Step::Key(key) => value.get(&**key),
        Step::Index(index) => value.get(*index as usize),
    })
}

fn scalar(column: &Column, address: &Address, document: &Value) -> ScalarValue {
    let micros = |seconds: i64| ScalarValue::TimestampMicrosecond(Some(seconds * 1_000_000), Some("UTC".into()));
    let text = |text: String| ScalarValue::Utf8View(Some(text));
    match &column.what {
        What::Id => text(
            document
                .get("_id")
                .and_then(Value::as_str)
                .map_or_else(|| address.to_string(), str::to_owned),
        ),
        What::Time => document
            .get("at")
            .and_then(Value::as_i64)
            .map_or(ScalarValue::TimestampMicrosecond(None, Some("UTC".into())), micros),
        What::Ingested => micros(address.offset),
        What::Source => text(address.source.to_string()),
        What::Partition => ScalarValue::Int64(Some(i64::from(address.partition))),
        What::Offset => ScalarValue::Int64(Some(address.offset)),
        What::Item => ScalarValue::Int64(Some(i64::from(address.item.unwrap_or(0)))),
        What::Doc => text(document.to_string()),
        What::Key => ScalarValue::Utf8View(None),
        What::Path(path) => of_value(column, at(document, path)),
        What::Search(clause) => {
            let text = document.to_string();
            ScalarValue::Boolean(Some(
                Matcher::new(clause).matches(&proto::json::parse(text.as_bytes()).expect("JSON")),
            ))
        }
    }
}

fn of_value(column: &Column, value: Option<&Value>) -> ScalarValue {
    let (cast, string) = (column.view.cast, value.and_then(Value::as_str));
    match column.view.to {
        Type::Bool => ScalarValue::Boolean(value.and_then(Value::as_bool)),
        Type::Int => ScalarValue::Int64(
            value
                .and_then(Value::as_i64)
                .or(string.filter(|_| cast).and_then(|s| s.parse().ok())),
        ),
        Type::Double => ScalarValue::Float64(
            value
                .and_then(Value::as_f64)
                .or(string.filter(|_| cast).and_then(|s| s.parse().ok())),
        ),
        Type::Text => ScalarValue::Utf8View(
            string
                .map(str::to_owned)
                .or(value.filter(|v| cast && !v.is_null()).map(ToString::to_string)),
        ),
        Type::Time => ScalarValue::TimestampMicrosecond(None, Some("UTC".into())),
        Type::Json | Type::Canonical => ScalarValue::LargeUtf8(value.filter(|v| !v.is_null()).map(ToString::to_string)),
        Type::Rank => {
            let text = value.filter(|v| !v.is_null()).map(ToString::to_string);
            let rank = |text: String| plan::value::rank(&proto::json::parse(text.as_bytes()).expect("JSON"));
            ScalarValue::Utf8View(text.map(rank))
        }
    }
}

fn kinds_of(documents: &[(Address, Value)]) -> PathKinds {
    fn walk(path: &Path, value: &Value, kinds: &mut PathKinds) {
        let kind = match value {
            Value::Null => Kinds::NULL,
            Value::Bool(_) => Kinds::BOOL,
            Value::Number(n) if n.is_i64() => Kinds::INT,
            Value::Number(_) => Kinds::FLOAT,
            Value::String(_) => Kinds::TEXT,
            Value::Array(_) => Kinds::ARRAY,
            Value::Object(_) => Kinds::OBJECT,
        };
        *kinds.paths.entry(path.clone()).or_default() |= kind;
        if let Value::Object(entries) = value {
            entries
                .iter()
                .for_each(|(key, value)| walk(&path.key(key), value, kinds));
        }
    }
    let mut kinds = PathKinds::default();
    documents
        .iter()
        .for_each(|(_, document)| walk(&Path::default(), document, &mut kinds));
    kinds
}

#[async_trait]
impl Scan for FakeLeaf {
    async fn pin(
        &self,
        query: QueryId,
        shard: ShardId,
        at_least: &PositionVector,
        _: Instant,
    ) -> Result<Pinned, Problem> {
        if self.away.lock().contains(&shard.number) {
            return Err(Problem::new(Code::Unavailable, "it is away"));
        }
        self.pinned.lock().insert((query, shard));
        self.wanted.lock().push((shard, at_least.clone()));
        let documents = self.shards.lock().get(&shard).cloned().unwrap_or_default();
        let mut positions = PositionVector::default();
        documents
            .iter()
            .for_each(|(a, _)| positions.advance(&a.source, a.partition, a.offset));
        Ok(Pinned {
            positions,
            boot: self.boot.load(Ordering::SeqCst),
            paths: Arc::new(kinds_of(&documents)),
            documents: documents.len() as u64,
            freshness_ms: 1,
        })
    }

    fn unpin(&self, query: QueryId) {
        self.pinned.lock().retain(|(held, _)| *held != query);
    }

    fn scan(&self, request: ScanRequest) -> ScanStream {
        assert!(
            self.pinned.lock().contains(&(request.query, request.shard)),
            "a scan reads a pinned view"
        );
        self.requests.lock().push(request.clone());
        match *self.fault.lock() {
            Some(Fault::Hang) => {
                self.hanging.fetch_add(1, Ordering::SeqCst);
                let hanging = Hanging(Arc::clone(&self.hanging));
                return stream::once(async move {
                    let _hanging = hanging;
                    std::future::pending().await
                })
                .boxed();
            }
            Some(Fault::Panic) => panic!("a scan that panics"),
            _ => {}
        }
        let (batches, trailer) = self.compute(&request);
        let batches = batches
            .into_iter()
            .flat_map(|batch| [Ok(Chunk::SoFar(trailer.clone())), Ok(Chunk::Rows(batch))])
            .collect::<Vec<_>>();
        let end = (*self.fault.lock() != Some(Fault::NoTrailer)).then_some(Ok(Chunk::End(trailer)));
        stream::iter(batches.into_iter().chain(end)).boxed()
    }

    async fn document(&self, shard: ShardId, id: &str) -> Result<Option<Document>, Problem> {
        let shards = self.shards.lock();
        let found = shards.get(&shard).and_then(|documents| {
            documents.iter().find(|(a, d)| {
                d.get("_id")
                    .and_then(Value::as_str)
                    .map_or_else(|| a.to_string() == id, |own| own == id)
            })
        });
        Ok(found.map(|(address, document)| Document {
            address: address.clone(),
            id: id.to_owned(),
            bytes: document.to_string().into(),
            json: true,
        }))
    }

    async fn fields(&self, shard: ShardId) -> Result<Vec<FieldStatus>, Problem> {
        if self.away.lock().contains(&shard.number) {
            return Err(Problem::new(Code::Unavailable, "it is away"));
        }
        let documents = self.shards.lock().get(&shard).cloned().unwrap_or_default();
        let status = |(path, kinds)| FieldStatus {
            path,
            kinds,
            documents: documents.len() as u64,
            indexed: "columns",
            sample: None,
        };
        Ok(kinds_of(&documents).paths.into_iter().map(status).collect())
    }

    async fn status(&self, shard: ShardId) -> Result<ShardStatus, Problem> {
        Ok(ShardStatus {
            shard,
            positions: PositionVector::default(),
            outcomes: Default::default(),
            tail: 0,
            splits: Vec::new(),
            bytes: 0,
        })
    }

    async fn dead_letters(&self, _: ShardId, _: usize) -> Result<Vec<DeadLetter>, Problem> {
        Ok(Vec::new())
    }
}

fn not_here<T>() -> Result<T, Problem> {
    Err(Problem::new(Code::NotSupported, "not in this test"))
}

#[async_trait]
impl Ingest for FakeLeaf {
    async fn write(&self, _: Batch) -> Result<Verdict, Problem> {
        not_here()
    }
    async fn pushed(&self, _: ShardId, _: i32, _: i64, _: &RequestKey, _: Instant) -> Result<Pushed, Problem> {
        not_here()
    }
    async fn stored(&self, _: ShardId, _: &SourceName, _: i32) -> Result<Stored, Problem> {
        not_here()
    }
    async fn partitions(&self, _: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
        Ok(Vec::new())
    }
    async fn note_loss(&self, _: ShardId, _: Loss) -> Result<(), Problem> {
        not_here()
    }
    async fn losses(&self, _: CollectionUid) -> Result<Vec<Loss>, Problem> {
        Ok(Vec::new())
    }
}

#[async_trait]
impl Pushes for FakeLeaf {
    async fn push(&self, _: Push, _: Instant) -> Result<Pushed, Problem> {
        not_here()
    }
}

/// A change log in memory.
pub struct FakeChanges(pub watch::Sender<Arc<Catalog>>);

#[async_trait]
impl Changes for FakeChanges {
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.0.subscribe()
    }
    async fn propose(&self, change: Change, expected: Option<u64>) -> Result<Arc<Catalog>, Problem> {
        let record = ChangeRecord {
            uid: uuid::Uuid::now_v7(),
            level: proto::catalog::LEVEL,
            expected,
            change,
        };
        let (after, result) = self.0.borrow().apply(&record);
        let after = Arc::new(after);
        self.0.send_replace(Arc::clone(&after));
        result.map(|()| after)
    }
    fn health(&self) -> LogHealth {
        LogHealth::default()
    }
}

/// A tailer without sources.
#[derive(Default)]
pub struct FakeTailing {
    pub rows: Mutex<Vec<TailStatus>>,
    /// How often it was asked for them.
    pub asked: AtomicUsize,
}

#[async_trait]
impl Tailing for FakeTailing {
    async fn status(&self) -> Result<Vec<TailStatus>, Problem> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        Ok(self.rows.lock().clone())
    }
    async fn ends(&self, _: &SourceSettings) -> Result<Vec<i64>, Problem> {
        not_here()
    }
    async fn preview(&self, _: &SourceSettings, _: usize) -> Result<Vec<(i32, Record)>, Problem> {
        not_here()
    }
}

/// All rows of some batches as one.
pub fn one_batch(batches: &[RecordBatch]) -> Option<RecordBatch> {
    batches
        .first()
        .map(|first| concat_batches(&first.schema(), batches).expect("one schema"))
}
