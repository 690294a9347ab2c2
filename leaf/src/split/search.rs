//! Search: the documents of a part in which a clause matches some value, including values inside of arrays.
//!
//! Postings answer for paths with running text, dictionaries for all other strings, and columns for numbers and
//! booleans.

use std::{cmp::Ordering, sync::Arc};

use plan::{
    matcher::Number,
    search::{Clause, Match, RangeBound},
    token::{contains_phrase, contains_prefix, lower, tokens},
};
use roaring::RoaringBitmap;

use super::{
    columns::{TextColumn, documents_where},
    part::{CACHED_CLAUSES_MAX, Part, index_error},
    token,
};
use crate::{error::Error, key_tree::ROOT, matches::Matches};

/// The condition of a clause on a single value.
enum ValueTest {
    Words {
        tokens: Vec<String>,
        number: Option<Number>,
        boolean: Option<bool>,
    },
    Prefix(String),
    Numbers(ValueRange<Number>),
    Strings(ValueRange<String>),
    Exists,
}

/// A range of values. Each bound says whether it is inclusive; None is unbounded.
struct ValueRange<T> {
    from: Option<(T, bool)>,
    to: Option<(T, bool)>,
}

impl ValueTest {
    fn new(matches: &Match) -> Self {
        match matches {
            Match::Exists | Match::Range { from: None, to: None } => Self::Exists,
            Match::Prefix(prefix) => Self::Prefix(lower(prefix).into_owned()),
            Match::Words(text) => Self::Words {
                tokens: tokens(text).map(|token| token.into_owned()).collect(),
                number: Number::of_text(text.trim()),
                boolean: text.trim().parse().ok(),
            },
            Match::Range { from, to } => {
                let number = |bound: &Option<RangeBound>| match bound {
                    None => Some(None),
                    Some(bound) => Number::of_text(bound.value.trim()).map(|number| Some((number, bound.inclusive))),
                };
                let text =
                    |bound: &Option<RangeBound>| bound.as_ref().map(|bound| (bound.value.clone(), bound.inclusive));
                match (number(from), number(to)) {
                    (Some(from), Some(to)) => Self::Numbers(ValueRange { from, to }),
                    _ => Self::Strings(ValueRange {
                        from: text(from),
                        to: text(to),
                    }),
                }
            }
        }
    }

    /// Whether a string can match.
    fn may_match_text(&self) -> bool {
        matches!(self, Self::Words { .. } | Self::Prefix(_) | Self::Strings(_))
    }

    /// Whether a number matches.
    fn number_matches(&self, value: Number) -> bool {
        match self {
            Self::Words { number, .. } => number.is_some_and(|number| number.compare(value) == Ordering::Equal),
            Self::Numbers(ValueRange { from, to }) => {
                let above = from.is_none_or(|(bound, inclusive)| within_bound(value.compare(bound), inclusive));
                above && to.is_none_or(|(bound, inclusive)| within_bound(bound.compare(value), inclusive))
            }
            _ => false,
        }
    }

    /// Whether a number can match.
    fn may_match_numbers(&self) -> bool {
        matches!(self, Self::Numbers(_) | Self::Words { number: Some(_), .. })
    }
}

fn within_bound(order: Ordering, inclusive: bool) -> bool {
    order == Ordering::Greater || (inclusive && order == Ordering::Equal)
}

impl Part {
    /// The documents that match a clause, as [`Self::search`], cached for the next block that is read.
    pub(super) fn search_for_blocks(&self, clause: &Clause) -> Result<Option<Arc<Matches>>, Error> {
        if let Some((_, matches)) = self.clause_cache.lock().iter().find(|(cached, _)| cached == clause) {
            return Ok(matches.clone());
        }
        let found = self.search(clause)?.map(Arc::new);
        let mut cache = self.clause_cache.lock();
        if cache.len() >= CACHED_CLAUSES_MAX {
            cache.remove(0);
        }
        cache.push((clause.clone(), found.clone()));
        Ok(found)
    }

    /// The documents that match a clause, or None if this part knows nothing about it.
    pub(super) fn search(&self, clause: &Clause) -> Result<Option<Matches>, Error> {
        let test = ValueTest::new(&clause.matches);
        match (&clause.path, &test) {
            (None, ValueTest::Exists) if self.node(ROOT).column => Ok(Some(Matches {
                certain: self.present(ROOT, false)?,
                candidates: self.paths.header_only.clone(),
            })),
            (None, ValueTest::Exists) => Ok(None),
            (None, _) => self.search_all(&test).map(Some),
            (Some(path), _) => {
                let Some(keys) = path.keys() else { return Ok(None) };
                match self.paths.find(keys) {
                    None => Ok(Some(Matches::default().with_candidates(&self.paths.incomplete()))),
                    Some(id) if !self.node(id).column => Ok(None),
                    Some(id) => {
                        let mut found = Matches::default();
                        self.search_path(id, &test, &mut found)?;
                        let candidates = std::mem::take(&mut found.candidates) | &self.paths.header_only;
                        Ok(Some(found.with_candidates(&candidates)))
                    }
                }
            }
        }
    }

    fn search_all(&self, test: &ValueTest) -> Result<Matches, Error> {
        let mut found = Matches::default();
        for (id, node) in self.paths.nodes.iter() {
            if node.column {
                self.search_path(id, test, &mut found)?;
            }
        }
        let candidates = std::mem::take(&mut found.candidates) | self.paths.incomplete() | &self.paths.partly_indexed;
        // A certain match at one path needs no check at another.
        let candidates = candidates - &found.certain;
        Ok(found.with_candidates(&candidates))
    }

    /// Adds the matches at a path with columns.
    fn search_path(&self, id: u32, test: &ValueTest, found: &mut Matches) -> Result<(), Error> {
        if matches!(test, ValueTest::Exists) {
            found.certain |= self.present(id, false)? | self.present(id, true)?;
            return Ok(());
        }
        if test.may_match_text() {
            self.search_texts(id, test, found)?;
        }
        for inside in [false, true] {
            let scope = self.scope(id, inside);
            if scope.ints > 0 && test.may_match_numbers() {
                let column = self.columns.ints(id, inside).map_err(index_error)?;
                found.certain |= documents_where(&column, |int| test.number_matches(Number::Int(int)));
            }
            if scope.floats > 0 && test.may_match_numbers() {
                let column = self.columns.floats(id, inside).map_err(index_error)?;
                found.certain |= documents_where(&column, |float| test.number_matches(Number::Double(float)));
            }
            if let (
                true,
                ValueTest::Words {
                    boolean: Some(boolean), ..
                },
            ) = (scope.bools > 0, test)
            {
                let column = self.columns.bools(id, inside).map_err(index_error)?;
                found.certain |= documents_where(&column, |value| value == *boolean);
            }
        }
        Ok(())
    }

    fn search_texts(&self, id: u32, test: &ValueTest, found: &mut Matches) -> Result<(), Error> {
        match (test, self.text.as_ref().filter(|_| self.node(id).postings)) {
            (ValueTest::Words { tokens, .. }, _) if tokens.is_empty() => return Ok(()),
            (ValueTest::Words { tokens, .. }, Some(index)) => {
                found.candidates |= &self.paths.oversized_tokens;
                if tokens.iter().all(|token| token.len() <= token::TOKEN_BYTES_MAX) {
                    index.phrase(id, tokens, &mut found.certain)?;
                }
                return Ok(());
            }
            (ValueTest::Prefix(prefix), Some(index)) => {
                found.candidates |= &self.paths.oversized_tokens;
                return Ok(index.tokens(id, prefix, |_| true, &mut found.certain)?);
            }
            _ => {}
        }
        for inside in [false, true] {
            let scope = self.scope(id, inside);
            found.candidates |= &scope.long_texts;
            if scope.texts > 0 {
                let column = self.columns.texts(id, inside).map_err(index_error)?;
                found.certain |= search_dictionary(&column, test).map_err(index_error)?;
            }
        }
        Ok(())
    }
}

fn search_dictionary(column: &TextColumn, test: &ValueTest) -> std::io::Result<RoaringBitmap> {
    match test {
        ValueTest::Words { tokens, .. } => column.documents_matching(|value| contains_phrase(value, tokens)),
        ValueTest::Prefix(prefix) => column.documents_matching(|value| contains_prefix(value, prefix)),
        ValueTest::Strings(ValueRange { from, to }) => column.documents_between(from.as_ref(), to.as_ref()),
        ValueTest::Numbers(_) | ValueTest::Exists => Ok(RoaringBitmap::new()),
    }
}
