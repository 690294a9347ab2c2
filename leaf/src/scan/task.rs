//! Scan task: a prepared scan request with its columns, its filter as conjuncts, and its units of work.

use std::{
    sync::{
        Arc, LazyLock, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions},
        compute::{concat, prep_null_mask_filter},
        datatypes::{DataType, SchemaRef},
    },
    common::{DFSchema, config::ConfigOptions},
    logical_expr::{
        Expr, physical_planning_context::PhysicalPlanningContext, simplify::SimplifyContext,
        utils::split_conjunction_owned,
    },
    optimizer::simplify_expressions::ExprSimplifier,
    physical_expr::{PhysicalExpr, create_physical_expr, execution_props::ExecutionProps},
};
use parking_lot::Mutex;
use plan::{
    Column,
    functions::{FunctionContext, WarningCounts, constants},
    scan::{ScanRequest, ScanSource, Stage},
};
use proto::{Code, Problem};
use roaring::RoaringBitmap;

use super::{
    filter::{self, KeptParts},
    stats::ScanStats,
};
use crate::{error::Error, matches::Matches, view::ReadView};

/// Documents per unit of work.
const UNIT_DOCUMENTS: u32 = 65_536;

/// A scan request over a view, and the state that its threads share.
pub(super) struct ScanTask {
    /// The view to read.
    pub view: ReadView,
    /// The request.
    pub request: ScanRequest,
    /// Every column that the request names: in its output, its filter, its sort keys.
    pub columns: Vec<Column>,
    /// The columns that are returned or aggregated, in order, as indexes into `columns`.
    pub output: Arc<[usize]>,
    /// The columns that blocks read of each document that passes: the output or, for a top-k, its keys.
    pub wanted: Arc<[usize]>,
    /// The filter, as a conjunction.
    pub conjuncts: Vec<Conjunct>,
    /// Counters so far.
    pub stats: Mutex<ScanStats>,
    units: Vec<Unit>,
    units_taken: AtomicUsize,
    filter_outcomes: Vec<OnceLock<Result<FilterOutcome, Problem>>>,
    cancelled: Arc<AtomicBool>,
}

/// One condition of the filter, ready to be evaluated.
pub(super) struct Conjunct {
    expr: Expr,
    /// The columns it names.
    pub columns: Vec<usize>,
    schema: SchemaRef,
    physical: Arc<dyn PhysicalExpr>,
    /// Rows per evaluation.
    batch_rows: usize,
}

/// Documents that one thread scans.
#[derive(Debug, Clone, Copy)]
pub(super) struct Unit {
    /// The part of the view that contains them.
    pub part: ViewPart,
    /// The first document.
    pub from: u32,
    /// The document after the last.
    pub to: u32,
}

/// A part of a view, in which documents are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ViewPart {
    /// A segment, by its index in the view.
    Segment(usize),
    /// The documents that are in no segment yet.
    Tail,
}

/// What a segment's index decides about the filter.
pub(super) struct FilterOutcome {
    /// Documents that pass all conjuncts.
    pub pass: RoaringBitmap,
    /// Documents for which some conjuncts are open …
    pub undecided: RoaringBitmap,
    /// … and these conjuncts.
    pub open_conjuncts: Arc<[usize]>,
}

impl ScanTask {
    /// Prepares a request.
    pub(super) fn new(view: ReadView, request: ScanRequest, cancelled: Arc<AtomicBool>) -> Result<Self, Error> {
        let mut columns: Vec<Column> = Vec::new();
        let output: Arc<[usize]> = request
            .columns
            .iter()
            .map(|column| column_index(&mut columns, column))
            .collect();
        let warnings = WarningCounts::default();
        let (stop, deadline) = (cancelled.clone(), request.deadline);
        let props = execution_props(FunctionContext::new(warnings.clone(), move || {
            interrupted(&stop, deadline)
        }));
        let filters = request.filter.iter().cloned().flat_map(split_conjunction_owned);
        let conjuncts = filters
            .map(|filter| Conjunct::new(filter, &mut columns, &props))
            .collect::<Result<Vec<_>, _>>()?;
        let wanted: Arc<[usize]> = match &request.stage {
            Stage::Top { keys, .. } => keys.iter().map(|key| column_index(&mut columns, &key.column)).collect(),
            Stage::Rows { limit: Some(0) } => Arc::default(),
            _ => output.clone(),
        };
        let units = units_of(&view);
        let filter_outcomes = view.segments.iter().map(|_| OnceLock::new()).collect();
        let stats = Mutex::new(ScanStats::new(columns.len(), warnings));
        let units_taken = AtomicUsize::new(0);
        Ok(Self {
            view,
            request,
            columns,
            output,
            wanted,
            conjuncts,
            stats,
            units,
            units_taken,
            filter_outcomes,
            cancelled,
        })
    }

    /// The number of threads that the scan is worth.
    pub(super) fn workers(&self, threads: usize) -> usize {
        const WORKERS_MAX: usize = 2;
        const DOCUMENTS_WORTH_IT: u64 = 20_000;
        let documents: u64 = self.units.iter().map(|unit| u64::from(unit.to - unit.from)).sum();
        if documents < DOCUMENTS_WORTH_IT {
            1
        } else {
            WORKERS_MAX.min(threads).min(self.units.len()).max(1)
        }
    }

    /// The next unit of work. An aggregate's units are assigned to its workers round-robin, however fast each is, so
    /// that sums of doubles are the same each time.
    pub(super) fn take_unit(&self, worker: usize, workers: usize, taken: &mut usize) -> Option<Unit> {
        let number = match self.request.stage {
            Stage::Partial(_) => *taken * workers + worker,
            _ => self.units_taken.fetch_add(1, Ordering::Relaxed),
        };
        *taken += 1;
        self.units.get(number).copied()
    }

    /// Fails if the scan must stop: the deadline has passed, or its stream was dropped.
    pub(super) fn check(&self) -> Result<(), Problem> {
        interrupted(&self.cancelled, self.request.deadline).map_or(Ok(()), Err)
    }

    /// What a segment's index decides about the filter. Computed once, by the first worker that needs it.
    pub(super) fn filter_outcome(&self, segment: usize) -> Result<&FilterOutcome, Problem> {
        self.filter_outcomes[segment]
            .get_or_init(|| self.apply_index(segment).map_err(Problem::from))
            .as_ref()
            .map_err(Clone::clone)
    }

    fn apply_index(&self, number: usize) -> Result<FilterOutcome, Error> {
        let view = &self.view.segments[number];
        let segment = &view.segment;
        let mut live = RoaringBitmap::new();
        live.insert_range(0..segment.documents());
        live -= view.deleted.as_ref();
        let documents = live.len();
        let all_conjuncts: Vec<usize> = (0..self.conjuncts.len()).collect();
        if self.request.read == ScanSource::Raw && !all_conjuncts.is_empty() {
            return Ok(FilterOutcome {
                pass: RoaringBitmap::new(),
                undecided: live,
                open_conjuncts: all_conjuncts.into(),
            });
        }
        let time_path = self.request.time_path.as_ref();
        let kept = KeptParts::of(segment, self.conjuncts.iter().map(|conjunct| &conjunct.expr), time_path)?;
        self.stats.lock().counts.pruned += u64::from(kept.is_empty());
        let mut bounds = Matches::certain(live & &kept.documents);
        let mut open_conjuncts = Vec::new();
        for (number, conjunct) in self.conjuncts.iter().enumerate() {
            if bounds.is_empty() {
                break;
            }
            let found = filter::matches(&conjunct.expr, &kept, time_path)?;
            if !found.is_exact() {
                open_conjuncts.push(number);
            }
            bounds = bounds.and(&found);
        }
        let Matches {
            certain: pass,
            candidates: undecided,
        } = bounds;
        let mut stats = self.stats.lock();
        stats.documents += documents - undecided.len() - pass.len();
        stats.counts.index += if self.conjuncts.is_empty() {
            0
        } else {
            documents - undecided.len()
        };
        drop(stats);
        // Conjuncts on stored columns first: then fewer raw documents have to be read for the others.
        open_conjuncts.sort_by_cached_key(|conjunct| !self.stored(number, *conjunct));
        Ok(FilterOutcome {
            pass,
            undecided,
            open_conjuncts: open_conjuncts.into(),
        })
    }

    fn stored(&self, segment: usize, conjunct: usize) -> bool {
        let segment = &self.view.segments[segment].segment;
        let time_path = self.request.time_path.as_ref();
        let is_stored = |column: &usize| {
            segment
                .values(&self.columns[*column], time_path, &[])
                .is_ok_and(|values| values.is_some())
        };
        self.conjuncts[conjunct].columns.iter().all(is_stored)
    }

    /// True if the column is read while documents are selected, not only for the output of those selected.
    pub(super) fn is_read_to_select(&self, column: usize) -> bool {
        self.wanted.contains(&column) || self.conjuncts.iter().any(|conjunct| conjunct.columns.contains(&column))
    }

    /// The Arrow schema of these columns.
    pub(super) fn schema(&self, columns: &[usize]) -> SchemaRef {
        plan::column::schema(columns.iter().map(|column| &self.columns[*column]))
    }
}

/// The problem if a scan must stop.
fn interrupted(cancelled: &AtomicBool, deadline: Instant) -> Option<Problem> {
    if cancelled.load(Ordering::Relaxed) {
        return Some(Problem::new(Code::Cancelled, "the query was cancelled"));
    }
    let late = || {
        Problem::new(Code::Timeout, "the scan did not finish before the deadline")
            .hint("select fewer rows, or raise timeout_ms")
    };
    (Instant::now() >= deadline).then(late)
}

/// The index of a column in the list; a new column is appended.
fn column_index(columns: &mut Vec<Column>, column: &Column) -> usize {
    columns.iter().position(|known| known == column).unwrap_or_else(|| {
        columns.push(column.clone());
        columns.len() - 1
    })
}

/// Properties for evaluating conditions: functions count warnings, and a long evaluation stops with its query.
fn execution_props(context: FunctionContext) -> ExecutionProps {
    static SETTINGS: LazyLock<ConfigOptions> = LazyLock::new(|| plan::functions::settings().options().as_ref().clone());
    let mut options = SETTINGS.clone();
    options.extensions.insert(context);
    let mut props = ExecutionProps::new();
    props.mark_start_execution(Arc::new(options));
    props
}

/// All documents as units, the newest segments first, so that a limit without an order is reached sooner. A top-k reads
/// all units.
fn units_of(view: &ReadView) -> Vec<Unit> {
    let cut = |part: ViewPart, documents: u32| {
        let starts = (0..documents).step_by(UNIT_DOCUMENTS as usize);
        starts.map(move |from| Unit {
            part,
            from,
            to: documents.min(from.saturating_add(UNIT_DOCUMENTS)),
        })
    };
    let segments = view
        .segments
        .iter()
        .enumerate()
        .flat_map(|(number, segment)| cut(ViewPart::Segment(number), segment.segment.documents()));
    let tail = cut(ViewPart::Tail, u32::try_from(view.tail.len()).unwrap_or(u32::MAX));
    let mut units: Vec<Unit> = segments.chain(tail).collect();
    units.reverse();
    units
}

impl Conjunct {
    fn new(expr: Expr, columns: &mut Vec<Column>, props: &ExecutionProps) -> Result<Self, Error> {
        let mut names: Vec<&str> = expr
            .column_refs()
            .into_iter()
            .map(|column| column.name.as_str())
            .collect();
        names.sort_unstable();
        names.dedup();
        let unknown = |name: &str| {
            Problem::new(
                Code::BadRequest,
                format!("the filter names {name:?}, which is not a column of a scan"),
            )
        };
        let named = names
            .iter()
            .map(|name| Column::parse(name).ok_or_else(|| unknown(name)))
            .collect::<Result<Vec<_>, _>>()?;
        let schema = plan::column::schema(&named);
        let df_schema = Arc::new(DFSchema::try_from(schema.clone())?);
        let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(df_schema.clone()).build());
        // Folds casts of literals into literals, which an index can look up.
        let expr = plan::simplify::simplify(simplifier.coerce(expr, &df_schema)?, &simplifier)?;
        let physical = create_physical_expr(&expr, &df_schema, props, &PhysicalPlanningContext::default())?;
        let columns = named.iter().map(|column| column_index(columns, column)).collect();
        let batch_rows = constants::rows(constants::bytes(&physical)?);
        Ok(Self {
            expr,
            columns,
            schema,
            physical,
            batch_rows,
        })
    }

    /// Which rows pass, given the values of the conjunct's columns.
    pub(super) fn passes(&self, values: Vec<ArrayRef>, rows: usize) -> Result<BooleanArray, Error> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), values, &options)?;
        if rows <= self.batch_rows {
            return self.passes_batch(&batch);
        }
        let parts = (0..rows)
            .step_by(self.batch_rows)
            .map(|from| self.passes_batch(&batch.slice(from, self.batch_rows.min(rows - from))));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let passes = concat(&parts.iter().map(|part| part as &dyn Array).collect::<Vec<_>>())?;
        Ok(passes.as_boolean().clone())
    }

    fn passes_batch(&self, batch: &RecordBatch) -> Result<BooleanArray, Error> {
        let rows = batch.num_rows();
        let passes = self.physical.evaluate(batch)?.into_array(rows)?;
        match passes.data_type() {
            DataType::Boolean if passes.null_count() == 0 => Ok(passes.as_boolean().clone()),
            DataType::Boolean => Ok(prep_null_mask_filter(passes.as_boolean())),
            DataType::Null => Ok(BooleanArray::from(vec![false; rows])),
            other => Err(Problem::new(Code::BadRequest, format!("a condition must be boolean, not {other}")).into()),
        }
    }
}
