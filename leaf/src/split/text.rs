//! Text: reads the postings, with positions, of the strings at the text-like paths of a part. A term is a path and a
//! token.

use std::sync::Arc;

use plan::token::NearPhrase;
use roaring::RoaringBitmap;
use tantivy::{
    Directory, DocSet, Index, InvertedIndexReader, SegmentReader, TERMINATED, TantivyError,
    postings::{Postings, SegmentPostings, TermInfo},
    schema::{Field, IndexRecordOption, JsonObjectOptions, Schema, TextFieldIndexing},
};

/// The name of the tokenizer in the schema.
const TOKENIZER: &str = "words";

/// The schema of the postings, and its only field.
pub(super) fn schema() -> (Schema, Field) {
    let indexing = TextFieldIndexing::default()
        .set_tokenizer(TOKENIZER)
        // A field norm is the length of all paths together. Scores need that of each path, which the postings have.
        .set_fieldnorms(false)
        .set_index_option(IndexRecordOption::WithFreqsAndPositions);
    let mut builder = Schema::builder();
    let field = builder.add_json_field("text", JsonObjectOptions::default().set_indexing_options(indexing));
    (builder.build(), field)
}

/// The open postings of a part.
pub(super) struct TextIndex {
    reader: Arc<InvertedIndexReader>,
}

impl TextIndex {
    /// Opens the files that [`write_postings`](super::postings::write_postings) wrote.
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
        match self.terms(path, tokens)?.as_deref() {
            None | Some([]) => Ok(()),
            Some([single]) => self.documents(single, found),
            Some(several) => {
                let (mut starts, mut positions) = (Vec::new(), Vec::new());
                self.add_matches(several, found, |postings| {
                    is_phrase(postings, &mut starts, &mut positions)
                })
            }
        }
    }

    /// Calls `add` with each document that has these tokens next to each other at a path, and how often it has them.
    pub(super) fn occurrences(
        &self,
        path: u32,
        tokens: &[String],
        mut add: impl FnMut(u32, u32),
    ) -> Result<(), TantivyError> {
        match self.terms(path, tokens)?.as_deref() {
            None | Some([]) => Ok(()),
            Some([single]) => self.frequencies(single, &mut add),
            Some(several) => {
                let (mut starts, mut positions) = (Vec::new(), Vec::new());
                self.each_with_all(several, |document, postings| {
                    if is_phrase(postings, &mut starts, &mut positions) {
                        add(document, starts.len() as u32);
                    }
                })
            }
        }
    }

    /// Calls `add` with each token at a path in each document that has it, and how often. Tokens that are too long for
    /// postings are missing.
    pub(super) fn tokens_by_document(&self, path: u32, mut add: impl FnMut(u32, u32)) -> Result<(), TantivyError> {
        let from = term(path, "");
        let mut terms = self.reader.terms().range().ge(&from).into_stream()?;
        while terms.advance() && terms.key().starts_with(&from) {
            self.frequencies(terms.value(), &mut add)?;
        }
        Ok(())
    }

    fn frequencies(&self, term: &TermInfo, add: &mut impl FnMut(u32, u32)) -> Result<(), TantivyError> {
        let mut postings = self
            .reader
            .read_postings_from_terminfo(term, IndexRecordOption::WithFreqs)?;
        while postings.doc() != TERMINATED {
            add(postings.doc(), postings.term_freq());
            postings.advance();
        }
        Ok(())
    }

    /// Adds the documents that have a phrase at a path whose tokens may be apart. The strings of one document count as one
    /// text.
    pub(super) fn near(&self, path: u32, phrase: &NearPhrase, found: &mut RoaringBitmap) -> Result<(), TantivyError> {
        let Some(terms) = self.terms(path, &phrase.tokens)? else {
            return Ok(());
        };
        let mut positions = vec![Vec::new(); terms.len()];
        self.add_matches(&terms, found, |postings| {
            for (list, positions) in postings.iter_mut().zip(&mut positions) {
                list.positions(positions);
            }
            phrase.is_at(&positions)
        })
    }

    /// What the dictionary says about tokens; None if it lacks one.
    fn terms(&self, path: u32, tokens: &[String]) -> Result<Option<Vec<TermInfo>>, TantivyError> {
        let terms = tokens.iter().map(|token| self.reader.terms().get(term(path, token)));
        Ok(terms.collect::<Result<_, _>>()?)
    }

    /// Adds the documents that have a token at a path which has this prefix and for which `holds` is true.
    pub(super) fn tokens(
        &self,
        path: u32,
        prefix: &str,
        holds: impl Fn(&[u8]) -> bool,
        found: &mut RoaringBitmap,
    ) -> Result<(), TantivyError> {
        let from = term(path, prefix);
        let mut terms = self.reader.terms().range().ge(&from).into_stream()?;
        while terms.advance() {
            if !terms.key().starts_with(&from) {
                break;
            }
            if holds(&terms.key()[from.len() - prefix.len()..]) {
                self.documents(terms.value(), found)?;
            }
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
            let documents = block[..filled].iter().copied();
            // Much faster, but only for documents after all others.
            if found.append(documents.clone()).is_err() {
                found.extend(documents);
            }
            if filled < block.len() {
                return Ok(());
            }
        }
    }

    /// Adds the documents that have all terms, at positions for which `holds` is true.
    fn add_matches(
        &self,
        terms: &[TermInfo],
        found: &mut RoaringBitmap,
        mut holds: impl FnMut(&mut [SegmentPostings]) -> bool,
    ) -> Result<(), TantivyError> {
        self.each_with_all(terms, |document, postings| {
            if holds(postings) {
                found.insert(document);
            }
        })
    }

    /// Visits the documents that have all terms.
    fn each_with_all(
        &self,
        terms: &[TermInfo],
        mut visit: impl FnMut(u32, &mut [SegmentPostings]),
    ) -> Result<(), TantivyError> {
        let open = |info| {
            self.reader
                .read_postings_from_terminfo(info, IndexRecordOption::WithFreqsAndPositions)
        };
        let mut postings = terms.iter().map(open).collect::<Result<Vec<SegmentPostings>, _>>()?;
        let rarest = (0..terms.len()).min_by_key(|i| terms[*i].doc_freq).unwrap_or(0);
        let Some(first) = postings.get(rarest) else {
            return Ok(());
        };
        let mut document = first.doc();
        while document != TERMINATED {
            match first_past(&mut postings, document) {
                None => {
                    visit(document, &mut postings);
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

/// The key of a token at a path in the term dictionary, in tantivy's encoding of a term in a JSON field. The path is
/// named by its number, so that no key can clash with anything.
pub(super) fn term(path: u32, token: &str) -> Vec<u8> {
    const END_OF_PATH: u8 = 0;
    const TEXT: u8 = b's';
    let mut key = path.to_string().into_bytes();
    key.extend([END_OF_PATH, TEXT]);
    key.extend(token.as_bytes());
    key
}
