//! Top k rows by sort keys. Only the keys are read of every document; the other columns are read of the top k.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BinaryHeap},
};

use datafusion::arrow::{
    array::{Array, ArrayRef, UInt32Array},
    compute::{concat, take},
    row::{OwnedRow, Row, RowConverter},
};
use plan::scan::{PageStart, SortKey};
use proto::{Address, Code, Problem};

use super::{
    blocks::{ScannedBlock, fetch},
    task::{ScanTask, ViewPart},
};
use crate::error::Error;

/// Bytes of the sort keys that one [`TopK`] keeps in memory. A scan has one per worker, and one that merges theirs.
const KEYS_BYTES_MAX: usize = 512 << 20;
/// Documents whose columns are fetched at once.
const FETCH_DOCUMENTS: usize = 256;

/// The top k rows so far.
pub(super) struct TopK {
    converter: RowConverter,
    after: Option<(OwnedRow, Address)>,
    limit: usize,
    heap: BinaryHeap<Candidate>,
    bytes: usize,
}

/// A row among the top k so far. Ordered like the result: the last row is the greatest.
struct Candidate {
    key: OwnedRow,
    address: Address,
    part: ViewPart,
    document: u32,
}

impl Candidate {
    fn rank(&self) -> (Row<'_>, &Address) {
        (self.key.row(), &self.address)
    }

    fn bytes(&self) -> usize {
        const FIXED: usize = 160;
        FIXED + self.key.as_ref().len()
    }
}

impl PartialEq for Candidate {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Candidate {}

impl PartialOrd for Candidate {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl TopK {
    /// Collects the first `limit` rows by these keys, after the row `after`.
    pub(super) fn new(keys: &[SortKey], after: Option<&PageStart>, limit: usize) -> Result<Self, Error> {
        if keys.is_empty() {
            return Err(Problem::new(Code::BadRequest, "a top-k scan needs at least one sort key").into());
        }
        let converter = RowConverter::new(keys.iter().map(SortKey::sort_field).collect())?;
        let after = after.map(|after| after_row(&converter, keys, after)).transpose()?;
        Ok(Self {
            converter,
            after,
            limit,
            heap: BinaryHeap::new(),
            bytes: 0,
        })
    }

    /// Adds the documents of a block that belong to the top k so far. The block's columns are the sort keys.
    pub(super) fn offer(&mut self, scan: &ScanTask, block: &ScannedBlock) -> Result<(), Error> {
        if self.limit == 0 {
            return Ok(());
        }
        let keys = self.converter.convert_columns(&block.arrays)?;
        let address = |row: usize| address_of(scan, block.part, block.documents[row]);
        let worst = self.heap.peek().filter(|_| self.heap.len() >= self.limit);
        let is_candidate = |row: &usize| {
            let key = keys.row(*row);
            let is_after = self
                .after
                .as_ref()
                .is_none_or(|(after, at)| match key.cmp(&after.row()) {
                    Ordering::Less => false,
                    Ordering::Equal => address(*row) > *at,
                    Ordering::Greater => true,
                });
            is_after && worst.is_none_or(|worst| key <= worst.key.row())
        };
        let mut rows: Vec<usize> = (0..block.documents.len()).filter(is_candidate).collect();
        // Often each document of a block is better than those before it. Addresses decide between equal keys.
        if rows.len() > self.limit {
            let by_key = |one: &usize, other: &usize| keys.row(*one).cmp(&keys.row(*other));
            let last = *rows.select_nth_unstable_by(self.limit - 1, by_key).1;
            rows.retain(|row| keys.row(*row) <= keys.row(last));
        }
        for row in rows {
            self.push(Candidate {
                key: keys.row(row).owned(),
                address: address(row),
                part: block.part,
                document: block.documents[row],
            })?;
        }
        if let Some(best) = scan.best_keys.as_ref().filter(|_| self.heap.len() >= self.limit) {
            self.heap
                .peek()
                .into_iter()
                .for_each(|worst| best.has_enough(&worst.key));
        }
        Ok(())
    }

    fn push(&mut self, candidate: Candidate) -> Result<(), Error> {
        if self.heap.len() >= self.limit {
            if self.heap.peek().is_some_and(|worst| candidate >= *worst) {
                return Ok(());
            }
            self.bytes -= self.heap.pop().map_or(0, |worst| worst.bytes());
        }
        self.bytes += candidate.bytes();
        if self.bytes > KEYS_BYTES_MAX {
            let detail = format!(
                "the sort keys of the first {} rows exceed {KEYS_BYTES_MAX} bytes",
                self.limit
            );
            return Err(Problem::new(Code::LimitReached, detail)
                .hint("use a smaller limit, or page through the rows")
                .into());
        }
        self.heap.push(candidate);
        Ok(())
    }

    /// Adds another worker's rows that belong to the top k.
    pub(super) fn merge(&mut self, other: Self) -> Result<(), Error> {
        other.heap.into_iter().try_for_each(|candidate| self.push(candidate))
    }

    /// Takes out the top k rows, in order.
    pub(super) fn take_rows(&mut self) -> TopKRows {
        let ranked = std::mem::take(&mut self.heap).into_sorted_vec();
        TopKRows {
            documents: ranked
                .into_iter()
                .map(|candidate| (candidate.part, candidate.document))
                .collect(),
            emitted: 0,
        }
    }
}

fn after_row(converter: &RowConverter, keys: &[SortKey], after: &PageStart) -> Result<(OwnedRow, Address), Error> {
    if after.values.len() != keys.len() {
        let detail = format!(
            "the page starts after {} values, but there are {} sort keys",
            after.values.len(),
            keys.len()
        );
        return Err(Problem::new(Code::BadRequest, detail)
            .hint("continue with the `after` of the same search")
            .into());
    }
    let value = |(value, key): (&datafusion::scalar::ScalarValue, &SortKey)| {
        value.cast_to(&key.column.read_as.to.arrow())?.to_array_of_size(1)
    };
    let values = after
        .values
        .iter()
        .zip(keys)
        .map(value)
        .collect::<Result<Vec<ArrayRef>, _>>()?;
    Ok((
        converter.convert_columns(&values)?.row(0).owned(),
        after.address.clone(),
    ))
}

fn address_of(scan: &ScanTask, part: ViewPart, document: u32) -> Address {
    match part {
        ViewPart::Segment(number) => scan.view.segments[number].segment.address(document),
        ViewPart::Tail => scan.view.tail[document as usize].address.clone(),
    }
}

/// The rows of a finished top-k; fetches their columns batch by batch.
pub(super) struct TopKRows {
    documents: Vec<(ViewPart, u32)>,
    emitted: usize,
}

impl TopKRows {
    /// The output columns of the next rows, in order; `None` at the end.
    pub(super) fn next(&mut self, scan: &ScanTask) -> Result<Option<(Vec<ArrayRef>, usize)>, Error> {
        let end = (self.emitted + FETCH_DOCUMENTS).min(self.documents.len());
        let batch = &self.documents[self.emitted..end];
        if batch.is_empty() {
            return Ok(None);
        }
        self.emitted = end;
        let mut by_part: BTreeMap<ViewPart, Vec<(u32, usize)>> = BTreeMap::new();
        for (rank, (part, document)) in batch.iter().enumerate() {
            by_part.entry(*part).or_default().push((*document, rank));
        }
        // The index of each row among the fetched ones, by rank.
        let mut fetched_at = vec![0u32; batch.len()];
        let mut pieces: Vec<Vec<ArrayRef>> = Vec::new();
        let mut fetched = 0;
        for (part, mut documents) in by_part {
            documents.sort_unstable();
            for (_, rank) in &documents {
                fetched_at[*rank] = fetched;
                fetched += 1;
            }
            pieces.push(fetch(
                scan,
                part,
                documents.into_iter().map(|(document, _)| document).collect(),
                &scan.prepared.output,
            )?);
        }
        let order = UInt32Array::from(fetched_at);
        let column = |number: usize| -> Result<ArrayRef, Error> {
            let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| piece[number].as_ref()).collect();
            Ok(take(&concat(&pieces)?, &order, None)?)
        };
        Ok(Some((
            (0..scan.prepared.output.len()).map(column).collect::<Result<_, _>>()?,
            order.len(),
        )))
    }
}
