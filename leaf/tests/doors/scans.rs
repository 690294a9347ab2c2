//! Scans: views, rows, partial aggregates and large documents are the same within the process and over gRPC.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use datafusion::{
    arrow::{
        array::{Array as _, AsArray as _},
        compute::concat_batches,
        datatypes::Int64Type,
        record_batch::RecordBatch,
    },
    functions_aggregate::{count::count_udaf, sum::sum_udaf},
    logical_expr::{Expr, col, lit},
    physical_expr::{aggregate::AggregateExprBuilder, expressions::Column as PhysicalColumn},
    physical_plan::{
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
        empty::EmptyExec,
    },
};
use futures::TryStreamExt as _;
use plan::{
    Column, Path,
    scan::{PageStart, PartialAggregate, Scan as _, ScanChunk, ScanRequest, ScanSource, ScanTrailer, SortKey, Stage},
    views::{OpenRequest, ReadViews, VIEW_LEASE},
};
use proto::{Code, Position, PositionVector, Problem, ingest::BatchOutcome};
use tokio_util::sync::CancellationToken;

use super::{ServedLeaf, batch, clicks, filled, open_request, serve_both, soon};

pub(super) fn request(served: &ServedLeaf, columns: &[&str], filter: Vec<Expr>, stage: Stage) -> ScanRequest {
    let columns = columns
        .iter()
        .map(|name| Column::parse(name).expect("a column"))
        .collect();
    ScanRequest {
        shards: vec![served.shard],
        read: ScanSource::Auto,
        time_path: None,
        columns,
        filter,
        stage,
        deadline: soon(),
    }
}

/// All rows as text, and the trailer.
async fn rows(views: &dyn ReadViews, request: ScanRequest) -> Result<(Vec<String>, ScanTrailer), Problem> {
    let answer = views.scan(request).pop().expect("an answer");
    let chunks: Vec<ScanChunk> = answer.try_collect().await?;
    let mut batches: Vec<RecordBatch> = Vec::new();
    let mut trailer = None;
    for chunk in chunks {
        match chunk {
            ScanChunk::Rows(batch) => batches.push(batch),
            ScanChunk::Progress(_) => {}
            ScanChunk::End(end) => trailer = Some(end),
        }
    }
    let text = datafusion::arrow::util::pretty::pretty_format_batches(&batches)
        .expect("a table")
        .to_string();
    Ok((
        text.lines()
            .filter(|line| line.starts_with('|'))
            .skip(1)
            .map(str::to_owned)
            .collect(),
        trailer.expect("a trailer"),
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_return_the_same_rows_and_trailers() {
    let leaves = filled().await;
    let mut answers: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for served in &leaves {
        let views = check_open(served).await;
        for (name, request) in scans(served) {
            let (mut found, trailer) = rows(&*views, request)
                .await
                .unwrap_or_else(|problem| panic!("{name}: {problem}"));
            found.sort();
            found.push(format!("{trailer:?}"));
            let other = answers.entry(name).or_insert_with(|| found.clone());
            assert_eq!(*other, found, "{name}");
        }
        drop(views);
        served.until_released().await;
    }
    assert_eq!(
        answers["rows"].len(),
        4,
        "three rows and the trailer: {:?}",
        answers["rows"]
    );
    assert_eq!(
        answers["partial"].len(),
        5,
        "four groups and the trailer: {:?}",
        answers["partial"]
    );
}

/// Opens a view, and another one that must be the same. A view that waits for a position must time out.
async fn check_open(served: &ServedLeaf) -> Box<dyn ReadViews> {
    let through = |offset| {
        let position = Position {
            source: clicks(),
            partition: 0,
            offset,
        };
        [(served.shard, PositionVector::from_iter([position]))]
    };
    let (wanted, mut views) = (through(5), Vec::new());
    for _ in 0..2 {
        let opened = served.scan.open(open_request(&wanted, soon())).await;
        let [Ok(view)] = &opened.outcomes[..] else {
            panic!("{:?}", opened.outcomes);
        };
        assert_eq!((view.documents, &view.positions), (5, &wanted[0].1));
        assert!(view.paths.paths.contains_key(&Path::of_keys(["odd.key", "\"q\""])));
        views.push((view.paths.clone(), opened.views));
    }
    assert_eq!(views[0].0, views[1].0, "both have the same paths");
    let (never_written, soon) = (through(99), Instant::now() + Duration::from_millis(50));
    let late = served.open_until(&never_written, soon).await;
    assert_eq!(late.map(drop).map_err(|p| p.code), Err(Code::Timeout));
    views.remove(0).1
}

/// Scans of every kind, by name.
fn scans(served: &ServedLeaf) -> Vec<(&'static str, ScanRequest)> {
    let n = "n:double!";
    let newest = SortKey {
        column: Column::parse(n).expect("a column"),
        descending: true,
        nulls_first: false,
    };
    let after = PageStart {
        values: vec![datafusion::scalar::ScalarValue::Float64(Some(4.5))],
        address: "clicks/0@4".parse().expect("an address"),
    };
    let top = Stage::Top {
        keys: vec![newest],
        after: Some(after),
        limit: 2,
        counts_all: true,
    };
    let deep = (0..40).fold(col(n).gt(lit(0.0)), |deep, _| {
        deep.or(col(n).lt(lit(-1.0)).and(lit(true))).and(lit(true))
    });
    vec![
        (
            "rows",
            request(
                served,
                &["_id", n, "_doc"],
                vec![col(n).gt(lit(1.5))],
                Stage::Rows { limit: None },
            ),
        ),
        ("count", request(served, &[], vec![], Stage::Rows { limit: None })),
        (
            "limit",
            request(served, &["_offset"], vec![], Stage::Rows { limit: Some(0) }),
        ),
        ("top", request(served, &["_id"], vec![], top)),
        (
            "deep",
            request(served, &["_id"], vec![deep], Stage::Rows { limit: None }),
        ),
        (
            "raw",
            ScanRequest {
                read: ScanSource::Raw,
                ..request(
                    served,
                    &["word:text", "_time", "_key"],
                    vec![col("word:text").is_not_null()],
                    Stage::Rows { limit: None },
                )
            },
        ),
        (
            "partial",
            request(
                served,
                &["word:text", n],
                vec![],
                Stage::Partial(Arc::new(count_and_sum())),
            ),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_view_outlives_its_lease_and_that_of_a_dead_client_or_a_cancelled_query_expires() {
    let leaves = filled().await;
    let opened_until = Instant::now() + Duration::from_millis(500);
    let mut open = Vec::new();
    for served in &leaves {
        let wanted = [(served.shard, PositionVector::default())];
        open.push(served.open_until(&wanted, opened_until).await.expect("a view"));
    }
    let [_, remote] = &leaves;
    open_on_a_client_that_dies(remote, opened_until).await;
    // A query that is cancelled and does not end holds its views.
    let cancelled = CancellationToken::new();
    let _stuck = remote
        .scan
        .open(OpenRequest {
            cancelled: cancelled.clone(),
            ..open_request(&[(remote.shard, PositionVector::default())], opened_until)
        })
        .await;
    cancelled.cancel();
    assert_eq!(remote.leaf.open_views(), 3);
    let mut look_again = tokio::time::interval(Duration::from_millis(100));
    let until_expired = async {
        while remote.leaf.open_views() > 1 {
            look_again.tick().await;
        }
    };
    let expired = tokio::time::timeout(VIEW_LEASE * 3, until_expired).await;
    expired.expect("what is not renewed expires");
    assert!(opened_until.elapsed() >= VIEW_LEASE, "not before its lease");
    for (served, views) in leaves.iter().zip(open) {
        let request = request(served, &["_id"], vec![], Stage::Rows { limit: None });
        assert_eq!(rows(&*views, request).await.expect("it was renewed").0.len(), 5);
        assert_eq!(served.leaf.open_views(), 1);
        drop(views);
        served.until_released().await;
    }
}

/// Opens a view on a client whose threads end without a word to the leaf.
async fn open_on_a_client_that_dies(served: &ServedLeaf, deadline: Instant) {
    let client = tokio::runtime::Runtime::new().expect("threads");
    let (scan, shard) = (served.client(&client), served.shard);
    let open = client.spawn(async move {
        let opened = scan
            .open(open_request(&[(shard, PositionVector::default())], deadline))
            .await;
        opened
            .outcomes
            .iter()
            .for_each(|outcome| assert!(outcome.is_ok(), "{outcome:?}"));
        std::mem::forget(opened.views);
    });
    open.await.expect("a view");
    client.shutdown_background();
}

/// `count(*), sum(n)` by word, as a planner produces it.
fn count_and_sum() -> PartialAggregate {
    let columns: Vec<Column> = ["word:text", "n:double!"]
        .iter()
        .map(|name| Column::parse(name).expect("a column"))
        .collect();
    let input = plan::column::schema(&columns);
    let group_by = PhysicalGroupBy::new_single(vec![(
        Arc::new(PhysicalColumn::new("word:text", 0)) as _,
        "word".to_owned(),
    )]);
    let aggregate = |function, alias: &str| {
        let built = AggregateExprBuilder::new(function, vec![Arc::new(PhysicalColumn::new("n:double!", 1)) as _])
            .schema(input.clone())
            .alias(alias)
            .build();
        Arc::new(built.expect("an aggregate"))
    };
    let aggregates = vec![aggregate(count_udaf(), "c"), aggregate(sum_udaf(), "s")];
    let empty = Arc::new(EmptyExec::new(input.clone()));
    let plan = AggregateExec::try_new(
        AggregateMode::Partial,
        group_by,
        aggregates,
        vec![None, None],
        empty,
        input,
    )
    .expect("a plan");
    PartialAggregate::of(&plan)
}

#[tokio::test(flavor = "multi_thread")]
async fn large_documents_are_sent_in_chunks() {
    for served in serve_both().await {
        let large = format!("{{\"text\":\"{}\"}}", "x".repeat(15 << 20));
        assert_eq!(
            served
                .ingest
                .write(batch(served.shard, -1, &[&large, "{}", &large]))
                .await,
            Ok(BatchOutcome::Applied { stored: 2 })
        );
        let views = served.open(&[served.shard]).await;
        let chunks: Vec<ScanChunk> = views
            .scan(request(
                &served,
                &["_offset", "_doc"],
                vec![],
                Stage::Rows { limit: None },
            ))
            .pop()
            .expect("an answer")
            .try_collect()
            .await
            .expect("rows");
        let batches: Vec<RecordBatch> = chunks
            .into_iter()
            .filter_map(|chunk| {
                if let ScanChunk::Rows(batch) = chunk {
                    Some(batch)
                } else {
                    None
                }
            })
            .collect();
        let all = concat_batches(&batches[0].schema(), &batches).expect("one schema");
        let (offsets, documents) = (
            all.column(0).as_primitive::<Int64Type>(),
            all.column(1).as_string_view(),
        );
        assert_eq!(documents.len(), 3);
        for row in 0..3 {
            assert_eq!(
                documents.value(row),
                if offsets.value(row) == 1 { "{}" } else { &large }
            );
        }
        let found = served
            .scan
            .document(served.shard, "clicks/0@2", &Default::default())
            .await
            .expect("an answer")
            .document
            .expect("a document");
        assert_eq!(found.bytes.len(), large.len());
    }
}
