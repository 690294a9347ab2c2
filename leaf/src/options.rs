//! Options: where a leaf keeps its shards, and when it does what. Every limit has its unit last.

use std::{path::PathBuf, time::Duration};

use proto::cluster::NodeName;

/// Where a leaf keeps its shards, and when it does what.
#[derive(Debug, Clone)]
pub struct LeafOptions {
    /// The folder of all shards.
    pub folder: PathBuf,
    /// The name of this node, where shards are placed on several.
    pub node: Option<NodeName>,
    /// A tail of at most this many documents is scanned rather than indexed when a query needs it.
    pub scan_tail_documents_max: usize,
    /// The indexer publishes a micro-split of itself at this many documents …
    pub publish_documents: usize,
    /// … or this many bytes …
    pub publish_bytes: usize,
    /// … or when the oldest document has waited so long.
    pub publish_after: Duration,
    /// Under load, micro-splits that queries ask for are built at most this often.
    pub publish_pause: Duration,
    /// Micro-splits go to disk as one split at this many documents …
    pub split_documents: usize,
    /// … or this many bytes …
    pub split_bytes: usize,
    /// … or when nothing has come in for so long.
    pub split_idle: Duration,
    /// … or when there are so many micro-splits.
    pub memory_segments_max: usize,
    /// Raw bytes of documents in micro-splits: above it the leaf answers busy.
    pub memory_bytes_max: u64,
    /// So many neighbouring splits of one generation become one.
    pub merge_splits: usize,
    /// A split of this many documents is not merged any more.
    pub merge_documents_max: usize,
    /// Documents taken in but not indexed: above it the leaf answers busy.
    pub tail_documents_max: usize,
    /// Their bytes.
    pub tail_bytes_max: usize,
    /// Bytes in memory that no split on disk has yet, of all shards: above it the leaf answers busy.
    pub unsplit_bytes_max: usize,
    /// Threads that build indexes.
    pub index_threads: usize,
    /// Threads that scan for queries.
    pub scan_threads: usize,
    /// From so many percent of the disk on nothing is taken in.
    pub disk_used_percent_max: u8,
    /// Above so many open shards those are closed that nobody uses.
    pub open_shards_max: usize,
    /// Shards that stay open although nobody uses them …
    pub idle_shards_max: usize,
    /// … and others are closed so long after their last use.
    pub shard_idle: Duration,
    /// Files that open shards may have open together: a shard for which there are none is not opened.
    pub open_files_max: usize,
    /// The files of splits are compared with their checksums in the background, so many bytes a second, one file at a
    /// time …
    pub scrub_bytes_per_second: u64,
    /// … and all of them at most so often.
    pub scrub_every: Duration,
    /// How long request rows of pushes are kept, by the time of later records.
    pub request_rows_kept: Duration,
    /// How long dead letters are kept.
    pub dead_letters_kept: Duration,
    /// Bytes of dead letters that are kept of a topic's partition: above it the partition stops.
    pub dead_letter_bytes_max: u64,
    /// How long the shards of a dropped collection are kept.
    pub dropped_kept: Duration,
}

impl LeafOptions {
    /// The defaults, for this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            node: None,
            scan_tail_documents_max: 300,
            publish_documents: 20_000,
            publish_bytes: 8 << 20,
            publish_after: Duration::from_secs(1),
            publish_pause: Duration::from_millis(20),
            split_documents: 20_000,
            split_bytes: 32 << 20,
            split_idle: Duration::from_secs(10),
            memory_segments_max: 16,
            memory_bytes_max: 192 << 20,
            merge_splits: 8,
            merge_documents_max: 2_000_000,
            tail_documents_max: 200_000,
            tail_bytes_max: 128 << 20,
            unsplit_bytes_max: 192 << 20,
            index_threads: 2,
            scan_threads: 2,
            disk_used_percent_max: 90,
            open_shards_max: 256,
            idle_shards_max: 64,
            shard_idle: Duration::from_secs(5),
            open_files_max: 4_096,
            scrub_bytes_per_second: 4 << 20,
            scrub_every: Duration::from_secs(24 * 3600),
            request_rows_kept: Duration::from_secs(24 * 3600),
            dead_letters_kept: Duration::from_secs(30 * 24 * 3600),
            dead_letter_bytes_max: 1 << 30,
            dropped_kept: Duration::from_secs(24 * 3600),
        }
    }
}
