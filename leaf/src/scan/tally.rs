//! What a scan counts on its way, for its trailer.

use plan::{
    Column,
    functions::Notices,
    scan::{Misfit, ReadCounts, Trailer},
};

use crate::split::Values;

/// What a scan has counted.
#[derive(Debug, Default)]
pub struct Tally {
    /// Documents for which the filter was decided.
    pub documents: u64,
    /// Those that passed.
    pub matched: u64,
    /// Rows that came back.
    pub shipped: u64,
    /// What was read.
    pub counts: ReadCounts,
    misfits: Vec<(u64, u64)>,
    notices: Notices,
}

impl Tally {
    /// For so many columns, and what conditions have to say.
    pub fn new(columns: usize, notices: Notices) -> Self {
        Self {
            misfits: vec![(0, 0); columns],
            notices,
            ..Self::default()
        }
    }

    /// Notes values of a column that were seen.
    pub fn saw(&mut self, column: usize, values: &Values) {
        let (misfits, present) = &mut self.misfits[column];
        *misfits += values.misfits;
        *present += values.present;
    }

    /// The trailer.
    pub fn trailer(&self, columns: &[Column]) -> Trailer {
        let misfits = columns.iter().zip(&self.misfits).filter(|(_, (_, of))| *of > 0);
        let misfits = misfits
            .map(|(column, (values, of))| Misfit {
                column: column.clone(),
                values: *values,
                of: *of,
            })
            .collect();
        Trailer {
            documents: self.documents,
            matched: self.matched,
            shipped: self.shipped,
            counts: self.counts,
            misfits,
            warnings: self.notices.warnings(),
        }
    }
}
