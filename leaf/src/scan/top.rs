//! The best rows by sort keys. The keys alone are read of every document; the other columns only of the winners.

use std::collections::{BTreeMap, BinaryHeap};

use datafusion::arrow::{
    array::{Array, ArrayRef, UInt32Array},
    compute::{SortOptions, concat, take},
    row::{OwnedRow, Row, RowConverter, SortField},
};
use plan::scan::{After, SortKey};
use proto::{Address, Code, Problem};

use super::{
    blocks::{Found, fetch},
    prepared::{Place, Prepared},
};
use crate::error::Error;

/// Bytes of the keys of the best rows.
const KEYS_BYTES_MAX: usize = 512 << 20;
/// Winners whose columns are fetched at once.
const FETCH_DOCUMENTS: usize = 256;

/// The best rows so far.
pub struct Best {
    converter: RowConverter,
    after: Option<(OwnedRow, Address)>,
    limit: usize,
    heap: BinaryHeap<Candidate>,
    bytes: usize,
}

/// A row that is among the best so far. Ordered as the answer is: the worst is the greatest.
struct Candidate {
    key: OwnedRow,
    address: Address,
    place: Place,
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
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Candidate {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

impl Best {
    /// Looks for the first `limit` rows by these keys, after that row.
    pub fn new(keys: &[SortKey], after: Option<&After>, limit: usize) -> Result<Self, Error> {
        if keys.is_empty() {
            return Err(Problem::new(Code::BadRequest, "the first rows of a scan need a sort key").into());
        }
        let field = |key: &SortKey| {
            let options = SortOptions {
                descending: key.descending,
                nulls_first: key.nulls_first,
            };
            SortField::new_with_options(key.column.view.to.arrow(), options)
        };
        let converter = RowConverter::new(keys.iter().map(field).collect())?;
        let after = after.map(|after| after_row(&converter, keys, after)).transpose()?;
        Ok(Self {
            converter,
            after,
            limit,
            heap: BinaryHeap::new(),
            bytes: 0,
        })
    }

    /// Takes what is good enough of these documents, of which the keys were read.
    pub fn offer(&mut self, scan: &Prepared, found: &Found) -> Result<(), Error> {
        if self.limit == 0 {
            return Ok(());
        }
        let keys = self.converter.convert_columns(&found.arrays)?;
        for (number, document) in found.documents.iter().enumerate() {
            let key = keys.row(number);
            if self.heap.len() >= self.limit && self.heap.peek().is_some_and(|worst| key > worst.key.row()) {
                continue;
            }
            let address = address_of(scan, found.place, *document);
            if self
                .after
                .as_ref()
                .is_some_and(|(after, at)| (key, &address) <= (after.row(), at))
            {
                continue;
            }
            self.keep(Candidate {
                key: key.owned(),
                address,
                place: found.place,
                document: *document,
            })?;
        }
        Ok(())
    }

    fn keep(&mut self, candidate: Candidate) -> Result<(), Error> {
        if self.heap.len() >= self.limit {
            if self.heap.peek().is_some_and(|worst| candidate >= *worst) {
                return Ok(());
            }
            self.bytes -= self.heap.pop().map_or(0, |worst| worst.bytes());
        }
        self.bytes += candidate.bytes();
        if self.bytes > KEYS_BYTES_MAX {
            let detail = format!(
                "the sort keys of the first {} rows are over {KEYS_BYTES_MAX} bytes",
                self.limit
            );
            return Err(Problem::new(Code::LimitReached, detail)
                .hint("ask for fewer rows, or page through them")
                .into());
        }
        self.heap.push(candidate);
        Ok(())
    }

    /// Takes what is good enough of another worker's.
    pub fn absorb(&mut self, other: Self) -> Result<(), Error> {
        other.heap.into_iter().try_for_each(|candidate| self.keep(candidate))
    }

    /// The winners, the best first.
    pub fn winners(&mut self) -> Winners {
        let ranked = std::mem::take(&mut self.heap).into_sorted_vec();
        Winners {
            documents: ranked
                .into_iter()
                .map(|candidate| (candidate.place, candidate.document))
                .collect(),
            told: 0,
        }
    }
}

fn after_row(converter: &RowConverter, keys: &[SortKey], after: &After) -> Result<(OwnedRow, Address), Error> {
    if after.values.len() != keys.len() {
        let detail = format!(
            "a page begins after {} values, and {} keys are sorted by",
            after.values.len(),
            keys.len()
        );
        return Err(Problem::new(Code::BadRequest, detail)
            .hint("go on with the `after` of the same search")
            .into());
    }
    let value = |(value, key): (&datafusion::scalar::ScalarValue, &SortKey)| {
        value.cast_to(&key.column.view.to.arrow())?.to_array_of_size(1)
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

fn address_of(scan: &Prepared, place: Place, document: u32) -> Address {
    match place {
        Place::Segment(number) => scan.view.segments[number].segment.address(document),
        Place::Tail => scan.view.tail[document as usize].address.clone(),
    }
}

/// The winners of a top-k on their way out.
pub struct Winners {
    documents: Vec<(Place, u32)>,
    told: usize,
}

impl Winners {
    /// The output columns of the next of them, in their order; None when all were told.
    pub fn next(&mut self, scan: &Prepared) -> Result<Option<(Vec<ArrayRef>, usize)>, Error> {
        let end = (self.told + FETCH_DOCUMENTS).min(self.documents.len());
        let batch = &self.documents[self.told..end];
        if batch.is_empty() {
            return Ok(None);
        }
        self.told = end;
        let mut by_place: BTreeMap<Place, Vec<(u32, usize)>> = BTreeMap::new();
        for (rank, (place, document)) in batch.iter().enumerate() {
            by_place.entry(*place).or_default().push((*document, rank));
        }
        // Where each winner, by rank, stands among the fetched.
        let mut fetched_at = vec![0u32; batch.len()];
        let mut pieces: Vec<Vec<ArrayRef>> = Vec::new();
        let mut fetched = 0;
        for (place, mut documents) in by_place {
            documents.sort_unstable();
            for (_, rank) in &documents {
                fetched_at[*rank] = fetched;
                fetched += 1;
            }
            pieces.push(fetch(
                scan,
                place,
                documents.into_iter().map(|(document, _)| document).collect(),
                &scan.output,
            )?);
        }
        let order = UInt32Array::from(fetched_at);
        let column = |number: usize| -> Result<ArrayRef, Error> {
            let pieces: Vec<&dyn Array> = pieces.iter().map(|piece| piece[number].as_ref()).collect();
            Ok(take(&concat(&pieces)?, &order, None)?)
        };
        Ok(Some((
            (0..scan.output.len()).map(column).collect::<Result<_, _>>()?,
            order.len(),
        )))
    }
}
