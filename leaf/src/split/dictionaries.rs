//! Dictionaries: the sorted distinct strings of each text column of a part.
//!
//! In memory, a text column begins with its dictionary (`columnar.rs`). In a file, the dictionaries of a part are an
//! entry of their own, packed: identifiers are half of what an index takes, and compress to two thirds. The columns keep
//! the ordinals.
//!
//! ```text
//! dictionary … | table: where the dictionary of each column is | bytes of the table
//! ```

use std::{io, sync::Arc};

use tantivy::{HasLen as _, columnar::Dictionary, directory::FileSlice};
use tantivy_sstable::{RangeSSTable, SSTable, VoidSSTable};

use super::{columnar::take_dictionaries, packed::Packer};

/// A dictionary of strings.
pub(super) type TextDictionary = Dictionary<VoidSSTable>;

/// Bytes of the length of the table.
const TABLE_LENGTH_BYTES: usize = 8;
/// Bytes that end a dictionary, after its index: where that begins, the number of strings and the version.
const DICTIONARY_END_BYTES: usize = 8 + 8 + 4;
/// Bytes of the length of a block of a dictionary.
const BLOCK_LENGTH_BYTES: usize = 4;

/// Separates the columns of a part in memory for its file: returns the columns with ordinals only, and the packed
/// dictionaries.
pub(super) fn separate(columns: &[u8]) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut packer = Packer::new()?;
    let mut table = Dictionary::<RangeSSTable>::builder(Vec::new())?;
    let mut start = 0;
    let columns = take_dictionaries(columns, |name, dictionary| {
        pack(dictionary, &mut packer)?;
        let end = start + dictionary.len() as u64;
        table.insert(name, &(start..end))?;
        start = end;
        Ok(())
    })?;
    let table = table.finish()?;
    packer.plain(&table);
    packer.plain(&(table.len() as u64).to_le_bytes());
    Ok((columns, packer.finish()))
}

/// Packs a dictionary. Its blocks are the pieces: a lookup decompresses one of them. Its index stays as it is.
fn pack(dictionary: &[u8], packer: &mut Packer) -> io::Result<()> {
    let index_at = |at| {
        let end: &[u8; 8] = dictionary.get(at..)?.first_chunk()?;
        usize::try_from(u64::from_le_bytes(*end)).ok()
    };
    let index_at = dictionary.len().checked_sub(DICTIONARY_END_BYTES).and_then(index_at);
    let (mut blocks, index) = index_at
        .and_then(|at| dictionary.split_at_checked(at))
        .ok_or_else(|| malformed("a dictionary ends early"))?;
    while let Some(length) = blocks.first_chunk().copied().map(u32::from_le_bytes) {
        let bytes = (length as usize).saturating_add(BLOCK_LENGTH_BYTES).min(blocks.len());
        let (block, rest) = blocks.split_at(bytes);
        packer.piece(block)?;
        blocks = rest;
    }
    packer.plain(blocks);
    packer.plain(index);
    Ok(())
}

/// The dictionaries of a part in a file.
pub(super) struct Dictionaries {
    data: FileSlice,
    table: Dictionary<RangeSSTable>,
}

impl Dictionaries {
    /// Opens the entry of a part.
    pub(super) fn open(entry: &FileSlice) -> io::Result<Self> {
        let too_short = || malformed("the table of dictionaries ends early");
        let length_at = entry.len().checked_sub(TABLE_LENGTH_BYTES).ok_or_else(too_short)?;
        let length = entry.read_bytes_slice(length_at..entry.len())?;
        let length = length.first_chunk().copied().map_or(0, u64::from_le_bytes);
        let table_at = usize::try_from(length)
            .ok()
            .and_then(|length| length_at.checked_sub(length));
        let table_at = table_at.ok_or_else(too_short)?;
        Ok(Self {
            data: entry.slice_to(table_at),
            table: open_dictionary(entry.slice(table_at..length_at))?,
        })
    }

    /// Opens the dictionary of a column.
    pub(super) fn get(&self, column: &str) -> io::Result<Arc<TextDictionary>> {
        let range = self.table.get(column)?;
        let range = range.ok_or_else(|| malformed(&format!("the split has no dictionary of column {column}")))?;
        let (start, end) = (range.start as usize, range.end as usize);
        if start > end || end > self.data.len() {
            return Err(malformed("the range of a dictionary is out of bounds"));
        }
        Ok(Arc::new(open_dictionary(self.data.slice(start..end))?))
    }
}

/// Opens a dictionary whose end is where it says: the library panics if it is not.
fn open_dictionary<S: SSTable>(file: FileSlice) -> io::Result<Dictionary<S>> {
    let end = file.len().checked_sub(DICTIONARY_END_BYTES);
    let end = end.ok_or_else(|| malformed("a dictionary ends early"))?;
    let index_at = file.read_bytes_slice(end..end + 8)?;
    let index_at = index_at.first_chunk().copied().map_or(u64::MAX, u64::from_le_bytes);
    if index_at > end as u64 {
        return Err(malformed("the index of a dictionary is out of bounds"));
    }
    Dictionary::open(file)
}

fn malformed(reason: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn garbage_is_an_error_and_never_a_panic(garbage in prop::collection::vec(any::<u8>(), 0..80), length in 0u64..80) {
            let entry = [&garbage[..], &length.to_le_bytes()].concat();
            if let Ok(dictionaries) = Dictionaries::open(&FileSlice::from(entry)) {
                let _may_fail = dictionaries.get("column");
            }
        }
    }
}
