//! The query that a function works for. A session carries it in its settings, so that a function finds it wherever it
//! runs; without a query, a function is bounded by itself alone.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Weak},
};

use datafusion::{
    arrow::array::{Array, ArrayRef},
    common::{
        DataFusionError, Result, config::ConfigEntry, config::ConfigExtension, config::ExtensionOptions, config_err,
    },
    config::ConfigOptions,
};
use parking_lot::Mutex;
use proto::Problem;

use super::notices::Notices;

/// The limit for function results that are still in use, where the query sets none.
const COMPUTED_BYTES_MAX: u64 = 256 << 20;
/// Smaller results are not worth counting: an expression has at most some thousand of them.
const COUNTED_BYTES_MIN: u64 = 64 << 10;

/// Why a query must end now, if it must.
type Interrupt = dyn Fn() -> Option<Problem> + Send + Sync;

/// A function's result, as long as somebody has it, and its bytes.
type Computed = (Weak<dyn Array>, u64);

/// The per-query state that functions share: counts of values without an answer, the interrupt, and the memory in use.
/// Clones share it.
#[derive(Clone)]
pub struct Query {
    /// Values that had no answer.
    pub notices: Notices,
    interrupt: Option<Arc<Interrupt>>,
    computed_bytes_max: u64,
    computed: Arc<Mutex<Vec<Computed>>>,
}

impl Default for Query {
    fn default() -> Self {
        Self {
            notices: Notices::default(),
            interrupt: None,
            computed_bytes_max: COMPUTED_BYTES_MAX,
            computed: Arc::default(),
        }
    }
}

impl Query {
    /// A query that ends when `interrupt` says why: functions ask it between the parts of a long work.
    pub fn new(notices: Notices, interrupt: impl Fn() -> Option<Problem> + Send + Sync + 'static) -> Self {
        Self {
            notices,
            interrupt: Some(Arc::new(interrupt)),
            ..Self::default()
        }
    }

    /// The same, whose functions may have made so many bytes that somebody still has: whatever holds them for long
    /// counts them itself.
    pub fn with_memory(self, computed_bytes_max: usize) -> Self {
        Self {
            computed_bytes_max: computed_bytes_max as u64,
            ..self
        }
    }

    /// That of a session, if it has any.
    pub fn of(options: &ConfigOptions) -> Option<&Self> {
        options.extensions.get::<Self>()
    }

    /// An error where the query must end.
    pub fn check(&self) -> Result<()> {
        match self.interrupt.as_ref().and_then(|interrupt| interrupt()) {
            Some(problem) => Err(DataFusionError::External(Box::new(problem))),
            None => Ok(()),
        }
    }

    /// Bytes that functions may still make while everything made before is in use.
    pub(super) fn room(&self) -> u64 {
        let mut computed = self.computed.lock();
        computed.retain(|(array, _)| array.strong_count() > 0);
        self.computed_bytes_max
            .saturating_sub(computed.iter().map(|(_, bytes)| bytes).sum())
    }

    /// Counts a function's result for as long as somebody has it.
    pub(super) fn hold(&self, array: &ArrayRef, bytes: u64) {
        if bytes >= COUNTED_BYTES_MIN {
            self.computed.lock().push((Arc::downgrade(array), bytes));
        }
    }
}

impl fmt::Debug for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Query")
            .field("notices", &self.notices)
            .finish_non_exhaustive()
    }
}

impl ConfigExtension for Query {
    const PREFIX: &'static str = "rachis_query";
}

impl ExtensionOptions for Query {
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
