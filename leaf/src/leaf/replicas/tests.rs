//! Tests of `replicas`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use bytes::Bytes;
use parking_lot::Mutex;
use proto::{
    Catalog, Code, PositionVector, Problem,
    catalog::{Change, ReplicaState},
    clock::since_boot,
    cluster::{Member, NodeName, Role},
    ingest::{BlockDigest, Ingest as _, ShardId},
    replica::{GRANTED_FOR, Grant, GrantRequest, OfferedCopy, ReplicaPeers},
    tailer::{Changes, LogHealth},
};
use tokio::sync::watch;
use uuid::Uuid;

use super::{
    ReplicaLinks,
    grants::Floor,
    rounds::{LACKING_ROUNDS_MAX, RoundHistory},
};
use crate::{
    LeafOptions,
    tests::support::{Fixture, small},
};

fn leaf(number: u32) -> NodeName {
    format!("leaf-{number}").parse().expect("a name")
}

fn folder(number: u32) -> Uuid {
    Uuid::from_u128(u128::from(number))
}

fn as_first_leaf(options: &mut LeafOptions) {
    small(options);
    options.node = Some(leaf(1));
}

/// The first of two leaves, which both hold a replica of a shard.
fn first_of_two() -> Fixture {
    let fixture = Fixture::start(as_first_leaf);
    fixture.catalog.send_modify(|catalog| {
        let mut changed = (**catalog).clone();
        for number in [1, 2] {
            let member = Member::new(Role::Leaf, format!("http://10.0.0.{number}:7700"), folder(number));
            changed.members.insert(leaf(number), member);
        }
        let collection = changed.collections.values_mut().next().expect("a collection");
        collection.placement = vec![vec![leaf(1), leaf(2)]];
        *catalog = Arc::new(changed);
    });
    fixture
}

/// Sets the state of a replica in the catalog, whose version becomes this one.
fn set_state(fixture: &Fixture, of: u32, state: ReplicaState, version: u64) {
    fixture.catalog.send_modify(|catalog| {
        let mut changed = (**catalog).clone();
        changed.version = version;
        let collection = changed.collections.values_mut().next().expect("a collection");
        collection.not_serving = match state {
            ReplicaState::Serving => BTreeMap::new(),
            other => [(0, [(leaf(of), other)].into())].into(),
        };
        *catalog = Arc::new(changed);
    });
}

async fn opens(fixture: &Fixture) -> Result<(), Problem> {
    opens_within(fixture, Duration::from_millis(200)).await
}

async fn opens_within(fixture: &Fixture, wait: Duration) -> Result<(), Problem> {
    let deadline = Instant::now() + wait;
    let wanted = [(fixture.shard, PositionVector::default())];
    let (_, mut outcomes) = fixture.leaf.open_read_views(&wanted, deadline).await;
    outcomes.remove(0).map(drop)
}

fn floor(version: u64, positions: &str) -> Floor {
    Floor {
        version,
        asked: since_boot(),
        positions: Some(positions.parse().expect("positions")),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_answers_only_with_a_grant_and_with_what_the_other_one_had() {
    let fixture = first_of_two();
    let why = async || opens(&fixture).await.expect_err("it must not answer").detail;
    assert!(why().await.contains("it does not hear leaf-2"));
    fixture.leaf.grants.hold(&leaf(2), since_boot());
    assert!(why().await.contains("leaf-2 has not said yet what it has"));
    fixture
        .leaf
        .grants
        .set_floor(fixture.shard, &leaf(2), floor(1, "push/0@0"));
    assert!(why().await.contains("has not ingested push/0@0"));
    fixture.push(&["{}"]).await;
    opens(&fixture).await.expect("it has what leaf-2 had");
    set_state(&fixture, 1, ReplicaState::Behind { since: 5 }, 5);
    assert!(why().await.contains("it is behind"));
    set_state(&fixture, 1, ReplicaState::Joining { since: 6 }, 6);
    assert!(why().await.contains("it is joining"));
    // It needs no grant of one that does not serve.
    set_state(&fixture, 2, ReplicaState::Behind { since: 7 }, 7);
    fixture.leaf.grants.hold(&leaf(2), Duration::ZERO);
    opens(&fixture).await.expect("it is the only one that serves");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_view_tells_that_other_leaves_serve_the_shard_or_one_with_another_disk() {
    let fixture = first_of_two();
    let boot = || fixture.leaf.boot_of(fixture.shard);
    let with_both = boot();
    assert_eq!(boot(), with_both);
    set_state(&fixture, 2, ReplicaState::Behind { since: 5 }, 5);
    let alone = boot();
    assert_ne!(alone, with_both);
    set_state(&fixture, 2, ReplicaState::Serving, 6);
    assert_eq!(boot(), with_both);
    // A leaf that was frozen meanwhile has not seen that it was behind when the other one lost its disk.
    fixture.catalog.send_modify(|catalog| {
        let member = Arc::make_mut(catalog).members.get_mut(&leaf(2)).expect("it");
        member.instance = folder(22);
    });
    assert!(![alone, with_both].contains(&boot()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_under_the_name_of_another_waits_until_the_grants_of_that_one_have_ended() {
    let fixture = first_of_two();
    let (far, soon) = (Duration::from_mins(1), Duration::from_millis(10));
    let wait = |longest| fixture.leaf.wait_for_earlier_grants(Instant::now() + longest);
    let refused = wait(soon).await.expect_err("it is not the member yet");
    assert_eq!(refused.code, Code::Timeout);
    fixture
        .leaf
        .grants
        .note_member(since_boot().saturating_sub(GRANTED_FOR - Duration::from_millis(300)));
    let began = Instant::now();
    wait(far).await.expect("they have ended");
    let waited = began.elapsed();
    assert!(
        waited > Duration::from_millis(200) && waited < Duration::from_secs(4),
        "{waited:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_of_a_new_shard_waits_until_a_leaf_that_has_died_is_left_behind() {
    let fixture = first_of_two();
    let question = opens_within(&fixture, Duration::from_mins(1));
    let leave_behind = async {
        fixture.leaf.first_grants_wanted.notified().await;
        set_state(&fixture, 2, ReplicaState::Behind { since: 5 }, 5);
    };
    let (answered, ()) = futures::join!(question, leave_behind);
    answered.expect("the only one that serves by now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_without_a_replica_answers_no_question_even_if_it_has_the_files() {
    let fixture = first_of_two();
    fixture.push(&["{}"]).await;
    let place = |leaves: &[u32]| {
        fixture.catalog.send_modify(|catalog| {
            let mut changed = (**catalog).clone();
            let collection = changed.collections.values_mut().next().expect("a collection");
            collection.placement = vec![leaves.iter().map(|number| leaf(*number)).collect()];
            *catalog = Arc::new(changed);
        });
    };
    place(&[1]);
    opens(&fixture).await.expect("the only replica");
    assert!(fixture.leaf.is_asked(fixture.shard));
    place(&[2]);
    let refused = opens(&fixture).await.expect_err("the shard was moved");
    assert!(refused.detail.contains("it is not placed there"), "{refused}");
    assert!(!fixture.leaf.is_asked(fixture.shard), "so it need not have a push");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_is_confirmed_by_each_replica_that_may_be_asked() {
    let fixture = first_of_two();
    let named = || fixture.leaf.must_confirm(fixture.shard);
    fixture.leaf.grants.start_at(Duration::ZERO);
    assert_eq!(named(), [leaf(2)]);
    set_state(&fixture, 2, ReplicaState::Joining { since: 3 }, 3);
    assert_eq!(named(), [leaf(2)]);
    set_state(&fixture, 2, ReplicaState::Behind { since: 4 }, 4);
    assert_eq!(named(), []);
    let request = |instance, version| GrantRequest {
        leaf: leaf(2),
        instance,
        version,
        compared: vec![fixture.shard],
        expected: vec![(fixture.shard, "push/0@0".parse().expect("positions"))],
    };
    let refused = fixture.leaf.grant(request(folder(9), 3)).await;
    assert_eq!(refused.expect_err("another folder").code, Code::Conflict);
    assert_eq!(named(), []);
    let refused = fixture.leaf.grant(request(folder(2), 3)).await;
    assert_eq!(
        refused.expect_err("it does not know that it is behind").code,
        Code::Conflict
    );
    assert_eq!(named(), []);
    let grant = fixture.leaf.grant(request(folder(2), 4)).await.expect("a grant");
    assert_eq!(
        (named(), grant.lacks),
        (Vec::new(), vec![fixture.shard]),
        "it knows that it is behind"
    );
    set_state(&fixture, 2, ReplicaState::Behind { since: 5 }, 5);
    assert_eq!(named(), [leaf(2)], "it may still answer by the catalog before");
    fixture.leaf.grants.start_at(since_boot());
    set_state(&fixture, 2, ReplicaState::Behind { since: 4 }, 5);
    assert_eq!(
        named(),
        [leaf(2)],
        "the process before this one may have granted it something"
    );
    fixture.push(&["{}"]).await;
    let grant = fixture.leaf.grant(request(folder(2), 5)).await.expect("a grant");
    assert_eq!(
        (grant.lacks.as_slice(), grant.has),
        (&[][..], vec![(fixture.shard, "push/0@0".parse().expect("positions"))])
    );
}

/// The other leaf and the change log, as a test sets them.
#[derive(Default)]
struct Others {
    /// How the other leaf answers; `None` while it is away.
    answer: Mutex<Option<Grant>>,
    asked: Mutex<Vec<GrantRequest>>,
    proposed: Mutex<Vec<Change>>,
    digests: Mutex<Vec<BlockDigest>>,
}

#[async_trait]
impl ReplicaPeers for Others {
    async fn grant(&self, _leaf: &NodeName, request: &GrantRequest) -> Result<Grant, Problem> {
        self.asked.lock().push(request.clone());
        let answer = self.answer.lock().clone();
        answer.ok_or_else(|| Problem::new(Code::Unavailable, "it is away"))
    }

    async fn digests(&self, _leaf: &NodeName, _shard: ShardId) -> Result<Vec<BlockDigest>, Problem> {
        Ok(self.digests.lock().clone())
    }

    async fn offer_copy(&self, _leaf: &NodeName, _shard: ShardId) -> Result<OfferedCopy, Problem> {
        Err(Problem::new(Code::Unavailable, "it offers nothing"))
    }

    async fn read_copy(&self, _leaf: &NodeName, _copy: Uuid, _file: &str, _from: u64) -> Result<Bytes, Problem> {
        Err(Problem::new(Code::NotFound, "it has offered nothing"))
    }

    async fn end_copy(&self, _leaf: &NodeName, _copy: Uuid) -> Result<(), Problem> {
        Ok(())
    }
}

#[async_trait]
impl Changes for Others {
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        watch::channel(Arc::default()).1
    }

    async fn propose(&self, change: Change, _expected: Option<u64>) -> Result<Arc<Catalog>, Problem> {
        self.proposed.lock().push(change);
        Ok(Arc::default())
    }

    fn health(&self) -> LogHealth {
        LogHealth::default()
    }
}

/// Runs a round, and returns what it proposes.
async fn round(fixture: &Fixture, others: &Arc<Others>, known: &mut RoundHistory) -> Vec<Change> {
    let links = ReplicaLinks {
        name: leaf(1),
        instance: folder(1),
        peers: others.clone(),
        changes: others.clone(),
    };
    fixture.leaf.replica_round(&links, known).await;
    if let Some(proposing) = known.proposing.take() {
        proposing.await.expect("it ends");
    }
    while known.joining.as_ref().is_some_and(|joining| !joining.is_finished()) {
        tokio::task::yield_now().await;
    }
    std::mem::take(&mut *others.proposed.lock())
}

fn left_behind(shard: ShardId) -> Vec<Change> {
    vec![Change::LeaveBehind {
        leaf: leaf(2),
        by: leaf(1),
        instance: folder(1),
        shards: vec![shard],
    }]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leaf_that_is_silent_for_two_seconds_and_two_rounds_is_left_behind() {
    let (fixture, others, mut known) = (first_of_two(), Arc::new(Others::default()), RoundHistory::default());
    assert_eq!(round(&fixture, &others, &mut known).await, []);
    assert_eq!(
        round(&fixture, &others, &mut known).await,
        [],
        "two seconds have not passed"
    );
    known.heard.get_mut(&leaf(2)).expect("it was asked").0 -= Duration::from_secs(2);
    assert_eq!(round(&fixture, &others, &mut known).await, left_behind(fixture.shard));
    // A leaf that was frozen itself asks twice before it says so.
    *others.answer.lock() = Some(Grant::default());
    assert_eq!(round(&fixture, &others, &mut known).await, []);
    *others.answer.lock() = None;
    known.heard.get_mut(&leaf(2)).expect("it was asked").0 -= Duration::from_secs(60);
    assert_eq!(round(&fixture, &others, &mut known).await, []);
    assert_eq!(round(&fixture, &others, &mut known).await, left_behind(fixture.shard));
    set_state(&fixture, 1, ReplicaState::Behind { since: 5 }, 5);
    assert_eq!(
        round(&fixture, &others, &mut known).await,
        [],
        "it does not serve itself"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_lacks_for_four_rounds_what_another_one_had_is_left_behind() {
    let (fixture, others, mut known) = (first_of_two(), Arc::new(Others::default()), RoundHistory::default());
    fixture.push(&["{}"]).await;
    let lacks = Grant {
        lacks: vec![fixture.shard],
        ..Grant::default()
    };
    *others.answer.lock() = Some(lacks);
    assert_eq!(
        round(&fixture, &others, &mut known).await,
        [],
        "nothing was expected of it yet"
    );
    for lacks in 1..LACKING_ROUNDS_MAX {
        assert_eq!(round(&fixture, &others, &mut known).await, [], "{lacks}");
        // What comes in meanwhile is not expected yet.
        fixture.push(&["{}"]).await;
    }
    assert_eq!(round(&fixture, &others, &mut known).await, left_behind(fixture.shard));
    let asked: BTreeSet<String> = others
        .asked
        .lock()
        .iter()
        .map(|asked| format!("{:?}", asked.expected))
        .collect();
    assert_eq!(asked.len(), 2, "nothing, and then the first push: {asked:?}");
    *others.answer.lock() = Some(Grant::default());
    for confirmed in ["the first push", "the last one"] {
        assert_eq!(round(&fixture, &others, &mut known).await, [], "{confirmed}");
    }
    others.asked.lock().clear();
    assert_eq!(round(&fixture, &others, &mut known).await, []);
    assert_eq!(others.asked.lock()[0].expected, [], "it has confirmed that it has it");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_joins_once_it_has_caught_up_and_serves_with_what_was_there_when_it_joined() {
    let (fixture, others, mut known) = (first_of_two(), Arc::new(Others::default()), RoundHistory::default());
    // One that has nothing would be copied.
    fixture.leaf.shard(fixture.shard).await.expect("a shard");
    set_state(&fixture, 1, ReplicaState::Behind { since: 5 }, 5);
    let has = |positions: &str| {
        let has = vec![(fixture.shard, positions.parse().expect("positions"))];
        *others.answer.lock() = Some(Grant {
            has,
            ..Grant::default()
        });
    };
    has("push/0@0");
    assert_eq!(round(&fixture, &others, &mut known).await, []);
    let wait = *known.behind.get(&fixture.shard).expect("it is behind") - since_boot();
    assert!(wait > Duration::from_secs(4), "{wait:?}");
    known.behind.insert(fixture.shard, since_boot());
    assert_eq!(round(&fixture, &others, &mut known).await, [], "it lacks a push");
    fixture.push(&["{}"]).await;
    let (name, instance, shard) = (leaf(1), folder(1), fixture.shard);
    let join = Change::JoinReplicas {
        leaf: name.clone(),
        instance,
        shards: vec![shard],
    };
    assert_eq!(round(&fixture, &others, &mut known).await, [join]);
    // What the other one said before it knew of this does not count.
    set_state(&fixture, 1, ReplicaState::Joining { since: 6 }, 6);
    has("push/0@1");
    assert_eq!(round(&fixture, &others, &mut known).await, []);
    assert_eq!(round(&fixture, &others, &mut known).await, [], "it lacks another push");
    fixture.push(&["{}"]).await;
    let serve = Change::ServeReplicas {
        leaf: name,
        instance,
        shards: vec![(shard, 6)],
    };
    assert_eq!(round(&fixture, &others, &mut known).await, [serve]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_has_ingested_something_else_stays_behind_until_it_is_compared_again() {
    let (fixture, others, mut known) = (first_of_two(), Arc::new(Others::default()), RoundHistory::default());
    fixture.push(&["{}"]).await;
    set_state(&fixture, 1, ReplicaState::Behind { since: 5 }, 5);
    let has = vec![(fixture.shard, "push/0@0".parse().expect("positions"))];
    *others.answer.lock() = Some(Grant {
        has,
        ..Grant::default()
    });
    let equal = fixture.leaf.digests(fixture.shard).await.expect("digests");
    assert_eq!(equal.len(), 1);
    let mut different = equal.clone();
    different[0].digest = "0".repeat(32);
    *others.digests.lock() = different;
    assert_eq!(round(&fixture, &others, &mut known).await, []);
    known.behind.insert(fixture.shard, since_boot());
    assert_eq!(round(&fixture, &others, &mut known).await, []);
    *others.digests.lock() = equal;
    assert_eq!(round(&fixture, &others, &mut known).await, [], "it waits for a minute");
    assert!(known.different.contains(&fixture.shard));
    known.behind.insert(fixture.shard, since_boot());
    let joined = round(&fixture, &others, &mut known).await;
    assert!(matches!(joined[..], [Change::JoinReplicas { .. }]), "{joined:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_left_behind_again_and_again_waits_longer_before_it_joins() {
    let (fixture, others, mut known) = (first_of_two(), Arc::new(Others::default()), RoundHistory::default());
    let mut waits = Vec::new();
    for version in 1..=8 {
        set_state(&fixture, 1, ReplicaState::Behind { since: version }, version);
        round(&fixture, &others, &mut known).await;
        let wait = *known.behind.get(&fixture.shard).expect("it is behind") - since_boot();
        waits.push(wait.as_secs_f64().ceil());
        set_state(&fixture, 1, ReplicaState::Serving, version);
        round(&fixture, &others, &mut known).await;
    }
    assert_eq!(waits, [5.0, 5.0, 5.0, 10.0, 20.0, 40.0, 60.0, 60.0]);
}
