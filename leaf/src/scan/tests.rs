//! Scans against a model: DataFusion over the same columns in a plain table.

use std::{collections::HashMap, sync::Arc, time::Duration};

use datafusion::{
    arrow::{
        array::AsArray,
        compute::{concat_batches, filter_record_batch},
        datatypes::Schema,
        util::pretty::pretty_format_batches,
    },
    common::{DFSchema, cast::as_boolean_array},
    datasource::MemTable,
    execution::TaskContext,
    functions_aggregate::{average::avg_udaf, count::count_udaf, min_max::min_udaf, sum::sum_udaf},
    logical_expr::{
        Expr, SortExpr, and, lit, not, or, physical_planning_context::PhysicalPlanningContext,
        simplify::SimplifyContext,
    },
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{
        aggregate::AggregateExprBuilder, create_physical_expr, execution_props::ExecutionProps, expressions,
    },
    physical_plan::{ExecutionPlan, aggregates::PhysicalGroupBy},
    prelude::SessionContext,
    scalar::ScalarValue,
};
use futures::executor::block_on;
use plan::{
    Column, Path, PathKinds, Type,
    scan::{After, PartialAggregate, QueryId, Read, ReadCounts, SortKey, Trailer},
    search::{Clause, Match},
};
use proto::{Address, Code, PositionVector, SourceName, catalog::CollectionUid, ingest::ShardId, record::TimeKind};
use roaring::RoaringBitmap;

use super::*;
use crate::{
    document::{Document, Header},
    raw::Rows,
    split::{Literal, Lookup, Segment},
    view::{Documents, SegmentView},
};

// What the tests scan.

struct Store(HashMap<Address, Document>);

impl Documents for Store {
    fn read(&self, addresses: &[Address]) -> Result<Vec<Document>, Error> {
        let missing =
            |address: &Address| Error::Problem(Problem::new(Code::Internal, format!("{address} is not there")));
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

/// All of them un-indexed.
fn tail(documents: &[Arc<Document>]) -> View {
    view(documents, &[], &[])
}

/// Segments of these sizes, the rest un-indexed, some gone.
fn view(documents: &[Arc<Document>], sizes: &[usize], gone: &[u32]) -> View {
    let store = Store(
        documents
            .iter()
            .map(|document| (document.address.clone(), document.as_ref().clone()))
            .collect(),
    );
    let mut rest = documents;
    let mut first = 0;
    let mut segments = Vec::new();
    for size in sizes {
        let (here, after) = rest.split_at(*size);
        let segment = Segment::in_memory(here).expect("a segment");
        let gone: RoaringBitmap = gone
            .iter()
            .filter_map(|number| number.checked_sub(first))
            .filter(|number| *number < *size as u32)
            .collect();
        segments.push(SegmentView {
            segment: Arc::new(segment),
            gone: Arc::new(gone),
        });
        (rest, first) = (after, first + *size as u32);
    }
    let live = rest
        .iter()
        .enumerate()
        .filter(|(number, _)| !gone.contains(&(first + *number as u32)));
    View {
        shard: shard(),
        positions: PositionVector::default(),
        paths: Arc::new(PathKinds::default()),
        segments,
        tail: Arc::new(live.map(|(_, document)| document.clone()).collect()),
        newest_ms: 0,
        store: Arc::new(store),
    }
}

fn request(read: Read, columns: &[&str], filter: Vec<Expr>, stage: Stage) -> ScanRequest {
    let columns = columns
        .iter()
        .map(|name| Column::parse(name).expect("a column"))
        .collect();
    let deadline = Instant::now() + Duration::from_secs(60);
    ScanRequest {
        query: QueryId(1),
        shard: shard(),
        read,
        time_path: None,
        columns,
        filter,
        stage,
        deadline,
    }
}

fn pool() -> ScanPool {
    ScanPool::new(2).expect("threads")
}

/// All rows of a scan, and its trailer.
fn answer(view: &View, request: ScanRequest) -> Result<(Vec<RecordBatch>, Trailer), Problem> {
    let pool = pool();
    let mut stream = run(view.clone(), request, &pool);
    let (mut batches, mut shipped) = (Vec::new(), 0);
    while let Some(chunk) = block_on(stream.next()) {
        match chunk? {
            Chunk::Rows(batch) => batches.push(batch),
            Chunk::SoFar(so_far) => shipped = so_far.shipped,
            Chunk::End(trailer) => {
                assert!(block_on(stream.next()).is_none(), "nothing comes after the trailer");
                assert_eq!(
                    trailer.shipped, shipped,
                    "the counts sent with the last batch are those at the end of the scan"
                );
                assert_eq!(
                    trailer.shipped,
                    batches.iter().map(|batch| batch.num_rows() as u64).sum::<u64>()
                );
                return Ok((batches, trailer));
            }
        }
    }
    panic!("a stream without a trailer")
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

/// Random numbers of a seed that is printed when a test fails.
struct Dice(u64);

impl Dice {
    fn new(test: &str) -> Self {
        let seed = std::env::var("RACHIS_TEST_SEED")
            .ok()
            .and_then(|seed| seed.parse().ok());
        let seed = seed.unwrap_or_else(|| {
            std::time::SystemTime::now()
                .duration_since(std::time::UNIX_EPOCH)
                .map_or(1, |now| now.as_nanos() as u64)
        });
        eprintln!("{test}: RACHIS_TEST_SEED={seed}");
        Self(seed)
    }

    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn pick<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
}

const VALUES: [&str; 22] = [
    "null",
    "true",
    "false",
    "0",
    "1",
    "2",
    "-3",
    "7",
    "1.5",
    "-0.0",
    "2.0",
    "1e3",
    "9007199254740993",
    "1e999",
    "\"a\"",
    "\"ab\"",
    "\"abc d\"",
    "\"7\"",
    "\"2024-01-02T03:04:05Z\"",
    "[1,\"ab\",{\"x\":2}]",
    "{\"x\":1}",
    "\"Ä ö\"",
];

fn random_document(dice: &mut Dice) -> String {
    let mut entries = Vec::new();
    for key in ["a", "b", "s", "t"] {
        match (key, dice.below(6)) {
            (_, 0) => {}
            ("s", 1..=3) => entries.push(format!(
                "\"s\":\"w{} {}\"",
                dice.below(5),
                dice.pick(&["ab", "x", "Ab"])
            )),
            ("t", 1..=3) => entries.push(format!("\"t\":\"2024-01-0{}T00:00:00Z\"", 1 + dice.below(9))),
            ("b", 1..=2) => entries.push(format!("\"b\":{}", dice.pick(&["true", "false"]))),
            ("a", 1..=2) => entries.push(format!("\"a\":{}", dice.below(10))),
            (key, _) => entries.push(format!("\"{key}\":{}", dice.pick(&VALUES))),
        }
    }
    entries.push(format!("\"o\":{{\"p q\":{}}}", dice.pick(&VALUES)));
    format!("{{{}}}", entries.join(","))
}

fn random_documents(dice: &mut Dice, count: usize) -> Vec<Arc<Document>> {
    (0..count)
        .map(|number| document(number as i64, &random_document(dice)))
        .collect()
}

fn column(name: &str) -> Expr {
    Expr::Column(datafusion::common::Column::new_unqualified(name))
}

const PATHS: [&str; 5] = ["a", "b", "s", "t", "o.\"p q\""];

fn clause(path: Option<&str>, matches: Match) -> String {
    Column::search(Clause {
        path: path.map(|path| Path::parse(path).expect("a path")),
        matches,
    })
    .name()
}

fn time(day: i64) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(
        Some((19_722 + day) * 86_400_000_000),
        Some("UTC".into()),
    ))
}

/// A random condition over the documents' columns.
fn random_condition(dice: &mut Dice, depth: usize) -> Expr {
    if depth > 0 && dice.below(3) > 0 {
        let (left, right) = (random_condition(dice, depth - 1), random_condition(dice, depth - 1));
        return match dice.below(6) {
            0 | 1 => and(left, right),
            2 | 3 => or(left, right),
            4 => not(left),
            _ => match dice.below(4) {
                0 => left.is_true(),
                1 => left.is_not_true(),
                2 => left.is_unknown(),
                _ => left.is_not_false(),
            },
        };
    }
    let path = dice.pick(&PATHS);
    let bang = dice.pick(&["", "", "!"]);
    let int = lit(dice.below(8) as i64);
    let typed = |to: &str| column(&format!("{path}:{to}{bang}"));
    let canonical = column(&format!("{path}:canonical"));
    let json = |dice: &mut Dice| {
        lit(ScalarValue::LargeUtf8(Some(
            (*dice.pick(&["0", "1", "1.5", "\"ab\"", "\"7\"", "true", "9007199254740993", "[]"])).into(),
        )))
    };
    match dice.below(18) {
        15 => canonical.eq(json(dice)),
        16 => canonical.not_eq(json(dice)),
        17 => {
            let list = vec![json(dice), json(dice)];
            canonical.in_list(list, dice.below(2) == 0)
        }
        0 => typed("int").gt(int),
        1 => typed("int").in_list(vec![int, lit(1i64), lit(ScalarValue::Int64(None))], dice.below(2) == 0),
        2 => typed("double").lt_eq(lit([0.0, 1.5, -0.0, 7.0][dice.below(4)])),
        3 => typed("double").eq(lit([0.0, 1.5, 2.0][dice.below(3)])),
        4 => typed("text").eq(lit(dice.pick(&["ab", "7", "w1 ab"]))),
        5 => typed("text").like(lit(dice.pick(&["a%", "w1%", "%", "ab", "%b%"]))),
        6 => typed("text").not_like(lit("w%")),
        7 => typed(dice.pick(&["int", "text", "json", "canonical", "bool", "time"])).is_null(),
        8 => typed("bool"),
        9 => typed("time").gt_eq(time(dice.below(9) as i64)),
        10 => typed("int").between(int, lit(6i64)),
        11 => column("_offset").gt_eq(lit(dice.below(2_000) as i64)),
        12 => column("_id").in_list(vec![lit("push/0@3"), lit("push/0@40"), lit("x")], dice.below(3) == 0),
        13 => column(&clause(
            Some(path),
            Match::Words(dice.pick(&["ab", "7", "true", "w1 ab"]).into()),
        )),
        _ => match dice.below(3) {
            0 => datafusion::prelude::cast(typed("int"), datafusion::arrow::datatypes::DataType::Float64)
                .gt(lit([1.5, 2.0, -0.5][dice.below(3)])),
            1 => column(&clause(None, Match::Prefix(dice.pick(&["a", "w", "2024"]).into()))),
            _ => column("_ingested").lt(lit(ScalarValue::TimestampMicrosecond(
                Some((1_700_000_000_000 + 500) * 1_000),
                Some("UTC".into()),
            ))),
        },
    }
}

/// The columns of all documents as one batch: what a plain table would hold.
fn table(documents: &[Arc<Document>], names: &[String]) -> RecordBatch {
    let columns: Vec<Column> = names
        .iter()
        .map(|name| Column::parse(name).expect("a column"))
        .collect();
    let rows = Rows::new(documents.iter().map(Arc::as_ref).collect(), None);
    let places: Vec<u32> = (0..documents.len() as u32).collect();
    let arrays = columns
        .iter()
        .map(|column| rows.column(column, &places).array)
        .collect();
    batch_of(
        &Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>())),
        arrays,
        documents.len(),
    )
    .expect("a batch")
}

/// The model's answer: DataFusion over a plain table, row by row as the condition stands, without its optimizer.
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

// What is promised.

const SHOWN: [&str; 6] = ["_id", "a:int", "a:double!", "s:text", "o.\"p q\":json", "t:time"];

#[test]
fn random_filters_find_what_a_plain_table_finds() {
    let mut dice = Dice::new("random_filters_find_what_a_plain_table_finds");
    let documents = random_documents(&mut dice, 600);
    random_filters_find_among(&documents, &mut dice);
}

#[test]
fn a_filter_finds_the_same_where_documents_could_not_be_indexed() {
    let mut dice = Dice::new("a_filter_finds_the_same_where_documents_could_not_be_indexed");
    let mut documents = random_documents(&mut dice, 600);
    for number in [0, 7, 299, 300, 301, 599] {
        let fault = dice.pick(&["panic-in-build", "unbuildable"]);
        let text = documents[number]
            .text()
            .replacen('{', &format!("{{\"fault\":\"{fault}\","), 1);
        documents[number] = document(number as i64, &text);
    }
    random_filters_find_among(&documents, &mut dice);
    assert_eq!(
        view(&documents, &[600], &[]).segments[0].segment.unindexed(),
        6,
        "and no others are left out"
    );
}

#[test]
fn many_documents_that_cannot_be_indexed_cost_others_their_index_and_nobody_an_answer() {
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
    let (rows, _) = answer(
        &view,
        request(Read::Auto, &["n:int"], vec![filter], Stage::Rows { limit: None }),
    )
    .expect("an answer");
    assert_eq!(lines(&rows).len(), 333);
}

fn random_filters_find_among(documents: &[Arc<Document>], dice: &mut Dice) {
    let gone: Vec<u32> = (0..600).filter(|_| dice.below(10) == 0).collect();
    let live: Vec<_> = documents
        .iter()
        .enumerate()
        .filter(|(number, _)| !gone.contains(&(*number as u32)))
        .map(|(_, document)| document.clone())
        .collect();
    let views = [
        view(documents, &[], &gone),
        view(documents, &[600], &gone),
        view(documents, &[50, 300, 1, 200], &gone),
    ];
    let mut counts = ReadCounts::default();
    for _ in 0..60 {
        let filter = random_condition(dice, 3);
        let expected = model(&live, &SHOWN, &filter);
        for view in &views {
            assert_eq!(view.documents(), live.len() as u64);
            for read in [Read::Auto, Read::Raw] {
                let (rows, trailer) = answer(
                    view,
                    request(read, &SHOWN, vec![filter.clone()], Stage::Rows { limit: None }),
                )
                .expect("an answer");
                assert_eq!(lines(&rows), expected, "{read:?}: {filter}");
                assert_eq!(
                    (trailer.documents, trailer.matched),
                    (live.len() as u64, expected.len() as u64),
                    "{read:?}: {filter}"
                );
                match read {
                    Read::Auto => counts.add(&trailer.counts),
                    Read::Raw => {
                        assert_eq!(
                            trailer.counts,
                            ReadCounts {
                                index: 0,
                                columns: 0,
                                raw: live.len() as u64
                            },
                            "only raw documents are read"
                        )
                    }
                }
            }
        }
    }
    assert!(
        counts.index > 0 && counts.columns > 0,
        "index and columns are really used: {counts:?}"
    );
}

#[test]
fn what_an_index_decides_and_a_column_holds_is_not_read_raw() {
    let texts: Vec<_> = (0..1_000)
        .map(|n| document(n, &format!(r#"{{"n":{n},"kind":"k{}","msg":"disk {n} full"}}"#, n % 10)))
        .collect();
    let view = view(&texts, &[1_000], &[5]);
    let filter = vec![
        column("kind:text").eq(lit("k5")),
        column(&clause(Some("msg"), Match::Words("disk".into()))),
    ];
    let (rows, trailer) = answer(
        &view,
        request(Read::Auto, &["n:int", "kind:text"], filter, Stage::Rows { limit: None }),
    )
    .expect("an answer");
    assert_eq!(lines(&rows).len(), 99);
    assert_eq!(
        trailer.counts,
        ReadCounts {
            index: 999,
            columns: 198,
            raw: 0
        }
    );
    let stage = Stage::Top {
        keys: vec![key("n:int", true)],
        after: None,
        limit: 3,
    };
    let (rows, trailer) = answer(&view, request(Read::Auto, &["_doc"], vec![], stage)).expect("an answer");
    assert_eq!(in_order(&rows).len(), 3);
    assert_eq!(
        trailer.counts,
        ReadCounts {
            index: 0,
            columns: 999,
            raw: 3
        },
        "only the winners' documents are read"
    );
}

fn key(name: &str, descending: bool) -> SortKey {
    SortKey {
        column: Column::parse(name).expect("a column"),
        descending,
        nulls_first: false,
    }
}

#[test]
fn limits_are_kept_and_a_limit_of_nothing_counts() {
    let mut dice = Dice::new("limits_are_kept_and_a_limit_of_nothing_counts");
    let documents = random_documents(&mut dice, 30_000);
    let view = tail(&documents);
    for limit in [1, 100, 29_999, 50_000] {
        let (rows, _) = answer(
            &view,
            request(Read::Auto, &["_id"], vec![], Stage::Rows { limit: Some(limit) }),
        )
        .expect("an answer");
        assert_eq!(lines(&rows).len(), limit.min(30_000));
    }
    let (rows, trailer) = answer(
        &view,
        request(Read::Auto, &["_id"], vec![], Stage::Rows { limit: Some(0) }),
    )
    .expect("an answer");
    assert_eq!((rows.len(), trailer.matched), (0, 30_000));
    let (rows, trailer) =
        answer(&view, request(Read::Auto, &[], vec![], Stage::Rows { limit: None })).expect("an answer");
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
fn an_empty_view_answers_with_a_trailer() {
    let keys = vec![key("_time", true)];
    for stage in [
        Stage::Rows { limit: None },
        Stage::Top {
            keys,
            after: None,
            limit: 10,
        },
    ] {
        let (rows, trailer) = answer(
            &tail(&[]),
            request(Read::Auto, &["_id"], vec![column("a:int").gt(lit(1i64))], stage),
        )
        .expect("an answer");
        assert_eq!((rows.len(), trailer), (0, Trailer::default()));
    }
}

#[test]
fn pages_enumerate_every_row_exactly_once_in_order() {
    let mut dice = Dice::new("pages_enumerate_every_row_exactly_once_in_order");
    let documents = random_documents(&mut dice, 500);
    let view = view(&documents, &[100, 250, 30], &[]);
    for (names, limit) in [
        (vec!["a:int"], 7),
        (vec!["b:bool", "s:text"], 60),
        (vec!["o.\"p q\":double!"], 1_000),
        (vec!["_time"], 33),
    ] {
        let keys: Vec<SortKey> = names
            .iter()
            .map(|name| SortKey {
                column: Column::parse(name).expect("a column"),
                descending: dice.below(2) == 0,
                nulls_first: dice.below(2) == 0,
            })
            .collect();
        let shown: Vec<&str> = names.iter().copied().chain(["_id"]).collect();
        let mut paged = Vec::new();
        let mut after = None;
        loop {
            let stage = Stage::Top {
                keys: keys.clone(),
                after: after.clone(),
                limit,
            };
            let (rows, trailer) = answer(&view, request(Read::Auto, &shown, vec![], stage)).expect("an answer");
            assert_eq!(trailer.matched, 500, "pages do not change how many there are");
            let page = in_order(&rows);
            let Some(last) = rows.last() else { break };
            let row = last.num_rows() - 1;
            let values = (0..names.len())
                .map(|key| ScalarValue::try_from_array(last.column(key), row).expect("a value"))
                .collect();
            let address = last
                .column(names.len())
                .as_string_view()
                .value(row)
                .parse()
                .expect("an address");
            after = Some(After { values, address });
            assert!(page.len() <= limit);
            paged.extend(page);
        }
        let by_keys = keys
            .iter()
            .zip(&names)
            .map(|(key, name)| column(name).sort(!key.descending, key.nulls_first));
        let order: Vec<SortExpr> = by_keys.chain([column("_offset").sort(true, false)]).collect();
        let names: Vec<String> = shown
            .iter()
            .map(ToString::to_string)
            .chain(["_offset".to_owned()])
            .collect();
        let batch = table(&documents, &names);
        let expected = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime")
            .block_on(async {
                let context = SessionContext::new();
                let sorted = context
                    .read_batch(batch)
                    .expect("a table")
                    .sort(order)
                    .expect("an order");
                let frame = sorted.select(shown.iter().map(|name| column(name))).expect("columns");
                in_order(&frame.collect().await.expect("rows"))
            });
        assert_eq!(paged, expected, "{names:?}");
    }
}

#[test]
fn partial_aggregates_are_those_of_datafusion_over_the_rows() {
    let mut dice = Dice::new("partial_aggregates_are_those_of_datafusion_over_the_rows");
    // Sums of halves are exact, in whatever order they are added.
    let text = |dice: &mut Dice| {
        format!(
            r#"{{"s":{},"a":{}}}"#,
            dice.pick(&["\"x\"", "\"y z\"", "1", "null"]),
            dice.pick(&["1", "-7", "2.5", "\"7\"", "null"])
        )
    };
    let documents: Vec<_> = (0..2_000).map(|offset| document(offset, &text(&mut dice))).collect();
    let names = ["s:text", "a:int", "a:double"];
    let batch = table(&documents, &names.map(ToString::to_string));
    let schema = batch.schema();
    let at = |name: &str| expressions::col(name, &schema).expect("a column");
    let aggregate = |udaf, arguments, alias: &str| {
        Arc::new(
            AggregateExprBuilder::new(udaf, arguments)
                .schema(schema.clone())
                .alias(alias)
                .build()
                .expect("an aggregate"),
        )
    };
    let aggregates = vec![
        aggregate(count_udaf(), vec![expressions::lit(1i64)], "n"),
        aggregate(sum_udaf(), vec![at("a:int")], "sum"),
        aggregate(avg_udaf(), vec![at("a:double")], "avg"),
        aggregate(min_udaf(), vec![at("s:text")], "min"),
    ];
    for groups in [vec![], vec![(at("s:text"), "s".to_owned())]] {
        let group_by = PhysicalGroupBy::new_single(groups);
        let source = MemTable::try_new(schema.clone(), vec![vec![batch.clone()]]).expect("a table");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .expect("a runtime");
        let (expected, output) = runtime.block_on(async {
            let input = SessionContext::new()
                .read_table(Arc::new(source))
                .expect("a frame")
                .create_physical_plan()
                .await
                .expect("a plan");
            let mode = datafusion::physical_plan::aggregates::AggregateMode::Partial;
            let plan = datafusion::physical_plan::aggregates::AggregateExec::try_new(
                mode,
                group_by.clone(),
                aggregates.clone(),
                vec![None; aggregates.len()],
                input,
                schema.clone(),
            );
            let plan: Arc<dyn ExecutionPlan> = Arc::new(plan.expect("an aggregate"));
            (
                datafusion::physical_plan::collect(plan.clone(), Arc::new(TaskContext::default()))
                    .await
                    .expect("states"),
                plan.schema(),
            )
        });
        let partial = PartialAggregate {
            group_by,
            aggregates: aggregates.clone(),
            filters: vec![None; aggregates.len()],
            input: schema.clone(),
            output: output.clone(),
        };
        let partial = Arc::new(partial);
        for (read, view) in [
            (Read::Auto, tail(&documents)),
            (Read::Auto, view(&documents, &[1_500, 300], &[])),
            (Read::Raw, tail(&documents)),
        ] {
            let (states, trailer) =
                answer(&view, request(read, &names, vec![], Stage::Partial(partial.clone()))).expect("an answer");
            assert!(
                states.iter().all(|states| states.schema() == output),
                "the schema is the planned one"
            );
            let states = concat_batches(&output, &states).expect("one batch");
            assert_eq!(lines(&[states]), lines(&expected));
            assert_eq!(trailer.matched, 2_000);
        }
    }
}

#[test]
fn what_does_not_fit_is_null_and_counted() {
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
    let (rows, trailer) = answer(
        &tail(&documents),
        request(Read::Auto, &["ms:int"], vec![], Stage::Rows { limit: None }),
    )
    .expect("an answer");
    assert_eq!(in_order(&rows), ["|12|", "||", "|30|", "||", "||"]);
    let misfits: Vec<_> = trailer
        .misfits
        .iter()
        .map(|misfit| (misfit.column.name(), misfit.values, misfit.of))
        .collect();
    assert_eq!(misfits, [("ms:int".to_owned(), 1, 3)]);
}

#[test]
fn a_deadline_ends_a_scan_with_a_timeout() {
    let documents = random_documents(&mut Dice(1), 10);
    let late = ScanRequest {
        deadline: Instant::now(),
        ..request(Read::Auto, &["a:int"], vec![], Stage::Rows { limit: None })
    };
    assert_eq!(
        answer(&tail(&documents), late).expect_err("a timeout").code,
        Code::Timeout
    );
}

#[test]
fn an_unknown_column_in_a_filter_is_the_askers_mistake() {
    let wrong = request(
        Read::Auto,
        &["a:int"],
        vec![column("nonsense").is_null()],
        Stage::Rows { limit: None },
    );
    assert_eq!(answer(&tail(&[]), wrong).expect_err("a problem").code, Code::BadRequest);
}

#[test]
fn a_dropped_stream_stops_the_work() {
    let documents = random_documents(&mut Dice(2), 100_000);
    let view = tail(&documents);
    let pool = pool();
    let held = view.tail.clone();
    let mut stream = run(
        view,
        request(Read::Raw, &["_doc"], vec![], Stage::Rows { limit: None }),
        &pool,
    );
    assert!(matches!(block_on(stream.next()), Some(Ok(Chunk::SoFar(_)))));
    assert!(matches!(block_on(stream.next()), Some(Ok(Chunk::Rows(_)))));
    drop(stream);
    drop(pool); // waits for the step at work, if there is one
    assert_eq!(Arc::strong_count(&held), 1, "nobody holds the view any more");
}

// The index's half of the filter, against values.

/// An index that looks at every document, by what a lookup says it means.
struct EveryDocument<'a> {
    documents: &'a [Arc<Document>],
    /// Documents of which it does not say what it knows.
    silent_about: RoaringBitmap,
}

impl EveryDocument<'_> {
    fn known(&self, found: RoaringBitmap) -> filter::Known {
        filter::Known {
            sure: &found - &self.silent_about,
            possible: found | &self.silent_about,
        }
    }

    fn cells(&self, path: &Path, to: Type) -> Vec<Option<Literal>> {
        let batch = table(self.documents, &[Column::path(path.clone(), to).name()]);
        let cell = |row| match ScalarValue::try_from_array(batch.column(0), row).expect("a value") {
            ScalarValue::Boolean(value) => value.map(Literal::Bool),
            ScalarValue::Int64(value) => value.map(Literal::Int),
            ScalarValue::Float64(value) => value.map(Literal::Double),
            ScalarValue::Utf8View(value) | ScalarValue::LargeUtf8(value) => value.map(Literal::Text),
            ScalarValue::TimestampMicrosecond(value, _) => value.map(Literal::Time),
            other => panic!("{other:?}"),
        };
        (0..batch.num_rows()).map(cell).collect()
    }
}

fn order(a: &Literal, b: &Literal) -> std::cmp::Ordering {
    match (a, b) {
        (Literal::Bool(a), Literal::Bool(b)) => a.cmp(b),
        (Literal::Int(a), Literal::Int(b)) | (Literal::Time(a), Literal::Time(b)) => a.cmp(b),
        (Literal::Double(a), Literal::Double(b)) => a.partial_cmp(b).expect("finite"),
        (Literal::Text(a), Literal::Text(b)) => a.cmp(b),
        _ => panic!("{a:?} and {b:?} are of different types"),
    }
}

impl Index for EveryDocument<'_> {
    fn documents(&self) -> u32 {
        self.documents.len() as u32
    }

    fn lookup(&self, lookup: &Lookup) -> Result<Option<filter::Known>, Error> {
        let find = |cells: Vec<Option<Literal>>, holds: &dyn Fn(&Literal) -> bool| -> RoaringBitmap {
            let found = cells
                .iter()
                .enumerate()
                .filter(|(_, cell)| cell.as_ref().is_some_and(holds));
            found.map(|(number, _)| number as u32).collect()
        };
        let header = |holds: &dyn Fn(&Document) -> bool| -> RoaringBitmap {
            self.documents
                .iter()
                .enumerate()
                .filter(|(_, document)| holds(document))
                .map(|(number, _)| number as u32)
                .collect()
        };
        Ok(Some(self.known(match lookup {
            Lookup::In(path, to, values) => find(self.cells(path, *to), &|cell| {
                values.iter().any(|value| order(cell, value).is_eq())
            }),
            Lookup::Range(path, to, from, until) => find(self.cells(path, *to), &|cell| {
                let above = from.as_ref().is_none_or(|(bound, inclusive)| {
                    order(cell, bound).is_gt() || (*inclusive && order(cell, bound).is_eq())
                });
                let below = until.as_ref().is_none_or(|(bound, inclusive)| {
                    order(cell, bound).is_lt() || (*inclusive && order(cell, bound).is_eq())
                });
                above && below
            }),
            Lookup::Prefix(path, prefix) => find(
                self.cells(path, Type::Text),
                &|cell| matches!(cell, Literal::Text(text) if text.starts_with(prefix)),
            ),
            Lookup::Exists(path, to) => find(self.cells(path, *to), &|_| true),
            Lookup::Search(clause) => {
                header(&|document| crate::raw::clause::Matcher::new(clause).matches(&crate::raw::root(document)))
            }
            Lookup::Id(ids) => header(&|document| ids.contains(&document.id())),
            Lookup::Source(source) => header(&|document| document.address.source.as_str() == source),
            Lookup::Header(what, low, high) => header(&|document| {
                let number = match what {
                    plan::What::Partition => i64::from(document.address.partition),
                    plan::What::Offset => document.address.offset,
                    plan::What::Ingested => document.header.ingested_ms * 1_000,
                    _ => crate::raw::time_of_document(document, None, None),
                };
                (*low..=*high).contains(&number)
            }),
        })))
    }
}

#[test]
fn what_an_index_decides_is_what_the_values_say() {
    let mut dice = Dice::new("what_an_index_decides_is_what_the_values_say");
    let documents = random_documents(&mut dice, 300);
    let ids: Vec<String> = documents.iter().map(|document| document.id()).collect();
    let mut decided = 0;
    for round in 0..400 {
        let silent_about = if round % 2 == 0 {
            RoaringBitmap::new()
        } else {
            (0..300).filter(|_| dice.below(4) == 0).collect()
        };
        let filter = random_condition(&mut dice, 3);
        let known = filter::decide(
            &filter,
            &EveryDocument {
                documents: &documents,
                silent_about,
            },
            None,
        )
        .expect("an answer");
        decided += usize::from(known.is_exact());
        let expected = model(&documents, &["_id"], &filter);
        let expected: RoaringBitmap = ids
            .iter()
            .enumerate()
            .filter(|(_, id)| expected.contains(&format!("|{id}|")))
            .map(|(n, _)| n as u32)
            .collect();
        assert!(
            known.sure.is_subset(&expected),
            "{filter} is not true for {:?}",
            &known.sure - &expected
        );
        assert!(
            expected.is_subset(&known.possible),
            "{filter} is true for {:?}",
            &expected - &known.possible
        );
    }
    assert!(
        decided > 80,
        "only {decided} of 400 conditions were decided by the index"
    );
}
