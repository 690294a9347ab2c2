//! The door for those who ask.

use std::{sync::Arc, time::Instant};

use async_trait::async_trait;
use futures::StreamExt as _;
use plan::scan::{
    DeadLetter, Document, FieldStatus, Pinned, QueryId, Scan, ScanRequest, ScanStream, ShardStatus, SplitStatus,
};
use proto::{Address, Code, PositionVector, Problem, ingest::ShardId};

use super::{Leaf, OPEN_WAIT, PIN_GRACE, Pins, ShardInfo, blocking};
use crate::{
    error::Error,
    scan,
    shard::{
        state::Moment,
        summary::{self, fields, split_status},
    },
    split::Segment,
    store::{Partition, Store},
    view::View,
};

/// Dead letters that one question brings.
const DEAD_LETTERS_MAX: usize = 10_000;

impl Leaf {
    /// The view that a query has pinned.
    pub fn pinned(&self, query: QueryId, shard: ShardId) -> Result<View, Problem> {
        let pins = self.pins.lock();
        let moment = pins.get(&query).and_then(|pins| pins.moments.get(&shard));
        moment.map(|moment| moment.view.clone()).ok_or_else(|| {
            Problem::new(
                Code::Unavailable,
                format!("query {query} holds no view of shard {shard}; it may be past its deadline"),
            )
            .hint("ask again")
        })
    }

    fn hold(&self, query: QueryId, shard: ShardId, moment: &Arc<Moment>, deadline: Instant) {
        let until = deadline + PIN_GRACE;
        let mut pins = self.pins.lock();
        let held = pins.entry(query).or_insert_with(|| Pins {
            until,
            scanned: Arc::default(),
            moments: Default::default(),
        });
        held.until = held.until.max(until);
        held.moments.insert(shard, moment.clone());
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
    ) -> Result<Pinned, Problem> {
        let held = self
            .pins
            .lock()
            .get(&query)
            .and_then(|pins| pins.moments.get(&shard).cloned());
        let moment = match held.filter(|moment| moment.view.positions.covers(at_least)) {
            Some(moment) => moment,
            None => {
                // Who has more time than this asks again.
                let late = || {
                    Problem::new(Code::Timeout, format!("shard {shard} did not open in time")).hint("allow more time")
                };
                let opened = tokio::time::timeout_at(deadline.into(), self.shard_until(shard, deadline + OPEN_WAIT));
                let moment = opened
                    .await
                    .unwrap_or_else(|_| Err(late()))?
                    .moment(at_least, deadline)
                    .await?;
                self.hold(query, shard, &moment, deadline);
                moment
            }
        };
        let view = &moment.view;
        Ok(Pinned {
            positions: view.positions.clone(),
            boot: self.boot,
            paths: view.paths.clone(),
            documents: view.documents(),
            freshness_ms: moment.freshness_ms,
        })
    }

    fn unpin(&self, query: QueryId) {
        self.pins.lock().remove(&query);
    }

    fn scan(&self, request: ScanRequest) -> ScanStream {
        match self.pinned(request.query, request.shard) {
            Ok(view) => {
                let scanned = self.pins.lock().get(&request.query).map(|pins| pins.scanned.clone());
                let chunks = scan::run(view, request, &self.scans);
                let held = move |_: &_| {
                    let _while_it_is_read = &scanned;
                };
                chunks.inspect(held).boxed()
            }
            Err(problem) => futures::stream::iter([Err(problem)]).boxed(),
        }
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

    async fn fields(&self, shard: ShardId) -> Result<Vec<FieldStatus>, Problem> {
        let shard = match self.info(shard).await? {
            ShardInfo::Closed(summary) => return Ok(summary.fields),
            ShardInfo::Open(shard) => shard,
        };
        let (paths, mut segments, tail) = shard.look(|state| {
            let segments: Vec<_> = state.segments.iter().map(|indexed| indexed.segment.clone()).collect();
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
        let (rows, segments, tail) = shard.look(|state| {
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
            // Most shards have none.
            ShardInfo::Closed(summary) if summary.oldest_dead_letter_ms.is_none() => return Ok(Vec::new()),
            ShardInfo::Closed(_) => self.shard(shard).await?,
            ShardInfo::Open(shard) => shard,
        };
        let limit = limit.min(DEAD_LETTERS_MAX);
        blocking(move || {
            let partitions: Vec<Partition> = shard.look(|state| state.rows.keys().cloned().collect());
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

/// The newest document of a key, else the one at an address that has no key.
fn find(store: &Store, id: &str) -> Result<Option<crate::document::Document>, Error> {
    if let Ok(address) = id.parse::<Address>() {
        if store.is_gone(&address)? {
            return Ok(None);
        }
        return Ok(store
            .document(&address)?
            .filter(|document| document.header.id.is_none()));
    }
    let mut newest: Option<crate::document::Document> = None;
    for address in store.holders(id.as_bytes())?.iter() {
        let found = store.document(address)?;
        let newer = |document: &crate::document::Document| {
            newest
                .as_ref()
                .is_none_or(|known| document.header.ingested_ms > known.header.ingested_ms)
        };
        newest = found.filter(newer).or(newest);
    }
    Ok(newest)
}
