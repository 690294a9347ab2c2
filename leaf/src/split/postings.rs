//! Postings: writes the postings, with positions, of the strings at the text-like paths of a part, to the files that
//! tantivy's `SegmentReader` reads.
//!
//! Every distinct string is cut into tokens once. Then the occurrences of the strings are inverted: counted by token,
//! and sorted by these counts.

use std::{io, path::Path};

use tantivy::{
    Directory as _, Index, IndexMeta, IndexSettings, TantivyError,
    columnar::ColumnarWriter,
    directory::{RamDirectory, TerminatingWrite as _},
    fieldnorm::FieldNormsSerializer,
    index::SegmentComponent,
    postings::{FieldSerializer, InvertedIndexSerializer},
    store::{Compressor, StoreWriter},
};

use super::{
    columnar::TextBuffer,
    distinct_texts::DistinctTexts,
    text::{schema, term},
    token::TOKEN_BYTES_MAX,
};

/// The distance between the last token of a string and the first one of the next string of the same document and path.
const STRING_GAP: u32 = 2;
/// Stands for a token that is too long for postings.
const OVERSIZED: u32 = u32::MAX;

/// The strings of a path, cut into tokens.
struct TokenizedPath {
    path: u32,
    tokens: DistinctTexts,
    /// The tokens of all distinct strings, one string after another.
    string_tokens: Vec<u32>,
    /// Where the tokens of each distinct string end.
    ends: Vec<usize>,
    /// Each document with its strings, in order.
    occurrences: Vec<(u32, u32)>,
}

impl TokenizedPath {
    /// A document has strings in only one of the buffers: either at the path itself or inside of arrays.
    fn new(path: u32, buffers: [&TextBuffer; 2]) -> Self {
        let (mut tokens, mut string_tokens, mut ends) = (DistinctTexts::default(), Vec::new(), Vec::new());
        for text in buffers.iter().flat_map(|buffer| buffer.distinct.iter()) {
            string_tokens.extend(plan::token::tokens(text).map(|token| {
                if token.len() > TOKEN_BYTES_MAX {
                    OVERSIZED
                } else {
                    tokens.number(&token)
                }
            }));
            ends.push(string_tokens.len());
        }
        Self {
            path,
            tokens,
            string_tokens,
            ends,
            occurrences: merge(buffers),
        }
    }

    fn tokens_of(&self, string: u32) -> &[u32] {
        let string = string as usize;
        let start = string.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.string_tokens[start..self.ends[string]]
    }

    /// The number of postings that each token has, by number.
    fn counts(&self) -> Vec<usize> {
        let mut counts = vec![0; self.tokens.len()];
        for (_, string) in &self.occurrences {
            for token in self.tokens_of(*string).iter().filter(|token| **token != OVERSIZED) {
                counts[*token as usize] += 1;
            }
        }
        counts
    }

    /// The postings of all tokens, documents with positions, one token after another, and where those of each token
    /// end.
    fn invert(&self, counts: &[usize]) -> (Vec<(u32, u32)>, Vec<usize>) {
        let mut next: Vec<usize> = Vec::with_capacity(counts.len());
        let mut total = 0;
        for count in counts {
            next.push(total);
            total += count;
        }
        let mut postings = vec![(0, 0); total];
        let (mut last, mut position) = (None, 0);
        for (document, string) in &self.occurrences {
            if last.replace(*document) != Some(*document) {
                position = 0;
            }
            let tokens = self.tokens_of(*string);
            for (token, position) in tokens.iter().zip(position..).filter(|(token, _)| **token != OVERSIZED) {
                let at = &mut next[*token as usize];
                postings[*at] = (*document, position);
                *at += 1;
            }
            position += tokens.len() as u32 + (STRING_GAP - 1);
        }
        (postings, next)
    }

    fn write(&self, counts: &[usize], field: &mut FieldSerializer) -> io::Result<()> {
        let (postings, ends) = self.invert(counts);
        let mut term = term(self.path, "");
        let path_bytes = term.len();
        let mut distances = Vec::new();
        for token in self.tokens.sorted() {
            let (count, end) = (counts[token as usize], ends[token as usize]);
            term.truncate(path_bytes);
            term.extend(self.tokens.get(token).as_bytes());
            // The number of documents matters only for scores.
            field.new_term(&term, count as u32, true)?;
            for of_document in postings[end - count..end].chunk_by(|(one, _), (other, _)| one == other) {
                distances.clear();
                let mut last = 0;
                for (_, position) in of_document {
                    distances.push(position - last);
                    last = *position;
                }
                field.write_doc(of_document[0].0, of_document.len() as u32, &distances);
            }
            field.close_term()?;
        }
        Ok(())
    }
}

/// The occurrences of the strings of both buffers, by document. The strings of the second one are numbered after those
/// of the first one.
fn merge([one, other]: [&TextBuffer; 2]) -> Vec<(u32, u32)> {
    let occurrences = |buffer: &TextBuffer, first: u32| {
        let column = &buffer.column;
        let strings = column.values.iter().map(|string| first + string);
        column.documents.iter().copied().zip(strings).collect::<Vec<_>>()
    };
    let mut merged = occurrences(one, 0);
    let others = occurrences(other, one.distinct.len() as u32);
    let overlaps = !merged.is_empty() && !others.is_empty();
    merged.extend(others);
    if overlaps {
        // Stable, so the strings of a document stay in order.
        merged.sort_by_key(|(document, _)| *document);
    }
    merged
}

/// Writes the postings of paths and returns the files.
pub(super) fn write_postings(documents: u32, paths: &[(u32, [&TextBuffer; 2])]) -> Result<RamDirectory, TantivyError> {
    let mut tokenized: Vec<TokenizedPath> = paths
        .iter()
        .map(|(path, buffers)| TokenizedPath::new(*path, *buffers))
        .collect();
    tokenized.sort_by_key(|texts| term(texts.path, ""));
    let counts: Vec<Vec<usize>> = tokenized.iter().map(TokenizedPath::counts).collect();
    let total: usize = counts.iter().flatten().sum();
    let (schema, field) = schema();
    let settings = IndexSettings {
        docstore_compression: Compressor::None,
        docstore_compress_dedicated_thread: false,
        ..IndexSettings::default()
    };
    let directory = RamDirectory::create();
    let index = Index::create(directory.clone(), schema.clone(), settings.clone())?;
    let segment = index.new_segment();
    write_empty_files(&segment, documents)?;
    let mut serializer = InvertedIndexSerializer::open(&segment)?;
    if total > 0 {
        let mut postings = serializer.new_field(field, total as u64, None)?;
        for (texts, counts) in tokenized.iter().zip(&counts) {
            texts.write(counts, &mut postings)?;
        }
        postings.close()?;
    }
    serializer.close()?;
    let meta = IndexMeta {
        index_settings: settings,
        persisted_custom_extensions: Vec::new(),
        segments: vec![segment.with_max_doc(documents).meta().clone()],
        schema,
        opstamp: 0,
        payload: None,
    };
    let meta = serde_json::to_vec(&meta).map_err(io::Error::from)?;
    directory.atomic_write(Path::new("meta.json"), &meta)?;
    Ok(directory)
}

/// Writes the files that a segment must have, although they have no contents: no field has norms, columns or stored
/// values.
fn write_empty_files(segment: &tantivy::Segment, documents: u32) -> Result<(), TantivyError> {
    FieldNormsSerializer::from_write(segment.open_write(SegmentComponent::FieldNorms)?)?.close()?;
    let mut columns = segment.open_write(SegmentComponent::FastFields)?;
    ColumnarWriter::default().serialize(documents, None, &mut columns)?;
    columns.terminate()?;
    let store = segment.open_write(SegmentComponent::Store)?;
    Ok(StoreWriter::new(store, Compressor::None, 1, false)?.close()?)
}
