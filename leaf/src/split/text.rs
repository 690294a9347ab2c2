//! Text: the postings of a part, with positions, over the strings of its text-like paths. A term is a path and a token.

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

use super::token::Words;

/// How the tokenizer is called in the schema.
const TOKENIZER: &str = "words";
/// Bytes that tantivy's writer expects to need; it only sizes its first table by it.
const WRITER_BYTES: Range<usize> = 1 << 20..256 << 20;

fn schema() -> (Schema, Field) {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(TOKENIZER)
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions);
    let mut builder = Schema::builder();
    let field = builder.add_json_field("text", JsonObjectOptions::default().set_indexing_options(indexing));
    (builder.build(), field)
}

/// A path's name in a term: its number, so that no key can clash with anything.
fn path_name(path: u32) -> String {
    path.to_string()
}

/// Writes the postings of a part.
pub(super) struct TextWriter {
    writer: SingleSegmentIndexWriter<Texts>,
    directory: RamDirectory,
    names: Arc<Vec<String>>,
    field: Field,
    texts: Texts,
}

impl TextWriter {
    /// For so many paths and about so many bytes of text.
    pub fn new(paths: usize, bytes: usize) -> Result<Self, TantivyError> {
        let (schema, field) = schema();
        let tokenizers = TokenizerManager::new();
        tokenizers.register(TOKENIZER, Words::default());
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
            texts: Texts::new(field, &names),
            names,
        })
    }

    /// Adds a string of the document that comes next.
    pub fn add(&mut self, path: u32, text: &str) {
        let start = self.texts.buffer.len();
        self.texts.buffer.push_str(text);
        self.texts.parts.push((path, start..self.texts.buffer.len()));
    }

    /// Ends the document.
    pub fn end_document(&mut self) -> Result<(), TantivyError> {
        let texts = std::mem::replace(&mut self.texts, Texts::new(self.field, &self.names));
        self.writer.add_document(texts)
    }

    /// The files.
    pub fn finish(self) -> Result<RamDirectory, TantivyError> {
        self.writer.finalize()?;
        Ok(self.directory)
    }
}

/// The strings of one document.
#[derive(Debug)]
struct Texts {
    field: Field,
    names: Arc<Vec<String>>,
    buffer: String,
    parts: Vec<(u32, Range<usize>)>,
}

impl Texts {
    fn new(field: Field, names: &Arc<Vec<String>>) -> Self {
        Self {
            field,
            names: names.clone(),
            buffer: String::new(),
            parts: Vec::new(),
        }
    }
}

impl Document for Texts {
    type Value<'a> = Piece<'a>;
    type FieldsValuesIter<'a> = std::option::IntoIter<(Field, Piece<'a>)>;

    fn iter_fields_and_values(&self) -> Self::FieldsValuesIter<'_> {
        (!self.parts.is_empty())
            .then_some((self.field, Piece::All(self)))
            .into_iter()
    }
}

/// A document's strings as tantivy sees them: an object of paths and texts.
#[derive(Debug, Clone, Copy)]
enum Piece<'a> {
    All(&'a Texts),
    One(&'a str),
}

impl<'a> Value<'a> for Piece<'a> {
    type ArrayIter = std::iter::Empty<Self>;
    type ObjectIter = Pieces<'a>;

    fn as_value(&self) -> ReferenceValue<'a, Self> {
        match *self {
            Self::All(texts) => ReferenceValue::Object(Pieces { texts, next: 0 }),
            Self::One(text) => ReferenceValue::Leaf(ReferenceValueLeaf::Str(text)),
        }
    }
}

struct Pieces<'a> {
    texts: &'a Texts,
    next: usize,
}

impl<'a> Iterator for Pieces<'a> {
    type Item = (&'a str, Piece<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let (path, range) = self.texts.parts.get(self.next)?;
        self.next += 1;
        Some((
            &self.texts.names[*path as usize],
            Piece::One(&self.texts.buffer[range.clone()]),
        ))
    }
}

/// The postings of a part, opened.
pub(super) struct TextIndex {
    reader: Arc<InvertedIndexReader>,
}

impl TextIndex {
    /// Over the files that a writer has left.
    pub fn open(directory: impl Directory) -> Result<Self, TantivyError> {
        let index = Index::open(directory)?;
        let segments = index.searchable_segments()?;
        let segment = segments
            .first()
            .ok_or_else(|| TantivyError::InternalError("an index of text without a segment".into()))?;
        Ok(Self {
            reader: SegmentReader::open(segment)?.inverted_index(schema().1)?,
        })
    }

    /// Adds the documents that have these tokens side by side at a path.
    pub fn phrase(&self, path: u32, tokens: &[String], found: &mut RoaringBitmap) -> Result<(), TantivyError> {
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
            several => self.side_by_side(several, found)?,
        }
        Ok(())
    }

    /// Adds the documents that have a token at a path that begins so.
    pub fn prefix(&self, path: u32, prefix: &str, found: &mut RoaringBitmap) -> Result<(), TantivyError> {
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

    fn side_by_side(&self, terms: &[TermInfo], found: &mut RoaringBitmap) -> Result<(), TantivyError> {
        let open = |info| {
            self.reader
                .read_postings_from_terminfo(info, IndexRecordOption::WithFreqsAndPositions)
        };
        let mut postings = terms.iter().map(open).collect::<Result<Vec<SegmentPostings>, _>>()?;
        let rarest = (0..terms.len()).min_by_key(|i| terms[*i].doc_freq).unwrap_or(0);
        let (mut starts, mut places) = (Vec::new(), Vec::new());
        let mut document = postings[rarest].doc();
        while document != TERMINATED {
            match first_beyond(&mut postings, document) {
                None => {
                    if positions_meet(&mut postings, &mut starts, &mut places) {
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

/// Moves all to a document; where one is beyond it already, that one's document.
fn first_beyond(postings: &mut [SegmentPostings], document: u32) -> Option<u32> {
    postings
        .iter_mut()
        .map(|one| {
            if one.doc() < document {
                one.seek(document)
            } else {
                one.doc()
            }
        })
        .find(|at| *at != document)
}

/// Whether the terms stand side by side in the document where all of them are.
fn positions_meet(postings: &mut [SegmentPostings], starts: &mut Vec<u32>, places: &mut Vec<u32>) -> bool {
    for (distance, one) in (0..).zip(postings) {
        one.positions(places);
        if distance == 0 {
            std::mem::swap(starts, places);
        } else {
            starts.retain(|start| places.binary_search(&(start + distance)).is_ok());
        }
        if starts.is_empty() {
            return false;
        }
    }
    true
}

/// The key of a token at a path in the term dictionary: tantivy's form of a term in a JSON field.
fn term(path: u32, token: &str) -> Vec<u8> {
    const END_OF_PATH: u8 = 0;
    const TEXT: u8 = b's';
    let mut key = path_name(path).into_bytes();
    key.extend([END_OF_PATH, TEXT]);
    key.extend(token.as_bytes());
    key
}
