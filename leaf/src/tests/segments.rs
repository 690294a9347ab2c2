//! Segments answer exactly what the bytes of their documents say. Files that are cut or damaged are refused or
//! detected.

mod check;

use std::{collections::BTreeSet, sync::Arc};

use crate::{
    document::{Document, Header},
    matches::Matches,
    split::{Literal, Lookup, Segment, SplitOrigin},
};
use datafusion::arrow::array::Array as _;
use plan::{
    Column, ColumnSource, Path, PathType, Type,
    search::{Clause, Match},
};
use proto::{Address, record::TimeKind};
use roaring::RoaringBitmap;

pub(super) use self::check::check_values;
use self::check::{Parsed, check, check_groups, find_matches, spelled_at};
use super::made_up::{self, Dice, documents};

/// Where a split of a test comes from.
fn origin() -> SplitOrigin {
    SplitOrigin {
        uuid: uuid::Uuid::nil(),
        shard: serde_json::from_str(r#"{"collection":"00000000-0000-0000-0000-000000000001","number":0}"#)
            .expect("a shard"),
        ranges: std::collections::BTreeMap::new(),
    }
}

#[test]
fn a_segment_answers_what_the_documents_say() {
    let first = made_up::seed();
    let mut total = [(0, 0); 3];
    for (seed, count) in (first..).zip([1, 7, 30, 90, 200, 60]) {
        let documents = documents(seed, count);
        let segment = Segment::in_memory(&documents).expect("a segment");
        for (sum, coverage) in total.iter_mut().zip(check(&segment, &documents, seed)) {
            sum.0 += coverage.answered;
            sum.1 += coverage.declined;
        }
    }
    for (what, (answered, declined)) in ["values", "conditions", "searches"].iter().zip(total) {
        eprintln!("{what}: {answered} answered, {declined} declined");
        assert!(
            answered > declined,
            "{what}: the index answers more often than it declines"
        );
    }
}

#[test]
fn documents_are_counted_by_values_as_their_bytes_say() {
    let first = made_up::seed();
    let (mut counted, mut declined) = (0, 0);
    for (seed, count) in (first..).zip([1, 30, 200, 2_000]) {
        let documents = documents(seed, count);
        let segment = Segment::in_memory(&documents).expect("a segment");
        let coverage = check_groups(&segment, &documents, &mut Dice::new(seed));
        (counted, declined) = (counted + coverage.answered, declined + coverage.declined);
    }
    eprintln!("{counted} groupings counted, {declined} declined");
    assert!(counted > 20, "only {counted} groupings were counted");
}

#[test]
fn parts_that_are_joined_in_one_file_answer_what_their_documents_say() {
    let folder = tempfile::tempdir().expect("a folder");
    let seed = made_up::seed();
    let documents = documents(seed, 150);
    let file = folder.path().join("1.split");
    let pieces = [&documents[..60], &documents[60..61], &documents[61..]];
    let pieces = pieces.map(|piece| Segment::in_memory(piece).expect("a segment"));
    let joined = Segment::join_to_file(&pieces.each_ref(), origin(), &file).expect("a file");
    drop(pieces);
    assert_eq!(joined.parts().len(), 3);
    check(&joined, &documents, seed);
    let opened = Segment::open(&file).expect("the same file");
    check(&opened, &documents, seed);
    let copy = folder.path().join("2.split");
    let copied = Segment::join_to_file(&[&opened], origin(), &copy).expect("a copy");
    check(&copied, &documents, seed);
    let mut bytes = std::fs::read(&file).expect("a file");
    assert_eq!(bytes, std::fs::read(&copy).expect("a copy"));
    // The middle was read and verified before it is damaged.
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&file, bytes).expect("damage");
    assert!(
        Segment::join_to_file(&[&opened], origin(), &copy).is_err() && opened.is_damaged(),
        "damage is not copied"
    );
}

#[test]
fn a_file_answers_like_memory_even_after_reopening() {
    let folder = tempfile::tempdir().expect("a folder");
    let seed = made_up::seed();
    let documents = documents(seed, 150);
    let file = folder.path().join("1.split");
    let written = Segment::to_file(&mut documents.iter().cloned().map(Ok), origin(), &file).expect("a file");
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
    assert!(names.is_empty(), "no other files remain: {names:?}");
}

#[test]
fn a_truncated_file_or_a_broken_footer_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let seed = made_up::seed();
    let mut dice = Dice::new(seed);
    let file = folder.path().join("1.split");
    Segment::to_file(&mut documents(seed, 60).into_iter().map(Ok), origin(), &file).expect("a file");
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

/// Documents of a few kilobytes each, so that a split of them has many blocks.
fn long_documents(count: i64) -> Vec<Arc<Document>> {
    let word = |n: i64| format!("w{:x}", (n as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let text = |n: i64| {
        (0..200)
            .map(|index| word(n * 200 + index))
            .collect::<Vec<_>>()
            .join(" ")
    };
    let bodies: Vec<String> = (0..count)
        .map(|n| format!(r#"{{"n":{n},"name":"{}","text":"{}"}}"#, word(-n), text(n)))
        .collect();
    documents_with_bodies(&bodies.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn opening_a_split_reads_little_and_a_query_only_what_it_needs() {
    let folder = tempfile::tempdir().expect("a folder");
    let documents = long_documents(2_000);
    let file = folder.path().join("1.split");
    drop(Segment::to_file(&mut documents.iter().cloned().map(Ok), origin(), &file).expect("a file"));
    let segment = Segment::open(&file).expect("the file");
    let read_by_open = segment.bytes_read();
    assert!(segment.bytes() > 4 << 20, "{}", segment.bytes());
    assert!(
        read_by_open <= 10 * (64 << 10),
        "{read_by_open} of {} bytes are read",
        segment.bytes()
    );
    let found = find_matches(
        &segment,
        &Lookup::In(Path::of_keys(["n"]), Type::Int, vec![Literal::Int(7)]),
    )
    .expect("a lookup");
    assert_eq!(found, Some(Matches::certain(RoaringBitmap::from([7]))));
    let read_by_query = segment.bytes_read() - read_by_open;
    assert!(
        read_by_query <= 2 * (64 << 10),
        "{read_by_query} bytes more for one column"
    );
}

#[test]
fn a_flipped_bit_is_detected_and_never_used_in_an_answer() {
    let folder = tempfile::tempdir().expect("a folder");
    let seed = made_up::seed();
    let mut dice = Dice::new(seed);
    let documents = long_documents(400);
    let file = folder.path().join("whole.split");
    drop(Segment::to_file(&mut documents.iter().cloned().map(Ok), origin(), &file).expect("a file"));
    let whole = std::fs::read(&file).expect("bytes");
    let (mut refused, mut failed, mut unread) = (0, 0, 0);
    for round in 0..150 {
        let mut bytes = whole.clone();
        // The footer is small, so every fifth bit is flipped near the end.
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
        match check_answers(&segment, &documents) {
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
    assert!(check_answers(&segment, &documents).is_ok() && segment.scrub(0, u64::MAX).is_ok() && !segment.is_damaged());
}

/// Checks that all answers of a segment are correct; returns the first error of a query.
fn check_answers(segment: &Segment, documents: &[Arc<Document>]) -> Result<(), crate::Error> {
    let all: Vec<u32> = (0..documents.len() as u32).collect();
    for (path, to) in [("n", Type::Int), ("name", Type::Text), ("text", Type::Text)] {
        let column = Column::path(Path::of_keys([path]), to);
        if let Some(values) = segment.values(&column, None, &all)? {
            for (row, document) in documents.iter().enumerate() {
                assert_eq!(
                    spelled_at(&values.array, to, row),
                    Parsed::new(document)
                        .value(&Path::of_keys([path]), PathType { to, cast: false })
                        .0
                );
            }
        }
    }
    for source in [
        ColumnSource::Id,
        ColumnSource::Ingested,
        ColumnSource::Time,
        ColumnSource::Offset,
    ] {
        let read_as = PathType {
            to: if source == ColumnSource::Id {
                Type::Text
            } else if source == ColumnSource::Offset {
                Type::Int
            } else {
                Type::Time
            },
            cast: false,
        };
        let values = segment
            .values(&Column { source, read_as }, None, &all)?
            .expect("header values are always available");
        assert_eq!(values.array.null_count(), 0);
    }
    for number in [0, 7, 399] {
        let words = documents[number].text().split(' ').nth(3).expect("a word").to_owned();
        let clause = Clause {
            path: Some(Path::of_keys(["text"])),
            matches: Match::Words(words),
        };
        assert_eq!(
            find_matches(segment, &Lookup::Search(clause))?,
            Some(Matches::certain(RoaringBitmap::from([number as u32])))
        );
        assert_eq!(segment.find(&documents[number].address), Some(number as u32));
    }
    Ok(())
}

#[test]
fn an_error_during_a_build_leaves_no_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("1.split");
    let failing =
        documents(1, 5)
            .into_iter()
            .map(Ok)
            .chain([Err(proto::Problem::new(proto::Code::Internal, "no more").into())]);
    assert!(Segment::to_file(&mut failing.collect::<Vec<_>>().into_iter(), origin(), &file).is_err());
    assert!(!file.exists());
}

#[test]
fn a_segment_without_documents_answers_queries() {
    let folder = tempfile::tempdir().expect("a folder");
    let memory = Segment::in_memory(&[]).expect("a segment");
    let file = Segment::to_file(&mut std::iter::empty(), origin(), &folder.path().join("0.split")).expect("a file");
    for segment in [memory, file] {
        assert_eq!(segment.documents(), 0);
        assert!(segment.paths().is_empty());
        assert_eq!(
            find_matches(&segment, &Lookup::Exists(Path::of_keys(["a"]), Type::Int)).expect("a lookup"),
            Some(Matches::default())
        );
        let values = segment
            .values(&Column::path(Path::of_keys(["a"]), Type::Int), None, &[])
            .expect("values")
            .expect("an empty column");
        assert_eq!(values.array.len(), 0);
    }
}

/// Documents with these bodies at consecutive offsets.
fn documents_with_bodies(bodies: &[&str]) -> Vec<Arc<Document>> {
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
fn ids_are_searched_in_their_dictionary_and_words_in_postings() {
    let documents = documents_with_bodies(&[
        r#"{"id":"a-1","msg":"disk full"}"#,
        r#"{"id":"b-2","msg":"all is well"}"#,
        r#"{"id":"a-3","msg":"full disk"}"#,
    ]);
    let segment = Segment::in_memory(&documents).expect("a segment");
    let paths: Vec<(String, bool, bool)> = segment
        .paths()
        .into_iter()
        .map(|(path, summary)| (path.to_string(), summary.column, summary.postings))
        .collect();
    assert_eq!(paths, [("id".to_owned(), true, false), ("msg".to_owned(), true, true)]);
    let found = |path: Option<&str>, words: &str| {
        let clause = Clause {
            path: path.map(|path| Path::parse(path).expect("a path")),
            matches: Match::Words(words.into()),
        };
        find_matches(&segment, &Lookup::Search(clause))
            .expect("a lookup")
            .filter(Matches::is_exact)
            .map(|found| found.certain.iter().collect::<Vec<_>>())
    };
    assert_eq!(found(Some("msg"), "Disk full"), Some(vec![0]));
    assert_eq!(found(Some("id"), "a"), Some(vec![0, 2]));
    assert_eq!(found(None, "b-2"), Some(vec![1]));
    assert_eq!(found(None, "3"), Some(vec![2]));
}

#[test]
fn a_document_with_too_many_paths_does_not_affect_the_index_of_others() {
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
    let documents = documents_with_bodies(&bodies);
    let segment = Segment::in_memory(&documents).expect("a segment");
    let info = Lookup::In(Path::of_keys(["level"]), Type::Text, vec![Literal::Text("info".into())]);
    let found = find_matches(&segment, &info).expect("a lookup").expect("matches");
    assert_eq!((found.certain.len(), found.is_exact()), (99, true));
    let unseen = find_matches(&segment, &Lookup::Exists(Path::of_keys(["k49999"]), Type::Text))
        .expect("a lookup")
        .expect("matches");
    assert_eq!(
        (unseen.certain.len(), unseen.candidates.iter().collect::<Vec<_>>()),
        (0, vec![0])
    );
    let rest: Vec<u32> = (1..100).collect();
    let column = Column::path(Path::of_keys(["k49999"]), Type::Text);
    assert!(
        segment.values(&column, None, &rest).expect("values").is_some(),
        "the other documents are known to lack this path"
    );
    assert!(segment.values(&column, None, &[0]).expect("values").is_none());
    let anywhere = Lookup::Search(Clause {
        path: None,
        matches: Match::Words("49999".into()),
    });
    let matches = find_matches(&segment, &anywhere).expect("a lookup").expect("matches");
    assert_eq!(&matches.certain | &matches.candidates, RoaringBitmap::from([0]));
}

#[test]
fn a_token_too_long_for_postings_is_searched_in_the_bytes() {
    // The second one takes 50,000 bytes, and 75,000 in lower case.
    for long in ["x".repeat(70_000), "Ⱥ".repeat(25_000)] {
        let body = format!("{{\"msg\":\"a {long} b\"}}");
        let documents = documents_with_bodies(&[&body, r#"{"msg":"a b"}"#]);
        let segment = Segment::in_memory(&documents).expect("a segment");
        for (words, certain, candidates) in [(long.as_str(), vec![], vec![0]), ("a b", vec![1], vec![0])] {
            let clause = Clause {
                path: Some(Path::of_keys(["msg"])),
                matches: Match::Words(words.into()),
            };
            let matches = find_matches(&segment, &Lookup::Search(clause))
                .expect("a lookup")
                .expect("matches");
            assert_eq!(
                (
                    matches.certain.iter().collect::<Vec<_>>(),
                    matches.candidates.iter().collect::<Vec<_>>()
                ),
                (certain, candidates)
            );
        }
    }
}
