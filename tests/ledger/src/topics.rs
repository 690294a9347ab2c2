//! The two topics that records are produced to: names, partition counts, and the header that numbers a record.
//!
//! The source that reads a topic has the topic's name.

/// Takes records without a key.
pub(crate) const PLAIN: &str = "plain";
/// Takes records with a key, tombstones among them.
pub(crate) const KEYED: &str = "keyed";
/// Topic and number of partitions.
pub(crate) const TOPICS: [(&str, i32); 2] = [(PLAIN, 4), (KEYED, 3)];
/// The header that holds a record's number.
pub(crate) const NUMBER_HEADER: &str = "number";
