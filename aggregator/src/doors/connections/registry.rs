//! The open connections: which are idle, which are evicted, and how many response bytes wait to be sent.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::super::stalled_write::WriteProgress;

/// Connections above the limit, for monitoring only.
pub(super) const MONITORING_CONNECTIONS_MAX: usize = 64;
/// How often a connection that is being closed is checked for progress. An idle HTTP/1 connection is cut at the first
/// check.
pub(super) const CLOSING_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// An HTTP/2 connection is cut after this many checks without progress: its data may wait for the client's window while
/// the socket is writable.
const STALLED_CHECKS_MAX: usize = 5;
/// An idle connection that is being closed is cut after this many checks, whatever its client sends.
const IDLE_CHECKS_MAX: usize = 30;
/// How long a frame of a response may wait until the client has received all of it.
const UNSENT_AGE_MAX: Duration = Duration::from_secs(1_800);
/// The same while all such frames together have more than [`UNSENT_BYTES_MAX`].
pub(super) const UNSENT_AGE_MAX_WHEN_FULL: Duration = Duration::from_secs(10);
pub(super) const UNSENT_BYTES_MAX: usize = 512 << 20;
/// How often the age of unsent frames is checked.
pub(super) const UNSENT_CHECK_INTERVAL: Duration = Duration::from_secs(2);
/// How often it is checked whether a connection has ended while too many are open.
const SLOT_CHECK_INTERVAL: Duration = Duration::from_millis(5);

pub(super) struct Connections {
    pub max: usize,
    pub all: Mutex<BTreeMap<u64, Arc<ConnectionState>>>,
    /// The next number of a connection or frame.
    pub next_number: AtomicU64,
    pub unsent_bytes: AtomicUsize,
}

pub(super) struct ConnectionState {
    pub number: u64,
    /// Whether it is above the limit, so that it serves monitoring only.
    pub monitoring_only: bool,
    /// Whether several requests may run at once. If so, written data may wait for the client without blocking the
    /// socket.
    pub is_multiplexed: AtomicBool,
    pub progress: Arc<WriteProgress>,
    /// The number of running requests, and when it last became smaller.
    requests: Mutex<(usize, Instant)>,
    /// The frames of responses that wait to be sent, by number, and since when. Over HTTP/2 other requests can make
    /// progress meanwhile, so that [`stalled_write`](super::super::stalled_write) does not notice.
    pub unsent: Mutex<BTreeMap<u64, Instant>>,
    pub connections: Arc<Connections>,
    /// Cancelled when the connection has to make room for another.
    pub evicted: CancellationToken,
}

/// Keeps a connection in the registry.
pub(super) struct ConnectionGuard {
    pub connection: Arc<ConnectionState>,
}

/// Counts a running request of a connection.
pub(super) struct RequestGuard {
    pub connection: Arc<ConnectionState>,
}

impl Connections {
    pub(super) fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max: max.max(1),
            all: Mutex::default(),
            next_number: AtomicU64::new(0),
            unsent_bytes: AtomicUsize::new(0),
        })
    }

    /// Waits until one more connection may be opened. Evicts an idle one if needed.
    pub(super) async fn wait_for_slot(&self) {
        let open_max = self.max + MONITORING_CONNECTIONS_MAX;
        while self.all.lock().len() >= open_max {
            // An evicted connection stays open if a request arrived at the last moment. Then another has to be evicted.
            if !self.all.lock().values().any(|connection| connection.is_closing()) {
                self.evict_idle(|_| true);
            }
            tokio::time::sleep(SLOT_CHECK_INTERVAL).await;
        }
    }

    /// Adds a connection. At the limit, evicts the connection that has been idle longest. If none is idle, the new
    /// connection serves monitoring only.
    pub(super) fn register(self: &Arc<Self>) -> ConnectionGuard {
        let monitoring_only = self.count(|connection| !connection.monitoring_only) >= self.max
            && !self.evict_idle(|connection| !connection.monitoring_only);
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        let mut all = self.all.lock();
        let connection = Arc::new(ConnectionState {
            number,
            monitoring_only,
            is_multiplexed: AtomicBool::new(false),
            progress: Arc::default(),
            requests: Mutex::new((0, Instant::now())),
            unsent: Mutex::default(),
            connections: self.clone(),
            evicted: CancellationToken::new(),
        });
        all.insert(number, connection.clone());
        metrics::gauge!("rachis_http_connections").set(all.len() as f64);
        ConnectionGuard { connection }
    }

    /// How long a frame of a response may wait to be sent.
    pub(super) fn unsent_age_max(&self) -> Duration {
        if self.unsent_bytes.load(Ordering::Relaxed) > UNSENT_BYTES_MAX {
            UNSENT_AGE_MAX_WHEN_FULL
        } else {
            UNSENT_AGE_MAX
        }
    }

    /// Counts the connections that match and are not evicted.
    fn count(&self, filter: impl Fn(&ConnectionState) -> bool) -> usize {
        self.all
            .lock()
            .values()
            .filter(|connection| filter(connection) && !connection.evicted.is_cancelled())
            .count()
    }

    /// Evicts the connection that has been idle longest among those that match. Returns whether there was one. It stays
    /// in the registry until it has ended.
    pub(super) fn evict_idle(&self, filter: impl Fn(&ConnectionState) -> bool) -> bool {
        let all = self.all.lock();
        let candidate = |connection: &&Arc<ConnectionState>| filter(connection) && !connection.evicted.is_cancelled();
        let longest_idle = all
            .values()
            .filter(candidate)
            .filter_map(|connection| Some((connection.idle_since()?, connection.number)))
            .min();
        let Some(connection) = longest_idle.and_then(|(_, number)| all.get(&number)) else {
            return false;
        };
        connection.evicted.cancel();
        metrics::counter!("rachis_http_idle_connections_closed_total").increment(1);
        true
    }
}

impl ConnectionState {
    /// Since when no request runs and no byte waits to be sent. None if the connection is in use.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let (requests, since) = *self.requests.lock();
        (requests == 0 && !self.progress.is_blocked()).then_some(since)
    }

    /// Whether it was evicted and is still idle, so that it is about to end.
    pub(super) fn is_closing(&self) -> bool {
        self.evicted.is_cancelled() && self.idle_since().is_some()
    }

    /// Waits until a frame has been unsent for too long.
    pub(super) async fn unsent_too_long(&self) {
        let mut checks = tokio::time::interval(UNSENT_CHECK_INTERVAL);
        while !self.has_unsent_older_than(self.connections.unsent_age_max()) {
            checks.tick().await;
        }
    }

    pub(super) fn has_unsent_older_than(&self, age: Duration) -> bool {
        self.unsent
            .lock()
            .first_key_value()
            .is_some_and(|(_, since)| since.elapsed() > age)
    }

    /// Waits until a connection that is being closed makes no progress, or has been idle for long.
    pub(super) async fn inactive(&self) {
        let stalled_max = if self.is_multiplexed.load(Ordering::Relaxed) {
            STALLED_CHECKS_MAX
        } else {
            1
        };
        let (mut stalled, mut idle, mut written) = (0, 0, self.progress.written());
        while stalled < stalled_max && idle < IDLE_CHECKS_MAX {
            tokio::time::sleep(CLOSING_CHECK_INTERVAL).await;
            let (now, is_idle) = (self.progress.written(), self.idle_since().is_some());
            stalled = if is_idle && now == written { stalled + 1 } else { 0 };
            idle = if is_idle { idle + 1 } else { 0 };
            written = now;
        }
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let mut all = self.connection.connections.all.lock();
        all.remove(&self.connection.number);
        metrics::gauge!("rachis_http_connections").set(all.len() as f64);
    }
}

impl RequestGuard {
    pub(super) fn begin(connection: &Arc<ConnectionState>) -> Self {
        connection.requests.lock().0 += 1;
        Self {
            connection: connection.clone(),
        }
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        let mut requests = self.connection.requests.lock();
        *requests = (requests.0 - 1, Instant::now());
    }
}
