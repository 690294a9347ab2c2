//! What a segment says is what the documents say: random documents, every view of every path, every condition, by index
//! and by bytes.

use std::{collections::BTreeSet, sync::Arc};

use datafusion::arrow::array::{Array, ArrayRef, AsArray};
use datafusion::arrow::datatypes::{Float64Type, Int64Type, TimestampMicrosecondType};
use leaf::{
    document::{Document, Header},
    raw::{self, Scalar, Seen},
    split::{Literal, Lookup, Segment},
};
use plan::{
    Column, Path, Type, View, What,
    clause::Matcher,
    path::Step,
    search::{Clause, Limit, Match},
};
use proto::{Address, record::TimeKind};
use roaring::RoaringBitmap;

use super::made_up::{self, Dice, documents};

/// What was compared, to show that the index says something at all.
#[derive(Debug, Default)]
pub struct Tally {
    pub given: usize,
    withheld: usize,
}

impl Tally {
    fn count(&mut self, given: bool) {
        *(if given { &mut self.given } else { &mut self.withheld }) += 1;
    }
}

/// A value as text that tells every two values apart.
fn spell(scalar: &Scalar<'_>) -> String {
    match scalar {
        Scalar::Double(double) => format!("double {:x}", double.to_bits()),
        Scalar::Text(text) => format!("text {text}"),
        other => format!("{other:?}"),
    }
}

fn spelled_at(array: &ArrayRef, to: Type, row: usize) -> Option<String> {
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

/// What the bytes say: the value, whether it is a misfit.
fn by_bytes(document: &Document, path: &Path, view: View) -> (Option<String>, bool) {
    let root = raw::root(document);
    let Some(value) = raw::at(&root, path) else {
        return (None, false);
    };
    let verbatim = || {
        if document.header.json {
            proto::json::raw_at(document.text(), &path.json_steps())
        } else {
            Some(document.text())
        }
    };
    match raw::view(value, verbatim, view) {
        Seen::Absent => (None, false),
        Seen::Misfit => (None, true),
        Seen::Fits(scalar) => (Some(spell(&scalar)), false),
    }
}

/// All paths that the documents have, some below arrays, and some that nothing has.
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

/// Every view of every path, of all documents and of some.
pub fn check_values(segment: &Segment, documents: &[Arc<Document>], dice: &mut Dice) -> Tally {
    let mut tally = Tally::default();
    let all: Vec<u32> = (0..documents.len() as u32).collect();
    for path in paths(segment) {
        for (to, ..) in Type::TABLE {
            for cast in [false, true] {
                let some: Vec<u32> = all.iter().copied().filter(|_| dice.one_in(3)).collect();
                for asked in [&all, &some] {
                    let column = Column {
                        what: What::Path(path.clone()),
                        view: View { to, cast },
                    };
                    let given = segment.values(&column, None, asked).expect("values");
                    tally.count(given.is_some());
                    let Some(values) = given else { continue };
                    assert_eq!(values.array.data_type(), &to.arrow());
                    assert_eq!(values.array.len(), asked.len());
                    let (mut misfits, mut present) = (0, 0);
                    for (row, document) in asked.iter().enumerate() {
                        let (value, misfit) = by_bytes(&documents[*document as usize], &path, column.view);
                        assert_eq!(
                            spelled_at(&values.array, to, row),
                            value,
                            "{column} of {}",
                            documents[*document as usize].text()
                        );
                        misfits += u64::from(misfit);
                        present += u64::from(misfit || value.is_some());
                    }
                    assert_eq!(
                        (values.misfits, values.present),
                        (misfits, present),
                        "misfits and values of {column}"
                    );
                }
            }
        }
    }
    tally
}

fn check_lookup(
    segment: &Segment,
    lookup: &Lookup,
    documents: &[Arc<Document>],
    is_true: impl Fn(&Document) -> bool,
    tally: &mut Tally,
) {
    let expected: RoaringBitmap = (0..)
        .zip(documents)
        .filter(|(_, document)| is_true(document))
        .map(|(number, _)| number)
        .collect();
    let exact = segment.lookup(lookup).expect("a lookup");
    tally.count(exact.is_some());
    if let Some(found) = exact {
        assert_eq!(found, expected, "{lookup:?}");
    }
    if let Some(narrowed) = segment.narrow(lookup).expect("a lookup") {
        assert!(narrowed.sure.is_subset(&expected), "{lookup:?} is sure of too much");
        assert!(
            (&expected - &narrowed.sure).is_subset(&narrowed.doubtful),
            "{lookup:?} misses documents"
        );
        assert!(narrowed.sure.is_disjoint(&narrowed.doubtful));
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

fn strict(document: &Document, path: &Path, to: Type) -> Option<Literal> {
    let root = raw::root(document);
    let verbatim = || proto::json::raw_at(document.text(), &path.json_steps());
    match raw::view(raw::at(&root, path)?, verbatim, View { to, cast: false }) {
        Seen::Fits(scalar) => Some(literal(&scalar)),
        _ => None,
    }
}

fn check_conditions(segment: &Segment, documents: &[Arc<Document>], dice: &mut Dice) -> Tally {
    let mut tally = Tally::default();
    for path in paths(segment) {
        for (to, ..) in Type::TABLE {
            let exists = Lookup::Exists(path.clone(), to);
            check_lookup(
                segment,
                &exists,
                documents,
                |document| strict(document, &path, to).is_some(),
                &mut tally,
            );
            if matches!(to, Type::Json | Type::Canonical | Type::Rank) {
                continue;
            }
            let mut known: Vec<Literal> = documents
                .iter()
                .filter_map(|document| strict(document, &path, to))
                .collect();
            known.extend(made_up::literals(to));
            for _ in 0..3 {
                let picked = [dice.pick(&known).clone(), dice.pick(&known).clone()];
                let holds = |document: &Document| {
                    strict(document, &path, to).is_some_and(|value| picked.iter().any(|p| compare(p, &value).is_eq()))
                };
                check_lookup(
                    segment,
                    &Lookup::In(path.clone(), to, picked.to_vec()),
                    documents,
                    holds,
                    &mut tally,
                );
                let bounds = picked.map(|value| (!dice.one_in(4)).then(|| (value, dice.one_in(2))));
                let inside = |document: &Document| {
                    strict(document, &path, to).is_some_and(|value| {
                        let above = bounds[0].as_ref().is_none_or(|(bound, inclusive)| {
                            compare(&value, bound).is_gt() || *inclusive && compare(&value, bound).is_eq()
                        });
                        above
                            && bounds[1].as_ref().is_none_or(|(bound, inclusive)| {
                                compare(&value, bound).is_lt() || *inclusive && compare(&value, bound).is_eq()
                            })
                    })
                };
                check_lookup(
                    segment,
                    &Lookup::Range(path.clone(), to, bounds[0].clone(), bounds[1].clone()),
                    documents,
                    inside,
                    &mut tally,
                );
                if let Literal::Text(text) = dice.pick(&known) {
                    let prefix: String = text.chars().take(dice.below(4)).collect();
                    let begins = |document: &Document| matches!(strict(document, &path, to), Some(Literal::Text(text)) if text.starts_with(&prefix));
                    check_lookup(
                        segment,
                        &Lookup::Prefix(path.clone(), prefix.clone()),
                        documents,
                        begins,
                        &mut tally,
                    );
                }
            }
        }
    }
    tally
}

fn check_searches(segment: &Segment, documents: &[Arc<Document>], dice: &mut Dice) -> Tally {
    let mut tally = Tally::default();
    let mut paths: Vec<Option<Path>> = paths(segment).into_iter().map(Some).collect();
    paths.extend(std::iter::repeat_n(None, 20));
    for path in paths {
        let mut asks = vec![Match::Exists];
        for _ in 0..4 {
            let words = dice.pick(&made_up::WORDS).to_string();
            asks.push(Match::Words(format!("{words} {}", dice.pick(&made_up::WORDS))));
            asks.push(Match::Prefix(words.to_lowercase().chars().take(2).collect()));
            asks.push(Match::Words(words));
            asks.push(Match::Words(dice.pick(&made_up::NUMBERS).to_string()));
            let limit = |dice: &mut Dice, values: &[&str]| {
                Some(Limit {
                    value: dice.pick(values).to_string(),
                    inclusive: dice.one_in(2),
                })
            };
            asks.push(Match::Range {
                from: limit(dice, &made_up::NUMBERS),
                to: limit(dice, &made_up::NUMBERS),
            });
            asks.push(Match::Range {
                from: limit(dice, &made_up::WORDS),
                to: None,
            });
        }
        asks.push(Match::Words("true".into()));
        for matches in asks {
            let clause = Clause {
                path: path.clone(),
                matches,
            };
            let matcher = Matcher::new(&clause);
            let is_true = |document: &Document| matcher.matches(&raw::root(document));
            check_lookup(segment, &Lookup::Search(clause.clone()), documents, is_true, &mut tally);
            let all: Vec<u32> = (0..segment.documents()).collect();
            if let Some(values) = segment
                .values(&Column::search(clause.clone()), None, &all)
                .expect("values")
            {
                for (document, found) in documents.iter().zip(values.array.as_boolean()) {
                    assert_eq!(found, Some(is_true(document)), "{clause:?} of {}", document.text());
                }
            }
        }
    }
    tally
}

fn check_headers(segment: &Segment, documents: &[Arc<Document>], time_path: Option<&Path>) {
    let all: Vec<u32> = (0..segment.documents()).collect();
    assert_eq!(all.len(), documents.len());
    let column = |name: &str| {
        segment
            .values(&Column::always(name).expect("a column"), time_path, &all)
            .expect("values")
    };
    let given = |name: &str| column(name).unwrap_or_else(|| panic!("{name} is given")).array;
    let (ids, sources, partitions, offsets, items) = (
        given("_id"),
        given("_source"),
        given("_partition"),
        given("_offset"),
        given("_item"),
    );
    let ingested = given("_ingested");
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
            let expected = raw::time_of_document(document, Some(&raw::root(document)), time_path);
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
        "without a time path _time stands in the header"
    );
}

fn check_header_lookups(segment: &Segment, documents: &[Arc<Document>], dice: &mut Dice) {
    let mut tally = Tally::default();
    let ids: Vec<String> = (0..3)
        .map(|_| dice.pick(documents).id())
        .chain(["nobody".to_owned(), "clicks/0@999999999".to_owned()])
        .collect();
    check_lookup(
        segment,
        &Lookup::Id(ids.clone()),
        documents,
        |document| ids.contains(&document.id()),
        &mut tally,
    );
    let addresses: Vec<String> = (0..3).map(|_| dice.pick(documents).address.to_string()).collect();
    check_lookup(
        segment,
        &Lookup::Id(addresses.clone()),
        documents,
        |document| addresses.contains(&document.id()),
        &mut tally,
    );
    check_lookup(
        segment,
        &Lookup::Source("clicks".into()),
        documents,
        |document| document.address.source.as_str() == "clicks",
        &mut tally,
    );
    let some = dice.pick(documents).clone();
    let (offset, partition) = (some.address.offset, i64::from(some.address.partition));
    let header = |what: What, low, high| Lookup::Header(what, low, high);
    check_lookup(
        segment,
        &header(What::Offset, offset, offset + 5),
        documents,
        |d| (offset..=offset + 5).contains(&d.address.offset),
        &mut tally,
    );
    check_lookup(segment, &header(What::Offset, 5, 3), documents, |_| false, &mut tally);
    check_lookup(
        segment,
        &header(What::Partition, partition, partition),
        documents,
        |d| i64::from(d.address.partition) == partition,
        &mut tally,
    );
    for low in [0, 1] {
        check_lookup(
            segment,
            &header(What::Item, low, 2),
            documents,
            |d| (low..=2).contains(&i64::from(d.address.item.unwrap_or(0))),
            &mut tally,
        );
    }
    let micros = some.header.ingested_ms * 1_000;
    let near = micros - 5_000_000..=micros + 5_000_000;
    let (low, high) = (*near.start(), *near.end());
    check_lookup(
        segment,
        &header(What::Ingested, low, high),
        documents,
        |d| near.contains(&(d.header.ingested_ms * 1_000)),
        &mut tally,
    );
    check_lookup(
        segment,
        &header(What::Time, low, high),
        documents,
        |d| near.contains(&raw::time_of_document(d, None, None)),
        &mut tally,
    );
    assert_eq!(tally.withheld, 0, "conditions on the header are always decided");
}

/// Everything, over a segment.
fn check(segment: &Segment, documents: &[Arc<Document>], seed: u64) -> [Tally; 3] {
    eprintln!("seed {seed}");
    let mut dice = Dice::new(seed ^ 0x9e37);
    check_headers(segment, documents, None);
    for path in ["t", "n", "a.b", "nowhere"] {
        check_headers(segment, documents, Some(&Path::parse(path).expect("a path")));
    }
    if !documents.is_empty() {
        check_header_lookups(segment, documents, &mut dice);
    }
    [
        check_values(segment, documents, &mut dice),
        check_conditions(segment, documents, &mut dice),
        check_searches(segment, documents, &mut dice),
    ]
}

#[test]
fn a_segment_says_what_the_documents_say() {
    let first = made_up::seed();
    let mut total = [(0, 0); 3];
    for (seed, count) in (first..).zip([1, 7, 30, 90, 200, 60]) {
        let documents = documents(seed, count);
        let segment = Segment::in_memory(&documents).expect("a segment");
        for (sum, tally) in total.iter_mut().zip(check(&segment, &documents, seed)) {
            sum.0 += tally.given;
            sum.1 += tally.withheld;
        }
    }
    for (what, (given, withheld)) in ["values", "conditions", "searches"].iter().zip(total) {
        eprintln!("{what}: {given} given, {withheld} withheld");
        assert!(
            given > withheld,
            "{what}: the index says more often than not what it holds"
        );
    }
}

#[test]
fn a_file_says_what_memory_says_and_again_after_opening() {
    let folder = tempfile::tempdir().expect("a folder");
    let seed = made_up::seed();
    let documents = documents(seed, 150);
    let file = folder.path().join("1.split");
    let written = Segment::to_file(&mut documents.iter().cloned().map(Ok), &file).expect("a file");
    check(&written, &documents, seed);
    assert_eq!(written.bytes(), std::fs::metadata(&file).expect("a file").len());
    let opened = Segment::open(&file).expect("the same file");
    let memory = Segment::in_memory(&documents).expect("a segment");
    assert_eq!(opened.paths(), memory.paths());
    assert_eq!(opened.documents(), memory.documents());
    drop(written);
    std::fs::remove_file(&file).expect("removed");
    check(&opened, &documents, seed);
    let names: BTreeSet<_> = std::fs::read_dir(folder.path())
        .expect("a folder")
        .map(|entry| entry.expect("an entry").file_name())
        .collect();
    assert!(names.is_empty(), "nothing else was left: {names:?}");
}

#[test]
fn a_file_that_was_cut_or_whose_footer_is_broken_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let seed = made_up::seed();
    eprintln!("seed {seed}");
    let mut dice = Dice::new(seed);
    let file = folder.path().join("1.split");
    Segment::to_file(&mut documents(seed, 60).into_iter().map(Ok), &file).expect("a file");
    let whole = std::fs::read(&file).expect("bytes");
    assert!(Segment::open(&folder.path().join("2.split")).is_err(), "a missing file");
    let broken = folder.path().join("broken.split");
    for _ in 0..100 {
        let mut bytes = whole.clone();
        match dice.below(2) {
            0 => bytes.truncate(dice.below(whole.len())),
            _ => bytes.extend([0; 3]),
        }
        std::fs::write(&broken, &bytes).expect("written");
        assert!(
            Segment::open(&broken).is_err(),
            "a broken file of {} bytes instead of {}",
            bytes.len(),
            whole.len()
        );
        std::fs::remove_file(&broken).expect("removed");
    }
    assert!(Segment::open(&file).is_ok());
}

/// Documents of some kilobytes each, so that a split of them has many blocks.
fn long_documents(count: i64) -> Vec<Arc<Document>> {
    let word = |n: i64| format!("w{:x}", (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let text = |n: i64| {
        (0..200)
            .map(|place| word(n * 200 + place))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let bodies: Vec<String> = (0..count)
        .map(|n| format!(r#"{{"n":{n},"name":"{}","text":"{}"}}"#, word(-n), text(n)))
        .collect();
    of_bodies(&bodies.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn opening_a_split_reads_little_of_it_and_a_question_what_it_needs() {
    let folder = tempfile::tempdir().expect("a folder");
    let documents = long_documents(2_000);
    let file = folder.path().join("1.split");
    drop(Segment::to_file(&mut documents.iter().cloned().map(Ok), &file).expect("a file"));
    let segment = Segment::open(&file).expect("the file");
    let opened = segment.bytes_read();
    assert!(segment.bytes() > 4 << 20, "{}", segment.bytes());
    assert!(
        opened <= 10 * (64 << 10),
        "{opened} of {} bytes are read",
        segment.bytes()
    );
    let found = segment
        .lookup(&Lookup::In(Path::of_keys(["n"]), Type::Int, vec![Literal::Int(7)]))
        .expect("a lookup");
    assert_eq!(found, Some(RoaringBitmap::from([7])));
    let asked = segment.bytes_read() - opened;
    assert!(asked <= 2 * (64 << 10), "{asked} bytes more for one column");
}

#[test]
fn a_flipped_byte_is_found_and_never_answered_from() {
    let folder = tempfile::tempdir().expect("a folder");
    let seed = made_up::seed();
    eprintln!("seed {seed}");
    let mut dice = Dice::new(seed);
    let documents = long_documents(400);
    let file = folder.path().join("whole.split");
    drop(Segment::to_file(&mut documents.iter().cloned().map(Ok), &file).expect("a file"));
    let whole = std::fs::read(&file).expect("bytes");
    let (mut refused, mut failed, mut unread) = (0, 0, 0);
    for round in 0..150 {
        let mut bytes = whole.clone();
        // The footer is small: it gets its share.
        let at = if round % 5 == 0 {
            whole.len() - 1 - dice.below(500)
        } else {
            dice.below(whole.len())
        };
        bytes[at] ^= 1 << dice.below(8);
        let broken = folder.path().join(format!("{round}.split"));
        std::fs::write(&broken, &bytes).expect("written");
        let Ok(segment) = Segment::open(&broken) else {
            refused += 1;
            continue;
        };
        match answers(&segment, &documents) {
            Ok(()) => unread += 1,
            Err(error) => {
                assert!(segment.is_damaged(), "{error}");
                let problem = proto::Problem::from(error);
                assert!(
                    problem.code == proto::Code::Unavailable && problem.detail.contains("is damaged"),
                    "{problem:?}"
                );
                failed += 1;
            }
        }
        assert!(
            segment.scrub(0, u64::MAX).is_err() && segment.is_damaged(),
            "byte {at} of {}",
            whole.len()
        );
        std::fs::remove_file(&broken).expect("removed");
    }
    eprintln!("{refused} refused, {failed} failed, {unread} not read");
    assert!(refused > 0 && failed > 0);
    let segment = Segment::open(&file).expect("the file");
    assert!(answers(&segment, &documents).is_ok() && segment.scrub(0, u64::MAX).is_ok() && !segment.is_damaged());
}

/// Asks for what the documents have; what is answered is right.
fn answers(segment: &Segment, documents: &[Arc<Document>]) -> Result<(), leaf::Error> {
    let all: Vec<u32> = (0..documents.len() as u32).collect();
    for (path, to) in [("n", Type::Int), ("name", Type::Text), ("text", Type::Text)] {
        let column = Column::path(Path::of_keys([path]), to);
        if let Some(values) = segment.values(&column, None, &all)? {
            for (row, document) in documents.iter().enumerate() {
                assert_eq!(
                    spelled_at(&values.array, to, row),
                    by_bytes(document, &Path::of_keys([path]), View { to, cast: false }).0
                );
            }
        }
    }
    for what in [What::Id, What::Ingested, What::Time, What::Offset] {
        let view = View {
            to: if what == What::Id {
                Type::Text
            } else if what == What::Offset {
                Type::Int
            } else {
                Type::Time
            },
            cast: false,
        };
        let values = segment
            .values(&Column { what, view }, None, &all)?
            .expect("a header is always there");
        assert_eq!(values.array.null_count(), 0);
    }
    for number in [0, 7, 399] {
        let words = documents[number].text().split(' ').nth(3).expect("a word").to_owned();
        let clause = Clause {
            path: Some(Path::of_keys(["text"])),
            matches: Match::Words(words),
        };
        assert_eq!(
            segment.lookup(&Lookup::Search(clause))?,
            Some(RoaringBitmap::from([number as u32]))
        );
        assert_eq!(segment.find(&documents[number].address), Some(number as u32));
    }
    Ok(())
}

#[test]
fn an_error_on_the_way_leaves_no_split() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("1.split");
    let failing =
        documents(1, 5)
            .into_iter()
            .map(Ok)
            .chain([Err(proto::Problem::new(proto::Code::Internal, "no more").into())]);
    assert!(Segment::to_file(&mut failing.collect::<Vec<_>>().into_iter(), &file).is_err());
    assert!(!file.exists());
}

#[test]
fn a_segment_without_documents_is_a_segment() {
    let folder = tempfile::tempdir().expect("a folder");
    let memory = Segment::in_memory(&[]).expect("a segment");
    let file = Segment::to_file(&mut std::iter::empty(), &folder.path().join("0.split")).expect("a file");
    for segment in [memory, file] {
        assert_eq!(segment.documents(), 0);
        assert!(segment.paths().is_empty());
        assert_eq!(
            segment
                .lookup(&Lookup::Exists(Path::of_keys(["a"]), Type::Int))
                .expect("a lookup"),
            Some(RoaringBitmap::new())
        );
        let values = segment
            .values(&Column::path(Path::of_keys(["a"]), Type::Int), None, &[])
            .expect("values")
            .expect("given");
        assert_eq!(values.array.len(), 0);
    }
}

/// Documents of these bodies at consecutive offsets.
fn of_bodies(bodies: &[&str]) -> Vec<Arc<Document>> {
    let document = |(offset, body): (i64, &&str)| {
        let address = Address {
            source: "clicks".parse().expect("a name"),
            partition: 0,
            offset,
            item: None,
        };
        let header = Header {
            ingested_ms: 1_700_000_000_000 + offset,
            time_kind: TimeKind::None,
            json: true,
            ..Header::default()
        };
        Arc::new(Document {
            address,
            header,
            bytes: bytes::Bytes::copy_from_slice(body.as_bytes()),
        })
    };
    (0..).zip(bodies).map(document).collect()
}

#[test]
fn ids_are_answered_by_their_dictionary_and_words_by_postings() {
    let documents = of_bodies(&[
        r#"{"id":"a-1","msg":"disk full"}"#,
        r#"{"id":"b-2","msg":"all is well"}"#,
        r#"{"id":"a-3","msg":"full disk"}"#,
    ]);
    let segment = Segment::in_memory(&documents).expect("a segment");
    let shapes: Vec<(String, bool, bool)> = segment
        .paths()
        .into_iter()
        .map(|(path, shape)| (path.to_string(), shape.column, shape.postings))
        .collect();
    assert_eq!(shapes, [("id".to_owned(), true, false), ("msg".to_owned(), true, true)]);
    let found = |path: Option<&str>, words: &str| {
        let clause = Clause {
            path: path.map(|path| Path::parse(path).expect("a path")),
            matches: Match::Words(words.into()),
        };
        segment
            .lookup(&Lookup::Search(clause))
            .expect("a lookup")
            .map(|found| found.iter().collect::<Vec<_>>())
    };
    assert_eq!(found(Some("msg"), "Disk full"), Some(vec![0]));
    assert_eq!(found(Some("id"), "a"), Some(vec![0, 2]));
    assert_eq!(found(None, "b-2"), Some(vec![1]));
    assert_eq!(found(None, "3"), Some(vec![2]));
}

#[test]
fn a_document_beyond_the_budget_does_not_cost_the_others_their_index() {
    let junk = format!(
        "{{{},\"level\":\"error\"}}",
        (0..50_000)
            .map(|k| format!("\"k{k}\":\"v {k}\""))
            .collect::<Vec<_>>()
            .join(",")
    );
    let good = r#"{"level":"info","ms":12}"#;
    let bodies: Vec<&str> = std::iter::once(junk.as_str())
        .chain(std::iter::repeat_n(good, 99))
        .collect();
    let documents = of_bodies(&bodies);
    let segment = Segment::in_memory(&documents).expect("a segment");
    let info = Lookup::In(Path::of_keys(["level"]), Type::Text, vec![Literal::Text("info".into())]);
    assert_eq!(
        segment.lookup(&info).expect("a lookup").map(|found| found.len()),
        Some(99)
    );
    let unseen = segment
        .narrow(&Lookup::Exists(Path::of_keys(["k49999"]), Type::Text))
        .expect("a lookup")
        .expect("narrowed");
    assert_eq!(
        (unseen.sure.len(), unseen.doubtful.iter().collect::<Vec<_>>()),
        (0, vec![0])
    );
    let rest: Vec<u32> = (1..100).collect();
    let column = Column::path(Path::of_keys(["k49999"]), Type::Text);
    assert!(
        segment.values(&column, None, &rest).expect("values").is_some(),
        "of the others it is known that they have no such path"
    );
    assert!(segment.values(&column, None, &[0]).expect("values").is_none());
    let anywhere = Lookup::Search(Clause {
        path: None,
        matches: Match::Words("49999".into()),
    });
    let narrowed = segment.narrow(&anywhere).expect("a lookup").expect("narrowed");
    assert_eq!(&narrowed.sure | &narrowed.doubtful, RoaringBitmap::from([0]));
}

#[test]
fn a_token_too_long_for_postings_is_left_to_the_bytes() {
    let long = "x".repeat(70_000);
    let body = format!("{{\"msg\":\"a {long} b\"}}");
    let documents = of_bodies(&[&body, r#"{"msg":"a b"}"#]);
    let segment = Segment::in_memory(&documents).expect("a segment");
    for (words, sure, doubtful) in [(long.as_str(), vec![], vec![0]), ("a b", vec![1], vec![0])] {
        let clause = Clause {
            path: Some(Path::of_keys(["msg"])),
            matches: Match::Words(words.into()),
        };
        let narrowed = segment
            .narrow(&Lookup::Search(clause))
            .expect("a lookup")
            .expect("narrowed");
        assert_eq!(
            (
                narrowed.sure.iter().collect::<Vec<_>>(),
                narrowed.doubtful.iter().collect::<Vec<_>>()
            ),
            (sure, doubtful)
        );
    }
}
