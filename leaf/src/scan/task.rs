//! Scan task: a prepared request over one view, and its units of work.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Instant,
};

use datafusion::arrow::{
    array::{Array as _, ArrayRef},
    datatypes::SchemaRef,
};
use parking_lot::Mutex;
use plan::{
    functions::{FunctionContext, WarningCounts},
    scan::{ConditionCounts, ScanSource, SortKey, Stage},
};
use proto::{Code, Problem};
use roaring::RoaringBitmap;

use super::{
    best_keys::BestKeys,
    filter,
    prepared::{Conjunct, PreparedScan},
    stats::ScanStats,
};
use crate::{
    error::Error,
    matches::Matches,
    split::{DecidedValues, SegmentPart},
    view::{ReadView, SegmentView},
};

/// Documents per unit of work.
const UNIT_DOCUMENTS: u32 = 65_536;
/// Those of a unit that has no index take longer.
const TAIL_UNIT_DOCUMENTS: u32 = UNIT_DOCUMENTS / 16;

/// A scan request over a view, and the state that its threads share.
pub(super) struct ScanTask {
    /// The view to read.
    pub view: ReadView,
    /// The request, prepared for all shards.
    pub prepared: Arc<PreparedScan>,
    /// The filter, as a conjunction.
    pub conjuncts: Vec<Conjunct>,
    /// Counters so far.
    pub stats: Mutex<ScanStats>,
    index_parts: Vec<IndexPart>,
    units: Vec<Unit>,
    units_taken: AtomicUsize,
    /// For a top-k that may leave out documents.
    pub best_keys: Option<BestKeys>,
    /// Counts values without a result, and ends with the scan.
    pub functions: FunctionContext,
    cancelled: Arc<AtomicBool>,
    deadline: Instant,
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
    /// A scan of a view.
    pub(super) fn new(
        view: ReadView,
        prepared: Arc<PreparedScan>,
        cancelled: Arc<AtomicBool>,
        deadline: Instant,
    ) -> Result<Self, Error> {
        Self::with_warnings(view, prepared, cancelled, deadline, WarningCounts::default())
    }

    /// The same request over one split of the view. It counts warnings together with this one.
    pub(super) fn of_split(&self, split: SegmentView) -> Result<Self, Error> {
        let view = ReadView {
            segments: vec![split],
            tail: Arc::default(),
            ..self.view.clone()
        };
        let warnings = self.stats.lock().warnings.clone();
        Self::with_warnings(
            view,
            self.prepared.clone(),
            self.cancelled.clone(),
            self.deadline,
            warnings,
        )
    }

    fn with_warnings(
        view: ReadView,
        prepared: Arc<PreparedScan>,
        cancelled: Arc<AtomicBool>,
        deadline: Instant,
        warnings: WarningCounts,
    ) -> Result<Self, Error> {
        let request = prepared.request.clone();
        let stop = cancelled.clone();
        let context = FunctionContext::new(warnings.clone(), move || interrupted(&stop, deadline));
        let conjuncts = prepared.conjuncts(context.clone())?;
        let (index_parts, units) = units_of(&view);
        let bounds = |keys: &[SortKey], unit: &Unit| {
            interrupted(&cancelled, deadline).map_or(Ok(()), Err)?;
            let Some(index) = unit.index.map(|index| &index_parts[index]) else {
                return Ok(None);
            };
            let part = view.segments[index.segment].segment.part(index.part);
            let bounds = |key: &SortKey| part.bounds(&key.column, request.time_path.as_ref());
            let bounds = keys.iter().map(bounds).collect::<Result<Option<Vec<_>>, _>>()?;
            Ok(bounds.and_then(|bounds| bounds.into_iter().next()))
        };
        let (best_keys, units) = BestKeys::sort_units(&request, &conjuncts, units, bounds)?;
        let stats = Mutex::new(ScanStats::new(prepared.columns.len(), conjuncts.len(), warnings));
        let units_taken = AtomicUsize::new(0);
        Ok(Self {
            view,
            prepared,
            conjuncts,
            stats,
            index_parts,
            units,
            units_taken,
            best_keys,
            functions: context,
            cancelled,
            deadline,
        })
    }

    /// Whether the view has no document.
    pub(super) fn is_empty(&self) -> bool {
        self.units.is_empty()
    }

    /// The number of threads that the scan is worth.
    pub(super) fn workers(&self, threads: usize) -> usize {
        const DOCUMENTS_WORTH_IT: u64 = 20_000;
        let documents = |unit: &Unit| match unit.part {
            ViewPart::Segment(_) => u64::from(unit.to - unit.from),
            ViewPart::Tail => u64::from(unit.to - unit.from) * u64::from(UNIT_DOCUMENTS / TAIL_UNIT_DOCUMENTS),
        };
        let documents: u64 = self.units.iter().map(documents).sum();
        if documents < DOCUMENTS_WORTH_IT {
            1
        } else {
            threads.min(self.units.len()).max(1)
        }
    }

    /// The next unit of work, and its number. An aggregate's units are assigned to its workers round-robin, however fast
    /// each is, so that sums of doubles are the same each time.
    pub(super) fn take_unit(&self, worker: usize, workers: usize, taken: &mut usize) -> Option<(usize, Unit)> {
        let number = match self.prepared.request.stage {
            Stage::Partial(_) => *taken * workers + worker,
            _ => self.units_taken.fetch_add(1, Ordering::Relaxed),
        };
        *taken += 1;
        Some((number, *self.units.get(number)?))
    }

    /// Fails if the scan must stop: the deadline has passed, or its stream was dropped.
    pub(super) fn check(&self) -> Result<(), Problem> {
        interrupted(&self.cancelled, self.deadline).map_or(Ok(()), Err)
    }

    /// A context for functions that count these warnings and stop with the scan.
    pub(super) fn function_context(&self, warnings: WarningCounts) -> FunctionContext {
        let (stop, deadline) = (self.cancelled.clone(), self.deadline);
        FunctionContext::new(warnings, move || interrupted(&stop, deadline))
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
        let started = Instant::now();
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
        if self.prepared.request.read == ScanSource::Raw && !all_conjuncts.is_empty() {
            return Ok(FilterOutcome {
                first,
                pass: RoaringBitmap::new(),
                undecided: live,
                open_conjuncts: all_conjuncts.into(),
            });
        }
        let time_path = self.prepared.request.time_path.as_ref();
        let conditions = self.conjuncts.iter().map(|conjunct| &conjunct.condition.expr);
        let mut bounds = match filter::excluding(part, conditions, time_path)? {
            None => Matches::certain(live),
            Some(condition) => {
                let mut stats = self.stats.lock();
                stats.counts.pruned += 1;
                stats.conditions[condition].pruned += 1;
                Matches::default()
            }
        };
        let (mut open_conjuncts, mut decided_columns) = (Vec::new(), Vec::new());
        for (number, conjunct) in self.conjuncts.iter().enumerate() {
            if bounds.is_empty() {
                break;
            }
            self.check()?;
            let mut found = filter::matches(&conjunct.condition.expr, &part, time_path)?;
            let possible = bounds.possible();
            let open = &possible & &found.candidates;
            let mut counts = ConditionCounts {
                index: possible.len() - open.len(),
                ..ConditionCounts::default()
            };
            if let Some((column, decided)) = self.decide_values(part, conjunct, &open)? {
                found = Matches {
                    certain: found.certain | (&decided.found.certain & &found.candidates),
                    candidates: &decided.found.candidates & found.candidates,
                };
                let decided_documents = open - &decided.found.candidates;
                counts.distinct = decided_documents.len();
                decided_columns.push((column, decided_documents, decided));
            }
            self.stats.lock().conditions[number].add(&counts);
            if !found.is_exact() {
                open_conjuncts.push(number);
            }
            bounds = bounds.and(&found);
        }
        self.count_decided(decided_columns, &open_conjuncts, &bounds);
        let Matches {
            certain: pass,
            candidates: undecided,
        } = bounds;
        let mut stats = self.stats.lock();
        stats.documents += documents - undecided.len() - pass.len();
        if !self.conjuncts.is_empty() {
            stats.counts.index += documents - undecided.len();
            stats.index_time += started.elapsed();
        }
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

    /// Counts the values that were decided without being read, as if they had been: documents that are read anyway are
    /// counted then.
    fn count_decided(
        &self,
        decided: Vec<(usize, RoaringBitmap, DecidedValues)>,
        open_conjuncts: &[usize],
        bounds: &Matches,
    ) {
        let mut counted = BTreeMap::<usize, RoaringBitmap>::new();
        for (
            column,
            mut documents,
            DecidedValues {
                present, cast_failures, ..
            },
        ) in decided
        {
            let reads = |conjunct: &usize| self.conjuncts[*conjunct].condition.columns.contains(&column);
            if self.prepared.wanted.contains(&column) {
                documents -= bounds.possible();
            } else if open_conjuncts.iter().any(reads) {
                documents -= &bounds.candidates;
            }
            let of_column = counted.entry(column).or_default();
            documents -= &*of_column;
            let (present, failures) = (
                present.intersection_len(&documents),
                cast_failures.intersection_len(&documents),
            );
            self.stats.lock().count_values(column, present, failures);
            *of_column |= documents;
        }
    }

    /// Where a condition on one column is true, decided once for each distinct value of the part; and the column. None if
    /// that is not worth while for these documents.
    fn decide_values(
        &self,
        part: SegmentPart,
        conjunct: &Conjunct,
        candidates: &RoaringBitmap,
    ) -> Result<Option<(usize, DecidedValues)>, Error> {
        let [column] = conjunct.condition.columns.as_slice() else {
            return Ok(None);
        };
        // A value may be of no document of the answer. So failures must not count, and if there are any, the condition
        // is evaluated for documents.
        let warnings = WarningCounts::default();
        let context = self.function_context(warnings.clone());
        let (mut own, mut evaluated) = (None, 0);
        let passes = |values: ArrayRef| {
            let rows = values.len();
            evaluated += rows as u64;
            let own = match &mut own {
                Some(own) => own,
                none => none.insert(conjunct.in_context(context.clone())?),
            };
            own.passes(vec![values], rows)
        };
        let decided = match part.decide_values(&self.prepared.columns[*column], candidates, passes) {
            Err(Error::Query(_) | Error::Arrow(_) | Error::Problem(_)) => None,
            decided => decided?,
        };
        self.check()?;
        let Some(decided) = decided.filter(|_| !warnings.has_failures()) else {
            return Ok(None);
        };
        let documents = candidates.len() - candidates.intersection_len(&decided.found.candidates);
        let counted = &self.stats.lock().warnings;
        counted.add_for_documents(&warnings, evaluated, documents);
        Ok(Some((*column, decided)))
    }

    fn is_stored(&self, part: SegmentPart, conjunct: usize) -> bool {
        let time_path = self.prepared.request.time_path.as_ref();
        let is_stored = |column: &usize| {
            part.stores(&self.prepared.columns[*column], time_path)
                .is_ok_and(|stores| stores)
        };
        self.conjuncts[conjunct].condition.columns.iter().all(is_stored)
    }

    /// True if the column is read while documents are selected, not only for the output of those selected.
    pub(super) fn is_read_to_select(&self, column: usize) -> bool {
        self.prepared.wanted.contains(&column)
            || self
                .conjuncts
                .iter()
                .any(|conjunct| conjunct.condition.columns.contains(&column))
    }

    /// The Arrow schema of these columns.
    pub(super) fn schema(&self, columns: &[usize]) -> SchemaRef {
        plan::column::schema(columns.iter().map(|column| &self.prepared.columns[*column]))
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

/// The indexes of a view, and all its documents as units. The newest come first, so that a limit without an order is
/// reached sooner.
fn units_of(view: &ReadView) -> (Vec<IndexPart>, Vec<Unit>) {
    let cut = |part: ViewPart, index: Option<usize>, documents: Range<u32>| {
        let most = match index {
            Some(_) => UNIT_DOCUMENTS,
            None => TAIL_UNIT_DOCUMENTS,
        };
        let starts = documents.clone().step_by(most as usize);
        starts.map(move |from| Unit {
            part,
            index,
            from,
            to: documents.end.min(from.saturating_add(most)),
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
