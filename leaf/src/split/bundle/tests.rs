//! Tests of `bundle`.

use super::*;
use crate::{
    split::{
        SplitOrigin,
        footer::{Footer, STORED},
        statistics::TimeBounds,
    },
    store::Ranges,
};

fn facts() -> SplitFacts {
    SplitFacts {
        origin: SplitOrigin {
            uuid: uuid::Uuid::nil(),
            shard: serde_json::from_str(r#"{"collection":"00000000-0000-0000-0000-000000000001","number":2}"#)
                .expect("a shard"),
            ranges: Ranges::new(),
        },
        documents: 3,
        builder_level: 1,
        times: TimeBounds::default(),
        hash: 0,
    }
}

#[test]
fn an_unfinished_file_is_removed() {
    let folder = tempfile::tempdir().expect("a folder");
    let names = || {
        let entries = std::fs::read_dir(folder.path()).expect("the folder");
        entries
            .map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned())
            .collect::<Vec<_>>()
    };
    let file = folder.path().join("7.split");
    let mut unfinished = BundleWriter::create(&file).expect("a file");
    let full = unfinished.entry("a".into(), STORED, |to| {
        to.write_all(&[1; 4 << 20])
            .and_then(|()| Err(io::ErrorKind::StorageFull.into()))
    });
    assert!(full.is_err() && names() == ["7.split.tmp"], "{:?}", names());
    drop(unfinished);
    assert_eq!(names(), [""; 0]);
    let mut finished = BundleWriter::create(&file).expect("a file");
    finished
        .entry("a".into(), STORED, |to| to.write_all(b"1"))
        .expect("an entry");
    finished.publish(&file, facts()).expect("a bundle");
    assert_eq!(names(), ["7.split"]);
}

/// A file with an entry `a`.
fn bundle(file: &FilePath) -> Vec<u8> {
    let mut bundle = BundleWriter::create(file).expect("a file");
    bundle
        .entry("a".into(), STORED, |to| to.write_all(b"one"))
        .expect("an entry");
    bundle.publish(file, facts()).expect("a bundle");
    std::fs::read(file).expect("bytes")
}

#[test]
fn a_file_says_what_it_holds() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("7.split");
    let bytes = bundle(&file);
    let opened = Bundle::open(&file).expect("a bundle");
    let hash = xxhash_rust::xxh3::xxh3_128(&bytes[..opened.end]);
    assert_eq!(opened.facts, SplitFacts { hash, ..facts() });
    assert_eq!(&bytes[8..opened.end], b"one");
}

/// The file as a newer release would write it.
pub(crate) fn of_newer_version(file: &[u8]) -> Vec<u8> {
    of_version(file, VERSION + 1)
}

fn of_version(file: &[u8], version: u32) -> Vec<u8> {
    let (rest, trailer) = file.split_at(file.len() - TRAILER_BYTES);
    let at = read_trailer(trailer).expect("a trailer").at;
    [rest, &super::trailer(at as u64, &rest[at..], version)].concat()
}

#[test]
fn no_flipped_bit_of_a_file_looks_like_a_newer_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("7.split");
    let whole = bundle(&file);
    for bit in 0..8 * whole.len() {
        let mut bytes = whole.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        std::fs::write(&file, &bytes).expect("written");
        let is_newer = Bundle::open(&file).is_err_and(|error| NewerVersion::of(&error).is_some());
        assert!(!is_newer, "bit {bit} of {}", 8 * whole.len());
    }
}

#[test]
fn a_file_of_a_newer_version_is_refused_by_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("7.split");
    let bytes = bundle(&file);
    std::fs::write(&file, of_newer_version(&bytes)).expect("written");
    let error = Bundle::open(&file).expect_err("it is newer");
    assert!(
        error
            .to_string()
            .starts_with("the split has version 5, but this release reads versions up to 4"),
        "{error}"
    );
    assert!(NewerVersion::of(&error).is_some());
    std::fs::write(&file, of_version(&bytes, 1)).expect("written");
    let error = Bundle::open(&file).expect_err("it is too old");
    assert!(
        NewerVersion::of(&error).is_none() && error.to_string().contains("version 1"),
        "{error}"
    );
}

#[test]
fn fuzzed_files_are_opened_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, mutated) = (folder.path().join("7.split"), folder.path().join("8.split"));
    fuzz::fuzz("splits", [bundle(&file)], |input| {
        std::fs::write(&mutated, input).expect("written");
        let _ = Bundle::open(&mutated);
    });
}

#[test]
fn fuzzed_footers_are_read_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let bytes = bundle(&folder.path().join("7.split"));
    let (rest, trailer) = bytes.split_at(bytes.len() - TRAILER_BYTES);
    let footer = &rest[read_trailer(trailer).expect("a trailer").at..];
    assert!(Footer::decode(footer).is_ok(), "the footer as it is");
    fuzz::fuzz("footers", [footer], |input| drop(Footer::decode(input)));
}
