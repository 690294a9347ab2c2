//! Blocks: filters and reads a bounded number of documents at a time, from index candidates to column values.
//!
//! Columns that the segment stores are read from there. The others are read from raw documents, a bounded number of
//! bytes at once, each parsed once.

use std::{ops::Range, sync::Arc, time::Instant};

use datafusion::arrow::{
    array::{Array, ArrayRef, BooleanArray},
    compute::{concat, filter},
};
use plan::{
    Column, arrays,
    calendar::Interval,
    scan::{ColumnReads, ScanSource, Stage},
};
use proto::{Address, Problem};
use roaring::RoaringBitmap;

use super::{
    filter::Needles,
    task::{ScanTask, Unit, ViewPart},
};
use crate::{
    document::Document,
    error::Error,
    raw::RawRows,
    split::{ColumnValues, DocumentNumbers, Groups, Segment, Totals},
};

/// Documents per block.
const BLOCK_DOCUMENTS_MAX: usize = 8_192;
/// Raw bytes per block; a single larger document is a block of its own.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Raw documents in the first read of a block, while their size is unknown.
const READ_DOCUMENTS_FIRST: usize = 16;

/// Documents that passed the filter, and their values.
pub(super) struct ScannedBlock {
    /// The part of the view that contains them.
    pub part: ViewPart,
    /// Their document numbers, ascending.
    pub documents: Vec<u32>,
    /// The requested columns, in order.
    pub arrays: Vec<ArrayRef>,
}

/// The result of [`Blocks::next`].
pub(super) enum Next {
    /// Documents that passed the filter.
    Block(ScannedBlock),
    /// The time slice is used up.
    Pause,
    /// The scan has no more documents.
    End,
}

/// Iterates over a worker's share of a scan.
pub(super) struct Blocks {
    /// The scan.
    pub scan: Arc<ScanTask>,
    worker: usize,
    workers: usize,
    units_taken: usize,
    /// The rest of the current unit.
    candidates: Vec<Candidates>,
    /// Remainders of blocks that were too large.
    remainders: Vec<Block>,
}

/// Documents for which the same conjuncts are still open.
struct Candidates {
    part: ViewPart,
    documents: DocumentNumbers,
    open_conjuncts: Arc<[usize]>,
    /// False once their totals were asked for.
    may_have_totals: bool,
    /// False once their groups could not be counted.
    may_count_groups: bool,
}

/// Documents that are being filtered.
struct Block {
    part: ViewPart,
    documents: Vec<u32>,
    /// Index of each document among the block's raw documents, if those were read.
    rows: Vec<u32>,
    /// Values read so far, by column.
    arrays: Vec<Option<ArrayRef>>,
    /// Conjuncts to evaluate: those that the index did not decide; for the tail, which has no index, all of them.
    open_conjuncts: Arc<[usize]>,
    /// How many of them have been evaluated.
    evaluated: usize,
    /// The columns to read of documents that pass.
    wanted: Arc<[usize]>,
    /// False if the documents were scanned before and only their other columns are read: cast failures count once.
    counts_cast_failures: bool,
}

impl Blocks {
    /// The share of a worker.
    pub(super) fn new(scan: Arc<ScanTask>, worker: usize, workers: usize) -> Self {
        Self {
            scan,
            worker,
            workers,
            units_taken: 0,
            candidates: Vec::new(),
            remainders: Vec::new(),
        }
    }

    /// The next documents that pass. Filters at least one block, then more until the time slice is used up.
    pub(super) fn next(&mut self, slice_end: Instant) -> Result<Next, Problem> {
        loop {
            self.scan.check()?;
            let Some(block) = self.next_block()? else {
                return Ok(Next::End);
            };
            if let Some(block) = process(&self.scan, block, &mut self.remainders)? {
                self.scan.stats.lock().matched += block.documents.len() as u64;
                return Ok(Next::Block(block));
            }
            if Instant::now() >= slice_end {
                return Ok(Next::Pause);
            }
        }
    }

    /// The totals of the wanted columns in the next documents, as far as the index knows them. Other documents are left to
    /// be read. None if it knows none of the next ones.
    pub(super) fn next_totals(&mut self) -> Result<Option<Totals>, Problem> {
        let scan = self.scan.clone();
        let Some((candidates, segment)) = self.next_decided(&scan)? else {
            return Ok(None);
        };
        if !std::mem::take(&mut candidates.may_have_totals) {
            return Ok(None);
        }
        let wanted = &scan.prepared.wanted;
        let columns: Vec<&Column> = wanted.iter().map(|column| &scan.prepared.columns[*column]).collect();
        let Some(mut totals) = segment.totals(&columns, &candidates.documents)? else {
            return Ok(None);
        };
        candidates.documents = std::mem::take(&mut totals.unknown).into();
        let mut stats = scan.stats.lock();
        stats.count_read(wanted, totals.documents);
        for (column, total) in wanted.iter().zip(&totals.columns) {
            stats.count_values(*column, total.present, 0);
        }
        Ok(Some(totals))
    }

    /// Whether no document is left to be read.
    pub(super) fn are_finished(&mut self) -> Result<bool, Problem> {
        Ok(self.remainders.is_empty() && self.next_candidates()?.is_none())
    }

    /// The next documents, if they are in a segment whose index has decided all conditions on them.
    fn next_decided<'a>(
        &'a mut self,
        scan: &'a ScanTask,
    ) -> Result<Option<(&'a mut Candidates, &'a Segment)>, Problem> {
        scan.check()?;
        if !self.remainders.is_empty() || scan.prepared.request.read != ScanSource::Auto {
            return Ok(None);
        }
        let Some(candidates) = self.next_candidates()? else {
            return Ok(None);
        };
        Ok(match candidates.part {
            ViewPart::Segment(number) if candidates.open_conjuncts.is_empty() => {
                Some((candidates, &scan.view.segments[number].segment))
            }
            _ => None,
        })
    }

    /// Counts the next documents by their values of the wanted columns, and makes rows of the groups; `accept` also gets
    /// the number of documents. With an interval, see [`Segment::count_groups`](crate::split::Segment::count_groups). None
    /// if the next documents must be read one by one, by [`next`](Self::next): then some condition is open, the segment
    /// does not count these values, or `accept` returns none.
    pub(super) fn next_groups<T>(
        &mut self,
        interval: Option<Interval>,
        accept: impl FnOnce(Vec<Groups>, usize) -> Result<Option<T>, Error>,
    ) -> Result<Option<T>, Problem> {
        let scan = self.scan.clone();
        let Some((candidates, segment)) = self.next_decided(&scan)? else {
            return Ok(None);
        };
        if !candidates.may_count_groups {
            return Ok(None);
        }
        let wanted = &scan.prepared.wanted;
        let columns: Vec<&Column> = wanted.iter().map(|column| &scan.prepared.columns[*column]).collect();
        let groups = segment.count_groups(&columns, interval, &candidates.documents)?;
        let accepted = match groups {
            None => None,
            Some(groups) => {
                let counted: Vec<_> = groups
                    .iter()
                    .flat_map(|groups| wanted.iter().zip(groups.columns.clone()))
                    .collect();
                accept(groups, candidates.documents.len())?.map(|rows| (rows, counted))
            }
        };
        let Some((rows, counted)) = accepted else {
            candidates.may_count_groups = false;
            return Ok(None);
        };
        let documents = std::mem::replace(&mut candidates.documents, Vec::new().into()).len();
        let mut stats = scan.stats.lock();
        stats.count_read(wanted, documents as u64);
        for (column, counted) in counted {
            stats.count_values(*column, counted.present, counted.cast_failures);
        }
        Ok(Some(rows))
    }

    fn next_block(&mut self) -> Result<Option<Block>, Problem> {
        if let Some(block) = self.remainders.pop() {
            return Ok(Some(block));
        }
        let Some(candidates) = self.next_candidates()? else {
            return Ok(None);
        };
        let documents = candidates.documents.take(BLOCK_DOCUMENTS_MAX);
        let (part, open_conjuncts) = (candidates.part, candidates.open_conjuncts.clone());
        self.scan.stats.lock().documents += documents.len() as u64;
        let wanted = self.scan.prepared.wanted.clone();
        Ok(Some(Block::new(&self.scan, part, documents, open_conjuncts, wanted)))
    }

    /// The candidates to read next, at least one document.
    fn next_candidates(&mut self) -> Result<Option<&mut Candidates>, Problem> {
        loop {
            while self
                .candidates
                .last()
                .is_some_and(|candidates| candidates.documents.len() == 0)
            {
                self.candidates.pop();
            }
            if !self.candidates.is_empty() {
                return Ok(self.candidates.last_mut());
            }
            self.scan.check()?;
            match self.scan.take_unit(self.worker, self.workers, &mut self.units_taken) {
                Some((number, unit)) => self.candidates = unit_candidates(&self.scan, number, unit)?,
                None => return Ok(None),
            }
        }
    }
}

/// The documents of a unit to scan. If none of them can be among the first rows that the scan returns, they are at most
/// counted.
fn unit_candidates(scan: &ScanTask, number: usize, unit: Unit) -> Result<Vec<Candidates>, Problem> {
    let counts_all = match scan.prepared.request.stage {
        Stage::Top {
            limit: 0, counts_all, ..
        } => counts_all,
        Stage::Top { counts_all, .. } if scan.best_keys.as_ref().is_some_and(|best| !best.may_have_rows(number)) => {
            counts_all
        }
        _ => return candidates_of(scan, unit),
    };
    if !counts_all {
        return Ok(Vec::new());
    }
    let (decided, undecided): (Vec<_>, Vec<_>) =
        (candidates_of(scan, unit)?.into_iter()).partition(|candidates| candidates.open_conjuncts.is_empty());
    let passed: usize = decided.iter().map(|candidates| candidates.documents.len()).sum();
    let mut stats = scan.stats.lock();
    stats.documents += passed as u64;
    stats.matched += passed as u64;
    Ok(undecided)
}

/// The live documents of a unit that the index does not exclude.
fn candidates_of(scan: &ScanTask, unit: Unit) -> Result<Vec<Candidates>, Problem> {
    let part = unit.part;
    let candidates = |documents, open_conjuncts| Candidates {
        part,
        documents,
        open_conjuncts,
        may_have_totals: true,
        may_count_groups: true,
    };
    let Some(index) = unit.index else {
        return Ok(vec![candidates(
            tail_candidates(scan, unit.from..unit.to).into(),
            (0..scan.conjuncts.len()).collect(),
        )]);
    };
    let outcome = scan.filter_outcome(index)?;
    let within = unit.from - outcome.first..unit.to - outcome.first;
    let numbered = |documents: &RoaringBitmap| DocumentNumbers::within(documents, within.clone(), outcome.first);
    // Mostly there is no condition, and nothing is deleted.
    let pass = if outcome.pass.range_cardinality(within.clone()) == within.len() as u64 {
        DocumentNumbers::Range(unit.from..unit.to)
    } else {
        numbered(&outcome.pass)
    };
    Ok(vec![
        candidates(numbered(&outcome.undecided), outcome.open_conjuncts.clone()),
        candidates(pass, Arc::default()),
    ])
}

/// The documents of the tail whose bytes do not exclude them. The others are not parsed.
fn tail_candidates(scan: &ScanTask, documents: Range<u32>) -> Vec<u32> {
    let needles = (scan.conjuncts.iter().enumerate())
        .filter_map(|(number, conjunct)| Some((number, conjunct.condition.needles.as_ref()?)));
    let needles: Vec<(usize, &Needles)> = needles.collect();
    if needles.is_empty() || scan.prepared.request.read != ScanSource::Auto {
        return documents.collect();
    }
    let all = documents.len();
    let mut excluded = vec![0; scan.conjuncts.len()];
    let may_pass = |document: &u32| {
        let bytes = &scan.view.tail[*document as usize].bytes;
        let lacking = needles.iter().find(|(_, needles)| !needles.may_be_in(bytes));
        if let Some((condition, _)) = lacking {
            excluded[*condition] += 1;
        }
        lacking.is_none()
    };
    let candidates: Vec<u32> = documents.filter(may_pass).collect();
    let mut stats = scan.stats.lock();
    stats.documents += (all - candidates.len()) as u64;
    for (counts, excluded) in stats.conditions.iter_mut().zip(excluded) {
        counts.bytes += excluded;
    }
    candidates
}

/// Reads columns of documents that passed the filter before; their document numbers must be ascending.
pub(super) fn fetch(
    scan: &ScanTask,
    part: ViewPart,
    documents: Vec<u32>,
    wanted: &Arc<[usize]>,
) -> Result<Vec<ArrayRef>, Error> {
    let block = Block {
        counts_cast_failures: false,
        ..Block::new(scan, part, documents, Arc::default(), wanted.clone())
    };
    let mut remainders = vec![block];
    let mut pieces: Vec<Vec<ArrayRef>> = Vec::new();
    while let Some(block) = remainders.pop() {
        scan.check()?;
        pieces.extend(process(scan, block, &mut remainders)?.map(|block| block.arrays));
    }
    if let [piece] = pieces.as_mut_slice() {
        return Ok(std::mem::take(piece));
    }
    let column = |number: usize| {
        concat(
            &pieces
                .iter()
                .map(|piece| piece[number].as_ref())
                .collect::<Vec<&dyn Array>>(),
        )
    };
    Ok((0..wanted.len()).map(column).collect::<Result<_, _>>()?)
}

/// Filters and reads a block. If it is too large to be read at once, the remainder is put into `remainders`.
fn process(scan: &ScanTask, mut block: Block, remainders: &mut Vec<Block>) -> Result<Option<ScannedBlock>, Error> {
    let from_columns = scan.prepared.request.read == ScanSource::Auto && block.advance(scan, None)?;
    if from_columns {
        return Ok(block.finish());
    }
    let documents = read_raw(scan, &block)?;
    if documents.len() < block.documents.len() {
        remainders.push(block.split_off(documents.len()));
    }
    scan.stats.lock().counts.raw += documents.len() as u64;
    block.rows = (0..u32::try_from(documents.len()).unwrap_or(u32::MAX)).collect();
    let rows = RawRows::new(
        documents.iter().map(Arc::as_ref).collect(),
        &scan.prepared.parts,
        scan.prepared.request.time_path.as_ref(),
    );
    block.advance(scan, Some(&rows))?;
    Ok(block.finish())
}

/// Reads the first raw documents of a block, as many as [`BLOCK_BYTES_MAX`] allows.
fn read_raw(scan: &ScanTask, block: &Block) -> Result<Vec<Arc<Document>>, Error> {
    let mut documents: Vec<Arc<Document>> = Vec::new();
    let mut bytes = 0;
    let mut at_once = READ_DOCUMENTS_FIRST;
    while documents.len() < block.documents.len() && bytes < BLOCK_BYTES_MAX {
        let left = &block.documents[documents.len()..];
        let piece: Vec<Arc<Document>> = match block.part {
            ViewPart::Tail => vec![scan.view.tail[left[0] as usize].clone()],
            ViewPart::Segment(number) => {
                let segment = &scan.view.segments[number].segment;
                let addresses: Vec<Address> = left
                    .iter()
                    .take(at_once)
                    .map(|document| segment.address(*document))
                    .collect();
                scan.view.store.read(&addresses)?.into_iter().map(Arc::new).collect()
            }
        };
        if piece.is_empty() {
            let reason = format!("document {} of the read view is missing", left[0]);
            return Err(Error::Corrupt {
                shard: scan.view.shard,
                kind: "document",
                reason,
            });
        }
        bytes += piece.iter().map(|document| document.memory_bytes()).sum::<usize>();
        documents.extend(piece);
        let bytes_mean = (bytes / documents.len()).max(1);
        at_once = (BLOCK_BYTES_MAX.saturating_sub(bytes) / bytes_mean).clamp(1, at_once * 4);
    }
    Ok(documents)
}

impl Block {
    fn new(
        scan: &ScanTask,
        part: ViewPart,
        documents: Vec<u32>,
        open_conjuncts: Arc<[usize]>,
        wanted: Arc<[usize]>,
    ) -> Self {
        Self {
            part,
            documents,
            rows: Vec::new(),
            arrays: vec![None; scan.prepared.columns.len()],
            open_conjuncts,
            evaluated: 0,
            wanted,
            counts_cast_failures: true,
        }
    }

    /// Filters the block and reads its columns. Returns false if that needs raw documents and `raw` is `None`.
    fn advance(&mut self, scan: &ScanTask, raw: Option<&RawRows<'_>>) -> Result<bool, Error> {
        while let Some(number) = self.open_conjuncts.get(self.evaluated) {
            let (number, conjunct) = (*number, &scan.conjuncts[*number]);
            let Some(values) = self.load_all(scan, &conjunct.condition.columns, raw)? else {
                return Ok(false);
            };
            let passes = conjunct.passes(values, self.documents.len())?;
            scan.stats.lock().conditions[number].evaluated += self.documents.len() as u64;
            self.retain(&passes)?;
            self.evaluated += 1;
            if self.documents.is_empty() {
                return Ok(true);
            }
        }
        let wanted = self.wanted.clone();
        Ok(self.load_all(scan, &wanted, raw)?.is_some())
    }

    fn load_all(
        &mut self,
        scan: &ScanTask,
        columns: &[usize],
        raw: Option<&RawRows<'_>>,
    ) -> Result<Option<Vec<ArrayRef>>, Error> {
        let mut values = Vec::with_capacity(columns.len());
        for column in columns {
            match self.load(scan, *column, raw)? {
                Some(array) => values.push(array),
                None => return Ok(None),
            }
        }
        Ok(Some(values))
    }

    fn load(&mut self, scan: &ScanTask, column: usize, raw: Option<&RawRows<'_>>) -> Result<Option<ArrayRef>, Error> {
        if let Some(array) = &self.arrays[column] {
            return Ok(Some(array.clone()));
        }
        let (values, stored) = match (self.stored(scan, column)?, raw) {
            (Some(values), _) => (values, true),
            (None, Some(rows)) => (rows.column(&scan.prepared.columns[column], &self.rows), false),
            (None, None) => return Ok(None),
        };
        assert_eq!(
            values.array.len(),
            self.documents.len(),
            "a column has a value for each document"
        );
        let documents = values.array.len() as u64;
        let reads = match stored {
            true => ColumnReads {
                stored: documents,
                ..ColumnReads::default()
            },
            false => self.raw_reads(scan, column, documents),
        };
        let mut stats = scan.stats.lock();
        stats.counts.columns += reads.stored;
        stats.column_reads[column].add(&reads);
        if self.counts_cast_failures || !scan.is_read_to_select(column) {
            stats.count_values(column, values.present, values.cast_failures);
        }
        self.arrays[column] = Some(values.array.clone());
        Ok(Some(values.array))
    }

    /// Why these values were read raw.
    fn raw_reads(&self, scan: &ScanTask, column: usize, documents: u64) -> ColumnReads {
        let mut reads = ColumnReads::default();
        let counted = match self.part {
            _ if scan.prepared.request.read == ScanSource::Raw => &mut reads.asked,
            ViewPart::Tail => &mut reads.tail,
            ViewPart::Segment(_) if self.is_column(scan, column) => &mut reads.outside,
            ViewPart::Segment(_) => &mut reads.unstored,
        };
        *counted = documents;
        reads
    }

    /// Whether the segment stores the column at all.
    fn is_column(&self, scan: &ScanTask, column: usize) -> bool {
        let ViewPart::Segment(number) = self.part else {
            return false;
        };
        let (column, time_path) = (&scan.prepared.columns[column], scan.prepared.request.time_path.as_ref());
        let stored = scan.view.segments[number].segment.values(column, time_path, &[]);
        stored.is_ok_and(|values| values.is_some())
    }

    /// The column's values in the segment, if it stores them.
    fn stored(&self, scan: &ScanTask, column: usize) -> Result<Option<ColumnValues>, Error> {
        match self.part {
            ViewPart::Segment(number) if scan.prepared.request.read == ScanSource::Auto => {
                let segment = &scan.view.segments[number].segment;
                segment.values(
                    &scan.prepared.columns[column],
                    scan.prepared.request.time_path.as_ref(),
                    &self.documents,
                )
            }
            _ => Ok(None),
        }
    }

    fn retain(&mut self, passes: &BooleanArray) -> Result<(), Error> {
        if passes.true_count() == passes.len() {
            return Ok(());
        }
        let kept = |numbers: &[u32]| -> Vec<u32> {
            numbers
                .iter()
                .zip(passes.values())
                .filter(|(_, pass)| *pass)
                .map(|(n, _)| *n)
                .collect()
        };
        self.documents = kept(&self.documents);
        self.rows = kept(&self.rows);
        for array in self.arrays.iter_mut().flatten() {
            *array = filter(array, passes)?;
        }
        Ok(())
    }

    /// Splits off the documents from `at` on, with everything already read and evaluated for them.
    fn split_off(&mut self, at: usize) -> Self {
        let documents = self.documents.split_off(at);
        let rest = documents.len();
        let arrays = self
            .arrays
            .iter()
            .map(|array| array.as_ref().map(|array| array.slice(at, rest)))
            .collect();
        for array in self.arrays.iter_mut().flatten() {
            *array = array.slice(0, at);
        }
        let (part, open_conjuncts, evaluated, wanted) = (
            self.part,
            self.open_conjuncts.clone(),
            self.evaluated,
            self.wanted.clone(),
        );
        Self {
            part,
            documents,
            rows: Vec::new(),
            arrays,
            open_conjuncts,
            evaluated,
            wanted,
            counts_cast_failures: self.counts_cast_failures,
        }
    }

    fn finish(self) -> Option<ScannedBlock> {
        if self.documents.is_empty() {
            return None;
        }
        let arrays = self
            .wanted
            .iter()
            .map(|column| self.arrays[*column].as_ref().map(arrays::compact))
            .collect::<Option<_>>()?;
        Some(ScannedBlock {
            part: self.part,
            documents: self.documents,
            arrays,
        })
    }
}
