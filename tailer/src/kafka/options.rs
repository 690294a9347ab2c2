//! The options of a tailer: its name in consumer groups, and its limits.

use std::time::Duration;

use proto::limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX};

use super::{cluster::ClusterKafka, partition::BatchLimits};

/// The options of a tailer.
#[derive(Debug, Clone)]
pub struct TailerOptions {
    /// The name of this node in consumer groups: unique, and stable over restarts. Without a name, a restarted node
    /// waits until the session of its predecessor expires.
    pub node: Option<String>,
    /// The most bytes that a partition has read and the leaf has not acknowledged. Above that, the partition is paused,
    /// and its records stay in Kafka.
    pub window_bytes_max: usize,
    /// The same limit for all partitions together. Near it, each partition gets an equal share.
    pub windows_bytes_max: usize,
    /// The most records of one batch.
    pub batch_records_max: usize,
    /// The most bytes of one batch. A single larger record is sent alone.
    pub batch_bytes_max: usize,
    /// How long a shutdown waits for consumers to close.
    pub shutdown_wait: Duration,
    /// The Kafka that has the push topics of a cluster. `None` if leaves receive pushes directly.
    pub pushes: Option<ClusterKafka>,
    /// How long the push topic of a dropped collection is retained.
    pub dropped_kept: Duration,
    /// After how long without an answer a node that holds no shards is removed from the cluster. It joins again by
    /// itself.
    pub absent_kept: Duration,
}

impl Default for TailerOptions {
    fn default() -> Self {
        Self {
            node: Some("rachis-1".into()),
            window_bytes_max: 32 << 20,
            windows_bytes_max: 64 << 20,
            batch_records_max: BATCH_RECORDS_MAX,
            batch_bytes_max: BATCH_BYTES_MAX,
            shutdown_wait: Duration::from_secs(10),
            pushes: None,
            dropped_kept: Duration::from_secs(24 * 3600),
            absent_kept: Duration::from_secs(3600),
        }
    }
}

impl TailerOptions {
    pub(super) fn batch_limits(&self) -> BatchLimits {
        BatchLimits {
            batch_records_max: self.batch_records_max,
            batch_bytes_max: self.batch_bytes_max,
        }
    }
}
