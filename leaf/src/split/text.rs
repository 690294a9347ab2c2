//! Text: the postings, with positions, of the strings at the text-like paths of a part. A term is a path and a token.

use std::{ops::Range, sync::Arc};

use roaring::RoaringBitmap;
use tantivy::{
    Directory, DocSet, Index, IndexSettings, InvertedIndexReader, SegmentReader, SingleSegmentIndexWriter, TERMINATED,
    TantivyError,
    directory::RamDirectory,
    postings::{Postings, SegmentPostings, TermInfo},
    schema::{
        Document, Field, IndexRecordOption, JsonObjectOptions, Schema, TextFieldIndexing, Value,
        document::{ReferenceValue, ReferenceValueLeaf},
    },
    store::Compressor,
    tokenizer::TokenizerManager,
};

use super::token::WordTokenizer;

/// The name of the tokenizer in the schema.
const TOKENIZER: &str = "words";
/// Limits for the memory budget of tantivy's writer, which only determines the size of its first table.
const WRITER_BYTES: Range<usize> = 1 << 20..256 << 20;

fn schema() -> (Schema, Field) {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(TOKENIZER)
        // Field norms serve only relevance scores, and hits have no score.
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions);
    let mut builder = Schema::builder();
    let field = builder.add_json_field("text", JsonObjectOptions::default().set_indexing_options(indexing));
    (builder.build(), field)
}

/// The name of a path in a term: its number, so that no key can clash with anything.
fn path_name(path: u32) -> String {
    path.to_string()
}

/// Writes the postings of a part.
pub(super) struct TextWriter {
    writer: SingleSegmentIndexWriter<DocumentTexts>,
    directory: RamDirectory,
    names: Arc<Vec<String>>,
    field: Field,
    texts: DocumentTexts,
}

impl TextWriter {
    /// `paths` is the number of paths, `bytes` the approximate size of all texts.
    pub(super) fn new(paths: usize, bytes: usize) -> Result<Self, TantivyError> {
        let (schema, field) = schema();
        let tokenizers = TokenizerManager::new();
        tokenizers.register(TOKENIZER, WordTokenizer::default());
        let settings = IndexSettings {
            docstore_compression: Compressor::None,
            docstore_compress_dedicated_thread: false,
            ..IndexSettings::default()
        };
        let directory = RamDirectory::create();
        let builder = Index::builder()
            .schema(schema)
            .settings(settings)
            .tokenizers(tokenizers);
        let writer = builder
            .single_segment_index_writer(directory.clone(), bytes.clamp(WRITER_BYTES.start, WRITER_BYTES.end))?;
        let names = Arc::new((0..paths as u32).map(path_name).collect::<Vec<_>>());
        Ok(Self {
            writer,
            directory,
            field,
            texts: DocumentTexts::new(field, &names),
            names,
        })
    }

    /// Adds a string of the current document.
    pub(super) fn add(&mut self, path: u32, text: &str) {
        let start = self.texts.buffer.len();
        self.texts.buffer.push_str(text);
        self.texts.strings.push((path, start..self.texts.buffer.len()));
    }

    /// Ends the current document.
    pub(super) fn end_document(&mut self) -> Result<(), TantivyError> {
        let texts = std::mem::replace(&mut self.texts, DocumentTexts::new(self.field, &self.names));
        self.writer.add_document(texts)
    }

    /// Finishes the index and returns its files.
    pub(super) fn finish(self) -> Result<RamDirectory, TantivyError> {
        self.writer.finalize()?;
        Ok(self.directory)
    }
}

/// The strings of one document.
#[derive(Debug)]
struct DocumentTexts {
    field: Field,
    names: Arc<Vec<String>>,
    buffer: String,
    /// The path of each string and its range in `buffer`.
    strings: Vec<(u32, Range<usize>)>,
}

impl DocumentTexts {
    fn new(field: Field, names: &Arc<Vec<String>>) -> Self {
        Self {
            field,
            names: names.clone(),
            buffer: String::new(),
            strings: Vec::new(),
        }
    }
}

impl Document for DocumentTexts {
    type Value<'a> = TextValue<'a>;
    type FieldsValuesIter<'a> = std::option::IntoIter<(Field, TextValue<'a>)>;

    fn iter_fields_and_values(&self) -> Self::FieldsValuesIter<'_> {
        (!self.strings.is_empty())
            .then_some((self.field, TextValue::Document(self)))
            .into_iter()
    }
}

/// The strings of a document as tantivy sees them: an object whose keys are paths.
#[derive(Debug, Clone, Copy)]
enum TextValue<'a> {
    Document(&'a DocumentTexts),
    String(&'a str),
}

impl<'a> Value<'a> for TextValue<'a> {
    type ArrayIter = std::iter::Empty<Self>;
    type ObjectIter = TextEntries<'a>;

    fn as_value(&self) -> ReferenceValue<'a, Self> {
        match *self {
            Self::Document(texts) => ReferenceValue::Object(TextEntries { texts, next: 0 }),
            Self::String(text) => ReferenceValue::Leaf(ReferenceValueLeaf::Str(text)),
        }
    }
}

struct TextEntries<'a> {
    texts: &'a DocumentTexts,
    next: usize,
}

impl<'a> Iterator for TextEntries<'a> {
    type Item = (&'a str, TextValue<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, range) = self.texts.strings.get(self.next)?;
        self.next += 1;
        Some((
            &self.texts.names[*path as usize],
            TextValue::String(&self.texts.buffer[range.clone()]),
        ))
    }
}

/// The open postings of a part.
pub(super) struct TextIndex {
    reader: Arc<InvertedIndexReader>,
}

impl TextIndex {
    /// Opens the files of a [`TextWriter`].
    pub(super) fn open(directory: impl Directory) -> Result<Self, TantivyError> {
        let index = Index::open(directory)?;
        let segments = index.searchable_segments()?;
        let segment = segments
            .first()
            .ok_or_else(|| TantivyError::InternalError("the text index has no segment".into()))?;
        Ok(Self {
            reader: SegmentReader::open(segment)?.inverted_index(schema().1)?,
        })
    }

    /// Adds the documents that have these tokens next to each other at a path.
    pub(super) fn phrase(&self, path: u32, tokens: &[String], found: &mut RoaringBitmap) -> Result<(), TantivyError> {
        let mut terms = Vec::with_capacity(tokens.len());
        for token in tokens {
            match self.reader.terms().get(term(path, token))? {
                Some(info) => terms.push(info),
                None => return Ok(()),
            }
        }
        match terms.as_slice() {
            [] => {}
            [single] => self.documents(single, found)?,
            several => self.add_phrase_matches(several, found)?,
        }
        Ok(())
    }

    /// Adds the documents that have a token with this prefix at a path.
    pub(super) fn prefix(&self, path: u32, prefix: &str, found: &mut RoaringBitmap) -> Result<(), TantivyError> {
        let from = term(path, prefix);
        let mut terms = self.reader.terms().range().ge(&from).into_stream()?;
        while terms.advance() {
            if !terms.key().starts_with(&from) {
                break;
            }
            self.documents(terms.value(), found)?;
        }
        Ok(())
    }

    fn documents(&self, term: &TermInfo, found: &mut RoaringBitmap) -> Result<(), TantivyError> {
        let mut postings = self
            .reader
            .read_postings_from_terminfo(term, IndexRecordOption::Basic)?;
        let mut block = [0; tantivy::COLLECT_BLOCK_BUFFER_LEN];
        loop {
            let filled = postings.fill_buffer(&mut block);
            found.extend(block[..filled].iter().copied());
            if filled < block.len() {
                return Ok(());
            }
        }
    }

    /// Adds the documents that have all terms, at consecutive positions.
    fn add_phrase_matches(&self, terms: &[TermInfo], found: &mut RoaringBitmap) -> Result<(), TantivyError> {
        let open = |info| {
            self.reader
                .read_postings_from_terminfo(info, IndexRecordOption::WithFreqsAndPositions)
        };
        let mut postings = terms.iter().map(open).collect::<Result<Vec<SegmentPostings>, _>>()?;
        let rarest = (0..terms.len()).min_by_key(|i| terms[*i].doc_freq).unwrap_or(0);
        let (mut starts, mut positions) = (Vec::new(), Vec::new());
        let mut document = postings[rarest].doc();
        while document != TERMINATED {
            match first_past(&mut postings, document) {
                None => {
                    if is_phrase(&mut postings, &mut starts, &mut positions) {
                        found.insert(document);
                    }
                    document = postings[rarest].advance();
                }
                Some(TERMINATED) => break,
                Some(next) => document = postings[rarest].seek(next.max(document)),
            }
        }
        Ok(())
    }
}

/// Advances all postings to a document. Returns the document of the first posting list that is past it, if any.
fn first_past(postings: &mut [SegmentPostings], document: u32) -> Option<u32> {
    postings
        .iter_mut()
        .map(|list| {
            if list.doc() < document {
                list.seek(document)
            } else {
                list.doc()
            }
        })
        .find(|at| *at != document)
}

/// Whether the terms have consecutive positions in the document at which all postings are.
fn is_phrase(postings: &mut [SegmentPostings], starts: &mut Vec<u32>, positions: &mut Vec<u32>) -> bool {
    for (distance, list) in (0..).zip(postings) {
        list.positions(positions);
        if distance == 0 {
            std::mem::swap(starts, positions);
        } else {
            starts.retain(|start| positions.binary_search(&(start + distance)).is_ok());
        }
        if starts.is_empty() {
            return false;
        }
    }
    true
}

/// The key of a token at a path in the term dictionary, in tantivy's encoding of a term in a JSON field.
fn term(path: u32, token: &str) -> Vec<u8> {
    const END_OF_PATH: u8 = 0;
    const TEXT: u8 = b's';
    let mut key = path_name(path).into_bytes();
    key.extend([END_OF_PATH, TEXT]);
    key.extend(token.as_bytes());
    key
}
