//! Read view: what one query reads of a shard. Segments, deletes, tail and positions all belong to one point in time.

use std::sync::Arc;

use plan::PathKinds;
use proto::{Address, PositionVector, ingest::ShardId};
use roaring::RoaringBitmap;

use crate::{document::Document, error::Error, split::Segment};

/// Reads raw documents.
pub(crate) trait Documents: Send + Sync {
    /// The documents at these addresses, in this order. A document can be read as long as a view that names it is
    /// alive.
    fn read(&self, addresses: &[Address]) -> Result<Vec<Document>, Error>;
}

/// What one query reads of a shard. Cheap to clone. While a view is alive, everything it names stays on disk.
#[derive(Clone)]
pub(crate) struct ReadView {
    pub shard: ShardId,
    /// The view contains every record up to and including these positions, and none after them.
    pub positions: PositionVector,
    /// The value kinds of every path ever seen.
    pub paths: Arc<PathKinds>,
    /// Splits and micro-splits, oldest first.
    pub segments: Vec<SegmentView>,
    /// The newest documents, which are in no segment yet; without deleted ones.
    pub tail: Arc<Vec<Arc<Document>>>,
    /// Reads the raw documents.
    pub store: Arc<dyn Documents>,
}

/// A segment and its deleted documents.
#[derive(Clone)]
pub(crate) struct SegmentView {
    /// The index.
    pub segment: Arc<Segment>,
    /// The document numbers of those that were replaced or deleted.
    pub deleted: Arc<RoaringBitmap>,
}

impl ReadView {
    /// Number of live documents.
    pub(crate) fn documents(&self) -> u64 {
        let live = |s: &SegmentView| u64::from(s.segment.documents()) - s.deleted.len();
        self.segments.iter().map(live).sum::<u64>() + self.tail.len() as u64
    }
}
