//! The state that the functions of one query share. A session carries it in its settings, so that a function finds it
//! wherever it runs. Without it, each call is bounded only by its own limits.

use std::{
    any::Any,
    fmt,
    sync::{Arc, Weak},
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef},
        datatypes::Schema,
    },
    common::{
        DataFusionError, Result, config::ConfigEntry, config::ConfigExtension, config::ExtensionOptions, config_err,
        tree_node::Transformed,
    },
    config::ConfigOptions,
    physical_expr::{PhysicalExpr, ScalarFunctionExpr},
};
use parking_lot::Mutex;
use proto::{Code, Problem};

use super::warnings::WarningCounts;

/// The limit for function results that are still in use, unless the query sets another.
const RESULT_BYTES_MAX: u64 = 256 << 20;
/// Smaller results are not counted: an expression has at most a few thousand of them.
const TRACKED_BYTES_MIN: u64 = 64 << 10;

/// Returns the reason why a query must end now, if there is one.
type Interrupt = dyn Fn() -> Option<Problem> + Send + Sync;

/// A function's result, as long as it is in use, and its size in bytes.
type TrackedResult = (Weak<dyn Array>, u64);

/// The state that the functions of one query share: counts of values without a result, the interrupt, and the memory of
/// their results. Clones share it, too.
#[derive(Clone)]
pub struct FunctionContext {
    /// Counts of values without a result.
    pub warnings: WarningCounts,
    interrupt: Option<Arc<Interrupt>>,
    result_bytes_max: u64,
    results: Arc<Mutex<Vec<TrackedResult>>>,
}

impl Default for FunctionContext {
    fn default() -> Self {
        Self {
            warnings: WarningCounts::default(),
            interrupt: None,
            result_bytes_max: RESULT_BYTES_MAX,
            results: Arc::default(),
        }
    }
}

impl FunctionContext {
    /// The context of a query that ends once `interrupt` returns a problem. Functions call it between the parts of long
    /// work.
    pub fn new(warnings: WarningCounts, interrupt: impl Fn() -> Option<Problem> + Send + Sync + 'static) -> Self {
        Self {
            warnings,
            interrupt: Some(Arc::new(interrupt)),
            ..Self::default()
        }
    }

    /// Limits the bytes of function results that are in use at the same time. Operators that retain results for long
    /// account for them themselves.
    pub fn with_memory_limit(self, result_bytes_max: usize) -> Self {
        Self {
            result_bytes_max: result_bytes_max as u64,
            ..self
        }
    }

    /// The same context with counts of its own.
    pub fn with_own_counts(self) -> Self {
        Self {
            warnings: WarningCounts::default(),
            ..self
        }
    }

    /// The context in the settings of a session, if any.
    pub fn of(options: &ConfigOptions) -> Option<&Self> {
        options.extensions.get::<Self>()
    }

    /// Fails if the query must end.
    pub fn check(&self) -> Result<()> {
        match self.interrupt.as_ref().and_then(|interrupt| interrupt()) {
            Some(problem) => Err(DataFusionError::External(Box::new(problem))),
            None => Ok(()),
        }
    }

    /// Bytes that new results may take while the earlier ones are in use.
    pub(super) fn available_bytes(&self) -> u64 {
        let mut results = self.results.lock();
        results.retain(|(array, _)| array.strong_count() > 0);
        self.result_bytes_max
            .saturating_sub(results.iter().map(|(_, bytes)| bytes).sum())
    }

    /// Counts a function's result for as long as it is in use.
    pub(super) fn track(&self, array: &ArrayRef, bytes: u64) {
        if bytes >= TRACKED_BYTES_MIN {
            self.results.lock().push((Arc::downgrade(array), bytes));
        }
    }
}

/// A call of a function in this context; any other expression as it is.
pub fn call_in_context(
    part: Arc<dyn PhysicalExpr>,
    context: &FunctionContext,
) -> Result<Transformed<Arc<dyn PhysicalExpr>>> {
    let Some(call) = part.downcast_ref::<ScalarFunctionExpr>() else {
        return Ok(Transformed::no(part));
    };
    let mut settings = call.config_options().clone();
    settings.extensions.insert(context.clone());
    Ok(Transformed::yes(Arc::new(ScalarFunctionExpr::new(
        call.name(),
        Arc::new(call.fun().clone()),
        call.args().to_vec(),
        // It is fixed, whatever the input.
        call.return_field(&Schema::empty())?,
        Arc::new(settings),
    ))))
}

/// The error of a query that reached a limit.
pub(super) fn limit_reached(detail: String, hint: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Problem::new(Code::LimitReached, detail).hint(hint)))
}

impl fmt::Debug for FunctionContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FunctionContext")
            .field("warnings", &self.warnings)
            .finish_non_exhaustive()
    }
}

impl ConfigExtension for FunctionContext {
    const PREFIX: &'static str = "rachis_query";
}

impl ExtensionOptions for FunctionContext {
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
