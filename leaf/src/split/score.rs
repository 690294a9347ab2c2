//! Scores: how often the documents of a part have the words of a search, and how long their texts are.
//!
//! Postings answer for paths with running text, dictionaries for all other strings. Both are walked through as a whole: the
//! lengths at a path are kept for the next search, and the scores of a search for its next block.

use std::sync::Arc;

use datafusion::arrow::{
    array::{Float64Array, Int64Array},
    buffer::{BooleanBuffer, NullBuffer},
};
use plan::{
    Path,
    matcher::{DocumentScore, Scorer, WordCounts},
    token,
};
use roaring::RoaringBitmap;

use super::{
    decoded::RecentSlots,
    groups::{Codes, length_counts},
    part::{Part, index_error},
    totals::ColumnTotal,
    values::{ColumnResult, RequestedDocuments, without_cast_failures},
};
use crate::{error::Error, matches::Matches};

/// Paths whose lengths have a place in the cache, for each part.
const LENGTHS_MAX: usize = 64;
/// Searches whose scores have a place in the cache, for each part: many scans may run at once.
const SEARCHES_MAX: usize = 64;

/// Documents whose lengths are summed up together.
const BLOCK_DOCUMENTS: usize = 4_096;

/// What was computed for the last scores: of paths, and of the texts of searches.
#[derive(Default)]
pub(super) struct ScoreCache {
    lengths: RecentSlots<Option<Path>, Lengths, LENGTHS_MAX>,
    searches: RecentSlots<Arc<str>, PartScores, SEARCHES_MAX>,
}

/// The number of tokens of the texts at a path, by document.
pub(super) struct Lengths {
    tokens: Arc<[u32]>,
    /// See [`length_counts`].
    counts: Option<Arc<Vec<u32>>>,
    /// See [`totals_of_blocks`].
    blocks: Vec<ColumnTotal>,
    /// The documents for which the number is not known.
    pub unknown: RoaringBitmap,
}

impl Lengths {
    /// How many of these documents have texts, and the tokens of all.
    pub(super) fn total(&self, known: &RoaringBitmap) -> ColumnTotal {
        match known.min().zip(known.max()) {
            // Mostly the documents are all of a range.
            Some((first, last)) if known.len() == u64::from(last - first) + 1 => {
                let (before, all) = (self.total_before(first as usize), self.total_before(last as usize + 1));
                ColumnTotal {
                    present: all.present - before.present,
                    sum: all.sum - before.sum,
                }
            }
            _ => {
                let tokens = known.iter().map(|document| self.tokens[document as usize]);
                total_of(&tokens.collect::<Vec<_>>())
            }
        }
    }

    /// The total of the documents below this number.
    fn total_before(&self, document: usize) -> ColumnTotal {
        let block = document / BLOCK_DOCUMENTS;
        let within = total_of(&self.tokens[block * BLOCK_DOCUMENTS..document]);
        let before = self.blocks.get(block).copied().unwrap_or_default();
        ColumnTotal {
            present: before.present + within.present,
            sum: before.sum + within.sum,
        }
    }
}

fn total_of(tokens: &[u32]) -> ColumnTotal {
    ColumnTotal {
        present: tokens.iter().filter(|tokens| **tokens > 0).count() as u64,
        sum: tokens.iter().map(|tokens| u64::from(*tokens)).sum(),
    }
}

/// The total of the documents before each block, and of all.
fn totals_of_blocks(tokens: &[u32]) -> Vec<ColumnTotal> {
    let mut totals = vec![ColumnTotal::default()];
    for block in tokens.chunks(BLOCK_DOCUMENTS) {
        let (before, block) = (totals.last().copied().unwrap_or_default(), total_of(block));
        totals.push(ColumnTotal {
            present: before.present + block.present,
            sum: before.sum + block.sum,
        });
    }
    totals
}

/// The scores of a search, ascending by document. Those of all other documents are 0.
struct PartScores {
    documents: Vec<u32>,
    scores: Float64Array,
    /// The documents for which the score is not known.
    unknown: RoaringBitmap,
}

/// What a part knows about a clause.
struct ClauseCounts {
    /// Never None: the part knows them.
    matches: Arc<Option<Matches>>,
    /// None if its words do not matter.
    words: Option<WordsOfClause>,
}

struct WordsOfClause {
    /// Each document with occurrences, and their number.
    occurrences: Vec<(u32, u32)>,
    /// Never None: the part knows them.
    lengths: Arc<Option<Lengths>>,
}

impl Part {
    /// The number of tokens of the texts at a path or, without one, of all texts.
    pub(super) fn token_counts(&self, path: Option<&Path>, requested: RequestedDocuments) -> ColumnResult {
        let lengths = self.lengths(path)?;
        let Some(lengths) = lengths.as_ref() else {
            return Ok(None);
        };
        if requested.count_in(&lengths.unknown) > 0 {
            return Ok(None);
        }
        let counts = (requested.documents.iter()).map(|document| i64::from(lengths.tokens[*document as usize]));
        let counts: Vec<i64> = counts.collect();
        let have_texts = BooleanBuffer::collect_bool(counts.len(), |at| counts[at] > 0);
        let counts = Int64Array::new(counts.into(), Some(NullBuffer::new(have_texts)));
        Ok(Some(without_cast_failures(Arc::new(counts))))
    }

    /// The codes of these numbers; None if they are not known of all documents.
    pub(super) fn length_codes(
        &self,
        path: Option<&Path>,
        requested: RequestedDocuments,
    ) -> Result<Option<Codes>, Error> {
        let lengths = self.lengths(path)?;
        let known = lengths.as_ref().as_ref();
        let known = known.filter(|lengths| requested.count_in(&lengths.unknown) == 0);
        Ok(known.and_then(|lengths| {
            let counts = Arc::clone(lengths.counts.as_ref()?);
            Some(Codes::of_lengths(Arc::clone(&lengths.tokens), counts))
        }))
    }

    /// The scores of documents in a search.
    pub(super) fn score_values(&self, score: &Arc<str>, requested: RequestedDocuments) -> ColumnResult {
        let scores = self.part_scores(score)?;
        let Some(scores) = scores.as_ref() else {
            return Ok(None);
        };
        if requested.count_in(&scores.unknown) > 0 {
            return Ok(None);
        }
        let from = requested
            .documents
            .first()
            .map_or(0, |first| scores.documents.partition_point(|document| document < first));
        let to = from + requested.documents.len();
        // Mostly, all documents that have a score are requested.
        let values = match scores.documents.get(from..to) {
            Some(same) if same == requested.documents => scores.scores.slice(from, to - from),
            _ => {
                let score = |document: &u32| match scores.documents.binary_search(document) {
                    Ok(at) => scores.scores.value(at),
                    Err(_) => 0.0,
                };
                Float64Array::from_iter_values(requested.documents.iter().map(score))
            }
        };
        Ok(Some(without_cast_failures(Arc::new(values))))
    }

    /// None if the part does not know the texts at the path.
    pub(super) fn lengths(&self, path: Option<&Path>) -> Result<Arc<Option<Lengths>>, Error> {
        let slot = self.scores.lengths.slot(&path.cloned());
        slot.get_or_compute(|| self.compute_lengths(path))
    }

    fn compute_lengths(&self, path: Option<&Path>) -> Result<Option<(Lengths, usize)>, Error> {
        let Some(paths) = self.text_paths(path) else {
            return Ok(None);
        };
        let mut tokens = vec![0; self.paths.documents as usize];
        let mut unknown = self.paths.incomplete();
        if path.is_none() {
            unknown |= &self.paths.partly_indexed;
        }
        for id in paths {
            self.add_lengths(id, &mut tokens, &mut unknown)?;
        }
        let counts = length_counts(&tokens).map(Arc::new);
        let numbers = tokens.len() + counts.as_ref().map_or(0, |counts| counts.len());
        let lengths = Lengths {
            blocks: totals_of_blocks(&tokens),
            tokens: tokens.into(),
            counts,
            unknown,
        };
        let bytes = numbers * size_of::<u32>() + size_of_val(&lengths.blocks[..]) + lengths.unknown.serialized_size();
        Ok(Some((lengths, bytes)))
    }

    /// The paths at which the texts of a path, or all texts, are; None if the part does not know them.
    fn text_paths(&self, path: Option<&Path>) -> Option<Vec<u32>> {
        let Some(path) = path else {
            let with_columns = self.paths.nodes.iter().filter(|(_, node)| node.column);
            return Some(with_columns.map(|(id, _)| id).collect());
        };
        match self.paths.find(path.keys()?) {
            None => Some(Vec::new()),
            Some(id) => self.node(id).column.then(|| vec![id]),
        }
    }

    fn add_lengths(&self, id: u32, tokens: &mut [u32], unknown: &mut RoaringBitmap) -> Result<(), Error> {
        let mut add = |document: u32, count: u32| tokens[document as usize] += count;
        if let Some(index) = self.text.as_ref().filter(|_| self.node(id).postings) {
            *unknown |= &self.paths.oversized_tokens;
            return Ok(index.tokens_by_document(id, add)?);
        }
        self.for_each_text_number(id, unknown, |text| token::count(text) as u32, &mut add)
    }

    /// Each document of a path without postings with the number of each of its texts that is not 0.
    fn for_each_text_number(
        &self,
        id: u32,
        unknown: &mut RoaringBitmap,
        number: impl Fn(&str) -> u32,
        add: &mut impl FnMut(u32, u32),
    ) -> Result<(), Error> {
        for inside in [false, true] {
            let scope = self.scope(id, inside);
            *unknown |= &scope.long_texts;
            if scope.texts > 0 {
                let column = self.columns.texts(id, inside).map_err(index_error)?;
                let mut numbers = Vec::with_capacity(column.distinct());
                column
                    .for_each(|_, text| numbers.push(number(text)))
                    .map_err(index_error)?;
                if numbers.iter().any(|number| *number > 0) {
                    column.for_each_number(&numbers, &mut *add);
                }
            }
        }
        Ok(())
    }

    /// None if the part does not know enough.
    fn part_scores(&self, score: &Arc<str>) -> Result<Arc<Option<PartScores>>, Error> {
        let slot = self.scores.searches.slot(score);
        slot.get_or_compute(|| self.compute_scores(score))
    }

    fn compute_scores(&self, score: &str) -> Result<Option<(PartScores, usize)>, Error> {
        let Ok(DocumentScore { search, statistics }) = serde_json::from_str(score) else {
            return Ok(None);
        };
        let scorer = Scorer::new(&search, &statistics);
        let (mut clauses, mut unknown) = (Vec::new(), RoaringBitmap::new());
        let mut found = match scorer.scores_all() {
            true => self.all(),
            false => RoaringBitmap::new(),
        };
        for clause in scorer.clauses() {
            let path = clause.clause().path.as_ref();
            let matches = self.search(clause.clause())?;
            let Some(known) = matches.as_ref() else {
                return Ok(None);
            };
            let certain = &known.certain;
            unknown |= &known.candidates;
            found |= certain;
            let words = match clause.counted_words() {
                None => None,
                Some(words) => {
                    let lengths = self.lengths(path)?;
                    let (Some(paths), Some(known)) = (self.text_paths(path), lengths.as_ref()) else {
                        return Ok(None);
                    };
                    unknown |= &known.unknown & certain;
                    Some(WordsOfClause {
                        occurrences: self.occurrences(&paths, words, &mut unknown)?,
                        lengths,
                    })
                }
            };
            clauses.push(ClauseCounts { matches, words });
        }
        let documents: Vec<u32> = found.iter().collect();
        let scores = documents
            .iter()
            .map(|document| scorer.score_by(&|clause| clauses[clause].of(*document)));
        let scores = PartScores {
            scores: Float64Array::from_iter_values(scores),
            documents,
            unknown,
        };
        let bytes = scores.documents.len() * (size_of::<u32>() + size_of::<f64>()) + scores.unknown.serialized_size();
        Ok(Some((scores, bytes)))
    }

    /// How often each document has a phrase in its texts at these paths, ascending.
    fn occurrences(
        &self,
        paths: &[u32],
        phrase: &[String],
        unknown: &mut RoaringBitmap,
    ) -> Result<Vec<(u32, u32)>, Error> {
        let mut found: Vec<(u32, u32)> = Vec::new();
        for id in paths {
            let mut add = |document, count| found.push((document, count));
            match self.text.as_ref().filter(|_| self.node(*id).postings) {
                Some(index) => index.occurrences(*id, phrase, add)?,
                None => {
                    let count = |text: &str| match token::contains_phrase(text, phrase) {
                        true => token::count_phrase(text, phrase).0 as u32,
                        false => 0,
                    };
                    self.for_each_text_number(*id, unknown, count, &mut add)?;
                }
            }
        }
        found.sort_unstable();
        found.dedup_by(|(document, count), (kept, sum)| {
            let is_same = document == kept;
            *sum += if is_same { *count } else { 0 };
            is_same
        });
        Ok(found)
    }
}

impl ClauseCounts {
    /// None if the document does not match.
    fn of(&self, document: u32) -> Option<WordCounts> {
        let matches = self.matches.as_ref().as_ref()?;
        matches.certain.contains(document).then(|| match &self.words {
            None => WordCounts::default(),
            Some(WordsOfClause { occurrences, lengths }) => {
                let at = occurrences.binary_search_by_key(&document, |(document, _)| *document);
                WordCounts {
                    occurrences: at.map_or(0, |at| u64::from(occurrences[at].1)),
                    length: lengths
                        .as_ref()
                        .as_ref()
                        .map_or(0, |lengths| u64::from(lengths.tokens[document as usize])),
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn totals_of_lengths_are_sums_over_the_documents(
            seed in prop::collection::vec(0u32..5, 1..50),
            documents in 1usize..20_000,
            bounds in (0u32..20_000, 0u32..20_000),
            left_out in prop::option::of(0u32..20_000),
        ) {
            let tokens: Vec<u32> = seed.iter().copied().cycle().take(documents).collect();
            let mut known = RoaringBitmap::new();
            known.insert_range(bounds.0.min(bounds.1)..bounds.0.max(bounds.1).min(documents as u32));
            left_out.map(|document| known.remove(document));
            let of_known: Vec<u32> = known.iter().map(|document| tokens[document as usize]).collect();
            let lengths = Lengths {
                blocks: totals_of_blocks(&tokens),
                tokens: tokens.into(),
                counts: None,
                unknown: RoaringBitmap::new(),
            };
            prop_assert_eq!(lengths.total(&known), total_of(&of_known));
        }
    }
}
