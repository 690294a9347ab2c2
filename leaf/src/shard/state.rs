//! The in-memory state of a shard: segments, tail, positions. One lock protects it; every change is atomic, and a read
//! view is a consistent copy.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
    time::Instant,
};

use plan::{Kinds, Path, PathKinds, path::Step};
use proto::{
    Address, Position, PositionVector,
    ingest::{Heat, ShardId},
    limits::{PATHS_BYTES_MAX, PATHS_MAX},
    place_ranges::PlaceRanges,
};
use roaring::RoaringBitmap;

use super::{
    budget::{MemoryBudget, Reservation},
    gone::GoneRanges,
    heat::PartitionHeat,
    tail::{Tail, TailSnapshot},
};
use crate::{
    document::Document,
    split::Segment,
    store::{Partition, PartitionRow, Ranges, SharedStore, Store},
    view::{Documents, ReadView, SegmentView},
};

/// A live segment with its metadata.
#[derive(Clone)]
pub(crate) struct LiveSegment {
    /// Its id within the shard; file name and manifest key of a split on disk.
    pub id: u64,
    /// Its rank among the segments, oldest first.
    pub order: u64,
    /// Whether it is a split on disk, with a manifest row.
    pub on_disk: bool,
    /// Merge level: 0 if built from micro-splits, one more than its inputs after a merge. A rebuild keeps it. A
    /// micro-split has 0.
    pub generation: u32,
    /// The records it covers.
    pub ranges: Ranges,
    /// Approximate raw size of its documents in bytes.
    pub raw_bytes: u64,
    /// The index.
    pub segment: Arc<Segment>,
    /// The document numbers of its deleted documents.
    pub deleted: Arc<RoaringBitmap>,
}

impl LiveSegment {
    /// Whether more than half of its documents are deleted.
    pub(crate) fn is_mostly_deleted(&self) -> bool {
        self.deleted.len() * 2 > u64::from(self.segment.documents())
    }

    /// Whether it covers the record of an address.
    pub(crate) fn covers(&self, address: &Address) -> bool {
        self.ranges
            .get(&Partition::of(address))
            .is_some_and(|(after, through)| address.offset > *after && address.offset <= *through)
    }

    /// Marks a document as deleted. False if it is not in this segment, or already deleted.
    pub(crate) fn mark_deleted(&mut self, address: &Address) -> bool {
        let found = self.segment.find(address);
        found.is_some_and(|number| Arc::make_mut(&mut self.deleted).insert(number))
    }

    /// The documents in these ranges of a partition, deleted ones included.
    fn documents_in(&self, partition: &Partition, ranges: &PlaceRanges) -> RoaringBitmap {
        match self.ranges.contains_key(partition) {
            true => self.segment.find_ranges(&partition.source, partition.number, ranges),
            false => RoaringBitmap::new(),
        }
    }

    /// Whether it has a document in these ranges of a partition, deleted or not.
    pub(crate) fn has_any(&self, partition: &Partition, ranges: &PlaceRanges) -> bool {
        !self.documents_in(partition, ranges).is_empty()
    }

    /// The live documents in these ranges of a partition.
    fn live_in(&self, partition: &Partition, ranges: &PlaceRanges) -> RoaringBitmap {
        self.documents_in(partition, ranges) - &*self.deleted
    }

    /// Marks the documents in these ranges of a partition as deleted.
    pub(crate) fn mark_gone(&mut self, partition: &Partition, ranges: &PlaceRanges) {
        let found = self.live_in(partition, ranges);
        if !found.is_empty() {
            *Arc::make_mut(&mut self.deleted) |= found;
        }
    }
}

/// A read view with its freshness.
pub(crate) struct FreshView {
    pub view: ReadView,
    /// The number of changes of the shard it contains.
    pub sequence: u64,
    /// Milliseconds from the ingest of the newest document to its visibility.
    pub freshness_ms: u64,
}

/// The effect of one group of the writer.
#[derive(Default)]
pub(crate) struct StateChange {
    /// The new rows of changed partitions.
    pub rows: BTreeMap<Partition, PartitionRow>,
    /// New documents, ascending within their partitions.
    pub documents: Vec<Arc<Document>>,
    /// Deleted documents, which may include new ones.
    pub deleted: Vec<Address>,
    /// What changes deleted. A group has either them or new documents.
    pub gone: GoneRanges,
    /// What is left of everything that changes deleted, once the rest is erased.
    pub gone_left: Option<GoneRanges>,
    /// New kinds by path.
    pub kinds: Vec<(Path, Kinds)>,
    /// All paths of each partition that has no room for further ones from now on.
    pub overflowed: Vec<HashSet<Path>>,
}

/// The in-memory state of a shard.
pub(crate) struct ShardState {
    shard: ShardId,
    /// The store as shared with read views.
    documents: Arc<SharedStore>,
    /// The stored rows of all partitions.
    pub rows: BTreeMap<Partition, PartitionRow>,
    /// Live segments, oldest first; those on disk before those in memory.
    pub segments: Vec<LiveSegment>,
    /// The documents that are in no segment yet.
    pub tail: Tail,
    /// The last offset of each partition that segments cover.
    pub covered: BTreeMap<Partition, i64>,
    /// What changes deleted, and may be read again.
    pub gone: Arc<GoneRanges>,
    /// The next segment id.
    pub next_id: u64,
    /// The number of changes so far.
    pub sequence: u64,
    /// When the last change was applied.
    pub changed_at: Instant,
    /// When the oldest document of the tail was added.
    pub waiting_since: Option<Instant>,
    /// When the last build of the tail began.
    pub built_at: Option<Instant>,
    /// Whether the tail is being indexed.
    pub is_indexing: bool,
    /// Whether the last build of the tail failed; then read views contain the whole tail, however long.
    pub unindexable: bool,
    /// How fast each partition grows.
    heat: BTreeMap<Partition, PartitionHeat>,
    paths: Arc<PathKinds>,
    freshness_ms: u64,
    current: Option<Arc<FreshView>>,
    last_indexed: Option<Arc<FreshView>>,
    reservation: Option<Reservation>,
}

/// The input of a running build of the tail.
pub(crate) struct BuildInFlight {
    /// The documents to index.
    pub snapshot: TailSnapshot,
    ranges: Ranges,
    /// The read view when the build began, without the tail.
    before: FreshView,
}

impl ShardState {
    /// The state of a shard without segments and tail.
    pub(crate) fn new(store: Arc<Store>, rows: BTreeMap<Partition, PartitionRow>, paths: PathKinds) -> Self {
        Self {
            shard: store.shard(),
            documents: SharedStore::new(store),
            rows,
            segments: Vec::new(),
            tail: Tail::default(),
            covered: BTreeMap::new(),
            gone: Arc::default(),
            next_id: 1,
            sequence: 0,
            changed_at: Instant::now(),
            waiting_since: None,
            built_at: None,
            is_indexing: false,
            unindexable: false,
            heat: BTreeMap::new(),
            paths: Arc::new(paths),
            freshness_ms: 0,
            current: None,
            last_indexed: None,
            reservation: None,
        }
    }

    /// From now on, counts the memory of the shard against a budget.
    pub(crate) fn count_against(&mut self, budget: &Arc<MemoryBudget>) {
        self.reservation = Some(Reservation::new(budget.clone()));
        self.update_reservation();
    }

    /// Bytes of the tail and the micro-splits when they were last counted.
    pub(crate) fn reserved_bytes(&self) -> usize {
        self.reservation.as_ref().map_or(0, Reservation::bytes)
    }

    fn update_reservation(&mut self) {
        let segments = self
            .segments
            .iter()
            .filter(|entry| !entry.on_disk)
            .map(|entry| entry.segment.bytes());
        let bytes = self.tail.bytes() + usize::try_from(segments.sum::<u64>()).unwrap_or(usize::MAX);
        if let Some(reservation) = &mut self.reservation {
            reservation.update(bytes);
        }
    }

    /// The stored row of a partition. A partition that was never read has an empty one.
    pub(crate) fn row(&self, partition: &Partition) -> PartitionRow {
        self.rows.get(partition).cloned().unwrap_or_default()
    }

    /// Every record through these positions is ingested.
    pub(crate) fn positions(&self) -> PositionVector {
        positions(&self.rows)
    }

    /// How fast each partition grows that has grown since the shard was opened.
    pub(crate) fn heat(&self) -> BTreeMap<Partition, Heat> {
        let (now, partitions) = (Instant::now(), self.heat.iter());
        partitions
            .map(|(partition, heat)| (partition.clone(), heat.per_minute(now)))
            .collect()
    }

    pub(crate) fn paths(&self) -> Arc<PathKinds> {
        self.paths.clone()
    }

    /// Applies a change atomically. `now_ms` is the wall-clock time.
    pub(crate) fn apply(&mut self, change: StateChange, now_ms: i64) {
        self.current = None;
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
            self.freshness_ms = now_ms.saturating_sub(newest).max(0).unsigned_abs();
        }
        for (partition, row) in &change.rows {
            let before = self.rows.get(partition).map(|row| row.outcomes).unwrap_or_default();
            let heat = self.heat.entry(partition.clone());
            let heat = heat.or_insert_with(|| PartitionHeat::new(self.changed_at));
            heat.add(&before, &row.outcomes, self.changed_at);
        }
        self.rows.extend(change.rows);
        change
            .documents
            .into_iter()
            .for_each(|document| self.tail.push(document));
        change.deleted.iter().for_each(|address| self.mark_deleted(address));
        for (partition, ranges) in change.gone.iter() {
            self.tail.remove_in(partition, ranges);
            self.segments
                .iter_mut()
                .for_each(|entry| entry.mark_gone(partition, ranges));
        }
        if !change.gone.is_empty() {
            Arc::make_mut(&mut self.gone).add_all(&change.gone);
        }
        if let Some(left) = change.gone_left {
            self.gone = Arc::new(left);
        }
        if !change.kinds.is_empty() {
            merge_kinds(Arc::make_mut(&mut self.paths), change.kinds);
        }
        for known in change.overflowed {
            note_overflow(Arc::make_mut(&mut self.paths), &known);
        }
        self.update_reservation();
    }

    fn mark_deleted(&mut self, address: &Address) {
        if self.tail.remove(address) {
            return;
        }
        if let Some(entry) = self.segments.iter_mut().rev().find(|entry| entry.covers(address)) {
            entry.mark_deleted(address);
        }
    }

    /// The number of live documents in these ranges of a partition.
    pub(crate) fn live_in(&self, partition: &Partition, ranges: &PlaceRanges) -> u64 {
        let in_segments = self.segments.iter().map(|entry| entry.live_in(partition, ranges).len());
        in_segments.sum::<u64>() + self.tail.count_in(partition, ranges)
    }

    /// The current read view, including the whole tail.
    pub(crate) fn fresh_view(&mut self) -> Arc<FreshView> {
        if let Some(current) = &self.current {
            return current.clone();
        }
        let current = Arc::new(self.fresh_view_with(self.tail.live()));
        self.current = Some(current.clone());
        current
    }

    fn fresh_view_with(&self, tail: Vec<Arc<Document>>) -> FreshView {
        let segments = self.segments.iter().map(|entry| SegmentView {
            segment: entry.segment.clone(),
            deleted: entry.deleted.clone(),
        });
        let view = ReadView {
            shard: self.shard,
            positions: self.positions(),
            paths: self.paths.clone(),
            segments: segments.collect(),
            tail: Arc::new(tail),
            store: self.documents.clone() as Arc<dyn Documents>,
        };
        FreshView {
            view,
            sequence: self.sequence,
            freshness_ms: self.freshness_ms,
        }
    }

    /// The read view of the last build, in which the whole tail of that time is indexed.
    pub(crate) fn last_indexed(&self) -> Option<Arc<FreshView>> {
        self.last_indexed.clone()
    }

    /// Starts a build of the current tail.
    pub(crate) fn begin_build(&mut self) -> BuildInFlight {
        let range = |(partition, row): (&Partition, &PartitionRow)| {
            let after = self.covered.get(partition).copied().unwrap_or(-1);
            (row.offset > after).then(|| (partition.clone(), (after, row.offset)))
        };
        let ranges = self.rows.iter().filter_map(range).collect();
        self.built_at = Some(Instant::now());
        self.is_indexing = true;
        BuildInFlight {
            snapshot: self.tail.snapshot(),
            ranges,
            before: self.fresh_view_with(Vec::new()),
        }
    }

    /// Adds the built segment (none if the tail had no live documents), and keeps the read view from the start of the
    /// build for waiting requests.
    pub(crate) fn end_build(&mut self, build: BuildInFlight, segment: Option<Arc<Segment>>) {
        let BuildInFlight {
            snapshot,
            ranges,
            mut before,
        } = build;
        let deleted = self.tail.remove_snapshot(&snapshot);
        // Without a segment nothing is covered: the next segment covers these records, too.
        if let Some(segment) = segment {
            for (partition, (_, through)) in &ranges {
                self.covered.insert(partition.clone(), *through);
            }
            before.view.segments.push(SegmentView {
                segment: segment.clone(),
                deleted: Arc::default(),
            });
            let raw_bytes = snapshot.documents.iter().map(|d| d.bytes.len() as u64).sum();
            let id = self.allocate_id();
            let mut entry = LiveSegment {
                id,
                order: id,
                on_disk: false,
                generation: 0,
                ranges,
                raw_bytes,
                segment,
                deleted: Arc::default(),
            };
            for address in &deleted {
                entry.mark_deleted(address);
            }
            self.segments.push(entry);
        }
        self.waiting_since = (self.tail.documents() > 0).then(Instant::now);
        self.current = None;
        self.is_indexing = false;
        self.unindexable = false;
        self.last_indexed = Some(Arc::new(before));
        self.update_reservation();
    }

    /// Replaces adjacent segments by one (or none if no live document is left), and returns the replaced segments in
    /// their current state. Documents deleted in them since `seen` are marked as deleted in the new one.
    pub(crate) fn replace(&mut self, seen: &[LiveSegment], replacement: Option<LiveSegment>) -> Vec<LiveSegment> {
        let at = self
            .segments
            .iter()
            .position(|entry| entry.id == seen[0].id)
            .expect("only one build at a time removes a segment");
        let old: Vec<LiveSegment> = self.segments.splice(at..at + seen.len(), None).collect();
        if let Some(mut new) = replacement {
            for (now, seen) in old.iter().zip(seen) {
                for number in (&*now.deleted - &*seen.deleted).iter() {
                    new.mark_deleted(&now.segment.address(number));
                }
            }
            self.segments.insert(at, new);
        }
        self.current = None;
        self.last_indexed = None;
        self.update_reservation();
        old
    }

    /// The number of documents that are in no split on disk, and their bytes.
    pub(crate) fn unsplit(&self) -> (usize, usize) {
        let (documents, bytes) = self.in_memory();
        (
            self.tail.documents() + documents as usize,
            self.tail.bytes() + bytes as usize,
        )
    }

    /// Drops the read views that are cached for the next query.
    pub(crate) fn drop_cached_views(&mut self) {
        self.current = None;
        self.last_indexed = None;
    }

    /// Whether any read view is held.
    pub(crate) fn has_views(&self) -> bool {
        Arc::strong_count(&self.documents) > 1
    }

    /// Drops the store: read views that are still held can read no more documents.
    pub(crate) fn close(&mut self) {
        self.drop_cached_views();
        self.documents.close();
    }

    /// Allocates a segment id.
    pub(crate) fn allocate_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// The number of documents in micro-splits, and their raw bytes.
    pub(crate) fn in_memory(&self) -> (u64, u64) {
        let memory = self.segments.iter().filter(|entry| !entry.on_disk);
        memory.fold((0, 0), |(documents, bytes), entry| {
            (
                documents + u64::from(entry.segment.documents()),
                bytes + entry.raw_bytes,
            )
        })
    }
}

/// Every record through these positions is in these rows.
pub(crate) fn positions(rows: &BTreeMap<Partition, PartitionRow>) -> PositionVector {
    let position = |(partition, row): (&Partition, &PartitionRow)| Position {
        source: partition.source.clone(),
        partition: partition.number,
        offset: row.offset,
    };
    let read = rows.iter().filter(|(_, row)| row.offset >= 0);
    read.map(position).collect()
}

/// Extends ranges so that they also span `with`.
pub(crate) fn extend(ranges: &mut Ranges, with: &Ranges) {
    for (partition, (after, through)) in with {
        let range = ranges.entry(partition.clone()).or_insert((*after, *through));
        *range = (range.0.min(*after), range.1.max(*through));
    }
}

/// Adds kinds to a table of at most `PATHS_MAX` paths with `PATHS_BYTES_MAX` bytes: a leaf sends it to
/// aggregators in one message.
pub(crate) fn merge_kinds(paths: &mut PathKinds, kinds: impl IntoIterator<Item = (Path, Kinds)>) {
    // A partition without room might have values at a new path, too.
    let unknown = if paths.overflow { Kinds::ANY } else { Kinds::default() };
    // Most documents bring no new path.
    let mut bytes: Option<usize> = None;
    for (path, kinds) in kinds {
        if let Some(known) = paths.paths.get_mut(&path) {
            *known |= kinds;
            continue;
        }
        let bytes = bytes.get_or_insert_with(|| paths.paths.keys().map(path_bytes).sum());
        if paths.paths.len() >= PATHS_MAX || *bytes + path_bytes(&path) > PATHS_BYTES_MAX {
            paths.overflow = true;
        } else {
            *bytes += path_bytes(&path);
            paths.paths.insert(path, kinds | unknown);
        }
    }
}

/// Notes that a partition had room for these paths only: it might have values of any kind at the others.
pub(crate) fn note_overflow(paths: &mut PathKinds, known: &HashSet<Path>) {
    paths.forget_kinds_unless(|path| known.contains(path));
    paths.overflow = true;
}

/// The total length of the keys of a path.
fn path_bytes(path: &Path) -> usize {
    let of_step = |step: &Step| match step {
        Step::Key(key) => key.len(),
        Step::Index(_) => 0,
    };
    path.steps().iter().map(of_step).sum()
}
