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
use proto::{
    Catalog, Code, CollectionName, CollectionUid, Problem,
    catalog::{Collection, CollectionSettings, Retention},
};
use tokio::time::{Instant, sleep_until, timeout_at};
use tracing::{info, warn};

use super::{DeleteCause, DeleteRequest, Engine, find_collection};
use crate::{answer::QueryOptions, sql};

/// How long a removal may look for expired documents.
const REMOVAL_TIME_MAX: Duration = Duration::from_mins(10);
/// How soon a removal that failed is repeated, at most.
const RETRY_WAIT_MAX: Duration = Duration::from_secs(60);
/// How soon a collection is looked at whose settings have changed. The aggregator that changed them does it at once.
const CHANGED_WAIT: Duration = Duration::from_secs(5);
/// How long to sleep if no collection has a retention; a change of the catalog ends it.
const IDLE_WAIT: Duration = Duration::from_hours(1);

/// When a collection is looked at again, and the settings that this follows from.
struct DueRemoval {
    at: Instant,
    settings: CollectionSettings,
}

/// Removes expired documents of all collections until the engine is dropped.
pub(super) async fn run(engine: Weak<Engine>) {
    let mut due: HashMap<CollectionUid, DueRemoval> = HashMap::new();
    let mut starts = true;
    loop {
        let Some(running) = engine.upgrade() else { return };
        let mut catalog = running.roles.changes.catalog();
        let seen = Arc::clone(&catalog.borrow_and_update());
        let has_retention = |(_, collection): (_, &Collection)| collection.settings.retention.is_some();
        due.retain(|uid, _| seen.collection(*uid).is_some_and(has_retention));
        for (name, settings, uid) in with_retention(&seen) {
            let step = settings.retention.as_ref().map_or(IDLE_WAIT, Retention::step);
            let wait = match due.get(&uid) {
                Some(known) if known.settings != settings => step.min(CHANGED_WAIT),
                Some(known) if known.at > Instant::now() => continue,
                None if !starts => step.min(CHANGED_WAIT),
                _ => running.remove_expired(&name, step).await,
            };
            // Not all aggregators at the same time: they would find the same documents.
            let at = Instant::now() + wait.mul_f64(rand::random_range(0.5..1.0));
            due.insert(uid, DueRemoval { at, settings });
        }
        drop(running);
        starts = false;
        let next = due.values().map(|due| due.at).min();
        tokio::select! {
            () = sleep_until(next.unwrap_or_else(|| Instant::now() + IDLE_WAIT)) => {}
            changed = catalog.changed() => if changed.is_err() { return },
        }
    }
}

fn with_retention(catalog: &Catalog) -> impl Iterator<Item = (CollectionName, CollectionSettings, CollectionUid)> {
    let collections = catalog.collections.iter();
    let with_retention = collections.filter(|(_, collection)| collection.settings.retention.is_some());
    with_retention.map(|(name, collection)| (name.clone(), collection.settings.clone(), collection.uid))
}

impl Engine {
    /// Removes expired documents of a collection, and returns how soon to do so again.
    async fn remove_expired(self: &Arc<Self>, name: &CollectionName, step: Duration) -> Duration {
        match self.expire(name, REMOVAL_TIME_MAX.min(self.options.timeout_max)).await {
            Ok(0) => step,
            Ok(documents) => {
                info!(collection = %name, documents, "removed expired documents");
                step
            }
            Err(problem) => {
                warn!(collection = %name, %problem, "could not remove expired documents; this will be retried");
                step.min(RETRY_WAIT_MAX)
            }
        }
    }

    /// Removes the expired documents of a collection, and returns how many there were. One removal runs at a time.
    pub(crate) async fn expire(self: &Arc<Self>, name: &CollectionName, timeout: Duration) -> Result<u64, Problem> {
        let until = Instant::now() + timeout;
        let others = || {
            Problem::new(
                Code::Timeout,
                "expired documents of other collections are being removed",
            )
        };
        let mut removed = 0;
        loop {
            let catalog = self.catalog();
            let Some(retention) = find_collection(&catalog, name)?.settings.retention.as_ref() else {
                return Ok(removed);
            };
            let request = self.removal(name, retention, until - Instant::now())?;
            let _alone = timeout_at(until, self.expiring.lock()).await.map_err(|_| others())?;
            let deleted = self.delete(request).await?;
            removed += deleted.documents;
            if !deleted.has_more {
                return Ok(removed);
            }
        }
    }

    /// The delete of what has expired by now.
    fn removal(
        &self,
        name: &CollectionName,
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
            cause: DeleteCause::Retention { as_of_ms },
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
