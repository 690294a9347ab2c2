//! Limits that more than one role enforces. A limit of a single role is defined in the crate of that role.

/// Bytes of one document.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Nesting depth of one document: objects and arrays.
pub const DOCUMENT_DEPTH_MAX: usize = 100;
/// Bytes of one push, after decompression.
pub const PUSH_BYTES_MAX: usize = 64 << 20;
/// Items of one push.
pub const PUSH_ITEMS_MAX: usize = 1_000_000;
/// Bytes of a document's key.
pub const KEY_BYTES_MAX: usize = 512;
/// Records of one batch.
pub const BATCH_RECORDS_MAX: usize = 5_000;
/// Bytes of one batch; a larger record is a batch by itself.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Bytes that one dead letter keeps of its event; the rest is truncated. How many bytes of dead letters a partition may
/// have is an option of the leaf (`dead_letter_bytes_max`).
pub const DEAD_LETTER_BYTES_MAX: usize = DOCUMENT_BYTES_MAX;
/// Bytes that one dead letter keeps of the key and the headers of its record. If they have more, none are kept.
pub const DEAD_LETTER_HEADER_BYTES_MAX: usize = 256 << 10;
/// Bytes of one dead letter in a list; the rest is truncated.
pub const LISTED_DEAD_LETTER_BYTES_MAX: usize = 64 << 10;
/// Bytes of all dead letters in a list of one shard: older ones are left out.
pub const LISTED_DEAD_LETTERS_BYTES_MAX: usize = 64 << 20;
/// Dead letters in one record of the source of changes: so many errors fit into the answer to a push.
pub const REDRIVES_MAX: usize = crate::ingest::PUSH_ERRORS_MAX;
/// Paths whose kinds a collection tracks; further paths are read as JSON.
pub const PATHS_MAX: usize = 10_000;
/// Bytes of the keys of all these paths.
pub const PATHS_BYTES_MAX: usize = 1 << 20;
/// Shards of one collection.
pub const SHARDS_MAX: u32 = 1_024;
/// Runs of one partition.
pub const RUNS_MAX: usize = 50;
/// Partitions of one collection with runs.
pub const SPREAD_PARTITIONS_MAX: usize = 100;
/// Replicas of one shard.
pub const REPLICAS_MAX: u32 = 5;
/// Leaves without a replica of a shard of which the catalog knows that they had one.
pub const LEFT_MAX: usize = 8;
/// Nodes of one cluster.
pub const MEMBERS_MAX: usize = 10_000;
/// The largest capacity of a leaf.
pub const CAPACITY_MAX: u32 = 1_000;
/// Bytes of the name of a zone.
pub const ZONE_BYTES_MAX: usize = 128;
/// Kafka sources of one collection, dropped ones included.
pub const SOURCES_MAX: usize = 1_000;
/// Definitions of a catalog.
pub const DEFINITIONS_MAX: usize = 10_000;
/// Versions of one definition.
pub const DEFINITION_VERSIONS_MAX: usize = 1_000;
/// Bytes of all definitions: of each version its text, its note and the names that it uses.
pub const DEFINITIONS_BYTES_MAX: usize = 8 << 20;
/// Bytes of the name of a definition.
pub const DEFINITION_NAME_BYTES_MAX: usize = 512;
/// Dropped names whose last version numbers are known.
pub const RETIRED_NAMES_MAX: usize = 10_000;
/// Tags of one definition.
pub const DEFINITION_TAGS_MAX: usize = 64;
/// How deep definitions may use each other.
pub const DEFINITION_DEPTH_MAX: usize = 16;
/// Bytes of the note of a version.
pub const DEFINITION_NOTE_BYTES_MAX: usize = 4 << 10;
/// Bytes of the name of an author.
pub const AUTHOR_BYTES_MAX: usize = 256;
/// Deletes of one collection that the catalog remembers.
pub const DELETIONS_MAX: usize = 200;
/// Bytes of the condition of a delete that the catalog remembers.
pub const DELETION_CONDITION_BYTES_MAX: usize = 1_000;
/// Ranges of documents in one record of the source of changes.
pub const CHANGE_RANGES_MAX: usize = 250_000;
/// Records of one preview of a source.
pub const PREVIEW_RECORDS_MAX: usize = 1_000;
/// Skipped ranges of one partition.
pub const SKIPS_MAX: usize = 256;
/// Bytes of the text of one definition.
pub const DEFINITION_BYTES_MAX: usize = 64 << 10;
/// Bytes of a message that carries events between processes: the largest push, and the framing of its items.
pub const WRITE_MESSAGE_BYTES_MAX: usize = PUSH_BYTES_MAX + (16 << 20);
/// Bytes of any other message between processes: the largest document, and its header.
pub const MESSAGE_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + (1 << 20);
/// Bytes of the message with which a leaf opens read views: of each shard, the paths and their kinds.
pub const OPENED_BYTES_MAX: usize = 256 << 20;
/// Bytes of one part of a streamed answer.
pub const PART_BYTES_MAX: usize = 1 << 20;
