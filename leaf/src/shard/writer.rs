//! The one writer of a shard: takes all that waits, writes it at once, makes it visible, answers. It runs on the threads of `writers.rs`.
//!
//! Pushes that wait together share one synced write; batches from a log are written without a sync of their own, because their log has them.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::{counter, histogram};
use proto::{
    Code, Problem,
    ingest::{Batch, Push, Pushed, Verdict},
};
use tokio::sync::{mpsc, oneshot};

use super::{
    Shard,
    apply::{Finished, Group, Memory, PushOutcome},
    now_ms,
};
use crate::{
    error::Error,
    fault,
    store::{Partition, Store, Unwritten},
};

/// Jobs that wait for the writer.
pub const QUEUE_JOBS_MAX: usize = 256;
/// Jobs of one write.
const GROUP_JOBS_MAX: usize = 128;
/// A group that weighs so much takes no more jobs.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// What is not synced with its write is synced so much later at the latest, while writes go on …
const SYNC_AFTER: Duration = Duration::from_millis(100);
/// … or after so many bytes.
const SYNC_BYTES: usize = 8 << 20;

/// What the writer is asked to do.
pub enum Job {
    /// Take a batch.
    Write(Batch, oneshot::Sender<Verdict>),
    /// Take a push.
    Push(Push, oneshot::Sender<Result<Pushed, Problem>>),
}

/// An answer that waits for the write.
enum Answer {
    Write(oneshot::Sender<Verdict>, Verdict),
    Push(oneshot::Sender<Result<Pushed, Problem>>, Result<Pushed, Problem>),
}

impl Answer {
    /// An asker that has gone away does not matter: what was written stays.
    fn send(self) {
        match self {
            Self::Write(to, verdict) => drop(to.send(verdict)),
            Self::Push(to, answer) => drop(to.send(answer)),
        }
    }

    /// Nothing was written: an answer that promised so becomes another.
    fn send_unwritten(self, reason: &str, push: Problem) {
        match self {
            Self::Write(to, Verdict::Applied { .. } | Verdict::Refused { .. }) => drop(to.send(Verdict::Busy { reason: reason.to_owned() })),
            Self::Push(to, Ok(_)) => drop(to.send(Err(push))),
            unaffected => unaffected.send(),
        }
    }
}

/// The writer of a shard.
pub struct Writer {
    queue: mpsc::Receiver<Job>,
    memory: Memory,
    synced_at: Instant,
    unsynced_bytes: usize,
}

impl Writer {
    /// The writer of a shard, with what is stored of its kinds.
    pub fn new(store: &Store, partitions: impl Iterator<Item = Partition>, queue: mpsc::Receiver<Job>) -> Result<Self, Error> {
        Ok(Self { queue, memory: Memory::load(store, partitions)?, synced_at: Instant::now(), unsynced_bytes: 0 })
    }

    /// Whether jobs wait.
    pub fn has_jobs(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Writes what waits, up to the limits of a group. After an error the store must be closed and opened again.
    pub fn write_group(&mut self, shard: &Arc<Shard>) -> Result<(), Error> {
        let Ok(first) = self.queue.try_recv() else { return Ok(()) };
        let jobs = self.gather(first);
        self.group(shard, jobs)
    }

    /// Takes no more jobs, and writes those that wait.
    pub fn write_rest(&mut self, shard: &Arc<Shard>) -> Result<(), Error> {
        self.queue.close();
        while self.has_jobs() {
            self.write_group(shard)?;
        }
        Ok(())
    }

    /// All that waits, up to the limits of a group.
    fn gather(&mut self, first: Job) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut weight = 0;
        let mut next = Some(first);
        while let Some(job) = next {
            match &job {
                Job::Write(batch, _) => weight += batch.records.iter().map(proto::record::Record::weight).sum::<usize>(),
                Job::Push(push, _) => weight += push.items.iter().map(bytes::Bytes::len).sum::<usize>(),
            }
            jobs.push(job);
            next = if jobs.len() < GROUP_JOBS_MAX && weight < GROUP_BYTES_MAX { self.queue.try_recv().ok() } else { None };
        }
        jobs
    }

    fn group(&mut self, shard: &Arc<Shard>, jobs: Vec<Job>) -> Result<(), Error> {
        let known = |partition: &Partition| shard.state.lock().rows.get(partition).cloned().unwrap_or_default();
        let kept_ms = i64::try_from(shard.options.request_rows_kept.as_millis()).unwrap_or(i64::MAX);
        let mut group = Group::new(&shard.store, &mut self.memory, &known, kept_ms);
        let mut answers = Vec::with_capacity(jobs.len());
        let mut sync = false;
        for job in jobs {
            let full = shard.full(group.load());
            match job {
                Job::Write(batch, to) => {
                    let verdict = match full {
                        Some(reason) => Verdict::Busy { reason },
                        None => group.write(&batch, now_ms())?,
                    };
                    answers.push(Answer::Write(to, verdict));
                }
                Job::Push(push, to) => {
                    sync = true;
                    let answer = match full {
                        Some(reason) => Err(busy(reason)),
                        None => push_answer(&push, group.push(&push, now_ms())?),
                    };
                    answers.push(Answer::Push(to, answer));
                }
            }
        }
        let (documents, bytes) = group.load();
        let written = match group.finish()? {
            Some(finished) => self.commit(shard, finished, sync, bytes),
            None => Ok(()),
        };
        match written {
            Ok(()) => {
                counter!("rachis_leaf_documents_total").increment(documents as u64);
                counter!("rachis_leaf_groups_total").increment(1);
                answers.into_iter().for_each(Answer::send);
                Ok(())
            }
            Err(Unwritten::Stalled) => {
                let reason = "the store cannot keep up; try again";
                answers.into_iter().for_each(|answer| answer.send_unwritten(reason, busy(reason.into())));
                Ok(())
            }
            Err(Unwritten::Failed(source)) => {
                let unknown = Problem::new(Code::UnknownOutcome, "the write failed and nobody knows how far it came")
                    .hint("send it again with the same Idempotency-Key");
                answers.into_iter().for_each(|answer| answer.send_unwritten("the store failed and opens again", unknown.clone()));
                Err(Error::Storage { shard: shard.id, source })
            }
        }
    }

    /// Writes a group and makes it visible.
    fn commit(&mut self, shard: &Arc<Shard>, finished: Finished, sync: bool, bytes: usize) -> Result<(), Unwritten> {
        let begun = Instant::now();
        let store = &shard.store;
        fault::crash_point("before-commit");
        if sync {
            store.commit_synced(finished.batch)?
        } else {
            store.commit(finished.batch)?
        }
        if !finished.torn.is_empty() {
            fault::crash_point("between-batches");
            store.commit(finished.torn)?;
        }
        fault::crash_point("after-commit");
        self.memory.saved();
        shard.apply(finished.change);
        self.unsynced_bytes = if sync { 0 } else { self.unsynced_bytes + bytes };
        if sync {
            self.synced_at = Instant::now();
        } else if self.synced_at.elapsed() >= SYNC_AFTER || self.unsynced_bytes >= SYNC_BYTES {
            if let Err(Error::Storage { source, .. }) = shard.store.sync() {
                return Err(Unwritten::Failed(source));
            }
            self.synced_at = Instant::now();
            self.unsynced_bytes = 0;
        }
        histogram!("rachis_leaf_commit_seconds").record(begun.elapsed());
        Ok(())
    }
}

fn push_answer(push: &Push, outcome: PushOutcome) -> Result<Pushed, Problem> {
    match outcome {
        PushOutcome::Applied(answer) => Ok(answer),
        PushOutcome::Repeated(answer) => Ok(Pushed { repeated: true, ..answer }),
        PushOutcome::Refused(reason) => Err(Problem::new(Code::NotSupported, reason)),
        PushOutcome::OtherBody => Err(other_body(push.request.as_ref().map_or("", |request| &request.key))),
    }
}

/// The same key, and not the same push.
pub fn other_body(key: &str) -> Problem {
    Problem::new(Code::Conflict, format!("the Idempotency-Key {key} was used for another body")).hint("choose a new key for a new body")
}

pub(super) fn busy(reason: String) -> Problem {
    Problem::new(Code::Busy, reason).hint("try again a little later")
}
