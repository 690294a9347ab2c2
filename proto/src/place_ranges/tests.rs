//! Tests of `place_ranges`.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

const OFFSETS: i64 = 12;
const ITEMS: u32 = 3;

/// Every place that a test asks for.
fn places() -> impl Iterator<Item = Place> {
    (0..OFFSETS + 2).flat_map(|offset| (0..=ITEMS).map(move |item| Place { offset, item }))
}

fn documents() -> impl Strategy<Value = Vec<(i64, Option<u32>)>> {
    prop::collection::vec((0..OFFSETS, prop::option::of(0..ITEMS)), 0..40)
}

/// The places in these documents, one by one.
fn one_by_one(documents: &[(i64, Option<u32>)]) -> BTreeSet<Place> {
    let covers = |place: &Place| {
        let is_it =
            |(offset, item): &(i64, Option<u32>)| place.offset == *offset && item.is_none_or(|item| place.item == item);
        documents.iter().any(is_it)
    };
    places().filter(covers).collect()
}

fn ranges(documents: &[(i64, Option<u32>)]) -> PlaceRanges {
    documents
        .iter()
        .map(|(offset, item)| range_of(*offset, *item))
        .collect()
}

fn contained(ranges: &PlaceRanges) -> BTreeSet<Place> {
    places().filter(|place| ranges.contains(*place)).collect()
}

proptest! {
    #[test]
    fn ranges_contain_the_places_they_were_made_of(one in documents(), other in documents()) {
        prop_assert_eq!(contained(&ranges(&one)), one_by_one(&one));
        let mut both = ranges(&one);
        both.add(&ranges(&other));
        let together: Vec<_> = one.iter().chain(&other).copied().collect();
        prop_assert_eq!(&both, &ranges(&together));
        prop_assert_eq!(contained(&both), one_by_one(&together));
        let mut builder = PlaceRangesBuilder::default();
        together.iter().for_each(|(offset, item)| builder.add(range_of(*offset, *item)));
        prop_assert_eq!(builder.finish(), both);
        let left = ranges(&one).without(&ranges(&other));
        prop_assert_eq!(contained(&left), &one_by_one(&one) - &one_by_one(&other));
        prop_assert!(left.iter().is_sorted() && left.iter().all(|(from, to)| from < to));
    }

    #[test]
    fn joined_ranges_have_what_lies_between_them_and_no_place_after_the_offset(documents in documents(), offset in -1..OFFSETS + 2) {
        let ranges = ranges(&documents);
        let mut joined = ranges.clone();
        joined.join_before(offset);
        let begins: Vec<PlaceRange> = ranges.iter().filter(|(from, _)| *from < Place::first(offset)).collect();
        let span = begins.first().zip(begins.last());
        let is_between = |place: &Place| span.is_some_and(|((from, _), (_, to))| from <= place && place < to);
        let wanted: BTreeSet<Place> = places().filter(|place| ranges.contains(*place) || is_between(place)).collect();
        prop_assert_eq!(contained(&joined), wanted);
        let begin_before = joined.iter().filter(|(from, _)| *from < Place::first(offset));
        prop_assert!(begin_before.count() <= 1);
    }

    #[test]
    fn ranges_round_trip_as_numbers(documents in documents()) {
        let ranges = ranges(&documents);
        let numbers = ranges.to_numbers();
        prop_assert_eq!(PlaceRanges::of_numbers(&numbers), Some(ranges.clone()));
        if let Some(cut) = numbers.len().checked_sub(1) {
            prop_assert_eq!(PlaceRanges::of_numbers(&numbers[..cut]), None);
        }
    }

    #[test]
    fn the_ranges_of_a_run_are_those_that_meet_it(documents in documents(), after in -1..OFFSETS, length in 0..OFFSETS) {
        let (ranges, through) = (ranges(&documents), after + length);
        let meets = |(from, to): &PlaceRange| from.offset <= through && *to > Place::first(after + 1);
        let wanted: Vec<PlaceRange> = ranges.iter().filter(meets).collect();
        prop_assert_eq!(ranges.within(after, through), wanted);
    }

    #[test]
    fn ranges_taken_away_in_turn_are_all_of_them(documents in documents(), max in 1..5usize) {
        let (mut rest, mut again) = (ranges(&documents), PlaceRanges::default());
        while !rest.is_empty() {
            let first = rest.split_first(max);
            prop_assert!(!first.is_empty() && first.len() <= max);
            again.add(&first);
        }
        prop_assert_eq!(again, ranges(&documents));
    }
}

#[test]
fn single_documents_in_a_row_are_one_range_and_items_are_one_per_record() {
    let mut builder = PlaceRangesBuilder::default();
    for offset in (0..100_000).rev() {
        builder.add(range_of(offset, None));
    }
    assert_eq!(builder.finish().len(), 1);
    let items = (0..10).flat_map(|offset| (0..100).map(move |item| range_of(offset, Some(item))));
    assert_eq!(items.collect::<PlaceRanges>().len(), 10);
}

#[test]
fn numbers_that_descend_or_overflow_are_no_ranges() {
    for numbers in [
        &[0, 0, 0, 0][..],
        &[5, 2, 0, 1],
        &[0, 0, 1, 0, 0, 0, 1, 0],
        &[u64::MAX, 0, 1, 0],
        &[0, 1 << 40, 1, 0],
        &[1, 0, i64::MAX as u64, 0],
    ] {
        assert_eq!(PlaceRanges::of_numbers(numbers), None, "{numbers:?}");
    }
}
