//! A leaf behaves the same within the process and over gRPC: requests, responses and errors are equal.

#[path = "doors/prefetched_scans.rs"]
mod prefetched_scans;
#[path = "doors/scans.rs"]
mod scans;
#[path = "doors/shared_scans.rs"]
mod shared_scans;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use leaf::{Leaf, LeafOptions};
use plan::{
    client::RemoteScan,
    scan::Scan,
    views::{OpenRequest, ReadViews, WantedShards},
};
use proto::{
    Catalog, Code, CollectionUid, Position, PositionVector, Problem, SourceName,
    catalog::{Collection, CollectionSettings},
    client::{ingest::RemoteIngest, peers::Peers},
    cluster::{Member, Role},
    ingest::{Batch, BatchOutcome, INGEST_RULES_LEVEL, Ingest, Loss, ShardId},
    record::{Record, RecordValue, RequestKey, Rules, TimeKind},
};
use tempfile::TempDir;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::sync::CancellationToken;

/// A leaf and both of its interfaces, either direct or over gRPC.
struct ServedLeaf {
    ingest: Arc<dyn Ingest>,
    scan: Arc<dyn Scan>,
    leaf: Arc<Leaf>,
    shard: ShardId,
    stop: CancellationToken,
    catalog: watch::Sender<Arc<Catalog>>,
    _folder: TempDir,
}

impl ServedLeaf {
    /// Opens views of these shards, as they are.
    async fn open(&self, shards: &[ShardId]) -> Box<dyn ReadViews> {
        let wanted: Vec<_> = shards.iter().map(|shard| (*shard, PositionVector::default())).collect();
        self.open_until(&wanted, soon()).await.expect("views")
    }

    /// Opens a view that covers these positions.
    async fn open_at(&self, shard: ShardId, at_least: PositionVector) -> Box<dyn ReadViews> {
        self.open_until(&[(shard, at_least)], soon()).await.expect("a view")
    }

    /// Opens views, which must be there by the deadline.
    async fn open_until(&self, wanted: &WantedShards, deadline: Instant) -> Result<Box<dyn ReadViews>, Problem> {
        let opened = self.scan.open(open_request(wanted, deadline)).await;
        opened.outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(opened.views)
    }

    /// Another client, whose tasks run on these threads.
    fn client(&self, threads: &tokio::runtime::Runtime) -> RemoteScan {
        let _there = threads.enter();
        RemoteScan::new(RemoteIngest::new(Peers::new(self.catalog.subscribe())))
    }

    /// Waits until the leaf has released all views.
    async fn until_released(&self) {
        let released = tokio::time::timeout(Duration::from_secs(20), async {
            while self.leaf.open_views() > 0 {
                tokio::task::yield_now().await;
            }
        });
        released.await.expect("the views are released");
    }
}

/// A request for views that are renewed for an hour, without an expected scan.
fn open_request(shards: &WantedShards, deadline: Instant) -> OpenRequest<'_> {
    OpenRequest {
        shards,
        deadline,
        renewed_until: Instant::now() + Duration::from_secs(3_600),
        cancelled: CancellationToken::new(),
        expected: None,
    }
}

impl Drop for ServedLeaf {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn serve_both() -> [ServedLeaf; 2] {
    [serve(false).await, serve(true).await]
}

async fn serve(over_grpc: bool) -> ServedLeaf {
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
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let member = Member::new(Role::Leaf, url, uuid::Uuid::nil());
    catalog.members.insert("leaf-1".parse().expect("a name"), member);
    let (sender, receiver) = watch::channel(Arc::new(catalog));
    let folder = tempfile::tempdir().expect("a folder");
    let mut options = LeafOptions::new(folder.path());
    options.node = Some("leaf-1".parse().expect("a name"));
    let leaf = Leaf::open(options, receiver.clone()).expect("a leaf");
    let stop = CancellationToken::new();
    let (ingest, scan): (Arc<dyn Ingest>, Arc<dyn Scan>) = if over_grpc {
        serve_over_grpc(listener, &leaf, &receiver, stop.clone());
        let leaves = RemoteIngest::new(Peers::new(receiver));
        (Arc::new(leaves.clone()), Arc::new(RemoteScan::new(leaves)))
    } else {
        (leaf.clone(), leaf.clone())
    };
    ServedLeaf {
        ingest,
        scan,
        leaf,
        shard: shard_of_clicks(uid),
        stop,
        catalog: sender,
        _folder: folder,
    }
}

/// Serves a leaf over gRPC until `stop`.
fn serve_over_grpc(
    listener: TcpListener,
    leaf: &Arc<Leaf>,
    catalog: &watch::Receiver<Arc<Catalog>>,
    stop: CancellationToken,
) {
    let mut routes = tonic::service::RoutesBuilder::default();
    leaf::service::add(&mut routes, leaf, catalog);
    let server = tonic::transport::Server::builder().add_routes(routes.routes());
    let connections = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(server.serve_with_incoming_shutdown(connections, stop.cancelled_owned()));
}

fn clicks() -> SourceName {
    "clicks".parse().expect("a name")
}

/// The shard of partition 0 of the source `clicks`.
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
        value: RecordValue::One(Bytes::copy_from_slice(text.as_bytes())),
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
        level: INGEST_RULES_LEVEL,
        runs: 0,
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

/// Both leaves with [`TEXTS`] stored.
async fn filled() -> [ServedLeaf; 2] {
    let leaves = serve_both().await;
    for served in &leaves {
        assert_eq!(
            served.ingest.write(batch(served.shard, -1, &TEXTS)).await,
            Ok(BatchOutcome::Applied { stored: 5 })
        );
    }
    leaves
}

#[tokio::test(flavor = "multi_thread")]
async fn every_batch_outcome_is_the_same() {
    for served in filled().await {
        let (ingest, shard) = (&served.ingest, served.shard);
        assert_eq!(
            ingest.write(batch(shard, -1, &TEXTS)).await,
            Ok(BatchOutcome::Already { stored: 5 })
        );
        assert_eq!(
            ingest.write(batch(shard, 9, &["{}"])).await,
            Ok(BatchOutcome::Gap { stored: 5 })
        );
        assert_eq!(
            ingest
                .write(batch(shard, 4, &["{}", "{}"]))
                .await
                .map(|v| matches!(v, BatchOutcome::Refused { reason } if reason.contains("different record"))),
            Ok(true)
        );
        assert!(matches!(
            ingest.write(Batch { level: 99, ..batch(shard, 5, &["{}"]) }).await,
            Ok(BatchOutcome::Refused { reason }) if reason.contains("level 99")
        ));
        let elsewhere = ShardId {
            number: 1 - shard.number,
            ..shard
        };
        assert!(matches!(
            ingest.write(batch(elsewhere, -1, &TEXTS)).await,
            Ok(BatchOutcome::Refused { reason }) if reason.contains("belongs to shard")
        ));
        let stored = ingest.stored(shard, &clicks(), 0).await.expect("a stored range");
        assert_eq!(
            (stored.topic.as_deref(), stored.offset, stored.stopped_by_dead_letters),
            (Some("t"), 5, false)
        );
        assert_eq!(stored.hash, record(5, TEXTS[5]).hash());
        let partitions = ingest.partitions(shard.collection).await.expect("partitions");
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
            ingest.stored(unknown, &clicks(), 0).await.map_err(|p| p.code),
            Err(Code::NotFound)
        );
    }
}

fn pushed_at(offset: i64) -> Position {
    Position {
        source: SourceName::push(),
        partition: 0,
        offset,
    }
}

fn request_key(key: &str, body: u128) -> RequestKey {
    RequestKey {
        key: key.to_owned(),
        body,
    }
}

/// A push as a record of the log.
fn logged_push(offset: i64, key: &str, body: u128, items: &[&str]) -> Record {
    Record {
        offset,
        value: RecordValue::Many(
            items
                .iter()
                .map(|item| Bytes::copy_from_slice(item.as_bytes()))
                .collect(),
        ),
        time_ms: 1_000,
        time_kind: TimeKind::Append,
        request: Some(request_key(key, body)),
        ..Record::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_logged_push_is_applied_once_and_its_outcome_is_returned() {
    for served in serve_both().await {
        let uid = served.shard.collection;
        let push = SourceName::push();
        let shard = ShardId {
            collection: uid,
            number: proto::routing::shard_of(&push, 0, 2),
        };
        let records = vec![
            logged_push(0, "a", 1, &["{}", "{oops"]),
            logged_push(1, "a", 1, &["{}", "{oops"]),
            logged_push(2, "a", 2, &["{}"]),
            logged_push(3, "b", 3, &["1", "2"]),
        ];
        let batch = Batch {
            source: push,
            records,
            through: 3,
            ..batch(shard, -1, &[])
        };
        let batch = Batch { shard, ..batch };
        assert_eq!(
            served.ingest.write(batch).await,
            Ok(BatchOutcome::Applied { stored: 3 })
        );
        let result = served
            .ingest
            .pushed(shard, &pushed_at(1), &request_key("a", 1), soon())
            .await
            .expect("its outcome");
        assert_eq!(
            (
                result.accepted,
                result.rejected,
                result.errors[0].index,
                result.position.offset
            ),
            (1, 1, 1, 0),
            "the result of the first push"
        );
        assert_eq!(
            served
                .ingest
                .pushed(shard, &pushed_at(2), &request_key("a", 2), soon())
                .await
                .map_err(|p| p.code),
            Err(Code::Conflict)
        );
        let late = served
            .ingest
            .pushed(
                shard,
                &pushed_at(9),
                &request_key("c", 1),
                Instant::now() + Duration::from_millis(50),
            )
            .await;
        assert_eq!(
            late.map_err(|p| p.code),
            Err(Code::Timeout),
            "a push that is not in the log yet is awaited until the deadline"
        );
        let outcomes = served.ingest.partitions(uid).await.expect("partitions")[0].outcomes;
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
async fn a_loss_is_stored_once_and_can_grow() {
    for served in serve_both().await {
        let loss = |through, reason: &str| Loss {
            source: clicks(),
            partition: 0,
            from: 3,
            through,
            noticed_ms: 9,
            reason: reason.to_owned(),
        };
        for (through, reason) in [(5, "first"), (5, "again"), (8, "more"), (4, "less")] {
            served
                .ingest
                .note_loss(served.shard, loss(through, reason))
                .await
                .expect("it is noted");
        }
        assert_eq!(
            served.ingest.losses(served.shard.collection).await,
            Ok(vec![loss(8, "more")])
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_document_is_said_to_be_missing_by_a_shard_without_the_positions_that_it_must_have() {
    for served in filled().await {
        let lacking = "clicks/0@1000000".parse().expect("positions");
        let refused = served.scan.document(served.shard, "clicks/0@0", &lacking).await;
        assert_eq!(refused.expect_err("it lacks them").code, Code::Unavailable);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn all_other_queries_return_the_same() {
    let mut fields_of_first = None;
    for served in filled().await {
        let (scan, shard) = (&served.scan, served.shard);
        let found = scan
            .document(shard, "clicks/0@0", &Default::default())
            .await
            .expect("an answer")
            .document
            .expect("a document");
        assert_eq!(
            (&found.bytes[..], found.json, found.id.as_str()),
            (TEXTS[0].as_bytes(), true, "clicks/0@0")
        );
        let nothing = scan.document(shard, "nothing", &Default::default()).await;
        assert_eq!(nothing.expect("an answer").document, None);
        let letters = scan.dead_letters(shard, 10).await.expect("dead letters");
        assert_eq!(
            letters
                .iter()
                .map(|l| (l.address.offset, l.code.as_str(), &l.bytes[..], l.length))
                .collect::<Vec<_>>(),
            [(2, "not_json", &b"{oops"[..], 5)]
        );
        let status = scan.status(shard).await.expect("a status");
        assert_eq!((status.shard, status.outcomes.documents, status.tail), (shard, 5, 5));
        let fields = scan.fields(shard).await.expect("fields");
        let fields = fields_of_first
            .get_or_insert(fields.clone())
            .iter()
            .zip(&fields)
            .map(|(a, b)| (a == b, a.path.to_string()))
            .collect::<Vec<_>>();
        assert!(fields.len() >= 5 && fields.iter().all(|(same, _)| *same), "{fields:?}");
    }
}
