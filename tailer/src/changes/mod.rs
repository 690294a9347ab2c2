//! The change log of one process: proposals are judged one after the other, written to a file, and then in force.
//!
//! In a cluster the same state machine is fed from a topic; the trait that others see ([`Changes`]) is the same.

mod log;
pub mod topic;

use std::{collections::HashSet, path::Path, sync::Arc, time::Instant};

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::{
    Catalog, Code, Problem,
    catalog::{Change, ChangeRecord, LEVEL},
    tailer::{Changes, LogHealth},
};
use tokio::sync::watch;
use tracing::{info, warn};
use uuid::Uuid;

use self::log::{Appended, Log};
use crate::Error;

/// Bytes of one record of the change log.
pub const CHANGE_BYTES_MAX: usize = 4 << 20;

/// The change log in a file of the data folder. A cheap handle.
#[derive(Clone)]
pub struct FileChanges {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    catalog: watch::Sender<Arc<Catalog>>,
}

struct State {
    log: Log,
    /// Requests that are in the log: a repeated one changes nothing.
    seen: HashSet<Uuid>,
    /// Set once nobody can say what is on disk any more: nothing is accepted until the file was read again.
    unsure: bool,
}

impl FileChanges {
    /// Opens the log of a data folder, creates it where there is none, and reads all of it.
    pub fn open(folder: &Path) -> Result<Self, Error> {
        let mut catalog = Catalog::default();
        let mut seen = HashSet::new();
        let log = Log::open(folder, |record| {
            if !seen.insert(record.uid) {
                return Ok(());
            }
            let (next, result) = catalog.apply(&record);
            catalog = next;
            // Only accepted records are written, and the rules of a level never change.
            result.map_err(|problem| format!("it was accepted once and is refused now: {problem}"))
        })?;
        info!(file = %log.file().display(), changes = catalog.version, "change log read");
        let (catalog, _) = watch::channel(Arc::new(catalog));
        Ok(Self {
            shared: Arc::new(Shared {
                state: Mutex::new(State {
                    log,
                    seen,
                    unsure: false,
                }),
                catalog,
            }),
        })
    }

    /// Judges a record and, if it is accepted, puts it into the log: durable and in force when this returns. Blocks for
    /// an fsync. A record whose uid is in the log already changes nothing and gives the catalog as it is.
    pub fn submit(&self, record: ChangeRecord) -> Result<Arc<Catalog>, Problem> {
        let mut state = self.shared.state.lock();
        let current = self.shared.catalog.borrow().clone();
        if state.seen.contains(&record.uid) {
            return Ok(current);
        }
        if state.unsure {
            return Err(unavailable(
                "a change could not be written and may or may not be in the change log",
            ));
        }
        let (next, result) = current.apply(&record);
        result?;
        let started = Instant::now();
        match state.log.append(&record)? {
            Appended::Durable => {}
            Appended::Not(error) => {
                warn!(%error, "a change could not be written; the change log is as it was");
                return Err(unavailable(&format!("the change could not be written: {error}")));
            }
            Appended::Unsure(error) => {
                state.unsure = true;
                tracing::error!(%error, "a change may or may not be in the change log; no further change is accepted before a restart");
                return Err(Problem::new(
                    Code::UnknownOutcome,
                    format!("the change may or may not have been written: {error}"),
                )
                .hint("look after the disk, restart the node, and read what is in force"));
            }
        }
        metrics::histogram!("rachis_change_write_seconds").record(started.elapsed().as_secs_f64());
        metrics::counter!("rachis_changes_total").increment(1);
        state.seen.insert(record.uid);
        let next = Arc::new(next);
        self.shared.catalog.send_replace(next.clone());
        Ok(next)
    }
}

fn unavailable(detail: &str) -> Problem {
    Problem::new(Code::Unavailable, detail).hint("look after the disk of the data folder; nothing else is affected")
}

#[async_trait]
impl Changes for FileChanges {
    fn catalog(&self) -> watch::Receiver<Arc<Catalog>> {
        self.shared.catalog.subscribe()
    }

    async fn propose(&self, change: Change, expected: Option<u64>) -> Result<Arc<Catalog>, Problem> {
        let record = ChangeRecord {
            uid: Uuid::now_v7(),
            level: LEVEL,
            expected,
            change,
        };
        let changes = self.clone();
        // A change that was begun is finished, even if the client who asked for it goes away.
        tokio::task::spawn_blocking(move || changes.submit(record))
            .await
            .map_err(|error| {
                Problem::new(
                    Code::UnknownOutcome,
                    format!("writing a change was interrupted: {error}"),
                )
            })?
    }

    fn health(&self) -> LogHealth {
        let offset = i64::try_from(self.shared.catalog.borrow().version).unwrap_or(i64::MAX);
        let trouble = self
            .shared
            .state
            .lock()
            .unsure
            .then(|| "a change may or may not have been written: restart the node".to_owned());
        LogHealth {
            offset,
            trouble,
            ..LogHealth::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use proto::{CollectionName, catalog::CollectionSettings};

    use super::*;

    #[tokio::test]
    async fn what_was_agreed_on_is_there_after_a_restart() {
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
    async fn a_refusal_leaves_nothing_behind() {
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
    async fn a_line_torn_at_any_byte_is_cut_off_and_all_before_it_is_kept() {
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
                "the torn line is gone, torn at {end}"
            );
        }
        // A file system may have kept the length and lost a block.
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
    async fn a_log_torn_in_its_first_line_is_an_empty_log() {
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
    async fn a_log_that_lost_its_end_is_not_opened_until_somebody_decides() {
        let folder = tempfile::tempdir().expect("a folder");
        let changes = FileChanges::open(folder.path()).expect("a new log");
        for i in 0..3 {
            changes.propose(create(&format!("c{i}")), None).await.expect("accepted");
        }
        drop(changes);
        let (whole, noted) = (
            fs::read(file(&folder)).expect("the file"),
            fs::read(end_file(&folder)).expect("the file"),
        );
        let ends: Vec<usize> = whole
            .iter()
            .enumerate()
            .filter(|(_, b)| **b == b'\n')
            .map(|(at, _)| at + 1)
            .collect();
        // Between two records, within the last one, without any, and the file gone: each is what a crash leaves of
        // changes that nobody was told of.
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
                "it is left as it is"
            );
        }
        fs::remove_file(file(&folder)).expect("it was there");
        assert!(
            matches!(FileChanges::open(folder.path()), Err(Error::Short { .. })),
            "a log that is gone is no new one"
        );
        // A copy brings all of it back; and who decides to go on without the end does.
        fs::write(file(&folder), &whole).expect("written");
        assert_eq!(
            FileChanges::open(folder.path())
                .expect("whole again")
                .catalog()
                .borrow()
                .collections
                .len(),
            3
        );
        fs::write(file(&folder), &whole[..ends[1]]).expect("written");
        fs::remove_file(end_file(&folder)).expect("it was there");
        assert_eq!(
            FileChanges::open(folder.path())
                .expect("it was decided")
                .catalog()
                .borrow()
                .collections
                .len(),
            1
        );
        // What does not say anything any more is not taken for nothing.
        for at in 0..noted.len() {
            let mut damaged = noted.clone();
            damaged[at] ^= 1;
            fs::write(end_file(&folder), damaged).expect("written");
            assert!(
                matches!(FileChanges::open(folder.path()), Err(Error::UnreadableEnd { .. })),
                "byte {at}"
            );
        }
    }

    #[tokio::test]
    async fn damage_before_the_end_stops_with_file_and_line() {
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
        // In the middle of the third line (the second record), and in the last one, which is complete and so was
        // acknowledged.
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
                "a damaged log is left as it is"
            );
        }
        fs::write(file(&folder), b"something else\n").expect("written");
        let error = FileChanges::open(folder.path()).err().expect("not a log").to_string();
        assert!(error.contains("something else"), "{error}");
    }

    #[tokio::test]
    async fn a_change_that_is_not_known_stops_and_is_never_skipped() {
        let records = [
            format!(
                r#"{{"uid":"{}","level":{},"change":{{"kind":"create_collection","name":"x","settings":{{}}}}}}"#,
                Uuid::now_v7(),
                LEVEL + 1
            ),
            format!(
                r#"{{"uid":"{}","level":{LEVEL},"change":{{"kind":"paint_it_blue","name":"x"}}}}"#,
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
    async fn a_repeated_request_counts_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let changes = FileChanges::open(folder.path()).expect("a new log");
        let record = ChangeRecord {
            uid: Uuid::now_v7(),
            level: LEVEL,
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
    async fn of_many_who_change_the_same_version_one_wins() {
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
    fn one_folder_has_one_process() {
        let folder = tempfile::tempdir().expect("a folder");
        let _first = FileChanges::open(folder.path()).expect("a new log");
        assert!(matches!(FileChanges::open(folder.path()), Err(Error::InUse { .. })));
    }

    #[tokio::test]
    async fn whoever_watches_sees_each_change() {
        let folder = tempfile::tempdir().expect("a folder");
        let changes = FileChanges::open(folder.path()).expect("a new log");
        let mut watch = changes.catalog();
        changes.propose(create("events"), None).await.expect("accepted");
        watch.changed().await.expect("open");
        assert!(watch.borrow_and_update().collections.contains_key(&name("events")));
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
}
