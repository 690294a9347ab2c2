//! Rows of other releases: a longer tail is read, a newer version is refused by name.

use std::collections::BTreeSet;

use proto::{
    Address, Position, SourceName,
    ingest::{Loss, PushResult, ShardId},
    record::Record,
};
use rocksdb::WriteBatch;

use super::{
    Family, KeyIndexRow, KeyedDocument, ManifestRow, Partition, PartitionRow, RequestRow, RowKey, RowKind, Store,
    dead_letter, delete_marker::DeleteMarker, digest, document, format::Format, key_index::RedrivenLetter, kinds, loss,
};
use crate::{
    codec::{DecodeError, DecodeResult},
    document::{Document, Header},
};

/// Whether a value decodes to what was encoded.
type Decodes = Box<dyn Fn(&[u8]) -> DecodeResult<bool>>;

fn decodes<T: PartialEq + 'static>(row: T, decode: impl Fn(&[u8]) -> DecodeResult<T> + 'static) -> Decodes {
    Box::new(move |value| decode(value).map(|decoded| decoded == row))
}

fn address() -> proto::Address {
    "clicks/0@7".parse().expect("an address")
}

/// Rows that end with a field: what they are called, their value and how it is decoded.
fn rows_with_a_tail() -> Vec<(&'static str, Vec<u8>, Decodes)> {
    let format = Format::new(shard());
    let lost = Loss {
        source: "clicks".parse().expect("a name"),
        partition: 1,
        from: 2,
        through: 3,
        noticed_ms: 4,
        reason: "retention".into(),
    };
    let answer = PushResult {
        accepted: 1,
        rejected: 0,
        errors: Vec::new(),
        position: Position {
            source: SourceName::push(),
            partition: 0,
            offset: 1,
        },
        repeated: false,
    };
    let request = RequestRow {
        body: 5,
        time_ms: 6,
        answer,
    };
    let mut keys = KeyIndexRow::default();
    keys.put(KeyedDocument {
        address: address(),
        redriven: Some(RedrivenLetter {
            address: address(),
            read_through: 9,
        }),
    });
    let partition = PartitionRow {
        offset: 7,
        ..PartitionRow::default()
    };
    let manifest = ManifestRow::default();
    let loss_key = loss::key(&lost);
    vec![
        ("store", format.encode(), decodes(format, Format::decode)),
        (
            "loss",
            loss::encode(&lost),
            decodes(lost, move |value| loss::decode(&loss_key, value)),
        ),
        ("request", request.encode(), decodes(request, RequestRow::decode)),
        ("key row", keys.encode(), decodes(keys, KeyIndexRow::decode)),
        (
            "partition row",
            partition.encode(),
            decodes(partition, PartitionRow::decode),
        ),
        (
            "manifest row",
            manifest.encode(),
            decodes(manifest, ManifestRow::decode),
        ),
        ("digest", digest::encode(7), decodes(7, digest::decode)),
        (
            "kinds row",
            kinds::encode(plan::Kinds(9)),
            decodes(plan::Kinds(9), kinds::decode),
        ),
        (
            "delete marker",
            DeleteMarker::Deleted.encode(),
            decodes(DeleteMarker::Deleted, DeleteMarker::decode),
        ),
    ]
}

/// Rows that end with the bytes of an event. A newer release appends to the head before them.
fn rows_of_events() -> Vec<(&'static str, Vec<u8>, Decodes)> {
    let document = Document {
        address: address(),
        header: Header::default(),
        bytes: b"{}".as_slice().into(),
    };
    let letter = dead_letter::encode(1, "not_json", "", &Record::default(), b"{").0;
    let decoded = dead_letter::decode(address(), &letter).expect("a dead letter");
    vec![
        (
            "document",
            document::encode(&document),
            decodes(document, |value| document::decode(address(), value)),
        ),
        (
            "dead letter",
            letter,
            decodes(decoded, |value| dead_letter::decode(address(), value)),
        ),
    ]
}

#[test]
fn a_row_with_a_longer_tail_is_read() {
    for (name, value, decodes) in rows_with_a_tail() {
        assert_eq!(decodes(&value), Ok(true), "{name}");
        assert_eq!(
            decodes(&[&value[..], b"more"].concat()),
            Ok(true),
            "{name} of a later release"
        );
    }
    for (name, value, decodes) in rows_of_events() {
        assert_eq!(decodes(&value), Ok(true), "{name}");
        let head = usize::from(value[1]);
        let longer = [
            &[value[0], value[1] + 4],
            &value[2..2 + head],
            b"more",
            &value[2 + head..],
        ]
        .concat();
        assert_eq!(decodes(&longer), Ok(true), "{name} of a later release");
    }
}

#[test]
fn a_row_of_a_newer_version_is_refused_by_name() {
    for (name, mut value, decodes) in rows_with_a_tail().into_iter().chain(rows_of_events()) {
        value[0] += 1;
        match decodes(&value) {
            Err(DecodeError::Newer(newer)) => assert_eq!((newer.thing, newer.found), (name, newer.supported + 1)),
            other => panic!("{name}: {other:?}"),
        }
    }
}

fn partition() -> Partition {
    Partition {
        source: "clicks".parse().expect("a name"),
        number: 0,
    }
}

fn shard() -> ShardId {
    serde_json::from_str(r#"{"collection":"00000000-0000-0000-0000-000000000001","number":2}"#).expect("a shard")
}

#[test]
fn dead_letters_that_an_earlier_release_wrote_are_read_and_deleted_among_the_others() {
    const TABLES_OPEN_MAX: usize = 10;
    let folder = tempfile::tempdir().expect("a folder");
    let at = |offset: i64| -> Address { format!("clicks/0@{offset}").parse().expect("an address") };
    let key = |offset| RowKey::new(RowKind::DeadLetter).address(&at(offset)).bytes();
    let store = Store::open(shard(), folder.path(), TABLES_OPEN_MAX).expect("a store");
    let mut batch = WriteBatch::default();
    for (offset, family) in [
        (1, Family::Docs),
        (2, Family::Docs),
        (3, Family::DeadLetters),
        (4, Family::DeadLetters),
    ] {
        store.put(
            &mut batch,
            family,
            &key(offset),
            &dead_letter::encode(offset, "code", "", &Record::default(), b"{").0,
        );
    }
    store.commit_synced(batch).expect("written");
    let partition = partition();
    let newest = |store: &Store, limit| -> Vec<i64> {
        let letters = store.dead_letters(&partition, limit, (1, 100)).expect("dead letters");
        letters.iter().map(|letter| letter.address.offset).collect()
    };
    let ages = |store: &Store, from: Option<i64>| -> Vec<i64> {
        let rows = store.dead_letter_rows(&partition, from.map(key));
        rows.map(|row| row.expect("a row").1).collect()
    };
    assert_eq!(
        (newest(&store, 10), newest(&store, 3)),
        (vec![4, 3, 2, 1], vec![4, 3, 2])
    );
    assert_eq!(
        (ages(&store, None), ages(&store, Some(2))),
        (vec![1, 2, 3, 4], vec![2, 3, 4])
    );
    let mut batch = WriteBatch::default();
    for offset in [2, 3] {
        store.delete_dead_letter(&mut batch, &key(offset)).expect("deleted");
    }
    store.commit_synced(batch).expect("written");
    assert_eq!(newest(&store, 10), [4, 1]);
    drop(store);
    let read_only = Store::open_read_only(shard(), folder.path(), TABLES_OPEN_MAX).expect("a store");
    assert_eq!(newest(&read_only, 10), [4, 1]);
}

#[test]
fn a_store_without_a_family_of_dead_letters_is_read_without_writing() {
    const TABLES_OPEN_MAX: usize = 10;
    let folder = tempfile::tempdir().expect("a folder");
    let address = address();
    let mut store = Store::open(shard(), folder.path(), TABLES_OPEN_MAX).expect("a store");
    let mut batch = WriteBatch::default();
    let key = RowKey::new(RowKind::DeadLetter).address(&address).bytes();
    store.put(
        &mut batch,
        Family::Docs,
        &key,
        &dead_letter::encode(5, "code", "", &Record::default(), b"{").0,
    );
    store.commit_synced(batch).expect("written");
    store.db.drop_cf(Family::DeadLetters.name()).expect("dropped");
    drop(store);
    let read_only = Store::open_read_only(shard(), folder.path(), TABLES_OPEN_MAX).expect("a store");
    let letters = read_only
        .dead_letters(&partition(), 10, (1, 100))
        .expect("dead letters");
    assert_eq!(letters.len(), 1);
    drop(read_only);
    let store = Store::open(shard(), folder.path(), TABLES_OPEN_MAX).expect("a store");
    assert_eq!(
        store
            .dead_letters(&partition(), 10, (1, 100))
            .expect("dead letters")
            .len(),
        1
    );
}

#[test]
fn no_file_is_written_again_because_digests_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = Store::open(shard(), folder.path(), 10).expect("a store");
    let key = |kind, offset| {
        let address: Address = format!("clicks/0@{offset}").parse().expect("an address");
        RowKey::new(kind).address(&address).bytes()
    };
    let digest = RowKey::new(RowKind::Digest).partition(&partition()).signed(0).bytes();
    // As many flushes as begin a compaction. It moves the files of documents to the last level as they are.
    for offset in 0..4 {
        let mut batch = WriteBatch::default();
        store.put(&mut batch, Family::Docs, &key(RowKind::Document, offset), b"a document");
        store.put(&mut batch, Family::Meta, &digest, &digest::encode(7));
        store.commit_synced(batch).expect("written");
        store.flush().expect("flushed");
    }
    let files = || -> BTreeSet<String> {
        let options = rocksdb::WaitForCompactOptions::default();
        store.db.wait_for_compact(&options).expect("compacted");
        let files = store.live_files(Family::Docs).expect("files");
        files
            .map(|file| format!("{} on level {}", file.name, file.level))
            .collect()
    };
    let before = files();
    assert_eq!(store.digests(10).expect("digests").len(), 1);
    assert_eq!((files(), before.len()), (before, 4));
}

#[test]
fn fuzzed_rows_are_read_or_refused() {
    let rows: Vec<_> = rows_with_a_tail().into_iter().chain(rows_of_events()).collect();
    let corpus: Vec<Vec<u8>> = rows.iter().map(|(_, value, _)| value.clone()).collect();
    fuzz::fuzz("rows", corpus, |input| {
        for (_, _, decodes) in &rows {
            let _ = decodes(input);
        }
    });
}
