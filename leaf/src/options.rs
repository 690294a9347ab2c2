//! Options: where a leaf stores its shards, its limits, and when it indexes, merges, closes and deletes.

use std::{path::PathBuf, time::Duration};

use proto::cluster::NodeName;
use snapshots::SnapshotStore;

/// Where a leaf stores its shards, its limits, and when it indexes, merges, closes and deletes. The unit of a limit is
/// the last word of its name.
#[derive(Debug, Clone)]
pub struct LeafOptions {
    /// The folder that contains all shards.
    pub folder: PathBuf,
    /// This node's name, if shards are placed on several nodes.
    pub node: Option<NodeName>,
    /// A query that finds a tail of more documents than this has it indexed, but scans it without waiting for that …
    pub index_tail_documents: usize,
    /// … if it has at most this many documents …
    pub scan_tail_documents_max: usize,
    /// … and bytes. For a longer tail it waits until it is indexed.
    pub scan_tail_bytes_max: usize,
    /// Without a query, the tail is indexed in memory, as a micro-split, at this many documents …
    pub publish_documents: usize,
    /// … or this many bytes …
    pub publish_bytes: usize,
    /// … or when its oldest document is this old.
    pub publish_after: Duration,
    /// Minimum pause between two builds of micro-splits that queries request.
    pub publish_pause: Duration,
    /// Micro-splits are written to disk as one split at this many documents …
    pub split_documents: usize,
    /// … or this many bytes …
    pub split_bytes: usize,
    /// … or when nothing was ingested for this long …
    pub split_idle: Duration,
    /// … or when there are this many micro-splits.
    pub memory_segments_max: usize,
    /// Raw bytes of documents in a shard's micro-splits; above it, writes to the shard are refused as busy.
    pub memory_bytes_max: u64,
    /// This many adjacent splits of one merge level (`generation`) are merged into one, or fewer …
    pub merge_splits: usize,
    /// … when nothing was ingested for this long.
    pub merge_idle: Duration,
    /// Splits are merged only if together they have at most this many documents, deleted ones included.
    pub merge_documents_max: usize,
    /// Documents of a shard that wait to be indexed; above it, writes to the shard are refused as busy.
    pub tail_documents_max: usize,
    /// The same limit in bytes.
    pub tail_bytes_max: usize,
    /// Bytes in memory, over all shards, that are in no split on disk yet; above it, writes are refused as busy.
    pub unsplit_bytes_max: usize,
    /// Threads that index tails; one for each of four of these, and at least one, writes splits, and as many merge them.
    pub index_threads: usize,
    /// Threads that scan for queries. A scan's doubles are summed in an order that depends on their number.
    pub scan_threads: usize,
    /// Bytes of cached aggregate states of splits; 1 caches none.
    pub kept_states_bytes_max: usize,
    /// Disk usage, in percent, at which ingest stops.
    pub disk_used_percent_max: u8,
    /// Above this many open shards, idle ones are closed at once.
    pub open_shards_max: usize,
    /// This many idle shards stay open …
    pub idle_shards_max: usize,
    /// … and the others are closed this long after their last use.
    pub shard_idle: Duration,
    /// Files that all open shards together may have open. A shard that would exceed it is not opened.
    pub open_files_max: usize,
    /// Read rate of the scrubber, which compares split files with their checksums in the background, one at a time …
    pub scrub_bytes_per_second: u64,
    /// … and the minimum time from the start of one round to the start of the next.
    pub scrub_every: Duration,
    /// Retention of the request rows that deduplicate pushes, measured by the time of later records.
    pub request_rows_kept: Duration,
    /// Retention of dead letters, from the ingest of their record.
    pub dead_letters_kept: Duration,
    /// Bytes of all dead letters of one partition of a topic; above it the partition stops. Each counts with the full
    /// size of its event, before it is truncated to [`DEAD_LETTER_BYTES_MAX`](proto::limits::DEAD_LETTER_BYTES_MAX).
    /// A partition that has stopped stays stopped when this is raised, until some of its dead letters expire or are
    /// cleared.
    pub dead_letter_bytes_max: u64,
    /// How long after a delete the leaf begins to erase its documents, and all that were deleted until then: the files
    /// around them are written again.
    pub deleted_kept: Duration,
    /// How long the shards of a dropped collection stay on disk.
    pub dropped_kept: Duration,
    /// How long a shard stays on disk that has been moved to another leaf: longer than any query.
    pub moved_kept: Duration,
    /// Rate at which all shards together are copied from other leaves, and to and from the snapshot store.
    pub copy_bytes_per_second: u64,
    /// Shards that the leaf copies from others at once, or that get what was written since.
    pub copies_at_once: usize,
    /// Where snapshots are written to and restored from, if anywhere.
    pub snapshots: Option<SnapshotStore>,
}

impl LeafOptions {
    /// Default options for this folder.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            node: None,
            index_tail_documents: 1_000,
            scan_tail_documents_max: 40_000,
            scan_tail_bytes_max: 16 << 20,
            publish_documents: 20_000,
            publish_bytes: 8 << 20,
            publish_after: Duration::from_secs(1),
            publish_pause: Duration::from_millis(100),
            split_documents: 20_000,
            split_bytes: 32 << 20,
            split_idle: Duration::from_secs(10),
            memory_segments_max: 16,
            memory_bytes_max: 192 << 20,
            merge_splits: 8,
            merge_idle: Duration::from_secs(10),
            merge_documents_max: 2_000_000,
            tail_documents_max: 200_000,
            tail_bytes_max: 128 << 20,
            unsplit_bytes_max: 192 << 20,
            index_threads: cores(),
            scan_threads: cores(),
            kept_states_bytes_max: 64 << 20,
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
            deleted_kept: Duration::from_secs(3600),
            dropped_kept: Duration::from_secs(24 * 3600),
            moved_kept: Duration::from_mins(15),
            copy_bytes_per_second: 64 << 20,
            copies_at_once: 2,
            snapshots: None,
        }
    }
}

/// The number of cores, at least two, so that one long task does not block all others.
fn cores() -> usize {
    std::thread::available_parallelism().map_or(2, usize::from).max(2)
}
