//! Redriven row. Family `meta`, key: 29 address of a dead letter. Value: the address of the change that ingested it again.
//!
//! The row stays for ever: a later change for the same dead letter has no effect, also in a shard that is filled again.

use proto::Address;

use super::key::{RowKey, RowKind};
use crate::codec::{DecodeResult, ValueReader, ValueWriter};

const VERSION: u8 = 1;

/// The key of a dead letter.
pub(crate) fn key(letter: &Address) -> Vec<u8> {
    RowKey::new(RowKind::Redriven).address(letter).bytes()
}

/// The row of a dead letter that this change ingests again.
pub(crate) fn encode(change: &Address) -> Vec<u8> {
    ValueWriter::new(VERSION).bytes(change.to_string().as_bytes()).finish()
}

/// The address of the change, as text.
pub(crate) fn decode(value: &[u8]) -> DecodeResult<String> {
    Ok(ValueReader::new(value, "redriven row", VERSION)?.text()?.to_owned())
}
