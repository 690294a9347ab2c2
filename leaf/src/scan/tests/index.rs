//! The index lookups of a filter agree with the values of the documents.

use std::{collections::HashMap, sync::Arc};

use datafusion::{
    arrow::datatypes::DataType,
    functions::expr_fn::{regexp_replace, right},
    logical_expr::lit,
    prelude::cast,
    scalar::ScalarValue,
};
use plan::{
    Column, ColumnSource, Path, Type,
    scan::{ScanSource, ScanTrailer, Stage},
};
use roaring::RoaringBitmap;

use super::{
    model,
    random::{SeededRng, column, random_condition, random_documents, rising_condition, rising_documents},
    table,
};
use crate::{
    document::Document,
    error::Error,
    matches::Matches,
    raw::{self, matcher::Matcher},
    scan::filter::{self, Index},
    split::{Literal, Lookup, Segment},
};

/// A reference index: evaluates each lookup on every document.
struct EveryDocument<'a> {
    documents: &'a [Arc<Document>],
    /// Documents for which no lookup is decided.
    undecided: RoaringBitmap,
}

impl EveryDocument<'_> {
    fn bounds(&self, found: RoaringBitmap) -> Matches {
        Matches::bounded(&found - &self.undecided, found | &self.undecided)
    }

    fn cells(&self, path: &Path, to: Type) -> Vec<Option<Literal>> {
        let batch = table(self.documents, &[Column::path(path.clone(), to).name()]);
        let cell = |row| match ScalarValue::try_from_array(batch.column(0), row).expect("a value") {
            ScalarValue::Boolean(value) => value.map(Literal::Bool),
            ScalarValue::Int64(value) => value.map(Literal::Int),
            ScalarValue::Float64(value) => value.map(Literal::Double),
            ScalarValue::Utf8View(value) | ScalarValue::LargeUtf8(value) => value.map(Literal::Text),
            ScalarValue::TimestampMicrosecond(value, _) => value.map(Literal::Time),
            other => panic!("{other:?}"),
        };
        (0..batch.num_rows()).map(cell).collect()
    }
}

fn order(a: &Literal, b: &Literal) -> std::cmp::Ordering {
    match (a, b) {
        (Literal::Bool(a), Literal::Bool(b)) => a.cmp(b),
        (Literal::Int(a), Literal::Int(b)) | (Literal::Time(a), Literal::Time(b)) => a.cmp(b),
        (Literal::Double(a), Literal::Double(b)) => a.partial_cmp(b).expect("finite"),
        (Literal::Text(a), Literal::Text(b)) => a.cmp(b),
        _ => panic!("{a:?} and {b:?} are of different types"),
    }
}

/// A number of a document's header.
fn number(document: &Document, what: &ColumnSource) -> i64 {
    match what {
        ColumnSource::Partition => i64::from(document.address.partition),
        ColumnSource::Offset => document.address.offset,
        ColumnSource::Ingested => document.header.ingested_ms * 1_000,
        _ => raw::time_of_document(document, None, None),
    }
}

impl Index for EveryDocument<'_> {
    fn documents(&self) -> u32 {
        self.documents.len() as u32
    }

    fn lookup(&self, lookup: &Lookup) -> Result<Option<Matches>, Error> {
        let find = |cells: Vec<Option<Literal>>, holds: &dyn Fn(&Literal) -> bool| -> RoaringBitmap {
            let found = cells
                .iter()
                .enumerate()
                .filter(|(_, cell)| cell.as_ref().is_some_and(holds));
            found.map(|(number, _)| number as u32).collect()
        };
        let header = |holds: &dyn Fn(&Document) -> bool| -> RoaringBitmap {
            self.documents
                .iter()
                .enumerate()
                .filter(|(_, document)| holds(document))
                .map(|(number, _)| number as u32)
                .collect()
        };
        Ok(Some(self.bounds(match lookup {
            Lookup::In(path, to, values) => find(self.cells(path, *to), &|cell| {
                values.iter().any(|value| order(cell, value).is_eq())
            }),
            Lookup::Range(path, to, from, until) => find(self.cells(path, *to), &|cell| {
                let above = from.as_ref().is_none_or(|(bound, inclusive)| {
                    order(cell, bound).is_gt() || (*inclusive && order(cell, bound).is_eq())
                });
                let below = until.as_ref().is_none_or(|(bound, inclusive)| {
                    order(cell, bound).is_lt() || (*inclusive && order(cell, bound).is_eq())
                });
                above && below
            }),
            Lookup::StringPrefix(path, prefix) => find(
                self.cells(path, Type::Text),
                &|cell| matches!(cell, Literal::Text(text) if text.starts_with(prefix)),
            ),
            Lookup::Containing(path, letters) => find(
                self.cells(path, Type::Text),
                &|cell| matches!(cell, Literal::Text(text) if text.to_lowercase().contains(letters)),
            ),
            Lookup::Exists(path, to) => find(self.cells(path, *to), &|_| true),
            Lookup::NoText(path) => {
                let texts: RoaringBitmap = find(self.cells(path, Type::Text), &|_| true);
                find(self.cells(path, Type::Json), &|_| true) - texts
            }
            Lookup::Search(clause) => header(&|document| Matcher::new(clause).matches(&raw::root(document))),
            Lookup::Id(ids) => header(&|document| ids.contains(&document.id())),
            Lookup::Source(source) => header(&|document| document.address.source.as_str() == source),
            Lookup::Header(what, low, high) => header(&|document| (*low..=*high).contains(&number(document, what))),
            Lookup::HeaderIn(what, values) => header(&|document| values.contains(&number(document, what))),
        })))
    }
}

#[test]
fn index_decisions_agree_with_the_values() {
    let mut rng = SeededRng::new("index_decisions_agree_with_the_values");
    let documents = random_documents(&mut rng, 300);
    let ids: Vec<String> = documents.iter().map(|document| document.id()).collect();
    let mut decided = 0;
    for round in 0..400 {
        let undecided = if round % 2 == 0 {
            RoaringBitmap::new()
        } else {
            (0..300).filter(|_| rng.below(4) == 0).collect()
        };
        let filter = random_condition(&mut rng, 3);
        let bounds = filter::matches(
            &filter,
            &EveryDocument {
                documents: &documents,
                undecided,
            },
            None,
        )
        .expect("an answer");
        decided += usize::from(bounds.is_exact());
        let expected = model(&documents, &["_id"], &filter);
        let expected: RoaringBitmap = ids
            .iter()
            .enumerate()
            .filter(|(_, id)| expected.contains(&format!("|{id}|")))
            .map(|(n, _)| n as u32)
            .collect();
        assert!(
            bounds.certain.is_subset(&expected),
            "{filter} is not true for {:?}",
            &bounds.certain - &expected
        );
        assert!(
            expected.is_subset(&bounds.possible()),
            "{filter} is true for {:?}",
            &expected - &bounds.possible()
        );
    }
    // Between 79 and 130 of 400 random conditions are exact, by the seed: far fewer mean that the index is not asked.
    assert!(
        decided > 40,
        "only {decided} of 400 conditions were decided by the index"
    );
}

/// A segment of several parts.
fn segment_of_parts(documents: &[Arc<Document>], part_documents: usize) -> Segment {
    let folder = tempfile::tempdir().expect("a folder");
    let pieces = documents.chunks(part_documents);
    let pieces: Vec<Segment> = pieces
        .map(|piece| Segment::in_memory(piece).expect("a segment"))
        .collect();
    let pieces: Vec<&Segment> = pieces.iter().collect();
    Segment::join_to_file(&pieces, super::origin(), &folder.path().join("1.split")).expect("a file")
}

#[test]
fn a_scan_that_leaves_parts_out_finds_what_the_index_and_the_bytes_say() {
    const PARTS: usize = 8;
    let mut rng = SeededRng::new("a_scan_that_leaves_parts_out_finds_what_the_index_and_the_bytes_say");
    let documents = rising_documents(&mut rng, 25 * PARTS);
    let numbers: HashMap<String, u32> = documents.iter().map(|document| document.id()).zip(0..).collect();
    let segment = segment_of_parts(&documents, 25);
    assert_eq!(segment.parts().len(), PARTS);
    let (mut left_out, mut all) = (0, 0);
    for _ in 0..400 {
        let filter = rising_condition(&mut rng, documents.len(), 2);
        let expected: RoaringBitmap = model(&documents, &["_id"], &filter)
            .iter()
            .filter_map(|line| numbers.get(line.trim_matches('|')).copied())
            .collect();
        for part in segment.parts() {
            all += 1;
            if filter::excluding(part, std::iter::once(&filter), None)
                .expect("statistics")
                .is_none()
            {
                continue;
            }
            left_out += 1;
            let found = expected.range_cardinality(part.documents());
            assert_eq!(found, 0, "{filter}: a part with matches is left out");
            let unpruned = filter::matches(&filter, &part, None).expect("matches");
            assert!(unpruned.certain.is_empty(), "{filter}: certain matches are left out");
        }
    }
    eprintln!("{left_out} of {all} parts were left out");
    assert!(left_out > all / 10, "only {left_out} of {all} parts were left out");
}

#[test]
fn splits_that_are_left_out_are_counted_and_change_no_answer() {
    let mut rng = SeededRng::new("splits_that_are_left_out_are_counted_and_change_no_answer");
    let documents = rising_documents(&mut rng, 200);
    let view = super::view(&documents, &[50, 50, 50, 30], &[3, 60]);
    let live: Vec<Arc<Document>> = (0..)
        .zip(&documents)
        .filter(|(n, _)| ![3, 60].contains(n))
        .map(|(_, d)| d.clone())
        .collect();
    let mut pruned = 0;
    for _ in 0..100 {
        let filter = rising_condition(&mut rng, documents.len(), 2);
        let expected = model(&live, &["_id"], &filter);
        for read in [ScanSource::Auto, ScanSource::Raw] {
            let request = super::request(read, &["_id"], vec![filter.clone()], Stage::Rows { limit: None });
            let (batches, trailer) = super::scan(&view, request).expect("an answer");
            assert_eq!(super::lines(&batches), expected, "{filter} by {read:?}");
            assert_eq!(trailer.documents, live.len() as u64, "every document is accounted for");
            assert!(read == ScanSource::Auto || trailer.counts.pruned == 0);
            let of_conditions = trailer.conditions.iter().map(|counts| counts.pruned).sum::<u64>();
            assert_eq!(of_conditions, trailer.counts.pruned, "{filter}");
            pruned += trailer.counts.pruned;
        }
    }
    assert!(pruned > 40, "only {pruned} of 400 splits were left out");
}

#[test]
fn a_scan_says_how_it_decided_each_condition_and_from_where_it_read_each_column() {
    let long = "x".repeat(70_000);
    let text = |n: i64| match n {
        7 => format!(r#"{{"user":"{long}","kind":"even","n":7}}"#),
        n => format!(
            r#"{{"user":"u{n}","kind":"{}","n":{n}}}"#,
            if n % 2 == 0 { "even" } else { "odd" }
        ),
    };
    let documents: Vec<_> = (0..1_010).map(|n| super::document(n, &text(n))).collect();
    // Two splits and a tail of ten.
    let view = super::view(&documents, &[500, 500], &[]);
    let filter = vec![
        column("kind:text").eq(lit("even")),
        column("user:text").like(lit("%9")),
        right(column("kind:text!"), lit(2_i64)).eq(lit("en")),
        column("n:int").gt(lit(499_i64)),
    ];
    let request = super::request(
        ScanSource::Auto,
        &["n:int", "user:text"],
        filter,
        Stage::Rows { limit: None },
    );
    let (_, trailer) = super::scan(&view, request).expect("an answer");
    let [kind, user, end, n] = trailer.conditions[..] else {
        panic!("{:?}", trailer.conditions);
    };
    assert_eq!(
        (kind.pruned, kind.index, n.pruned),
        (0, 500, 1),
        "the second split alone is looked up"
    );
    assert_eq!((kind.bytes, kind.evaluated), (5, 0), "five of the tail are odd");
    assert_eq!(
        (user.distinct, user.bytes, user.evaluated),
        (0, 5, 250),
        "each text of the split; the even ones of the tail have no 9"
    );
    assert_eq!(
        (end.index, end.distinct, end.evaluated),
        (0, 250, 0),
        "its texts are two, and decide before values are read"
    );
    let by_end = vec![right(column("kind:text!"), lit(2_i64)).eq(lit("en"))];
    let request = super::request(ScanSource::Auto, &["n:int"], by_end, Stage::Rows { limit: None });
    let (_, trailer) = super::scan(&view, request).expect("an answer");
    let end = trailer.conditions[0];
    assert_eq!(
        (end.index, end.distinct, end.evaluated),
        (0, 1_000, 10),
        "two texts decide for both splits"
    );
    let request = super::request(
        ScanSource::Auto,
        &["n:int", "user:text"],
        Vec::new(),
        Stage::Rows { limit: None },
    );
    let (_, trailer) = super::scan(&view, request).expect("an answer");
    let reads = |name: &str| {
        let of_column = trailer.column_reads.iter().find(|(column, _)| column.name() == name);
        of_column.expect("a column that was read").1
    };
    let (n, user) = (reads("n:int"), reads("user:text"));
    assert_eq!((n.stored, n.tail, n.outside), (1_000, 10, 0));
    assert_eq!(user.stored + user.outside, 1_000);
    assert!(user.outside > 0 && user.tail == 10 && user.unstored == 0, "{user:?}");
    let request = super::request(ScanSource::Raw, &["n:int"], Vec::new(), Stage::Rows { limit: None });
    let (_, trailer) = super::scan(&view, request).expect("an answer");
    assert_eq!(trailer.column_reads[0].1.asked, 1_010);
}

#[test]
fn conditions_on_functions_of_a_text_are_decided_by_the_index_of_the_texts() {
    let text = |n: i64| format!(r#"{{"user":"did:plc:u{n:04}","kind":"kind {}","n":{n}}}"#, n % 10);
    let documents: Vec<_> = (0..1_000).map(|n| super::document(n, &text(n))).collect();
    let view = super::view(&documents, &[1_000], &[]);
    let user = || regexp_replace(column("user:text!"), lit(r"^did:plc:(u...).*$"), lit(r"\1"), None);
    let conditions = [
        (user().eq(lit("u012")), 10, 990, "only texts with the prefix are read"),
        (
            user().in_list(vec![lit("u012"), lit("u034")], false),
            20,
            980,
            "of one of two prefixes",
        ),
        (
            column("kind:text").like(lit("%d 5")),
            100,
            1_000,
            "ten texts decide for all",
        ),
        (
            right(column("kind:text!"), lit(1_i64)).gt(lit("7")),
            200,
            1_000,
            "with a cast, too",
        ),
        (
            column("kind:text")
                .eq(lit("kind 5"))
                .or(column("user:text!").eq(lit("did:plc:u0001"))),
            101,
            1_000,
            "equal",
        ),
    ];
    for (condition, found, decided, what) in conditions {
        let request = super::request(
            ScanSource::Auto,
            &["n:int"],
            vec![condition.clone()],
            Stage::Rows { limit: None },
        );
        let (batches, trailer) = super::scan(&view, request).expect("an answer");
        assert_eq!(
            super::lines(&batches),
            model(&documents, &["n:int"], &condition),
            "{condition}"
        );
        assert_eq!(
            (trailer.matched, trailer.counts.index),
            (found, decided),
            "{what}: {condition}"
        );
    }
}

#[test]
fn a_condition_on_one_column_is_evaluated_once_for_each_value() {
    let numbers = ["0", "1", "2", "3", "-4", "null", "\"2\"", "1.5", "true", "[2]"];
    let flags = ["true", "false", "\"true\"", "null"];
    let text = |n: usize| format!(r#"{{"a":{},"b":{},"n":{n}}}"#, numbers[n % 10], flags[n % 4]);
    let documents: Vec<_> = (0..1_000).map(|n| super::document(n as i64, &text(n))).collect();
    let deleted: Vec<u32> = (0..1_000).step_by(7).collect();
    let view = super::view(&documents, &[1_000], &deleted);
    let live: Vec<_> = (0..1_000)
        .filter(|n| !deleted.contains(&(*n as u32)))
        .map(|n: usize| documents[n].clone())
        .collect();
    let is_two = |name: &str| (column(name) + lit(1_i64)).eq(lit(3_i64));
    let may_be_two = |name: &str| is_two(name).is_not_false();
    let is_one = |name: &str| cast(column(name), DataType::Int64).eq(lit(1_i64));
    for (condition, all_decided) in [
        (is_two("a:int"), true),
        // Other values have to be converted.
        (is_two("a:int!"), false),
        (may_be_two("a:int"), true),
        (may_be_two("a:int!"), false),
        (is_one("b:bool"), true),
        (is_one("b:bool!"), false),
    ] {
        let [(batches, trailer), (_, raw)] = [ScanSource::Auto, ScanSource::Raw].map(|read| {
            let stage = Stage::Rows { limit: None };
            let request = super::request(read, &["n:int"], vec![condition.clone()], stage);
            super::scan(&view, request).expect("an answer")
        });
        let expected = model(&live, &["n:int"], &condition);
        assert_eq!(super::lines(&batches), expected, "{condition}");
        let failures = |trailer: &ScanTrailer| {
            trailer
                .cast_failures
                .iter()
                .find(|f| f.column.name() != "n:int")
                .cloned()
        };
        assert!(failures(&raw).is_some_and(|of_column| of_column.total > 0));
        assert_eq!(failures(&trailer), failures(&raw), "{condition}");
        let decided = trailer.counts.index;
        assert!(decided > 400, "{condition}: {decided} were decided");
        assert_eq!(decided == live.len() as u64, all_decided, "{condition}: {decided}");
    }
}

#[test]
fn long_texts_are_read_only_if_a_word_contains_that_of_the_pattern() {
    let filler = "filler ".repeat(40);
    let text = |n: i64| format!(r#"{{"t":"{filler} Number{}, 1\u017fix","n":{n}}}"#, n % 20);
    let documents: Vec<_> = (0..1_200).map(|n| super::document(n, &text(n))).collect();
    let view = super::view(&documents, &[1_200], &[]);
    for (condition, raw) in [
        (column("t:text").like(lit("%mber3, %")), 60),
        (column("t:text!").like(lit("f%Number3_1%")), 60),
        (column("t:text").like(lit("%number3%")), 60),
        (column("t:text").ilike(lit("%NUMBER3%")), 60),
        // The letter of the documents is an s without case, but no s as a token.
        (column("t:text").ilike(lit("%mber3, 1six")), 60),
        (column("t:text").ilike(lit("%1six")), 1_200),
        (column("t:text").ilike(lit("%1s%")), 1_200),
        (column("t:text").not_like(lit("%Number3%")), 1_200),
        (column("t:text").like(lit("%")), 1_200),
    ] {
        let stage = Stage::Rows { limit: None };
        let request = super::request(ScanSource::Auto, &["n:int"], vec![condition.clone()], stage);
        let (batches, trailer) = super::scan(&view, request).expect("an answer");
        let expected = model(&documents, &["n:int"], &condition);
        assert_eq!(super::lines(&batches), expected, "{condition}");
        assert!(trailer.counts.raw <= raw, "{condition}: {}", trailer.counts.raw);
    }
}

#[test]
fn a_function_that_fails_for_a_text_counts_only_documents() {
    let text = |n: i64| format!(r#"{{"kind":"{}","n":{n}}}"#, ["1", "(", "2"][n as usize % 3]);
    let documents: Vec<_> = (0..300).map(|n| super::document(n, &text(n))).collect();
    let deleted: Vec<u32> = (0..300).filter(|n| n % 6 == 1).collect();
    let view = super::view(&documents, &[300], &deleted);
    let functions = plan::functions::scalar();
    let regexp_like = functions.iter().find(|function| function.name() == "regexp_like");
    let matches = regexp_like
        .expect("a function")
        .call(vec![lit("12"), column("kind:text")]);
    let warnings = [ScanSource::Auto, ScanSource::Raw].map(|read| {
        let stage = Stage::Rows { limit: None };
        let request = super::request(read, &["n:int"], vec![matches.clone()], stage);
        let (batches, trailer) = super::scan(&view, request).expect("an answer");
        assert_eq!(super::lines(&batches).len(), 200);
        trailer.warnings
    });
    assert_eq!(warnings[0], warnings[1]);
    let has_failed = warnings[0].iter().any(|(_, failed, _)| *failed > 0);
    assert!(has_failed, "a pattern of the documents is invalid");
}

#[test]
fn documents_of_the_tail_are_read_only_if_their_bytes_may_match() {
    let mut documents: Vec<_> = (0..100)
        .map(|n| super::document(n, &format!(r#"{{"k":"key {n}","n":{n}}}"#)))
        .collect();
    // The same text with an escape, and another value with this text.
    documents.push(super::document(100, r#"{"k":"key\u0020\u0037","n":100}"#));
    documents.push(super::document(101, r#"{"k":["key 7"],"n":101}"#));
    let view = super::tail(&documents);
    let equal = |text: &str| column("k:text!").eq(lit(text));
    let conditions = [
        (equal("key 7"), 2, 13, "equal"),
        (
            equal("key 7").or(column("k:text").like(lit("%y 8"))),
            3,
            24,
            "one of two",
        ),
        (
            equal("key 7").and(column("n:int").gt(lit(50_i64))),
            1,
            13,
            "with another condition",
        ),
        (
            column("k:text").in_list(vec![lit("key 1"), lit("x")], false),
            1,
            12,
            "of a list",
        ),
        (
            column("k:text").in_list(vec![lit("key 1")], true),
            100,
            102,
            "not of a list",
        ),
        (equal(r#"["key 7"]"#), 1, 102, "the text of a list"),
    ];
    for (condition, found, read, what) in conditions {
        let stage = Stage::Rows { limit: None };
        let request = super::request(ScanSource::Auto, &["n:int"], vec![condition.clone()], stage);
        let (batches, trailer) = super::scan(&view, request).expect("an answer");
        assert_eq!(
            super::lines(&batches),
            model(&documents, &["n:int"], &condition),
            "{condition}"
        );
        assert_eq!(
            (trailer.documents, trailer.matched, trailer.counts.raw),
            (102, found, read),
            "{what}: {condition}"
        );
    }
}
