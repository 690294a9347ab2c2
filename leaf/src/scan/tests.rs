//! Scan tests: scans agree with a model, which is DataFusion over a plain table with the same columns.

mod aggregates;
mod index;
mod paging;
mod random;
mod state_cache;

use std::{collections::HashMap, sync::Arc, time::Duration};

use datafusion::{
    arrow::{compute::filter_record_batch, util::pretty::pretty_format_batches},
    common::{DFSchema, cast::as_boolean_array},
    logical_expr::{Expr, lit, physical_planning_context::PhysicalPlanningContext, simplify::SimplifyContext},
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{create_physical_expr, execution_props::ExecutionProps},
};
use futures::executor::block_on;
use plan::{
    Column, PathKinds,
    scan::{ReadCounts, ScanRequest, ScanSource, ScanTrailer, SortKey},
    search::Match,
};
use proto::{Address, Code, PositionVector, SourceName, catalog::CollectionUid, ingest::ShardId, record::TimeKind};
use roaring::RoaringBitmap;

use random::{SeededRng, clause, column, random_condition, random_documents};

use super::*;
use crate::{
    document::{Document, Header},
    raw::{RawRows, parts::ReadParts},
    split::{Segment, SplitOrigin},
    view::{Documents, SegmentView},
};

// Fixtures.

struct MapStore(HashMap<Address, Document>);

impl Documents for MapStore {
    fn read(&self, addresses: &[Address]) -> Result<Vec<Document>, Error> {
        let missing = |address: &Address| Error::Problem(Problem::new(Code::Internal, format!("{address} is missing")));
        addresses
            .iter()
            .map(|address| self.0.get(address).cloned().ok_or_else(|| missing(address)))
            .collect()
    }
}

fn document(offset: i64, text: &str) -> Arc<Document> {
    let address = Address {
        source: SourceName::push(),
        partition: 0,
        offset,
        item: None,
    };
    let header = Header {
        ingested_ms: 1_700_000_000_000 + offset,
        time_ms: offset * 1_000,
        time_kind: TimeKind::Create,
        json: true,
        ..Header::default()
    };
    Arc::new(Document {
        address,
        header,
        bytes: text.as_bytes().to_vec().into(),
    })
}

fn shard() -> ShardId {
    let collection: CollectionUid = serde_json::from_str("\"00000000-0000-0000-0000-000000000001\"").expect("a uid");
    ShardId { collection, number: 0 }
}

/// What the file of a split says of it.
fn origin() -> SplitOrigin {
    SplitOrigin {
        uuid: uuid::Uuid::nil(),
        shard: shard(),
        ranges: std::collections::BTreeMap::new(),
    }
}

/// A view with all documents in the tail.
fn tail(documents: &[Arc<Document>]) -> ReadView {
    view(documents, &[], &[])
}

/// A view with segments of these sizes and the rest in the tail, without the deleted documents.
fn view(documents: &[Arc<Document>], sizes: &[usize], deleted: &[u32]) -> ReadView {
    let store = MapStore(
        documents
            .iter()
            .map(|document| (document.address.clone(), document.as_ref().clone()))
            .collect(),
    );
    let mut rest = documents;
    let mut first = 0;
    let mut segments = Vec::new();
    for size in sizes {
        let (in_segment, after) = rest.split_at(*size);
        let segment = Segment::in_memory(in_segment).expect("a segment");
        let deleted: RoaringBitmap = deleted
            .iter()
            .filter_map(|number| number.checked_sub(first))
            .filter(|number| *number < *size as u32)
            .collect();
        segments.push(SegmentView {
            segment: Arc::new(segment),
            deleted: Arc::new(deleted),
        });
        (rest, first) = (after, first + *size as u32);
    }
    let live = rest
        .iter()
        .enumerate()
        .filter(|(number, _)| !deleted.contains(&(first + *number as u32)));
    ReadView {
        shard: shard(),
        positions: PositionVector::default(),
        paths: Arc::new(PathKinds::default()),
        segments,
        tail: Arc::new(live.map(|(_, document)| document.clone()).collect()),
        store: Arc::new(store),
    }
}

fn request(read: ScanSource, columns: &[&str], filter: Vec<Expr>, stage: Stage) -> ScanRequest {
    let columns = columns
        .iter()
        .map(|name| Column::parse(name).expect("a column"))
        .collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    ScanRequest {
        shards: vec![shard()],
        read,
        time_path: None,
        columns,
        filter,
        stage,
        deadline,
    }
}

fn pool() -> ScanPool {
    ScanPool::new(2, 1 << 20).expect("threads")
}

/// Runs a scan and returns its batches and its trailer.
fn scan(view: &ReadView, request: ScanRequest) -> Result<(Vec<RecordBatch>, ScanTrailer), Problem> {
    scan_in(&pool(), view, request)
}

/// The same in a pool that has run other scans.
fn scan_in(pool: &ScanPool, view: &ReadView, request: ScanRequest) -> Result<(Vec<RecordBatch>, ScanTrailer), Problem> {
    let mut stream = run(view.clone(), Arc::new(SharedRequest::new(request)), pool);
    let (mut batches, mut shipped) = (Vec::new(), 0);
    while let Some(chunk) = block_on(stream.next()) {
        match chunk? {
            ScanChunk::Rows(batch) => batches.push(batch),
            ScanChunk::Progress(progress) => shipped = progress.shipped,
            ScanChunk::End(trailer) => {
                assert!(block_on(stream.next()).is_none(), "nothing comes after the trailer");
                assert_eq!(
                    trailer.shipped, shipped,
                    "the last progress has the counts of the trailer"
                );
                assert_eq!(
                    trailer.shipped,
                    batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>()
                );
                return Ok((batches, trailer));
            }
        }
    }
    panic!("the stream ended without a trailer")
}

/// The rows as sorted lines of text.
fn lines(batches: &[RecordBatch]) -> Vec<String> {
    let mut lines = in_order(batches);
    lines.sort();
    lines
}

fn in_order(batches: &[RecordBatch]) -> Vec<String> {
    let text = |batch: &RecordBatch| {
        pretty_format_batches(std::slice::from_ref(batch))
            .expect("a table")
            .to_string()
    };
    // The width of a printed column depends on its batch.
    let line = |line: &str| line.split('|').map(str::trim).collect::<Vec<_>>().join("|");
    let rows = |batch: &RecordBatch| {
        text(batch)
            .lines()
            .skip(3)
            .filter(|line| line.starts_with('|'))
            .map(line)
            .collect::<Vec<_>>()
    };
    batches
        .iter()
        .filter(|batch| batch.num_rows() > 0)
        .flat_map(rows)
        .collect()
}

/// A plain table: the columns of all documents as one batch.
fn table(documents: &[Arc<Document>], names: &[String]) -> RecordBatch {
    let columns: Vec<Column> = names
        .iter()
        .map(|name| Column::parse(name).expect("a column"))
        .collect();
    let rows = RawRows::new(documents.iter().map(Arc::as_ref).collect(), &ReadParts::All, None);
    let places: Vec<u32> = (0..documents.len() as u32).collect();
    let arrays = columns
        .iter()
        .map(|column| rows.column(column, &places).array)
        .collect();
    batch_of(&plan::column::schema(&columns), arrays, documents.len()).expect("a batch")
}

/// The model's rows: DataFusion evaluates the condition on every row of a plain table, without its optimizer.
fn model(documents: &[Arc<Document>], columns: &[&str], filter: &Expr) -> Vec<String> {
    let mut names: Vec<String> = columns.iter().map(ToString::to_string).collect();
    let mut named: Vec<String> = filter
        .column_refs()
        .into_iter()
        .map(|column| column.name.clone())
        .filter(|name| !names.contains(name))
        .collect();
    named.sort();
    named.dedup();
    names.extend(named);
    let batch = table(documents, &names);
    let schema = DFSchema::try_from(batch.schema()).expect("a schema");
    let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(Arc::new(schema.clone())).build());
    let filter = simplifier.coerce(filter.clone(), &schema).expect("types");
    let filter = create_physical_expr(
        &filter,
        &schema,
        &ExecutionProps::new(),
        &PhysicalPlanningContext::default(),
    )
    .expect("a condition");
    let passes = filter
        .evaluate(&batch)
        .and_then(|passes| passes.into_array(batch.num_rows()))
        .expect("an answer");
    let shown: Vec<usize> = (0..columns.len()).collect();
    let rows = filter_record_batch(
        &batch.project(&shown).expect("columns"),
        as_boolean_array(&passes).expect("booleans"),
    )
    .expect("rows");
    lines(&[rows])
}

// Tests.

const SHOWN: [&str; 6] = ["_id", "a:int", "a:double!", "s:text", "o.\"p q\":json", "t:time"];

#[test]
fn random_filters_find_what_a_plain_table_finds() {
    let mut rng = SeededRng::new("random_filters_find_what_a_plain_table_finds");
    let documents = random_documents(&mut rng, 600);
    random_filters_find_among(&documents, &mut rng);
}

#[test]
fn filters_find_documents_that_could_not_be_indexed() {
    let mut rng = SeededRng::new("filters_find_documents_that_could_not_be_indexed");
    let mut documents = random_documents(&mut rng, 600);
    for number in [0, 7, 299, 300, 301, 599] {
        let fault = rng.pick(&["panic-in-build", "unbuildable"]);
        let text = documents[number]
            .text()
            .replacen('{', &format!("{{\"fault\":\"{fault}\","), 1);
        documents[number] = document(number as i64, &text);
    }
    random_filters_find_among(&documents, &mut rng);
    assert_eq!(
        view(&documents, &[600], &[]).segments[0].segment.unindexed(),
        6,
        "only these are not indexed"
    );
}

#[test]
fn with_many_unindexable_documents_others_lose_their_index_but_stay_in_the_results() {
    let texts = (0..400).map(|n| {
        document(
            n,
            &format!(
                r#"{{"n":{n},"fault":"{}"}}"#,
                if n % 4 == 0 { "unbuildable" } else { "none" }
            ),
        )
    });
    let documents: Vec<_> = texts.collect();
    let view = view(&documents, &[400], &[]);
    assert!(
        (100..400).contains(&view.segments[0].segment.unindexed()),
        "{}",
        view.segments[0].segment.unindexed()
    );
    let filter = column("n:int").lt(lit(333_i64));
    let (rows, _) = scan(
        &view,
        request(ScanSource::Auto, &["n:int"], vec![filter], Stage::Rows { limit: None }),
    )
    .expect("an answer");
    assert_eq!(lines(&rows).len(), 333);
}

fn random_filters_find_among(documents: &[Arc<Document>], rng: &mut SeededRng) {
    let deleted: Vec<u32> = (0..600).filter(|_| rng.below(10) == 0).collect();
    let live: Vec<_> = documents
        .iter()
        .enumerate()
        .filter(|(number, _)| !deleted.contains(&(*number as u32)))
        .map(|(_, document)| document.clone())
        .collect();
    let views = [
        view(documents, &[], &deleted),
        view(documents, &[600], &deleted),
        view(documents, &[50, 300, 1, 200], &deleted),
    ];
    let mut counts = ReadCounts::default();
    let only_raw = ReadCounts {
        index: 0,
        columns: 0,
        raw: live.len() as u64,
        cached: 0,
        pruned: 0,
    };
    for _ in 0..60 {
        let filter = random_condition(rng, 3);
        let expected = model(&live, &SHOWN, &filter);
        for view in &views {
            assert_eq!(view.documents(), live.len() as u64);
            let trailer = assert_finds(view, ScanSource::Auto, &filter, &expected);
            counts.add(&trailer.counts);
            let trailer = assert_finds(view, ScanSource::Raw, &filter, &expected);
            assert_eq!(trailer.counts, only_raw, "only raw documents are read");
        }
    }
    assert!(
        counts.index > 0 && counts.columns > 0,
        "index and columns are used: {counts:?}"
    );
}

fn assert_finds(view: &ReadView, read: ScanSource, filter: &Expr, expected: &[String]) -> ScanTrailer {
    let stage = Stage::Rows { limit: None };
    let (rows, trailer) = scan(view, request(read, &SHOWN, vec![filter.clone()], stage)).expect("an answer");
    assert_eq!(lines(&rows), expected, "{read:?}: {filter}");
    assert_eq!(
        (trailer.documents, trailer.matched),
        (view.documents(), expected.len() as u64),
        "{read:?}: {filter}"
    );
    trailer
}

#[test]
fn documents_are_not_read_raw_if_index_and_columns_suffice() {
    let texts: Vec<_> = (0..1_000)
        .map(|n| document(n, &format!(r#"{{"n":{n},"kind":"k{}","msg":"disk {n} full"}}"#, n % 10)))
        .collect();
    let view = view(&texts, &[1_000], &[5]);
    let filter = vec![
        column("kind:text").eq(lit("k5")),
        column(&clause(Some("msg"), Match::Words("disk".into()))),
    ];
    let (rows, trailer) = scan(
        &view,
        request(
            ScanSource::Auto,
            &["n:int", "kind:text"],
            filter,
            Stage::Rows { limit: None },
        ),
    )
    .expect("an answer");
    assert_eq!(lines(&rows).len(), 99);
    assert_eq!(
        trailer.counts,
        ReadCounts {
            index: 999,
            columns: 198,
            raw: 0,
            ..ReadCounts::default()
        }
    );
    assert!(trailer.index_time > Duration::ZERO);
    let stage = Stage::Top {
        keys: vec![key("n:int", true)],
        after: None,
        limit: 3,
        counts_all: true,
    };
    let (rows, trailer) = scan(&view, request(ScanSource::Auto, &["_doc"], vec![], stage)).expect("an answer");
    assert_eq!(in_order(&rows).len(), 3);
    assert_eq!(
        trailer.counts,
        ReadCounts {
            index: 0,
            columns: 999,
            raw: 3,
            ..ReadCounts::default()
        },
        "only the documents of the top k are read"
    );
    assert_eq!(trailer.index_time, Duration::ZERO, "there is no condition");
}

fn key(name: &str, descending: bool) -> SortKey {
    SortKey {
        column: Column::parse(name).expect("a column"),
        descending,
        nulls_first: false,
    }
}

#[test]
fn limits_are_respected_and_a_limit_of_zero_counts() {
    let mut rng = SeededRng::new("limits_are_respected_and_a_limit_of_zero_counts");
    let documents = random_documents(&mut rng, 30_000);
    let view = tail(&documents);
    for limit in [1, 100, 29_999, 50_000] {
        let (rows, _) = scan(
            &view,
            request(ScanSource::Auto, &["_id"], vec![], Stage::Rows { limit: Some(limit) }),
        )
        .expect("an answer");
        assert_eq!(lines(&rows).len(), limit.min(30_000));
    }
    let (rows, trailer) = scan(
        &view,
        request(ScanSource::Auto, &["_id"], vec![], Stage::Rows { limit: Some(0) }),
    )
    .expect("an answer");
    assert_eq!((rows.len(), trailer.matched), (0, 30_000));
    let (rows, trailer) = scan(
        &view,
        request(ScanSource::Auto, &[], vec![], Stage::Rows { limit: None }),
    )
    .expect("an answer");
    assert_eq!(
        (
            rows.iter().map(RecordBatch::num_rows).sum::<usize>(),
            trailer.matched,
            trailer.counts.raw
        ),
        (30_000, 30_000, 0)
    );
}

#[test]
fn scanning_an_empty_view_returns_a_trailer() {
    let keys = vec![key("_time", true)];
    for stage in [
        Stage::Rows { limit: None },
        Stage::Top {
            keys,
            after: None,
            limit: 10,
            counts_all: false,
        },
    ] {
        let (rows, trailer) = scan(
            &tail(&[]),
            request(ScanSource::Auto, &["_id"], vec![column("a:int").gt(lit(1i64))], stage),
        )
        .expect("an answer");
        assert_eq!((rows.len(), trailer), (0, ScanTrailer::default()));
    }
}

#[test]
fn cast_failures_are_null_and_counted() {
    let texts = [
        r#"{"ms":12}"#,
        r#"{"ms":"slow"}"#,
        r#"{"ms":30}"#,
        r#"{"ms":null}"#,
        r#"{}"#,
    ];
    let documents: Vec<_> = texts
        .iter()
        .enumerate()
        .map(|(offset, text)| document(offset as i64, text))
        .collect();
    let (rows, trailer) = scan(
        &tail(&documents),
        request(ScanSource::Auto, &["ms:int"], vec![], Stage::Rows { limit: None }),
    )
    .expect("an answer");
    assert_eq!(in_order(&rows), ["|12|", "||", "|30|", "||", "||"]);
    let cast_failures: Vec<_> = trailer
        .cast_failures
        .iter()
        .map(|failure| (failure.column.name(), failure.values, failure.total))
        .collect();
    assert_eq!(cast_failures, [("ms:int".to_owned(), 1, 3)]);
}

#[test]
fn a_deadline_ends_a_scan_with_a_timeout() {
    let documents = random_documents(&mut SeededRng(1), 10);
    let late = ScanRequest {
        deadline: Instant::now(),
        ..request(ScanSource::Auto, &["a:int"], vec![], Stage::Rows { limit: None })
    };
    assert_eq!(
        scan(&tail(&documents), late).expect_err("a timeout").code,
        Code::Timeout
    );
}

#[test]
fn an_unknown_column_in_a_filter_is_a_bad_request() {
    let wrong = request(
        ScanSource::Auto,
        &["a:int"],
        vec![column("nonsense").is_null()],
        Stage::Rows { limit: None },
    );
    assert_eq!(scan(&tail(&[]), wrong).expect_err("a problem").code, Code::BadRequest);
}

#[test]
fn a_dropped_stream_stops_the_work() {
    let documents = random_documents(&mut SeededRng(2), 100_000);
    let view = tail(&documents);
    let pool = pool();
    let tail = view.tail.clone();
    let mut stream = run(
        view,
        Arc::new(SharedRequest::new(request(
            ScanSource::Raw,
            &["_doc"],
            vec![],
            Stage::Rows { limit: None },
        ))),
        &pool,
    );
    assert!(matches!(block_on(stream.next()), Some(Ok(ScanChunk::Progress(_)))));
    assert!(matches!(block_on(stream.next()), Some(Ok(ScanChunk::Rows(_)))));
    drop(stream);
    drop(pool); // waits for a running step
    assert_eq!(Arc::strong_count(&tail), 1, "the view was dropped");
}
