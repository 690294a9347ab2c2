//! Documents by push: several pushers, with and without `Idempotency-Key`, with and without ids, that send again until
//! they are answered.

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
    book::{Fate, Kind},
    http::Reply,
    plan::Gate,
    questions,
};

const PUSHERS: u32 = 4;
const DOCUMENTS_MAX: usize = 30;
/// Ids that one pusher writes again and again; nobody else does.
const OWN_KEYS: u32 = 40;
/// A request with this bit was sent without a key, so only once.
pub const KEYLESS: u32 = 1 << 31;
const GIVE_UP: Duration = Duration::from_secs(120);

/// The answer to a push.
#[derive(Debug, Deserialize, PartialEq, Eq, Clone)]
pub struct Answer {
    pub accepted: u64,
    pub rejected: u64,
    #[serde(default)]
    pub errors: Vec<ItemError>,
    pub position: String,
}

/// What is wrong with one item.
#[derive(Debug, Deserialize, PartialEq, Eq, Clone)]
pub struct ItemError {
    pub index: u64,
}

/// One push and the numbers in it, in order.
pub struct Request {
    pub id: u32,
    pub items: Vec<(u64, Kind, u32)>,
}

impl Request {
    pub fn body(&self, run: &Run) -> String {
        self.items
            .iter()
            .map(|(number, kind, key)| run.documents.bytes(*number, *kind, *key) + "\n")
            .collect()
    }

    /// The key it is repeated by.
    pub fn key(&self) -> Option<String> {
        (self.id & KEYLESS == 0).then(|| format!("push-{}", self.id))
    }

    /// What is wrong with this answer.
    pub fn objection(&self, answer: &Answer) -> Option<String> {
        let dead: Vec<u64> = self
            .items
            .iter()
            .enumerate()
            .filter(|(_, (_, kind, _))| *kind == Kind::PushedDead)
            .map(|(index, _)| index as u64)
            .collect();
        let told: Vec<u64> = answer.errors.iter().map(|error| error.index).collect();
        let right = answer.rejected == dead.len() as u64
            && answer.accepted == (self.items.len() - dead.len()) as u64
            && told == dead;
        (!right).then(|| {
            format!(
                "push {} of {} items, dead {dead:?}, was answered {answer:?}",
                self.id,
                self.items.len()
            )
        })
    }
}

/// What became of a push.
enum Outcome {
    Answered(Answer),
    /// Sent, and nobody knows.
    Unknown,
}

/// The pushers of one run.
pub struct Pushers(Vec<JoinHandle<Result<()>>>);

impl Pushers {
    pub fn start(run: Arc<Run>, gate: Arc<Gate>, seed: u64) -> Self {
        let (taken, requests) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU32::new(1)));
        Self(
            (0..PUSHERS)
                .map(|pusher| {
                    let rng = StdRng::seed_from_u64(seed ^ u64::from(pusher + 1) << 32);
                    let one = Pusher {
                        run: run.clone(),
                        gate: gate.clone(),
                        taken: taken.clone(),
                        requests: requests.clone(),
                        rng,
                        pusher,
                    };
                    tokio::spawn(one.run())
                })
                .collect(),
        )
    }

    pub async fn finish(self) -> Result<()> {
        for pusher in self.0 {
            pusher.await??;
        }
        Ok(())
    }
}

struct Pusher {
    run: Arc<Run>,
    gate: Arc<Gate>,
    taken: Arc<AtomicU64>,
    requests: Arc<AtomicU32>,
    rng: StdRng,
    pusher: u32,
}

impl Pusher {
    async fn run(mut self) -> Result<()> {
        while let Some(items) = self.take().await {
            let request = self.compose(items);
            self.run.book.pushes_in_flight.fetch_add(1, Ordering::Relaxed);
            let outcome = self.send(&request).await;
            self.run.book.pushes_in_flight.fetch_sub(1, Ordering::Relaxed);
            self.close(&request, &outcome);
            if matches!(outcome, Outcome::Answered(_)) && self.rng.random_bool(0.05) {
                self.ask_at_once(&request).await;
            }
        }
        Ok(())
    }

    /// How many documents the next push has; `None` at the end of all numbers.
    async fn take(&mut self) -> Option<usize> {
        loop {
            let taken = self.taken.load(Ordering::Relaxed);
            let left = self.gate.push_quota - taken;
            if left == 0 {
                return None;
            }
            let items = (self.rng.random_range(1..=DOCUMENTS_MAX) as u64).min(left);
            if taken + items > self.gate.push_now() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            } else if self
                .taken
                .compare_exchange(taken, taken + items, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
            {
                return usize::try_from(items).ok();
            }
        }
    }

    fn compose(&mut self, items: usize) -> Request {
        let mut id = self.requests.fetch_add(1, Ordering::Relaxed);
        let (owned, keyless) = (self.rng.random_bool(0.15), self.rng.random_bool(0.15));
        if keyless && !owned {
            id |= KEYLESS;
        }
        let items = (0..items)
            .map(|index| {
                let key = self.pusher * OWN_KEYS + self.rng.random_range(0..OWN_KEYS);
                // The first is good, or nothing would be accepted; what is sent only once has nothing dead, or its
                // outcome could not be told.
                let kind = match owned {
                    true => Kind::Owned,
                    false if index > 0 && !keyless && self.rng.random_bool(0.02) => Kind::PushedDead,
                    false => Kind::Pushed,
                };
                (self.run.book.open(kind, key, id), kind, key)
            })
            .collect();
        Request { id, items }
    }

    async fn send(&self, request: &Request) -> Outcome {
        let (body, key, began) = (request.body(&self.run), request.key(), Instant::now());
        let mut tries = 0;
        loop {
            tries += 1;
            if tries == 2 {
                self.run.book.retried.fetch_add(1, Ordering::Relaxed);
            }
            let again = match self.run.client.push(key.as_deref(), body.clone()).await {
                Ok(Reply {
                    status: StatusCode::OK,
                    text,
                }) => match serde_json::from_str(&text) {
                    Ok(answer) => return Outcome::Answered(answer),
                    Err(error) => {
                        self.run.book.complain(format!("push {}: {error}: {text}", request.id));
                        return Outcome::Unknown;
                    }
                },
                // Busy: nothing was done.
                Ok(reply) if reply.status == StatusCode::TOO_MANY_REQUESTS => true,
                Ok(reply) => {
                    let may_be = matches!(
                        reply.status,
                        StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
                    );
                    if !may_be {
                        self.run
                            .book
                            .complain(format!("push {}: {}: {}", request.id, reply.status, reply.text));
                    }
                    may_be && key.is_some()
                }
                // Nobody listened, or the answer was lost.
                Err(error) => error.is_connect() || key.is_some(),
            };
            if !again {
                return Outcome::Unknown;
            }
            if began.elapsed() > GIVE_UP {
                self.run
                    .book
                    .complain(format!("push {}: not answered for {GIVE_UP:?}", request.id));
                return Outcome::Unknown;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    fn close(&self, request: &Request, outcome: &Outcome) {
        let fate = match outcome {
            Outcome::Unknown => Fate::Unknown,
            Outcome::Answered(answer) => {
                if let Some(objection) = request.objection(answer) {
                    self.run.book.complain(objection);
                }
                let (partition, offset) = self.position(request, answer);
                Fate::Acknowledged { partition, offset }
            }
        };
        for (number, ..) in &request.items {
            self.run.book.close(*number, fate);
        }
        self.run
            .book
            .pushed
            .fetch_add(request.items.len() as u64, Ordering::Relaxed);
    }

    /// Where a push is: without ids in one partition, with ids in as many as its ids need.
    fn position(&self, request: &Request, answer: &Answer) -> (i32, i64) {
        let positions = questions::positions("push", &answer.position).unwrap_or_default();
        self.run.book.reach(&positions);
        match positions[..] {
            [one] => return one,
            [] => {}
            _ if request.items.iter().all(|(_, kind, _)| *kind == Kind::Owned) => return positions[0],
            _ => {}
        }
        self.run.book.complain(format!(
            "push {}: {:?} is not the position of a push without ids",
            request.id, answer.position
        ));
        (-1, -1)
    }

    /// What is acknowledged is visible, now. Where the server is killed meanwhile there is no answer, and nothing is
    /// learnt.
    async fn ask_at_once(&self, request: &Request) {
        let wanted: Vec<u64> = request
            .items
            .iter()
            .filter(|(_, kind, _)| *kind == Kind::Pushed)
            .map(|(number, ..)| *number)
            .collect();
        let Some((first, last)) = wanted.first().zip(wanted.last()) else {
            return;
        };
        if let Ok(found) = questions::numbers(&self.run.client, *first, *last + 1).await {
            self.run.book.asked.fetch_add(1, Ordering::Relaxed);
            let missing: Vec<u64> = wanted.into_iter().filter(|number| !found.contains(number)).collect();
            if !missing.is_empty() {
                self.run.book.missed.fetch_add(1, Ordering::Relaxed);
                self.run.book.complain(format!(
                    "push {}: acknowledged, and a question begun then does not see {missing:?}",
                    request.id
                ));
            }
        }
    }
}
