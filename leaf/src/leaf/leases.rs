//! Read views that clients on other nodes have open here, each for as long as its client renews it.

use std::{collections::HashMap, sync::Arc, time::Instant};

use futures::StreamExt as _;
use parking_lot::Mutex;
use plan::{scan::ScanStream, views::VIEW_LEASE};
use proto::ingest::ShardId;
use uuid::Uuid;

use super::views::{LeafViews, not_open};
use crate::scan::SharedRequest;

/// The views of all clients, by the ids that the clients chose.
#[derive(Default)]
pub(crate) struct ViewLeases(Mutex<HashMap<Uuid, Lease>>);

struct Lease {
    until: Instant,
    views: LeafViews,
    /// Each scan of the views has a clone while its answer can still be read.
    scanned: Arc<()>,
}

impl ViewLeases {
    /// Keeps views until [`VIEW_LEASE`] after the deadline of their opening, and longer if they are renewed.
    pub(crate) fn put(&self, id: Uuid, opened: LeafViews, deadline: Instant) {
        if opened.is_empty() {
            return;
        }
        let until = deadline + VIEW_LEASE;
        // Dropped outside the lock: dropping a view may take time.
        let _replaced;
        let mut leases = self.0.lock();
        match leases.get_mut(&id) {
            Some(lease) => {
                lease.until = lease.until.max(until);
                _replaced = lease.views.merge(opened);
            }
            None => {
                let lease = Lease {
                    until,
                    views: opened,
                    scanned: Arc::default(),
                };
                leases.insert(id, lease);
            }
        }
    }

    /// Keeps views for another [`VIEW_LEASE`].
    pub(crate) fn renew(&self, id: Uuid) {
        if let Some(lease) = self.0.lock().get_mut(&id) {
            lease.until = lease.until.max(Instant::now() + VIEW_LEASE);
        }
    }

    /// Releases views. A scan that has begun keeps what it reads.
    pub(crate) fn release(&self, id: Uuid) {
        // Dropped outside the lock: dropping a view may take time.
        let _released = self.0.lock().remove(&id);
    }

    /// Scans the views of these shards; returns an answer for each. While one of them can be read, the lease does not
    /// expire.
    pub(crate) fn scan(&self, id: Uuid, shards: &[ShardId], request: SharedRequest) -> Vec<ScanStream> {
        let leases = self.0.lock();
        let Some(lease) = leases.get(&id) else {
            let not_open = |shard: &ShardId| futures::stream::iter([Err(not_open(*shard))]).boxed();
            return shards.iter().map(not_open).collect();
        };
        let answers = lease.views.scan_prepared(shards, request).into_iter();
        let hold = |answer: ScanStream| {
            let scanned = lease.scanned.clone();
            let hold_lease = move |_: &_| {
                let _while_it_is_read = &scanned;
            };
            answer.inspect(hold_lease).boxed()
        };
        answers.map(hold).collect()
    }

    /// Releases the views whose lease has expired.
    pub(super) fn expire(&self, now: Instant) {
        let is_expired = |lease: &Lease| lease.until <= now && Arc::strong_count(&lease.scanned) == 1;
        let mut leases = self.0.lock();
        // Dropped outside the lock.
        let _expired: Vec<(Uuid, Lease)> = leases.extract_if(|_, lease| is_expired(lease)).collect();
        drop(leases);
    }

    /// Releases all views.
    pub(super) fn clear(&self) {
        let _released = std::mem::take(&mut *self.0.lock());
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proto::PositionVector;

    use super::*;
    use crate::tests::support::{Fixture, small};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_view_is_kept_until_its_lease_expires_and_a_renewal_extends_it() {
        let fixture = Fixture::start(small);
        let (leases, id, second) = (ViewLeases::default(), Uuid::now_v7(), Duration::from_secs(1));
        let deadline = Instant::now() + 20 * second;
        let wanted = [(fixture.shard, PositionVector::default())];
        let (views, outcomes) = fixture.leaf.open_read_views(&wanted, deadline).await;
        outcomes.into_iter().for_each(|outcome| drop(outcome.expect("a view")));
        leases.put(id, views, deadline);
        let is_kept = || fixture.leaf.open_views() == 1;
        leases.expire(deadline + VIEW_LEASE - second);
        assert!(is_kept(), "its lease begins at the deadline");
        leases.renew(id);
        leases.expire(deadline + VIEW_LEASE - second);
        assert!(is_kept(), "a renewal never shortens a lease");
        let renewed = Instant::now();
        leases.0.lock().get_mut(&id).expect("a lease").until = renewed + 2 * second;
        leases.renew(id);
        leases.expire(renewed + VIEW_LEASE - second);
        assert!(is_kept(), "a renewal extends a lease");
        leases.expire(Instant::now() + VIEW_LEASE + second);
        assert!(!is_kept(), "the lease has expired");
        leases.renew(id);
        assert!(leases.0.lock().is_empty(), "what was released stays released");
    }
}
