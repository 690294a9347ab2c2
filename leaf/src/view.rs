//! View: what one query reads of a shard: segments, gone documents, tail, positions, all of one moment.

use std::sync::Arc;

use plan::PathKinds;
use proto::{Address, PositionVector, ingest::ShardId};
use roaring::RoaringBitmap;

use crate::{document::Document, error::Error, split::Segment};

/// Where raw documents are read.
pub trait Documents: Send + Sync {
    /// The documents at these addresses, in this order. They are there as long as a view that names them is held.
    fn read(&self, addresses: &[Address]) -> Result<Vec<Document>, Error>;
}

/// What one query reads of a shard. Cheap to clone; holding one keeps what it names on disk.
#[derive(Clone)]
pub struct View {
    /// Whose.
    pub shard: ShardId,
    /// Every record through it is here, and none after it.
    pub positions: PositionVector,
    /// The kinds of all paths ever seen.
    pub paths: Arc<PathKinds>,
    /// Splits and micro-splits, oldest first.
    pub segments: Vec<SegmentView>,
    /// The newest documents, in no segment yet, those gone left out.
    pub tail: Arc<Vec<Arc<Document>>>,
    /// When the newest document was taken in, milliseconds since 1970.
    pub newest_ms: i64,
    /// Where the raw documents are.
    pub store: Arc<dyn Documents>,
}

/// A segment and what is gone of it.
#[derive(Clone)]
pub struct SegmentView {
    /// The index.
    pub segment: Arc<Segment>,
    /// Its documents that were replaced or deleted.
    pub gone: Arc<RoaringBitmap>,
}

impl View {
    /// Documents in it.
    pub fn documents(&self) -> u64 {
        let live = |s: &SegmentView| u64::from(s.segment.documents()) - s.gone.len();
        self.segments.iter().map(live).sum::<u64>() + self.tail.len() as u64
    }
}
