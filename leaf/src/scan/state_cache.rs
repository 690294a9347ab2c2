//! State cache: the aggregate states of splits, for the next query that asks the same of them.
//!
//! A split never changes, and the documents that are deleted of it are known. So its states hold as long as no further
//! document of it is deleted. A request that is seen for the second time aggregates each split on its own and keeps its
//! states; from then on it scans only what is not in a split yet.
//!
//! ```text
//! request ─ states of splits that are kept ──────────────┐
//!           splits without states ─ aggregate ─ keep ────┼─ states
//!           micro-splits, tail ─ aggregate ──────────────┘
//! ```

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::Arc,
};

use datafusion::{
    arrow::{array::RecordBatch, datatypes::DataType},
    common::tree_node::TreeNode as _,
    physical_expr::{HigherOrderFunctionExpr, PhysicalExpr, ScalarFunctionExpr},
};
use lru::LruCache;
use parking_lot::Mutex;
use plan::{
    functions::registry::{self, Property},
    scan::{PartialAggregate, ScanRequest, ScanSource, Stage},
};
use proto::ingest::ShardId;
use roaring::RoaringBitmap;

use super::{prepared::SharedRequest, stats::CountedValues};
use crate::view::{ReadView, SegmentView};

/// Requests of which states are kept or that were seen once, each for one shard.
const REQUESTS_MAX: NonZeroUsize = NonZeroUsize::new(8_192).expect("not zero");
/// Bytes of a request that may be kept.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// Bytes of the states of one split.
pub(super) const SPLIT_STATES_BYTES_MAX: usize = 1 << 20;
/// Bytes of known states that a scan returns for its splits. Above it, scanning them all returns less.
const KNOWN_BYTES_MAX: usize = 4 << 20;
/// Stack for encoding a request.
const ENCODING_STACK_BYTES: usize = 16 << 20;
/// A split with fewer documents is aggregated faster than it is looked up.
const SPLIT_DOCUMENTS_MIN: u32 = 1_000;
/// What an entry takes beside its states.
const ENTRY_BYTES: usize = 256;

/// The states of splits that were asked most recently.
pub(crate) struct StateCache {
    kept: Mutex<KeptRequests>,
    bytes_max: usize,
}

struct KeptRequests {
    by_request: LruCache<RequestKey, KeptRequest>,
    bytes: usize,
}

/// A shard and everything that a request wants of it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct RequestKey {
    shard: ShardId,
    request: Arc<[u8]>,
}

#[derive(Default)]
struct KeptRequest {
    /// By the split's [`Segment::uid`](crate::split::Segment::uid).
    splits: HashMap<u64, Arc<SplitStates>>,
    bytes: usize,
    /// The states of some split are too large.
    refused: bool,
}

/// What an aggregate makes of one split.
pub(super) struct SplitStates {
    /// The documents that were deleted of the split.
    pub deleted: Arc<RoaringBitmap>,
    /// The states.
    pub states: Vec<RecordBatch>,
    /// What the scan of the split counted.
    pub counted: CountedValues,
}

/// A scan's view, divided into what is known of it and what has to be scanned.
pub(super) struct DividedView {
    /// The request, as it is kept.
    pub key: RequestKey,
    /// The states that are known.
    pub known: Vec<Arc<SplitStates>>,
    /// Splits to aggregate one by one.
    pub splits: Vec<SegmentView>,
    /// The rest.
    pub rest: ReadView,
}

impl StateCache {
    /// Keeps states up to this many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            kept: Mutex::new(KeptRequests {
                by_request: LruCache::new(REQUESTS_MAX),
                bytes: 0,
            }),
            bytes_max,
        }
    }

    /// Divides a view by what is known of it. None if its splits are not to be aggregated one by one: the request is
    /// new, or its states cannot be kept.
    pub(super) fn divide(&self, view: &ReadView, request: &SharedRequest) -> Option<DividedView> {
        if self.bytes_max < ENTRY_BYTES || !view.segments.iter().any(may_be_kept) {
            return None;
        }
        let key = RequestKey {
            shard: view.shard,
            request: request.encoded(encode)?,
        };
        let live: HashSet<u64> = view.segments.iter().map(|split| split.segment.uid()).collect();
        let mut kept = self.kept.lock();
        let Some(request) = kept.by_request.get_mut(&key) else {
            kept.insert(key);
            kept.evict(self.bytes_max);
            return None;
        };
        if request.refused {
            return None;
        }
        let mut divided = DividedView {
            key,
            known: Vec::new(),
            splits: Vec::new(),
            rest: view.clone(),
        };
        let (splits, rest): (Vec<_>, Vec<_>) = divided.rest.segments.drain(..).partition(may_be_kept);
        divided.rest.segments = rest;
        for split in splits {
            let known = request.splits.get(&split.segment.uid());
            let is_current = |states: &&Arc<SplitStates>| {
                Arc::ptr_eq(&states.deleted, &split.deleted) || states.deleted == split.deleted
            };
            match known.filter(is_current) {
                Some(states) => divided.known.push(Arc::clone(states)),
                None => divided.splits.push(split),
            }
        }
        let known_bytes: usize = divided.known.iter().map(|states| states.bytes()).sum();
        if known_bytes > KNOWN_BYTES_MAX {
            return None;
        }
        // A merge has replaced the other splits.
        if request.splits.len() > live.len() {
            let before = request.bytes;
            request.splits.retain(|uid, _| live.contains(uid));
            request.bytes = ENTRY_BYTES
                + divided.key.request.len()
                + request.splits.values().map(|states| states.bytes()).sum::<usize>();
            let removed = before - request.bytes;
            kept.bytes -= removed;
        }
        Some(divided)
    }

    /// Keeps the states of a split.
    pub(super) fn keep(&self, key: &RequestKey, split: &SegmentView, states: SplitStates) {
        let bytes = states.bytes();
        let mut kept = self.kept.lock();
        let Some(request) = kept.by_request.get_mut(key) else {
            return;
        };
        let replaced = request.splits.insert(split.segment.uid(), Arc::new(states));
        let replaced = replaced.map_or(0, |replaced| replaced.bytes());
        request.bytes = request.bytes + bytes - replaced;
        kept.bytes = kept.bytes + bytes - replaced;
        kept.evict(self.bytes_max);
    }

    /// Notes that the states of some split are too large to be kept.
    pub(super) fn refuse(&self, key: &RequestKey) {
        if let Some(request) = self.kept.lock().by_request.get_mut(key) {
            request.refused = true;
        }
    }
}

impl KeptRequests {
    /// Notes a request that was not seen before.
    fn insert(&mut self, key: RequestKey) {
        let bytes = ENTRY_BYTES + key.request.len();
        self.bytes += bytes;
        let request = KeptRequest {
            bytes,
            ..KeptRequest::default()
        };
        if let Some((_, evicted)) = self.by_request.push(key, request) {
            self.bytes -= evicted.bytes;
        }
    }

    fn evict(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max {
            match self.by_request.pop_lru() {
                Some((_, evicted)) => self.bytes -= evicted.bytes,
                None => return,
            }
        }
    }
}

impl SplitStates {
    fn bytes(&self) -> usize {
        let states: usize = self.states.iter().map(RecordBatch::get_array_memory_size).sum();
        ENTRY_BYTES + self.deleted.serialized_size() + states
    }
}

/// The bytes of a request whose states may be kept.
fn encode(request: &ScanRequest) -> Option<Arc<[u8]>> {
    let (Stage::Partial(aggregate), ScanSource::Auto) = (&request.stage, request.read) else {
        return None;
    };
    if !is_independent_of_order(aggregate) {
        return None;
    }
    // A request nests as deep as its statement, and its encoding is recursive.
    let bytes = stacker::grow(ENCODING_STACK_BYTES, || plan::wire::request_key(request)).ok()?;
    (bytes.len() <= REQUEST_BYTES_MAX).then(|| bytes.into())
}

fn may_be_kept(split: &SegmentView) -> bool {
    split.segment.is_stored() && split.segment.documents() >= SPLIT_DOCUMENTS_MIN
}

/// Whether the answer is the same, to the last bit, however the documents are divided. It is not if functions are called,
/// because they warn of values without a result.
fn is_independent_of_order(aggregate: &PartialAggregate) -> bool {
    let keys = aggregate.group_by.expr().iter().map(|(key, _)| key.clone());
    let arguments = aggregate.aggregates.iter().flat_map(|call| call.expressions());
    let mut expressions = keys.chain(arguments).chain(aggregate.filters.iter().flatten().cloned());
    let calls =
        |part: &Arc<dyn PhysicalExpr>| Ok(part.is::<ScalarFunctionExpr>() || part.is::<HigherOrderFunctionExpr>());
    if expressions.any(|expression| expression.exists(calls).unwrap_or(true)) {
        return false;
    }
    aggregate.aggregates.iter().all(|call| {
        let name = call.fun().name();
        let adds_doubles = || {
            call.state_fields().map_or(true, |fields| {
                fields.iter().any(|field| *field.data_type() == DataType::Float64)
            })
        };
        let is_stable = registry::function(name).is_some_and(|function| function.has(Property::HasStableStates));
        // Sums of doubles depend on the order in which they are added.
        is_stable && (!matches!(name, "sum" | "avg") || !adds_doubles())
    })
}
