//! What a shard knows in memory: segments, tail, positions. One lock; every change is one moment, and a view is one
//! moment.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use plan::{Kinds, Path, PathKinds};
use proto::{Address, PositionVector, ingest::ShardId, limits::PATHS_MAX};
use roaring::RoaringBitmap;

use super::{
    budget::{Budget, Held},
    tail::{Tail, Taken},
};
use crate::{
    document::Document,
    split::Segment,
    store::{Partition, PartitionRow, Ranges, Shared, Store},
    view::{Documents, SegmentView, View},
};

/// A segment with what the shard knows of it.
#[derive(Clone)]
pub struct Indexed {
    /// Names it within the shard; file name and manifest key of a split on disk.
    pub id: u64,
    /// Where it stands among the others, the oldest first.
    pub place: u64,
    /// Whether it is a file with a manifest row.
    pub on_disk: bool,
    /// How many rebuilds made it.
    pub generation: u32,
    /// Which records it covers.
    pub ranges: Ranges,
    /// Raw bytes of its documents, about.
    pub raw_bytes: u64,
    /// The index.
    pub segment: Arc<Segment>,
    /// Its documents that are gone.
    pub gone: Arc<RoaringBitmap>,
}

impl Indexed {
    /// Whether more than half of it is gone.
    pub fn is_hollow(&self) -> bool {
        self.gone.len() * 2 > u64::from(self.segment.documents())
    }

    /// Whether it covers the record of an address.
    pub fn covers(&self, address: &Address) -> bool {
        self.ranges
            .get(&Partition::of(address))
            .is_some_and(|(after, through)| address.offset > *after && address.offset <= *through)
    }

    /// Notes that a document is gone, if it is here.
    pub fn mark_gone(&mut self, address: &Address) -> bool {
        let found = self.segment.find(address);
        found.is_some_and(|number| Arc::make_mut(&mut self.gone).insert(number))
    }
}

/// A view, and how fresh it is.
pub struct Moment {
    /// The view.
    pub view: View,
    /// How many changes of the shard it holds.
    pub sequence: u64,
    /// Milliseconds between the newest document's ingest and its visibility.
    pub freshness_ms: u64,
}

/// What the writer adds in one change.
#[derive(Default)]
pub struct Change {
    /// Partitions as they are now.
    pub rows: BTreeMap<Partition, PartitionRow>,
    /// New documents, ascending within their partitions.
    pub documents: Vec<Arc<Document>>,
    /// Documents that are gone, new ones among them.
    pub gone: Vec<Address>,
    /// New kinds.
    pub kinds: Vec<(Path, Kinds)>,
    /// There are more paths than are remembered.
    pub overflow: bool,
}

/// What is in memory.
pub struct State {
    shard: ShardId,
    /// As views have them.
    documents: Arc<Shared>,
    /// Partitions as they are stored.
    pub rows: BTreeMap<Partition, PartitionRow>,
    /// Oldest first; those on disk before those in memory.
    pub segments: Vec<Indexed>,
    /// In no segment yet.
    pub tail: Tail,
    /// Through which offset segments cover each partition.
    pub covered: BTreeMap<Partition, i64>,
    /// The next id of a segment.
    pub next_id: u64,
    /// Changes so far.
    pub sequence: u64,
    /// When the last change came.
    pub changed_at: Instant,
    /// When the oldest document of the tail came.
    pub waiting_since: Option<Instant>,
    /// When the last build for the tail began.
    pub built_at: Option<Instant>,
    /// The indexer cannot build; views hold the whole tail, however long.
    pub unindexable: bool,
    paths: Arc<PathKinds>,
    newest_ms: i64,
    freshness_ms: u64,
    now: Option<Arc<Moment>>,
    published: Option<Arc<Moment>>,
    held: Option<Held>,
}

/// What a build for the tail began with.
pub struct Begun {
    /// The documents.
    pub taken: Taken,
    ranges: Ranges,
    /// The moment, without its tail.
    before: Moment,
}

impl State {
    /// Of a shard with nothing in memory.
    pub fn new(store: Arc<Store>, rows: BTreeMap<Partition, PartitionRow>, paths: PathKinds) -> Self {
        let newest_ms = rows
            .values()
            .filter_map(|row| row.last_ingested_ms)
            .max()
            .unwrap_or_default();
        Self {
            shard: store.shard(),
            documents: Shared::new(store),
            rows,
            segments: Vec::new(),
            tail: Tail::default(),
            covered: BTreeMap::new(),
            next_id: 1,
            sequence: 0,
            changed_at: Instant::now(),
            waiting_since: None,
            built_at: None,
            unindexable: false,
            paths: Arc::new(paths),
            newest_ms,
            freshness_ms: 0,
            now: None,
            published: None,
            held: None,
        }
    }

    /// From now on, what it holds in memory counts against a budget.
    pub fn count_against(&mut self, budget: &Arc<Budget>) {
        self.held = Some(Held::new(budget.clone()));
        self.count();
    }

    /// Bytes of the tail and of micro-splits, as they were counted last.
    pub fn held_bytes(&self) -> usize {
        self.held.as_ref().map_or(0, Held::bytes)
    }

    fn count(&mut self) {
        let segments = self
            .segments
            .iter()
            .filter(|indexed| !indexed.on_disk)
            .map(|indexed| indexed.segment.bytes());
        let bytes = self.tail.bytes() + usize::try_from(segments.sum::<u64>()).unwrap_or(usize::MAX);
        if let Some(held) = &mut self.held {
            held.update(bytes);
        }
    }

    /// Every record through it is in.
    pub fn positions(&self) -> PositionVector {
        let mut positions = PositionVector::default();
        self.rows
            .iter()
            .for_each(|(partition, row)| positions.advance(&partition.source, partition.number, row.offset));
        positions
    }

    /// The kinds of all paths.
    pub fn paths(&self) -> Arc<PathKinds> {
        self.paths.clone()
    }

    /// Makes a change visible, all at once. `now_ms` is the time of day.
    pub fn apply(&mut self, change: Change, now_ms: i64) {
        self.now = None;
        self.sequence += 1;
        self.changed_at = Instant::now();
        if !change.documents.is_empty() {
            self.waiting_since.get_or_insert(self.changed_at);
            let newest = change
                .documents
                .iter()
                .map(|d| d.header.ingested_ms)
                .max()
                .unwrap_or_default();
            self.newest_ms = self.newest_ms.max(newest);
            self.freshness_ms = now_ms.saturating_sub(newest).max(0).unsigned_abs();
        }
        self.rows.extend(change.rows);
        change
            .documents
            .into_iter()
            .for_each(|document| self.tail.push(document));
        change.gone.iter().for_each(|address| self.mark_gone(address));
        if !change.kinds.is_empty() || change.overflow {
            merge_kinds(Arc::make_mut(&mut self.paths), change.kinds, change.overflow);
        }
        self.count();
    }

    fn mark_gone(&mut self, address: &Address) {
        if self.tail.remove(address) {
            return;
        }
        if let Some(indexed) = self.segments.iter_mut().rev().find(|indexed| indexed.covers(address)) {
            indexed.mark_gone(address);
        }
    }

    /// The view of this moment, the whole tail in it.
    pub fn moment(&mut self) -> Arc<Moment> {
        if let Some(now) = &self.now {
            return now.clone();
        }
        let now = Arc::new(self.moment_with(self.tail.live()));
        self.now = Some(now.clone());
        now
    }

    fn moment_with(&self, tail: Vec<Arc<Document>>) -> Moment {
        let segments = self.segments.iter().map(|indexed| SegmentView {
            segment: indexed.segment.clone(),
            gone: indexed.gone.clone(),
        });
        let view = View {
            shard: self.shard,
            positions: self.positions(),
            paths: self.paths.clone(),
            segments: segments.collect(),
            tail: Arc::new(tail),
            newest_ms: self.newest_ms,
            store: self.documents.clone() as Arc<dyn Documents>,
        };
        Moment {
            view,
            sequence: self.sequence,
            freshness_ms: self.freshness_ms,
        }
    }

    /// The last moment in which the whole tail was indexed.
    pub fn published(&self) -> Option<Arc<Moment>> {
        self.published.clone()
    }

    /// Takes the tail for a build.
    pub fn begin_build(&mut self) -> Begun {
        let range = |(partition, row): (&Partition, &PartitionRow)| {
            let after = self.covered.get(partition).copied().unwrap_or(-1);
            (row.offset > after).then(|| (partition.clone(), (after, row.offset)))
        };
        let ranges = self.rows.iter().filter_map(range).collect();
        self.built_at = Some(Instant::now());
        Begun {
            taken: self.tail.take(),
            ranges,
            before: self.moment_with(Vec::new()),
        }
    }

    /// Puts in what was built (nothing, where no document was left), and keeps the moment at which the build began for
    /// those who waited.
    pub fn end_build(&mut self, begun: Begun, segment: Option<Arc<Segment>>) {
        let Begun {
            taken,
            ranges,
            mut before,
        } = begun;
        let gone = self.tail.settle(&taken);
        // Where no document was left nothing is covered: the next segment covers these records too.
        if let Some(segment) = segment {
            for (partition, (_, through)) in &ranges {
                self.covered.insert(partition.clone(), *through);
            }
            before.view.segments.push(SegmentView {
                segment: segment.clone(),
                gone: Arc::default(),
            });
            let raw_bytes = taken.documents.iter().map(|d| d.bytes.len() as u64).sum();
            let id = self.draw_id();
            let mut indexed = Indexed {
                id,
                place: id,
                on_disk: false,
                generation: 0,
                ranges,
                raw_bytes,
                segment,
                gone: Arc::default(),
            };
            for address in &gone {
                indexed.mark_gone(address);
            }
            self.segments.push(indexed);
        }
        self.waiting_since = (self.tail.documents() > 0).then(Instant::now);
        self.now = None;
        self.unindexable = false;
        self.published = Some(Arc::new(before));
        self.count();
    }

    /// Puts one segment (or none, where nothing lives any more) in the place of neighbours, and answers these with
    /// their state of this moment. What went away of them since `seen` goes away of the new one.
    pub fn replace(&mut self, seen: &[Indexed], replacement: Option<Indexed>) -> Vec<Indexed> {
        let at = self
            .segments
            .iter()
            .position(|indexed| indexed.id == seen[0].id)
            .expect("only one rebuild at a time removes a segment");
        let old: Vec<Indexed> = self.segments.splice(at..at + seen.len(), None).collect();
        if let Some(mut new) = replacement {
            for (now, seen) in old.iter().zip(seen) {
                for number in (&*now.gone - &*seen.gone).iter() {
                    new.mark_gone(&now.segment.address(number));
                }
            }
            self.segments.insert(at, new);
        }
        self.now = None;
        self.published = None;
        self.count();
        old
    }

    /// Documents that are in no split on disk, and their bytes.
    pub fn unsplit(&self) -> (usize, usize) {
        let (documents, bytes) = self.in_memory();
        (
            self.tail.documents() + documents as usize,
            self.tail.bytes() + bytes as usize,
        )
    }

    /// Lets go of the views that are kept for the next question.
    pub fn forget_moments(&mut self) {
        self.now = None;
        self.published = None;
    }

    /// Whether somebody holds a view.
    pub fn has_views(&self) -> bool {
        Arc::strong_count(&self.documents) > 1
    }

    /// Lets go of the store: views that are held read no more documents.
    pub fn close(&mut self) {
        self.forget_moments();
        self.documents.close();
    }

    /// A new id of a segment.
    pub fn draw_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Documents in segments in memory, and their raw bytes.
    pub fn in_memory(&self) -> (u64, u64) {
        let memory = self.segments.iter().filter(|indexed| !indexed.on_disk);
        memory.fold((0, 0), |(documents, bytes), indexed| {
            (
                documents + u64::from(indexed.segment.documents()),
                bytes + indexed.raw_bytes,
            )
        })
    }
}

/// The ranges from the first's beginning through the second's end.
pub fn extend(ranges: &mut Ranges, with: &Ranges) {
    for (partition, (after, through)) in with {
        let range = ranges.entry(partition.clone()).or_insert((*after, *through));
        *range = (range.0.min(*after), range.1.max(*through));
    }
}

/// Adds kinds to a table of at most `PATHS_MAX` paths.
pub fn merge_kinds(paths: &mut PathKinds, kinds: impl IntoIterator<Item = (Path, Kinds)>, overflow: bool) {
    paths.overflow |= overflow;
    for (path, kinds) in kinds {
        let full = paths.paths.len() >= PATHS_MAX;
        match paths.paths.get_mut(&path) {
            Some(known) => *known |= kinds,
            None if full => paths.overflow = true,
            None => drop(paths.paths.insert(path, kinds)),
        }
    }
}
