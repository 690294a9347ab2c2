//! The lease of a snapshot store: one node at a time takes or removes snapshots.
//!
//! A removal deletes objects that no manifest names, and a snapshot relies on objects that it has found or written before
//! its own manifest exists. So each node first writes a lease file, and then lists the lease files of others: of two nodes
//! that start at the same time, at least one sees the other, and stops.
//!
//! The holder renews its file every few seconds. Other nodes ignore a file that is older than [`HELD_FOR`] by the clock of the
//! store: its process has died. A holder that could not renew its file for [`TRUSTED_FOR`] stops for good, even if it can
//! write again, because another node may have started meanwhile.

use std::{pin::pin, time::Duration};

use proto::{Code, Problem, clock::since_boot, snapshot::SnapshotId};
use serde::{Deserialize, Serialize};

use crate::SnapshotStore;

/// How long other nodes respect a lease file after it was written.
const HELD_FOR: Duration = Duration::from_mins(5);
/// How long its holder relies on it: clocks may run at different rates, and requests take time.
const TRUSTED_FOR: Duration = Duration::from_mins(3);
/// How often the holder renews it.
const RENEWED_EVERY: Duration = Duration::from_secs(5);
/// How long the store remembers why a snapshot has failed, and of how many.
const FAILURE_KEPT: Duration = Duration::from_hours(7 * 24);
const FAILURES_MAX: usize = 10;

/// What is being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Work {
    /// A snapshot is being taken.
    Take,
    /// Snapshots are being removed.
    Remove,
}

/// A lease: what its holder does, and how far it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Running {
    /// The snapshot that is being taken, or a name of its own.
    pub id: SnapshotId,
    /// What it is.
    pub work: Work,
    /// The node that does it.
    pub by: String,
    /// When it was begun, milliseconds since 1970.
    pub begun_ms: i64,
    /// The bytes that are in the store …
    pub bytes: u64,
    /// … of so many.
    pub total: u64,
    /// The bytes that no earlier snapshot had.
    pub written: u64,
    /// Why it has failed.
    pub error: Option<String>,
}

/// The lease file of this node.
pub(crate) struct Marker {
    store: SnapshotStore,
    /// What the file says.
    pub running: Running,
    /// When it was written last, by [`now`].
    renewed: Duration,
}

impl Marker {
    /// Begins something. Fails if something else is being done.
    pub(crate) async fn begin(store: &SnapshotStore, work: Work, id: SnapshotId, by: &str) -> Result<Self, Problem> {
        let running = Running {
            id,
            work,
            by: by.to_owned(),
            begun_ms: chrono::Utc::now().timestamp_millis(),
            bytes: 0,
            total: 0,
            written: 0,
            error: None,
        };
        let mut marker = Self {
            store: store.clone(),
            running,
            renewed: since_boot(),
        };
        let begun = async {
            marker.renew().await?;
            marker.check_alone().await
        };
        let result = begun.await;
        if result.is_err() {
            // The store may have it although it did not say so. If this fails, it is of a process that has died.
            let _ = store.remove_running(&marker.running.id).await;
        }
        result.map(|()| marker)
    }

    async fn check_alone(&self) -> Result<(), Problem> {
        let all = self.store.running::<Running>().await?;
        let own = all.iter().find(|found| found.id == self.running.id);
        let Some(own) = own else {
            let detail = format!("{} does not list what has just been written there", self.store.url());
            return Err(Problem::new(Code::Unavailable, detail).hint("the store must list at once what it has stored"));
        };
        let mut failures = Vec::new();
        for other in all.iter().filter(|other| other.id != self.running.id) {
            let age = (own.written - other.written).to_std().unwrap_or_default();
            match &other.value {
                Some(Running { error: Some(_), .. }) => failures.push((age, &other.id)),
                _ if age >= HELD_FOR => {}
                value => return Err(self.busy(value.as_ref())),
            }
        }
        failures.sort_unstable();
        let too_old =
            |(number, (age, _)): &(usize, &(Duration, &SnapshotId))| *number >= FAILURES_MAX || *age > FAILURE_KEPT;
        for (_, (_, id)) in failures.iter().enumerate().filter(too_old) {
            self.store.remove_running(id).await?;
        }
        Ok(())
    }

    fn busy(&self, other: Option<&Running>) -> Problem {
        let does = match other {
            Some(other) if other.work == Work::Take => format!("{} is taking snapshot {}", other.by, other.id),
            Some(other) => format!("{} is removing snapshots", other.by),
            None => "a node of another release is doing something".to_owned(),
        };
        Problem::new(Code::Busy, format!("{does} in {}", self.store.url()))
            .hint("repeat it once that has ended, or five minutes after that node has died")
    }

    /// Does the work, and renews the lease with its progress meanwhile. Fails if the lease has lapsed.
    pub(crate) async fn while_held<T>(
        &mut self,
        work: impl Future<Output = Result<T, Problem>>,
        progress: impl Fn(&mut Running),
    ) -> Result<T, Problem> {
        let mut work = pin!(work);
        loop {
            let renewed = {
                let renewal = async {
                    tokio::time::sleep(RENEWED_EVERY).await;
                    progress(&mut self.running);
                    self.renew().await
                };
                // Both go on: a store that is slow does not stop the work. The renewal is polled first: if this process
                // was stopped for long, it finds in most cases that the lease has lapsed before the work goes on.
                tokio::select! {
                    biased;
                    renewed = renewal => Ok(renewed),
                    done = &mut work => Err(done),
                }
            };
            match renewed {
                Ok(renewed) => self.check_held().map_err(|lapsed| renewed.err().unwrap_or(lapsed))?,
                Err(done) => {
                    self.check_held()?;
                    return done;
                }
            }
        }
    }

    async fn renew(&mut self) -> Result<(), Problem> {
        self.check_held()?;
        let begun = since_boot();
        self.store.put_running(&self.running.id, &self.running).await?;
        self.renewed = begun;
        Ok(())
    }

    /// Fails if the lease has lapsed: it was not renewed for [`TRUSTED_FOR`].
    fn check_held(&self) -> Result<(), Problem> {
        match since_boot().saturating_sub(self.renewed) < TRUSTED_FOR {
            true => Ok(()),
            false => Err(Problem::new(
                Code::Unavailable,
                format!(
                    "this node could not renew its lease in {} for {} s, so another one may have begun something",
                    self.store.url(),
                    TRUSTED_FOR.as_secs()
                ),
            )
            .hint("repeat it")),
        }
    }

    /// Ends it.
    pub(crate) async fn end(self) {
        // If this fails, nothing else can be begun for five minutes.
        let _ = self.store.remove_running(&self.running.id).await;
    }

    /// Ends it with a failure, which is shown for a while.
    pub(crate) async fn fail(mut self, problem: &Problem) {
        self.running.error = Some(problem.to_string());
        // If this fails, too, it is over for others five minutes later.
        let _ = self.store.put_running(&self.running.id, &self.running).await;
    }
}

impl SnapshotStore {
    /// What is being done now, and what has failed lately. What is not written any more is of a process that has died.
    pub async fn works(&self) -> Result<Vec<Running>, Problem> {
        let all = self.running::<Running>().await?;
        let now = chrono::Utc::now();
        let said = all.into_iter().filter_map(|found| {
            let silent = (now - found.written).to_std().unwrap_or_default();
            let mut running = found.value?;
            if running.error.is_none() && silent >= HELD_FOR {
                running.error = Some(format!("{} has stopped, or cannot reach the store", running.by));
            }
            Some(running)
        });
        Ok(said.collect())
    }
}
