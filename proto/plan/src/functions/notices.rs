//! Notices: what expressions of one query have to say about values that had no answer. A session carries them in its settings, so that a
//! function finds them wherever it runs; no session, no notices.

use std::{any::Any, collections::BTreeMap, sync::Arc};

use datafusion::{
    common::{Result, config::ConfigEntry, config::ConfigExtension, config::ExtensionOptions, config_err},
    config::ConfigOptions,
};
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
        unanswered.map(|(what, (values, of))| format!("{what}: {values} of {of} values had no answer and are NULL")).collect()
    }

    /// Those of a session, if it has any.
    pub fn of(options: &ConfigOptions) -> Option<&Self> {
        options.extensions.get::<Self>()
    }
}

impl ConfigExtension for Notices {
    const PREFIX: &'static str = "rachis_notices";
}

impl ExtensionOptions for Notices {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }

    fn cloned(&self) -> Box<dyn ExtensionOptions> {
        Box::new(self.clone())
    }

    fn set(&mut self, key: &str, _: &str) -> Result<()> {
        config_err!("{key} cannot be set")
    }

    fn entries(&self) -> Vec<ConfigEntry> {
        Vec::new()
    }
}
