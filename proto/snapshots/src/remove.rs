//! Removes snapshots, and the objects that no other one has.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU64, Ordering},
};

use futures::{StreamExt as _, TryStreamExt as _, stream};
use proto::{
    Problem,
    snapshot::{Sha256, SnapshotId},
};
use serde::Serialize;

use crate::{Marker, Running, ShardFiles, SnapshotStore, Work, store::REQUESTS_AT_ONCE};

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    /// The snapshots.
    pub snapshots: Vec<SnapshotId>,
    /// Objects that no other snapshot has.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Removes snapshots, including those that cannot be read, and the records of those that failed. Removes nothing if the manifest
/// of a snapshot that stays cannot be read: it may need any object. Files that only a damaged list names are removed, because no
/// shard can be restored from that list. `name` is a name for this work, `by` the node that does it. `check` fails if a snapshot
/// is still needed; it runs under the lease, while no other snapshot can be taken or removed.
pub async fn remove(
    store: &SnapshotStore,
    ids: &[SnapshotId],
    name: SnapshotId,
    by: &str,
    check: impl Future<Output = Result<(), Problem>>,
) -> Result<Removed, Problem> {
    let works = store.works().await?;
    for id in ids {
        if !works.iter().any(|work| work.id == *id) && !store.has_manifest(id).await? {
            return Err(store.no_snapshot(id));
        }
    }
    for (id, summary) in store.list().await? {
        check_readable(ids, &id, summary.err())?;
    }
    let mut marker = Marker::begin(store, Work::Remove, name, by).await?;
    let (bytes, total) = (AtomicU64::new(0), AtomicU64::new(0));
    let show = |running: &mut Running| {
        (running.bytes, running.total) = (bytes.load(Ordering::Relaxed), total.load(Ordering::Relaxed));
    };
    let removing = async {
        check.await?;
        // Under the lease no other work is running, so these records are of snapshots that failed or of dead processes.
        for id in ids {
            store.remove_running(id).await?;
        }
        remove_held(store, ids, &bytes, &total).await
    };
    let removed = marker.while_held(removing, show).await;
    // The caller gets the error; other nodes need not see it.
    marker.end().await;
    removed
}

fn check_readable(removed: &[SnapshotId], id: &SnapshotId, problem: Option<Problem>) -> Result<(), Problem> {
    match problem {
        Some(problem) if !removed.contains(id) => Err(Problem {
            detail: format!(
                "nothing is removed, because it is not known what snapshot {id} needs: {}",
                problem.detail
            ),
            hint: Some(format!("`rachis snapshot remove {id}` removes that one")),
            ..problem
        }),
        _ => Ok(()),
    }
}

async fn remove_held(
    store: &SnapshotStore,
    ids: &[SnapshotId],
    bytes: &AtomicU64,
    total: &AtomicU64,
) -> Result<Removed, Problem> {
    let mut kept = HashSet::new();
    for (id, summary) in store.list().await? {
        if ids.contains(&id) {
            continue;
        }
        check_readable(ids, &id, summary.err())?;
        let manifest = store.manifest(&id).await?;
        let lists = manifest.lists().map(|list| async move {
            let read = store.get_json(list).await;
            if read.is_err() && !store.compare(list).await? {
                return Ok(vec![list.sha256]);
            }
            let files: ShardFiles = read?;
            let hashes = files.files.into_iter().map(|file| file.object.sha256);
            Ok::<Vec<Sha256>, Problem>(hashes.chain([list.sha256]).collect())
        });
        let lists: Vec<_> = lists
            .map(|list| Box::pin(list) as futures::future::BoxFuture<'_, _>)
            .collect();
        let mut lists = stream::iter(lists).buffer_unordered(REQUESTS_AT_ONCE);
        while let Some(hashes) = lists.try_next().await? {
            kept.extend(hashes);
        }
    }
    for id in ids {
        store.remove_manifest(id).await?;
    }
    let mut unused = store.objects().await?;
    unused.retain(|(hash, _)| !kept.contains(hash));
    total.store(unused.iter().map(|(_, bytes)| bytes).sum(), Ordering::Relaxed);
    let objects = unused.len() as u64;
    let removals = unused.into_iter().map(|(hash, size)| async move {
        store.remove_object(hash).await?;
        bytes.fetch_add(size, Ordering::Relaxed);
        Ok::<(), Problem>(())
    });
    let mut removals = stream::iter(removals).buffer_unordered(REQUESTS_AT_ONCE);
    while removals.try_next().await?.is_some() {}
    drop(removals);
    Ok(Removed {
        snapshots: ids.to_vec(),
        objects,
        bytes: bytes.load(Ordering::Relaxed),
    })
}
