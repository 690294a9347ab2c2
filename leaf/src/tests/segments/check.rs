//! Compares what a segment answers with the bytes of its documents: the headers, every path in every type, conditions
//! and searches.

use std::{collections::BTreeMap, ops::Deref, sync::Arc};

use crate::{
    document::Document,
    matches::Matches,
    raw::{self, CastResult, Scalar},
    split::{ColumnBounds, DocumentNumbers, GroupColumn, Literal, Lookup, Segment},
};
use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use datafusion::scalar::ScalarValue;
use plan::{
    Column, ColumnSource, Path, PathType, Type,
    matcher::Matcher,
    path::Step,
    search::{Clause, Match, RangeBound},
};
use proto::{Address, json::Value};
use roaring::RoaringBitmap;

use super::super::made_up::{self, Dice};

/// A document whose bytes are parsed once, for all that is checked of it.
pub(super) struct Parsed<'a> {
    document: &'a Document,
    root: Value<'a>,
}

impl<'a> Parsed<'a> {
    pub(super) fn new(document: &'a Document) -> Self {
        Self {
            document,
            root: raw::root(document),
        }
    }

    fn all(documents: &'a [Arc<Document>]) -> Vec<Self> {
        documents.iter().map(|document| Self::new(document)).collect()
    }

    /// The value that the bytes have at a path, and whether it does not fit the type.
    pub(super) fn value(&self, path: &Path, read_as: PathType) -> (Option<String>, bool) {
        match self.read(path, read_as) {
            CastResult::Absent => (None, false),
            CastResult::Failed => (None, true),
            CastResult::Fits(scalar) => (Some(spell(&scalar)), false),
        }
    }

    /// The value at a path, read strictly as a type.
    fn strict(&self, path: &Path, to: Type) -> Option<Literal> {
        match self.read(path, PathType { to, cast: false }) {
            CastResult::Fits(scalar) => Some(literal(&scalar)),
            _ => None,
        }
    }

    fn read(&self, path: &Path, read_as: PathType) -> CastResult<'_> {
        let Some(value) = raw::at(&self.root, path) else {
            return CastResult::Absent;
        };
        let text = self.document.text();
        let verbatim = || match self.document.header.json {
            true => proto::json::raw_at(text, path.steps()),
            false => Some(text),
        };
        raw::read_value(value, verbatim, read_as)
    }
}

impl Deref for Parsed<'_> {
    type Target = Document;

    fn deref(&self) -> &Document {
        self.document
    }
}

/// How often the index answered, to show that it answers at all.
#[derive(Debug, Default)]
pub(crate) struct Coverage {
    pub answered: usize,
    pub declined: usize,
}

impl Coverage {
    fn count(&mut self, answered: bool) {
        *(if answered {
            &mut self.answered
        } else {
            &mut self.declined
        }) += 1;
    }
}

/// A value as text, different for different values.
fn spell(scalar: &Scalar<'_>) -> String {
    match scalar {
        Scalar::Double(double) => format!("double {:x}", double.to_bits()),
        Scalar::Text(text) => format!("text {text}"),
        other => format!("{other:?}"),
    }
}

/// The value in a row of an array as text.
pub(super) fn spelled_at(array: &ArrayRef, to: Type, row: usize) -> Option<String> {
    if array.is_null(row) {
        return None;
    }
    Some(spell(&match to {
        Type::Bool => Scalar::Bool(array.as_boolean().value(row)),
        Type::Int => Scalar::Int(array.as_primitive::<Int64Type>().value(row)),
        Type::Double => Scalar::Double(array.as_primitive::<Float64Type>().value(row)),
        Type::Time => Scalar::Time(array.as_primitive::<TimestampMicrosecondType>().value(row)),
        Type::Text | Type::Rank => Scalar::Text(array.as_string_view().value(row).into()),
        Type::Json | Type::Canonical => Scalar::Text(array.as_string::<i64>().value(row).into()),
    }))
}

/// All paths of the documents, some below arrays, and some that no document has.
fn paths(segment: &Segment) -> Vec<Path> {
    let mut paths: Vec<Path> = segment.paths().into_iter().map(|(path, _)| path).collect();
    let below: Vec<Path> = paths.iter().take(20).map(|path| path.with(Step::Index(0))).collect();
    paths.extend(below);
    paths.extend([
        Path::of_keys(["nowhere"]),
        Path::of_keys(["a", "nowhere", "x"]),
        Path::default(),
    ]);
    paths
}

/// Checks every path in every type, for all documents, for some, and for some that follow one another.
pub(crate) fn check_values(segment: &Segment, documents: &[Arc<Document>], dice: &mut Dice) -> Coverage {
    let documents = &Parsed::all(documents);
    let mut coverage = Coverage::default();
    let all: Vec<u32> = (0..documents.len() as u32).collect();
    for path in paths(segment) {
        for (to, ..) in Type::TABLE {
            for cast in [false, true] {
                let some: Vec<u32> = all.iter().copied().filter(|_| dice.one_in(3)).collect();
                let column = Column {
                    source: ColumnSource::Path(path.clone()),
                    read_as: PathType { to, cast },
                };
                // DocumentNumbers without gaps are read in another way.
                let from = dice.below(documents.len() + 1);
                let run = &all[from..from + dice.below(documents.len() - from + 1)];
                for requested in [&all[..], &some, run] {
                    coverage.count(check_column(segment, documents, &column, &path, requested));
                }
                if !cast {
                    check_bounds(segment, documents, &column, &path);
                }
            }
        }
    }
    coverage
}

/// Checks the groups of random columns, one or two at a time, for all documents and for some.
pub(crate) fn check_groups(segment: &Segment, documents: &[Arc<Document>], dice: &mut Dice) -> Coverage {
    let documents = &Parsed::all(documents);
    let mut coverage = Coverage::default();
    let all: Vec<u32> = (0..documents.len() as u32).collect();
    let paths = paths(segment);
    for _ in 0..100 {
        let key = |dice: &mut Dice| Column {
            source: ColumnSource::Path(dice.pick(&paths).clone()),
            read_as: PathType {
                to: *dice.pick(&[Type::Text, Type::Text, Type::Int, Type::Bool, Type::Time]),
                cast: dice.one_in(2),
            },
        };
        let keys: Vec<Column> = (0..1 + dice.below(2)).map(|_| key(dice)).collect();
        let some: Vec<u32> = all.iter().copied().filter(|_| !dice.one_in(4)).collect();
        let first = dice.below(documents.len());
        for requested in [&all[..], &some, &all[first..]] {
            coverage.count(check_groups_of(segment, documents, &keys, requested));
        }
    }
    coverage
}

/// Checks the groups of some documents; returns whether the segment counts them.
fn check_groups_of(segment: &Segment, documents: &[Parsed<'_>], keys: &[Column], requested: &[u32]) -> bool {
    let columns: Vec<&Column> = keys.iter().collect();
    let list = DocumentNumbers::from(requested.to_vec());
    let asked = match list.span() {
        span if span.len() == requested.len() => DocumentNumbers::Range(span),
        _ => list,
    };
    let Some(groups) = segment.count_groups(&columns, None, &asked).expect("groups") else {
        return false;
    };
    let mut expected: BTreeMap<Vec<Option<String>>, i64> = BTreeMap::new();
    let mut counted = vec![GroupColumn::default(); keys.len()];
    for document in requested {
        let values = keys.iter().zip(&mut counted).map(|(key, counted)| {
            let ColumnSource::Path(path) = &key.source else {
                panic!("{key} is at a path");
            };
            let (value, failed) = documents[*document as usize].value(path, key.read_as);
            counted.cast_failures += u64::from(failed);
            counted.present += u64::from(failed || value.is_some());
            value
        });
        *expected.entry(values.collect()).or_default() += 1;
    }
    let mut found: BTreeMap<Vec<Option<String>>, i64> = BTreeMap::new();
    let mut found_counted = vec![GroupColumn::default(); keys.len()];
    for groups in groups {
        for (row, documents) in groups.documents.iter().enumerate() {
            let values = groups.values.iter().zip(keys);
            let values = values.map(|(values, key)| spelled_at(values, key.read_as.to, row));
            *found.entry(values.collect()).or_default() += documents;
        }
        for (sum, of_part) in found_counted.iter_mut().zip(&groups.columns) {
            sum.cast_failures += of_part.cast_failures;
            sum.present += of_part.present;
        }
    }
    assert_eq!((found, found_counted), (expected, counted), "groups by {keys:?}");
    true
}

/// Checks a column of some documents; returns whether the segment has it.
fn check_column(segment: &Segment, documents: &[Parsed<'_>], column: &Column, path: &Path, requested: &[u32]) -> bool {
    let Some(values) = segment.values(column, None, requested).expect("values") else {
        return false;
    };
    let to = column.read_as.to;
    assert_eq!(values.array.data_type(), &to.arrow());
    assert_eq!(values.array.len(), requested.len());
    let (mut cast_failures, mut present) = (0, 0);
    for (row, document) in requested.iter().enumerate() {
        let document = &documents[*document as usize];
        let (value, failed) = document.value(path, column.read_as);
        assert_eq!(
            spelled_at(&values.array, to, row),
            value,
            "{column} of {}",
            document.text()
        );
        cast_failures += u64::from(failed);
        present += u64::from(failed || value.is_some());
    }
    assert_eq!(
        (values.cast_failures, values.present),
        (cast_failures, present),
        "cast failures and values of {column}"
    );
    true
}

/// Checks that every value of a column lies within the bounds of its part, and that a value is NULL only where the
/// bounds say so.
fn check_bounds(segment: &Segment, documents: &[Parsed<'_>], column: &Column, path: &Path) {
    for part in segment.parts() {
        let Some(ColumnBounds { range, has_nulls }) = part.bounds(column, None).expect("bounds") else {
            continue;
        };
        let range = range.map(|(least, greatest)| [least, greatest].map(|bound| bound_of(&bound)));
        for document in part.documents() {
            let document = &documents[document as usize];
            match (document.strict(path, column.read_as.to), &range) {
                (None, _) => assert!(has_nulls, "{column} of {} is NULL", document.text()),
                (Some(value), Some([least, greatest])) => assert!(
                    compare(least, &value).is_le() && compare(&value, greatest).is_le(),
                    "{column} of {} is not between {least:?} and {greatest:?}",
                    document.text()
                ),
                (Some(_), None) => panic!("{column} of {} is not NULL", document.text()),
            }
        }
    }
}

fn bound_of(value: &ScalarValue) -> Literal {
    match value {
        ScalarValue::Int64(Some(int)) => Literal::Int(*int),
        ScalarValue::Float64(Some(double)) => Literal::Double(*double),
        ScalarValue::Utf8View(Some(text)) => Literal::Text(text.clone()),
        ScalarValue::TimestampMicrosecond(Some(micros), _) => Literal::Time(*micros),
        other => panic!("{other:?} is a bound"),
    }
}

/// The documents of a segment that match a condition, from all of its parts.
pub(crate) fn find_matches(segment: &Segment, lookup: &Lookup) -> Result<Option<Matches>, crate::Error> {
    let mut all = Matches::default();
    for part in segment.parts() {
        let Some(found) = part.find_matches(lookup)? else {
            return Ok(None);
        };
        let first = part.documents().start;
        all.certain
            .extend(found.certain.iter().map(|document| first + document));
        all.candidates
            .extend(found.candidates.iter().map(|document| first + document));
    }
    Ok(Some(all))
}

/// Compares lookups of a segment with a scan of its documents.
struct LookupChecker<'a> {
    segment: &'a Segment,
    documents: &'a [Parsed<'a>],
    coverage: Coverage,
}

impl<'a> LookupChecker<'a> {
    fn new(segment: &'a Segment, documents: &'a [Parsed<'a>]) -> Self {
        Self {
            segment,
            documents,
            coverage: Coverage::default(),
        }
    }

    fn check(&mut self, lookup: &Lookup, is_true: impl Fn(&Parsed<'_>) -> bool) {
        let expected: RoaringBitmap = (0..)
            .zip(self.documents)
            .filter(|(_, document)| is_true(document))
            .map(|(number, _)| number)
            .collect();
        let matches = find_matches(self.segment, lookup).expect("a lookup");
        self.coverage.count(matches.as_ref().is_some_and(Matches::is_exact));
        if let Some(matches) = matches {
            if matches.is_exact() {
                assert_eq!(matches.certain, expected, "{lookup:?}");
            }
            assert!(
                matches.certain.is_subset(&expected),
                "{lookup:?} returns documents that do not match"
            );
            assert!(
                (&expected - &matches.certain).is_subset(&matches.candidates),
                "{lookup:?} misses documents"
            );
            assert!(matches.certain.is_disjoint(&matches.candidates));
        }
    }
}

fn literal(scalar: &Scalar<'_>) -> Literal {
    match scalar {
        Scalar::Bool(bool) => Literal::Bool(*bool),
        Scalar::Int(int) => Literal::Int(*int),
        Scalar::Double(double) => Literal::Double(*double),
        Scalar::Text(text) => Literal::Text(text.to_string()),
        Scalar::Time(time) => Literal::Time(*time),
    }
}

fn compare(a: &Literal, b: &Literal) -> std::cmp::Ordering {
    match (a, b) {
        (Literal::Bool(a), Literal::Bool(b)) => a.cmp(b),
        (Literal::Int(a), Literal::Int(b)) | (Literal::Time(a), Literal::Time(b)) => a.cmp(b),
        (Literal::Double(a), Literal::Double(b)) => a.total_cmp(b),
        (Literal::Text(a), Literal::Text(b)) => a.cmp(b),
        _ => panic!("literals of two types"),
    }
}

fn check_conditions(segment: &Segment, documents: &[Parsed<'_>], dice: &mut Dice) -> Coverage {
    let mut checker = LookupChecker::new(segment, documents);
    for path in paths(segment) {
        checker.check(&Lookup::NoText(path.clone()), |document| {
            document.strict(&path, Type::Json).is_some() && document.strict(&path, Type::Text).is_none()
        });
        for (to, ..) in Type::TABLE {
            checker.check(&Lookup::Exists(path.clone(), to), |document| {
                document.strict(&path, to).is_some()
            });
            if matches!(to, Type::Json | Type::Canonical | Type::Rank) {
                continue;
            }
            let mut known: Vec<Literal> = documents
                .iter()
                .filter_map(|document| document.strict(&path, to))
                .collect();
            known.extend(made_up::literals(to));
            for _ in 0..3 {
                check_comparisons(&mut checker, &path, to, &known, dice);
            }
        }
    }
    checker.coverage
}

/// Checks equality, a range and a prefix with random literals.
fn check_comparisons(checker: &mut LookupChecker, path: &Path, to: Type, literals: &[Literal], dice: &mut Dice) {
    let picked = [dice.pick(literals).clone(), dice.pick(literals).clone()];
    checker.check(&Lookup::In(path.clone(), to, picked.to_vec()), |document| {
        document
            .strict(path, to)
            .is_some_and(|value| picked.iter().any(|p| compare(p, &value).is_eq()))
    });
    let [from, until] = picked.map(|value| (!dice.one_in(4)).then(|| (value, dice.one_in(2))));
    let in_range = |document: &Parsed<'_>| {
        document.strict(path, to).is_some_and(|value| {
            let above = from.as_ref().is_none_or(|(bound, inclusive)| {
                compare(&value, bound).is_gt() || *inclusive && compare(&value, bound).is_eq()
            });
            above
                && until.as_ref().is_none_or(|(bound, inclusive)| {
                    compare(&value, bound).is_lt() || *inclusive && compare(&value, bound).is_eq()
                })
        })
    };
    checker.check(&Lookup::Range(path.clone(), to, from.clone(), until.clone()), in_range);
    if let Literal::Text(text) = dice.pick(literals) {
        let prefix: String = text.chars().take(dice.below(4)).collect();
        checker.check(
            &Lookup::StringPrefix(path.clone(), prefix.clone()),
            |document| matches!(document.strict(path, to), Some(Literal::Text(text)) if text.starts_with(&prefix)),
        );
    }
}

fn check_searches(segment: &Segment, documents: &[Parsed<'_>], dice: &mut Dice) -> Coverage {
    let mut checker = LookupChecker::new(segment, documents);
    let all: Vec<u32> = (0..segment.documents()).collect();
    let mut paths: Vec<Option<Path>> = paths(segment).into_iter().map(Some).collect();
    paths.extend(std::iter::repeat_n(None, 20));
    for path in paths {
        for matches in random_matches(dice) {
            let clause = Clause {
                path: path.clone(),
                matches,
            };
            let matcher = Matcher::new(&clause);
            let is_true = |document: &Parsed<'_>| matcher.matches(&document.root);
            checker.check(&Lookup::Search(clause.clone()), is_true);
            let column = Column::search(clause.clone());
            if let Some(values) = segment.values(&column, None, &all).expect("values") {
                for (document, found) in documents.iter().zip(values.array.as_boolean()) {
                    assert_eq!(found, Some(is_true(document)), "{clause:?} of {}", document.text());
                }
            }
        }
    }
    checker.coverage
}

fn random_matches(dice: &mut Dice) -> Vec<Match> {
    let bound = |dice: &mut Dice, values: &[&str]| {
        Some(RangeBound {
            value: dice.pick(values).to_string(),
            inclusive: dice.one_in(2),
        })
    };
    let mut matches = vec![Match::Exists];
    for _ in 0..4 {
        let words = dice.pick(&made_up::WORDS).to_string();
        matches.push(Match::Words(format!("{words} {}", dice.pick(&made_up::WORDS))));
        matches.push(Match::Prefix(words.to_lowercase().chars().take(2).collect()));
        matches.push(Match::Words(words));
        matches.push(Match::Words(dice.pick(&made_up::NUMBERS).to_string()));
        matches.push(Match::Range {
            from: bound(dice, &made_up::NUMBERS),
            to: bound(dice, &made_up::NUMBERS),
        });
        matches.push(Match::Range {
            from: bound(dice, &made_up::WORDS),
            to: None,
        });
        let (one, other) = (*dice.pick(&made_up::WORDS), *dice.pick(&made_up::WORDS));
        let texts = [
            format!("{one} {other}"),
            format!("long {one} {other}"),
            format!("{one} {other} long"),
        ];
        matches.push(Match::Near {
            text: dice.pick(&texts).clone(),
            slop: 1 + dice.below(4) as u32,
        });
        if let Some(token) = plan::token::tokens(one).next() {
            matches.push(Match::Fuzzy {
                token: token.into_owned(),
                changes: 1 + dice.below(2) as u8,
            });
        }
        let wildcard = |c: char| match dice.below(4) {
            0 => '?',
            1 => '*',
            _ => c,
        };
        matches.push(Match::Wildcard(one.to_lowercase().chars().map(wildcard).collect()));
        let pattern = ["d.*", ".*full", "[a-z]+", r"\d\S*", ".*[^ -~].*", "i.*|.*e"];
        matches.push(Match::Regex(dice.pick(&pattern).to_string()));
        let mut time = || (!dice.one_in(4)).then(|| (dice.below(200) as i64 - 100) * 1_000_000);
        matches.push(Match::Times {
            from: time(),
            to: time(),
        });
    }
    let day = plan::value::time_of_text("2026-01-31");
    matches.push(Match::Times { from: day, to: day });
    matches.push(Match::Network("10.1.0.0/16".into()));
    matches.push(Match::Network("::/0".into()));
    matches.push(Match::Words("true".into()));
    matches
}

fn check_headers(segment: &Segment, documents: &[Parsed<'_>], time_path: Option<&Path>) {
    let all: Vec<u32> = (0..segment.documents()).collect();
    assert_eq!(all.len(), documents.len());
    let column = |name: &str| {
        segment
            .values(&Column::system(name).expect("a column"), time_path, &all)
            .expect("values")
    };
    let required = |name: &str| column(name).unwrap_or_else(|| panic!("{name} has values")).array;
    let (ids, sources, partitions, offsets, items) = (
        required("_id"),
        required("_source"),
        required("_partition"),
        required("_offset"),
        required("_item"),
    );
    let ingested = required("_ingested");
    let times = column("_time");
    for (row, document) in documents.iter().enumerate() {
        let Document { address, header, .. } = &**document;
        assert_eq!(segment.address(row as u32), *address);
        assert_eq!(segment.find(address), Some(row as u32));
        assert_eq!(ids.as_string_view().value(row), document.id());
        assert_eq!(sources.as_string_view().value(row), address.source.as_str());
        assert_eq!(
            partitions.as_primitive::<Int64Type>().value(row),
            i64::from(address.partition)
        );
        assert_eq!(offsets.as_primitive::<Int64Type>().value(row), address.offset);
        assert_eq!(
            items.as_primitive::<Int64Type>().value(row),
            i64::from(address.item.unwrap_or(0))
        );
        assert_eq!(
            ingested.as_primitive::<TimestampMicrosecondType>().value(row),
            header.ingested_ms * 1_000
        );
        if let Some(times) = &times {
            let expected = raw::time_of_document(document, Some(&document.root), time_path);
            assert_eq!(
                times.array.as_primitive::<TimestampMicrosecondType>().value(row),
                expected,
                "_time of {}",
                document.text()
            );
        }
    }
    assert!(
        times.is_some() || time_path.is_some(),
        "without a time path, _time is in the header"
    );
    check_time_bounds(segment, documents, time_path);
}

/// Checks that every time lies within the bounds of its part.
fn check_time_bounds(segment: &Segment, documents: &[Parsed<'_>], time_path: Option<&Path>) {
    for name in ["_ingested", "_time"] {
        let column = Column::system(name).expect("a column");
        for part in segment.parts() {
            let Some(bounds) = part.bounds(&column, time_path).expect("bounds") else {
                assert!(name == "_time" && time_path.is_some(), "the bounds of {name} are known");
                continue;
            };
            let range = bounds
                .range
                .map(|(least, greatest)| [least, greatest].map(|bound| bound_of(&bound)));
            for document in part.documents() {
                let document = &documents[document as usize];
                let micros = match name {
                    "_ingested" => document.header.ingested_ms * 1_000,
                    _ => raw::time_of_document(document, Some(&document.root), time_path),
                };
                let [least, greatest] = range.as_ref().expect("every document has a time");
                let time = Literal::Time(micros);
                assert!(
                    compare(least, &time).is_le() && compare(&time, greatest).is_le(),
                    "{name} of {} is not between {least:?} and {greatest:?}",
                    document.text()
                );
            }
        }
    }
}

fn check_header_lookups(segment: &Segment, documents: &[Parsed<'_>], dice: &mut Dice) {
    let mut checker = LookupChecker::new(segment, documents);
    let ids: Vec<String> = (0..3)
        .map(|_| dice.pick(documents).id())
        .chain(["nobody".to_owned(), "clicks/0@999999999".to_owned()])
        .collect();
    let addresses: Vec<String> = (0..3).map(|_| dice.pick(documents).address.to_string()).collect();
    for ids in [ids, addresses] {
        checker.check(&Lookup::Id(ids.clone()), |document| ids.contains(&document.id()));
    }
    checker.check(&Lookup::Source("clicks".into()), |document| {
        document.address.source.as_str() == "clicks"
    });
    let some = dice.pick(documents);
    check_addresses(&mut checker, &some.address);
    check_header_times(&mut checker, some.header.ingested_ms * 1_000);
    assert_eq!(
        checker.coverage.declined, 0,
        "conditions on the header are always decided"
    );
}

/// Checks conditions on the numbers of an address.
fn check_addresses(checker: &mut LookupChecker, address: &Address) {
    let (offset, partition) = (address.offset, i64::from(address.partition));
    checker.check(&Lookup::Header(ColumnSource::Offset, offset, offset + 5), |document| {
        (offset..=offset + 5).contains(&document.address.offset)
    });
    checker.check(&Lookup::Header(ColumnSource::Offset, 5, 3), |_| false);
    let offsets = vec![offset - 2, offset, offset + 1_000_000];
    checker.check(&Lookup::HeaderIn(ColumnSource::Offset, offsets.clone()), |document| {
        offsets.contains(&document.address.offset)
    });
    checker.check(
        &Lookup::HeaderIn(ColumnSource::Partition, vec![partition, partition + 1]),
        |document| (partition..=partition + 1).contains(&i64::from(document.address.partition)),
    );
    checker.check(
        &Lookup::Header(ColumnSource::Partition, partition, partition),
        |document| i64::from(document.address.partition) == partition,
    );
    for low in [0, 1] {
        checker.check(&Lookup::Header(ColumnSource::Item, low, 2), |document| {
            (low..=2).contains(&i64::from(document.address.item.unwrap_or(0)))
        });
    }
}

/// Checks conditions on times near `micros`.
fn check_header_times(checker: &mut LookupChecker, micros: i64) {
    let near = micros - 5_000_000..=micros + 5_000_000;
    let (low, high) = (*near.start(), *near.end());
    checker.check(&Lookup::Header(ColumnSource::Ingested, low, high), |document| {
        near.contains(&(document.header.ingested_ms * 1_000))
    });
    checker.check(&Lookup::Header(ColumnSource::Time, low, high), |document| {
        near.contains(&raw::time_of_document(document, None, None))
    });
    let times = vec![micros, micros + 1_000, micros + 2_000, micros - 1];
    checker.check(&Lookup::HeaderIn(ColumnSource::Ingested, times.clone()), |document| {
        times.contains(&(document.header.ingested_ms * 1_000))
    });
    checker.check(&Lookup::HeaderIn(ColumnSource::Time, times.clone()), |document| {
        times.contains(&raw::time_of_document(document, None, None))
    });
}

/// Checks headers, values, conditions and searches of a segment.
pub(super) fn check(segment: &Segment, documents: &[Arc<Document>], seed: u64) -> [Coverage; 3] {
    eprintln!("seed {seed}");
    let mut dice = Dice::new(seed ^ 0x9e37);
    let values = check_values(segment, documents, &mut dice);
    let documents = &Parsed::all(documents);
    check_headers(segment, documents, None);
    for path in ["t", "n", "a.b", "nowhere"] {
        check_headers(segment, documents, Some(&Path::parse(path).expect("a path")));
    }
    if !documents.is_empty() {
        check_header_lookups(segment, documents, &mut dice);
    }
    [
        values,
        check_conditions(segment, documents, &mut dice),
        check_searches(segment, documents, &mut dice),
    ]
}
