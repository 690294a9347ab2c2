//! The lease of views that are open on leaves: it renews them while it lives, and releases them when it is dropped.
//!
//! Both are best effort. A leaf that hears nothing releases the views of a client when their lease has expired.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use proto::{
    client::{ASK_WAIT, Peer},
    cluster::NodeName,
};
use tokio::{runtime::Handle, sync::mpsc};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use uuid::Uuid;

use super::control;
use crate::views::VIEW_LEASE;

/// How often a lease is renewed: one lost renewal does no harm.
const RENEW_EVERY: Duration = VIEW_LEASE.checked_div(3).expect("three is not zero");
/// Releases are collected for this long; then each leaf gets one call for all of them.
const RELEASE_AFTER: Duration = Duration::from_millis(20);
/// Releases that wait to be sent. Further ones are left to the leases.
const RELEASES_MAX: usize = 16_384;

/// The leaves on which the views of a lease may be open.
type LeasedOn = Arc<Mutex<BTreeMap<NodeName, Peer>>>;

/// The lease of all views that are open under one id.
pub(super) struct Lease {
    /// The id of the views.
    pub id: Uuid,
    leaves: LeasedOn,
    releases: ReleaseQueue,
    _renewal: AbortOnDropHandle<()>,
}

impl Lease {
    /// A lease without views. It is renewed until then, unless this token is cancelled before.
    pub(super) fn new(releases: ReleaseQueue, renewed_until: Instant, cancelled: CancellationToken) -> Self {
        let (id, leaves) = (Uuid::now_v7(), LeasedOn::default());
        let renewal = renew(id, Arc::clone(&leaves));
        let renewal = async move {
            let renewal = tokio::time::timeout_at(renewed_until.into(), renewal);
            let _why_it_ended = cancelled.run_until_cancelled(renewal).await;
        };
        let renewal = AbortOnDropHandle::new(releases.runtime.spawn(renewal));
        Self {
            id,
            leaves,
            releases,
            _renewal: renewal,
        }
    }

    /// Records a leaf before it is asked to open views, so that they are released even if the call is dropped half-way.
    pub(super) fn add(&self, leaf: &Peer) {
        self.leaves
            .lock()
            .entry(leaf.name.clone())
            .or_insert_with(|| leaf.clone());
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let leaves = std::mem::take(&mut *self.leaves.lock());
        leaves.into_values().for_each(|leaf| self.releases.push(leaf, self.id));
    }
}

/// The id of views on the wire.
pub(super) fn id_bytes(views: Uuid) -> Bytes {
    Bytes::copy_from_slice(views.as_bytes())
}

async fn renew(views: Uuid, leaves: LeasedOn) {
    loop {
        tokio::time::sleep(RENEW_EVERY).await;
        let leaves: Vec<Peer> = leaves.lock().values().cloned().collect();
        for leaf in leaves {
            let Ok(request) = leaf.json(&views, ASK_WAIT) else {
                continue;
            };
            // A leaf that does not answer must not keep the others from being asked.
            tokio::spawn(async move { drop(control(&leaf).renew(request).await) });
        }
    }
}

/// Collects the views to release, and tells their leaves. Cheap to clone.
#[derive(Clone)]
pub(super) struct ReleaseQueue {
    released: mpsc::Sender<(Peer, Uuid)>,
    /// Where views are renewed and released.
    runtime: Handle,
}

impl ReleaseQueue {
    /// Starts to release on the current runtime, until every clone of the queue is dropped.
    pub(super) fn start() -> Self {
        let (released, queue) = mpsc::channel(RELEASES_MAX);
        let runtime = Handle::current();
        runtime.spawn(send_releases(queue));
        Self { released, runtime }
    }

    fn push(&self, leaf: Peer, views: Uuid) {
        // Nobody receives it if the runtime has been shut down.
        let _the_lease_expires = self.released.try_send((leaf, views));
    }
}

async fn send_releases(mut queue: mpsc::Receiver<(Peer, Uuid)>) {
    while let Some(first) = queue.recv().await {
        tokio::time::sleep(RELEASE_AFTER).await;
        let mut by_leaf: BTreeMap<NodeName, (Peer, Vec<Uuid>)> = BTreeMap::new();
        for (leaf, views) in std::iter::once(first).chain(std::iter::from_fn(|| queue.try_recv().ok())) {
            let (_, views_on_leaf) = by_leaf.entry(leaf.name.clone()).or_insert((leaf, Vec::new()));
            views_on_leaf.push(views);
        }
        for (leaf, views) in by_leaf.into_values() {
            let Ok(request) = leaf.json(&views, ASK_WAIT) else {
                continue;
            };
            tokio::spawn(async move { drop(control(&leaf).release(request).await) });
        }
    }
}
