//! The single writer of a shard: takes all waiting jobs, writes them as one group, makes it visible, and responds. It
//! runs on the threads of `writer_pool.rs`.
//!
//! Pushes that wait together share one synced write. Batches from a log are written without a sync of their own,
//! because the log still has them.
//!
//! A group is built in memory and then written. If building it panics, nothing of it is written, and each record is
//! built and written again on its own: a record that panics alone becomes a dead letter.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use metrics::{counter, histogram};
use proto::{
    Code, Problem,
    document_change::DocumentChange,
    ingest::{Backpressure, Batch, BatchOutcome, Push, PushResult},
    problem::panic_text,
    record::{Record, RecordValue},
};
use tokio::sync::mpsc;
use tracing::{error, warn};

use super::{
    erase::{ErasedDocuments, ForgottenRanges},
    group::{FinishedGroup, Group, KindsCache, PushOutcome, QuarantinedItems},
    job::{DeadLetterRemoval, Job, busy},
    open_shard::Shard,
};
use crate::{error::Error, fault, store::WriteError};

/// The maximum number of jobs in a group.
const GROUP_JOBS_MAX: usize = 128;
/// What the erasure of one document counts as.
const ERASED_DOCUMENT_BYTES: usize = 256;
/// A group of this size takes no more jobs.
const GROUP_BYTES_MAX: usize = 8 << 20;
/// While writes continue, unsynced writes are synced after this time at the latest …
const SYNC_AFTER: Duration = Duration::from_millis(100);
/// … or after this many bytes.
const SYNC_BYTES: usize = 8 << 20;

impl Job {
    fn input(&self) -> JobInput<'_> {
        match self {
            Self::Write(batch, _) => JobInput::Batch(batch),
            Self::Push(push, _) => JobInput::Push(push),
            Self::Remove(removal, _) => JobInput::Removal(removal),
            Self::Erase(erased, _) => JobInput::Erasure(erased),
            Self::Forget(forgotten, _) => JobInput::Forgotten(forgotten),
            Self::Settle(_) => JobInput::Nothing,
        }
    }

    /// Whether it changes documents that were ingested before.
    fn has_changes(&self) -> bool {
        match self {
            Self::Write(batch, _) => batch.source.is_changes(),
            Self::Push(push, _) => push.source.is_changes(),
            Self::Remove(..) | Self::Erase(..) | Self::Settle(_) => false,
            Self::Forget(..) => true,
        }
    }
}

#[derive(Clone, Copy)]
enum JobInput<'a> {
    Batch(&'a Batch),
    Push(&'a Push),
    Removal(&'a DeadLetterRemoval),
    Erasure(&'a ErasedDocuments),
    Forgotten(&'a ForgottenRanges),
    Nothing,
}

/// The outcome of a job once its group is written.
enum JobOutcome {
    Batch(BatchOutcome),
    Push(Result<PushResult, Problem>),
    Removal(Result<(), Problem>),
}

impl JobOutcome {
    /// The outcome if the group was not written: replaces an outcome that is valid only after the write.
    fn unwritten(self, why: &Backpressure, push: &Problem) -> Self {
        match self {
            Self::Batch(BatchOutcome::Applied { .. } | BatchOutcome::Refused { .. }) => {
                Self::Batch(BatchOutcome::Busy(why.clone()))
            }
            Self::Push(Ok(_)) => Self::Push(Err(push.clone())),
            Self::Removal(Ok(())) => Self::Removal(Err(busy(why.reason.clone()))),
            unaffected => unaffected,
        }
    }
}

/// A group that is ready to be written.
struct BuiltGroup {
    finished: Option<FinishedGroup>,
    /// One per input.
    outcomes: Vec<JobOutcome>,
    sync: bool,
    documents: usize,
    bytes: usize,
}

pub(crate) struct ShardWriter {
    queue: mpsc::Receiver<Job>,
    /// A job that was taken from the queue and did not fit into the last group.
    next: Option<Job>,
    kinds_cache: KindsCache,
    synced_at: Instant,
    unsynced_bytes: usize,
}

impl ShardWriter {
    /// A writer for a queue. Loads path kinds when they are first needed.
    pub(crate) fn new(queue: mpsc::Receiver<Job>) -> Self {
        Self {
            queue,
            next: None,
            kinds_cache: KindsCache::default(),
            synced_at: Instant::now(),
            unsynced_bytes: 0,
        }
    }

    /// Whether jobs wait.
    pub(crate) fn has_jobs(&self) -> bool {
        self.next.is_some() || !self.queue.is_empty()
    }

    /// Writes waiting jobs, up to the limits of a group. After an error the store must be closed and reopened.
    pub(crate) fn write_group(&mut self, shard: &Arc<Shard>) -> Result<(), Error> {
        let Some(first) = self.next_job() else {
            return Ok(());
        };
        let jobs = self.gather(first);
        self.run_jobs(shard, jobs)
    }

    /// Closes the queue and writes all waiting jobs.
    pub(crate) fn write_rest(&mut self, shard: &Arc<Shard>) -> Result<(), Error> {
        self.queue.close();
        while self.has_jobs() {
            self.write_group(shard)?;
        }
        Ok(())
    }

    fn next_job(&mut self) -> Option<Job> {
        self.next.take().or_else(|| self.queue.try_recv().ok())
    }

    /// Takes waiting jobs, up to the limits of a group. Changes of documents are a group by themselves: which documents
    /// they delete is counted in what earlier groups have written.
    fn gather(&mut self, first: Job) -> Vec<Job> {
        let mut jobs = Vec::new();
        let mut bytes = 0;
        let mut next = Some(first);
        while let Some(job) = next {
            match &job {
                Job::Write(batch, _) => {
                    bytes += batch
                        .records
                        .iter()
                        .map(proto::record::Record::memory_bytes)
                        .sum::<usize>()
                }
                Job::Remove(removal, _) => bytes += removal.keys.iter().map(Vec::len).sum::<usize>(),
                Job::Push(push, _) => bytes += push.items.iter().map(bytes::Bytes::len).sum::<usize>(),
                // Each is about as large as its rows' keys.
                Job::Erase(erased, _) => bytes += erased.documents.len() * ERASED_DOCUMENT_BYTES,
                Job::Forget(..) | Job::Settle(_) => {}
            }
            let alone = job.has_changes();
            jobs.push(job);
            if alone || jobs.len() >= GROUP_JOBS_MAX || bytes >= GROUP_BYTES_MAX {
                break;
            }
            next = self.next_job();
            if next.as_ref().is_some_and(Job::has_changes) {
                self.next = next.take();
            }
        }
        jobs
    }

    fn run_jobs(&mut self, shard: &Arc<Shard>, jobs: Vec<Job>) -> Result<(), Error> {
        let inputs: Vec<JobInput> = jobs.iter().map(Job::input).collect();
        let (outcomes, written) = match inputs.iter().any(is_written_record_by_record) {
            true => self.one_by_one(shard, &inputs),
            false => match self.build(shard, &inputs, &QuarantinedItems::default()) {
                Ok(built) => self.write_built(shard, built?),
                Err(panic) => {
                    warn!(shard = %shard.id, panic, "the writer panicked; writing record by record to find the cause");
                    self.one_by_one(shard, &inputs)
                }
            },
        };
        // The receiver may be gone; what was written stays.
        for (job, outcome) in jobs.into_iter().zip(outcomes) {
            match (job, outcome) {
                (Job::Write(_, to), JobOutcome::Batch(outcome)) => drop(to.send(outcome)),
                (Job::Push(_, to), JobOutcome::Push(result)) => drop(to.send(result)),
                (
                    Job::Remove(_, to) | Job::Erase(_, to) | Job::Forget(_, to) | Job::Settle(to),
                    JobOutcome::Removal(done),
                ) => drop(to.send(done)),
                _ => {}
            }
        }
        written
    }

    /// Builds a group of these inputs. If this panics, discards the group and returns the panic message.
    fn build(
        &mut self,
        shard: &Shard,
        inputs: &[JobInput],
        quarantine: &QuarantinedItems,
    ) -> Result<Result<BuiltGroup, Error>, String> {
        let built = catch_unwind(AssertUnwindSafe(|| {
            build(shard, &mut self.kinds_cache, inputs, quarantine)
        }));
        built.map_err(|panic| {
            counter!("rachis_leaf_panics_total").increment(1);
            // The cache may contain kinds that were not written; the stored ones are loaded again.
            self.kinds_cache = KindsCache::default();
            panic_text(&*panic).to_owned()
        })
    }

    /// Writes each record of these inputs in a group of its own, and records on which the writer panics as dead
    /// letters.
    fn one_by_one(&mut self, shard: &Arc<Shard>, inputs: &[JobInput]) -> (Vec<JobOutcome>, Result<(), Error>) {
        let mut outcomes = Vec::with_capacity(inputs.len());
        for input in inputs {
            let (outcome, written) = match input {
                JobInput::Batch(batch) => self.record_by_record(shard, batch),
                _ => self.alone(shard, *input),
            };
            outcomes.extend(outcome);
            if written.is_err() {
                return (outcomes, written);
            }
        }
        (outcomes, Ok(()))
    }

    /// Writes each record of a batch in a group of its own. Stops at the first one that is not applied.
    fn record_by_record(&mut self, shard: &Arc<Shard>, batch: &Batch) -> (Option<JobOutcome>, Result<(), Error>) {
        let mut after = batch.after;
        for (number, record) in batch.records.iter().enumerate() {
            let is_last = number + 1 == batch.records.len();
            let through = if is_last { batch.through } else { record.offset };
            let single = Batch {
                shard: batch.shard,
                source: batch.source.clone(),
                topic: batch.topic.clone(),
                partition: batch.partition,
                after,
                through,
                level: batch.level,
                runs: batch.runs,
                rules: batch.rules.clone(),
                records: vec![record.clone()],
            };
            let (outcome, written) = self.alone(shard, JobInput::Batch(&single));
            let applied = matches!(
                outcome,
                Some(JobOutcome::Batch(
                    BatchOutcome::Applied { .. } | BatchOutcome::Already { .. }
                ))
            );
            if is_last || !applied || written.is_err() {
                return (outcome, written);
            }
            after = through;
        }
        self.alone(shard, JobInput::Batch(batch))
    }

    /// Writes one record. Items on which the writer panics become dead letters.
    fn alone(&mut self, shard: &Arc<Shard>, input: JobInput) -> (Option<JobOutcome>, Result<(), Error>) {
        let mut quarantine = QuarantinedItems::default();
        loop {
            match self.build(shard, &[input], &quarantine) {
                Ok(Ok(built)) => {
                    let (mut outcomes, written) = self.write_built(shard, built);
                    return (outcomes.pop(), written);
                }
                Ok(Err(failure)) => return (None, Err(failure)),
                Err(panic) => {
                    error!(shard = %shard.id, panic, "the writer panicked on an item, which becomes a dead letter");
                    if !quarantine.add(panic.clone()) {
                        return (
                            None,
                            Err(Problem::new(Code::Internal, format!("the writer panicked: {panic}")).into()),
                        );
                    }
                }
            }
        }
    }

    /// Writes a group and returns the outcomes of its inputs.
    fn write_built(&mut self, shard: &Arc<Shard>, built: BuiltGroup) -> (Vec<JobOutcome>, Result<(), Error>) {
        let BuiltGroup {
            finished,
            outcomes,
            sync,
            documents,
            bytes,
        } = built;
        let unwritten = |outcomes: Vec<JobOutcome>, why: Backpressure, push: Problem| {
            outcomes
                .into_iter()
                .map(|outcome| outcome.unwritten(&why, &push))
                .collect()
        };
        match finished.map_or(Ok(()), |finished| self.commit(shard, finished, sync, bytes)) {
            Ok(()) => {
                counter!("rachis_leaf_documents_total").increment(documents as u64);
                counter!("rachis_leaf_groups_total").increment(1);
                (outcomes, Ok(()))
            }
            Err(WriteError::Stalled) => {
                let why = Backpressure::passing("the store cannot keep up".into());
                let push = busy(why.reason.clone());
                (unwritten(outcomes, why, push), Ok(()))
            }
            Err(WriteError::Failed(source)) => {
                let unknown = Problem::new(
                    Code::UnknownOutcome,
                    "the write failed; it is unknown whether it was stored",
                )
                .hint("retry with the same Idempotency-Key");
                (
                    unwritten(
                        outcomes,
                        Backpressure::lasting("the store failed and is being reopened".into()),
                        unknown,
                    ),
                    Err(Error::Storage {
                        shard: shard.id,
                        source,
                    }),
                )
            }
        }
    }

    /// Writes a group and makes it visible.
    fn commit(
        &mut self,
        shard: &Arc<Shard>,
        finished: FinishedGroup,
        sync: bool,
        bytes: usize,
    ) -> Result<(), WriteError> {
        let started = Instant::now();
        let store = &shard.store;
        fault::crash_point("before-commit");
        if sync {
            store.commit_synced(finished.batch)?
        } else {
            store.commit(finished.batch)?
        }
        if let Some(late) = fault::late_rows() {
            fault::crash_point("between-batches");
            store.commit(late)?;
        }
        fault::crash_point("after-commit");
        self.kinds_cache.saved();
        shard.make_visible(finished.change);
        self.unsynced_bytes = if sync { 0 } else { self.unsynced_bytes + bytes };
        if sync {
            self.synced_at = Instant::now();
        } else if self.synced_at.elapsed() >= SYNC_AFTER || self.unsynced_bytes >= SYNC_BYTES {
            if let Err(Error::Storage { source, .. }) = shard.store.sync() {
                return Err(WriteError::Failed(source));
            }
            self.synced_at = Instant::now();
            self.unsynced_bytes = 0;
        }
        histogram!("rachis_leaf_commit_seconds").record(started.elapsed());
        Ok(())
    }
}

/// Whether these are several changes of which some ingest documents: which documents another one hides is counted in what
/// earlier groups have written.
fn is_written_record_by_record(input: &JobInput) -> bool {
    let JobInput::Batch(batch) = input else {
        return false;
    };
    let is_redrive = |record: &Record| match &record.value {
        RecordValue::Null => false,
        RecordValue::One(change) => DocumentChange::is_redrive(change),
        RecordValue::Many(changes) => changes.iter().any(|change| DocumentChange::is_redrive(change)),
    };
    batch.source.is_changes() && batch.records.len() > 1 && batch.records.iter().any(is_redrive)
}

/// Builds a group of these inputs.
fn build(
    shard: &Shard,
    kinds_cache: &mut KindsCache,
    inputs: &[JobInput],
    quarantine: &QuarantinedItems,
) -> Result<BuiltGroup, Error> {
    let mut group = Group::new(&shard.store, kinds_cache, &shard.state, &shard.options, quarantine);
    let mut outcomes = Vec::with_capacity(inputs.len());
    for input in inputs {
        let backpressure = shard.backpressure(group.load());
        let now_ms = Utc::now().timestamp_millis();
        outcomes.push(match (input, backpressure) {
            (JobInput::Removal(_) | JobInput::Erasure(_) | JobInput::Forgotten(_), Some(why))
                if shard.store.is_read_only() =>
            {
                JobOutcome::Removal(Err(busy(why.reason)))
            }
            // A removal frees space, so the limits do not apply.
            (JobInput::Removal(removal), _) => {
                group.remove_dead_letters(removal)?;
                JobOutcome::Removal(Ok(()))
            }
            (JobInput::Erasure(erased), _) => {
                group.erase(erased)?;
                JobOutcome::Removal(Ok(()))
            }
            (JobInput::Forgotten(forgotten), _) => {
                group.forget(forgotten)?;
                JobOutcome::Removal(Ok(()))
            }
            (JobInput::Nothing, _) => JobOutcome::Removal(Ok(())),
            (JobInput::Batch(_), Some(why)) => JobOutcome::Batch(BatchOutcome::Busy(why)),
            (JobInput::Batch(batch), None) => JobOutcome::Batch(group.add_batch(batch, now_ms)?),
            (JobInput::Push(_), Some(why)) => JobOutcome::Push(Err(busy(why.reason))),
            (JobInput::Push(push), None) => JobOutcome::Push(push_result(push, group.add_push(push, now_ms)?)),
        });
    }
    let sync = inputs
        .iter()
        .any(|input| !matches!(input, JobInput::Batch(_) | JobInput::Nothing));
    let (documents, bytes) = group.load();
    Ok(BuiltGroup {
        finished: group.finish()?,
        outcomes,
        sync,
        documents,
        bytes,
    })
}

fn push_result(push: &Push, outcome: PushOutcome) -> Result<PushResult, Problem> {
    match outcome {
        PushOutcome::Applied(result) => Ok(result),
        PushOutcome::Repeated(result) => Ok(PushResult {
            repeated: true,
            ..result
        }),
        PushOutcome::Refused(reason) => Err(Problem::new(Code::NotSupported, reason)),
        PushOutcome::BodyMismatch => Err(key_reused(push.request.as_ref().map_or("", |request| &request.key))),
    }
}

/// The error for a request key that was already used with a different body.
pub(crate) fn key_reused(key: &str) -> Problem {
    Problem::new(
        Code::Conflict,
        format!("the Idempotency-Key {key} was already used with a different body"),
    )
    .hint("use a new key for each body")
}
