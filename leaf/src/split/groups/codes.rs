//! Codes: the values of a column as numbers from 0 on, with the last one for NULL.

use std::sync::{Arc, OnceLock};

use datafusion::arrow::{
    array::{Array as _, ArrayRef, BooleanArray, Int64Array},
    buffer::BooleanBuffer,
};
use plan::{PathType, Type, functions::convert::cast_as_json};
use roaring::RoaringBitmap;

use super::{
    super::{
        column_name::ColumnKind,
        columns::{Columns, TextColumn, documents_with_codes},
        part::index_error,
        path_tree::ArrayScope,
        stored_column::{DocumentValues, StoredColumn},
        values::times,
    },
    BLOCK_DOCUMENTS,
};
use crate::error::Error;

/// How many documents have each code of a token count. None if there are more codes than documents.
pub(in crate::split) fn length_counts(tokens: &[u32]) -> Option<Vec<u32>> {
    let most = tokens.iter().copied().max().unwrap_or_default();
    let mut counts = (most as usize <= tokens.len()).then(|| vec![0; most as usize + 1])?;
    (tokens.iter()).for_each(|tokens| counts[length_code(*tokens, most) as usize] += 1);
    Some(counts)
}

/// The code of a token count: that of no tokens is the last one.
fn length_code(tokens: u32, null: u32) -> u32 {
    tokens.wrapping_sub(1).min(null)
}

/// The codes of a column's values, and the type that these become.
pub(in crate::split) struct Codes {
    stored: StoredCodes,
    read_as: PathType,
    /// The dictionary's texts parsed as times; filled on first use.
    times: OnceLock<Arc<Vec<Option<i64>>>>,
}

/// The times of codes.
pub(in crate::split) struct OrderedTimes<'a> {
    /// None if the text of a code is no time.
    pub of_codes: &'a [Option<i64>],
    /// Whether all are times, and ascend like the codes.
    pub ascend: bool,
}

enum StoredCodes {
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
    /// The token count of each document, and how many documents have each code. A code is a token count minus one; no
    /// tokens are NULL.
    Lengths { tokens: Arc<[u32]>, counts: Arc<Vec<u32>> },
}

impl Codes {
    /// The codes of token counts, which are given by document, with [`length_counts`].
    pub(in crate::split) fn of_lengths(tokens: Arc<[u32]>, counts: Arc<Vec<u32>>) -> Self {
        let read_as = PathType {
            to: Type::Int,
            cast: false,
        };
        Self::new(StoredCodes::Lengths { tokens, counts }, read_as)
    }

    fn new(stored: StoredCodes, read_as: PathType) -> Self {
        Self {
            stored,
            read_as,
            times: OnceLock::new(),
        }
    }

    /// Opens the column of the values at a path that most likely become values of a type. None if there are none, or they
    /// have no codes.
    pub(in crate::split) fn open(
        columns: &Columns,
        path: u32,
        scope: &ArrayScope,
        read_as: PathType,
    ) -> Result<Option<Self>, Error> {
        let counts = [
            (ColumnKind::Text, scope.texts),
            (ColumnKind::Int, scope.ints),
            (ColumnKind::Bool, scope.bools),
        ];
        let own = match read_as.to {
            Type::Text | Type::Time => ColumnKind::Text,
            Type::Int | Type::Double => ColumnKind::Int,
            Type::Bool => ColumnKind::Bool,
            // Few documents have the same object.
            Type::Json | Type::Canonical | Type::Rank => return Ok(None),
        };
        let mut present = counts.into_iter().filter(|(_, count)| *count > 0);
        let kind = match present.clone().find(|(kind, _)| *kind == own) {
            None if read_as.cast => present.next(),
            kind => kind,
        };
        let Some((kind, _)) = kind else { return Ok(None) };
        let stored = match kind {
            ColumnKind::Text => StoredCodes::Texts(columns.texts(path, false).map_err(index_error)?),
            ColumnKind::Bool => StoredCodes::Bools(columns.bools(path, false).map_err(index_error)?),
            _ => {
                let column = columns.ints(path, false).map_err(index_error)?;
                let least = column.min_value();
                let Some(distances) = least.abs_diff(column.max_value()).checked_add(1) else {
                    return Ok(None);
                };
                StoredCodes::Ints {
                    column,
                    least,
                    distances,
                }
            }
        };
        Ok(Some(Self::new(stored, read_as)))
    }

    /// The kind of the values that have codes.
    pub(in crate::split) fn kind(&self) -> ColumnKind {
        match self.stored {
            StoredCodes::Texts(_) => ColumnKind::Text,
            StoredCodes::Ints { .. } | StoredCodes::Lengths { .. } => ColumnKind::Int,
            StoredCodes::Bools(_) => ColumnKind::Bool,
        }
    }

    /// Whether a value of another kind is NULL.
    pub(in crate::split) fn has_all_values(&self) -> bool {
        !self.read_as.cast && self.read_as.to != Type::Double
    }

    /// The code of NULL: the number of the others.
    pub(in crate::split) fn null(&self) -> u64 {
        match &self.stored {
            StoredCodes::Texts(column) => column.distinct() as u64,
            StoredCodes::Ints { distances, .. } => *distances,
            StoredCodes::Bools(_) => 2,
            StoredCodes::Lengths { counts, .. } => counts.len().saturating_sub(1) as u64,
        }
    }

    /// The number of codes.
    pub(in crate::split) fn count(&self) -> u64 {
        self.null().saturating_add(1)
    }

    /// The codes of these documents (ascending).
    pub(in crate::split) fn of(&self, documents: &[u32]) -> Vec<u64> {
        let (mut codes, present) = match &self.stored {
            StoredCodes::Lengths { tokens, .. } => {
                let null = self.null() as u32;
                let code = |document: &u32| u64::from(length_code(tokens[*document as usize], null));
                return documents.iter().map(code).collect();
            }
            StoredCodes::Texts(column) => {
                let DocumentValues { values, present } = column.ordinals.values_of(documents);
                (values, present)
            }
            StoredCodes::Ints { column, least, .. } => {
                let DocumentValues { values, present } = column.values_of(documents);
                (values.into_iter().map(|int| int.abs_diff(*least)).collect(), present)
            }
            StoredCodes::Bools(column) => {
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

    /// How many documents of the part, which are given, have each code. None if this is counted anew each time.
    pub(in crate::split) fn counts(&self, all: &[u32]) -> Option<Arc<Vec<u32>>> {
        match &self.stored {
            StoredCodes::Texts(column) => Some(column.counts.get().unwrap_or_else(|| {
                let mut counts = vec![0; self.count() as usize];
                for block in all.chunks(BLOCK_DOCUMENTS) {
                    self.of(block).into_iter().for_each(|code| counts[code as usize] += 1);
                }
                let (bytes, counts) = (size_of_val(counts.as_slice()), Arc::new(counts));
                column.counts.put(Arc::clone(&counts), bytes);
                counts
            })),
            StoredCodes::Lengths { counts, .. } => Some(Arc::clone(counts)),
            StoredCodes::Ints { .. } | StoredCodes::Bools(_) => None,
        }
    }

    /// The documents whose value has one of these codes: there is a bit for each but that of NULL.
    pub(in crate::split) fn documents(&self, codes: &BooleanBuffer) -> RoaringBitmap {
        match &self.stored {
            StoredCodes::Texts(column) => column.documents(codes),
            StoredCodes::Ints { column, least, .. } => documents_with_codes(column, codes, |int| int.abs_diff(*least)),
            StoredCodes::Bools(column) => documents_with_codes(column, codes, u64::from),
            StoredCodes::Lengths { tokens, .. } => (0..)
                .zip(tokens.iter())
                .filter(|(_, count)| **count > 0 && codes.value(**count as usize - 1))
                .map(|(document, _)| document)
                .collect(),
        }
    }

    /// Whether these are codes of texts that become times.
    pub(in crate::split) fn are_times(&self) -> bool {
        matches!(self.stored, StoredCodes::Texts(_)) && self.read_as.to == Type::Time
    }

    /// The time of each code, if [they are times](Self::are_times).
    fn known_times(&self) -> Result<Option<&Arc<Vec<Option<i64>>>>, Error> {
        let (StoredCodes::Texts(column), true) = (&self.stored, self.are_times()) else {
            return Ok(None);
        };
        let known = match self.times.get() {
            Some(known) => Arc::clone(known),
            None => column.times().map_err(index_error)?,
        };
        Ok(Some(self.times.get_or_init(|| known)))
    }

    /// The time of each code, if [they are times](Self::are_times).
    pub(in crate::split) fn ordered_times(&self) -> Result<Option<OrderedTimes<'_>>, Error> {
        let (StoredCodes::Texts(column), Some(times)) = (&self.stored, self.known_times()?) else {
            return Ok(None);
        };
        Ok(Some(OrderedTimes {
            of_codes: times,
            ascend: column.times_ascend().map_err(index_error)?,
        }))
    }

    /// The values of these codes. One that cannot be converted is NULL.
    pub(in crate::split) fn values(&self, codes: &[Option<u64>]) -> Result<ArrayRef, Error> {
        let codes_of = || codes.iter().copied();
        let stored: ArrayRef = match &self.stored {
            StoredCodes::Texts(_) if let Some(known) = self.known_times()? => {
                let time = |code: u64| known.get(code as usize).copied().flatten();
                times(codes_of().map(|code| code.and_then(time)).collect())
            }
            StoredCodes::Texts(column) => column.values(codes)?,
            StoredCodes::Ints { least, .. } => {
                let int = |distance: u64| least.wrapping_add_unsigned(distance);
                Arc::new(codes_of().map(|code| code.map(int)).collect::<Int64Array>())
            }
            StoredCodes::Lengths { .. } => {
                let length = |code: u64| code as i64 + 1;
                Arc::new(codes_of().map(|code| code.map(length)).collect::<Int64Array>())
            }
            StoredCodes::Bools(_) => Arc::new(
                codes_of()
                    .map(|code| code.map(|code| code > 0))
                    .collect::<BooleanArray>(),
            ),
        };
        Ok(match *stored.data_type() == self.read_as.to.arrow() {
            true => stored,
            false => cast_as_json(&stored, self.read_as.to)?.finish(),
        })
    }
}
