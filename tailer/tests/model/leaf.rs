//! A model of a leaf: it stores records in memory, decides about batches like the real leaf, and misbehaves on request.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::{
    Code, CollectionUid, Position, Problem, SourceName,
    ingest::{Backpressure, Batch, BatchOutcome, Ingest, Loss, PartitionStatus, PushResult, ShardId, StoredPosition},
    record::{Record, RequestKey},
};
use rand::{RngExt as _, SeedableRng, rngs::StdRng};

/// What the leaf has ingested of a partition.
#[derive(Debug, Default, Clone)]
pub(crate) struct IngestedRange {
    pub topic: Option<String>,
    pub offset: Option<i64>,
    pub hash: u64,
    pub records: Vec<Record>,
    pub shards: Vec<u32>,
    /// The positions whose record was sent again with a later batch, and was compared.
    pub compared: Vec<i64>,
}

/// The probability of each misbehaviour, in percent. A misbehaviour of 5 percent happens at least once in 40 chances, so
/// that every run of a test meets each of them.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Chaos {
    pub busy: u32,
    pub unreachable: u32,
    pub applied_but_unanswered: u32,
    pub loses_newest: u32,
}

pub(crate) struct LeafModel {
    ingested: Mutex<BTreeMap<(SourceName, i32), IngestedRange>>,
    chaos: Chaos,
    dice: Mutex<Dice>,
    pub refused_partition: Mutex<Option<i32>>,
    /// The dead letters of each partition have reached their limit.
    pub too_many_dead: Mutex<bool>,
    /// The number of coming [`Ingest::stored`] calls that get no response.
    pub unanswered_stored: Mutex<u32>,
    pub full: Mutex<bool>,
    pub outcomes: Mutex<BTreeMap<&'static str, u32>>,
    pub losses: Mutex<Vec<Loss>>,
}

struct Dice {
    random: StdRng,
    /// The number of chances that each misbehaviour had since it last happened.
    calm: BTreeMap<&'static str, u32>,
}

impl Dice {
    fn roll(&mut self, misbehaviour: &'static str, percent: u32) -> bool {
        let calm = self.calm.entry(misbehaviour).or_default();
        *calm += 1;
        let happens = self.random.random_range(0..100) < percent || *calm * percent >= 200;
        if happens {
            *calm = 0;
        }
        happens
    }
}

impl LeafModel {
    pub(crate) fn new(seed: u64, chaos: Chaos) -> Arc<Self> {
        eprintln!("seed {seed}");
        Arc::new(Self {
            losses: Mutex::default(),
            ingested: Mutex::default(),
            chaos,
            dice: Mutex::new(Dice {
                random: StdRng::seed_from_u64(seed),
                calm: BTreeMap::new(),
            }),
            refused_partition: Mutex::default(),
            too_many_dead: Mutex::default(),
            unanswered_stored: Mutex::default(),
            full: Mutex::default(),
            outcomes: Mutex::default(),
        })
    }

    pub(crate) fn calm() -> Arc<Self> {
        Self::new(0, Chaos::default())
    }

    pub(crate) fn ingested(&self, source: &str, partition: i32) -> IngestedRange {
        self.ingested
            .lock()
            .get(&(source.parse().expect("a name"), partition))
            .cloned()
            .unwrap_or_default()
    }

    pub(crate) fn count(&self, source: &str) -> usize {
        self.ingested
            .lock()
            .iter()
            .filter(|((of, _), _)| of.as_str() == source)
            .map(|(_, ingested)| ingested.records.len())
            .sum()
    }

    fn happens(&self, misbehaviour: &'static str, percent: u32) -> bool {
        self.dice.lock().roll(misbehaviour, percent)
    }

    fn decide(&self, batch: Batch) -> BatchOutcome {
        let mut all = self.ingested.lock();
        let ingested = all.entry((batch.source.clone(), batch.partition)).or_default();
        let stored = ingested.offset.unwrap_or(-1);
        if *self.refused_partition.lock() == Some(batch.partition) {
            return refused("the model refuses");
        }
        if *self.too_many_dead.lock() {
            return refused("the model has too many dead letters");
        }
        if *self.full.lock() {
            return BatchOutcome::Busy(Backpressure::lasting("the model is full".into()));
        }
        if ingested.topic.as_ref().is_some_and(|topic| *topic != batch.topic) {
            return refused("another topic");
        }
        assert_well_formed(&batch);
        if let Some(same) = batch.records.iter().find(|r| r.offset == stored && ingested.hash != 0) {
            ingested.compared.push(stored);
            if same.hash() != ingested.hash {
                return refused("the last record is another one: the topic was recreated");
            }
        }
        if batch.through <= stored {
            return BatchOutcome::Already { stored };
        }
        if batch.after > stored {
            return BatchOutcome::Gap { stored };
        }
        if !ingested.records.is_empty() && self.happens("loses newest", self.chaos.loses_newest) {
            let kept = self.dice.lock().random.random_range(0..ingested.records.len());
            ingested.truncate(kept);
            return BatchOutcome::Gap {
                stored: ingested.offset.unwrap_or(-1),
            };
        }
        ingested.apply(batch, stored)
    }
}

impl IngestedRange {
    /// Loses all but the first records.
    fn truncate(&mut self, kept: usize) {
        self.records.truncate(kept);
        self.offset = self.records.last().map(|r| r.offset);
        self.hash = self.records.last().map_or(0, Record::hash);
    }

    fn apply(&mut self, batch: Batch, stored: i64) -> BatchOutcome {
        self.topic = Some(batch.topic);
        self.shards.push(batch.shard.number);
        self.records
            .extend(batch.records.into_iter().filter(|r| r.offset > stored));
        self.offset = Some(batch.through);
        self.hash = self
            .records
            .last()
            .filter(|r| r.offset == batch.through)
            .map_or(0, Record::hash);
        BatchOutcome::Applied { stored: batch.through }
    }
}

fn refused(reason: &str) -> BatchOutcome {
    BatchOutcome::Refused { reason: reason.into() }
}

fn assert_well_formed(batch: &Batch) {
    assert!(batch.records.is_sorted_by(|a, b| a.offset < b.offset), "records ascend");
    assert!(
        batch
            .records
            .iter()
            .all(|r| (batch.after..=batch.through).contains(&r.offset)),
        "records are within the range"
    );
}

#[async_trait]
impl Ingest for LeafModel {
    async fn write(&self, batch: Batch) -> Result<BatchOutcome, Problem> {
        let count = |outcome| *self.outcomes.lock().entry(outcome).or_default() += 1;
        if self.happens("unreachable", self.chaos.unreachable) {
            count("unreachable");
            return Err(Problem::new(Code::Unavailable, "the model is unreachable"));
        }
        if self.happens("busy", self.chaos.busy) {
            count("busy");
            return Ok(BatchOutcome::Busy(Backpressure::passing("the model is busy".into())));
        }
        let outcome = self.decide(batch);
        count(match outcome {
            BatchOutcome::Applied { .. } => "applied",
            BatchOutcome::Already { .. } => "already",
            BatchOutcome::Gap { .. } => "gap",
            BatchOutcome::Busy { .. } => "full",
            BatchOutcome::Refused { .. } => "refused",
        });
        if self.happens("applied but unanswered", self.chaos.applied_but_unanswered) {
            count("unanswered");
            return Err(Problem::new(Code::Timeout, "the answer of the model is lost"));
        }
        Ok(outcome)
    }

    async fn pushed(
        &self,
        _: ShardId,
        _: &Position,
        _: &RequestKey,
        _: std::time::Instant,
    ) -> Result<PushResult, Problem> {
        Err(Problem::new(Code::NotSupported, "the model accepts no pushes"))
    }

    async fn stored(&self, _: ShardId, source: &SourceName, partition: i32) -> Result<StoredPosition, Problem> {
        let mut unanswered = self.unanswered_stored.lock();
        if *unanswered > 0 {
            *unanswered -= 1;
            return Err(Problem::new(Code::Unavailable, "the model is unreachable"));
        }
        let stopped_by_dead_letters = *self.too_many_dead.lock();
        let all = self.ingested.lock();
        let Some(ingested) = all.get(&(source.clone(), partition)) else {
            return Ok(StoredPosition {
                awaits_copy: false,
                offset: -1,
                stopped_by_dead_letters,
                ..StoredPosition::default()
            });
        };
        Ok(StoredPosition {
            awaits_copy: false,
            topic: ingested.topic.clone(),
            offset: ingested.offset.unwrap_or(-1),
            last: ingested.records.last().map(|record| record.offset),
            hash: ingested.hash,
            stopped_by_dead_letters,
            ..StoredPosition::default()
        })
    }

    async fn partitions(&self, _: CollectionUid) -> Result<Vec<PartitionStatus>, Problem> {
        Ok(Vec::new())
    }

    async fn note_loss(&self, _: ShardId, loss: Loss) -> Result<(), Problem> {
        self.losses.lock().push(loss);
        Ok(())
    }

    async fn losses(&self, _: CollectionUid) -> Result<Vec<Loss>, Problem> {
        Ok(self.losses.lock().clone())
    }
}
