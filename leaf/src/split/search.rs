//! Search: the documents of a part in which a clause matches some value, inside arrays too. Text-like paths are asked
//! by their postings, all others by their dictionaries; numbers and booleans by their columns.

use std::{cmp::Ordering, sync::Arc};

use plan::{
    clause::Number,
    search::{Clause, Limit, Match},
    token::{holds, holds_prefix, lower, tokens},
};
use roaring::RoaringBitmap;

use super::{
    columns::{TextColumn, documents_where},
    lookup::Found,
    part::{CLAUSES_KEPT_MAX, Part, index_error},
    shape::ROOT,
    token,
};
use crate::error::Error;

/// What a clause asks of a value.
enum Asks {
    Words {
        tokens: Vec<String>,
        number: Option<Number>,
        boolean: Option<bool>,
    },
    Prefix(String),
    Numbers(Bounds<Number>),
    Strings(Bounds<String>),
    Exists,
}

/// Two bounds; each says whether it is in itself.
struct Bounds<T> {
    from: Option<(T, bool)>,
    to: Option<(T, bool)>,
}

impl Asks {
    fn of(matches: &Match) -> Self {
        match matches {
            Match::Exists | Match::Range { from: None, to: None } => Self::Exists,
            Match::Prefix(prefix) => Self::Prefix(lower(prefix).into_owned()),
            Match::Words(text) => Self::Words {
                tokens: tokens(text).map(|token| token.into_owned()).collect(),
                number: Number::of_text(text.trim()),
                boolean: text.trim().parse().ok(),
            },
            Match::Range { from, to } => {
                let number = |limit: &Option<Limit>| match limit {
                    None => Some(None),
                    Some(limit) => Number::of_text(limit.value.trim()).map(|number| Some((number, limit.inclusive))),
                };
                let text = |limit: &Option<Limit>| limit.as_ref().map(|limit| (limit.value.clone(), limit.inclusive));
                match (number(from), number(to)) {
                    (Some(from), Some(to)) => Self::Numbers(Bounds { from, to }),
                    _ => Self::Strings(Bounds {
                        from: text(from),
                        to: text(to),
                    }),
                }
            }
        }
    }

    /// Whether strings can match.
    fn reads_text(&self) -> bool {
        matches!(self, Self::Words { .. } | Self::Prefix(_) | Self::Strings(_))
    }

    /// Whether a number matches.
    fn number_matches(&self, value: Number) -> bool {
        match self {
            Self::Words { number, .. } => number.is_some_and(|asked| asked.compare(value) == Ordering::Equal),
            Self::Numbers(Bounds { from, to }) => {
                let above = from.is_none_or(|(bound, inclusive)| beyond(value.compare(bound), inclusive));
                above && to.is_none_or(|(bound, inclusive)| beyond(bound.compare(value), inclusive))
            }
            _ => false,
        }
    }

    fn reads_numbers(&self) -> bool {
        matches!(self, Self::Numbers(_) | Self::Words { number: Some(_), .. })
    }
}

fn beyond(order: Ordering, inclusive: bool) -> bool {
    order == Ordering::Greater || (inclusive && order == Ordering::Equal)
}

impl Part {
    /// Where a clause matches, or None where this part cannot say. Remembered for the next block of the same scan.
    pub fn search(&self, clause: &Clause) -> Result<Option<Arc<Found>>, Error> {
        if let Some((_, known)) = self.clauses.lock().iter().find(|(known, _)| known == clause) {
            return Ok(known.clone());
        }
        let found = self.search_anew(clause)?.map(Arc::new);
        let mut clauses = self.clauses.lock();
        if clauses.len() >= CLAUSES_KEPT_MAX {
            clauses.remove(0);
        }
        clauses.push((clause.clone(), found.clone()));
        Ok(found)
    }

    fn search_anew(&self, clause: &Clause) -> Result<Option<Found>, Error> {
        let asks = Asks::of(&clause.matches);
        match (&clause.path, &asks) {
            (None, Asks::Exists) if self.node(ROOT).column => Ok(Some(Found {
                sure: self.present(ROOT, false)?,
                doubtful: self.shape.failed.clone(),
            })),
            (None, Asks::Exists) => Ok(None),
            (None, _) => self.search_all(&asks).map(Some),
            (Some(path), _) => {
                let Some(keys) = path.keys() else { return Ok(None) };
                match self.shape.find(keys) {
                    None => Ok(Some(Found::default().doubting(&self.shape.unknown()))),
                    Some(id) if !self.node(id).column => Ok(None),
                    Some(id) => {
                        let mut found = Found::default();
                        self.search_path(id, &asks, &mut found)?;
                        let doubtful = std::mem::take(&mut found.doubtful) | &self.shape.failed;
                        Ok(Some(found.doubting(&doubtful)))
                    }
                }
            }
        }
    }

    fn search_all(&self, asks: &Asks) -> Result<Found, Error> {
        let mut found = Found::default();
        for id in 0..self.shape.nodes.len() as u32 {
            if self.node(id).column {
                self.search_path(id, asks, &mut found)?;
            }
        }
        let doubtful = std::mem::take(&mut found.doubtful) | self.shape.unknown() | &self.shape.unindexed;
        // What was found at one path need not be doubted for another.
        let doubtful = doubtful - &found.sure;
        Ok(found.doubting(&doubtful))
    }

    /// Adds what a path with columns has.
    fn search_path(&self, id: u32, asks: &Asks, found: &mut Found) -> Result<(), Error> {
        if matches!(asks, Asks::Exists) {
            found.sure |= self.present(id, false)? | self.present(id, true)?;
            return Ok(());
        }
        if asks.reads_text() {
            self.search_texts(id, asks, found)?;
        }
        for inside in [false, true] {
            let side = self.counted(id, inside);
            if side.ints > 0 && asks.reads_numbers() {
                let column = self.columns.ints(id, inside).map_err(index_error)?;
                found.sure |= documents_where(&column, |int| asks.number_matches(Number::Int(int)));
            }
            if side.floats > 0 && asks.reads_numbers() {
                let column = self.columns.floats(id, inside).map_err(index_error)?;
                found.sure |= documents_where(&column, |float| asks.number_matches(Number::Double(float)));
            }
            if let (
                true,
                Asks::Words {
                    boolean: Some(boolean), ..
                },
            ) = (side.bools > 0, asks)
            {
                let column = self.columns.bools(id, inside).map_err(index_error)?;
                found.sure |= documents_where(&column, |value| value == *boolean);
            }
        }
        Ok(())
    }

    fn search_texts(&self, id: u32, asks: &Asks, found: &mut Found) -> Result<(), Error> {
        match (asks, self.text.as_ref().filter(|_| self.node(id).postings)) {
            (Asks::Words { tokens, .. }, _) if tokens.is_empty() => return Ok(()),
            (Asks::Words { tokens, .. }, Some(index)) => {
                found.doubtful |= &self.shape.giant;
                if tokens.iter().all(|token| token.len() <= token::TOKEN_BYTES_MAX) {
                    index.phrase(id, tokens, &mut found.sure)?;
                }
                return Ok(());
            }
            (Asks::Prefix(prefix), Some(index)) => {
                found.doubtful |= &self.shape.giant;
                return Ok(index.prefix(id, prefix, &mut found.sure)?);
            }
            _ => {}
        }
        for inside in [false, true] {
            let side = self.counted(id, inside);
            found.doubtful |= &side.longs;
            if side.texts > 0 {
                let column = self.columns.texts(id, inside).map_err(index_error)?;
                found.sure |= search_dictionary(&column, asks).map_err(index_error)?;
            }
        }
        Ok(())
    }
}

fn search_dictionary(column: &TextColumn, asks: &Asks) -> std::io::Result<RoaringBitmap> {
    match asks {
        Asks::Words { tokens, .. } => column.documents_matching(|value| holds(value, tokens)),
        Asks::Prefix(prefix) => column.documents_matching(|value| holds_prefix(value, prefix)),
        Asks::Strings(Bounds { from, to }) => {
            // An exclusive lower bound and an inclusive upper one lie after their value.
            let place = |(value, inclusive): &(String, bool), after: bool| -> std::io::Result<u64> {
                Ok(column.lower_bound(value)? + u64::from(*inclusive == after && column.ordinal(value)?.is_some()))
            };
            let start = from.as_ref().map_or(Ok(0), |bound| place(bound, false))?;
            let end = to
                .as_ref()
                .map_or(Ok(column.distinct() as u64), |bound| place(bound, true))?;
            Ok(column.documents_in(start..end))
        }
        Asks::Numbers(_) | Asks::Exists => Ok(RoaringBitmap::new()),
    }
}
