//! Ranges of places in a partition: which documents a delete removes. The aggregator collects them, the leaf hides what
//! lies in them.
//!
//! A delete of 100 million documents in a row is one range. A document that is alone in its record takes all places of
//! its offset, so that neighbours join whatever the next record holds.

use crate::address::Address;

/// A place in a partition: an offset and an item of its record. Places sort as addresses do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Place {
    /// The offset of the record.
    pub offset: i64,
    /// The number of the item; 0 if the record has only one.
    pub item: u32,
}

impl Place {
    /// The place of an address.
    pub fn of(address: &Address) -> Self {
        Self {
            offset: address.offset,
            item: address.item.unwrap_or_default(),
        }
    }

    /// The first place of an offset.
    pub fn first(offset: i64) -> Self {
        Self { offset, item: 0 }
    }
}

/// A range of places: from the first one, up to but without the second one.
pub type PlaceRange = (Place, Place);

/// The range of a record that has one document, or of one item of a record.
pub fn range_of(offset: i64, item: Option<u32>) -> PlaceRange {
    let item = item.filter(|item| *item < u32::MAX);
    match item {
        Some(item) => (Place { offset, item }, Place { offset, item: item + 1 }),
        None => (Place::first(offset), Place::first(offset.saturating_add(1))),
    }
}

/// Ranges of places, ascending. None is empty, and no two meet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PlaceRanges(Vec<PlaceRange>);

impl FromIterator<PlaceRange> for PlaceRanges {
    fn from_iter<I: IntoIterator<Item = PlaceRange>>(ranges: I) -> Self {
        let mut sorted: Vec<PlaceRange> = ranges.into_iter().filter(|(from, to)| from < to).collect();
        sorted.sort_unstable();
        let mut joined = Self(Vec::with_capacity(sorted.len()));
        sorted.into_iter().for_each(|range| joined.append(range));
        joined
    }
}

impl PlaceRanges {
    /// Appends a range that begins at or after all others.
    fn append(&mut self, (from, to): PlaceRange) {
        match self.0.last_mut().filter(|last| from <= last.1) {
            Some(last) => last.1 = last.1.max(to),
            None => self.0.push((from, to)),
        }
    }

    /// The ranges.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = PlaceRange> + '_ {
        self.0.iter().copied()
    }

    /// From the begin of the first range to the end of the last one.
    pub fn span(&self) -> Option<PlaceRange> {
        Some((self.0.first()?.0, self.0.last()?.1))
    }

    /// The number of ranges.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no range.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a place lies in a range.
    pub fn contains(&self, place: Place) -> bool {
        let after = self.0.partition_point(|(from, _)| *from <= place);
        after.checked_sub(1).is_some_and(|at| place < self.0[at].1)
    }

    /// The ranges that meet the offsets after one, through another one.
    pub fn within(&self, after: i64, through: i64) -> &[PlaceRange] {
        let begin = Place::first(after.saturating_add(1));
        let first = self.0.partition_point(|(_, to)| *to <= begin);
        let end = self.0.partition_point(|(from, _)| from.offset <= through);
        self.0.get(first..end).unwrap_or_default()
    }

    /// Adds the places of other ranges.
    pub fn add(&mut self, others: &Self) {
        if others.is_empty() {
            return;
        }
        if self.0.last().is_none_or(|last| last.1 <= others.0[0].0) {
            others.iter().for_each(|range| self.append(range));
            return;
        }
        let known = std::mem::take(self);
        self.0.reserve(known.len() + others.len());
        let (mut mine, mut theirs) = (known.iter().peekable(), others.iter().peekable());
        loop {
            let next = match (mine.peek(), theirs.peek()) {
                (Some(one), Some(other)) if other < one => theirs.next(),
                (Some(_), _) => mine.next(),
                (None, _) => theirs.next(),
            };
            match next {
                Some(range) => self.append(range),
                None => break,
            }
        }
    }

    /// The places that are not in other ranges.
    #[must_use]
    pub fn without(&self, others: &Self) -> Self {
        let mut left = Self::default();
        let first = self.span().map_or(Place::default(), |(first, _)| first);
        let before = others.0.partition_point(|(_, end)| *end <= first);
        let mut others = others.0[before..].iter().copied().peekable();
        for (mut from, to) in self.iter() {
            while let Some((begin, end)) = others.next_if(|(_, end)| *end <= to) {
                if from < begin {
                    left.append((from, begin));
                }
                from = from.max(end);
            }
            // The next one may reach into the next range, too.
            let end = others.peek().map_or(to, |(begin, _)| to.min(*begin));
            if from < end {
                left.append((from, end));
            }
        }
        left
    }

    /// Joins all ranges that begin before this offset to one, with what lies between them.
    pub fn join_before(&mut self, offset: i64) {
        let before = self.0.partition_point(|(from, _)| *from < Place::first(offset));
        if let [(from, _), .., (_, to)] = self.0[..before] {
            self.0.splice(..before, [(from, to)]);
        }
    }

    /// Takes away the first ranges, at most `max`.
    pub fn split_first(&mut self, max: usize) -> Self {
        Self(self.0.drain(..max.min(self.0.len())).collect())
    }

    /// The ranges as numbers. Each range is four: how many offsets after the end of the last range it begins, its first
    /// item, how many offsets later it ends, and the item before which it ends.
    pub fn to_numbers(&self) -> Vec<u64> {
        let mut before = 0;
        let numbers = |(from, to): PlaceRange| {
            let gap = from.offset - std::mem::replace(&mut before, to.offset);
            let numbers = [gap, i64::from(from.item), to.offset - from.offset, i64::from(to.item)];
            numbers.map(i64::cast_unsigned)
        };
        self.iter().flat_map(numbers).collect()
    }

    /// The ranges of these numbers; none if they are not what [`Self::to_numbers`] returns.
    pub fn of_numbers(numbers: &[u64]) -> Option<Self> {
        let mut ranges = Vec::with_capacity(numbers.len() / 4);
        let mut before = Place::default();
        let (quadruples, rest) = numbers.as_chunks::<4>();
        for [gap, first_item, length, end_item] in quadruples {
            let later = |offset: i64, by: u64| offset.checked_add(i64::try_from(by).ok()?);
            let from = Place {
                offset: later(before.offset, *gap)?,
                item: u32::try_from(*first_item).ok()?,
            };
            let to = Place {
                offset: later(from.offset, *length)?,
                item: u32::try_from(*end_item).ok()?,
            };
            let ascends = from < to && (from > before || ranges.is_empty());
            if !ascends {
                return None;
            }
            ranges.push((from, to));
            before = to;
        }
        rest.is_empty().then_some(Self(ranges))
    }
}

/// Ranges that are waiting to be joined with the others, at least.
const PENDING_MIN: usize = 4_096;

/// Collects places in any order, in memory for their ranges and not for each place.
#[derive(Debug, Default)]
pub struct PlaceRangesBuilder {
    ranges: PlaceRanges,
    pending: Vec<PlaceRange>,
}

impl PlaceRangesBuilder {
    /// Adds a range.
    pub fn add(&mut self, (from, to): PlaceRange) {
        match self.pending.last_mut().filter(|last| last.1 == from) {
            Some(last) => last.1 = to,
            None => self.pending.push((from, to)),
        }
        // The more ranges there are, the more are added at a time: so each is moved only a few times.
        if self.pending.len() >= PENDING_MIN.max(self.ranges.len()) {
            self.join();
        }
    }

    fn join(&mut self) {
        let pending: PlaceRanges = self.pending.drain(..).collect();
        self.ranges.add(&pending);
    }

    /// The number of ranges, or more.
    pub fn len_max(&self) -> usize {
        self.ranges.len() + self.pending.len()
    }

    /// The ranges of all places.
    pub fn finish(mut self) -> PlaceRanges {
        self.join();
        self.ranges
    }
}

#[cfg(test)]
mod tests;
