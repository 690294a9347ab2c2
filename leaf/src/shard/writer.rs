//! The one writer of a shard: takes all that waits, writes it at once, makes it visible, answers. It runs on the
//! threads of `writers.rs`.
//!
//! Pushes that wait together share one synced write; batches from a log are written without a sync of their own,
//! because their log has them.
//!
//! A group is made in memory and then written. Where making it panics nothing of it is left, and it is made again
//! record by record: what panics alone is set aside as a dead letter.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use metrics::{counter, histogram};
use proto::{
    Code, Problem,
    ingest::{Batch, Push, Pushed, Verdict},
};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, warn};

use super::{
    Shard,
    apply::{Finished, Group, Memory, PushOutcome, SetAside},
    dead_letters::Removal,
    now_ms,
};
use crate::{
    error::{Error, panic_text},
    fault,
    store::{Partition, Unwritten},
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
    /// Remove dead letters.
    Remove(Removal, oneshot::Sender<Result<(), Problem>>),
}

impl Job {
    fn input(&self) -> Input<'_> {
        match self {
            Self::Write(batch, _) => Input::Batch(batch),
            Self::Push(push, _) => Input::Push(push),
            Self::Remove(removal, _) => Input::Removal(removal),
        }
    }
}

/// What a group takes in.
#[derive(Clone, Copy)]
enum Input<'a> {
    Batch(&'a Batch),
    Push(&'a Push),
    Removal(&'a Removal),
}

/// What becomes of an input once its group is written.
enum Outcome {
    Verdict(Verdict),
    Pushed(Result<Pushed, Problem>),
    Removed(Result<(), Problem>),
}

impl Outcome {
    /// Nothing was written: an outcome that promised so becomes another.
    fn unwritten(self, reason: &str, push: &Problem) -> Self {
        match self {
            Self::Verdict(Verdict::Applied { .. } | Verdict::Refused { .. }) => Self::Verdict(Verdict::Busy {
                reason: reason.to_owned(),
            }),
            Self::Pushed(Ok(_)) => Self::Pushed(Err(push.clone())),
            Self::Removed(Ok(())) => Self::Removed(Err(busy(reason.to_owned()))),
            unaffected => unaffected,
        }
    }
}

/// A group that is ready to be written.
struct Built {
    finished: Option<Finished>,
    /// One an input.
    outcomes: Vec<Outcome>,
    sync: bool,
    documents: usize,
    bytes: usize,
}

/// The writer of a shard.
pub struct Writer {
    queue: mpsc::Receiver<Job>,
    memory: Memory,
    synced_at: Instant,
    unsynced_bytes: usize,
}

impl Writer {
    /// A new one; kinds are read when they are needed first.
    pub fn new(queue: mpsc::Receiver<Job>) -> Self {
        Self {
            queue,
            memory: Memory::default(),
            synced_at: Instant::now(),
            unsynced_bytes: 0,
        }
    }

    /// Whether jobs wait.
    pub fn has_jobs(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Writes what waits, up to the limits of a group. After an error the store must be closed and opened again.
    pub fn write_group(&mut self, shard: &Arc<Shard>) -> Result<(), Error> {
        let Ok(first) = self.queue.try_recv() else {
            return Ok(());
        };
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
                Job::Write(batch, _) => {
                    weight += batch.records.iter().map(proto::record::Record::weight).sum::<usize>()
                }
                Job::Remove(removal, _) => weight += removal.keys.iter().map(Vec::len).sum::<usize>(),
                Job::Push(push, _) => weight += push.items.iter().map(bytes::Bytes::len).sum::<usize>(),
            }
            jobs.push(job);
            next = if jobs.len() < GROUP_JOBS_MAX && weight < GROUP_BYTES_MAX {
                self.queue.try_recv().ok()
            } else {
                None
            };
        }
        jobs
    }

    fn group(&mut self, shard: &Arc<Shard>, jobs: Vec<Job>) -> Result<(), Error> {
        let inputs: Vec<Input> = jobs.iter().map(Job::input).collect();
        let (outcomes, written) = match self.build(shard, &inputs, &SetAside::default()) {
            Ok(built) => self.write(shard, built?),
            Err(panic) => {
                warn!(shard = %shard.id, panic, "the writer panicked; record by record it finds on which");
                self.one_by_one(shard, &inputs)
            }
        };
        // An asker that has gone away does not matter: what was written stays.
        for (job, outcome) in jobs.into_iter().zip(outcomes) {
            match (job, outcome) {
                (Job::Write(_, to), Outcome::Verdict(verdict)) => drop(to.send(verdict)),
                (Job::Push(_, to), Outcome::Pushed(answer)) => drop(to.send(answer)),
                (Job::Remove(_, to), Outcome::Removed(done)) => drop(to.send(done)),
                _ => {}
            }
        }
        written
    }

    /// Makes a group of these inputs. If it panics nothing of it is left, and what the panic said is answered.
    fn build(&mut self, shard: &Shard, inputs: &[Input], aside: &SetAside) -> Result<Result<Built, Error>, String> {
        let built = catch_unwind(AssertUnwindSafe(|| build(shard, &mut self.memory, inputs, aside)));
        built.map_err(|panic| {
            counter!("rachis_leaf_panics_total").increment(1);
            // It may know of what was not written; what is written is read again.
            self.memory = Memory::default();
            panic_text(&*panic)
        })
    }

    /// Writes each record of these inputs in a group of its own, and those on which the writer panics as dead letters.
    fn one_by_one(&mut self, shard: &Arc<Shard>, inputs: &[Input]) -> (Vec<Outcome>, Result<(), Error>) {
        let mut outcomes = Vec::with_capacity(inputs.len());
        for input in inputs {
            let (outcome, written) = match input {
                Input::Push(_) | Input::Removal(_) => self.alone(shard, *input),
                Input::Batch(batch) => self.record_by_record(shard, batch),
            };
            outcomes.extend(outcome);
            if written.is_err() {
                return (outcomes, written);
            }
        }
        (outcomes, Ok(()))
    }

    fn record_by_record(&mut self, shard: &Arc<Shard>, batch: &Batch) -> (Option<Outcome>, Result<(), Error>) {
        let mut after = batch.after;
        for (number, record) in batch.records.iter().enumerate() {
            let through = if number + 1 == batch.records.len() {
                batch.through
            } else {
                record.offset
            };
            let Batch {
                source,
                topic,
                partition,
                level,
                rules,
                ..
            } = batch;
            let (source, topic, rules, records) = (source.clone(), topic.clone(), rules.clone(), vec![record.clone()]);
            let piece = Batch {
                shard: batch.shard,
                source,
                topic,
                partition: *partition,
                after,
                through,
                level: *level,
                rules,
                records,
            };
            let outcome = self.alone(shard, Input::Batch(&piece));
            let goes_on = matches!(
                outcome,
                (
                    Some(Outcome::Verdict(Verdict::Applied { .. } | Verdict::Already { .. })),
                    Ok(())
                )
            );
            if number + 1 == batch.records.len() || !goes_on {
                return outcome;
            }
            after = through;
        }
        self.alone(shard, Input::Batch(batch))
    }

    /// Writes one record; its items on which the writer panics become dead letters.
    fn alone(&mut self, shard: &Arc<Shard>, input: Input) -> (Option<Outcome>, Result<(), Error>) {
        let mut aside = SetAside::default();
        loop {
            match self.build(shard, &[input], &aside) {
                Ok(Ok(built)) => {
                    let (mut outcomes, written) = self.write(shard, built);
                    return (outcomes.pop(), written);
                }
                Ok(Err(failure)) => return (None, Err(failure)),
                Err(panic) => {
                    error!(shard = %shard.id, panic, "the writer panicked on a record, which becomes a dead letter");
                    if !aside.add(panic.clone()) {
                        return (
                            None,
                            Err(Problem::new(Code::Internal, format!("the writer panics: {panic}")).into()),
                        );
                    }
                }
            }
        }
    }

    /// Writes a group; what becomes of its inputs.
    fn write(&mut self, shard: &Arc<Shard>, built: Built) -> (Vec<Outcome>, Result<(), Error>) {
        let Built {
            finished,
            outcomes,
            sync,
            documents,
            bytes,
        } = built;
        let unwritten = |outcomes: Vec<Outcome>, reason: &str, push: Problem| {
            outcomes
                .into_iter()
                .map(|outcome| outcome.unwritten(reason, &push))
                .collect()
        };
        match finished.map_or(Ok(()), |finished| self.commit(shard, finished, sync, bytes)) {
            Ok(()) => {
                counter!("rachis_leaf_documents_total").increment(documents as u64);
                counter!("rachis_leaf_groups_total").increment(1);
                (outcomes, Ok(()))
            }
            Err(Unwritten::Stalled) => {
                let reason = "the store cannot keep up; try again";
                (unwritten(outcomes, reason, busy(reason.into())), Ok(()))
            }
            Err(Unwritten::Failed(source)) => {
                let unknown = Problem::new(
                    Code::UnknownOutcome,
                    "the write failed and nobody knows how far it came",
                )
                .hint("send it again with the same Idempotency-Key");
                (
                    unwritten(outcomes, "the store failed and opens again", unknown),
                    Err(Error::Storage {
                        shard: shard.id,
                        source,
                    }),
                )
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

/// Makes a group of these inputs.
fn build(shard: &Shard, memory: &mut Memory, inputs: &[Input], aside: &SetAside) -> Result<Built, Error> {
    let known = |partition: &Partition| shard.state.lock().rows.get(partition).cloned().unwrap_or_default();
    let mut group = Group::new(&shard.store, memory, &known, &shard.options, aside);
    let mut outcomes = Vec::with_capacity(inputs.len());
    for input in inputs {
        let full = shard.full(group.load());
        outcomes.push(match (input, full) {
            (Input::Removal(_), Some(reason)) if shard.store.is_read_only() => Outcome::Removed(Err(busy(reason))),
            // It makes room, so it needs none.
            (Input::Removal(removal), _) => {
                group.remove_dead_letters(removal);
                Outcome::Removed(Ok(()))
            }
            (Input::Batch(_), Some(reason)) => Outcome::Verdict(Verdict::Busy { reason }),
            (Input::Batch(batch), None) => Outcome::Verdict(group.write(batch, now_ms())?),
            (Input::Push(_), Some(reason)) => Outcome::Pushed(Err(busy(reason))),
            (Input::Push(push), None) => Outcome::Pushed(push_answer(push, group.push(push, now_ms())?)),
        });
    }
    let sync = inputs.iter().any(|input| !matches!(input, Input::Batch(_)));
    let (documents, bytes) = group.load();
    Ok(Built {
        finished: group.finish()?,
        outcomes,
        sync,
        documents,
        bytes,
    })
}

fn push_answer(push: &Push, outcome: PushOutcome) -> Result<Pushed, Problem> {
    match outcome {
        PushOutcome::Applied(answer) => Ok(answer),
        PushOutcome::Repeated(answer) => Ok(Pushed {
            repeated: true,
            ..answer
        }),
        PushOutcome::Refused(reason) => Err(Problem::new(Code::NotSupported, reason)),
        PushOutcome::OtherBody => Err(other_body(push.request.as_ref().map_or("", |request| &request.key))),
    }
}

/// The same key, and not the same push.
pub fn other_body(key: &str) -> Problem {
    Problem::new(
        Code::Conflict,
        format!("the Idempotency-Key {key} was used for another body"),
    )
    .hint("choose a new key for a new body")
}

pub(super) fn busy(reason: String) -> Problem {
    Problem::new(Code::Busy, reason).hint("try again a little later")
}
