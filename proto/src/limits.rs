//! The limits that more than one role keeps. Shared by: everybody. A limit of one role stands with that role.

/// Bytes of one document.
pub const DOCUMENT_BYTES_MAX: usize = 16 << 20;
/// Nesting of one document: objects and arrays inside one another.
pub const DOCUMENT_DEPTH_MAX: usize = 100;
/// Bytes of one push, after decompression.
pub const PUSH_BYTES_MAX: usize = 64 << 20;
/// Items of one push.
pub const PUSH_ITEMS_MAX: usize = 1_000_000;
/// Bytes of a document's own key.
pub const KEY_BYTES_MAX: usize = 512;
/// Records and bytes of one batch on its way to a leaf.
pub const BATCH_RECORDS_MAX: usize = 5_000;
/// Bytes of one batch; a single larger record travels alone.
pub const BATCH_BYTES_MAX: usize = 4 << 20;
/// Bytes that are kept of an event that could not become a document.
pub const DEAD_LETTER_BYTES_MAX: usize = 1 << 20;
/// Paths whose kinds a collection remembers; a path beyond is JSON.
pub const PATHS_MAX: usize = 10_000;
/// Shards of one collection.
pub const SHARDS_MAX: u32 = 1_024;
/// Definitions of one collection.
pub const DEFINITIONS_MAX: usize = 10_000;
/// Ranges that one partition leaves out.
pub const SKIPS_MAX: usize = 256;
/// Bytes of the text of one definition.
pub const DEFINITION_BYTES_MAX: usize = 64 << 10;
/// Bytes of a message that carries events between processes: the largest push, with what holds its items apart.
pub const WRITE_MESSAGE_BYTES_MAX: usize = PUSH_BYTES_MAX + (16 << 20);
/// Bytes of any other message between processes: the largest document, with its header.
pub const MESSAGE_BYTES_MAX: usize = DOCUMENT_BYTES_MAX + (1 << 20);
/// Bytes of one part of an answer that comes as a stream.
pub const PART_BYTES_MAX: usize = 1 << 20;
