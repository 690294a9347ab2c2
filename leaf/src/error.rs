//! Error: what can fail in a leaf, and the problem that a client gets for it.

use std::{
    io::ErrorKind,
    path::{Path, PathBuf},
};

use proto::{Code, Problem, ingest::ShardId};

use crate::{codec::NewerVersion, split::ChecksumMismatch};

/// A failure in a leaf.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// RocksDB failed: a write, or a read, such as of a block that does not match its checksum. If the writer was
    /// affected, the shard closes and reopens; a failed read of a query fails only the query.
    #[error("shard {shard}: storage failed: {source}")]
    Storage {
        /// The shard.
        shard: ShardId,
        /// RocksDB's error.
        #[source]
        source: rocksdb::Error,
    },
    /// A stored row cannot be decoded, or is missing.
    #[error("shard {shard}: cannot read a stored {kind}: {reason}")]
    Corrupt {
        /// The shard.
        shard: ShardId,
        /// The record kind.
        kind: &'static str,
        /// Why it cannot be read.
        reason: String,
    },
    /// A newer release wrote a row.
    #[error("shard {shard}: {newer}")]
    Newer {
        /// The shard.
        shard: ShardId,
        /// The row and its version.
        newer: NewerVersion,
    },
    /// A file or a folder could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// The operating system's error.
        #[source]
        source: std::io::Error,
    },
    /// tantivy failed.
    #[error("the index failed: {0}")]
    Index(#[from] tantivy::TantivyError),
    /// DataFusion failed while evaluating a request.
    #[error("{0}")]
    Query(#[from] datafusion::error::DataFusionError),
    /// Arrow failed while building a batch.
    #[error("{0}")]
    Arrow(#[from] datafusion::arrow::error::ArrowError),
    /// A problem that the client gets unchanged.
    #[error("{0}")]
    Problem(#[from] Problem),
}

impl Error {
    /// The error of a file or of a folder, for `map_err`.
    pub(crate) fn file(path: &Path) -> impl Fn(std::io::Error) -> Self + Copy {
        move |source| Self::File {
            path: path.to_owned(),
            source,
        }
    }

    /// True if the disk (or its quota) is full.
    pub(crate) fn is_no_room(&self) -> bool {
        let disk_full = |text: &str| text.contains("No space left on device") || text.contains("Disk quota exceeded");
        match self {
            Self::Storage { source, .. } => disk_full(source.as_ref()),
            Self::File { source, .. } => matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded),
            _ => false,
        }
    }
}

/// What to do about data of a newer release.
const NEWER_HINT: &str =
    "nothing was changed; run the release that wrote the data, or a newer one, on this data folder";

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        match error {
            Error::Problem(problem) => problem,
            Error::Query(source) => query_problem(&source),
            full if full.is_no_room() => Problem::new(Code::Busy, full.to_string())
                .hint("free space on the leaf's disk; the leaf recovers by itself"),
            Error::Newer { .. } => Problem::new(Code::Unavailable, error.to_string()).hint(NEWER_HINT),
            Error::File { ref source, .. } if NewerVersion::of(source).is_some() => {
                Problem::new(Code::Unavailable, error.to_string()).hint(NEWER_HINT)
            }
            Error::Index(source) if ChecksumMismatch::of(&source).is_some() => {
                Problem::new(Code::Unavailable, source.to_string())
                    .hint("the split is being rebuilt from its documents; retry in a moment")
            }
            other => Problem::new(Code::Internal, other.to_string()),
        }
    }
}

/// Most DataFusion errors are the query's fault; resource limits, our own problems and internal errors are not.
fn query_problem(error: &datafusion::error::DataFusionError) -> Problem {
    use datafusion::error::DataFusionError as E;
    match error.find_root() {
        E::ResourcesExhausted(detail) => {
            Problem::new(Code::LimitReached, detail.clone()).hint("select fewer rows, or group by fewer values")
        }
        E::External(inner) if inner.downcast_ref::<Problem>().is_some() => inner
            .downcast_ref::<Problem>()
            .cloned()
            .unwrap_or_else(|| Problem::new(Code::Internal, inner.to_string())),
        E::Internal(detail) => Problem::new(
            Code::NotSupported,
            format!(
                "this query cannot be computed: {}",
                detail.lines().next().unwrap_or_default()
            ),
        ),
        other => Problem::new(Code::BadRequest, other.strip_backtrace()),
    }
}
