//! A scan request, made ready: which columns it needs, which conditions it asks, into which units its work is cut.

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
        datatypes::{DataType, Field, Schema, SchemaRef},
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
    functions::{Notices, Query, constants},
    scan::{Read, ScanRequest, Stage},
};
use proto::{Code, Problem};
use roaring::RoaringBitmap;

use super::{
    filter::{self, Known},
    tally::Tally,
};
use crate::{error::Error, view::View};

/// Documents of a segment that are worked on by one thread at a time.
const UNIT_DOCUMENTS: u32 = 65_536;

/// A scan: what was asked, of what, and what all its threads share.
pub struct Prepared {
    /// What is read.
    pub view: View,
    /// What was asked.
    pub request: ScanRequest,
    /// Every column that the request names: in its output, its filter, its sort keys.
    pub columns: Vec<Column>,
    /// Those that come back or go into the aggregate, in order.
    pub output: Arc<[usize]>,
    /// Those that blocks give for each document found: the output or, for a top-k, its keys.
    pub wanted: Arc<[usize]>,
    /// The conditions, each alone.
    pub conjuncts: Vec<Conjunct>,
    /// What was counted so far.
    pub tally: Mutex<Tally>,
    units: Vec<Unit>,
    units_taken: AtomicUsize,
    decided: Vec<OnceLock<Result<Decided, Problem>>>,
    cancelled: Arc<AtomicBool>,
}

/// A condition, and how it is evaluated on values.
pub struct Conjunct {
    expr: Expr,
    /// The columns it names.
    pub columns: Vec<usize>,
    schema: SchemaRef,
    physical: Arc<dyn PhysicalExpr>,
    /// Over how many rows it is evaluated at once.
    batch_rows: usize,
}

/// Documents that are worked on by one thread at a time.
#[derive(Debug, Clone, Copy)]
pub struct Unit {
    /// Where they are.
    pub place: Place,
    /// The first.
    pub from: u32,
    /// The one after the last.
    pub to: u32,
}

/// A part of a view, in which documents are numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// A segment, by its number.
    Segment(usize),
    /// The documents that are in no segment yet.
    Tail,
}

/// What the index of a segment said about the filter.
pub struct Decided {
    /// The documents that pass, whatever is open for others.
    pub pass: RoaringBitmap,
    /// The documents for which some conditions are open …
    pub doubtful: RoaringBitmap,
    /// … and these conditions.
    pub open: Arc<[usize]>,
}

impl Prepared {
    /// Makes a request ready.
    pub fn new(view: View, request: ScanRequest, cancelled: Arc<AtomicBool>) -> Result<Self, Error> {
        let mut columns: Vec<Column> = Vec::new();
        let output: Arc<[usize]> = request
            .columns
            .iter()
            .map(|column| place_of(&mut columns, column))
            .collect();
        let notices = Notices::default();
        let (stop, deadline) = (cancelled.clone(), request.deadline);
        let props = props(Query::new(notices.clone(), move || interrupted(&stop, deadline)));
        let filters = request.filter.iter().cloned().flat_map(split_conjunction_owned);
        let conjuncts = filters
            .map(|filter| Conjunct::new(filter, &mut columns, &props))
            .collect::<Result<Vec<_>, _>>()?;
        let wanted: Arc<[usize]> = match &request.stage {
            Stage::Top { keys, .. } => keys.iter().map(|key| place_of(&mut columns, &key.column)).collect(),
            Stage::Rows { limit: Some(0) } => Arc::default(),
            _ => output.clone(),
        };
        let units = units_of(&view);
        let decided = view.segments.iter().map(|_| OnceLock::new()).collect();
        let tally = Mutex::new(Tally::new(columns.len(), notices));
        let units_taken = AtomicUsize::new(0);
        Ok(Self {
            view,
            request,
            columns,
            output,
            wanted,
            conjuncts,
            tally,
            units,
            units_taken,
            decided,
            cancelled,
        })
    }

    /// How many threads are worth having.
    pub fn workers(&self, threads: usize) -> usize {
        const WORKERS_MAX: usize = 2;
        const DOCUMENTS_WORTH_IT: u64 = 20_000;
        let documents: u64 = self.units.iter().map(|unit| u64::from(unit.to - unit.from)).sum();
        if documents < DOCUMENTS_WORTH_IT {
            1
        } else {
            WORKERS_MAX.min(threads).min(self.units.len()).max(1)
        }
    }

    /// The next unit of work. The units of an aggregate go to its workers in turn, whoever is faster, so that sums of
    /// doubles add up the same each time.
    pub fn take_unit(&self, worker: usize, workers: usize, taken: &mut usize) -> Option<Unit> {
        let number = match self.request.stage {
            Stage::Partial(_) => *taken * workers + worker,
            _ => self.units_taken.fetch_add(1, Ordering::Relaxed),
        };
        *taken += 1;
        self.units.get(number).copied()
    }

    /// Whether the work should stop: the deadline passed, or nobody listens any more.
    pub fn check(&self) -> Result<(), Problem> {
        interrupted(&self.cancelled, self.request.deadline).map_or(Ok(()), Err)
    }

    /// What the index of a segment says about the filter; asked once, whoever comes first.
    pub fn decided(&self, segment: usize) -> Result<&Decided, Problem> {
        self.decided[segment]
            .get_or_init(|| self.decide(segment).map_err(Problem::from))
            .as_ref()
            .map_err(Clone::clone)
    }

    fn decide(&self, number: usize) -> Result<Decided, Error> {
        let view = &self.view.segments[number];
        let segment = &view.segment;
        let mut live = RoaringBitmap::new();
        live.insert_range(0..segment.documents());
        live -= view.gone.as_ref();
        let documents = live.len();
        let everything: Vec<usize> = (0..self.conjuncts.len()).collect();
        if self.request.read == Read::Raw && !everything.is_empty() {
            return Ok(Decided {
                pass: RoaringBitmap::new(),
                doubtful: live,
                open: everything.into(),
            });
        }
        let mut known = Known::exactly(live);
        let mut open = Vec::new();
        for (number, conjunct) in self.conjuncts.iter().enumerate() {
            let found = filter::decide(&conjunct.expr, segment.as_ref(), self.request.time_path.as_ref())?;
            if !found.is_exact() {
                open.push(number);
            }
            known = known.and(&found);
            if known.possible.is_empty() {
                break;
            }
        }
        let doubtful = known.possible - &known.sure;
        let mut tally = self.tally.lock();
        tally.documents += documents - doubtful.len() - known.sure.len();
        tally.counts.index += if self.conjuncts.is_empty() {
            0
        } else {
            documents - doubtful.len()
        };
        drop(tally);
        // Conditions on stored columns first: they leave fewer raw documents to be read for the others.
        open.sort_by_cached_key(|conjunct| !self.stored(number, *conjunct));
        Ok(Decided {
            pass: known.sure,
            doubtful,
            open: open.into(),
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

    /// Whether a column is read to find out which documents come back.
    pub fn is_read_to_choose(&self, column: usize) -> bool {
        self.wanted.contains(&column) || self.conjuncts.iter().any(|conjunct| conjunct.columns.contains(&column))
    }

    /// The schema of these columns.
    pub fn schema(&self, columns: &[usize]) -> SchemaRef {
        Arc::new(Schema::new(
            columns
                .iter()
                .map(|column| self.columns[*column].field())
                .collect::<Vec<Field>>(),
        ))
    }
}

/// Why a scan must stop, if it must.
fn interrupted(cancelled: &AtomicBool, deadline: Instant) -> Option<Problem> {
    if cancelled.load(Ordering::Relaxed) {
        return Some(Problem::new(Code::Cancelled, "the query was cancelled"));
    }
    let late = || {
        Problem::new(Code::Timeout, "the scan did not end before the deadline")
            .hint("ask for less, or give the query more time")
    };
    (Instant::now() >= deadline).then(late)
}

/// The place of a column in the list, where it is added if it is new.
fn place_of(columns: &mut Vec<Column>, column: &Column) -> usize {
    columns.iter().position(|known| known == column).unwrap_or_else(|| {
        columns.push(column.clone());
        columns.len() - 1
    })
}

/// What conditions are evaluated with: values that have no answer are counted, and a long evaluation ends with its
/// query.
fn props(query: Query) -> ExecutionProps {
    static SETTINGS: LazyLock<ConfigOptions> = LazyLock::new(|| plan::functions::settings().options().as_ref().clone());
    let mut options = SETTINGS.clone();
    options.extensions.insert(query);
    let mut props = ExecutionProps::new();
    props.mark_start_execution(Arc::new(options));
    props
}

/// All documents, the newest first: who asks for a few rows, or for the newest, finds them sooner.
fn units_of(view: &View) -> Vec<Unit> {
    let cut = |place: Place, documents: u32| {
        let starts = (0..documents).step_by(UNIT_DOCUMENTS as usize);
        starts.map(move |from| Unit {
            place,
            from,
            to: documents.min(from.saturating_add(UNIT_DOCUMENTS)),
        })
    };
    let segments = view
        .segments
        .iter()
        .enumerate()
        .flat_map(|(number, segment)| cut(Place::Segment(number), segment.segment.documents()));
    let tail = cut(Place::Tail, u32::try_from(view.tail.len()).unwrap_or(u32::MAX));
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
                format!("the filter names {name:?}, which is no column of a scan"),
            )
        };
        let named = names
            .iter()
            .map(|name| Column::parse(name).ok_or_else(|| unknown(name)))
            .collect::<Result<Vec<_>, _>>()?;
        let schema = Arc::new(Schema::new(named.iter().map(Column::field).collect::<Vec<Field>>()));
        let df_schema = Arc::new(DFSchema::try_from(schema.clone())?);
        let simplifier = ExprSimplifier::new(SimplifyContext::builder().with_schema(df_schema.clone()).build());
        // Casts of literals become literals, which an index can look up.
        let expr = plan::simplify::simplify(simplifier.coerce(expr, &df_schema)?, &simplifier)?;
        let physical = create_physical_expr(&expr, &df_schema, props, &PhysicalPlanningContext::default())?;
        let columns = named.iter().map(|column| place_of(columns, column)).collect();
        let batch_rows = constants::rows(constants::bytes(&physical)?);
        Ok(Self {
            expr,
            columns,
            schema,
            physical,
            batch_rows,
        })
    }

    /// Which of the rows pass, given the values of its columns.
    pub fn passes(&self, values: Vec<ArrayRef>, rows: usize) -> Result<BooleanArray, Error> {
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(self.schema.clone(), values, &options)?;
        if rows <= self.batch_rows {
            return self.passes_of(&batch);
        }
        let parts = (0..rows)
            .step_by(self.batch_rows)
            .map(|from| self.passes_of(&batch.slice(from, self.batch_rows.min(rows - from))));
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        let passes = concat(&parts.iter().map(|part| part as &dyn Array).collect::<Vec<_>>())?;
        Ok(passes.as_boolean().clone())
    }

    fn passes_of(&self, batch: &RecordBatch) -> Result<BooleanArray, Error> {
        let rows = batch.num_rows();
        let passes = self.physical.evaluate(batch)?.into_array(rows)?;
        match passes.data_type() {
            DataType::Boolean if passes.null_count() == 0 => Ok(passes.as_boolean().clone()),
            DataType::Boolean => Ok(prep_null_mask_filter(passes.as_boolean())),
            DataType::Null => Ok(BooleanArray::from(vec![false; rows])),
            other => Err(Problem::new(
                Code::BadRequest,
                format!("a condition must be true or false, not {other}"),
            )
            .into()),
        }
    }
}
