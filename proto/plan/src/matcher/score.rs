//! Score: how well a value fits a search, by BM25 as Lucene computes it. The words of a clause count by how often they
//! are in the texts of the clause's path, how long these texts are, and how few documents have the words.

use std::borrow::Cow;

use proto::json::Value;
use serde::{Deserialize, Serialize};

use super::{Matcher, number::Number};
use crate::{
    path::{Path, Step},
    search::{Clause, Match},
    token,
};

/// How fast further occurrences of a word count less.
const SATURATION: f64 = 1.2;
/// How much the length of a text counts.
const LENGTH_WEIGHT: f64 = 0.75;

/// A search whose clauses have weights and say where their statistics are. Written by the resolver of SQL into a call of
/// `search_score`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScoredSearch {
    /// Every value, with this score.
    All(f64),
    /// All parts match. The score is the sum of theirs.
    And(Vec<ScoredSearch>),
    /// A part matches. The score is the sum of those of the parts that match.
    Or(Vec<ScoredSearch>),
    /// The part does not match. It has no score.
    Not(Box<ScoredSearch>),
    /// One condition.
    Clause(ScoredClause),
}

/// A clause with what its score depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScoredClause {
    /// The clause.
    pub clause: Clause,
    /// The values of which one must match: numbers of arguments.
    pub values: Vec<usize>,
    /// What the score is multiplied by.
    pub weight: f64,
    /// The statistics of its words; None if a match always has the score 1.
    pub words: Option<WordStatistics>,
}

/// Where the statistics of a clause are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WordStatistics {
    /// The number of its path: the lengths have two numbers for each path.
    pub path: usize,
    /// The numbers of its tokens: the frequencies have the documents of each token.
    pub tokens: Vec<usize>,
}

/// The tokens whose occurrences a test counts; None if its matches all have the same score.
pub fn scored_tokens(test: &Match) -> Option<Vec<String>> {
    match test {
        Match::Words(text) | Match::Near { text, .. } => {
            let tokens: Vec<String> = token::tokens(text).map(Cow::into_owned).collect();
            (!tokens.is_empty()).then_some(tokens)
        }
        _ => None,
    }
}

/// The test of a text that has a token.
pub fn token_test(token: &str) -> Match {
    match Number::of_text(token).is_some() || token.parse::<bool>().is_ok() {
        // Words would find numbers and booleans, too.
        true => Match::Near {
            text: token.to_owned(),
            slop: 0,
        },
        false => Match::Words(token.to_owned()),
    }
}

/// The number of tokens of the texts at a path or, without one, of all texts.
pub fn count_tokens(value: &Value<'_>, path: Option<&Path>) -> u64 {
    let mut count = 0;
    for_each_text(value, path, &mut |text| count += token::count(text));
    count
}

/// A search of whole documents, with its statistics: all that the score of a document depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DocumentScore {
    /// The search. The only value of each clause is the document.
    pub search: ScoredSearch,
    /// What the documents have.
    #[serde(flatten)]
    pub statistics: ScoreStatistics,
}

/// What the documents have that are searched.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScoreStatistics {
    /// For each path, the number of documents with texts there, and the number of tokens in them.
    pub lengths: Vec<i64>,
    /// For each token, the number of documents that have it.
    pub frequencies: Vec<i64>,
}

/// A search prepared with its statistics.
pub struct Scorer {
    search: PreparedSearch,
    clauses: Vec<PreparedClause>,
}

enum PreparedSearch {
    All(f64),
    And(Vec<PreparedSearch>),
    Or(Vec<PreparedSearch>),
    Not(Box<PreparedSearch>),
    /// The number of a clause.
    Clause(usize),
}

/// A clause of a [`Scorer`].
pub struct PreparedClause {
    clause: Clause,
    matcher: Matcher,
    values: Vec<usize>,
    weight: f64,
    words: Option<PreparedWords>,
}

/// What the score of a clause that matches depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WordCounts {
    /// How often its words occur in the texts at its path.
    pub occurrences: u64,
    /// The number of tokens of these texts.
    pub length: u64,
}

struct PreparedWords {
    phrase: Vec<String>,
    /// Whether the tokens may be apart. Then the phrase counts as one occurrence.
    is_near: bool,
    /// How much the rarity of the tokens counts.
    rarity: f64,
    /// The mean length of the documents with texts at the path, in tokens.
    mean_length: f64,
}

impl Scorer {
    /// Prepares a search.
    pub fn new(search: &ScoredSearch, statistics: &ScoreStatistics) -> Self {
        let mut clauses = Vec::new();
        Self {
            search: PreparedSearch::new(search, statistics, &mut clauses),
            clauses,
        }
    }

    /// Its clauses, by number.
    pub fn clauses(&self) -> &[PreparedClause] {
        &self.clauses
    }

    /// Whether rows may have a score that match no clause.
    pub fn scores_all(&self) -> bool {
        self.search.has_all()
    }

    /// The score of a row with these values; 0 if it does not match.
    pub fn score(&self, values: &[Option<&Value<'_>>]) -> f64 {
        self.score_by(&|clause| self.clauses[clause].counts(values))
    }

    /// The score of a row by what is known of each clause, by its number; None if the clause does not match. 0 if the row
    /// does not match.
    pub fn score_by(&self, counts: &dyn Fn(usize) -> Option<WordCounts>) -> f64 {
        let score = |clause: usize| Some(self.clauses[clause].score(counts(clause)?));
        self.search.score(&score).unwrap_or(0.0)
    }
}

impl PreparedSearch {
    /// Adds the clauses to those of the whole search.
    fn new(search: &ScoredSearch, statistics: &ScoreStatistics, clauses: &mut Vec<PreparedClause>) -> Self {
        let mut prepared = |parts: &[ScoredSearch]| {
            let parts = parts.iter().map(|part| Self::new(part, statistics, clauses));
            parts.collect()
        };
        match search {
            ScoredSearch::All(score) => Self::All(*score),
            ScoredSearch::And(parts) => Self::And(prepared(parts)),
            ScoredSearch::Or(parts) => Self::Or(prepared(parts)),
            ScoredSearch::Not(part) => Self::Not(Box::new(Self::new(part, statistics, clauses))),
            ScoredSearch::Clause(scored) => {
                let words = scored.words.as_ref();
                clauses.push(PreparedClause {
                    clause: scored.clause.clone(),
                    matcher: Matcher::new(&scored.clause),
                    values: scored.values.clone(),
                    weight: scored.weight,
                    words: words.and_then(|words| PreparedWords::new(&scored.clause.matches, words, statistics)),
                });
                Self::Clause(clauses.len() - 1)
            }
        }
    }

    fn has_all(&self) -> bool {
        match self {
            Self::All(_) => true,
            Self::And(parts) | Self::Or(parts) => parts.iter().any(Self::has_all),
            // It has no score.
            Self::Not(_) | Self::Clause(_) => false,
        }
    }

    /// The score by those of the clauses; None if the row does not match.
    fn score(&self, clause: &dyn Fn(usize) -> Option<f64>) -> Option<f64> {
        match self {
            Self::All(score) => Some(*score),
            Self::And(parts) => parts.iter().try_fold(0.0, |sum, part| Some(sum + part.score(clause)?)),
            Self::Or(parts) => {
                let mut scores = parts.iter().filter_map(|part| part.score(clause));
                let first = scores.next()?;
                Some(scores.fold(first, |sum, score| sum + score))
            }
            Self::Not(part) => part.score(clause).is_none().then_some(0.0),
            Self::Clause(number) => clause(*number),
        }
    }
}

impl PreparedClause {
    /// The clause.
    pub fn clause(&self) -> &Clause {
        &self.clause
    }

    /// The words whose occurrences its score depends on.
    pub fn counted_words(&self) -> Option<&[String]> {
        self.words.as_ref().map(|words| words.phrase.as_slice())
    }

    fn counts(&self, values: &[Option<&Value<'_>>]) -> Option<WordCounts> {
        let values = || {
            self.values
                .iter()
                .filter_map(|number| values.get(*number).copied().flatten())
        };
        if !values().any(|value| self.matcher.matches(value)) {
            return None;
        }
        let mut counts = WordCounts::default();
        if let Some(words) = &self.words {
            for value in values() {
                for_each_text(value, self.clause.path.as_ref(), &mut |text| {
                    let (occurrences, length) = token::count_phrase(text, &words.phrase);
                    counts.occurrences += occurrences;
                    counts.length += length;
                });
            }
        }
        Some(counts)
    }

    fn score(&self, counts: WordCounts) -> f64 {
        let Some(words) = &self.words else {
            return self.weight;
        };
        let occurrences = if words.is_near { 1 } else { counts.occurrences };
        // A number or a boolean matches without occurrences.
        match occurrences {
            0 => self.weight,
            _ => self.weight * words.score(occurrences, counts.length),
        }
    }
}

impl PreparedWords {
    fn new(test: &Match, words: &WordStatistics, statistics: &ScoreStatistics) -> Option<Self> {
        let ScoreStatistics { lengths, frequencies } = statistics;
        let number = |numbers: &[i64], index: usize| numbers.get(index).map(|number| *number as f64);
        let documents = number(lengths, words.path * 2)?;
        let tokens = number(lengths, words.path * 2 + 1)?;
        let rarity = |token: &usize| {
            let with_token = number(frequencies, *token)?.min(documents);
            Some((1.0 + (documents - with_token + 0.5) / (with_token + 0.5)).ln())
        };
        Some(Self {
            phrase: scored_tokens(test)?,
            is_near: matches!(test, Match::Near { .. }),
            rarity: words.tokens.iter().map(rarity).sum::<Option<f64>>()?,
            mean_length: tokens / documents.max(1.0),
        })
    }

    fn score(&self, occurrences: u64, length: u64) -> f64 {
        let occurrences = occurrences as f64;
        let relative = stored_length(length) as f64 / self.mean_length.max(f64::MIN_POSITIVE);
        let saturation = SATURATION * (1.0 - LENGTH_WEIGHT + LENGTH_WEIGHT * relative);
        self.rarity * (SATURATION + 1.0) * occurrences / (occurrences + saturation)
    }
}

/// A length as Lucene stores it in one byte: what exceeds 24 has four significant bits. So hits have the order that
/// Lucene gives them.
fn stored_length(length: u64) -> u64 {
    const EXACT: u64 = 24;
    let Some(above) = length.checked_sub(EXACT) else {
        return length;
    };
    let dropped_bits = (u64::BITS - above.leading_zeros()).saturating_sub(4);
    EXACT + (above >> dropped_bits << dropped_bits)
}

/// Visits the texts that [`Matcher`] compares: at a path or, without one, anywhere.
fn for_each_text(value: &Value<'_>, path: Option<&Path>, visit: &mut dyn FnMut(&str)) {
    match path {
        None => each_text(value, visit),
        Some(path) => each_text_at(value, path.steps(), visit),
    }
}

fn each_text(value: &Value<'_>, visit: &mut dyn FnMut(&str)) {
    match value {
        Value::Array(items) => items.iter().for_each(|item| each_text(item, visit)),
        Value::Object(entries) => entries.iter().for_each(|(_, value)| each_text(value, visit)),
        Value::Text(text) => visit(text),
        _ => {}
    }
}

fn each_text_at(value: &Value<'_>, steps: &[Step], visit: &mut dyn FnMut(&str)) {
    match (value, steps) {
        (Value::Array(items), [Step::Index(index), rest @ ..]) => {
            if let Some(item) = items.get(*index as usize) {
                each_text_at(item, rest, visit);
            }
        }
        (Value::Array(items), _) => items.iter().for_each(|item| each_text_at(item, steps, visit)),
        (Value::Object(_), [Step::Key(key), rest @ ..]) => {
            if let Some(value) = value.get(key) {
                each_text_at(value, rest, visit);
            }
        }
        (Value::Text(text), []) => visit(text),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proto::json;

    use super::*;
    use crate::{column::Column, search};

    fn scored(text: &str, path: usize, tokens: Vec<usize>) -> ScoredSearch {
        ScoredSearch::Clause(ScoredClause {
            clause: Clause {
                path: Some(Path::parse("msg").expect("a path")),
                matches: Match::Words(text.into()),
            },
            values: vec![0],
            weight: 1.0,
            words: Some(WordStatistics { path, tokens }),
        })
    }

    fn score(search: &ScoredSearch, document: &str) -> f64 {
        // 10 documents with 40 tokens; "disk" is in 3 of them, "full" in 1.
        let statistics = ScoreStatistics {
            lengths: vec![10, 40],
            frequencies: vec![3, 1],
        };
        let document = json::parse(document.as_bytes()).ok();
        Scorer::new(search, &statistics).score(&[document.as_ref()])
    }

    #[test]
    fn a_score_is_that_of_the_formula() {
        let close = |found: f64, expected: f64| assert!((found - expected).abs() < 1e-9, "{found}, not {expected}");
        let rarity = |with: f64| (1.0 + (10.0 - with + 0.5) / (with + 0.5)).ln();
        let bm25 = |rarity: f64, occurrences: f64, length: f64| {
            rarity * 2.2 * occurrences / (occurrences + 1.2 * (0.25 + 0.75 * length / 4.0))
        };
        let disk = scored("disk", 0, vec![0]);
        close(score(&disk, r#"{"msg":"the Disk"}"#), bm25(rarity(3.0), 1.0, 2.0));
        close(
            score(&disk, r#"{"msg":["disk disk","a disk"]}"#),
            bm25(rarity(3.0), 3.0, 4.0),
        );
        close(score(&disk, r#"{"other":"disk"}"#), 0.0);
        let phrase = scored("disk full", 0, vec![0, 1]);
        close(
            score(&phrase, r#"{"msg":"disk disk full"}"#),
            bm25(rarity(3.0) + rarity(1.0), 1.0, 3.0),
        );
        let both = ScoredSearch::And(vec![disk.clone(), ScoredSearch::Not(Box::new(phrase.clone()))]);
        close(score(&both, r#"{"msg":"a disk"}"#), bm25(rarity(3.0), 1.0, 2.0));
        close(score(&both, r#"{"msg":"disk full"}"#), 0.0);
        let either = ScoredSearch::Or(vec![both, ScoredSearch::All(1.0)]);
        close(score(&either, r#"{"msg":"disk full"}"#), 1.0);
        let written = serde_json::to_string(&either).expect("JSON");
        assert_eq!(
            serde_json::from_str::<ScoredSearch>(&written).expect("a search"),
            either
        );
    }

    #[test]
    fn the_deepest_search_is_read_as_it_was_written() {
        let clause = scored("disk", 0, vec![0]);
        let deepest = (0..search::SEARCH_DEPTH_MAX).fold(clause.clone(), |inner, _| {
            ScoredSearch::Or(vec![ScoredSearch::And(vec![clause.clone(), inner]), clause.clone()])
        });
        let column = Column::score(
            serde_json::to_string(&DocumentScore {
                search: deepest,
                statistics: ScoreStatistics::default(),
            })
            .expect("JSON")
            .into(),
        );
        assert_eq!(Column::parse(&column.name()), Some(column));
    }

    #[test]
    fn a_long_text_has_the_length_that_lucene_stores() {
        for (length, stored) in [
            (0, 0),
            (24, 24),
            (39, 39),
            (40, 40),
            (41, 40),
            (42, 42),
            (1_000, 984),
            (2_013_265_944, 2_013_265_944),
        ] {
            assert_eq!(stored_length(length), stored, "{length}");
        }
    }
}
