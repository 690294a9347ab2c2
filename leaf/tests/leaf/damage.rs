//! Damage on disk: what is lost is said, and nothing is answered as if it had never been.

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path as FilePath, PathBuf},
    time::Duration,
};

use leaf::{LeafOptions, split::Segment};
use plan::{Column, Path, Type, scan::Scan as _};
use proto::{Code, Problem};

use super::{
    made_up::{self, Dice},
    splits::{fill, settled},
    support::{Fixture, none_idle, record, small, tail_only},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_store_without_its_current_file_is_refused_and_not_emptied() {
    let fixture = Fixture::start(tail_only);
    fixture.push(&["1", "2"]).await;
    let before = fixture.documents().await;
    let aside = tempfile::tempdir().expect("a folder");
    let current = |folder: &FilePath| found(folder, "CURRENT").expect("the store has one");
    let fixture = fixture
        .restart_changed(|folder| drop(std::fs::rename(current(folder), aside.path().join("CURRENT"))))
        .await;
    let refused = fixture
        .try_push(fixture.pushing(&["3"]))
        .await
        .expect_err("the store is not whole");
    assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
    assert!(refused.detail.contains("no CURRENT"), "{refused:?}");
    let back = |folder: &FilePath| {
        drop(std::fs::copy(
            aside.path().join("CURRENT"),
            found(folder, "LOCK").expect("the store").with_file_name("CURRENT"),
        ))
    };
    let fixture = fixture.restart_changed(back).await;
    assert_eq!(fixture.documents().await, before);
    fixture.push(&["3"]).await;
    assert_eq!(fixture.documents().await.len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn acknowledged_writes_behind_a_damaged_record_of_the_log_are_not_dropped_in_silence() {
    let fixture = Fixture::start(tail_only);
    for number in 0..5 {
        let text = format!(r#"{{"number":{number},"filler":"{}"}}"#, "x".repeat(20_000));
        fixture.push(&[&text]).await;
    }
    let flip = |folder: &FilePath, number: u32| {
        let log = found(folder, ".log").expect("a log");
        let mut bytes = std::fs::read(&log).expect("the log");
        let at = memchr::memmem::find(&bytes, format!(r#""number":{number}"#).as_bytes())
            .expect("the document is in the log");
        bytes[at] ^= 1;
        std::fs::write(&log, bytes).expect("the log");
    };
    let damaged = fixture.crashed_changed(|folder| flip(folder, 2));
    let refused = damaged
        .try_push(damaged.pushing(&["5"]))
        .await
        .expect_err("writes would be lost");
    assert_eq!(refused.code, Code::Unavailable, "{refused:?}");
    assert!(
        refused.detail.contains("is damaged at byte")
            && refused.hint.as_ref().is_some_and(|hint| hint.contains("ACCEPT-LOSS")),
        "{refused:?}"
    );

    let accepted = damaged
        .restart_changed(|folder| {
            drop(std::fs::write(
                found(folder, "CURRENT")
                    .expect("the store")
                    .with_file_name("ACCEPT-LOSS"),
                "",
            ))
        })
        .await;
    assert_eq!(accepted.documents().await.len(), 2, "what stands before the damage");
    accepted.push(&["5"]).await;
    assert_eq!(accepted.documents().await.len(), 3);
    assert_eq!(
        found(accepted.folder.path(), "ACCEPT-LOSS"),
        None,
        "it does not accept the next loss"
    );

    // A page of zeros where a block, and so a record, begins.
    let zeroed = fixture.crashed_changed(|folder| {
        let log = found(folder, ".log").expect("a log");
        let mut bytes = std::fs::read(&log).expect("the log");
        bytes[32 << 10..36 << 10].fill(0);
        std::fs::write(&log, bytes).expect("the log");
    });
    let refused = zeroed
        .try_push(zeroed.pushing(&["5"]))
        .await
        .expect_err("writes would be lost");
    assert!(refused.detail.contains("is damaged at byte 32768"), "{refused:?}");

    let torn = fixture.crashed_changed(|folder| {
        let log = File::options()
            .write(true)
            .open(found(folder, ".log").expect("a log"))
            .expect("the log");
        log.set_len(log.metadata().expect("the log").len() - 100)
            .expect("it is cut");
    });
    assert_eq!(
        torn.documents().await.len(),
        4,
        "a write that was cut short at the end of the log was never acknowledged"
    );
}

const BLOCK_BYTES: usize = 64 << 10;

/// Splits at small sizes, and a scrubber that reads all of them again and again.
fn scrubbed(options: &mut LeafOptions) {
    small(options);
    options.scrub_bytes_per_second = 1 << 30;
    options.scrub_every = Duration::from_millis(20);
}

/// Flips a bit somewhere in each split, and returns how many it damaged.
fn damage_splits(folder: &FilePath, dice: &mut Dice) -> usize {
    let mut damaged = 0;
    for split in std::fs::read_dir(folder)
        .expect("splits")
        .map(|entry| entry.expect("an entry").path())
    {
        // A file that is being written, or was replaced just now, is left alone.
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

/// Flips a bit of a split that is read only where a column is.
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
async fn a_question_that_meets_damage_fails_and_is_answered_once_the_split_is_built_again() {
    let fixture = Fixture::start(|options| {
        small(options);
        options.split_documents = 300;
        options.scrub_bytes_per_second = 1;
    });
    let word = |n: i64| format!("{:x}", (n as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15)).repeat(8);
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
    settled(&fixture).await;
    let splits = fixture.splits_folder();
    let split = std::fs::read_dir(&splits)
        .expect("splits")
        .next()
        .expect("one")
        .expect("an entry")
        .path();
    let fixture = fixture.restart_changed(|_| damage_a_column(&split)).await;

    let asked = async |fixture: &Fixture| -> Result<usize, leaf::Error> {
        let view = fixture.view().await;
        let mut found = 0;
        for segment in view.segments {
            let all: Vec<u32> = (0..segment.segment.documents()).collect();
            for column in 0..10 {
                let column = Column::path(Path::of_keys([format!("c{column}").as_str()]), Type::Text);
                found += segment.segment.values(&column, None, &all)?.expect("a column").present as usize;
            }
        }
        Ok(found)
    };
    let problem = Problem::from(asked(&fixture).await.expect_err("it is damaged"));
    assert!(
        problem.code == Code::Unavailable && problem.hint.is_some_and(|hint| hint.contains("built again")),
        "{}",
        problem.detail
    );
    fixture
        .eventually("it is answered", async |fixture| {
            asked(fixture).await.is_ok_and(|found| found == 3_000)
        })
        .await;
    fixture
        .eventually("the damaged file is gone", async |_| !split.exists())
        .await;
}

async fn mended(fixture: &Fixture) {
    let whole = |path: &FilePath| Segment::open(path).is_ok_and(|segment| segment.scrub(0, u64::MAX).is_ok());
    fixture
        .eventually("all splits are whole", async |fixture| {
            // A shard that distrusts its split opens again when it is asked.
            let _open = fixture.leaf.status(fixture.shard).await;
            let splits: Vec<_> = std::fs::read_dir(fixture.splits_folder())
                .expect("splits")
                .map(|entry| entry.expect("an entry").path())
                .collect();
            !splits.is_empty() && splits.iter().all(|split| whole(split))
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_that_is_damaged_while_it_is_open_is_found_and_built_again_from_its_documents() {
    let seed = made_up::seed();
    eprintln!("seed {seed}");
    let mut dice = Dice::new(seed);
    let fixture = Fixture::start(scrubbed);
    let expected = fill(&fixture, 10, 0).await;
    settled(&fixture).await;
    let mut damaged = 0;
    for _ in 0..5 {
        damaged += damage_splits(&fixture.splits_folder(), &mut dice);
        mended(&fixture).await;
        // A shard whose split did not even name its documents opens again when it is asked.
        fixture
            .eventually("it answers", async |fixture| {
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
async fn a_split_that_is_damaged_while_the_leaf_is_away_is_built_again_from_its_documents() {
    let seed = made_up::seed();
    eprintln!("seed {seed}");
    let mut dice = Dice::new(seed);
    let mut fixture = Fixture::start(scrubbed);
    let expected = fill(&fixture, 10, 0).await;
    settled(&fixture).await;
    for _ in 0..5 {
        let splits = fixture.splits_folder();
        fixture = fixture
            .restart_changed(|_| assert!(damage_splits(&splits, &mut dice) > 0))
            .await;
        mended(&fixture).await;
        assert_eq!(fixture.documents().await, expected);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_of_a_shard_that_nobody_uses_is_compared_too_and_built_again_from_its_documents() {
    let seed = made_up::seed();
    eprintln!("seed {seed}");
    let mut dice = Dice::new(seed);
    let fixture = Fixture::start(|options| {
        scrubbed(options);
        none_idle(options);
    });
    let expected = fill(&fixture, 10, 0).await;
    for _ in 0..5 {
        // Reading its splits does not keep it open …
        fixture.all_closed().await;
        damage_splits(&fixture.splits_folder(), &mut dice);
        // … but what is damaged is mended before it closes again.
        mended(&fixture).await;
        fixture.all_closed().await;
        mended(&fixture).await;
        assert_eq!(fixture.documents().await, expected);
    }
}

/// The first file whose name ends so, below a folder.
fn found(folder: &FilePath, name: &str) -> Option<PathBuf> {
    let entries: Vec<PathBuf> = std::fs::read_dir(folder)
        .ok()?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    let ends = |path: &&PathBuf| {
        path.is_file()
            && path
                .file_name()
                .is_some_and(|file| file.to_string_lossy().ends_with(name))
    };
    let here = entries.iter().find(ends).cloned();
    here.or_else(|| {
        entries
            .iter()
            .filter(|path| path.is_dir())
            .find_map(|folder| found(folder, name))
    })
}
