//! Columnar: buffers the values of columns and writes them to the file that tantivy's `ColumnarReader` reads.
//!
//! ```text
//! file     columns in the order of their names, table of the columns, its length, number of documents, footer
//! column   [sorted dictionary, if text] index of the documents with a value, values or ordinals, length of the index
//!          [length of the dictionary, if text]
//! ```
//!
//! Without its dictionary, a column of text is one of unsigned integers: `take_dictionaries` makes it one.

use std::io::{self, Write as _};

use tantivy::{
    columnar::{
        CURRENT_VERSION, ColumnType, MonotonicallyMappableToU64,
        column_index::{SerializableColumnIndex, SerializableOptionalIndex, serialize_column_index},
        column_values::{CodecType, serialize_u64_based_column_values},
    },
    directory::OwnedBytes,
};
use tantivy_sstable::{Dictionary, RangeSSTable, SSTable as _, VoidSSTable, Writer, value::RangeValueWriter};

use super::distinct_texts::DistinctTexts;

/// How values may be encoded; for each column the shortest encoding is chosen.
const VALUE_CODECS: [CodecType; 2] = [CodecType::Bitpacked, CodecType::BlockwiseLinear];
/// The same for the first value of each document, if documents have several.
const START_CODECS: [CodecType; 2] = [CodecType::Bitpacked, CodecType::Linear];
/// The code of an index of documents with several values.
const SEVERAL: u8 = 2;
/// A dictionary with at most this many bytes of strings is one block: an index of its blocks would cost more to build
/// than the rest of the column, and more to read than it saves.
const SINGLE_BLOCK_BYTES_MAX: usize = 32 << 10;
/// The last bytes of a file.
const MAGIC: [u8; 4] = [2, 113, 119, 66];
/// Ends the name of a column in the table of columns.
const END_OF_NAME: u8 = 0;

/// Values with their documents, which ascend. A document may have several values.
#[derive(Debug)]
pub(super) struct ColumnBuffer<T> {
    pub documents: Vec<u32>,
    pub values: Vec<T>,
    /// Whether a document has several values.
    several: bool,
}

impl<T> Default for ColumnBuffer<T> {
    fn default() -> Self {
        Self {
            documents: Vec::new(),
            values: Vec::new(),
            several: false,
        }
    }
}

impl<T> ColumnBuffer<T> {
    pub(super) fn push(&mut self, document: u32, value: T) {
        self.several |= self.documents.last() == Some(&document);
        self.documents.push(document);
        self.values.push(value);
    }

    /// The documents, each with the index of its first value.
    fn starts(&self) -> (Vec<u32>, Vec<u32>) {
        let (mut documents, mut starts) = (Vec::new(), Vec::new());
        for (document, start) in self.documents.iter().zip(0..) {
            if documents.last() != Some(document) {
                documents.push(*document);
                starts.push(start);
            }
        }
        (documents, starts)
    }
}

/// Strings with their documents.
#[derive(Debug, Default)]
pub(super) struct TextBuffer {
    /// The number of each value in `distinct`.
    pub column: ColumnBuffer<u32>,
    pub distinct: DistinctTexts,
}

impl TextBuffer {
    pub(super) fn push(&mut self, document: u32, text: &str) {
        let number = self.distinct.number(text);
        self.column.push(document, number);
    }
}

/// The values of a column by kind.
#[derive(Debug, Clone, Copy)]
pub(super) enum BufferedColumn<'a> {
    Bool(&'a ColumnBuffer<bool>),
    Int(&'a ColumnBuffer<i64>),
    Float(&'a ColumnBuffer<f64>),
    /// Strings of at most this many bytes; longer ones are left out.
    Text(&'a TextBuffer, usize),
}

/// Writes the file of the columns of a part.
pub(super) struct ColumnarFile {
    documents: u32,
    bytes: Vec<u8>,
    table: Writer<Vec<u8>, RangeValueWriter>,
}

impl ColumnarFile {
    pub(super) fn new(documents: u32) -> io::Result<Self> {
        Ok(Self {
            documents,
            bytes: Vec::new(),
            table: Dictionary::<RangeSSTable>::builder(Vec::new())?,
        })
    }

    /// Writes the next column. Names must ascend.
    pub(super) fn column(&mut self, name: &str, column: BufferedColumn) -> io::Result<()> {
        let start = self.bytes.len() as u64;
        let column_type = match column {
            BufferedColumn::Bool(values) => self.values(values).map(|()| ColumnType::Bool),
            BufferedColumn::Int(values) => self.values(values).map(|()| ColumnType::I64),
            BufferedColumn::Float(values) => self.values(values).map(|()| ColumnType::F64),
            BufferedColumn::Text(texts, bytes_max) => self.texts(texts, bytes_max).map(|()| ColumnType::Str),
        }?;
        let mut key = name.as_bytes().to_vec();
        key.extend([END_OF_NAME, column_type.to_code()]);
        self.table.insert(key, &(start..self.bytes.len() as u64))
    }

    fn values<T: MonotonicallyMappableToU64>(&mut self, column: &ColumnBuffer<T>) -> io::Result<()> {
        let start = self.bytes.len();
        self.index(column)?;
        let index_bytes = (self.bytes.len() - start) as u32;
        serialize_u64_based_column_values(&&column.values[..], &VALUE_CODECS, &mut self.bytes)?;
        self.bytes.write_all(&index_bytes.to_le_bytes())
    }

    /// Writes which documents have a value and, if some have several, which values belong to which document.
    fn index<T>(&mut self, column: &ColumnBuffer<T>) -> io::Result<()> {
        let optional = |documents| {
            SerializableColumnIndex::Optional(SerializableOptionalIndex {
                non_null_row_ids: documents,
                num_rows: self.documents,
            })
        };
        if !column.several {
            let index = if column.documents.len() == self.documents as usize {
                SerializableColumnIndex::Full
            } else {
                optional(Box::new(&column.documents[..]))
            };
            serialize_column_index(index, &mut self.bytes)?;
            return Ok(());
        }
        let (documents, mut starts) = column.starts();
        starts.push(column.documents.len() as u32);
        let mut with_value = Vec::new();
        serialize_column_index(optional(Box::new(&documents[..])), &mut with_value)?;
        // Without the code of its kind.
        let with_value = &with_value[1..];
        self.bytes.push(SEVERAL);
        self.bytes.extend(with_value);
        serialize_u64_based_column_values(&&starts[..], &START_CODECS, &mut self.bytes)?;
        self.bytes.write_all(&(with_value.len() as u32).to_le_bytes())
    }

    fn texts(&mut self, TextBuffer { column, distinct }: &TextBuffer, bytes_max: usize) -> io::Result<()> {
        const TOO_LONG: u64 = u64::MAX;
        let start = self.bytes.len();
        let mut ordinals = vec![TOO_LONG; distinct.len()];
        let mut dictionary = VoidSSTable::writer(&mut self.bytes);
        if distinct.bytes() <= SINGLE_BLOCK_BYTES_MAX {
            // No block is full before the last string.
            dictionary.set_block_len(usize::MAX);
        }
        let in_dictionary = |number: &u32| distinct.get(*number).len() <= bytes_max;
        for (number, ordinal) in distinct.sorted().into_iter().filter(in_dictionary).zip(0..) {
            dictionary.insert(distinct.get(number), &())?;
            ordinals[number as usize] = ordinal;
        }
        dictionary.finish()?;
        let dictionary_bytes = (self.bytes.len() - start) as u32;
        let mut values = ColumnBuffer::default();
        for (document, number) in column.documents.iter().zip(&column.values) {
            match ordinals[*number as usize] {
                TOO_LONG => {}
                ordinal => values.push(*document, ordinal),
            }
        }
        self.values(&values)?;
        self.bytes.write_all(&dictionary_bytes.to_le_bytes())
    }

    /// Ends the file and returns its bytes.
    pub(super) fn finish(self) -> io::Result<Vec<u8>> {
        let (mut bytes, table) = (self.bytes, self.table.finish()?);
        bytes.extend(&table);
        bytes.extend((table.len() as u64).to_le_bytes());
        bytes.extend(self.documents.to_le_bytes());
        bytes.extend((CURRENT_VERSION as u32).to_le_bytes());
        bytes.extend(MAGIC);
        Ok(bytes)
    }
}

/// Copies a file without the dictionaries of its text columns. `take` gets the name and the dictionary of each.
pub(super) fn take_dictionaries(
    file: &[u8],
    mut take: impl FnMut(&[u8], &[u8]) -> io::Result<()>,
) -> io::Result<Vec<u8>> {
    const END_BYTES: usize = 8 + 4 + 4 + MAGIC.len();
    let early = || io::Error::new(io::ErrorKind::InvalidData, "a file of columns ends early");
    let (rest, end) = split_from_end(file, END_BYTES).ok_or_else(early)?;
    let table_bytes = end.first_chunk().copied().map_or(0, u64::from_le_bytes);
    let (columns, table) = split_from_end(rest, table_bytes as usize).ok_or_else(early)?;
    let table = Dictionary::<RangeSSTable>::from_bytes(OwnedBytes::new(table.to_vec()))?;
    let mut copy = Vec::new();
    let mut copy_table = Dictionary::<RangeSSTable>::builder(Vec::new())?;
    let mut entries = table.stream()?;
    while entries.advance() {
        let range = entries.value();
        let column = columns
            .get(range.start as usize..range.end as usize)
            .ok_or_else(early)?;
        let start = copy.len() as u64;
        let mut key = entries.key().to_vec();
        match key.split_last() {
            Some((code, name)) if *code == ColumnType::Str.to_code() => {
                let (column, length) = column.split_last_chunk().ok_or_else(early)?;
                let dictionary_bytes = u32::from_le_bytes(*length) as usize;
                let (dictionary, ordinals) = column.split_at_checked(dictionary_bytes).ok_or_else(early)?;
                take(name.strip_suffix(&[END_OF_NAME]).unwrap_or(name), dictionary)?;
                copy.extend(ordinals);
                key.pop();
                key.push(ColumnType::U64.to_code());
            }
            _ => copy.extend(column),
        }
        copy_table.insert(&key, &(start..copy.len() as u64))?;
    }
    let copy_table = copy_table.finish()?;
    copy.extend(&copy_table);
    copy.extend((copy_table.len() as u64).to_le_bytes());
    copy.extend(&end[8..]);
    Ok(copy)
}

fn split_from_end(bytes: &[u8], length: usize) -> Option<(&[u8], &[u8])> {
    bytes.split_at_checked(bytes.len().checked_sub(length)?)
}
