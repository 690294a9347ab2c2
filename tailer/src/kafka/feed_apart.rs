//! Feeds a replica that is behind by a consumer of its own, until it lacks only what is in the window of the others.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tracing::info;

use super::{
    Error,
    backoff::Backoff,
    closing::ConsumerCloser,
    reader::Reader,
    sender::Sender,
    slot::PartitionSlot,
    status::SourceStatus,
    supervisor::run_on_thread,
    windows::{SourceWindows, WindowBudget},
};

/// How often the position of the replica is compared with the window of the others.
const COMPARE_EVERY: Duration = Duration::from_millis(50);
const RETRY_FIRST: Duration = Duration::from_millis(200);
const RETRY_MAX: Duration = Duration::from_secs(10);
/// A leaf that accepts nothing for this long is left alone for a while …
const FAILING_MAX: Duration = Duration::from_secs(5);
/// … and so is a replica that has got nothing for this long, for any other reason: longer than two batches that take too long.
const STUCK_MAX: Duration = Duration::from_secs(75);
/// How long a replica is fed while others wait for their turn.
const TURN: Duration = Duration::from_mins(1);
/// Consumers of one source that fed replicas apart and are not closed yet. Then none is created.
const CLOSING_MAX: usize = 3;

/// What a sender needs to feed its replica apart.
#[derive(Clone)]
pub(super) struct ApartReaders {
    /// The memory of its window, and the permits.
    pub budget: Arc<WindowBudget>,
    /// Closes its consumer.
    pub closer: Arc<ConsumerCloser>,
}

impl Sender {
    /// Feeds the replica by a consumer of its own until it can go on with the others, or until the sender is stopped.
    pub(super) async fn feed_apart(&self) {
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        while !self.stop.is_cancelled() {
            match self.catch_up().await {
                Ok(()) => return,
                Err(error) => {
                    let mut partition = self.partition();
                    partition.detach(self.replica);
                    let stored = partition.stored_by(self.replica);
                    let error = Some(error).filter(|error| *error != Error::AwaitsCopy);
                    partition.note_apart(self.replica, stored, error);
                }
            }
            self.pause(backoff.next()).await;
        }
    }

    async fn catch_up(&self) -> Result<(), Error> {
        // A leaf that is away needs no consumer.
        let stored = self.stored().await?.offset;
        if self.go_on_with_others(stored, stored) {
            return Ok(());
        }
        if self.apart.closer.unfinished() >= CLOSING_MAX {
            return Err(Error::ConsumersNotClosed { count: CLOSING_MAX });
        }
        let Some(_permit) = self.stop.run_until_cancelled(self.apart.budget.feed_apart()).await else {
            return Ok(());
        };
        let (mut limits, skips) = (self.task.options.batch_limits(), self.task.skips.of(self.slot.number));
        // So that a turn does not begin with batches that took too long in the last one.
        limits.batch_bytes_max = limits.batch_bytes_max.min(self.slot.halved());
        let (replica, all) = (self.slot.replicas[self.replica].clone(), self.slot.all_replicas.clone());
        let slot = PartitionSlot::of_some(self.slot.number, limits, skips, vec![replica], all);
        let stop = self.stop.child_token();
        let reader = Reader::new(
            self.task.clone(),
            // Not the status of the source: the replicas that are read into show that.
            Arc::new(SourceStatus::unreported(&self.task)),
            SourceWindows::new(self.apart.budget.clone()),
            self.apart.closer.clone(),
            stop.clone(),
        );
        // It gets what the others have: the rest they get at the same time.
        let mut through = self.partition().trimmed();
        slot.partition.lock().send_through(through);
        let mut running = Box::pin(run_on_thread(&self.task, reader.apart(slot.clone())));
        let (mut failing_since, begun) = (None, Instant::now());
        let (mut furthest, mut advanced) = (-1, begun);
        loop {
            tokio::select! {
                ended = &mut running => return ended,
                () = tokio::time::sleep(COMPARE_EVERY) => {}
            }
            let (stored, reached, error, is_stopped) = {
                let partition = slot.partition.lock();
                let error = partition.error_of(0).cloned();
                let reached = partition.reached(through);
                (partition.stored(), reached, error, partition.is_stopped())
            };
            // Another replica may use the permit meanwhile.
            let is_failing = matches!(error, Some(Error::Leaf(_) | Error::LeafBusy(_)));
            failing_since = is_failing.then(|| failing_since.unwrap_or_else(Instant::now));
            // The next, smaller batches may come through.
            let is_halved = slot.halved() < self.slot.halved();
            self.slot.note_halved(slot.halved());
            if reached > furthest || reached >= through || is_halved {
                (furthest, advanced) = (furthest.max(reached), Instant::now());
            }
            let has_failed = failing_since.is_some_and(|since| since.elapsed() >= FAILING_MAX);
            let is_stuck = advanced.elapsed() >= STUCK_MAX;
            if is_stuck || error.is_some() && (is_stopped || has_failed) {
                stop.cancel();
                self.partition().detach(self.replica);
                running.await?;
                return Err(error.unwrap_or(Error::AwaitsCopy));
            }
            if begun.elapsed() >= TURN && self.apart.budget.is_feeding_awaited() {
                stop.cancel();
                self.partition().detach(self.replica);
                running.await?;
                return Ok(());
            }
            let mut partition = self.partition();
            partition.note_apart(self.replica, stored, error);
            // Once it has what the others had a moment ago, the window is kept until it has the rest.
            let can_begin = partition.can_begin(self.replica, reached);
            if can_begin || reached >= through {
                partition.attach(self.replica);
            }
            if can_begin {
                break;
            }
            through = partition.trimmed();
            drop(partition);
            slot.partition.lock().send_through(through);
            slot.wake();
        }
        stop.cancel();
        // Its last batch is answered first.
        running.await?;
        let (stored, reached) = {
            let partition = slot.partition.lock();
            (partition.stored(), partition.reached(through))
        };
        if self.go_on_with_others(stored, reached) {
            info!(source = %self.task.source, partition = self.slot.number, stored, "a replica has caught up with the others");
        }
        Ok(())
    }

    /// Has the replica read from the window of the others, if it lacks nothing else. It has everything through `stored`, and
    /// there is nothing more for it through `reached`.
    fn go_on_with_others(&self, stored: i64, reached: i64) -> bool {
        let mut partition = self.partition();
        let can_begin = partition.can_begin(self.replica, reached);
        if !partition.is_read_for(self.replica) {
            partition.resolve_behind(self.replica);
        } else if can_begin {
            let from = if reached > stored { reached + 1 } else { stored.max(0) };
            partition.begin(self.replica, stored, from);
        }
        can_begin
    }
}
