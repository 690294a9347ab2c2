//! Deletes documents while the load runs: by condition, by id, and by the retention of the collection.
//!
//! Documents that a removal names, and that were acknowledged before it began, are gone once it is answered, for ever. Those
//! that arrive meanwhile, or that a removal without an answer names, may be gone. All others stay.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Result, bail, ensure};
use chrono::{NaiveDate, Utc};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::{
    Run,
    http::{COLLECTION, Deleted},
    ledger::{Delivery, Entry, Kind, Removed, key_text},
    queries,
};

/// Removals, spread over the run.
const REMOVALS: u64 = 40;
/// Each so many turns, the retention removes documents.
const EXPIRY_EVERY: u64 = 5;
/// Numbers that a condition spans at most.
const SPAN_MAX: u64 = 400;
/// Tries of one removal. All together take longer than a node is down.
const TRIES: usize = 100;
const PAUSE: Duration = Duration::from_millis(150);
const POLL: Duration = Duration::from_millis(5);
/// Documents of the first days of the month expire during the run, those of the next ones after it.
const EXPIRED_DAYS: u64 = 4;
const EXPIRED_DAYS_AT_LAST: u64 = 9;

/// Whether a document may expire at any time during the run: the server also looks by itself.
pub(crate) fn is_short_lived(run: &Run, number: u64) -> bool {
    run.documents.day(number) <= EXPIRED_DAYS
}

/// What the remover did.
#[derive(Default)]
pub(crate) struct Removals {
    pub(crate) deletes: AtomicU64,
    pub(crate) expiries: AtomicU64,
    /// Questions that were asked right after one.
    pub(crate) questions: AtomicU64,
}

/// Which documents a removal names.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Removal {
    /// Those with these numbers, `n % 3` of which is this.
    Condition { from: u64, to: u64, rest: u64 },
    /// The one with a key that was pushed.
    Key(u32),
    /// The one at this place of the topic without keys.
    Place { number: u64, partition: i32, offset: i64 },
    /// Those whose day of the month is at most this.
    Days(u64),
}

impl Removal {
    /// Whether it names this event. Documents of keyed records stay, so that their counters can be foretold.
    fn names(self, run: &Run, number: u64, entry: &Entry) -> bool {
        let is_document = matches!(entry.kind, Kind::Plain | Kind::Pushed | Kind::PushedWithId);
        is_document
            && match self {
                Self::Condition { from, to, rest } => (from..to).contains(&number) && number % 3 == rest,
                Self::Key(key) => entry.kind == Kind::PushedWithId && entry.key == key,
                Self::Place { number: only, .. } => number == only,
                Self::Days(days) => run.documents.day(number) <= days,
            }
    }

    /// Asks for it. Returns how many documents were deleted, if the answer says so.
    async fn request(self, run: &Run) -> Result<Option<u64>> {
        let delete = async |id: &str| run.client.delete(id).await.map(Some);
        match self {
            Self::Condition { .. } => {
                let sql = format!("DELETE FROM {COLLECTION} WHERE {}", self.condition());
                let rows: Vec<Deleted> = run.client.rows(json!({ "sql": sql })).await?;
                Ok(rows.first().map(|row| row.deleted))
            }
            Self::Key(key) => delete(&key_text(Kind::PushedWithId, key)).await,
            Self::Place { partition, offset, .. } => delete(&format!("plain/{partition}@{offset}")).await,
            Self::Days(days) => {
                // Noon after the last of these days; all events are of ten o'clock.
                let day = NaiveDate::from_ymd_opt(2026, 1, days as u32).and_then(|day| day.and_hms_opt(12, 0, 0));
                let Some(day) = day else { bail!("no day {days}") };
                let kept = (Utc::now() - day.and_utc()).num_seconds();
                let settings = json!({ "time_path": "when", "retention": format!("{kept}s by event") });
                let answer = run
                    .client
                    .put(&format!("/v1/collections/{COLLECTION}"), settings)
                    .await?;
                ensure!(
                    answer["warnings"].is_null(),
                    "not all expired documents are removed: {answer}"
                );
                Ok(None)
            }
        }
    }

    fn condition(self) -> String {
        match self {
            Self::Condition { from, to, rest } => {
                format!("n >= {from} AND n < {to} AND n % 3 = {rest} AND kind <> 'keyed'")
            }
            Self::Key(key) => format!("_id = '{}'", key_text(Kind::PushedWithId, key)),
            Self::Place { number, .. } => format!("n = {number}"),
            Self::Days(days) => format!("kind <> 'keyed' AND \"when\" < '2026-01-{days:02}T12'"),
        }
    }
}

pub(crate) struct Remover(JoinHandle<()>);

impl Remover {
    pub(crate) fn start(run: &Arc<Run>, seed: u64) -> Self {
        let (run, rng) = (Arc::clone(run), StdRng::seed_from_u64(seed ^ 0x0de1_e7e5));
        Self(tokio::spawn(remove_again_and_again(run, rng)))
    }

    pub(crate) async fn finish(self) -> Result<()> {
        Ok(self.0.await?)
    }
}

/// Makes each removal when its share of the load is done.
async fn remove_again_and_again(run: Arc<Run>, mut rng: StdRng) {
    let ledger = &run.ledger;
    for turn in 1..=REMOVALS {
        while ledger.done() < turn * ledger.records / (REMOVALS + 1) {
            if ledger.load_aborted.load(Ordering::Relaxed) {
                return;
            }
            tokio::time::sleep(POLL).await;
        }
        let removal = match turn % EXPIRY_EVERY {
            0 => Some(Removal::Days(EXPIRED_DAYS)),
            _ => choose(&ledger.entries(), &mut rng),
        };
        if let Some(removal) = removal {
            remove(&run, removal).await;
        }
    }
}

/// Takes no document for certain that the server may remove by itself at any time.
pub(crate) fn mark_short_lived(run: &Run) {
    let short_lived = named(run, Removal::Days(EXPIRED_DAYS), &run.ledger.entries(), |_| true);
    run.ledger.set_removed(&short_lived, Removed::Possibly);
}

fn choose(entries: &[Entry], rng: &mut StdRng) -> Option<Removal> {
    let numbers = entries.len() as u64;
    let is_acknowledged = |entry: &Entry| matches!(entry.delivery, Delivery::Acknowledged { .. });
    match rng.random_range(0..8) {
        0..5 => {
            let from = rng.random_range(0..numbers.max(1));
            let to = (from + rng.random_range(1..SPAN_MAX)).min(numbers);
            let rest = rng.random_range(0..3);
            Some(Removal::Condition { from, to, rest })
        }
        5..7 => {
            let owned = entries.iter().filter(|entry| entry.kind == Kind::PushedWithId);
            let owned: Vec<&Entry> = owned.filter(|entry| is_acknowledged(entry)).collect();
            owned.choose(rng).map(|entry| Removal::Key(entry.key))
        }
        _ => {
            let plain = (0..).zip(entries).filter(|(_, entry)| entry.kind == Kind::Plain);
            let plain: Vec<(u64, &Entry)> = plain.filter(|(_, entry)| is_acknowledged(entry)).collect();
            let (number, entry) = plain.choose(rng)?;
            let Delivery::Acknowledged { partition, offset } = entry.delivery else {
                return None;
            };
            let number = *number;
            Some(Removal::Place {
                number,
                partition,
                offset,
            })
        }
    }
}

/// The numbers of the events that a removal names, of those that meet a condition.
fn named(run: &Run, removal: Removal, entries: &[Entry], matches: impl Fn(&Entry) -> bool) -> Vec<u64> {
    let named = (0..)
        .zip(entries)
        .filter(|(number, entry)| matches(entry) && removal.names(run, *number, entry));
    named.map(|(number, _)| number).collect()
}

/// Removes until it is answered, and checks that a question sees nothing of what is gone for certain.
async fn remove(run: &Run, removal: Removal) {
    // A push is visible once it is acknowledged, a record of Kafka's a while later.
    let is_visible = |entry: &Entry| {
        let is_push = matches!(entry.kind, Kind::Pushed | Kind::PushedWithId);
        is_push && matches!(entry.delivery, Delivery::Acknowledged { .. })
    };
    let before = run.ledger.entries();
    let certain = named(run, removal, &before, is_visible);
    run.ledger
        .set_removed(&named(run, removal, &before, |_| true), Removed::Possibly);
    for _ in 0..TRIES {
        let answer = removal.request(run).await;
        let meanwhile = named(run, removal, &run.ledger.entries(), |_| true);
        run.ledger.set_removed(&meanwhile, Removed::Possibly);
        if answer.is_err() {
            tokio::time::sleep(PAUSE).await;
            continue;
        }
        run.ledger.set_removed(&certain, Removed::Certainly);
        let counter = match removal {
            Removal::Days(_) => &run.removals.expiries,
            _ => &run.removals.deletes,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        // If a node is killed meanwhile, nothing is checked.
        if let Ok(found) = queries::numbers_where(&run.client, &removal.condition()).await {
            run.removals.questions.fetch_add(1, Ordering::Relaxed);
            let wrong: Vec<&u64> = certain.iter().filter(|number| found.contains(number)).collect();
            if !wrong.is_empty() {
                let problem = format!("{removal:?}: a query sent after its answer sees {wrong:?}");
                run.ledger.add_problem(problem);
            }
        }
        return;
    }
    run.ledger.add_problem(format!("{removal:?} failed {TRIES} times"));
}

/// Removes what may expire at any time: from then on the server finds nothing to remove by itself.
pub(crate) async fn remove_short_lived(run: &Run) -> Result<()> {
    Removal::Days(EXPIRED_DAYS).request(run).await.map(drop)
}

/// Removes documents while nothing else happens: the answers say exactly how many were there, and they are gone.
pub(crate) async fn remove_exactly(run: &Run) -> Result<Vec<String>> {
    let mut found = Vec::new();
    let numbers = run.ledger.entries().len() as u64;
    let all = Removal::Condition {
        from: 0,
        to: numbers,
        rest: 1,
    };
    for removal in [all, Removal::Days(EXPIRED_DAYS_AT_LAST)] {
        let doomed = queries::numbers_where(&run.client, &removal.condition()).await?;
        if doomed.is_empty() {
            found.push(format!("{removal:?} has nothing to remove"));
        }
        let everything = queries::sums(&run.client, false).await?.documents;
        let deleted = removal.request(run).await?;
        let left = queries::sums(&run.client, false).await?.documents;
        if deleted.is_some_and(|deleted| deleted != doomed.len() as u64) || left + doomed.len() as u64 != everything {
            found.push(format!(
                "{removal:?}: of {everything} documents {} were to be removed; the answer is {deleted:?}, and {left} are left",
                doomed.len()
            ));
        }
        let doomed: Vec<u64> = doomed.into_iter().collect();
        run.ledger.set_removed(&doomed, Removed::Certainly);
    }
    Ok(found)
}
