//! Error: what went wrong in a leaf, and how a client is told.

use std::{io::ErrorKind, path::PathBuf};

use proto::{Code, Problem, ingest::ShardId};

use crate::split::Damaged;

/// What went wrong in a leaf.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// RocksDB failed: the replica closes and opens again.
    #[error("shard {shard}: storage failed: {source}")]
    Storage {
        /// Whose.
        shard: ShardId,
        /// What RocksDB said.
        #[source]
        source: rocksdb::Error,
    },
    /// A stored row does not read back.
    #[error("shard {shard}: a stored {kind} does not read back: {reason}")]
    Corrupt {
        /// Whose.
        shard: ShardId,
        /// Which record kind.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A file of a split could not be read or written.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// tantivy failed.
    #[error("index: {0}")]
    Index(#[from] tantivy::TantivyError),
    /// DataFusion failed while it evaluated a request.
    #[error("{0}")]
    Query(#[from] datafusion::error::DataFusionError),
    /// Arrow failed while a batch was built.
    #[error("{0}")]
    Arrow(#[from] datafusion::arrow::error::ArrowError),
    /// Something the asker is told as it is.
    #[error("{0}")]
    Problem(#[from] Problem),
}

impl Error {
    /// Whether there was no room on the disk.
    pub(crate) fn is_no_room(&self) -> bool {
        let says_so = |text: &str| text.contains("No space left on device") || text.contains("Disk quota exceeded");
        match self {
            Self::Storage { source, .. } => says_so(source.as_ref()),
            Self::File { source, .. } => matches!(source.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded),
            _ => false,
        }
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        match error {
            Error::Problem(problem) => problem,
            Error::Query(source) => query_problem(&source),
            full if full.is_no_room() => {
                Problem::new(Code::Busy, full.to_string()).hint("make room on its disk; it goes on by itself")
            }
            Error::Index(source) if Damaged::of(&source).is_some() => {
                Problem::new(Code::Unavailable, source.to_string())
                    .hint("it is built again from its documents: try again a little later")
            }
            other => Problem::new(Code::Internal, other.to_string()),
        }
    }
}

/// DataFusion's own errors are of the query's making, save those that are not.
fn query_problem(error: &datafusion::error::DataFusionError) -> Problem {
    use datafusion::error::DataFusionError as E;
    match error.find_root() {
        E::ResourcesExhausted(detail) => {
            Problem::new(Code::LimitReached, detail.clone()).hint("ask for less, or group by fewer values")
        }
        E::External(inner) if inner.downcast_ref::<Problem>().is_some() => inner
            .downcast_ref::<Problem>()
            .cloned()
            .unwrap_or_else(|| Problem::new(Code::Internal, inner.to_string())),
        E::Internal(detail) => Problem::new(
            Code::NotSupported,
            format!("this cannot be computed: {}", detail.lines().next().unwrap_or_default()),
        ),
        other => Problem::new(Code::BadRequest, other.strip_backtrace()),
    }
}

/// What a panic said.
pub(crate) fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "a panic without a text".to_owned())
}
