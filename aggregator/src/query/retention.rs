//! Retention: deletes the documents that are older than their collection keeps them, again and again.
//!
//! Each removal is a delete like any other ([`super::delete`]): it finds the documents in a read view and says where they
//! are, so every replica hides the same ones at the same position, whatever its clock. Every aggregator does this on its
//! own. What another one has removed is not found again.

use std::{
    collections::HashMap,
    sync::{Arc, Weak},
    time::Duration,
};

use chrono::{DateTime, Utc};
use parking_lot::Mutex;
use proto::{
    Catalog, Code, CollectionName, CollectionUid, Problem,
    catalog::{Collection, CollectionSettings, Retention},
};
use tokio::{
    sync::Mutex as AsyncMutex,
    task::JoinSet,
    time::{Instant, sleep_until, timeout_at},
};
use tracing::{info, warn};

use super::{DeleteCause, DeleteRequest, Engine, find_collection};
use crate::{answer::QueryOptions, sql};

/// How long a removal may look for expired documents.
const REMOVAL_TIME_MAX: Duration = Duration::from_mins(10);
/// How soon a removal that failed is repeated; then twice as late each time, until …
const RETRY_WAIT: Duration = Duration::from_mins(1);
/// … this late.
const RETRY_WAIT_MAX: Duration = Duration::from_mins(10);
/// How soon a collection is looked at whose settings have changed. The aggregator that changed them does it at once.
const CHANGED_WAIT: Duration = Duration::from_secs(5);
/// How long to sleep if no collection has a retention; a change of the catalog ends it.
const IDLE_WAIT: Duration = Duration::from_hours(1);

/// Removals that run at once: each takes the place of a query, and all may fail slowly while Kafka is away.
const REMOVALS_AT_ONCE_MAX: usize = 2;

/// The next removal from a collection.
struct DueRemoval {
    /// When it begins; none while one is running, unless the settings have changed since that began.
    at: Option<Instant>,
    /// The settings when it was planned.
    settings: CollectionSettings,
    is_running: bool,
    /// Removals that have failed, one after another.
    failures: u32,
}

/// Removes expired documents of all collections, of a few at a time, until the engine is dropped.
pub(super) async fn run(engine: Weak<Engine>) {
    let mut due: HashMap<CollectionUid, DueRemoval> = HashMap::new();
    let mut running: JoinSet<(CollectionUid, Result<(), Problem>)> = JoinSet::new();
    let mut starts = true;
    loop {
        let Some(alive) = engine.upgrade() else { return };
        let mut catalog = alive.roles.changes.catalog();
        let seen = Arc::clone(&catalog.borrow_and_update());
        let has_retention = |(_, collection): (_, &Collection)| collection.settings.retention.is_some();
        due.retain(|uid, _| seen.collection(*uid).is_some_and(has_retention));
        for (settings, uid) in with_retention(&seen) {
            let first_wait = if starts { Duration::ZERO } else { CHANGED_WAIT };
            let entry = due.entry(uid).or_insert_with(|| DueRemoval {
                at: Some(soon(first_wait)),
                settings: settings.clone(),
                is_running: false,
                failures: 0,
            });
            if entry.settings != settings {
                (entry.at, entry.settings) = (Some(soon(CHANGED_WAIT)), settings);
            }
        }
        // Without room, the next one begins when one has ended. The one that has waited longest is first.
        let mut next = None;
        while running.len() < REMOVALS_AT_ONCE_MAX {
            let waiting = due.iter_mut().filter(|(_, due)| !due.is_running);
            let first = waiting
                .filter_map(|(uid, due)| Some((due.at?, uid, due)))
                .min_by_key(|(at, ..)| *at);
            let Some((at, uid, entry)) = first else { break };
            if at > Instant::now() {
                next = Some(at);
                break;
            }
            (entry.at, entry.is_running) = (None, true);
            let (engine, uid) = (Arc::clone(&alive), *uid);
            running.spawn(async move { (uid, engine.remove_expired(uid).await) });
        }
        drop(alive);
        starts = false;
        tokio::select! {
            () = sleep_until(next.unwrap_or_else(|| Instant::now() + IDLE_WAIT)) => {}
            changed = catalog.changed() => if changed.is_err() { return },
            Some(ended) = running.join_next() => match ended {
                Ok((uid, result)) => due.get_mut(&uid).into_iter().for_each(|due| due.ended(result.is_ok())),
                Err(_) => due.values_mut().for_each(|due| due.ended(false)),
            },
        }
    }
}

impl DueRemoval {
    /// Decides when the next removal follows one that has ended.
    fn ended(&mut self, succeeded: bool) {
        self.is_running = false;
        self.failures = if succeeded { 0 } else { self.failures + 1 };
        let step = self.settings.retention.as_ref().map_or(IDLE_WAIT, Retention::step);
        let wait = match self.failures {
            0 => step,
            failures => RETRY_WAIT
                .saturating_mul(1 << (failures - 1).min(8))
                .min(RETRY_WAIT_MAX),
        };
        self.at.get_or_insert(soon(wait));
    }
}

/// A time within this wait, at least half of it: aggregators that look at the same time would find the same documents.
fn soon(wait: Duration) -> Instant {
    Instant::now() + wait.mul_f64(rand::random_range(0.5..1.0))
}

fn with_retention(catalog: &Catalog) -> impl Iterator<Item = (CollectionSettings, CollectionUid)> {
    let collections = catalog.collections.values();
    let with_retention = collections.filter(|collection| collection.settings.retention.is_some());
    with_retention.map(|collection| (collection.settings.clone(), collection.uid))
}

/// A lock for each collection, which a removal holds until its changes are applied.
#[derive(Default)]
pub(super) struct Removals(Mutex<HashMap<CollectionUid, Arc<AsyncMutex<()>>>>);

impl Engine {
    /// The lock of a collection.
    pub(super) fn removal_lock(&self, collection: CollectionUid) -> Arc<AsyncMutex<()>> {
        let mut locks = self.removals.0.lock();
        locks.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(locks.entry(collection).or_default())
    }

    async fn remove_expired(self: &Arc<Self>, uid: CollectionUid) -> Result<(), Problem> {
        let catalog = self.catalog();
        // It may have been dropped.
        let Some((name, _)) = catalog.collection(uid) else {
            return Ok(());
        };
        let removed = self.expire(name, REMOVAL_TIME_MAX.min(self.options.timeout_max)).await;
        match &removed {
            Ok(0) => {}
            Ok(documents) => info!(collection = %name, documents, "removed expired documents"),
            Err(problem) => {
                warn!(collection = %name, %problem, "could not remove all expired documents; this will be retried");
            }
        }
        removed.map(drop)
    }

    /// Removes the expired documents of a collection, and returns how many there were. Fails if a shard was left out. A
    /// removal that began under former settings has ended when this returns.
    pub(crate) async fn expire(self: &Arc<Self>, name: &CollectionName, timeout: Duration) -> Result<u64, Problem> {
        let until = Instant::now() + timeout;
        let catalog = self.catalog();
        let lock = self.removal_lock(find_collection(&catalog, name)?.uid);
        let still_running = || Problem::new(Code::Timeout, format!("another removal from {name} has not ended yet"));
        drop(timeout_at(until, lock.lock()).await.map_err(|_| still_running())?);
        let mut removed = 0;
        loop {
            // This process may have been frozen while the settings changed.
            self.roles.changes.catch_up().await;
            let catalog = self.catalog();
            let collection = find_collection(&catalog, name)?;
            let Some(retention) = &collection.settings.retention else {
                return Ok(removed);
            };
            let request = self.removal(name, collection, retention, until - Instant::now())?;
            let deleted = self.delete(request).await?;
            removed += deleted.documents;
            if let Some(missing) = deleted.missing {
                return Err(missing);
            }
            if !deleted.has_more {
                return Ok(removed);
            }
        }
    }

    /// The delete of what has expired by now.
    pub(super) fn removal(
        &self,
        name: &CollectionName,
        collection: &Collection,
        retention: &Retention,
        timeout: Duration,
    ) -> Result<DeleteRequest, Problem> {
        let as_of_ms = Utc::now().timestamp_millis();
        let before = DateTime::from_timestamp_millis(retention.expires_before_ms(as_of_ms));
        let before = before.ok_or_else(|| Problem::new(Code::Internal, "the clock of this node is wrong"))?;
        let time = before.format("%Y-%m-%dT%H:%M:%S%.3fZ");
        let condition = format!("{} < TIMESTAMP '{time}'", retention.by.column());
        let mut wanted = sql::delete_where(name.clone(), &condition, self.options.statement_bytes_max)?;
        wanted.text = format!("retention {}: {condition}", retention.as_str());
        Ok(DeleteRequest {
            cause: DeleteCause::Retention {
                as_of_ms,
                collection: collection.uid,
                settings: collection.settings.clone(),
            },
            wanted,
            parameters: Vec::new(),
            author: None,
            dry_run: false,
            options: QueryOptions {
                allow_partial: true,
                timeout: Some(timeout),
                ..QueryOptions::default()
            },
        })
    }
}
