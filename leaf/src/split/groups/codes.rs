//! Codes: the values of a column as numbers from 0 on, with the last one for NULL.

use std::sync::Arc;

use datafusion::arrow::array::{ArrayRef, BooleanArray, Int64Array};
use plan::Type;

use super::super::{
    columns::{Columns, TextColumn},
    part::index_error,
    path_tree::ArrayScope,
    stored_column::{DocumentValues, StoredColumn},
};
use crate::error::Error;

/// The codes of a column's values.
pub(super) enum Codes {
    /// Ordinals of the dictionary.
    Texts(Arc<TextColumn>),
    /// Distances from the least value; and the number of those that are possible.
    Ints {
        column: StoredColumn<i64>,
        least: i64,
        distances: u64,
    },
    /// 0 and 1.
    Bools(StoredColumn<bool>),
}

impl Codes {
    /// Opens the column of the values of a type at a path. None if there are none, or they have no codes.
    pub(super) fn open(columns: &Columns, path: u32, scope: &ArrayScope, to: Type) -> Result<Option<Self>, Error> {
        Ok(match to {
            Type::Text if scope.texts > 0 => Some(Self::Texts(columns.texts(path, false).map_err(index_error)?)),
            Type::Int if scope.ints > 0 => {
                let column = columns.ints(path, false).map_err(index_error)?;
                let least = column.min_value();
                let distances = least.abs_diff(column.max_value()).checked_add(1);
                distances.map(|distances| Self::Ints {
                    column,
                    least,
                    distances,
                })
            }
            Type::Bool if scope.bools > 0 => Some(Self::Bools(columns.bools(path, false).map_err(index_error)?)),
            _ => None,
        })
    }

    /// The code of NULL: the number of the others.
    pub(super) fn null(&self) -> u64 {
        match self {
            Self::Texts(column) => column.distinct() as u64,
            Self::Ints { distances, .. } => *distances,
            Self::Bools(_) => 2,
        }
    }

    /// The number of codes.
    pub(super) fn count(&self) -> u64 {
        self.null().saturating_add(1)
    }

    /// The codes of these documents (ascending).
    pub(super) fn of(&self, documents: &[u32]) -> Vec<u64> {
        let (mut codes, present) = match self {
            Self::Texts(column) => {
                let DocumentValues { values, present } = column.ordinals.values_of(documents);
                (values, present)
            }
            Self::Ints { column, least, .. } => {
                let DocumentValues { values, present } = column.values_of(documents);
                (values.into_iter().map(|int| int.abs_diff(*least)).collect(), present)
            }
            Self::Bools(column) => {
                let DocumentValues { values, present } = column.values_of(documents);
                (values.into_iter().map(u64::from).collect(), present)
            }
        };
        if let Some(present) = present {
            let (missing, null) = (!present.inner(), self.null());
            missing.set_indices().for_each(|document| codes[document] = null);
        }
        codes
    }

    /// The values of these codes.
    pub(super) fn values(&self, codes: &[Option<u64>]) -> Result<ArrayRef, Error> {
        let codes_of = || codes.iter().copied();
        Ok(match self {
            Self::Texts(column) => column.values(codes)?,
            Self::Ints { least, .. } => {
                let int = |distance: u64| least.wrapping_add_unsigned(distance);
                Arc::new(codes_of().map(|code| code.map(int)).collect::<Int64Array>())
            }
            Self::Bools(_) => Arc::new(
                codes_of()
                    .map(|code| code.map(|code| code > 0))
                    .collect::<BooleanArray>(),
            ),
        })
    }
}
