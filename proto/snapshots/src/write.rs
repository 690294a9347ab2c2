//! Writes the files of a replica to the store: on its leaf.

use std::{collections::HashMap, path::PathBuf};

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use proto::{Problem, snapshot::StoredObject};

use crate::{
    ShardFiles, SnapshotStore, StoredFile,
    store::{blocking, hash_file},
};

/// Files of a shard that are written at the same time.
const FILES_AT_ONCE: usize = 4;

/// Throttles an upload, cancels it, and receives its progress.
#[async_trait]
pub trait Pace: Send + Sync {
    /// Waits before the next part is written. Fails if the work is to end.
    async fn wait(&self) -> Result<(), Problem>;

    /// Notes that a part was written.
    fn wrote(&self, bytes: u64);

    /// Notes that a part was there.
    fn had(&self, bytes: u64);
}

/// The files of a replica, linked so that they do not change.
pub struct ShardSource {
    /// The folder with the files.
    pub folder: PathBuf,
    /// What the list of its files says of the shard; its own list is empty.
    pub about: ShardFiles,
    /// The names of the files, with their sizes and whether a file of this name and size always has the same contents.
    pub files: Vec<(String, u64, bool)>,
}

/// Writes the files that the store does not have, then the list of all.
pub async fn write_shard(
    store: &SnapshotStore,
    source: ShardSource,
    earlier: Option<&ShardFiles>,
    pace: &dyn Pace,
) -> Result<StoredObject, Problem> {
    let known: HashMap<(&str, u64), &StoredObject> = match earlier {
        Some(earlier) if earlier.store == source.about.store => {
            let files = earlier.files.iter();
            files
                .map(|file| ((file.name.as_str(), file.object.bytes), &file.object))
                .collect()
        }
        _ => HashMap::new(),
    };
    let written = source.files.iter().map(|(name, bytes, never_changes)| {
        let path = source.folder.join(name);
        let known = known.get(&(name.as_str(), *bytes)).filter(|_| *never_changes);
        async move {
            let object = match known {
                Some(known) => (*known).clone(),
                None => StoredObject {
                    sha256: {
                        let read = path.clone();
                        blocking(&path, move || hash_file(&read)).await?
                    },
                    bytes: *bytes,
                },
            };
            match store.has(&object).await? {
                true => pace.had(*bytes),
                false => store.put_file(&path, &object, pace).await?,
            }
            Ok::<_, Problem>(StoredFile {
                name: name.clone(),
                object,
            })
        }
    });
    // Boxed, because the compiler cannot see otherwise that it may run on any thread.
    let written: Vec<_> = written
        .map(|file| Box::pin(file) as futures::future::BoxFuture<'_, _>)
        .collect();
    let files: Vec<StoredFile> = stream::iter(written).buffered(FILES_AT_ONCE).try_collect().await?;
    let list = ShardFiles { files, ..source.about };
    store.put_json(&list).await
}
