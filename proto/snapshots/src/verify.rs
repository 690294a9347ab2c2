//! Checks that all objects of a snapshot are there.

use std::collections::HashMap;

use futures::{StreamExt as _, stream};
use proto::{
    Problem,
    snapshot::{Sha256, SnapshotId, StoredObject},
};
use serde::Serialize;

use crate::{ShardFiles, SnapshotStore, store::REQUESTS_AT_ONCE};

/// Damaged files that are named.
const NAMED_MAX: usize = 20;

/// What was found.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Objects that were looked at: files that are the same count once.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Whether their bytes were read and compared, not only their sizes.
    pub read: bool,
    /// How many are missing, or have other bytes.
    pub damaged: u64,
    /// Some of these.
    pub examples: Vec<String>,
}

/// Looks whether each object of a snapshot is there with its size; with `read`, whether its bytes have their hash. An object
/// with other bytes is removed then: it is of no use, and the next snapshot writes it again.
pub async fn verify(store: &SnapshotStore, id: &SnapshotId, read: bool) -> Result<Verified, Problem> {
    let manifest = store.manifest(id).await?;
    let mut found = Verified {
        read,
        ..Verified::default()
    };
    let mut objects: HashMap<Sha256, (StoredObject, String)> = HashMap::new();
    for (name, collection) in &manifest.collections {
        for (number, shard) in collection.shards.iter().enumerate() {
            let place = format!("shard {number} of {name}");
            found.objects += 1;
            found.bytes += shard.files.bytes;
            match store.get_json::<ShardFiles>(&shard.files).await {
                Ok(list) => objects.extend(list.files.into_iter().map(|file| {
                    let place = format!("{} of {place}", file.name);
                    (file.object.sha256, (file.object, place))
                })),
                Err(problem) if store.has(&shard.files).await.is_ok() => {
                    found.add(format!("the list of files of {place}: {}", problem.detail));
                }
                Err(problem) => return Err(problem),
            }
        }
    }
    let looked = objects.into_values().map(|(object, place)| async move {
        let is_right = match read {
            // Bytes may also be damaged on their way here.
            true => match store.compare(&object).await {
                Ok(false) => store.compare(&object).await,
                is_right => is_right,
            },
            false => store.has(&object).await,
        };
        is_right.map(|is_right| (object, place, is_right))
    });
    let mut looked = stream::iter(looked).buffer_unordered(REQUESTS_AT_ONCE);
    while let Some(looked) = looked.next().await {
        let (object, place, is_right) = looked?;
        found.objects += 1;
        found.bytes += object.bytes;
        if !is_right {
            found.add(format!("{place}: object {}", object.sha256));
            // Otherwise the next snapshot would rely on it: so it writes it again, if the shard still has the file.
            if read {
                store.remove_object(object.sha256).await?;
            }
        }
    }
    Ok(found)
}

impl Verified {
    fn add(&mut self, damage: String) {
        self.damaged += 1;
        if self.examples.len() < NAMED_MAX {
            self.examples.push(damage);
        }
    }
}
