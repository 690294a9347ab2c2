//! Notices: what expressions of one query have to say about values that had no answer.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

/// Kinds of notices that one query keeps.
const NOTICES_MAX: usize = 50;

/// Counts of values without an answer, by what was asked of them.
#[derive(Debug, Clone, Default)]
pub struct Notices(Arc<Mutex<BTreeMap<String, (u64, u64)>>>);

impl Notices {
    /// Counts values that had no answer (they are NULL), of so many that there were.
    pub fn count(&self, what: &str, unanswered: u64, of: u64) {
        let mut counts = self.0.lock();
        if let Some((sum, all)) = counts.get_mut(what) {
            *sum += unanswered;
            *all += of;
        } else if counts.len() < NOTICES_MAX {
            counts.insert(what.to_owned(), (unanswered, of));
        }
    }

    /// What was counted: `sqrt: 1 of 4 values had no answer`.
    pub fn warnings(&self) -> Vec<String> {
        let counts = self.0.lock();
        let unanswered = counts.iter().filter(|(_, (values, _))| *values > 0);
        unanswered
            .map(|(what, (values, of))| format!("{what}: {values} of {of} values had no answer and are NULL"))
            .collect()
    }
}
