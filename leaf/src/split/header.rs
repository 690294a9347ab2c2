//! Header: the address, times and id of each document of a part.
//!
//! Addresses ascend. So source and partition are stored once per run, and a binary search finds an address.

use std::{
    cmp::Ordering,
    io,
    sync::{Arc, OnceLock},
};

use proto::{
    Address, SourceName,
    place_ranges::{Place, PlaceRanges},
    record::TimeKind,
};
use roaring::RoaringBitmap;
use tantivy::columnar::{Column, ColumnarReader, DynamicColumn, DynamicColumnHandle};

use super::{
    columnar::{BufferedColumn, ColumnBuffer, TextBuffer},
    columns::TextColumn,
    dictionaries::Dictionaries,
};
use crate::{
    codec::{ValueReader, ValueWriter},
    document::Document,
};

const OFFSET: &str = "_offset";
const ITEM: &str = "_item";
const INGESTED: &str = "_ingested";
const TIME: &str = "_time";
const ID: &str = "_id";

/// Consecutive documents of one source partition.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct PartitionRun {
    pub first: u32,
    pub end: u32,
    pub source: SourceName,
    pub partition: i32,
}

/// Groups documents into runs.
pub(super) fn runs<'a>(documents: impl Iterator<Item = &'a Document>) -> Vec<PartitionRun> {
    let mut runs: Vec<PartitionRun> = Vec::new();
    for (number, Document { address, .. }) in (0u32..).zip(documents) {
        match runs
            .last_mut()
            .filter(|run| run.partition == address.partition && run.source == address.source)
        {
            Some(run) => run.end = number + 1,
            None => runs.push(PartitionRun {
                first: number,
                end: number + 1,
                source: address.source.clone(),
                partition: address.partition,
            }),
        }
    }
    runs
}

pub(super) fn encode_runs(runs: &[PartitionRun]) -> Vec<u8> {
    let run = |to: ValueWriter, run: &PartitionRun| {
        to.u32(run.first)
            .u32(run.end)
            .u32_text(run.source.as_str())
            .u32(run.partition as u32)
    };
    let count = ValueWriter::unversioned().u32(runs.len() as u32);
    runs.iter().fold(count, run).finish()
}

pub(super) fn decode_runs(bytes: &[u8]) -> io::Result<Vec<PartitionRun>> {
    let mut from = ValueReader::unversioned(bytes);
    let count = from.u32()?;
    let mut run = || {
        let (first, end, source, partition) = (from.u32()?, from.u32()?, from.u32_text()?, from.u32()? as i32);
        let source = source
            .parse()
            .map_err(|e: proto::address::Malformed| io::Error::new(io::ErrorKind::InvalidData, e))?;
        Ok(PartitionRun {
            first,
            end,
            source,
            partition,
        })
    };
    (0..count).map(|_| run()).collect()
}

/// The headers of the documents of a part that is being built.
#[derive(Debug, Default)]
pub(super) struct HeaderBuffers {
    offset: ColumnBuffer<i64>,
    item: ColumnBuffer<i64>,
    ingested: ColumnBuffer<i64>,
    time: ColumnBuffer<i64>,
    id: TextBuffer,
}

impl HeaderBuffers {
    /// Records the header of the next document.
    pub(super) fn push(&mut self, number: u32, document: &Document) {
        let Document { address, header, .. } = document;
        self.offset.push(number, address.offset);
        if let Some(item) = address.item {
            self.item.push(number, i64::from(item));
        }
        self.ingested.push(number, header.ingested_ms);
        if header.time_kind != TimeKind::None {
            self.time.push(number, header.time_ms);
        }
        if let Some(id) = &header.id {
            self.id.push(number, id);
        }
    }

    /// The columns with their names. They are written even if no document has a value.
    pub(super) fn columns(&self) -> [(&str, BufferedColumn<'_>); 5] {
        [
            (OFFSET, BufferedColumn::Int(&self.offset)),
            (ITEM, BufferedColumn::Int(&self.item)),
            (INGESTED, BufferedColumn::Int(&self.ingested)),
            (TIME, BufferedColumn::Int(&self.time)),
            (ID, BufferedColumn::Text(&self.id, usize::MAX)),
        ]
    }
}

/// The headers of an open part.
pub(super) struct Headers {
    pub runs: Vec<PartitionRun>,
    pub offset: Column<i64>,
    pub item: Column<i64>,
    ingested: LazyColumn<Column<i64>>,
    time: LazyColumn<Column<i64>>,
    id: LazyColumn<TextColumn>,
    /// None if the text columns have their dictionaries.
    dictionaries: Option<Arc<Dictionaries>>,
}

/// A column that is opened on first use. The columns of addresses are opened eagerly: deletes need them.
struct LazyColumn<T> {
    handle: DynamicColumnHandle,
    opened: OnceLock<T>,
}

impl<T> LazyColumn<T> {
    fn new(columns: &ColumnarReader, name: &str) -> io::Result<Self> {
        Ok(Self {
            handle: handle(columns, name)?,
            opened: OnceLock::new(),
        })
    }

    fn get(&self, name: &str, typed: impl FnOnce(DynamicColumn) -> io::Result<Option<T>>) -> io::Result<&T> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let opened = typed(self.handle.open()?)?.ok_or_else(|| missing(name))?;
        Ok(self.opened.get_or_init(|| opened))
    }
}

impl Headers {
    pub(super) fn open(
        columns: &ColumnarReader,
        dictionaries: Option<Arc<Dictionaries>>,
        runs: Vec<PartitionRun>,
    ) -> io::Result<Self> {
        let open = |name: &str| ints(handle(columns, name)?.open()?).ok_or_else(|| missing(name));
        let (offset, item) = (open(OFFSET)?, open(ITEM)?);
        Ok(Self {
            runs,
            offset,
            item,
            ingested: LazyColumn::new(columns, INGESTED)?,
            time: LazyColumn::new(columns, TIME)?,
            id: LazyColumn::new(columns, ID)?,
            dictionaries,
        })
    }

    /// When each document was ingested, in milliseconds since 1970.
    pub(super) fn ingested(&self) -> io::Result<&Column<i64>> {
        self.ingested.get(INGESTED, |column| Ok(ints(column)))
    }

    /// The record's time in milliseconds since 1970, for records that have one.
    pub(super) fn time(&self) -> io::Result<&Column<i64>> {
        self.time.get(TIME, |column| Ok(ints(column)))
    }

    /// The ids of documents that have one of their own.
    pub(super) fn id(&self) -> io::Result<&TextColumn> {
        self.id
            .get(ID, |column| TextColumn::open(column, ID, self.dictionaries.as_deref()))
    }

    pub(super) fn run(&self, document: u32) -> Option<&PartitionRun> {
        let next = self.runs.partition_point(|run| run.first <= document);
        self.runs.get(next.checked_sub(1)?).filter(|run| document < run.end)
    }

    pub(super) fn address(&self, document: u32) -> Option<Address> {
        let PartitionRun { source, partition, .. } = self.run(document)?;
        let (offset, item) = self.offset_and_item(document);
        Some(Address {
            source: source.clone(),
            partition: *partition,
            offset,
            item,
        })
    }

    fn offset_and_item(&self, document: u32) -> (i64, Option<u32>) {
        (
            self.offset.first(document).unwrap_or(-1),
            self.item.first(document).and_then(|item| u32::try_from(item).ok()),
        )
    }

    /// The document at an address, if the part holds it.
    pub(super) fn find(&self, address: &Address) -> Option<u32> {
        let same_partition = |run: &&PartitionRun| run.partition == address.partition && run.source == address.source;
        self.runs
            .iter()
            .filter(same_partition)
            .find_map(|run| self.find_in(run, (address.offset, address.item)))
    }

    /// Adds the documents in these ranges of a partition to `found`. The first document of the part has the number
    /// `first`.
    pub(super) fn find_ranges(
        &self,
        source: &SourceName,
        partition: i32,
        ranges: &PlaceRanges,
        first: u32,
        found: &mut RoaringBitmap,
    ) {
        let same_partition = |run: &&PartitionRun| run.partition == partition && run.source == *source;
        for run in self
            .runs
            .iter()
            .filter(same_partition)
            .filter(|run| run.first < run.end)
        {
            let (begin, end) = (self.place(run.first).offset, self.place(run.end - 1).offset);
            let mut next = run.first;
            for (from, to) in ranges.within(begin.saturating_sub(1), end) {
                let low = self.first_at(next, run.end, *from);
                next = self.first_at(low, run.end, *to);
                found.insert_range(first + low..first + next);
            }
        }
    }

    fn place(&self, document: u32) -> Place {
        let (offset, item) = self.offset_and_item(document);
        Place {
            offset,
            item: item.unwrap_or_default(),
        }
    }

    /// Finds the first document in `low..end` at or after a place, and returns `end` if all of them come before it. Gallops
    /// from `low`, because ranges are looked up in ascending order.
    fn first_at(&self, mut low: u32, end: u32, wanted: Place) -> u32 {
        let (mut high, mut step) = (end, 1);
        while let Some(probe) = low.checked_add(step - 1).filter(|probe| *probe < end) {
            if self.place(probe) >= wanted {
                high = probe;
                break;
            }
            low = probe + 1;
            step *= 2;
        }
        while low < high {
            let middle = low + (high - low) / 2;
            match self.place(middle) < wanted {
                true => low = middle + 1,
                false => high = middle,
            }
        }
        low
    }

    fn find_in(&self, run: &PartitionRun, wanted: (i64, Option<u32>)) -> Option<u32> {
        let (mut low, mut high) = (run.first, run.end);
        while low < high {
            let middle = low + (high - low) / 2;
            match self.offset_and_item(middle).cmp(&wanted) {
                Ordering::Equal => return Some(middle),
                Ordering::Less => low = middle + 1,
                Ordering::Greater => high = middle,
            }
        }
        None
    }
}

fn handle(columns: &ColumnarReader, name: &str) -> io::Result<DynamicColumnHandle> {
    columns
        .read_columns(name)?
        .into_iter()
        .next()
        .ok_or_else(|| missing(name))
}

fn ints(column: DynamicColumn) -> Option<Column<i64>> {
    match column {
        DynamicColumn::I64(column) => Some(column),
        _ => None,
    }
}

fn missing(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the split has no column {name}"))
}
