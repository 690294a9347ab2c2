//! Splits: documents and outcomes do not change while micro-splits are written to disk and merged repeatedly.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use plan::scan::Scan as _;
use proto::ingest::{BatchOutcome, Outcomes};

use crate::LeafOptions;

use super::{
    made_up::{self, Dice},
    segments::check_values,
    support::{Fixture, all_documents, clicks, record, small, texts},
};

/// Writes rounds of keyed and unkeyed records with a few tombstones; returns the expected documents.
pub(crate) async fn fill(fixture: &Fixture, rounds: i64, from: i64) -> BTreeMap<String, String> {
    let mut documents = BTreeMap::new();
    let mut by_key: BTreeMap<String, String> = BTreeMap::new();
    const ROUND: i64 = 30;
    for round in 0..rounds {
        let after = from + round * ROUND - 1;
        let mut records = Vec::new();
        for offset in after + 1..=after + ROUND {
            let key = (offset % 3 != 0).then(|| format!("k{}", (offset * 7919) % 97));
            let text = (offset % 11 != 5).then(|| format!(r#"{{"offset":{offset},"text":"number {offset} of many"}}"#));
            let address = format!("clicks/0@{offset}");
            if let Some(old) = key.as_ref().and_then(|key| by_key.remove(key)) {
                documents.remove(&old);
            }
            if let Some(text) = &text {
                documents.insert(address.clone(), text.clone());
                key.as_ref().map(|key| by_key.insert(key.clone(), address));
            }
            records.push(record(offset, key.as_deref(), text.as_deref()));
        }
        loop {
            match fixture
                .write(fixture.batch(0, after, after + ROUND, records.clone()))
                .await
            {
                BatchOutcome::Applied { .. } => break,
                BatchOutcome::Busy { .. } => tokio::task::yield_now().await,
                other => panic!("{other:?}"),
            }
        }
    }
    documents
}

async fn generations(fixture: &Fixture) -> Vec<u32> {
    let status = fixture.leaf.status(fixture.shard).await.expect("a status");
    status
        .splits
        .iter()
        .filter(|split| split.on_disk)
        .map(|split| split.generation)
        .collect()
}

pub(crate) async fn wait_until_on_disk(fixture: &Fixture) {
    fixture
        .eventually("all documents are in splits on disk", async |fixture| {
            let status = fixture.leaf.status(fixture.shard).await.expect("a status");
            status.tail == 0 && status.splits.iter().all(|split| split.on_disk)
        })
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn repeated_merges_preserve_every_document() {
    let fixture = Fixture::start(small);
    let mut expected = BTreeMap::new();
    let mut from = 0;
    while generations(&fixture)
        .await
        .iter()
        .max()
        .is_none_or(|generation| *generation < 2)
    {
        assert!(from < 20_000, "no merged split was merged again");
        // This round replaces documents of earlier rounds that have the same keys.
        let documents = fill(&fixture, 4, from).await;
        let keyed = |offset: i64| offset % 3 != 0;
        let keys: std::collections::BTreeSet<i64> = (from..from + 120)
            .filter(|o| keyed(*o))
            .map(|o| (o * 7919) % 97)
            .collect();
        expected.retain(|address: &String, _: &mut String| {
            let offset: i64 = address
                .rsplit('@')
                .next()
                .and_then(|o| o.parse().ok())
                .expect("an offset");
            !(keyed(offset) && keys.contains(&((offset * 7919) % 97)))
        });
        expected.extend(documents);
        from += 120;
        assert_eq!(fixture.documents().await, expected);
        wait_until_on_disk(&fixture).await;
    }
    assert_eq!(fixture.documents().await, expected);
    let crashed = fixture.crashed();
    assert_eq!(crashed.documents().await, expected, "after a crash");
    let before = fixture.outcomes(&clicks(), 0).await;
    let fixture = fixture.restart().await;
    assert_eq!(fixture.documents().await, expected, "after a restart");
    assert_eq!(fixture.outcomes(&clicks(), 0).await, before);
    assert!(generations(&fixture).await.contains(&2));
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_match_the_documents_through_builds_and_repeated_merges() {
    let seed = made_up::seed();
    let mut dice = Dice::new(seed);
    let fixture = Fixture::start(small);
    let (mut round, mut checked) = (0, None);
    while checked < Some(2) {
        assert!(round < 200, "no merged split was merged again");
        let documents = made_up::documents(seed + round, 50);
        let texts: Vec<&str> = documents
            .iter()
            .filter(|document| document.header.json)
            .map(|document| document.text())
            .collect();
        fixture.push(&texts).await;
        round += 1;
        wait_until_on_disk(&fixture).await;
        let highest = generations(&fixture).await.into_iter().max();
        if highest > checked {
            checked = highest;
            let view = fixture.view().await;
            for segment in &view.segments {
                let addresses: Vec<_> = (0..segment.segment.documents())
                    .map(|number| segment.segment.address(number))
                    .collect();
                let documents: Vec<_> = view
                    .store
                    .read(&addresses)
                    .expect("rows")
                    .into_iter()
                    .map(Arc::new)
                    .collect();
                assert!(
                    check_values(&segment.segment, &documents, &mut dice).answered > 100,
                    "columns are read"
                );
            }
        }
    }
}

/// Two micro-splits of two documents become one split.
fn both_at_once(options: &mut LeafOptions) {
    small(options);
    options.publish_documents = 2;
    options.publish_after = Duration::from_secs(3_600);
    options.split_documents = 4;
    options.split_idle = Duration::from_secs(3_600);
}

/// Each micro-split of two documents becomes a split, and two splits are merged.
fn one_after_another(options: &mut LeafOptions) {
    both_at_once(options);
    options.split_documents = 2;
    options.merge_splits = 2;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_burst_has_left_is_merged_when_ingest_is_idle() {
    let fixture = Fixture::start(|options| {
        one_after_another(options);
        options.merge_splits = 100;
    });
    for from in [0, 2, 4] {
        let records = (from..from + 2)
            .map(|offset| record(offset, None, Some("{}")))
            .collect();
        fixture.write(fixture.batch(0, from - 1, from + 1, records)).await;
        wait_until_on_disk(&fixture).await;
    }
    assert_eq!(generations(&fixture).await, [0, 0, 0]);
    let fixture = fixture
        .restart_with_options(|options| {
            one_after_another(options);
            options.merge_splits = 100;
            options.merge_idle = Duration::from_millis(50);
        })
        .await;
    assert_eq!(fixture.documents().await.len(), 6);
    fixture
        .eventually("the splits are merged", async |fixture| {
            generations(fixture).await == [1]
        })
        .await;
    assert_eq!(fixture.documents().await.len(), 6);
}

#[tokio::test(flavor = "multi_thread")]
async fn large_parts_are_copied_as_they_are_and_others_are_built_again() {
    const MEDIUM: usize = 3 << 20;
    const LARGE: usize = 13 << 20;
    let cases = [
        ("micro-splits", true, MEDIUM, [0, 0], false, 2),
        ("micro-splits of two partitions", true, MEDIUM, [0, 1], false, 2),
        ("small micro-splits", true, 100, [0, 0], false, 1),
        ("micro-splits not in address order", true, MEDIUM, [1, 0], false, 1),
        ("micro-splits with a deletion", true, MEDIUM, [0, 0], true, 1),
        ("splits", false, LARGE, [0, 0], false, 2),
        ("small splits", false, MEDIUM, [0, 0], false, 1),
        // Two, because they are too large for one.
        ("splits with a deletion", false, LARGE, [0, 0], true, 2),
    ];
    for (what, at_once, bytes, partitions, deletes, parts) in cases {
        let fixture = Fixture::start(if at_once { both_at_once } else { one_after_another });
        let text = |offset: i64| format!(r#"{{"offset":{offset},"text":"{}"}}"#, "x".repeat(bytes));
        let document = |offset: i64| record(offset, Some(&format!("k{offset}")), Some(&text(offset)));
        // So many documents are a split whose part is copied, if they are large.
        let count = if bytes == LARGE { 5 } else { 2 };
        let mut next = [0, 0];
        for (round, partition) in partitions.into_iter().enumerate() {
            let from = next[partition as usize];
            let mut records: Vec<_> = (from..from + count).map(document).collect();
            if deletes && round == 1 {
                records.push(record(from + count, Some("k0"), None));
            }
            let through = from + records.len() as i64 - 1;
            next[partition as usize] = through + 1;
            let batch = fixture.batch(partition, from - 1, through, records);
            assert!(
                matches!(fixture.write(batch).await, BatchOutcome::Applied { .. }),
                "{what}"
            );
            fixture
                .eventually("the tail is indexed", async |fixture| {
                    fixture.leaf.status(fixture.shard).await.expect("a status").tail == 0
                })
                .await;
        }
        fixture
            .eventually("there is one split", async |fixture| {
                let status = fixture.leaf.status(fixture.shard).await.expect("a status");
                matches!(status.splits.as_slice(), [only] if only.on_disk)
            })
            .await;
        let view = fixture.view().await;
        let splits: Vec<(u32, usize)> = (view.segments.iter())
            .map(|entry| (entry.segment.documents(), entry.segment.parts().len()))
            .collect();
        assert_eq!(splits, [(2 * count as u32 - u32::from(deletes), parts)], "{what}");
        let expected = all_documents(&view);
        assert_eq!(fixture.crashed().documents().await, texts(&expected), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_or_broken_split_is_rebuilt_from_its_documents() {
    let fixture = Fixture::start(small);
    let expected = fill(&fixture, 10, 0).await;
    wait_until_on_disk(&fixture).await;
    let splits_folder = fixture.splits_folder();
    let Fixture {
        folder,
        leaf,
        catalog,
        shard,
        adjust,
    } = fixture;
    leaf.close().await;
    drop(leaf);
    // Only now, when no merge is running.
    let splits: Vec<_> = std::fs::read_dir(splits_folder)
        .expect("splits")
        .map(|e| e.expect("an entry").path())
        .collect();
    std::fs::remove_file(&splits[0]).expect("removed");
    if let Some(second) = splits.get(1) {
        std::fs::write(second, b"not a split").expect("written");
    }
    std::fs::write(
        splits[0].with_file_name("00000000deadbeef.split"),
        b"an unfinished build",
    )
    .expect("written");
    std::fs::write(splits[0].with_file_name("something.tmp"), b"an unfinished build").expect("written");
    let mut options = crate::LeafOptions::new(folder.path());
    adjust(&mut options);
    let leaf = crate::Leaf::open(options, catalog.subscribe()).expect("a leaf");
    let fixture = Fixture {
        folder,
        leaf,
        catalog,
        shard,
        adjust,
    };
    assert_eq!(fixture.documents().await, expected);
    let remaining: Vec<String> = std::fs::read_dir(fixture.splits_folder())
        .expect("splits")
        .map(|e| e.expect("an entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert!(
        !remaining
            .iter()
            .any(|name| name.contains("deadbeef") || name.starts_with("something")),
        "files that the manifest does not list are removed: {remaining:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retained_view_reads_documents_that_were_replaced_and_merged_away() {
    let fixture = Fixture::start(small);
    fill(&fixture, 4, 0).await;
    wait_until_on_disk(&fixture).await;
    let view = fixture.view().await;
    let before = texts(&all_documents(&view));
    fill(&fixture, 40, 120).await;
    wait_until_on_disk(&fixture).await;
    assert_eq!(texts(&all_documents(&view)), before, "its rows and files are retained");
    drop(view);
    let rows = async |fixture: &Fixture| {
        fixture
            .leaf
            .status(fixture.shard)
            .await
            .expect("a status")
            .splits
            .iter()
            .map(|s| s.deleted)
            .sum::<u64>()
    };
    assert!(rows(&fixture).await < 1_000);
    assert!(fixture.documents().await.len() < before.len() + 40 * 30);
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_no_view_needs_are_removed_while_other_views_are_retained() {
    let fixture = Fixture::start(|options| {
        small(options);
        // A merge of the first two splits would keep the rows of both until no view needs one.
        options.merge_splits = 100;
    });
    let put = async |from: i64| {
        let puts = (from..from + 150)
            .map(|offset| record(offset, Some(&format!("k{}", offset - from)), Some("{}")))
            .collect();
        fixture.write(fixture.batch(0, from - 1, from + 149, puts)).await;
        wait_until_on_disk(&fixture).await;
    };
    put(0).await;
    let first = fixture.view().await;
    let old: Vec<_> = all_documents(&first)
        .into_iter()
        .map(|document| document.address)
        .collect();
    put(150).await;
    // Or the second view would retain the first split, too.
    let is_replaced = async |fixture: &Fixture| {
        let view = fixture.view().await;
        let mut segments = view.segments.iter();
        segments.all(|entry| old.iter().all(|address| entry.segment.find(address).is_none()))
    };
    fixture.eventually("the first split is replaced", is_replaced).await;
    let second = fixture.view().await;
    put(300).await;
    assert_eq!(
        first.store.read(&old).expect("rows").len(),
        150,
        "a retained view reads replaced documents"
    );
    drop(first);
    fixture
        .eventually("the oldest rows are removed", async |_| {
            old.iter()
                .all(|address| second.store.read(std::slice::from_ref(address)).is_err())
        })
        .await;
    assert_eq!(
        all_documents(&second).len(),
        150,
        "the rows of the retained view are not removed"
    );
    drop(second);
    assert_eq!(fixture.documents().await.len(), 150);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shard_with_all_documents_deleted_is_empty_and_stays_empty() {
    let fixture = Fixture::start(small);
    let puts = (0..150)
        .map(|offset| record(offset, Some(&format!("k{offset}")), Some("{}")))
        .collect();
    fixture.write(fixture.batch(0, -1, 149, puts)).await;
    wait_until_on_disk(&fixture).await;
    let tombstones = (150..300)
        .map(|offset| record(offset, Some(&format!("k{}", offset - 150)), None))
        .collect();
    fixture.write(fixture.batch(0, 149, 299, tombstones)).await;
    assert!(fixture.documents().await.is_empty());
    fixture
        .eventually("the empty split is removed", async |fixture| {
            generations(fixture).await.is_empty()
        })
        .await;
    let fixture = fixture.restart().await;
    assert!(fixture.documents().await.is_empty());
    let expected = Outcomes {
        events: 300,
        accepted: 150,
        tombstones: 150,
        deleted: 150,
        bytes: 300,
        ..Outcomes::default()
    };
    assert_eq!(fixture.outcomes(&clicks(), 0).await, expected);
    let again = vec![record(300, Some("k1"), Some("7"))];
    fixture.write(fixture.batch(0, 299, 300, again)).await;
    assert_eq!(fixture.documents().await.into_values().collect::<Vec<_>>(), ["7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_of_several_partitions_are_merged_in_order() {
    let fixture = Fixture::start(small);
    let mut expected = BTreeMap::new();
    for round in 0..25i64 {
        for partition in 0..3 {
            let after = round * 10 - 1;
            let records = (after + 1..=after + 10)
                .map(|offset| record(offset, None, Some(&format!("{}", offset * 10 + i64::from(partition)))))
                .collect();
            fixture
                .write(fixture.batch(partition, after, after + 10, records))
                .await;
            expected.extend((after + 1..=after + 10).map(|o| {
                (
                    format!("clicks/{partition}@{o}"),
                    format!("{}", o * 10 + i64::from(partition)),
                )
            }));
        }
        assert_eq!(fixture.documents().await.len(), expected.len());
    }
    wait_until_on_disk(&fixture).await;
    assert_eq!(fixture.documents().await, expected);
    assert_eq!(fixture.crashed().documents().await, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_folder_of_a_dropped_collection_is_removed_after_a_day() {
    let fixture = Fixture::start(small);
    fill(&fixture, 2, 0).await;
    let folder = fixture.folder.path().join(fixture.shard.collection.to_string());
    assert!(folder.exists());
    let drop = |ago_ms: Option<i64>| {
        fixture.catalog.send_modify(|catalog| {
            let mut next = (**catalog).clone();
            next.version += 1;
            next.collections.clear();
            let now_ms = chrono::Utc::now().timestamp_millis();
            next.dropped
                .extend(ago_ms.map(|ago_ms| (fixture.shard.collection, now_ms - ago_ms)));
            *catalog = std::sync::Arc::new(next);
        })
    };
    const DAY_MS: i64 = 24 * 3_600 * 1_000;
    // A collection that is neither known nor marked as dropped stays. A dropped one is closed and stays for a day.
    drop(None);
    drop(Some(DAY_MS - 60_000));
    fixture
        .eventually("its shard is closed", async |fixture| {
            fixture.leaf.status(fixture.shard).await.is_err()
        })
        .await;
    assert!(folder.exists());
    drop(Some(DAY_MS));
    let folders = |fixture: &Fixture| {
        let entries = std::fs::read_dir(fixture.folder.path()).expect("a folder");
        entries
            .filter(|entry| entry.as_ref().expect("an entry").path().is_dir())
            .count()
    };
    fixture
        .eventually("no folder of a collection is left", async |fixture| {
            folders(fixture) == 0
        })
        .await;
    assert!(fixture.leaf.status(fixture.shard).await.is_err());
}
