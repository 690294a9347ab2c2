//! State cache: the aggregate states of splits, for the next query with the same aggregate.
//!
//! A split never changes, and the documents that are deleted of it are known. So its states are valid until another
//! document of it is deleted. A request that is seen for the second time aggregates each split on its own and caches its
//! states; from then on it scans only what is not in a split yet.
//!
//! ```text
//! request ─ states of splits that are cached ─────────────┐
//!           splits without states ─ aggregate ─ cache ────┼─ states
//!           micro-splits, tail ─ aggregate ───────────────┘
//! ```
//!
//! Its key is a shard and a request, its limit `kept_states_bytes_max`. The states of splits that a merge has replaced
//! are dropped when their request comes again.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
    sync::Arc,
};

use datafusion::{
    arrow::{array::RecordBatch, datatypes::DataType},
    physical_expr::{HigherOrderFunctionExpr, PhysicalExpr, ScalarFunctionExpr},
};
use parking_lot::Mutex;
use plan::{
    byte_lru::ByteLru,
    functions::registry::{self, Property},
    scan::{PartialAggregate, ScanRequest, ScanSource, Stage},
    walk::Walk as _,
};
use proto::ingest::ShardId;
use roaring::RoaringBitmap;

use super::{prepared::SharedRequest, stats::CountedValues};
use crate::view::{ReadView, SegmentView};

/// Requests of which states are cached or that were seen once, each for one shard.
const REQUESTS_MAX: NonZeroUsize = NonZeroUsize::new(8_192).expect("not zero");
/// Bytes of a request that may be cached.
const REQUEST_BYTES_MAX: usize = 16 << 10;
/// Bytes of the states of one split.
pub(super) const SPLIT_STATES_BYTES_MAX: usize = 1 << 20;
/// Bytes of cached states that a scan returns for its splits. Above it, scanning them all returns less.
const RETURNED_BYTES_MAX: usize = 4 << 20;
/// Stack for encoding a request.
pub(super) const ENCODING_STACK_BYTES: usize = 16 << 20;
/// A split with fewer documents is aggregated faster than it is looked up.
const SPLIT_DOCUMENTS_MIN: u32 = 1_000;
/// What an entry takes beside its states.
const ENTRY_BYTES: usize = 256;

/// The states of splits, of the most recently used requests.
pub(crate) struct StateCache {
    requests: Mutex<ByteLru<RequestKey, RequestStates>>,
}

/// A shard and everything that a request wants of it.
#[derive(PartialEq, Eq, Hash)]
pub(super) struct RequestKey {
    shard: ShardId,
    request: Arc<[u8]>,
}

#[derive(Default)]
struct RequestStates {
    /// By the split's [`Segment::uid`](crate::split::Segment::uid).
    splits: HashMap<u64, Arc<SplitStates>>,
    /// The states of some split are too large.
    refused: bool,
}

/// What an aggregate makes of one split.
pub(super) struct SplitStates {
    /// The documents that were deleted of the split.
    pub deleted: Arc<RoaringBitmap>,
    pub states: Vec<RecordBatch>,
    /// What the scan of the split counted.
    pub counted: CountedValues,
}

/// A scan's view, divided into what is cached of it and what has to be scanned.
pub(super) struct DividedView {
    /// The request's key in the cache.
    pub key: RequestKey,
    /// The states that are cached.
    pub cached: Vec<Arc<SplitStates>>,
    /// Splits to aggregate one by one.
    pub splits: Vec<SegmentView>,
    pub rest: ReadView,
}

impl StateCache {
    /// Caches states up to this many bytes.
    pub(crate) fn new(bytes_max: usize) -> Self {
        Self {
            requests: Mutex::new(ByteLru::new(bytes_max, REQUESTS_MAX)),
        }
    }

    /// Divides a view by what is cached of it. None if its splits are not to be aggregated one by one: the request is
    /// new, or its states cannot be cached.
    pub(super) fn divide(&self, view: &ReadView, request: &SharedRequest) -> Option<DividedView> {
        if !view.segments.iter().any(is_cacheable) {
            return None;
        }
        let key = RequestKey {
            shard: view.shard,
            request: request.encoded(encode)?,
        };
        // Dropped after the lock is released.
        let _displaced;
        let mut replaced: Vec<Arc<SplitStates>> = Vec::new();
        let mut requests = self.requests.lock();
        let Some(request) = requests.get(&key) else {
            let bytes = ENTRY_BYTES + key.request.len();
            _displaced = requests.put(key, RequestStates::default(), bytes);
            return None;
        };
        if request.refused {
            return None;
        }
        let (splits, rest): (Vec<_>, Vec<_>) = view.segments.iter().cloned().partition(is_cacheable);
        let mut divided = DividedView {
            key,
            cached: Vec::new(),
            splits: Vec::new(),
            rest: ReadView {
                segments: rest,
                ..view.clone()
            },
        };
        for split in splits {
            let cached = request.splits.get(&split.segment.uid());
            let is_current = |states: &&Arc<SplitStates>| {
                Arc::ptr_eq(&states.deleted, &split.deleted) || states.deleted == split.deleted
            };
            match cached.filter(is_current) {
                Some(states) => divided.cached.push(Arc::clone(states)),
                None => divided.splits.push(split),
            }
        }
        if divided.cached.iter().map(|states| states.bytes()).sum::<usize>() > RETURNED_BYTES_MAX {
            return None;
        }
        // A merge has replaced the other splits.
        if request.splits.len() > view.segments.len() {
            let live: HashSet<u64> = view.segments.iter().map(|split| split.segment.uid()).collect();
            _displaced = requests.update(&divided.key, |request, bytes| {
                let others = request.splits.extract_if(|uid, _| !live.contains(uid));
                replaced.extend(others.map(|(_, states)| states));
                *bytes -= replaced.iter().map(|states| states.bytes()).sum::<usize>();
            });
        }
        Some(divided)
    }

    /// Caches the states of a split.
    pub(super) fn put(&self, key: &RequestKey, split: &SegmentView, states: SplitStates) {
        // Both are dropped after the lock is released.
        let mut replaced = None;
        let _displaced = self.requests.lock().update(key, |request, bytes| {
            *bytes += states.bytes();
            replaced = request.splits.insert(split.segment.uid(), Arc::new(states));
            *bytes -= replaced.as_ref().map_or(0, |replaced| replaced.bytes());
        });
    }

    /// Notes that the states of some split are too large to be cached.
    pub(super) fn refuse(&self, key: &RequestKey) {
        let _none_displaced = self.requests.lock().update(key, |request, _| request.refused = true);
    }
}

impl SplitStates {
    fn bytes(&self) -> usize {
        let states: usize = self.states.iter().map(RecordBatch::get_array_memory_size).sum();
        ENTRY_BYTES + self.deleted.serialized_size() + states
    }
}

/// The bytes of a request whose states may be cached.
fn encode(request: &ScanRequest) -> Option<Arc<[u8]>> {
    let (Stage::Partial(aggregate), ScanSource::Auto) = (&request.stage, request.read) else {
        return None;
    };
    if !is_independent_of_order(aggregate) {
        return None;
    }
    // A request nests as deep as its statement, and its encoding is recursive.
    let encode = || plan::wire::request_key(request);
    let bytes = stacker::maybe_grow(ENCODING_STACK_BYTES, ENCODING_STACK_BYTES, encode).ok()?;
    (bytes.len() <= REQUEST_BYTES_MAX).then(|| bytes.into())
}

fn is_cacheable(split: &SegmentView) -> bool {
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
