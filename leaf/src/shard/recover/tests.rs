//! Rebuilt splits: an opening that fails, or that cannot write, does not make the next opening build them again.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use proto::ingest::ShardId;
use uuid::Uuid;

use super::recover;
use crate::{
    error::Error,
    shard::{SPLITS_FOLDER, STORE_FOLDER},
    split::{Segment, of_newer_version},
    store::{Store, manifest::file_name},
    tests::{
        splits::{fill, wait_until_on_disk},
        support::{Fixture, small},
    },
};

/// A shard with at least two splits.
async fn shard_with_splits() -> Fixture {
    let fixture = Fixture::start(|options| {
        small(options);
        options.merge_splits = 100;
    });
    for round in 0..3 {
        fill(&fixture, 5, round * 150).await;
        wait_until_on_disk(&fixture).await;
    }
    fixture
}

/// The folders of a closed shard, and its splits in the order in which they are opened.
struct ClosedShard {
    id: ShardId,
    store: PathBuf,
    splits: PathBuf,
    files: Vec<PathBuf>,
}

impl ClosedShard {
    fn of(id: ShardId, folder: &Path) -> Self {
        let folder = folder.join(id.collection.to_string()).join(id.number.to_string());
        let (store, splits) = (folder.join(STORE_FOLDER), folder.join(SPLITS_FOLDER));
        let manifest = Store::open(id, &store, 100).expect("a store").manifest().expect("rows");
        let by_order: BTreeMap<_, _> = manifest.iter().map(|(split, row)| (row.order, *split)).collect();
        let files: Vec<_> = by_order.values().map(|split| splits.join(file_name(*split))).collect();
        assert!(files.len() > 1, "{files:?}");
        Self {
            id,
            store,
            splits,
            files,
        }
    }

    fn open(&self) -> Result<(), Error> {
        let store = Store::open(self.id, &self.store, 100).expect("a store");
        recover(&Arc::new(store), &self.splits).map(drop)
    }

    fn open_read_only(&self) -> Result<(), Error> {
        let store = Store::open_read_only(self.id, &self.store, 100).expect("a store");
        recover(&Arc::new(store), &self.splits).map(drop)
    }

    fn uuid_of_first(&self) -> Uuid {
        let split = Segment::open(&self.files[0]).expect("a split");
        split.facts().expect("it is on disk").origin.uuid
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_is_rebuilt_once_although_a_later_split_keeps_the_shard_from_opening() {
    let fixture = shard_with_splits().await;
    let (id, before) = (fixture.shard, fixture.documents().await);
    let fixture = fixture
        .restart_with_files(|folder| {
            let shard = ClosedShard::of(id, folder);
            let first = shard.uuid_of_first();
            std::fs::remove_file(&shard.files[0]).expect("removed");
            // The last split seems to be of a newer release.
            let last = shard.files.last().expect("two");
            let whole = std::fs::read(last).expect("a split");
            std::fs::write(last, of_newer_version(&whole)).expect("written");
            shard.open().expect_err("a newer split is refused");
            let rebuilt = shard.uuid_of_first();
            assert_ne!(rebuilt, first);
            shard.open().expect_err("a newer split is refused");
            assert_eq!(shard.uuid_of_first(), rebuilt);
            std::fs::write(last, &whole).expect("written");
            shard.open().expect("it opens");
            assert_eq!(shard.uuid_of_first(), rebuilt);
        })
        .await;
    assert_eq!(fixture.documents().await, before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_shard_uses_the_split_that_it_rebuilt_before() {
    let fixture = shard_with_splits().await;
    let (id, before) = (fixture.shard, fixture.documents().await);
    let fixture = fixture
        .restart_with_files(|folder| {
            let shard = ClosedShard::of(id, folder);
            std::fs::remove_file(&shard.files[0]).expect("removed");
            shard.open_read_only().expect("it opens");
            let rebuilt = shard.uuid_of_first();
            shard.open_read_only().expect("it opens");
            assert_eq!(shard.uuid_of_first(), rebuilt);
        })
        .await;
    assert_eq!(fixture.documents().await, before);
}
