//! Scan task: a prepared scan request with its columns, its filter as conjuncts, and its units of work.

use std::{
    ops::Range,
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
    common::{DFSchema, config::ConfigOptions, tree_node::TreeNode as _},
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
    scan::{ScanRequest, ScanSource, SortKey, Stage},
};
use proto::{Code, Problem};
use roaring::RoaringBitmap;

use super::{WORKERS_MAX, best_keys::BestKeys, filter, stats::ScanStats};
use crate::{
    error::Error,
    matches::Matches,
    split::SegmentPart,
    view::{ReadView, SegmentView},
};

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
    index_parts: Vec<IndexPart>,
    units: Vec<Unit>,
    units_taken: AtomicUsize,
    /// For a top-k that may leave out documents.
    pub best_keys: Option<BestKeys>,
    cancelled: Arc<AtomicBool>,
}

/// One condition of the filter, ready to be evaluated.
pub(super) struct Conjunct {
    expr: Expr,
    /// The columns it names.
    pub columns: Vec<usize>,
    /// Whether it counts values: those that it cannot convert, and those without a result of a function.
    pub warns: bool,
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
    /// The index over them, by its number in the scan; the tail has none.
    pub index: Option<usize>,
    /// The first document.
    pub from: u32,
    /// The document after the last.
    pub to: u32,
}

/// An index that decides the filter for some documents of a segment.
struct IndexPart {
    /// The segment, by its index in the view.
    segment: usize,
    /// The part of the segment, by its number.
    part: usize,
    outcome: OnceLock<Result<FilterOutcome, Problem>>,
}

/// A part of a view, in which documents are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum ViewPart {
    /// A segment, by its index in the view.
    Segment(usize),
    /// The documents that are in no segment yet.
    Tail,
}

/// What an index decides about the filter.
pub(super) struct FilterOutcome {
    /// The number of its first document in the segment. The documents below are numbered from there.
    pub first: u32,
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
        Self::with_warnings(view, request, cancelled, WarningCounts::default())
    }

    /// The same request over one split of the view. It counts warnings together with this one.
    pub(super) fn of_split(&self, split: SegmentView) -> Result<Self, Error> {
        let view = ReadView {
            segments: vec![split],
            tail: Arc::default(),
            ..self.view.clone()
        };
        let warnings = self.stats.lock().warnings.clone();
        Self::with_warnings(view, self.request.clone(), self.cancelled.clone(), warnings)
    }

    fn with_warnings(
        view: ReadView,
        request: ScanRequest,
        cancelled: Arc<AtomicBool>,
        warnings: WarningCounts,
    ) -> Result<Self, Error> {
        let mut columns: Vec<Column> = Vec::new();
        let output: Arc<[usize]> = request
            .columns
            .iter()
            .map(|column| column_index(&mut columns, column))
            .collect();
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
        let (index_parts, units) = units_of(&view);
        let bounds = |keys: &[SortKey], unit: &Unit| {
            interrupted(&cancelled, request.deadline).map_or(Ok(()), Err)?;
            let Some(index) = unit.index.map(|index| &index_parts[index]) else {
                return Ok(None);
            };
            let part = view.segments[index.segment].segment.part(index.part);
            let bounds = |key: &SortKey| part.bounds(&key.column, request.time_path.as_ref());
            let bounds = keys.iter().map(bounds).collect::<Result<Option<Vec<_>>, _>>()?;
            Ok(bounds.and_then(|bounds| bounds.into_iter().next()))
        };
        let (best_keys, units) = BestKeys::sort_units(&request, &conjuncts, units, bounds)?;
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
            index_parts,
            units,
            units_taken,
            best_keys,
            cancelled,
        })
    }

    /// The number of threads that the scan is worth.
    pub(super) fn workers(&self, threads: usize) -> usize {
        const DOCUMENTS_WORTH_IT: u64 = 20_000;
        let documents: u64 = self.units.iter().map(|unit| u64::from(unit.to - unit.from)).sum();
        if documents < DOCUMENTS_WORTH_IT {
            1
        } else {
            WORKERS_MAX.min(threads).min(self.units.len()).max(1)
        }
    }

    /// The next unit of work, and its number. An aggregate's units are assigned to its workers round-robin, however fast
    /// each is, so that sums of doubles are the same each time.
    pub(super) fn take_unit(&self, worker: usize, workers: usize, taken: &mut usize) -> Option<(usize, Unit)> {
        let number = match self.request.stage {
            Stage::Partial(_) => *taken * workers + worker,
            _ => self.units_taken.fetch_add(1, Ordering::Relaxed),
        };
        *taken += 1;
        Some((number, *self.units.get(number)?))
    }

    /// Fails if the scan must stop: the deadline has passed, or its stream was dropped.
    pub(super) fn check(&self) -> Result<(), Problem> {
        interrupted(&self.cancelled, self.request.deadline).map_or(Ok(()), Err)
    }

    /// What an index decides about the filter. Computed once, by the first worker that needs it.
    pub(super) fn filter_outcome(&self, index: usize) -> Result<&FilterOutcome, Problem> {
        let index = &self.index_parts[index];
        index
            .outcome
            .get_or_init(|| self.apply_index(index).map_err(Problem::from))
            .as_ref()
            .map_err(Clone::clone)
    }

    fn apply_index(&self, index: &IndexPart) -> Result<FilterOutcome, Error> {
        let view = &self.view.segments[index.segment];
        let part = view.segment.part(index.part);
        let Range { start: first, end } = part.documents();
        let mut live = RoaringBitmap::new();
        live.insert_range(0..end - first);
        live -= view
            .deleted
            .range(first..end)
            .map(|document| document - first)
            .collect::<RoaringBitmap>();
        let documents = live.len();
        let all_conjuncts: Vec<usize> = (0..self.conjuncts.len()).collect();
        if self.request.read == ScanSource::Raw && !all_conjuncts.is_empty() {
            return Ok(FilterOutcome {
                first,
                pass: RoaringBitmap::new(),
                undecided: live,
                open_conjuncts: all_conjuncts.into(),
            });
        }
        let time_path = self.request.time_path.as_ref();
        let conditions = self.conjuncts.iter().map(|conjunct| &conjunct.expr);
        let mut bounds = match filter::may_match(part, conditions, time_path)? {
            true => Matches::certain(live),
            false => {
                self.stats.lock().counts.pruned += 1;
                Matches::default()
            }
        };
        let mut open_conjuncts = Vec::new();
        for (number, conjunct) in self.conjuncts.iter().enumerate() {
            if bounds.is_empty() {
                break;
            }
            let found = filter::matches(&conjunct.expr, &part, time_path)?;
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
        open_conjuncts.sort_by_cached_key(|conjunct| !self.is_stored(part, *conjunct));
        Ok(FilterOutcome {
            first,
            pass,
            undecided,
            open_conjuncts: open_conjuncts.into(),
        })
    }

    fn is_stored(&self, part: SegmentPart, conjunct: usize) -> bool {
        let time_path = self.request.time_path.as_ref();
        let is_stored = |column: &usize| {
            part.stores(&self.columns[*column], time_path)
                .is_ok_and(|stores| stores)
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

/// The indexes of a view, and all its documents as units. The newest come first, so that a limit without an order is
/// reached sooner.
fn units_of(view: &ReadView) -> (Vec<IndexPart>, Vec<Unit>) {
    let cut = |part: ViewPart, index: Option<usize>, documents: Range<u32>| {
        let starts = documents.clone().step_by(UNIT_DOCUMENTS as usize);
        starts.map(move |from| Unit {
            part,
            index,
            from,
            to: documents.end.min(from.saturating_add(UNIT_DOCUMENTS)),
        })
    };
    let (mut indexes, mut units) = (Vec::new(), Vec::new());
    for (segment, SegmentView { segment: parts, .. }) in view.segments.iter().enumerate() {
        for (number, part) in parts.parts().enumerate() {
            units.extend(cut(ViewPart::Segment(segment), Some(indexes.len()), part.documents()));
            indexes.push(IndexPart {
                segment,
                part: number,
                outcome: OnceLock::new(),
            });
        }
    }
    units.extend(cut(
        ViewPart::Tail,
        None,
        0..u32::try_from(view.tail.len()).unwrap_or(u32::MAX),
    ));
    units.reverse();
    (indexes, units)
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
        let calls = |part: &Expr| Ok(matches!(part, Expr::ScalarFunction(_)));
        let warns = named.iter().any(|column| column.read_as.cast) || expr.exists(calls)?;
        let columns = named.iter().map(|column| column_index(columns, column)).collect();
        let batch_rows = constants::rows(constants::bytes(&physical)?);
        Ok(Self {
            expr,
            columns,
            warns,
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
