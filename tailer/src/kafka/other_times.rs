//! When other replicas have ingested the records that are sent to one: if the log does not stamp its records, each reader
//! stamps them anew, and `_ingested` must not depend on the replica.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use futures::{StreamExt as _, stream::FuturesUnordered};
use proto::{
    cluster::NodeName,
    record::{Record, TimeKind},
};
use tracing::warn;

use super::{
    backoff::Backoff,
    sender::{RETRY_FIRST, RETRY_MAX, Sender},
    slot::Replica,
};

/// How long one replica may take to say when it ingested records.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// How long a replica waits, in all, for others that may say it …
const TIMES_WAIT: Duration = Duration::from_secs(10);
/// … and from then on, how long one that has not answered is not asked again.
const SILENT_FOR: Duration = Duration::from_secs(30);

/// What a sender knows of the other replicas of its shard.
#[derive(Default)]
pub(super) struct OtherTimes {
    /// Those that had more when this one began, and through which offset.
    pub ahead: Vec<(Replica, i64)>,
    /// When each has last not answered.
    silent: HashMap<Option<NodeName>, Instant>,
    /// Since when one that is away may know a time that this one lacks.
    lacking_since: Option<Instant>,
    /// Whether it was logged that times may differ.
    is_logged: bool,
}

impl OtherTimes {
    fn is_silent(&self, replica: &Replica) -> bool {
        let since = self.silent.get(&replica.name);
        self.has_waited() && since.is_some_and(|since| since.elapsed() < SILENT_FOR)
    }

    /// Notes that a replica has answered. Once all have, the next that does not is waited for again.
    fn note_answer(&mut self, name: &Option<NodeName>) {
        if self.silent.remove(name).is_some() && self.silent.is_empty() {
            self.lacking_since = None;
        }
    }

    fn has_waited(&self) -> bool {
        self.lacking_since.is_some_and(|since| since.elapsed() >= TIMES_WAIT)
    }
}

impl Sender {
    /// The records with the times at which replicas that are ahead have ingested them; `None` if the sender was stopped
    /// before these were known.
    pub(super) async fn with_times_of_others(&self, mut records: Vec<Record>) -> Option<Vec<Record>> {
        let is_stamped = |record: &Record| record.time_kind == TimeKind::Append;
        let (Some(first), Some(last)) = (records.first().map(|r| r.offset), records.last().map(|r| r.offset)) else {
            return Some(records);
        };
        // One that is fed apart gets only what others have.
        let ahead: Vec<Replica> = match self.slot.is_apart() {
            true => self.others().cloned().collect(),
            false => {
                let others = self.others.lock();
                let has_some = others.ahead.iter().filter(|(_, offset)| *offset >= first);
                has_some.map(|(replica, _)| replica.clone()).collect()
            }
        };
        if ahead.is_empty() || records.iter().all(is_stamped) {
            return Some(records);
        }
        let mut backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let mut times = BTreeMap::new();
        loop {
            let lacks_time = |times: &BTreeMap<i64, i64>| {
                let mut unstamped = records.iter().filter(|record| !is_stamped(record));
                unstamped.any(|record| !times.contains_key(&record.offset))
            };
            let is_one_away = self.ask_times(&ahead, first - 1, last, &mut times, lacks_time).await;
            // Nobody knows the time of a record that left no document.
            if is_one_away && lacks_time(&times) {
                let has_waited = {
                    let mut others = self.others.lock();
                    others.lacking_since.get_or_insert_with(Instant::now);
                    others.has_waited()
                };
                if !has_waited {
                    if self.stop.is_cancelled() {
                        return None;
                    }
                    self.pause(backoff.next()).await;
                    continue;
                }
                let mut others = self.others.lock();
                if !std::mem::replace(&mut others.is_logged, true) {
                    warn!(
                        source = %self.task.source,
                        partition = self.slot.number,
                        "a replica that is away cannot say when it ingested records: their _ingested may differ from here"
                    );
                }
                let OtherTimes { ahead, silent, .. } = &mut *others;
                ahead.retain(|(replica, _)| !silent.contains_key(&replica.name));
            }
            for record in records.iter_mut().filter(|record| !is_stamped(record)) {
                record.ingested_ms = times.get(&record.offset).copied().or(record.ingested_ms);
            }
            return Some(records);
        }
    }

    /// Asks replicas for the times after an offset, until none is lacking. Returns whether one of them did not answer.
    async fn ask_times(
        &self,
        replicas: &[Replica],
        after: i64,
        through: i64,
        times: &mut BTreeMap<i64, i64>,
        lacks_time: impl Fn(&BTreeMap<i64, i64>) -> bool,
    ) -> bool {
        let ask = async |replica: &Replica| {
            let (shard, source, number) = (replica.shard, &self.task.source, self.slot.number);
            let asked = replica.leaf.ingest_times(shard, source, number, after, through);
            let answer = tokio::time::timeout(ANSWER_WAIT, asked).await;
            (replica.name.clone(), answer.ok().and_then(Result::ok))
        };
        let (silent, asked): (Vec<_>, Vec<_>) = {
            let others = self.others.lock();
            replicas.iter().partition(|replica| others.is_silent(replica))
        };
        let mut is_one_away = !silent.is_empty();
        // One that is away does not keep this one waiting for what another has said.
        let mut answers: FuturesUnordered<_> = asked.into_iter().map(ask).collect();
        while lacks_time(times) {
            match answers.next().await {
                Some((name, Some(answer))) => {
                    times.extend(answer);
                    self.others.lock().note_answer(&name);
                }
                Some((name, None)) => {
                    is_one_away = true;
                    self.others.lock().silent.insert(name, Instant::now());
                }
                None => break,
            }
        }
        is_one_away
    }
}
