//! Damage on disk: losses are reported, and no answer silently omits lost documents.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path as FilePath, PathBuf},
    time::Duration,
};

use crate::{LeafOptions, split::Segment};
use plan::{Column, Path, Type, scan::Scan as _};
use proto::{Code, Problem};

use super::{
    made_up::{self, Dice},
    splits::{fill, wait_until_on_disk},
    support::{Fixture, close_idle_shards, record, small, tail_only},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_its_current_file_is_refused_and_not_recreated() {
    let fixture = Fixture::start(tail_only);
    fixture.push(&["1", "2"]).await;
    let before = fixture.documents().await;
    let aside = tempfile::tempdir().expect("a folder");
    let current = |folder: &FilePath| find_file(folder, "CURRENT").expect("the store has one");
    let fixture = fixture
        .restart_with_files(|folder| drop(std::fs::rename(current(folder), aside.path().join("CURRENT"))))
        .await;
    let refused = fixture
        .try_push(fixture.push_request(&["3"]))
        .await
        .expect_err("the store is incomplete");
    assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
    assert!(refused.detail.contains("no CURRENT"), "{refused:?}");
    let back = |folder: &FilePath| {
        drop(std::fs::copy(
            aside.path().join("CURRENT"),
            find_file(folder, "LOCK").expect("the store").with_file_name("CURRENT"),
        ))
    };
    let fixture = fixture.restart_with_files(back).await;
    assert_eq!(fixture.documents().await, before);
    fixture.push(&["3"]).await;
    assert_eq!(fixture.documents().await.len(), 3);
}

/// A leaf with five documents of 20 kB in its log.
async fn start_with_log() -> Fixture {
    let fixture = Fixture::start(tail_only);
    for number in 0..5 {
        let text = format!(r#"{{"number":{number},"filler":"{}"}}"#, "x".repeat(20_000));
        fixture.push(&[&text]).await;
    }
    fixture
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_after_a_damaged_log_record_are_not_dropped_silently() {
    let fixture = start_with_log().await;
    let flip = |folder: &FilePath, number: u32| {
        let log = find_file(folder, ".log").expect("a log");
        let mut bytes = std::fs::read(&log).expect("the log");
        let at = memchr::memmem::find(&bytes, format!(r#""number":{number}"#).as_bytes())
            .expect("the document is in the log");
        bytes[at] ^= 1;
        std::fs::write(&log, bytes).expect("the log");
    };
    let damaged = fixture.crashed_with_files(|folder| flip(folder, 2));
    let refused = damaged
        .try_push(damaged.push_request(&["5"]))
        .await
        .expect_err("writes would be lost");
    assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
    assert!(
        refused.detail.contains("is damaged at byte")
            && refused.hint.as_ref().is_some_and(|hint| hint.contains("ACCEPT-LOSS")),
        "{refused:?}"
    );

    let accepted = damaged
        .restart_with_files(|folder| {
            drop(std::fs::write(
                find_file(folder, "CURRENT")
                    .expect("the store")
                    .with_file_name("ACCEPT-LOSS"),
                "",
            ))
        })
        .await;
    assert_eq!(accepted.documents().await.len(), 2, "documents before the damage");
    accepted.push(&["5"]).await;
    assert_eq!(accepted.documents().await.len(), 3);
    assert_eq!(
        find_file(accepted.folder.path(), "ACCEPT-LOSS"),
        None,
        "the file accepts one loss only"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn zeros_in_the_log_are_damage_and_a_truncated_end_is_not() {
    let fixture = start_with_log().await;
    // A page of zeros at the start of a block, where a record begins.
    let zeroed = fixture.crashed_with_files(|folder| {
        let log = find_file(folder, ".log").expect("a log");
        let mut bytes = std::fs::read(&log).expect("the log");
        bytes[32 << 10..36 << 10].fill(0);
        std::fs::write(&log, bytes).expect("the log");
    });
    let refused = zeroed
        .try_push(zeroed.push_request(&["5"]))
        .await
        .expect_err("writes would be lost");
    assert!(refused.detail.contains("is damaged at byte 32768"), "{refused:?}");

    let torn = fixture.crashed_with_files(|folder| {
        let log = File::options()
            .write(true)
            .open(find_file(folder, ".log").expect("a log"))
            .expect("the log");
        log.set_len(log.metadata().expect("the log").len() - 100)
            .expect("it is cut");
    });
    assert_eq!(
        torn.documents().await.len(),
        4,
        "a truncated write at the end of the log was never acknowledged"
    );
}

const BLOCK_BYTES: usize = 64 << 10;

/// Small splits, and a scrubber that reads all of them continuously.
fn scrubbed(options: &mut LeafOptions) {
    small(options);
    options.scrub_bytes_per_second = 1 << 30;
    options.scrub_every = Duration::from_millis(20);
}

/// Flips a random bit in each split; returns how many splits it damaged.
fn damage_splits(folder: &FilePath, dice: &mut Dice) -> usize {
    let mut damaged = 0;
    for split in std::fs::read_dir(folder)
        .expect("splits")
        .map(|entry| entry.expect("an entry").path())
    {
        // Skip a file that is being written or was just replaced.
        let Ok(file) = File::options().read(true).write(true).open(&split) else {
            continue;
        };
        let at = dice.below((file.metadata().expect("a length").len() as usize).max(1)) as u64;
        let mut byte = [0];
        if file.read_exact_at(&mut byte, at).is_err() {
            continue;
        }
        byte[0] ^= 1 << dice.below(8);
        file.write_all_at(&byte, at).expect("written");
        damaged += 1;
    }
    damaged
}

/// Flips a bit that opening the split does not read, only a query of a column.
fn damage_a_column(split: &FilePath) {
    let whole = std::fs::read(split).expect("a split");
    let opens = |at: usize| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        std::fs::write(split, bytes).expect("written");
        Segment::open(split).is_ok()
    };
    let at = (BLOCK_BYTES / 2..whole.len())
        .step_by(BLOCK_BYTES)
        .find(|at| opens(*at));
    assert!(
        at.is_some(),
        "opening a split of {} bytes does not read all of it",
        whole.len()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_finds_damage_fails_until_the_split_is_rebuilt() {
    let fixture = Fixture::start(|options| {
        small(options);
        options.split_documents = 300;
        options.scrub_bytes_per_second = 1;
    });
    // Not repeated: dictionaries are compressed.
    let word = |n: i64| {
        let digits = (n * 8..n * 8 + 8).map(|n| format!("{:016x}", (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)));
        digits.collect::<String>()
    };
    let text = |n: i64| {
        (0..10)
            .map(|column| format!("\"c{column}\":\"{}\"", word(n * 10 + column)))
            .collect::<Vec<_>>()
            .join(",")
    };
    let records = (0..300)
        .map(|n| record(n, None, Some(&format!("{{{}}}", text(n)))))
        .collect();
    fixture.write(fixture.batch(0, -1, 299, records)).await;
    wait_until_on_disk(&fixture).await;
    let splits = fixture.splits_folder();
    let split = std::fs::read_dir(&splits)
        .expect("splits")
        .next()
        .expect("one")
        .expect("an entry")
        .path();
    let fixture = fixture.restart_with_files(|_| damage_a_column(&split)).await;

    let count_values = async |fixture: &Fixture| -> Result<usize, crate::Error> {
        let view = fixture.view().await;
        let mut values = 0;
        for segment in view.segments {
            let all: Vec<u32> = (0..segment.segment.documents()).collect();
            for column in 0..10 {
                let column = Column::path(Path::of_keys([format!("c{column}").as_str()]), Type::Text);
                values += segment.segment.values(&column, None, &all)?.expect("a column").present as usize;
            }
        }
        Ok(values)
    };
    let problem = Problem::from(count_values(&fixture).await.expect_err("it is damaged"));
    assert!(
        problem.code == Code::Unavailable && problem.hint.is_some_and(|hint| hint.contains("being rebuilt")),
        "{}",
        problem.detail
    );
    fixture
        .eventually("the query succeeds", async |fixture| {
            count_values(fixture).await.is_ok_and(|values| values == 3_000)
        })
        .await;
    fixture
        .eventually("the damaged file is removed", async |_| !split.exists())
        .await;
}

async fn wait_for_repair(fixture: &Fixture) {
    let whole = |path: &FilePath| Segment::open(path).is_ok_and(|segment| segment.scrub(0, u64::MAX).is_ok());
    fixture
        .eventually("all splits are intact", async |fixture| {
            // A shard with a damaged split reopens on the next request.
            let _reopened = fixture.leaf.status(fixture.shard).await;
            let splits: Vec<_> = std::fs::read_dir(fixture.splits_folder())
                .expect("splits")
                .map(|entry| entry.expect("an entry").path())
                .collect();
            !splits.is_empty() && splits.iter().all(|split| whole(split))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_damaged_while_open_is_detected_and_rebuilt_from_its_documents() {
    let mut dice = Dice::new(made_up::seed());
    let fixture = Fixture::start(scrubbed);
    let expected = fill(&fixture, 10, 0).await;
    wait_until_on_disk(&fixture).await;
    let mut damaged = 0;
    for _ in 0..5 {
        damaged += damage_splits(&fixture.splits_folder(), &mut dice);
        wait_for_repair(&fixture).await;
        // A shard whose split could not even list its documents reopens on the next request.
        fixture
            .eventually("the shard answers", async |fixture| {
                fixture.leaf.status(fixture.shard).await.is_ok()
            })
            .await;
        assert_eq!(fixture.documents().await, expected);
    }
    assert!(damaged > 0, "no split was damaged in five rounds");
    let fixture = fixture.restart().await;
    assert_eq!(fixture.documents().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_damaged_while_the_leaf_is_down_is_rebuilt_from_its_documents() {
    let mut dice = Dice::new(made_up::seed());
    let mut fixture = Fixture::start(scrubbed);
    let expected = fill(&fixture, 10, 0).await;
    wait_until_on_disk(&fixture).await;
    for _ in 0..5 {
        let splits = fixture.splits_folder();
        fixture = fixture
            .restart_with_files(|_| assert!(damage_splits(&splits, &mut dice) > 0))
            .await;
        wait_for_repair(&fixture).await;
        assert_eq!(fixture.documents().await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_split_of_an_idle_shard_is_detected_and_rebuilt_from_its_documents() {
    let mut dice = Dice::new(made_up::seed());
    let fixture = Fixture::start(|options| {
        scrubbed(options);
        close_idle_shards(options);
    });
    let expected = fill(&fixture, 10, 0).await;
    for _ in 0..5 {
        // Scrubbing its splits does not keep the shard open …
        fixture.wait_until_closed().await;
        damage_splits(&fixture.splits_folder(), &mut dice);
        // … but damage is repaired before it closes again.
        wait_for_repair(&fixture).await;
        fixture.wait_until_closed().await;
        wait_for_repair(&fixture).await;
        assert_eq!(fixture.documents().await, expected);
    }
}

/// The first file below a folder whose name ends with `suffix`.
fn find_file(folder: &FilePath, suffix: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    let ends = |path: &&PathBuf| {
        path.is_file()
            && path
                .file_name()
                .is_some_and(|file| file.to_string_lossy().ends_with(suffix))
    };
    let here = entries.iter().find(ends).cloned();
    here.or_else(|| {
        entries
            .iter()
            .filter(|path| path.is_dir())
            .find_map(|folder| find_file(folder, suffix))
    })
}
