//! Totals: how many documents have a value in a column, and the sum of these values, where the index knows both without
//! reading them one by one.

use std::sync::Arc;

use plan::{Column, ColumnSource};
use roaring::RoaringBitmap;

use super::{part::Part, score::Lengths};
use crate::{error::Error, matches::Matches};

/// What columns have in some documents.
pub(crate) struct Totals {
    /// How many documents these are.
    pub documents: u64,
    /// Of each column.
    pub columns: Vec<ColumnTotal>,
    /// The requested documents that are not among them: of these, the index does not know some column.
    pub unknown: Vec<u32>,
}

/// What one column has in some documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ColumnTotal {
    /// Documents with a value.
    pub present: u64,
    /// The sum of the values. True is 1.
    pub sum: u64,
}

impl Totals {
    pub(super) fn of_none(columns: usize) -> Self {
        Self {
            documents: 0,
            columns: vec![ColumnTotal::default(); columns],
            unknown: Vec::new(),
        }
    }

    /// Adds those of a part, whose first document has this number.
    pub(super) fn add(&mut self, first: u32, of_part: PartTotals) {
        self.documents += of_part.documents;
        for (sum, of_part) in self.columns.iter_mut().zip(of_part.columns) {
            sum.present += of_part.present;
            sum.sum += of_part.sum;
        }
        self.unknown
            .extend(of_part.unknown.into_iter().map(|document| first + document));
    }
}

/// What columns have in documents of a part, which numbers them.
pub(super) struct PartTotals {
    documents: u64,
    columns: Vec<ColumnTotal>,
    unknown: RoaringBitmap,
}

/// What the index knows of a column of a part.
enum IndexedColumn {
    Search(Arc<Option<Matches>>),
    Tokens(Arc<Option<Lengths>>),
}

impl Part {
    /// The totals of these columns in these documents. None if the part knows nothing about one of them.
    pub(super) fn totals(
        &self,
        columns: &[&Column],
        mut documents: RoaringBitmap,
    ) -> Result<Option<PartTotals>, Error> {
        // Each column is asked for once: there may be more of them than the part remembers.
        let indexed = columns.iter().map(|column| self.indexed_column(column));
        let Some(indexed) = indexed.collect::<Result<Option<Vec<_>>, _>>()? else {
            return Ok(None);
        };
        let mut unknown = RoaringBitmap::new();
        for column in &indexed {
            match column.unknown() {
                Some(of_column) => unknown |= of_column,
                None => return Ok(None),
            }
        }
        unknown &= &documents;
        documents -= &unknown;
        Ok(Some(PartTotals {
            documents: documents.len(),
            columns: indexed.iter().map(|column| column.total(&documents)).collect(),
            unknown,
        }))
    }

    fn indexed_column(&self, column: &Column) -> Result<Option<IndexedColumn>, Error> {
        Ok(match &column.source {
            ColumnSource::Search(clause) => Some(IndexedColumn::Search(self.search(clause)?)),
            ColumnSource::Tokens(path) => Some(IndexedColumn::Tokens(self.lengths(path.as_ref())?)),
            _ => None,
        })
    }
}

impl IndexedColumn {
    /// The documents whose value is not known. None if that is so of all.
    fn unknown(&self) -> Option<&RoaringBitmap> {
        match self {
            Self::Search(matches) => (**matches).as_ref().map(|matches| &matches.candidates),
            Self::Tokens(lengths) => (**lengths).as_ref().map(|lengths| &lengths.unknown),
        }
    }

    /// The total in documents whose values are known.
    fn total(&self, known: &RoaringBitmap) -> ColumnTotal {
        let total = match self {
            Self::Search(matches) => (**matches).as_ref().map(|matches| ColumnTotal {
                present: known.len(),
                sum: matches.certain.intersection_len(known),
            }),
            Self::Tokens(lengths) => (**lengths).as_ref().map(|lengths| lengths.total(known)),
        };
        total.unwrap_or_default()
    }
}
