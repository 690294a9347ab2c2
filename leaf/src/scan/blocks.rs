//! Blocks: a bounded number of documents at a time, from candidates to values.
//!
//! Columns are read where a segment has them; what is left is read from raw documents, a bounded number of bytes at
//! once, each parsed once.

use std::{sync::Arc, time::Instant};

use datafusion::arrow::{
    array::{Array, ArrayRef, BooleanArray},
    compute::{concat, filter},
};
use plan::{arrays, scan::Read};
use proto::{Address, Problem};

use super::prepared::{Place, Prepared, Unit};
use crate::{document::Document, error::Error, raw::Rows, split::Values};

/// Documents of a block.
const BLOCK_DOCUMENTS_MAX: usize = 8_192;
/// Raw bytes of a block; a single larger document is a block of its own.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Raw documents that are read in one call before it is known how big they are.
const READ_DOCUMENTS_FIRST: usize = 16;

/// Documents that passed the filter, and the values that were wanted of them.
pub struct Found {
    /// Where they are.
    pub place: Place,
    /// Which, ascending.
    pub documents: Vec<u32>,
    /// The wanted columns, in order.
    pub arrays: Vec<ArrayRef>,
}

/// What comes next.
pub enum Next {
    /// Documents.
    Found(Found),
    /// The time slice is used up.
    Pause,
    /// There is no more.
    End,
}

/// A worker's way through its share of a scan.
pub struct Blocks {
    /// The scan.
    pub scan: Arc<Prepared>,
    worker: usize,
    workers: usize,
    taken: usize,
    /// What is left to do of the unit at hand.
    candidates: Vec<Candidates>,
    /// Parts of blocks that were too big.
    waiting: Vec<Block>,
}

/// Documents for which the same conditions are open.
struct Candidates {
    place: Place,
    documents: std::vec::IntoIter<u32>,
    open: Arc<[usize]>,
}

/// Documents on their way through the filter.
struct Block {
    place: Place,
    documents: Vec<u32>,
    /// Where each of them is among the raw documents that were read for the block, if any were.
    rows: Vec<u32>,
    /// Values of columns that were read, by column.
    arrays: Vec<Option<ArrayRef>>,
    /// Conditions that are open.
    open: Arc<[usize]>,
    decided: usize,
    /// The columns that are read of those who pass.
    wanted: Arc<[usize]>,
    /// False where documents come by a second time, for the rest of their columns: what does not fit is counted once.
    counts_misfits: bool,
}

impl Blocks {
    /// The share of a worker.
    pub fn new(scan: Arc<Prepared>, worker: usize, workers: usize) -> Self {
        Self {
            scan,
            worker,
            workers,
            taken: 0,
            candidates: Vec::new(),
            waiting: Vec::new(),
        }
    }

    /// The next documents that pass. At least one block is worked on, then as many as there are until the slice is used
    /// up.
    pub fn next(&mut self, slice_end: Instant) -> Result<Next, Problem> {
        loop {
            self.scan.check()?;
            let Some(block) = self.next_block()? else {
                return Ok(Next::End);
            };
            if let Some(found) = run(&self.scan, block, &mut self.waiting)? {
                self.scan.tally.lock().matched += found.documents.len() as u64;
                return Ok(Next::Found(found));
            }
            if Instant::now() >= slice_end {
                return Ok(Next::Pause);
            }
        }
    }

    fn next_block(&mut self) -> Result<Option<Block>, Problem> {
        if let Some(block) = self.waiting.pop() {
            return Ok(Some(block));
        }
        loop {
            while let Some(candidates) = self.candidates.last_mut() {
                let documents: Vec<u32> = candidates.documents.by_ref().take(BLOCK_DOCUMENTS_MAX).collect();
                if documents.is_empty() {
                    self.candidates.pop();
                    continue;
                }
                self.scan.tally.lock().documents += documents.len() as u64;
                return Ok(Some(Block::new(
                    &self.scan,
                    candidates.place,
                    documents,
                    candidates.open.clone(),
                    self.scan.wanted.clone(),
                )));
            }
            match self.scan.take_unit(self.worker, self.workers, &mut self.taken) {
                Some(unit) => self.candidates = candidates_of(&self.scan, unit)?,
                None => return Ok(None),
            }
        }
    }
}

/// The documents of a unit that the index does not exclude and that are not gone.
fn candidates_of(scan: &Prepared, unit: Unit) -> Result<Vec<Candidates>, Problem> {
    let place = unit.place;
    let candidates = |documents: Vec<u32>, open| Candidates {
        place,
        documents: documents.into_iter(),
        open,
    };
    let Place::Segment(number) = place else {
        return Ok(vec![candidates(
            (unit.from..unit.to).collect(),
            (0..scan.conjuncts.len()).collect(),
        )]);
    };
    let decided = scan.decided(number)?;
    let pass = decided.pass.range(unit.from..unit.to).collect();
    let doubtful = decided.doubtful.range(unit.from..unit.to).collect();
    Ok(vec![
        candidates(doubtful, decided.open.clone()),
        candidates(pass, Arc::default()),
    ])
}

/// Columns of some documents of a place, ascending, that passed the filter before.
pub fn fetch(
    scan: &Prepared,
    place: Place,
    documents: Vec<u32>,
    wanted: &Arc<[usize]>,
) -> Result<Vec<ArrayRef>, Error> {
    let block = Block {
        counts_misfits: false,
        ..Block::new(scan, place, documents, Arc::default(), wanted.clone())
    };
    let mut waiting = vec![block];
    let mut pieces: Vec<Vec<ArrayRef>> = Vec::new();
    while let Some(block) = waiting.pop() {
        scan.check()?;
        pieces.extend(run(scan, block, &mut waiting)?.map(|found| found.arrays));
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

/// Brings a block through; a part that is too big to be read at once waits.
fn run(scan: &Prepared, mut block: Block, waiting: &mut Vec<Block>) -> Result<Option<Found>, Error> {
    let from_columns = scan.request.read == Read::Auto && block.advance(scan, None)?;
    if from_columns {
        return Ok(block.found());
    }
    let documents = read(scan, &block)?;
    if documents.len() < block.documents.len() {
        waiting.push(block.split_off(documents.len()));
    }
    scan.tally.lock().counts.raw += documents.len() as u64;
    block.rows = (0..u32::try_from(documents.len()).unwrap_or(u32::MAX)).collect();
    let rows = Rows::new(
        documents.iter().map(Arc::as_ref).collect(),
        scan.request.time_path.as_ref(),
    );
    block.advance(scan, Some(&rows))?;
    Ok(block.found())
}

/// The first raw documents of a block, as many as may be read at once.
fn read(scan: &Prepared, block: &Block) -> Result<Vec<Arc<Document>>, Error> {
    let mut documents: Vec<Arc<Document>> = Vec::new();
    let mut bytes = 0;
    let mut at_once = READ_DOCUMENTS_FIRST;
    while documents.len() < block.documents.len() && bytes < BLOCK_BYTES_MAX {
        let left = &block.documents[documents.len()..];
        let piece: Vec<Arc<Document>> = match block.place {
            Place::Tail => vec![scan.view.tail[left[0] as usize].clone()],
            Place::Segment(number) => {
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
            let reason = format!("{} is named by a view and not there", left[0]);
            return Err(Error::Corrupt {
                shard: scan.view.shard,
                kind: "document",
                reason,
            });
        }
        bytes += piece.iter().map(|document| document.weight()).sum::<usize>();
        documents.extend(piece);
        let weight_mean = (bytes / documents.len()).max(1);
        at_once = (BLOCK_BYTES_MAX.saturating_sub(bytes) / weight_mean).clamp(1, at_once * 4);
    }
    Ok(documents)
}

impl Block {
    fn new(scan: &Prepared, place: Place, documents: Vec<u32>, open: Arc<[usize]>, wanted: Arc<[usize]>) -> Self {
        Self {
            place,
            documents,
            rows: Vec::new(),
            arrays: vec![None; scan.columns.len()],
            open,
            decided: 0,
            wanted,
            counts_misfits: true,
        }
    }

    /// Filters and reads as far as it goes: false where raw documents are needed and not given.
    fn advance(&mut self, scan: &Prepared, raw: Option<&Rows<'_>>) -> Result<bool, Error> {
        while let Some(open) = self.open.get(self.decided) {
            let conjunct = &scan.conjuncts[*open];
            let Some(values) = self.load_all(scan, &conjunct.columns, raw)? else {
                return Ok(false);
            };
            let passes = conjunct.passes(values, self.documents.len())?;
            self.keep(&passes)?;
            self.decided += 1;
            if self.documents.is_empty() {
                return Ok(true);
            }
        }
        let wanted = self.wanted.clone();
        Ok(self.load_all(scan, &wanted, raw)?.is_some())
    }

    fn load_all(
        &mut self,
        scan: &Prepared,
        columns: &[usize],
        raw: Option<&Rows<'_>>,
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

    fn load(&mut self, scan: &Prepared, column: usize, raw: Option<&Rows<'_>>) -> Result<Option<ArrayRef>, Error> {
        if let Some(array) = &self.arrays[column] {
            return Ok(Some(array.clone()));
        }
        let (values, stored) = match (self.stored(scan, column)?, raw) {
            (Some(values), _) => (values, true),
            (None, Some(rows)) => (rows.column(&scan.columns[column], &self.rows), false),
            (None, None) => return Ok(None),
        };
        assert_eq!(
            values.array.len(),
            self.documents.len(),
            "a column has a value for each document"
        );
        let mut tally = scan.tally.lock();
        tally.counts.columns += if stored { values.array.len() as u64 } else { 0 };
        if self.counts_misfits || !scan.is_read_to_choose(column) {
            tally.saw(column, &values);
        }
        self.arrays[column] = Some(values.array.clone());
        Ok(Some(values.array))
    }

    /// The column as the segment stores it.
    fn stored(&self, scan: &Prepared, column: usize) -> Result<Option<Values>, Error> {
        match self.place {
            Place::Segment(number) if scan.request.read == Read::Auto => {
                let segment = &scan.view.segments[number].segment;
                segment.values(&scan.columns[column], scan.request.time_path.as_ref(), &self.documents)
            }
            _ => Ok(None),
        }
    }

    fn keep(&mut self, passes: &BooleanArray) -> Result<(), Error> {
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

    /// Cuts the block after so many documents; the rest has what was read and decided already.
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
        let (place, open, decided, wanted) = (self.place, self.open.clone(), self.decided, self.wanted.clone());
        Self {
            place,
            documents,
            rows: Vec::new(),
            arrays,
            open,
            decided,
            wanted,
            counts_misfits: self.counts_misfits,
        }
    }

    fn found(self) -> Option<Found> {
        if self.documents.is_empty() {
            return None;
        }
        let arrays = self
            .wanted
            .iter()
            .map(|column| self.arrays[*column].as_ref().map(arrays::compact))
            .collect::<Option<_>>()?;
        Some(Found {
            place: self.place,
            documents: self.documents,
            arrays,
        })
    }
}
