//! The change log on a node that is no tailer: it copies the state from its peers, saves it, and proposes changes through
//! tailers.
//!
//! The node watches every member, whatever its role, and adopts the newest state within its cluster. So it can start
//! while Kafka or all tailers are unavailable. While no tailer answers, it reads the log at the broker: so a new node
//! learns who the members are, and any node learns where they have moved.

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use proto::{
    Catalog, Code, Problem,
    catalog::Change,
    client::{Peer, nodes::StateReader, peers::Peers, tailers::no_tailer, was_not_sent},
    cluster::{Member, NodeName, Role},
    tailer::{Changes, LogHealth},
    wire::{leaf::Json, node::node_client::NodeClient, tailer::changes_client::ChangesClient},
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::{CancellationToken, DropGuard};
use tracing::{debug, warn};
use uuid::Uuid;

use super::{contacts::Contacts, replica::CatalogReplica, topic::read_change_log};
use crate::kafka::cluster::ClusterKafka;

const RETRY_MIN: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// How long a proposal may take over all tailers.
const PROPOSE_WAIT: Duration = Duration::from_secs(20);
/// How long a proposal is retried while every tailer answers that it cannot decide.
const REFUSED_WAIT: Duration = Duration::from_secs(2);
/// How long one tailer may take to decide on a proposal.
const TAILER_WAIT: Duration = Duration::from_secs(10);
/// How long the answer to a change waits for other aggregators to receive the change.
const PROPAGATION_WAIT: Duration = Duration::from_secs(1);
/// How long a state is fetched from one peer only. Then others send it as well.
const FETCH_ALONE: Duration = Duration::from_millis(300);
/// How long one peer may take to send a state.
const FETCH_WAIT: Duration = Duration::from_secs(10);
/// How long a version that a peer has told of may take to come by itself. Then all peers are asked for it.
const TOLD_WAIT: Duration = Duration::from_millis(100);
/// How often the freeze detector ticks.
const TICK: Duration = Duration::from_millis(100);
/// After how long without a tick the process counts as frozen. Shorter than [`PROPAGATION_WAIT`], after which others no
/// longer wait for it.
const FROZEN_AFTER: Duration = Duration::from_millis(600);
/// How long a request waits until this node has asked its peers.
const CATCH_UP_WAIT: Duration = Duration::from_secs(3);

/// How long the members may take to answer after a start, before the log is read at the broker.
const MEMBERS_ANSWER: Duration = Duration::from_secs(2);
/// How often the log is read at the broker while no tailer answers.
const READ_LOG_EVERY: Duration = Duration::from_secs(5);
/// How often while the node does not know its cluster.
const READ_FIRST_LOG_EVERY: Duration = Duration::from_millis(500);

/// Follows the change log through the other members.
pub struct Follower {
    replica: Arc<CatalogReplica>,
    own: NodeName,
    peers: Peers,
    contacts: Arc<Contacts>,
    freeze_detector: Arc<FreezeDetector>,
}

/// Detects that this process may have missed changes that were already answered: a proposer waits for an aggregator for a
/// second only. It was frozen for longer, has just started, or a peer has told it of a version that it lacks.
struct FreezeDetector {
    last_tick: Mutex<Instant>,
    /// Whether the process has started or was frozen since it last asked its peers.
    was_frozen: AtomicBool,
    /// How often the process was frozen.
    freezes: AtomicU64,
    /// The newest catalog version that a peer has told this process of.
    told_version: AtomicU64,
    told: Notify,
    /// Whether the node has asked its peers since it may have missed changes.
    caught_up: watch::Sender<bool>,
}

impl FreezeDetector {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            last_tick: Mutex::new(Instant::now()),
            was_frozen: AtomicBool::new(true),
            freezes: AtomicU64::new(0),
            told_version: AtomicU64::new(0),
            told: Notify::new(),
            caught_up: watch::channel(false).0,
        })
    }

    /// Records that the process runs, and detects whether it was frozen since the last tick.
    fn tick(&self) {
        let last = std::mem::replace(&mut *self.last_tick.lock(), Instant::now());
        if last.elapsed() > FROZEN_AFTER {
            self.freezes.fetch_add(1, Ordering::SeqCst);
            self.was_frozen.store(true, Ordering::SeqCst);
            self.caught_up.send_replace(false);
        }
    }

    /// Records that a peer has a catalog version that this process lacks.
    fn tell(&self, version: u64) {
        if self.told_version.fetch_max(version, Ordering::SeqCst) < version {
            self.caught_up.send_replace(false);
            self.told.notify_one();
        }
    }

    /// Records that the node has read the log itself, to its end, and has this version. Before it began, it had been frozen
    /// `freezes` times.
    fn has_read_log(&self, version: u64, freezes: u64) {
        let is_as_before = self.freezes.load(Ordering::SeqCst) == freezes;
        if is_as_before && self.told_version.load(Ordering::SeqCst) <= version {
            self.was_frozen.store(false, Ordering::SeqCst);
            self.caught_up.send_replace(true);
        }
    }

    /// Ticks for ever, and asks all peers for their state whenever changes may have been missed.
    async fn run(self: Arc<Self>, follower: Arc<Follower>) {
        loop {
            self.tick();
            if !*self.caught_up.borrow() {
                self.ask(&follower.replica, &follower.others()).await;
            }
            let _ = tokio::time::timeout(TICK, self.told.notified()).await;
        }
    }

    /// Asks the peers, and notes whether the node has caught up. Without a peer that answers it has not.
    async fn ask(&self, replica: &Arc<CatalogReplica>, peers: &[Peer]) {
        let (was_frozen, version) = (
            self.was_frozen.swap(false, Ordering::SeqCst),
            self.told_version.load(Ordering::SeqCst),
        );
        let mut catalog = replica.catalog();
        let mut has_version = pin!(catalog.wait_for(|catalog| !was_frozen && catalog.version >= version));
        // It usually comes by itself.
        let is_late = was_frozen || tokio::time::timeout(TOLD_WAIT, &mut has_version).await.is_err();
        if is_late {
            let fetch = |peer| tokio::time::timeout(PROPAGATION_WAIT, fetch_state(replica, peer));
            let has_answer = tokio::select! {
                fetched = join_all(peers.iter().map(fetch)) => fetched.iter().any(|fetched| matches!(fetched, Ok(Ok(())))),
                _ = has_version => true,
            };
            if !has_answer && was_frozen {
                self.was_frozen.store(true, Ordering::SeqCst);
            }
        }
        *self.last_tick.lock() = Instant::now();
        // Something may have been missed again.
        self.caught_up.send_modify(|caught_up| {
            *caught_up = !self.was_frozen.load(Ordering::SeqCst) && self.told_version.load(Ordering::SeqCst) == version;
        });
    }
}

/// Adopts the current state of a peer, if it is newer.
async fn fetch_state(replica: &Arc<CatalogReplica>, peer: &Peer) -> Result<(), Problem> {
    if let Some(state) = StateReader::current(peer).await? {
        let (replica, from) = (replica.clone(), peer.name.clone());
        let _ = tokio::task::spawn_blocking(move || replica.offer(state, &from)).await;
    }
    Ok(())
}

impl Follower {
    /// Follows all members except this node, until stopped. Must be called within a tokio runtime.
    pub fn start(replica: Arc<CatalogReplica>, own: &NodeName, stop: &CancellationToken) -> Arc<Self> {
        let follower = Arc::new(Self {
            own: own.clone(),
            peers: Peers::new(replica.catalog()),
            replica,
            contacts: Arc::default(),
            freeze_detector: FreezeDetector::new(),
        });
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(follower.clone().follow_members(stop.clone())),
        );
        let detect = follower.freeze_detector.clone().run(follower.clone());
        tokio::spawn(stop.clone().run_until_cancelled_owned(detect));
        follower
    }

    /// For how long each member that does not answer this node has not answered.
    pub fn silent(&self) -> BTreeMap<NodeName, Duration> {
        self.contacts.silent()
    }

    /// The other members.
    fn others(&self) -> Vec<Peer> {
        let all = [Role::Tailer, Role::Leaf, Role::Aggregator].map(|role| self.peers.of(role));
        all.into_iter().flatten().filter(|peer| peer.name != self.own).collect()
    }

    /// Follows the members of the catalog, as they join, move and leave.
    async fn follow_members(self: Arc<Self>, stop: CancellationToken) {
        let mut catalog = self.replica.catalog();
        let mut followed: BTreeMap<NodeName, (Member, DropGuard)> = BTreeMap::new();
        let mut following = 0;
        loop {
            let members = catalog.borrow_and_update().members.clone();
            let is_same = |name: &NodeName, known: &Member| {
                let member = members.get(name);
                member.is_some_and(|member| {
                    (&member.url, member.instance, member.role) == (&known.url, known.instance, known.role)
                })
            };
            let ended: Vec<NodeName> = followed
                .extract_if(.., |name, (known, _)| !is_same(name, known))
                .map(|(name, _)| name)
                .collect();
            for name in ended {
                self.contacts.forget(&name);
                self.replica.forget_peer(&name);
            }
            for (name, member) in members {
                if name == self.own || followed.contains_key(&name) {
                    continue;
                }
                let Ok(peer) = self.peers.named(&name) else { continue };
                following += 1;
                self.contacts.follow(&name, member.role, following);
                let until = stop.child_token();
                let follow = follow(self.replica.clone(), peer, self.contacts.clone(), following);
                tokio::spawn(until.clone().run_until_cancelled_owned(follow));
                followed.insert(name, (member, until.drop_guard()));
            }
            if catalog.changed().await.is_err() {
                return;
            }
        }
    }

    /// Reads the change log at the broker whenever no tailer answers. Never ends.
    pub async fn read_log_without_tailers(self: Arc<Self>, kafka: ClusterKafka) {
        let mut pause = match self.replica.knows_cluster() {
            true => MEMBERS_ANSWER,
            false => Duration::ZERO,
        };
        // Why the node does not know its cluster yet.
        let mut fault = None;
        loop {
            tokio::time::sleep(pause).await;
            if !self.contacts.has(Role::Tailer) {
                let freezes = self.freeze_detector.freezes.load(Ordering::SeqCst);
                let known = (**self.replica.state().borrow()).clone();
                match read_change_log(&kafka, known).await {
                    Ok(state) => {
                        let (replica, version) = (self.replica.clone(), state.catalog.version);
                        let _ = tokio::task::spawn_blocking(move || replica.advance(state)).await;
                        self.freeze_detector.has_read_log(version, freezes);
                    }
                    // A node that knows its cluster serves what it has, and its tailers say what is wrong.
                    Err(problem) if self.replica.knows_cluster() => debug!(%problem, "cannot read the change log"),
                    Err(problem) => {
                        fault = Some(problem.to_string());
                        self.replica.set_fault(fault.clone());
                    }
                }
            }
            pause = match self.replica.knows_cluster() {
                true => READ_LOG_EVERY,
                false => READ_FIRST_LOG_EVERY,
            };
            if self.replica.knows_cluster() && fault.is_some() && self.replica.health().fault == fault {
                self.replica.set_fault(None);
            }
        }
    }
}

/// Watches a peer for ever, with a pause after each failure.
async fn follow(replica: Arc<CatalogReplica>, peer: Peer, contacts: Arc<Contacts>, following: u64) {
    let mut pause = RETRY_MIN;
    loop {
        let watched = watch_peer(&replica, &peer, || contacts.note(&peer.name, following, true)).await;
        contacts.note(&peer.name, following, false);
        match watched {
            Ok(states) if states > 0 => pause = RETRY_MIN,
            Ok(_) => {}
            Err(problem) if problem.code == Code::Unavailable => {
                debug!(peer = %peer.name, %problem, "cannot read the catalog of a peer");
            }
            Err(problem) => warn!(peer = %peer.name, %problem, "cannot read the catalog of a peer"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MAX);
    }
}

/// Adopts the states of a peer until the stream ends; returns their number.
async fn watch_peer(replica: &Arc<CatalogReplica>, peer: &Peer, heard: impl Fn()) -> Result<usize, Problem> {
    let (mut reader, mut states) = (StateReader::open(peer).await?, 0);
    while let Some(position) = reader.next().await? {
        heard();
        if replica.notice(&position, &peer.name) {
            // A peer that stalls meanwhile does not keep the others from sending the state.
            let _alone = tokio::time::timeout(FETCH_ALONE, replica.fetching.lock()).await;
            if replica.notice(&position, &peer.name) {
                let fetched = tokio::time::timeout(FETCH_WAIT, fetch_state(replica, peer)).await;
                fetched.map_err(|_| Problem::new(Code::Unavailable, "the state did not arrive in time"))??;
            }
        }
        states += 1;
    }
    Ok(states)
}

#[async_trait]
impl Changes for Follower {
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.replica.catalog()
    }

    async fn propose(&self, change: Change, expected: Option<u64>) -> Result<Arc<Catalog>, Problem> {
        let uid = Uuid::now_v7();
        let proposal = Json::of(&(uid, expected, change))?;
        let deadline = Instant::now() + PROPOSE_WAIT;
        let (mut pause, mut last) = (RETRY_MIN, None);
        // Whether a tailer may have appended the proposal without telling.
        let mut may_be_appended = false;
        let (started, mut refusals) = (Instant::now(), 0);
        let mut turn = uid.as_u128() as usize;
        while Instant::now() < deadline {
            let tailers = self.peers.of(Role::Tailer);
            let Some(tailer) = tailers.get(turn % tailers.len().max(1)) else {
                return Err(with_outcome(last.unwrap_or_else(no_tailer), may_be_appended));
            };
            turn = turn.wrapping_add(1);
            let mut client = ChangesClient::new(tailer.control.clone());
            match client.propose(tailer.request(proposal.clone(), TAILER_WAIT)).await {
                Ok(judged) => return self.catalog_at(judged.into_inner().decode()?, deadline).await,
                Err(status) => {
                    let is_answered = !status.details().is_empty();
                    refusals = if is_answered { refusals + 1 } else { 0 };
                    may_be_appended |= !is_answered && !was_not_sent(&status);
                    let problem = tailer.problem(status);
                    may_be_appended |= problem.code == Code::UnknownOutcome;
                    // Every tailer answers, and none can decide: this will not pass soon.
                    let persistent = refusals > tailers.len() && started.elapsed() > REFUSED_WAIT;
                    if persistent || !matches!(problem.code, Code::Unavailable | Code::Timeout | Code::UnknownOutcome) {
                        return Err(with_outcome(problem, may_be_appended));
                    }
                    last = Some(problem);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
        Err(with_outcome(last.unwrap_or_else(no_tailer), may_be_appended))
    }

    fn health(&self) -> LogHealth {
        self.replica.health()
    }

    fn missed(&self, version: u64) {
        self.freeze_detector.tell(version);
    }

    async fn catch_up(&self) -> bool {
        self.freeze_detector.tick();
        let mut caught_up = self.freeze_detector.caught_up.subscribe();
        // Peers that do not answer must not block requests: after the wait, the node serves the catalog that it has.
        let waited = tokio::time::timeout(CATCH_UP_WAIT, caught_up.wait_for(|caught_up| *caught_up)).await;
        waited.is_ok()
    }
}

/// The problem of the last attempt. A definite refusal stays one; any other problem does not say what became of an earlier
/// attempt that may have been appended.
fn with_outcome(problem: Problem, may_be_appended: bool) -> Problem {
    match problem.code {
        _ if !may_be_appended => problem,
        Code::Unavailable | Code::Timeout | Code::UnknownOutcome => Problem::new(
            Code::UnknownOutcome,
            format!("the change may or may not have been made: {}", problem.detail),
        )
        .hint("read the current state before you repeat the change"),
        _ => problem,
    }
}

impl Follower {
    /// Whether the node has the newest catalog, as far as it knows: some other node has told it, or it has read the log.
    pub fn has_caught_up(&self) -> bool {
        *self.freeze_detector.caught_up.borrow()
    }

    /// Waits until the other aggregators have this node's catalog, as far as they answer: the client may send its next
    /// query to any of them.
    async fn wait_for_aggregators(&self) {
        // `describe` waits on the peer until it has the catalog version that the request names.
        let describe = |peer: Peer| async move {
            let request = peer.json(&(), PROPAGATION_WAIT)?;
            peer.answer(NodeClient::new(peer.control.clone()).describe(request).await)
        };
        let others = self.peers.of(Role::Aggregator).into_iter();
        let others = others.filter(|peer| peer.name != self.own);
        drop(join_all(others.map(describe)).await);
    }

    /// The catalog, once this node has read the log up to `offset` and the other aggregators have caught up.
    async fn catalog_at(&self, offset: i64, deadline: Instant) -> Result<Arc<Catalog>, Problem> {
        let mut state = self.replica.state();
        let reached = tokio::time::timeout_at(deadline.into(), state.wait_for(|state| state.offset >= offset)).await;
        let catalog = reached
            .ok()
            .and_then(Result::ok)
            .map(|state| Arc::new(state.catalog.clone()));
        let Some(catalog) = catalog else {
            return Err(Problem::new(
                Code::UnknownOutcome,
                "the change was accepted, but this node did not receive it in time",
            )
            .hint("it will arrive; read the current state before you retry the change"));
        };
        self.wait_for_aggregators().await;
        Ok(catalog)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    #[test]
    fn a_later_attempt_does_not_hide_that_an_earlier_one_may_have_been_appended() {
        let after = |code, may_be_appended| with_outcome(Problem::new(code, "why"), may_be_appended).code;
        assert_eq!(after(Code::Unavailable, false), Code::Unavailable);
        assert_eq!(after(Code::Unavailable, true), Code::UnknownOutcome);
        assert_eq!(
            after(Code::Conflict, true),
            Code::Conflict,
            "the change log has decided"
        );
    }
}
