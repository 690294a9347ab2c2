//! Pushes documents: several concurrent pushers, with and without `Idempotency-Key`, with and without ids, that retry
//! until they get an answer.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use rand::{RngExt, SeedableRng, rngs::StdRng};
use reqwest::StatusCode;
use serde::Deserialize;
use tokio::task::JoinHandle;

use crate::{
    Run,
    gate::Gate,
    http::Reply,
    ledger::{Delivery, Kind, Removed},
    queries, removals,
};

const PUSHERS: u32 = 4;
const DOCUMENTS_MAX: usize = 30;
/// Ids of each pusher, which overwrites them again and again; no two pushers share an id.
const IDS_PER_PUSHER: u32 = 40;
/// A request whose id has this bit was sent without an idempotency key, so only once.
pub(crate) const KEYLESS: u32 = 1 << 31;
const RETRY_TIMEOUT: Duration = Duration::from_secs(120);

/// The answer to a push.
#[derive(Debug, Deserialize, PartialEq, Eq, Clone)]
pub(crate) struct Answer {
    pub accepted: u64,
    pub rejected: u64,
    #[serde(default)]
    pub errors: Vec<ItemError>,
    pub position: String,
}

/// Why one item was rejected.
#[derive(Debug, Deserialize, PartialEq, Eq, Clone)]
pub(crate) struct ItemError {
    pub index: u64,
}

/// One push, and the numbers, kinds and keys in it, in order.
pub(crate) struct Request {
    pub id: u32,
    pub items: Vec<(u64, Kind, u32)>,
}

impl Request {
    pub(crate) fn body(&self, run: &Run) -> String {
        self.items
            .iter()
            .map(|(number, kind, key)| run.documents.bytes(*number, *kind, *key) + "\n")
            .collect()
    }

    /// The idempotency key, if the request has one.
    pub(crate) fn idempotency_key(&self) -> Option<String> {
        (self.id & KEYLESS == 0).then(|| format!("push-{}", self.id))
    }

    /// What is wrong with an answer to this push.
    pub(crate) fn problem_with(&self, answer: &Answer) -> Option<String> {
        let dead: Vec<u64> = self
            .items
            .iter()
            .enumerate()
            .filter(|(_, (_, kind, _))| *kind == Kind::PushedDeadLetter)
            .map(|(index, _)| index as u64)
            .collect();
        let rejected: Vec<u64> = answer.errors.iter().map(|error| error.index).collect();
        let correct = answer.rejected == dead.len() as u64
            && answer.accepted == (self.items.len() - dead.len()) as u64
            && rejected == dead;
        (!correct).then(|| {
            format!(
                "push {} of {} items, of which {dead:?} are not JSON, got the answer {answer:?}",
                self.id,
                self.items.len()
            )
        })
    }
}

/// How a push ended.
enum PushOutcome {
    Answered(Answer),
    /// It may or may not have been stored.
    Unknown,
}

pub(crate) struct Pushers(Vec<JoinHandle<Result<()>>>);

impl Pushers {
    pub(crate) fn start(run: Arc<Run>, gate: Arc<Gate>, seed: u64) -> Self {
        let (claimed, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU32::new(1)));
        Self(
            (0..PUSHERS)
                .map(|pusher| {
                    let rng = StdRng::seed_from_u64(seed ^ u64::from(pusher + 1) << 32);
                    let pusher = Pusher {
                        run: run.clone(),
                        gate: gate.clone(),
                        claimed: claimed.clone(),
                        requests: requests.clone(),
                        rng,
                        index: pusher,
                    };
                    tokio::spawn(pusher.run())
                })
                .collect(),
        )
    }

    pub(crate) async fn finish(self) -> Result<()> {
        for pusher in self.0 {
            pusher.await??;
        }
        Ok(())
    }
}

struct Pusher {
    run: Arc<Run>,
    gate: Arc<Gate>,
    /// Documents that some pusher has claimed.
    claimed: Arc<AtomicU64>,
    requests: Arc<AtomicU32>,
    rng: StdRng,
    index: u32,
}

impl Pusher {
    async fn run(mut self) -> Result<()> {
        while let Some(items) = self.claim().await {
            let request = self.compose(items);
            self.run.ledger.pushes_in_flight.fetch_add(1, Ordering::Relaxed);
            let outcome = self.send(&request).await;
            self.run.ledger.pushes_in_flight.fetch_sub(1, Ordering::Relaxed);
            self.record(&request, &outcome);
            if matches!(outcome, PushOutcome::Answered(_)) && self.rng.random_bool(0.05) {
                self.read_after_push(&request).await;
            }
        }
        Ok(())
    }

    /// Claims documents for the next push and returns how many; `None` once the quota is used up.
    async fn claim(&mut self) -> Option<usize> {
        loop {
            let claimed = self.claimed.load(Ordering::Relaxed);
            let left = self.gate.push_quota - claimed;
            if left == 0 {
                return None;
            }
            let items = (self.rng.random_range(1..=DOCUMENTS_MAX) as u64).min(left);
            let produced = self.run.ledger.produced.load(Ordering::Relaxed);
            if claimed + items > self.gate.push_now(produced) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else if self
                .claimed
                .compare_exchange(claimed, claimed + items, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return usize::try_from(items).ok();
            }
        }
    }

    fn compose(&mut self, items: usize) -> Request {
        let mut id = self.requests.fetch_add(1, Ordering::Relaxed);
        let (with_ids, keyless) = (self.rng.random_bool(0.15), self.rng.random_bool(0.15));
        if keyless && !with_ids {
            id |= KEYLESS;
        }
        let items = (0..items)
            .map(|index| {
                let key = self.index * IDS_PER_PUSHER + self.rng.random_range(0..IDS_PER_PUSHER);
                // The first item is valid, so that something is accepted. A push that is sent only once contains no
                // dead letter, whose outcome could not be determined without an answer.
                let kind = match with_ids {
                    true => Kind::PushedWithId,
                    false if index > 0 && !keyless && self.rng.random_bool(0.02) => Kind::PushedDeadLetter,
                    false => Kind::Pushed,
                };
                (self.run.ledger.add(kind, key, id), kind, key)
            })
            .collect();
        Request { id, items }
    }

    /// Sends a push until it gets a definite answer or may not be repeated.
    async fn send(&self, request: &Request) -> PushOutcome {
        let ledger = &self.run.ledger;
        let (body, key, began) = (request.body(&self.run), request.idempotency_key(), Instant::now());
        let mut tries = 0;
        loop {
            tries += 1;
            if tries == 2 {
                ledger.retried_pushes.fetch_add(1, Ordering::Relaxed);
            }
            let (retry, failure) = match self.run.client.push(key.as_deref(), body.clone()).await {
                Ok(reply) if reply.status == StatusCode::OK => return self.parse(request, &reply),
                Ok(reply) => (self.may_retry(request, &reply), reply.text),
                // Either there was no connection, or the answer was lost.
                Err(error) => (error.is_connect() || key.is_some(), format!("{error:?}")),
            };
            if !retry {
                return PushOutcome::Unknown;
            }
            if began.elapsed() > RETRY_TIMEOUT {
                ledger.add_problem(format!(
                    "push {}: failed {tries} times in {RETRY_TIMEOUT:?}; the last time: {failure}",
                    request.id
                ));
                return PushOutcome::Unknown;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn parse(&self, request: &Request, reply: &Reply) -> PushOutcome {
        match serde_json::from_str(&reply.text) {
            Ok(answer) => PushOutcome::Answered(answer),
            Err(error) => {
                self.run
                    .ledger
                    .add_problem(format!("push {}: {error}: {}", request.id, reply.text));
                PushOutcome::Unknown
            }
        }
    }

    /// Whether a push that got this error may be sent again.
    fn may_retry(&self, request: &Request, reply: &Reply) -> bool {
        match reply.status {
            // Nothing was stored.
            StatusCode::TOO_MANY_REQUESTS => true,
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => request.idempotency_key().is_some(),
            status => {
                self.run
                    .ledger
                    .add_problem(format!("push {}: {status}: {}", request.id, reply.text));
                false
            }
        }
    }

    /// Writes the outcome into the ledger.
    fn record(&self, request: &Request, outcome: &PushOutcome) {
        let delivery = match outcome {
            PushOutcome::Unknown => Delivery::Unknown,
            PushOutcome::Answered(answer) => {
                if let Some(problem) = request.problem_with(answer) {
                    self.run.ledger.add_problem(problem);
                }
                let (partition, offset) = self.position(request, answer);
                Delivery::Acknowledged { partition, offset }
            }
        };
        for (number, ..) in &request.items {
            self.run.ledger.set_delivery(*number, delivery);
        }
        self.run
            .ledger
            .pushed
            .fetch_add(request.items.len() as u64, Ordering::Relaxed);
    }

    /// The first position of a push. A push without ids lies in one partition, a push with ids in as many as its ids
    /// need.
    fn position(&self, request: &Request, answer: &Answer) -> (i32, i64) {
        let positions = queries::positions("push", &answer.position).unwrap_or_default();
        self.run.ledger.note_pushed_through(&positions);
        match positions[..] {
            [one] => return one,
            [] => {}
            _ if request.items.iter().all(|(_, kind, _)| *kind == Kind::PushedWithId) => return positions[0],
            _ => {}
        }
        self.run.ledger.add_problem(format!(
            "push {}: {:?} is not the position of a push without ids",
            request.id, answer.position
        ));
        (-1, -1)
    }

    /// Checks that acknowledged documents are visible immediately. If the server is killed meanwhile, there is no
    /// answer and nothing is checked.
    async fn read_after_push(&self, request: &Request) {
        let wanted: Vec<u64> = request
            .items
            .iter()
            .filter(|(number, kind, _)| *kind == Kind::Pushed && !removals::is_short_lived(&self.run, *number))
            .map(|(number, ..)| *number)
            .collect();
        let Some((first, last)) = wanted.first().zip(wanted.last()) else {
            return;
        };
        let condition = format!("n >= {first} AND n <= {last}");
        if let Ok(found) = queries::numbers_where(&self.run.client, &condition).await {
            let entries = self.run.ledger.entries();
            let is_removed = |number: u64| entries[number as usize].removed != Removed::No;
            self.run.ledger.reads_after_push.fetch_add(1, Ordering::Relaxed);
            let missing: Vec<u64> = wanted
                .into_iter()
                .filter(|number| !found.contains(number) && !is_removed(*number))
                .collect();
            if !missing.is_empty() {
                self.run.ledger.stale_reads.fetch_add(1, Ordering::Relaxed);
                self.run.ledger.add_problem(format!(
                    "push {}: a query sent after the acknowledgement does not see {missing:?}",
                    request.id
                ));
            }
        }
    }
}
