//! The door for those who ask.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use async_trait::async_trait;
use futures::StreamExt as _;
use plan::{
    Path,
    scan::{DeadLetter, Document, FieldStatus, Pinned, QueryId, Scan, ScanRequest, ScanStream, ShardStatus, SplitStatus},
};
use proto::{
    Address, Code, PositionVector, Problem,
    ingest::{Outcomes, ShardId},
};

use super::{Leaf, PIN_GRACE, Pins, blocking};
use crate::{
    error::Error,
    scan,
    shard::state::{Indexed, Moment},
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
            Problem::new(Code::Unavailable, format!("query {query} holds no view of shard {shard}; it may be past its deadline")).hint("ask again")
        })
    }

    fn hold(&self, query: QueryId, shard: ShardId, moment: &Arc<Moment>, deadline: Instant) {
        let until = deadline + PIN_GRACE;
        let mut pins = self.pins.lock();
        let held = pins.entry(query).or_insert_with(|| Pins { until, moments: Default::default() });
        held.until = held.until.max(until);
        held.moments.insert(shard, moment.clone());
    }
}

#[async_trait]
impl Scan for Leaf {
    async fn pin(&self, query: QueryId, shard: ShardId, at_least: &PositionVector, deadline: Instant) -> Result<Pinned, Problem> {
        let held = self.pins.lock().get(&query).and_then(|pins| pins.moments.get(&shard).cloned());
        let moment = match held.filter(|moment| moment.view.positions.covers(at_least)) {
            Some(moment) => moment,
            None => {
                let moment = self.shard(shard).await?.moment(at_least, deadline).await?;
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
            Ok(view) => scan::run(view, request, &self.scans),
            Err(problem) => futures::stream::iter([Err(problem)]).boxed(),
        }
    }

    async fn document(&self, shard: ShardId, id: &str) -> Result<Option<Document>, Problem> {
        let store = self.shard(shard).await?.store().clone();
        let id = id.to_owned();
        let found = blocking(move || find(&store, &id)).await?;
        Ok(found.map(|document| Document { id: document.id(), json: document.header.json, address: document.address, bytes: document.bytes }))
    }

    async fn fields(&self, shard: ShardId) -> Result<Vec<FieldStatus>, Problem> {
        let shard = self.shard(shard).await?;
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
        let shard = self.shard(shard).await?;
        let (positions, rows, segments, tail) =
            shard.look(|state| (state.positions(), state.rows.clone(), state.segments.clone(), state.tail.documents() as u64));
        blocking(move || {
            let outcomes = rows.values().fold(Outcomes::default(), |sum, row| add(sum, &row.outcomes));
            let splits: Vec<SplitStatus> = segments.iter().map(split_status).collect();
            let on_disk: u64 = splits.iter().filter(|split| split.place == "disk").map(|split| split.bytes).sum();
            Ok(ShardStatus { shard: shard.id, positions, outcomes, tail, splits, bytes: shard.store().bytes() + on_disk })
        })
        .await
    }

    async fn dead_letters(&self, shard: ShardId, limit: usize) -> Result<Vec<DeadLetter>, Problem> {
        let shard = self.shard(shard).await?;
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
        return Ok(store.document(&address)?.filter(|document| document.header.id.is_none()));
    }
    let mut newest: Option<crate::document::Document> = None;
    for address in store.holders(id.as_bytes())?.iter() {
        let found = store.document(address)?;
        let newer = |document: &crate::document::Document| newest.as_ref().is_none_or(|known| document.header.ingested_ms > known.header.ingested_ms);
        newest = found.filter(newer).or(newest);
    }
    Ok(newest)
}

/// Every path ever seen, with what the segments know of it.
fn fields(paths: &plan::PathKinds, segments: &[Arc<Segment>]) -> Vec<FieldStatus> {
    let unknown = |path: &Path, kinds| FieldStatus { path: path.clone(), kinds, documents: 0, indexed: "raw", sample: None };
    let mut fields: BTreeMap<Path, (FieldStatus, bool, bool)> =
        paths.paths.iter().map(|(path, kinds)| (path.clone(), (unknown(path, *kinds), true, false))).collect();
    for (path, shape) in segments.iter().flat_map(|segment| segment.paths()) {
        let (field, columns, text) = fields.entry(path.clone()).or_insert_with(|| (unknown(&path, shape.kinds), true, false));
        field.kinds |= shape.kinds;
        field.documents += shape.documents;
        field.sample = field.sample.take().or(shape.sample);
        *columns &= shape.column;
        *text |= shape.postings;
    }
    let word = |(mut field, columns, text): (FieldStatus, bool, bool)| {
        field.indexed = match (columns, text) {
            (false, _) => "raw",
            (true, true) => "text",
            (true, false) => "columns",
        };
        field
    };
    fields.into_values().map(word).collect()
}

fn split_status(indexed: &Indexed) -> SplitStatus {
    SplitStatus {
        id: indexed.id,
        place: if indexed.on_disk { "disk" } else { "memory" },
        generation: indexed.generation,
        documents: u64::from(indexed.segment.documents()),
        gone: indexed.gone.len(),
        bytes: indexed.segment.bytes(),
        paths: indexed.segment.paths().iter().filter(|(_, shape)| shape.column).count() as u64,
    }
}

fn add(a: Outcomes, b: &Outcomes) -> Outcomes {
    Outcomes {
        events: a.events + b.events,
        accepted: a.accepted + b.accepted,
        tombstones: a.tombstones + b.tombstones,
        duplicates: a.duplicates + b.duplicates,
        dead_letters: a.dead_letters + b.dead_letters,
        superseded: a.superseded + b.superseded,
        deleted: a.deleted + b.deleted,
        expired: a.expired + b.expired,
        documents: a.documents + b.documents,
        bytes: a.bytes + b.bytes,
    }
}
