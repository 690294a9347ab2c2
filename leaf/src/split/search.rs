//! Search: the documents of a part in which a clause matches some value, including values inside of arrays.
//!
//! Postings answer for paths with running text, dictionaries for all other strings, and columns for numbers and
//! booleans.

use std::sync::Arc;

use plan::{
    matcher::{Number, Range, TokenTest, ValueTest},
    search::Clause,
};
use roaring::RoaringBitmap;

use super::{
    columns::documents_where,
    part::{Part, index_error},
    text::TextIndex,
    token,
};
use crate::{error::Error, key_tree::ROOT, matches::Matches};

impl Part {
    /// The documents that match a clause, or None if this part knows nothing about it. They are kept: a search has several
    /// statements, which may read block by block, and is often asked again.
    pub(super) fn search(&self, clause: &Clause) -> Result<Arc<Option<Matches>>, Error> {
        self.clauses.slot(clause).get_or_compute(|| {
            let found = self.find(clause)?;
            Ok(found.map(|found| {
                let bytes = found.certain.serialized_size() + found.candidates.serialized_size();
                (found, bytes)
            }))
        })
    }

    fn find(&self, clause: &Clause) -> Result<Option<Matches>, Error> {
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
        if test.may_pass_texts() {
            self.search_texts(id, test, found)?;
        }
        for inside in [false, true] {
            let scope = self.scope(id, inside);
            if scope.ints > 0 && test.may_pass_numbers() {
                let column = self.columns.ints(id, inside).map_err(index_error)?;
                found.certain |= documents_where(&column, |int| test.number(Number::Int(int)));
            }
            if scope.floats > 0 && test.may_pass_numbers() {
                let column = self.columns.floats(id, inside).map_err(index_error)?;
                found.certain |= documents_where(&column, |float| test.number(Number::Double(float)));
            }
            if scope.bools > 0 && (test.boolean(false) || test.boolean(true)) {
                let column = self.columns.bools(id, inside).map_err(index_error)?;
                found.certain |= documents_where(&column, |value| test.boolean(value));
            }
        }
        Ok(())
    }

    fn search_texts(&self, id: u32, test: &ValueTest, found: &mut Matches) -> Result<(), Error> {
        if let Some(index) = self.text.as_ref().filter(|_| self.node(id).postings) {
            let is_decided = match test {
                ValueTest::Words { tokens, .. } => {
                    if tokens.iter().all(|token| token.len() <= token::TOKEN_BYTES_MAX) {
                        index.phrase(id, tokens, &mut found.certain)?;
                    }
                    true
                }
                ValueTest::Near(phrase) => {
                    // The places of tokens in several strings of a document follow each other.
                    let inside = self.scope(id, true);
                    let near = match inside.texts == 0 && inside.long_texts.is_empty() {
                        true => &mut found.certain,
                        false => &mut found.candidates,
                    };
                    if phrase.tokens.iter().all(|token| token.len() <= token::TOKEN_BYTES_MAX) {
                        index.near(id, phrase, near)?;
                    }
                    true
                }
                ValueTest::Token(test) => {
                    self.search_tokens(index, id, test, &mut found.certain)?;
                    true
                }
                // Its tokens are found by it, whole texts below.
                ValueTest::TokenOrText(pattern) => {
                    let test = TokenTest::Pattern {
                        prefix: String::new(),
                        pattern: pattern.clone(),
                    };
                    self.search_tokens(index, id, &test, &mut found.certain)?;
                    false
                }
                _ => false,
            };
            if is_decided {
                found.candidates |= &self.paths.oversized_tokens;
                return Ok(());
            }
        }
        if matches!(test, ValueTest::Words { tokens, .. } if tokens.is_empty()) {
            return Ok(());
        }
        for inside in [false, true] {
            let scope = self.scope(id, inside);
            found.candidates |= &scope.long_texts;
            if scope.texts > 0 {
                let column = self.columns.texts(id, inside).map_err(index_error)?;
                found.certain |= match test {
                    ValueTest::Texts(Range { from, to }) => column.documents_between(from.as_ref(), to.as_ref()),
                    ValueTest::Times(_) => column.documents_at(|time| test.time(time)),
                    test => column.documents_matching(|text| test.text(text)),
                }
                .map_err(index_error)?;
            }
        }
        Ok(())
    }

    fn search_tokens(
        &self,
        index: &TextIndex,
        id: u32,
        test: &TokenTest,
        found: &mut RoaringBitmap,
    ) -> Result<(), Error> {
        let passes = |token: &[u8]| std::str::from_utf8(token).is_ok_and(|token| test.token(token));
        Ok(index.tokens(id, test.prefix(), passes, found)?)
    }
}
