//! The change log as a node without Kafka sees it: it takes the state from its peers, keeps a copy, and has tailers
//! propose.
//!
//! Every peer is asked, whatever its role: whoever knows more is believed, within one cluster. So any node starts while
//! Kafka, or all tailers, are away.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};
use uuid::Uuid;

use super::{Peer, copy::Copy};
use crate::{
    catalog::{Catalog, Change, State},
    cluster::{Members, NodeName, Role},
    limits::MESSAGE_BYTES_MAX,
    problem::{Code, Problem},
    tailer::{Changes, LogHealth},
    wire::{
        node::{DescribeRequest, Piece, WatchRequest, node_client::NodeClient},
        problem::malformed,
        tailer::{Proposal, changes_client::ChangesClient},
    },
};

const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MOST: Duration = Duration::from_secs(2);
/// How long a proposal may take, over all tailers.
const PROPOSE_WAIT: Duration = Duration::from_secs(20);
/// Tailers that answer and cannot decide are asked again for so long.
const REFUSED_WITHIN: Duration = Duration::from_secs(2);
/// How long one tailer may take for it.
const TAILER_WAIT: Duration = Duration::from_secs(10);
/// How long an answer about a change waits for other aggregators to hear of it.
const HEARD_WAIT: Duration = Duration::from_secs(1);
/// How often this process notes that it runs, and after how long without a note it was asleep: earlier than others give
/// it up.
const TICK: Duration = Duration::from_millis(100);
const SLEPT: Duration = Duration::from_millis(600);
/// How long a question waits until this node has asked its peers.
const CURRENT_WAIT: Duration = Duration::from_secs(3);
/// Bytes of a state.
const STATE_BYTES_MAX: usize = 256 << 20;

/// What a node knows of the change log, shared by whoever asks.
#[derive(Debug)]
pub struct Known {
    copy: Copy,
    state: watch::Sender<Arc<State>>,
    catalog: watch::Sender<Arc<Catalog>>,
    trouble: Mutex<Option<String>>,
    /// One at a time is judged and saved.
    saving: Mutex<()>,
}

impl Known {
    /// From the copy in the data folder.
    pub fn open(copy: Copy) -> std::io::Result<Arc<Self>> {
        let state = match copy.load() {
            // Whoever has a whole one gives it again: peers, or the log itself.
            Err(error) if error.kind() == std::io::ErrorKind::InvalidData => {
                let aside = copy.set_aside()?;
                error!(%error, aside = %aside.display(), "the copy of the catalog does not read; it is set aside, and peers are asked");
                None
            }
            read => read?,
        };
        let state = state.unwrap_or_default();
        info!(file = %copy.file().display(), offset = state.offset, changes = state.catalog.version, "copy of the catalog read");
        let catalog = Arc::new(state.catalog.clone());
        metrics::gauge!("rachis_changes_offset").set(state.offset as f64);
        metrics::gauge!("rachis_changes_trouble").set(0.0);
        Ok(Arc::new(Self {
            copy,
            state: watch::channel(Arc::new(state)).0,
            catalog: watch::channel(catalog).0,
            trouble: Mutex::new(None),
            saving: Mutex::new(()),
        }))
    }

    /// The state, now and as it changes.
    pub fn state(&self) -> watch::Receiver<Arc<State>> {
        self.state.subscribe()
    }

    /// The catalog, now and as it changes.
    pub fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.catalog.subscribe()
    }

    /// Takes a state over, if it is newer than what is known, and keeps a copy of it. Blocks for an fsync.
    pub fn advance(&self, state: State) {
        let _saving = self.saving.lock();
        let own = self.state.borrow().clone();
        if state.is_newer_than(&own) {
            self.take(state);
        }
    }

    fn take(&self, state: State) {
        // A copy that cannot be kept costs a start while the log is away; what is agreed on is not at risk.
        if let Err(error) = self.copy.save(&state) {
            warn!(%error, file = %self.copy.file().display(), "the copy of the catalog could not be kept");
        }
        // Whoever has waited for a state finds its catalog in force.
        if self.catalog.borrow().version != state.catalog.version {
            self.catalog.send_replace(Arc::new(state.catalog.clone()));
        }
        metrics::gauge!("rachis_changes_offset").set(state.offset as f64);
        self.state.send_replace(Arc::new(state));
    }

    /// Takes a peer's state over, if it is newer.
    fn offer(&self, state: State, from: &NodeName) {
        let _saving = self.saving.lock();
        let own = self.state.borrow().clone();
        if let (Some(ours), Some(theirs)) = (own.cluster, state.cluster)
            && ours != theirs
        {
            self.trouble(Some(format!(
                "{} {}, this node to {}",
                foreign(from),
                theirs.simple(),
                ours.simple()
            )));
            return;
        }
        // What was said of this peer holds no longer.
        let said = self
            .trouble
            .lock()
            .as_ref()
            .is_some_and(|trouble| trouble.starts_with(&foreign(from)));
        if said {
            self.trouble(None);
        }
        if state.is_newer_than(&own) {
            debug!(%from, offset = state.offset, "catalog");
            self.take(state);
        }
    }

    /// Nothing can be decided before the log was read.
    pub fn unread(&self) {
        *self.trouble.lock() = Some("the change log was not read yet".to_owned());
    }

    /// Says why nothing can be decided, or that it can.
    pub fn trouble(&self, trouble: Option<String>) {
        let mut known = self.trouble.lock();
        metrics::gauge!("rachis_changes_trouble").set(f64::from(u8::from(trouble.is_some())));
        if *known != trouble {
            match &trouble {
                Some(why) => error!(
                    why,
                    "the change log is in trouble: what is agreed on is served, nothing is decided"
                ),
                None => info!("the change log is well"),
            }
            *known = trouble;
        }
    }

    /// How the log is.
    pub fn health(&self) -> LogHealth {
        let state = self.state.borrow().clone();
        LogHealth {
            offset: state.offset,
            hash: state.hash,
            cluster: state.cluster,
            trouble: self.trouble.lock().clone(),
        }
    }
}

fn foreign(peer: &NodeName) -> String {
    format!("{peer} belongs to cluster")
}

/// The change log, followed from peers.
pub struct Follower {
    known: Arc<Known>,
    tailers: Vec<Peer>,
    /// The other doors: a question to any of them sees a change from its answer on.
    aggregators: Vec<Peer>,
    awake: Arc<Awake>,
}

/// Whether this process has been running all the time. Who proposes a change waits for an aggregator for a second only:
/// one that slept longer, or has just started, may have missed changes that were answered.
struct Awake {
    ticked: Mutex<Instant>,
    current: watch::Sender<bool>,
}

impl Awake {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            ticked: Mutex::new(Instant::now()),
            current: watch::channel(false).0,
        })
    }

    /// Notes that it runs, and whether it slept before.
    fn tick(&self) {
        let before = std::mem::replace(&mut *self.ticked.lock(), Instant::now());
        if before.elapsed() > SLEPT {
            self.current.send_replace(false);
        }
    }

    /// Watches over it, and asks all peers where something may have been missed.
    async fn keep(self: Arc<Self>, known: Arc<Known>, peers: Vec<Peer>) {
        loop {
            self.tick();
            if !*self.current.borrow() {
                join_all(
                    peers
                        .iter()
                        .map(|peer| tokio::time::timeout(HEARD_WAIT, take_one(&known, peer))),
                )
                .await;
                *self.ticked.lock() = Instant::now();
                self.current.send_replace(true);
            }
            tokio::time::sleep(TICK).await;
        }
    }
}

/// Takes a peer's state as it is now.
async fn take_one(known: &Arc<Known>, peer: &Peer) -> Result<(), Problem> {
    if let Some(state) = StateReader::open(peer).await?.next().await? {
        let (known, from) = (known.clone(), peer.name.clone());
        let _ = tokio::task::spawn_blocking(move || known.offer(state, &from)).await;
    }
    Ok(())
}

impl Follower {
    /// Follows all members but this node, until stopped. Must be called within a tokio runtime.
    pub fn start(
        known: Arc<Known>,
        own: &NodeName,
        members: &Members,
        stop: &CancellationToken,
    ) -> Result<Arc<Self>, Problem> {
        let (mut tailers, mut aggregators, mut all) = (Vec::new(), Vec::new(), Vec::new());
        for ((role, name), url) in members.nodes.iter().filter(|((_, name), _)| name != own) {
            let peer = Peer::new(name.clone(), url, known.catalog())?;
            match role {
                Role::Tailer => tailers.push(peer.clone()),
                Role::Aggregator => aggregators.push(peer.clone()),
                Role::Leaf => {}
            }
            all.push(peer.clone());
            tokio::spawn(stop.clone().run_until_cancelled_owned(follow(known.clone(), peer)));
        }
        let awake = Awake::new();
        tokio::spawn(
            stop.clone()
                .run_until_cancelled_owned(awake.clone().keep(known.clone(), all)),
        );
        Ok(Arc::new(Self {
            known,
            tailers,
            aggregators,
            awake,
        }))
    }
}

async fn follow(known: Arc<Known>, peer: Peer) {
    let mut pause = RETRY_FIRST;
    loop {
        match watch_peer(&known, &peer).await {
            Ok(states) if states > 0 => pause = RETRY_FIRST,
            Ok(_) => {}
            Err(problem) => debug!(peer = %peer.name, %problem, "a peer does not give its catalog"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RETRY_MOST);
    }
}

/// Takes states until the stream ends; how many there were.
async fn watch_peer(known: &Arc<Known>, peer: &Peer) -> Result<usize, Problem> {
    let (mut reader, mut states) = (StateReader::open(peer).await?, 0);
    while let Some(state) = reader.next().await? {
        let (known, from) = (known.clone(), peer.name.clone());
        let _ = tokio::task::spawn_blocking(move || known.offer(state, &from)).await;
        states += 1;
    }
    Ok(states)
}

/// The states that a peer gives: now, and each time they change.
pub(super) struct StateReader {
    peer: Peer,
    pieces: tonic::Streaming<Piece>,
}

impl StateReader {
    pub(super) async fn open(peer: &Peer) -> Result<Self, Problem> {
        let mut client = NodeClient::new(peer.control.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX);
        let pieces = client
            .watch(WatchRequest {})
            .await
            .map_err(|status| peer.problem(status))?
            .into_inner();
        Ok(Self {
            peer: peer.clone(),
            pieces,
        })
    }

    /// The next one; none once the stream ends.
    pub(super) async fn next(&mut self) -> Result<Option<State>, Problem> {
        let mut bytes = Vec::new();
        while let Some(piece) = self
            .pieces
            .message()
            .await
            .map_err(|status| self.peer.problem(status))?
        {
            if bytes.len() + piece.bytes.len() > STATE_BYTES_MAX {
                return Err(Problem::new(
                    Code::TooLarge,
                    format!("the state has more than {STATE_BYTES_MAX} bytes"),
                ));
            }
            bytes.extend_from_slice(&piece.bytes);
            if piece.last {
                return serde_json::from_slice(&bytes)
                    .map(Some)
                    .map_err(|e| malformed(&e.to_string()));
            }
        }
        Ok(None)
    }
}

#[async_trait]
impl Changes for Follower {
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.known.catalog()
    }

    async fn propose(&self, change: Change, expected: Option<u64>) -> Result<Arc<Catalog>, Problem> {
        let change = serde_json::to_vec(&change).map_err(|e| Problem::new(Code::Internal, e.to_string()))?;
        let uid = Uuid::now_v7();
        let proposal = Proposal {
            uid: bytes::Bytes::copy_from_slice(uid.as_bytes()),
            expected,
            change: change.into(),
        };
        let deadline = Instant::now() + PROPOSE_WAIT;
        let (mut pause, mut last) = (RETRY_FIRST, None);
        let (begun, mut refusals) = (Instant::now(), 0);
        for tailer in self
            .tailers
            .iter()
            .cycle()
            .skip(uid.as_u128() as usize % self.tailers.len().max(1))
        {
            if Instant::now() >= deadline {
                break;
            }
            let mut client = ChangesClient::new(tailer.control.clone());
            match client.propose(tailer.request(proposal.clone(), TAILER_WAIT)).await {
                Ok(judged) => return self.after(judged.into_inner().offset, deadline).await,
                Err(status) => {
                    refusals = if status.details().is_empty() { 0 } else { refusals + 1 };
                    let problem = tailer.problem(status);
                    // All of them answer, and none can do it: it will not pass in a moment.
                    let hopeless = refusals > self.tailers.len() && begun.elapsed() > REFUSED_WITHIN;
                    if hopeless || !matches!(problem.code, Code::Unavailable | Code::Timeout | Code::UnknownOutcome) {
                        return Err(problem);
                    }
                    last = Some(problem);
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_MOST);
        }
        Err(last.unwrap_or_else(|| {
            Problem::new(Code::Unavailable, "this node knows no tailer").hint("add one to [cluster] tailers")
        }))
    }

    fn health(&self) -> LogHealth {
        self.known.health()
    }

    async fn current(&self) {
        self.awake.tick();
        let mut current = self.awake.current.subscribe();
        // Peers that say nothing must not keep everybody waiting: what is known is served.
        let _ = tokio::time::timeout(CURRENT_WAIT, current.wait_for(|current| *current)).await;
    }
}

impl Follower {
    /// Waits until the other aggregators have heard of what this node has, as far as they answer: the very next
    /// question may go to any.
    async fn heard_everywhere(&self) {
        let ask = |peer: &Peer| {
            let peer = peer.clone();
            async move {
                NodeClient::new(peer.control.clone())
                    .describe(peer.request(DescribeRequest {}, HEARD_WAIT))
                    .await
            }
        };
        drop(join_all(self.aggregators.iter().map(ask)).await);
    }

    /// The catalog, once this node has read the log so far.
    async fn after(&self, offset: i64, deadline: Instant) -> Result<Arc<Catalog>, Problem> {
        let mut state = self.known.state();
        let read = tokio::time::timeout_at(deadline.into(), state.wait_for(|state| state.offset >= offset)).await;
        let catalog = read
            .ok()
            .and_then(Result::ok)
            .map(|state| Arc::new(state.catalog.clone()));
        let Some(catalog) = catalog else {
            return Err(Problem::new(
                Code::UnknownOutcome,
                "the change is agreed on, and this node has not heard of it in time",
            )
            .hint("it will; read what is in force"));
        };
        self.heard_everywhere().await;
        Ok(catalog)
    }
}
