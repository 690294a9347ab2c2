//! Tests of `changes`.

use std::{fs, io::Write as _};

use proto::{
    CollectionName,
    catalog::{CATALOG_RULES_LEVEL, CollectionSettings},
};

use super::*;

#[tokio::test]
async fn accepted_changes_survive_a_restart() {
    let folder = tempfile::tempdir().expect("a folder");
    let changes = FileChanges::open(folder.path()).expect("a new log");
    for i in 0..20 {
        changes.propose(create(&format!("c{i}")), None).await.expect("accepted");
    }
    changes
        .propose(Change::DropCollection { name: name("c7") }, None)
        .await
        .expect("accepted");
    let before = changes.catalog().borrow().clone();
    drop(changes);
    let again = FileChanges::open(folder.path()).expect("the log");
    assert_eq!(*again.catalog().borrow(), before);
    assert_eq!(before.collections.len(), 19);
    assert_eq!(
        again
            .propose(create("more"), None)
            .await
            .expect("accepted")
            .collections
            .len(),
        20
    );
}

#[tokio::test]
async fn a_refused_change_leaves_no_trace() {
    let folder = tempfile::tempdir().expect("a folder");
    let changes = FileChanges::open(folder.path()).expect("a new log");
    changes.propose(create("events"), None).await.expect("accepted");
    let bytes = fs::read(file(&folder)).expect("the file");
    let problem = changes
        .propose(Change::DropCollection { name: name("other") }, None)
        .await
        .expect_err("no such collection");
    assert_eq!(problem.code, Code::NotFound);
    let problem = changes
        .propose(Change::DropCollection { name: name("events") }, Some(9))
        .await
        .expect_err("another version");
    assert_eq!(problem.code, Code::Conflict);
    assert_eq!(fs::read(file(&folder)).expect("the file"), bytes);
    assert_eq!(changes.catalog().borrow().version, 1);
}

#[tokio::test]
async fn a_line_torn_at_any_byte_is_cut_off_and_earlier_lines_survive() {
    let folder = tempfile::tempdir().expect("a folder");
    let changes = FileChanges::open(folder.path()).expect("a new log");
    changes.propose(create("first"), None).await.expect("accepted");
    let kept = fs::read(file(&folder)).expect("the file").len();
    let acknowledged = fs::read(end_file(&folder)).expect("the file");
    changes.propose(create("second"), None).await.expect("accepted");
    let whole = fs::read(file(&folder)).expect("the file");
    drop(changes);
    for end in kept..whole.len() {
        fs::write(file(&folder), &whole[..end]).expect("written");
        fs::write(end_file(&folder), &acknowledged).expect("written");
        let changes = FileChanges::open(folder.path()).expect("a torn log opens");
        assert_eq!(
            changes
                .catalog()
                .borrow()
                .collections
                .keys()
                .map(|n| n.as_str())
                .collect::<Vec<_>>(),
            ["first"],
            "torn at {end}"
        );
        drop(changes);
        assert_eq!(
            fs::read(file(&folder)).expect("the file").len(),
            kept,
            "the torn line is cut off, torn at {end}"
        );
    }
    // A file system may preserve the length of the file and lose a block.
    let mut holes = whole.clone();
    holes[kept + 3..kept + 9].fill(0);
    fs::write(file(&folder), &holes).expect("written");
    fs::write(end_file(&folder), &acknowledged).expect("written");
    assert_eq!(
        FileChanges::open(folder.path())
            .expect("opens")
            .catalog()
            .borrow()
            .collections
            .len(),
        1
    );
}

#[tokio::test]
async fn a_log_torn_within_its_first_line_is_an_empty_log() {
    let folder = tempfile::tempdir().expect("a folder");
    drop(FileChanges::open(folder.path()).expect("a new log"));
    let head = fs::read(file(&folder)).expect("the file");
    for end in 0..head.len() {
        fs::write(file(&folder), &head[..end]).expect("written");
        fs::write(end_file(&folder), "").expect("written");
        let changes = FileChanges::open(folder.path()).expect("opens");
        changes.propose(create("events"), None).await.expect("accepted");
        drop(changes);
        assert_eq!(
            FileChanges::open(folder.path())
                .expect("opens")
                .catalog()
                .borrow()
                .collections
                .len(),
            1,
            "torn at {end}"
        );
    }
}

#[tokio::test]
async fn a_log_that_lost_its_end_is_not_opened() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, ends) = three_changes(&folder).await;
    // Between two records, within the last one, before the first one, and an empty file. Without acknowledged
    // changes, a crash could leave each of them.
    for length in [ends[2], ends[1], whole.len() - 1, ends[0], 5, 0] {
        fs::write(file(&folder), &whole[..length]).expect("written");
        let error = FileChanges::open(folder.path())
            .err()
            .expect("it is too short")
            .to_string();
        assert!(
            error.contains("its end is lost") && error.contains("delete") && error.contains(log::END_FILE),
            "{length}: {error}"
        );
        assert_eq!(
            fs::read(file(&folder)).expect("the file"),
            &whole[..length],
            "it is not changed"
        );
    }
    fs::remove_file(file(&folder)).expect("it was there");
    assert!(
        matches!(FileChanges::open(folder.path()), Err(LogFileError::Short { .. })),
        "a deleted log is not a new one"
    );
}

#[tokio::test]
async fn a_log_that_lost_its_end_opens_once_it_is_restored_or_the_loss_is_accepted() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, ends) = three_changes(&folder).await;
    fs::write(file(&folder), &whole[..ends[1]]).expect("written");
    assert!(FileChanges::open(folder.path()).is_err(), "its end is lost");
    fs::write(file(&folder), &whole).expect("written");
    assert_eq!(collections_in(&folder, "the log is restored"), 3);
    fs::write(file(&folder), &whole[..ends[1]]).expect("written");
    fs::remove_file(end_file(&folder)).expect("it was there");
    assert_eq!(collections_in(&folder, "the loss is accepted"), 1);
}

#[tokio::test]
async fn a_damaged_length_is_not_mistaken_for_a_missing_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (whole, ends) = three_changes(&folder).await;
    let noted = fs::read(end_file(&folder)).expect("the file");
    fs::write(file(&folder), &whole[..ends[1]]).expect("written");
    for at in 0..noted.len() {
        let mut damaged = noted.clone();
        damaged[at] ^= 1;
        fs::write(end_file(&folder), damaged).expect("written");
        assert!(
            matches!(
                FileChanges::open(folder.path()),
                Err(LogFileError::UnreadableEnd { .. })
            ),
            "byte {at}"
        );
    }
}

#[tokio::test]
async fn damage_before_the_end_is_reported_with_file_and_line() {
    let folder = tempfile::tempdir().expect("a folder");
    let changes = FileChanges::open(folder.path()).expect("a new log");
    for i in 0..3 {
        changes.propose(create(&format!("c{i}")), None).await.expect("accepted");
    }
    drop(changes);
    let whole = fs::read(file(&folder)).expect("the file");
    let lines: Vec<usize> = whole
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .map(|(i, _)| i)
        .collect();
    // In the third line (the second record), and in the last one, which is complete and therefore was acknowledged.
    for (at, line) in [(lines[1] + 40, 3), (lines[2] + 40, 4)] {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        fs::write(file(&folder), &bad).expect("written");
        let error = FileChanges::open(folder.path()).err().expect("damaged").to_string();
        assert!(
            error.contains("changes.log") && error.contains(&format!("line {line} is damaged")),
            "{error}"
        );
        assert_eq!(
            fs::read(file(&folder)).expect("the file"),
            bad,
            "a damaged log is not changed"
        );
    }
    fs::write(file(&folder), b"something else\n").expect("written");
    let error = FileChanges::open(folder.path()).err().expect("not a log").to_string();
    assert!(error.contains("something else"), "{error}");
}

#[tokio::test]
async fn an_unknown_change_is_an_error_and_never_skipped() {
    let records = [
        format!(
            r#"{{"uid":"{}","level":{},"change":{{"kind":"create_collection","name":"x","settings":{{}}}}}}"#,
            Uuid::now_v7(),
            CATALOG_RULES_LEVEL + 1
        ),
        format!(
            r#"{{"uid":"{}","level":{CATALOG_RULES_LEVEL},"change":{{"kind":"paint_it_blue","name":"x"}}}}"#,
            Uuid::now_v7()
        ),
    ];
    for (record, word) in records.iter().zip(["level", "paint_it_blue"]) {
        let folder = tempfile::tempdir().expect("a folder");
        let changes = FileChanges::open(folder.path()).expect("a new log");
        changes.propose(create("events"), None).await.expect("accepted");
        drop(changes);
        let mut log = fs::OpenOptions::new()
            .append(true)
            .open(file(&folder))
            .expect("the file");
        log.write_all(&log::line(record.as_bytes())).expect("written");
        let error = FileChanges::open(folder.path()).err().expect("unknown").to_string();
        assert!(error.contains("line 3") && error.contains(word), "{error}");
    }
}

#[tokio::test]
async fn a_repeated_request_is_applied_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let changes = FileChanges::open(folder.path()).expect("a new log");
    let record = ChangeRecord {
        uid: Uuid::now_v7(),
        level: CATALOG_RULES_LEVEL,
        expected: None,
        change: create("events"),
    };
    let first = changes.submit(record.clone()).expect("accepted");
    changes
        .propose(Change::DropCollection { name: name("events") }, None)
        .await
        .expect("accepted");
    let again = changes.submit(record.clone()).expect("known");
    assert_eq!((first.version, again.version, again.collections.len()), (1, 2, 0));
    drop(changes);
    let changes = FileChanges::open(folder.path()).expect("the log");
    assert_eq!(
        changes.submit(record).expect("known after a restart").collections.len(),
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_many_concurrent_changes_of_a_version_wins() {
    let folder = tempfile::tempdir().expect("a folder");
    let changes = FileChanges::open(folder.path()).expect("a new log");
    let version = changes
        .propose(create("events"), None)
        .await
        .expect("accepted")
        .collections[&name("events")]
        .version;
    let settings = |path: usize| CollectionSettings {
        shards: 1,
        time_path: Some(format!("t{path}")),
        ..CollectionSettings::default()
    };
    let all = (0..16).map(|i| {
        let changes = changes.clone();
        tokio::spawn(async move {
            changes
                .propose(
                    Change::AlterCollection {
                        name: name("events"),
                        settings: settings(i),
                    },
                    Some(version),
                )
                .await
        })
    });
    let results = futures::future::join_all(all).await;
    let won = results.iter().filter(|r| r.as_ref().is_ok_and(Result::is_ok)).count();
    assert_eq!(won, 1);
    let before = changes.catalog().borrow().clone();
    drop(changes);
    assert_eq!(
        *FileChanges::open(folder.path()).expect("the log").catalog().borrow(),
        before
    );
}

#[test]
fn a_folder_belongs_to_one_process() {
    let folder = tempfile::tempdir().expect("a folder");
    let _first = FileChanges::open(folder.path()).expect("a new log");
    assert!(matches!(
        FileChanges::open(folder.path()),
        Err(LogFileError::InUse { .. })
    ));
}

#[tokio::test]
async fn a_watcher_sees_each_change() {
    let folder = tempfile::tempdir().expect("a folder");
    let changes = FileChanges::open(folder.path()).expect("a new log");
    let mut watch = changes.catalog();
    changes.propose(create("events"), None).await.expect("accepted");
    watch.changed().await.expect("open");
    assert!(watch.borrow_and_update().collections.contains_key(&name("events")));
}

/// Writes three changes, and returns the log and the end of each of its lines.
async fn three_changes(folder: &tempfile::TempDir) -> (Vec<u8>, Vec<usize>) {
    let changes = FileChanges::open(folder.path()).expect("a new log");
    for i in 0..3 {
        changes.propose(create(&format!("c{i}")), None).await.expect("accepted");
    }
    drop(changes);
    let whole = fs::read(file(folder)).expect("the file");
    let ends = whole
        .iter()
        .enumerate()
        .filter(|(_, b)| **b == b'\n')
        .map(|(at, _)| at + 1)
        .collect();
    (whole, ends)
}

/// Opens the log and returns the number of collections.
fn collections_in(folder: &tempfile::TempDir, why: &str) -> usize {
    let changes = FileChanges::open(folder.path()).expect(why);
    changes.catalog().borrow().collections.len()
}

fn file(folder: &tempfile::TempDir) -> std::path::PathBuf {
    folder.path().join(log::FILE)
}

fn end_file(folder: &tempfile::TempDir) -> std::path::PathBuf {
    folder.path().join(log::END_FILE)
}

fn name(text: &str) -> CollectionName {
    text.parse().expect("a name")
}

fn create(text: &str) -> Change {
    Change::CreateCollection {
        name: name(text),
        settings: CollectionSettings::default(),
        placement: Vec::new(),
    }
}
