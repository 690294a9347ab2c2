//! The two doors of a leaf, within the process and over gRPC, are one: what goes in and what comes out is the same,
//! refusals included.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use datafusion::{
    arrow::{
        array::{Array as _, AsArray as _},
        compute::concat_batches,
        datatypes::{Int64Type, Schema},
        record_batch::RecordBatch,
    },
    functions_aggregate::{count::count_udaf, sum::sum_udaf},
    logical_expr::{Expr, col, lit},
    physical_expr::{aggregate::AggregateExprBuilder, expressions::Column as Physical},
    physical_plan::{
        aggregates::{AggregateExec, AggregateMode, PhysicalGroupBy},
        empty::EmptyExec,
    },
};
use futures::TryStreamExt as _;
use leaf::{Leaf, LeafOptions};
use plan::{
    Column, Path,
    client::RemoteLeaves,
    scan::{After, Chunk, PartialAggregate, QueryId, Read, Scan, ScanRequest, SortKey, Stage, Trailer},
};
use proto::{
    Catalog, Code, CollectionUid, Position, PositionVector, Problem, SourceName,
    catalog::{Collection, CollectionSettings},
    client::leaves::Leaves,
    cluster::{Members, Role},
    ingest::{Batch, Ingest, LEVEL, Loss, ShardId, Verdict},
    record::{Record, RequestKey, Rules, TimeKind, Value},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

trait Door: Ingest + Scan {}
impl<D: Ingest + Scan> Door for D {}

/// A leaf of its own behind each of the doors.
struct House {
    door: Arc<dyn Door>,
    leaf: Arc<Leaf>,
    shard: ShardId,
    stop: CancellationToken,
    _catalog: watch::Sender<Arc<Catalog>>,
    _folder: TempDir,
}

impl Drop for House {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn houses() -> [House; 2] {
    [house(false).await, house(true).await]
}

async fn house(over_grpc: bool) -> House {
    let uid = CollectionUid(uuid::Uuid::from_u128(7));
    let mut collection = Collection::new(
        uid,
        1,
        CollectionSettings {
            shards: 2,
            ..CollectionSettings::default()
        },
    );
    collection.placement = vec![vec!["leaf-1".parse().expect("a name")]; 2];
    let mut catalog = Catalog {
        version: 1,
        ..Catalog::default()
    };
    catalog
        .collections
        .insert("events".parse().expect("a name"), collection);
    let (sender, receiver) = watch::channel(Arc::new(catalog));
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = LeafOptions::new(folder.path());
    options.node = Some("leaf-1".parse().expect("a name"));
    let leaf = Leaf::open(options, receiver.clone()).expect("a leaf");
    let stop = CancellationToken::new();
    let door: Arc<dyn Door> = match over_grpc {
        false => leaf.clone(),
        true => {
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let mut members = Members::default();
            members
                .add(
                    Role::Leaf,
                    &format!("leaf-1=http://{}", listener.local_addr().expect("an address")),
                )
                .expect("a member");
            let mut routes = tonic::service::RoutesBuilder::default();
            leaf::service::add(&mut routes, &leaf, &receiver);
            let server = tonic::transport::Server::builder().add_routes(routes.routes());
            let connections = tokio_stream::wrappers::TcpListenerStream::new(listener);
            tokio::spawn(server.serve_with_incoming_shutdown(connections, stop.clone().cancelled_owned()));
            Arc::new(RemoteLeaves::new(Leaves::new(&members, receiver).expect("the leaves")))
        }
    };
    House {
        door,
        leaf,
        shard: shard_of_clicks(uid),
        stop,
        _catalog: sender,
        _folder: folder,
    }
}

fn clicks() -> SourceName {
    "clicks".parse().expect("a name")
}

/// The shard of partition 0 of the source.
fn shard_of_clicks(collection: CollectionUid) -> ShardId {
    ShardId {
        collection,
        number: proto::routing::shard_of(&clicks(), 0, 2),
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn record(offset: i64, text: &str) -> Record {
    let headers = vec![
        ("h".to_owned(), Some(Bytes::from_static(b"v"))),
        ("none".to_owned(), None),
    ];
    Record {
        offset,
        value: Value::One(Bytes::copy_from_slice(text.as_bytes())),
        time_ms: 1_000 + offset,
        time_kind: TimeKind::Create,
        headers,
        ..Record::default()
    }
}

fn batch(shard: ShardId, after: i64, texts: &[&str]) -> Batch {
    let records: Vec<Record> = (after + 1..)
        .zip(texts)
        .map(|(offset, text)| record(offset, text))
        .collect();
    let through = after + texts.len() as i64;
    Batch {
        shard,
        source: clicks(),
        topic: "t".into(),
        partition: 0,
        after,
        through,
        level: LEVEL,
        rules: Rules::default(),
        records,
    }
}

const TEXTS: [&str; 6] = [
    r#"{"n":1,"word":"disk full","odd.key":{"\"q\"":true}}"#,
    r#"{"n":2,"word":"all well"}"#,
    "{oops",
    r#"{"n":"three"}"#,
    r#"{"n":4.5,"list":[1,{"a":2}]}"#,
    r#"{"n":2,"word":"disk empty"}"#,
];

async fn filled() -> [House; 2] {
    let houses = houses().await;
    for house in &houses {
        assert_eq!(
            house.door.write(batch(house.shard, -1, &TEXTS)).await,
            Ok(Verdict::Applied { stored: 5 })
        );
    }
    houses
}

#[tokio::test(flavor = "multi_thread")]
async fn every_verdict_is_told_alike() {
    for house in filled().await {
        let (door, shard) = (&house.door, house.shard);
        assert_eq!(
            door.write(batch(shard, -1, &TEXTS)).await,
            Ok(Verdict::Already { stored: 5 })
        );
        assert_eq!(
            door.write(batch(shard, 9, &["{}"])).await,
            Ok(Verdict::Gap { stored: 5 })
        );
        assert_eq!(
            door.write(batch(shard, 4, &["{}", "{}"]))
                .await
                .map(|v| matches!(v, Verdict::Refused { reason } if reason.contains("another record"))),
            Ok(true)
        );
        assert!(
            matches!(door.write(Batch { level: 99, ..batch(shard, 5, &["{}"]) }).await, Ok(Verdict::Refused { reason }) if reason.contains("level 99"))
        );
        let elsewhere = ShardId {
            number: 1 - shard.number,
            ..shard
        };
        assert!(
            matches!(door.write(batch(elsewhere, -1, &TEXTS)).await, Ok(Verdict::Refused { reason }) if reason.contains("belongs to shard"))
        );
        let stored = door.stored(shard, &clicks(), 0).await.expect("it is stored");
        assert_eq!(
            (stored.topic.as_deref(), stored.offset, stored.dead),
            (Some("t"), 5, false)
        );
        assert_eq!(stored.hash, record(5, TEXTS[5]).hash());
        let partitions = door.partitions(shard.collection).await.expect("partitions");
        assert_eq!(partitions.len(), 1);
        let outcomes = &partitions[0].outcomes;
        assert_eq!(
            (
                outcomes.events,
                outcomes.accepted,
                outcomes.dead_letters,
                outcomes.balance()
            ),
            (6, 5, 1, true)
        );
        assert_eq!(partitions[0].last_record_ms, Some(1_005));
        let unknown = ShardId {
            collection: CollectionUid(uuid::Uuid::nil()),
            number: 0,
        };
        assert_eq!(
            door.stored(unknown, &clicks(), 0).await.map_err(|p| p.code),
            Err(Code::NotFound)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_in_the_log_is_applied_once_and_its_outcome_is_told() {
    for house in houses().await {
        let uid = house.shard.collection;
        let push = SourceName::push();
        let shard = ShardId {
            collection: uid,
            number: proto::routing::shard_of(&push, 0, 2),
        };
        let request = |key: &str, body| RequestKey {
            key: key.to_owned(),
            body,
        };
        let pushed = |offset, key: &str, body, items: &[&str]| Record {
            offset,
            value: Value::Many(
                items
                    .iter()
                    .map(|item| Bytes::copy_from_slice(item.as_bytes()))
                    .collect(),
            ),
            time_ms: 1_000,
            time_kind: TimeKind::Append,
            request: Some(request(key, body)),
            ..Record::default()
        };
        let records = vec![
            pushed(0, "a", 1, &["{}", "{oops"]),
            pushed(1, "a", 1, &["{}", "{oops"]),
            pushed(2, "a", 2, &["{}"]),
            pushed(3, "b", 3, &["1", "2"]),
        ];
        let batch = Batch {
            source: push,
            records,
            through: 3,
            ..batch(shard, -1, &[])
        };
        let batch = Batch { shard, ..batch };
        assert_eq!(house.door.write(batch).await, Ok(Verdict::Applied { stored: 3 }));
        let told = house
            .door
            .pushed(shard, 0, 1, &request("a", 1), soon())
            .await
            .expect("its outcome");
        assert_eq!(
            (told.accepted, told.rejected, told.errors[0].index, told.position.offset),
            (1, 1, 1, 0),
            "the answer of the first"
        );
        assert_eq!(
            house
                .door
                .pushed(shard, 0, 2, &request("a", 2), soon())
                .await
                .map_err(|p| p.code),
            Err(Code::Conflict)
        );
        let late = house
            .door
            .pushed(
                shard,
                0,
                9,
                &request("c", 1),
                Instant::now() + Duration::from_millis(50),
            )
            .await;
        assert_eq!(
            late.map_err(|p| p.code),
            Err(Code::Timeout),
            "what is not there yet is waited for"
        );
        let outcomes = house.door.partitions(uid).await.expect("partitions")[0].outcomes;
        assert_eq!(
            (
                outcomes.events,
                outcomes.accepted,
                outcomes.dead_letters,
                outcomes.duplicates
            ),
            (7, 3, 1, 3)
        );
        assert!(outcomes.balance(), "{outcomes:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn losses_are_kept_once_and_grow() {
    for house in houses().await {
        let loss = |through, reason: &str| Loss {
            source: clicks(),
            partition: 0,
            from: 3,
            through,
            noticed_ms: 9,
            reason: reason.to_owned(),
        };
        for (through, reason) in [(5, "first"), (5, "again"), (8, "more"), (4, "less")] {
            house
                .door
                .note_loss(house.shard, loss(through, reason))
                .await
                .expect("it is noted");
        }
        assert_eq!(
            house.door.losses(house.shard.collection).await,
            Ok(vec![loss(8, "more")])
        );
    }
}

fn query(number: u128) -> QueryId {
    QueryId(number)
}

fn request(house: &House, columns: &[&str], filter: Vec<Expr>, stage: Stage) -> ScanRequest {
    let columns = columns
        .iter()
        .map(|name| Column::parse(name).expect("a column"))
        .collect();
    ScanRequest {
        query: query(1),
        shard: house.shard,
        read: Read::Auto,
        time_path: None,
        columns,
        filter,
        stage,
        deadline: soon(),
    }
}

/// All rows as text, and the end.
async fn rows(house: &House, request: ScanRequest) -> Result<(Vec<String>, Trailer), Problem> {
    let chunks: Vec<Chunk> = house.door.scan(request).try_collect().await?;
    let mut batches: Vec<RecordBatch> = Vec::new();
    let mut end = None;
    for chunk in chunks {
        match chunk {
            Chunk::Rows(batch) => batches.push(batch),
            Chunk::SoFar(_) => {}
            Chunk::End(trailer) => end = Some(trailer),
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
        end.expect("the end"),
    ))
}

#[tokio::test(flavor = "multi_thread")]
async fn scans_give_the_same_rows_and_the_same_end() {
    let houses = filled().await;
    let n = "n:double!";
    let mut told: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for house in &houses {
        let everything: PositionVector = [Position {
            source: clicks(),
            partition: 0,
            offset: 5,
        }]
        .into_iter()
        .collect();
        let pinned = house
            .door
            .pin(query(1), house.shard, &everything, soon())
            .await
            .expect("a view");
        assert_eq!((pinned.documents, &pinned.positions), (5, &everything));
        let again = house
            .door
            .pin(query(1), house.shard, &everything, soon())
            .await
            .expect("the same view");
        assert_eq!(pinned.paths, again.paths, "a table of paths that is known is the same");
        assert!(pinned.paths.paths.contains_key(&Path::of_keys(["odd.key", "\"q\""])));
        let beyond = [Position {
            source: clicks(),
            partition: 0,
            offset: 99,
        }]
        .into_iter()
        .collect();
        let late = house
            .door
            .pin(
                query(2),
                house.shard,
                &beyond,
                Instant::now() + Duration::from_millis(50),
            )
            .await;
        assert_eq!(late.map(drop).map_err(|p| p.code), Err(Code::Timeout));

        let newest = SortKey {
            column: Column::parse(n).expect("a column"),
            descending: true,
            nulls_first: false,
        };
        let after = After {
            values: vec![datafusion::scalar::ScalarValue::Float64(Some(4.5))],
            address: "clicks/0@4".parse().expect("an address"),
        };
        let top = Stage::Top {
            keys: vec![newest],
            after: Some(after),
            limit: 2,
        };
        let deep = (0..40).fold(col(n).gt(lit(0.0)), |deep, _| {
            deep.or(col(n).lt(lit(-1.0)).and(lit(true))).and(lit(true))
        });
        let questions = [
            (
                "rows",
                request(
                    house,
                    &["_id", n, "_doc"],
                    vec![col(n).gt(lit(1.5))],
                    Stage::Rows { limit: None },
                ),
            ),
            ("count", request(house, &[], vec![], Stage::Rows { limit: None })),
            (
                "limit",
                request(house, &["_offset"], vec![], Stage::Rows { limit: Some(0) }),
            ),
            ("top", request(house, &["_id"], vec![], top)),
            (
                "deep",
                request(house, &["_id"], vec![deep], Stage::Rows { limit: None }),
            ),
            (
                "raw",
                ScanRequest {
                    read: Read::Raw,
                    ..request(
                        house,
                        &["word:text", "_time", "_key"],
                        vec![col("word:text").is_not_null()],
                        Stage::Rows { limit: None },
                    )
                },
            ),
            (
                "partial",
                request(
                    house,
                    &["word:text", n],
                    vec![],
                    Stage::Partial(Arc::new(count_and_sum())),
                ),
            ),
        ];
        for (name, question) in questions {
            let (mut found, end) = rows(house, question)
                .await
                .unwrap_or_else(|problem| panic!("{name}: {problem}"));
            found.sort();
            found.push(format!("{end:?}"));
            let other = told.entry(name).or_insert_with(|| found.clone());
            assert_eq!(*other, found, "{name}");
        }
        house.door.unpin(query(1));
        let gone = tokio::time::timeout(Duration::from_secs(20), async {
            while house.leaf.pinned(query(1), house.shard).is_ok() {
                tokio::task::yield_now().await;
            }
        });
        gone.await.expect("the view is let go of");
        let late = rows(house, request(house, &["_id"], vec![], Stage::Rows { limit: None })).await;
        assert_eq!(late.map(drop).map_err(|p| p.code), Err(Code::Unavailable));
    }
    assert_eq!(told["rows"].len(), 4, "three rows and the end: {:?}", told["rows"]);
    assert_eq!(
        told["partial"].len(),
        5,
        "four groups and the end: {:?}",
        told["partial"]
    );
}

/// `count(*), sum(n)` by word, as a planner makes it.
fn count_and_sum() -> PartialAggregate {
    let columns: Vec<Column> = ["word:text", "n:double!"]
        .iter()
        .map(|name| Column::parse(name).expect("a column"))
        .collect();
    let input = Arc::new(Schema::new(columns.iter().map(Column::field).collect::<Vec<_>>()));
    let group_by = PhysicalGroupBy::new_single(vec![(Arc::new(Physical::new("word:text", 0)) as _, "word".to_owned())]);
    let of = |function, alias: &str| {
        let built = AggregateExprBuilder::new(function, vec![Arc::new(Physical::new("n:double!", 1)) as _])
            .schema(input.clone())
            .alias(alias)
            .build();
        Arc::new(built.expect("an aggregate"))
    };
    let aggregates = vec![of(count_udaf(), "c"), of(sum_udaf(), "s")];
    let empty = Arc::new(EmptyExec::new(input.clone()));
    let plan = AggregateExec::try_new(
        AggregateMode::Partial,
        group_by.clone(),
        aggregates.clone(),
        vec![None, None],
        empty,
        input.clone(),
    )
    .expect("a plan");
    PartialAggregate {
        group_by,
        aggregates,
        filters: vec![None, None],
        input,
        output: datafusion::physical_plan::ExecutionPlan::schema(&plan),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_besides_is_told_alike() {
    let mut fields_of_first = None;
    for house in filled().await {
        let (door, shard) = (&house.door, house.shard);
        let found = door
            .document(shard, "clicks/0@0")
            .await
            .expect("an answer")
            .expect("it is there");
        assert_eq!(
            (&found.bytes[..], found.json, found.id.as_str()),
            (TEXTS[0].as_bytes(), true, "clicks/0@0")
        );
        assert_eq!(door.document(shard, "nothing").await, Ok(None));
        let letters = door.dead_letters(shard, 10).await.expect("dead letters");
        assert_eq!(
            letters
                .iter()
                .map(|l| (l.address.offset, l.code.as_str(), &l.bytes[..], l.length))
                .collect::<Vec<_>>(),
            [(2, "not_json", &b"{oops"[..], 5)]
        );
        let status = door.status(shard).await.expect("a status");
        assert_eq!((status.shard, status.outcomes.documents, status.tail), (shard, 5, 5));
        let fields = door.fields(shard).await.expect("fields");
        let fields = fields_of_first
            .get_or_insert(fields.clone())
            .iter()
            .zip(&fields)
            .map(|(a, b)| (a == b, a.path.to_string()))
            .collect::<Vec<_>>();
        assert!(fields.len() >= 5 && fields.iter().all(|(same, _)| *same), "{fields:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_documents_cross_in_pieces() {
    for house in houses().await {
        let large = format!("{{\"text\":\"{}\"}}", "x".repeat(15 << 20));
        assert_eq!(
            house.door.write(batch(house.shard, -1, &[&large, "{}", &large])).await,
            Ok(Verdict::Applied { stored: 2 })
        );
        house
            .door
            .pin(query(1), house.shard, &PositionVector::default(), soon())
            .await
            .expect("a view");
        let chunks: Vec<Chunk> = house
            .door
            .scan(request(
                &house,
                &["_offset", "_doc"],
                vec![],
                Stage::Rows { limit: None },
            ))
            .try_collect()
            .await
            .expect("rows");
        let batches: Vec<RecordBatch> = chunks
            .into_iter()
            .filter_map(|chunk| {
                if let Chunk::Rows(batch) = chunk {
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
        let found = house
            .door
            .document(house.shard, "clicks/0@2")
            .await
            .expect("an answer")
            .expect("it is there");
        assert_eq!(found.bytes.len(), large.len());
    }
}
