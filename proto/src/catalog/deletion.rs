//! Deletion: a delete of documents that shards of a collection have applied, or a removal of expired ones.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::collection::is_false;
use crate::address::PositionVector;

/// A delete that shards have applied. Which documents it deleted is in the records of the source of changes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Deletion {
    /// Its id.
    pub id: Uuid,
    /// When it was requested, in milliseconds since 1970.
    pub requested_ms: i64,
    /// The condition, as text for users, cut to [`DELETION_CONDITION_BYTES_MAX`](crate::limits::DELETION_CONDITION_BYTES_MAX).
    pub condition: String,
    /// The number of documents that met the condition.
    pub documents: u64,
    /// Whether every shard is known to have applied it.
    pub complete: bool,
    /// Who requested it, if the client said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Whether the retention of the collection removed the documents.
    #[serde(default, skip_serializing_if = "is_false")]
    pub expired: bool,
    /// Its last record in each partition of the source of changes.
    pub position: PositionVector,
}
