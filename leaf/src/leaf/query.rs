//! Query side of the leaf: pins views, scans them, and lists documents, fields, status and dead letters.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use futures::StreamExt as _;
use plan::scan::{
    DeadLetter, Document, PathStatus, PinnedShard, QueryId, Scan, ScanRequest, ScanStream, ShardStatus, SplitStatus,
    VIEW_LEASE,
};
use proto::{Address, Code, PositionVector, Problem, ingest::ShardId};

use super::{Leaf, OPEN_WAIT, Pins, ShardInfo, blocking};
use crate::{
    error::Error,
    scan::{self, SharedRequest},
    shard::{
        state::FreshView,
        summary::{self, fields, split_status},
    },
    split::Segment,
    store::{Partition, Store},
    view::ReadView,
};

/// Dead letters in one response.
const DEAD_LETTERS_MAX: usize = 10_000;

impl Leaf {
    /// The view that a query has pinned.
    pub fn pinned(&self, query: QueryId, shard: ShardId) -> Result<ReadView, Problem> {
        Ok(self.start_scan(query, shard)?.0)
    }

    /// The pinned view, for a scan. The query keeps its pins while the scan holds the `Arc`.
    fn start_scan(&self, query: QueryId, shard: ShardId) -> Result<(ReadView, Arc<()>), Problem> {
        let pins = self.pins.lock();
        let pinned = pins.get(&query).and_then(|pins| Some((pins, pins.views.get(&shard)?)));
        let (pins, fresh) = pinned.ok_or_else(|| {
            Problem::new(
                Code::Unavailable,
                format!(
                    "query {query} has no read view of shard {shard}: the query has ended, its aggregator could not \
                     renew the view, or the leaf has restarted"
                ),
            )
            .hint("retry the query")
        })?;
        Ok((fresh.view.clone(), pins.scanned.clone()))
    }

    /// Scans pinned views of these shards; returns an answer for each.
    pub(crate) fn scan_prepared(&self, query: QueryId, shards: &[ShardId], request: SharedRequest) -> Vec<ScanStream> {
        let shared = Arc::new(request);
        let scan = |shard: &ShardId| match self.start_scan(query, *shard) {
            Ok((view, scanned)) => {
                let chunks = scan::run(view, shared.clone(), &self.scans);
                let hold_pins = move |_: &_| {
                    let _while_it_is_read = &scanned;
                };
                chunks.inspect(hold_pins).boxed()
            }
            Err(problem) => futures::stream::iter([Err(problem)]).boxed(),
        };
        shards.iter().map(scan).collect()
    }

    fn add_pin(&self, query: QueryId, shard: ShardId, fresh: &Arc<FreshView>, deadline: Instant) {
        let until = deadline + VIEW_LEASE;
        let mut all_pins = self.pins.lock();
        let pins = all_pins.entry(query).or_insert_with(|| Pins {
            until,
            scanned: Arc::default(),
            views: Default::default(),
        });
        pins.until = pins.until.max(until);
        pins.views.insert(shard, fresh.clone());
    }
}

#[async_trait]
impl Scan for Leaf {
    async fn pin(
        &self,
        query: QueryId,
        shard: ShardId,
        at_least: &PositionVector,
        deadline: Instant,
    ) -> Result<PinnedShard, Problem> {
        let pinned = self
            .pins
            .lock()
            .get(&query)
            .and_then(|pins| pins.views.get(&shard).cloned());
        let fresh = match pinned.filter(|fresh| fresh.view.positions.covers(at_least)) {
            Some(fresh) => fresh,
            None => {
                // A client with a longer deadline tries again.
                let late = || {
                    Problem::new(Code::Timeout, format!("shard {shard} did not open in time")).hint("raise timeout_ms")
                };
                let opened = tokio::time::timeout_at(deadline.into(), self.shard_until(shard, deadline + OPEN_WAIT));
                let fresh = opened
                    .await
                    .unwrap_or_else(|_| Err(late()))?
                    .fresh_view(at_least, deadline)
                    .await?;
                self.add_pin(query, shard, &fresh, deadline);
                fresh
            }
        };
        let view = &fresh.view;
        Ok(PinnedShard {
            positions: view.positions.clone(),
            boot: self.boot,
            paths: view.paths.clone(),
            documents: view.documents(),
            freshness_ms: fresh.freshness_ms,
        })
    }

    fn renew(&self, query: QueryId) {
        if let Some(pins) = self.pins.lock().get_mut(&query) {
            pins.until = pins.until.max(Instant::now() + VIEW_LEASE);
        }
    }

    fn unpin(&self, query: QueryId) {
        self.pins.lock().remove(&query);
    }

    fn scan(&self, request: ScanRequest) -> Vec<ScanStream> {
        let (query, shards) = (request.query, request.shards.clone());
        self.scan_prepared(query, &shards, SharedRequest::new(request))
    }

    async fn document(&self, shard: ShardId, id: &str) -> Result<Option<Document>, Problem> {
        let store = self.shard(shard).await?.store().clone();
        let id = id.to_owned();
        let found = blocking(move || find(&store, &id)).await?;
        Ok(found.map(|document| Document {
            id: document.id(),
            json: document.header.json,
            address: document.address,
            bytes: document.bytes,
        }))
    }

    async fn fields(&self, shard: ShardId) -> Result<Vec<PathStatus>, Problem> {
        let shard = match self.info(shard).await? {
            ShardInfo::Closed(summary) => return Ok(summary.fields),
            ShardInfo::Open(shard) => shard,
        };
        let (paths, mut segments, tail) = shard.with_state(|state| {
            let segments: Vec<_> = state.segments.iter().map(|live| live.segment.clone()).collect();
            (state.paths(), segments, state.tail.live())
        });
        blocking(move || {
            if !tail.is_empty() {
                segments.push(Arc::new(Segment::in_memory(&tail)?));
            }
            Ok(fields(&paths, &segments))
        })
        .await
    }

    async fn status(&self, shard: ShardId) -> Result<ShardStatus, Problem> {
        let shard = match self.info(shard).await? {
            ShardInfo::Closed(summary) => return Ok(summary.status(shard)),
            ShardInfo::Open(shard) => shard,
        };
        let (rows, segments, tail) = shard.with_state(|state| {
            (
                state.rows.clone(),
                state.segments.clone(),
                state.tail.documents() as u64,
            )
        });
        blocking(move || {
            let splits: Vec<SplitStatus> = segments.iter().map(split_status).collect();
            let on_disk: u64 = splits
                .iter()
                .filter(|split| split.place == "disk")
                .map(|split| split.bytes)
                .sum();
            Ok(summary::status(
                shard.id,
                &rows,
                splits,
                tail,
                shard.store().bytes() + on_disk,
            ))
        })
        .await
    }

    async fn dead_letters(&self, shard: ShardId, limit: usize) -> Result<Vec<DeadLetter>, Problem> {
        let shard = match self.info(shard).await? {
            // True of most shards.
            ShardInfo::Closed(summary) if summary.oldest_dead_letter_ms.is_none() => return Ok(Vec::new()),
            ShardInfo::Closed(_) => self.shard(shard).await?,
            ShardInfo::Open(shard) => shard,
        };
        let limit = limit.min(DEAD_LETTERS_MAX);
        blocking(move || {
            let partitions: Vec<Partition> = shard.with_state(|state| state.rows.keys().cloned().collect());
            let mut letters = Vec::new();
            for partition in partitions {
                letters.extend(shard.store().dead_letters(&partition, limit)?);
                letters.sort_by(|a: &DeadLetter, b| (b.ingested_ms, &b.address).cmp(&(a.ingested_ms, &a.address)));
                letters.truncate(limit);
            }
            Ok(letters)
        })
        .await
    }
}

/// The newest document with this key, or, if the id is an address, the document there unless it has a key.
fn find(store: &Store, id: &str) -> Result<Option<crate::document::Document>, Error> {
    if let Ok(address) = id.parse::<Address>() {
        if store.is_deleted(&address)? {
            return Ok(None);
        }
        return Ok(store
            .document(&address)?
            .filter(|document| document.header.id.is_none()));
    }
    let mut newest: Option<crate::document::Document> = None;
    for address in store.key_index(id.as_bytes())?.iter() {
        let document = store.document(address)?;
        let is_newer = |document: &crate::document::Document| {
            newest
                .as_ref()
                .is_none_or(|newest| document.header.ingested_ms > newest.header.ingested_ms)
        };
        newest = document.filter(is_newer).or(newest);
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::tests::support::{Fixture, query, small};

    #[tokio::test(flavor = "multi_thread")]
    async fn a_view_is_kept_until_its_lease_expires_and_a_renewal_extends_it() {
        let fixture = Fixture::start(small);
        let (leaf, id, second) = (&fixture.leaf, query(), Duration::from_secs(1));
        let deadline = Instant::now() + 20 * second;
        let pinned = leaf.pin(id, fixture.shard, &PositionVector::default(), deadline).await;
        pinned.expect("a view");
        let is_kept = || leaf.pinned(id, fixture.shard).is_ok();
        leaf.expire_pins(deadline + VIEW_LEASE - second);
        assert!(is_kept(), "its lease begins at the deadline");
        leaf.renew(id);
        leaf.expire_pins(deadline + VIEW_LEASE - second);
        assert!(is_kept(), "a renewal never shortens a lease");
        let renewed = Instant::now();
        // Long enough that housekeeping does not expire it here.
        leaf.pins.lock().get_mut(&id).expect("pins").until = renewed + 2 * second;
        leaf.renew(id);
        leaf.expire_pins(renewed + VIEW_LEASE - second);
        assert!(is_kept(), "a renewal extends a lease");
        leaf.expire_pins(Instant::now() + VIEW_LEASE + second);
        assert!(!is_kept(), "the lease has expired");
        leaf.renew(id);
        assert!(!is_kept(), "what was released stays released");
    }
}
