//! Tests of `summary`.

use plan::Kinds;

use super::*;

fn summary() -> Summary {
    let partition = Partition {
        source: "clicks".parse().expect("a name"),
        number: 3,
    };
    let loss = Loss {
        source: partition.source.clone(),
        partition: 3,
        from: 1,
        through: 9,
        noticed_ms: 5,
        reason: "gone".into(),
    };
    let split = SplitStatus {
        id: 7,
        on_disk: true,
        generation: 1,
        documents: 10,
        deleted: 2,
        bytes: 99,
        paths: 4,
    };
    let field = |path: &str, indexed, sample: Option<&str>| PathStatus {
        path: Path::try_from(path.to_owned()).expect("a path"),
        kinds: Kinds::INT | Kinds::FLOAT,
        documents: 8,
        indexed,
        sample: sample.map(str::to_owned),
    };
    Summary {
        rows: [(
            partition,
            PartitionRow {
                offset: 41,
                topic: Some("t".into()),
                ..PartitionRow::default()
            },
        )]
        .into(),
        losses: vec![loss],
        tail: 12,
        bytes: 1_000,
        splits: vec![split],
        fields: vec![
            field("a.\"b c\"", PathIndex::Columns, Some("1")),
            field("x", PathIndex::Text, None),
            field("y", PathIndex::Raw, Some("")),
        ],
        oldest_dead_letter_ms: Some(1_700_000_000_000),
        unerased: Some((3, 7)),
    }
}

#[test]
fn a_summary_is_valid_only_for_the_store_state_it_was_written_for() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(CURRENT), "MANIFEST-000005\n").expect("a file");
    summary().write(folder.path()).expect("it is written");
    assert_eq!(Summary::read(folder.path()), Some(summary()));
    fs::write(folder.path().join(CURRENT), "MANIFEST-000009\n").expect("a file");
    assert_eq!(Summary::read(folder.path()), None, "the store was opened since then");
    fs::write(folder.path().join(CURRENT), "MANIFEST-000005\n").expect("a file");
    Summary::remove(folder.path()).expect("it is removed");
    assert_eq!(Summary::read(folder.path()), None);
    Summary::remove(folder.path()).expect("it is already removed");
}

#[test]
fn a_summary_with_any_damaged_byte_is_invalid() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join(CURRENT), "MANIFEST-000005\n").expect("a file");
    summary().write(folder.path()).expect("it is written");
    let whole = fs::read(folder.path().join(FILE_NAME)).expect("the file");
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        fs::write(folder.path().join(FILE_NAME), damaged).expect("a file");
        assert_eq!(Summary::read(folder.path()), None, "byte {at}");
    }
    fs::write(folder.path().join(FILE_NAME), &whole[..whole.len() - 1]).expect("a file");
    assert_eq!(Summary::read(folder.path()), None);
}
