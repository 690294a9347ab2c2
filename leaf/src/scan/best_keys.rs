//! Best keys: the first sort key that the documents of a unit can have at best. A top-k scans the units with the best
//! keys first, and leaves out those that cannot have one of its rows. So the newest 20 of all documents are usually
//! found in the newest part.

use datafusion::arrow::row::{OwnedRow, RowConverter};
use parking_lot::Mutex;
use plan::scan::{ScanRequest, ScanSource, SortKey, Stage};

use super::{prepared::Conjunct, task::Unit};
use crate::{error::Error, split::ColumnBounds};

/// The best first keys of the units of a top-k, and what they must be better than.
pub(super) struct BestKeys {
    /// By unit, encoded to be compared as bytes; None if it is not known.
    units: Vec<Option<OwnedRow>>,
    /// All keys of the last row that some worker would return; once it has as many rows as the scan returns.
    worst: Mutex<Option<OwnedRow>>,
}

impl BestKeys {
    /// Sorts units by their best keys. None, and the units as they were, if the scan must look at every document: if
    /// it reads raw documents, or its filter counts values. `bounds` returns those of the first key, or None if some key
    /// has values that do not convert, which are counted.
    ///
    /// # Errors
    /// If an index cannot be read, or the scan must stop.
    pub(super) fn sort_units(
        request: &ScanRequest,
        conjuncts: &[Conjunct],
        units: Vec<Unit>,
        bounds: impl Fn(&[SortKey], &Unit) -> Result<Option<ColumnBounds>, Error>,
    ) -> Result<(Option<Self>, Vec<Unit>), Error> {
        let Stage::Top { keys, limit: 1.., .. } = &request.stage else {
            return Ok((None, units));
        };
        let (Some(key), ScanSource::Auto) = (keys.first(), request.read) else {
            return Ok((None, units));
        };
        if units.len() < 2 || conjuncts.iter().any(|conjunct| conjunct.condition.warns) {
            return Ok((None, units));
        }
        let encoder = RowConverter::new(vec![key.sort_field()])?;
        let encode = |bounds: ColumnBounds| -> Result<OwnedRow, Error> {
            let value = match bounds.range {
                Some(_) if bounds.has_nulls && key.nulls_first => None,
                Some((least, greatest)) => Some(if key.descending { greatest } else { least }),
                None => None,
            };
            let data_type = key.column.read_as.to.arrow();
            let value = match value {
                Some(value) => value.cast_to(&data_type)?.to_array_of_size(1)?,
                None => datafusion::arrow::array::new_null_array(&data_type, 1),
            };
            Ok(encoder.convert_columns(&[value])?.row(0).owned())
        };
        let with_best = |unit: Unit| Ok((bounds(keys, &unit)?.map(encode).transpose()?, unit));
        let mut sorted = units.into_iter().map(with_best).collect::<Result<Vec<_>, Error>>()?;
        if sorted.iter().all(|(best, _)| best.is_none()) {
            return Ok((None, sorted.into_iter().map(|(_, unit)| unit).collect()));
        }
        // Units whose best key is not known come first: they have to be scanned in any case.
        sorted.sort_by(|(one, _), (other, _)| one.cmp(other));
        let (best, units) = sorted.into_iter().unzip();
        let worst = Mutex::default();
        Ok((Some(Self { units: best, worst }), units))
    }

    /// Notes that a worker has as many rows as the scan returns, and the keys of the last one.
    pub(super) fn has_enough(&self, last: &OwnedRow) {
        let mut worst = self.worst.lock();
        if worst.as_ref().is_none_or(|worst| last < worst) {
            *worst = Some(last.clone());
        }
    }

    /// Whether a unit may have one of the rows.
    ///
    /// The encoding of a row is that of its keys, one after another, and is compared byte by byte. So every row of the
    /// unit follows a row that begins with less than the best key.
    pub(super) fn may_have_rows(&self, unit: usize) -> bool {
        let worst = self.worst.lock();
        match (&self.units[unit], worst.as_ref()) {
            (Some(best), Some(worst)) => {
                let (best, worst): (&[u8], &[u8]) = (best.as_ref(), worst.as_ref());
                best <= &worst[..best.len().min(worst.len())]
            }
            _ => true,
        }
    }
}
