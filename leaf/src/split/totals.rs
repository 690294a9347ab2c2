//! Totals: how many documents have a value in a column, and the sum of these values, where the index knows both without
//! reading them one by one.

use plan::{Column, ColumnSource};
use roaring::RoaringBitmap;

use super::part::Part;
use crate::error::Error;

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

impl Part {
    /// The totals of these columns in these documents. None if the part knows nothing about one of them.
    pub(super) fn totals(
        &self,
        columns: &[&Column],
        mut documents: RoaringBitmap,
    ) -> Result<Option<PartTotals>, Error> {
        let mut unknown = RoaringBitmap::new();
        for column in columns {
            match self.unknown_totals(column)? {
                Some(of_column) => unknown |= of_column,
                None => return Ok(None),
            }
        }
        unknown &= &documents;
        documents -= &unknown;
        let known = columns.iter().map(|column| self.column_total(column, &documents));
        let Some(columns) = known.collect::<Result<Option<Vec<_>>, _>>()? else {
            return Ok(None);
        };
        Ok(Some(PartTotals {
            documents: documents.len(),
            columns,
            unknown,
        }))
    }

    /// The documents whose value of a column is not known. None if that is so of all.
    fn unknown_totals(&self, column: &Column) -> Result<Option<RoaringBitmap>, Error> {
        Ok(match &column.source {
            ColumnSource::Search(clause) => {
                let matches = self.search(clause)?;
                matches.as_ref().as_ref().map(|matches| matches.candidates.clone())
            }
            ColumnSource::Tokens(path) => {
                let lengths = self.lengths(path.as_ref())?;
                lengths.as_ref().as_ref().map(|lengths| lengths.unknown.clone())
            }
            _ => None,
        })
    }

    /// The total of a column in documents whose values are known.
    fn column_total(&self, column: &Column, known: &RoaringBitmap) -> Result<Option<ColumnTotal>, Error> {
        Ok(match &column.source {
            ColumnSource::Search(clause) => {
                let matches = self.search(clause)?;
                matches.as_ref().as_ref().map(|matches| ColumnTotal {
                    present: known.len(),
                    sum: matches.certain.intersection_len(known),
                })
            }
            ColumnSource::Tokens(path) => {
                let lengths = self.lengths(path.as_ref())?;
                lengths.as_ref().as_ref().map(|lengths| lengths.total(known))
            }
            _ => None,
        })
    }
}
