//! A leaf that keeps records in memory and judges batches by the same table as the real one, misbehaving on request.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::{
    Code, CollectionUid, Problem, SourceName,
    ingest::{Batch, Ingest, Loss, PartitionStatus, Pushed, ShardId, Stored, Verdict},
    record::{Record, RequestKey},
};
use rand::{RngExt as _, SeedableRng, rngs::StdRng};

/// What a partition has taken in.
#[derive(Debug, Default, Clone)]
pub struct Taken {
    pub topic: Option<String>,
    pub offset: Option<i64>,
    pub hash: u64,
    pub records: Vec<Record>,
    pub shards: Vec<u32>,
    /// The positions whose record came along with a later batch, and was compared.
    pub compared: Vec<i64>,
}

/// How often of a hundred times it misbehaves.
#[derive(Debug, Default, Clone, Copy)]
pub struct Chaos {
    pub busy: u32,
    pub unreachable: u32,
    pub applied_but_unanswered: u32,
    pub loses_its_newest: u32,
}

/// The leaf.
pub struct Model {
    taken: Mutex<BTreeMap<(SourceName, i32), Taken>>,
    chaos: Mutex<(Chaos, StdRng)>,
    pub refuses: Mutex<Option<i32>>,
    pub full: Mutex<bool>,
    pub seen: Mutex<BTreeMap<&'static str, u32>>,
    pub losses: Mutex<Vec<Loss>>,
}

impl Model {
    pub fn new(seed: u64, chaos: Chaos) -> Arc<Self> {
        eprintln!("seed {seed}");
        Arc::new(Self {
            losses: Mutex::default(),
            taken: Mutex::default(),
            chaos: Mutex::new((chaos, StdRng::seed_from_u64(seed))),
            refuses: Mutex::default(),
            full: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    pub fn calm() -> Arc<Self> {
        Self::new(0, Chaos::default())
    }

    pub fn taken(&self, source: &str, partition: i32) -> Taken {
        self.taken
            .lock()
            .get(&(source.parse().expect("a name"), partition))
            .cloned()
            .unwrap_or_default()
    }

    pub fn count(&self, source: &str) -> usize {
        self.taken
            .lock()
            .iter()
            .filter(|((of, _), _)| of.as_str() == source)
            .map(|(_, taken)| taken.records.len())
            .sum()
    }

    fn happens(&self, percent: impl Fn(Chaos) -> u32) -> bool {
        let mut chaos = self.chaos.lock();
        let bound = percent(chaos.0);
        chaos.1.random_range(0..100) < bound
    }

    fn judge(&self, batch: Batch) -> Verdict {
        let mut all = self.taken.lock();
        let taken = all.entry((batch.source.clone(), batch.partition)).or_default();
        let stored = taken.offset.unwrap_or(-1);
        if *self.refuses.lock() == Some(batch.partition) {
            return Verdict::Refused {
                reason: "the model refuses".into(),
            };
        }
        if *self.full.lock() {
            return Verdict::Busy {
                reason: "the model is full".into(),
            };
        }
        if taken.topic.as_ref().is_some_and(|topic| *topic != batch.topic) {
            return Verdict::Refused {
                reason: "another topic".into(),
            };
        }
        assert!(batch.records.is_sorted_by(|a, b| a.offset < b.offset), "records ascend");
        assert!(
            batch
                .records
                .iter()
                .all(|r| (batch.after..=batch.through).contains(&r.offset)),
            "records are within the range"
        );
        if let Some(same) = batch.records.iter().find(|r| r.offset == stored && taken.hash != 0) {
            taken.compared.push(stored);
            if same.hash() != taken.hash {
                return Verdict::Refused {
                    reason: "the last record is another one: the topic was made anew".into(),
                };
            }
        }
        if batch.through <= stored {
            return Verdict::Already { stored };
        }
        if batch.after > stored {
            return Verdict::Gap { stored };
        }
        if self.happens(|c| c.loses_its_newest) && !taken.records.is_empty() {
            let keep = self.chaos.lock().1.random_range(0..taken.records.len());
            taken.records.truncate(keep);
            taken.offset = taken.records.last().map(|r| r.offset);
            taken.hash = taken.records.last().map_or(0, Record::hash);
            return Verdict::Gap {
                stored: taken.offset.unwrap_or(-1),
            };
        }
        taken.topic = Some(batch.topic);
        taken.shards.push(batch.shard.number);
        taken
            .records
            .extend(batch.records.into_iter().filter(|r| r.offset > stored));
        taken.offset = Some(batch.through);
        taken.hash = taken
            .records
            .last()
            .filter(|r| r.offset == batch.through)
            .map_or(0, Record::hash);
        Verdict::Applied { stored: batch.through }
    }
}

#[async_trait]
impl Ingest for Model {
    async fn write(&self, batch: Batch) -> Result<Verdict, Problem> {
        let said = |what| *self.seen.lock().entry(what).or_default() += 1;
        if self.happens(|c| c.unreachable) {
            said("unreachable");
            return Err(Problem::new(Code::Unavailable, "the model is away"));
        }
        if self.happens(|c| c.busy) {
            said("busy");
            return Ok(Verdict::Busy {
                reason: "the model is busy".into(),
            });
        }
        let verdict = self.judge(batch);
        said(match verdict {
            Verdict::Applied { .. } => "applied",
            Verdict::Already { .. } => "already",
            Verdict::Gap { .. } => "gap",
            Verdict::Busy { .. } => "full",
            Verdict::Refused { .. } => "refused",
        });
        if self.happens(|c| c.applied_but_unanswered) {
            said("unanswered");
            return Err(Problem::new(Code::Timeout, "the model's answer is lost"));
        }
        Ok(verdict)
    }

    async fn pushed(
        &self,
        _: ShardId,
        _: i32,
        _: i64,
        _: &RequestKey,
        _: std::time::Instant,
    ) -> Result<Pushed, Problem> {
        Err(Problem::new(Code::NotSupported, "the model takes no pushes"))
    }

    async fn stored(&self, _: ShardId, source: &SourceName, partition: i32) -> Result<Stored, Problem> {
        let all = self.taken.lock();
        let Some(taken) = all.get(&(source.clone(), partition)) else {
            return Ok(Stored {
                offset: -1,
                ..Stored::default()
            });
        };
        Ok(Stored {
            topic: taken.topic.clone(),
            offset: taken.offset.unwrap_or(-1),
            hash: taken.hash,
            dead: false,
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
