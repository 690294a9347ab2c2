//! The plan: what is killed, paused and restarted when, all from the seed, and the gate that keeps the load in step
//! with it.
//!
//! Disturbances are placed by progress, not by the clock: the n-th comes when a share of the records is acknowledged,
//! while the gate lets the load run one stage ahead. So there is always something in flight, on a slow machine as on a
//! fast one.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use nix::sys::signal::Signal;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::json;

use crate::{
    Run,
    broker::Broker,
    http::COLLECTION,
    produce::{KEYED_PARTITIONS, PLAIN_PARTITIONS},
    report::Report,
    server::Server,
};

/// Longer than the session timeout that the sources are given.
const PAUSE: Duration = Duration::from_millis(3_000);
const SESSION_TIMEOUT_MS: u32 = 1_500;
/// The load must get on within this, or the run has failed.
const STANDSTILL: Duration = Duration::from_secs(120);
const READY_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    KillServer,
    KillBroker,
    PauseServer,
    PauseBroker,
    RestartServer,
}

/// How far the load may go.
pub struct Gate {
    millionths: AtomicU64,
    /// Numbers to be pushed.
    pub push_quota: u64,
    /// Numbers to be produced.
    pub produce_quota: u64,
}

impl Gate {
    fn open_to(&self, fraction: f64) {
        self.millionths
            .fetch_max((fraction.min(1.0) * 1e6) as u64, Ordering::Relaxed);
    }

    fn share(&self, quota: u64) -> u64 {
        quota * self.millionths.load(Ordering::Relaxed) / 1_000_000
    }

    /// Numbers that may have been pushed by now.
    pub fn push_now(&self) -> u64 {
        self.share(self.push_quota)
    }

    /// Numbers that may have been produced by now: in step with what is pushed, so that both are in flight at any
    /// moment.
    pub fn produce_now(&self, pushed: u64) -> u64 {
        const AHEAD_MAX: u64 = 500;
        // A short run is not over before its last kill.
        let ahead = (self.produce_quota / 20).min(AHEAD_MAX);
        let in_step = (pushed * self.produce_quota)
            .checked_div(self.push_quota)
            .unwrap_or(self.produce_quota);
        self.share(self.produce_quota).min(in_step + ahead)
    }
}

/// Carries the plan out.
pub struct Plan {
    rng: StdRng,
    steps: Vec<Step>,
    kills_wanted: usize,
    server: Server,
    broker: Option<Broker>,
    gate: Arc<Gate>,
    done: BTreeMap<&'static str, usize>,
    in_flight: usize,
    began: Instant,
}

impl Plan {
    pub fn new(seed: u64, kills: usize, records: u64, server: Server, broker: Option<Broker>) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let steps = steps(&mut rng, kills, broker.is_some());
        let produce_quota = if broker.is_some() { records / 2 } else { 0 };
        let gate = Arc::new(Gate {
            millionths: AtomicU64::new(0),
            push_quota: records - produce_quota,
            produce_quota,
        });
        Self {
            rng,
            steps,
            kills_wanted: kills,
            server,
            broker,
            gate,
            done: BTreeMap::new(),
            in_flight: 0,
            began: Instant::now(),
        }
    }

    pub fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    pub fn broker(&self) -> Option<&Broker> {
        self.broker.as_ref()
    }

    /// Collection, topics and sources.
    pub async fn prepare(&mut self, run: &Run) -> Result<()> {
        run.client
            .put(&format!("/v1/collections/{COLLECTION}"), json!({"shards": 2}))
            .await?;
        let Some(broker) = &self.broker else { return Ok(()) };
        for (topic, partitions, key) in [
            ("plain", PLAIN_PARTITIONS, None),
            ("keyed", KEYED_PARTITIONS, Some("record")),
        ] {
            broker.create_topic(topic, partitions).await?;
            let mut source = json!({
                "collection": COLLECTION,
                "topic": topic,
                "config": {
                    "bootstrap.servers": broker.address(),
                    "session.timeout.ms": SESSION_TIMEOUT_MS.to_string(),
                    "heartbeat.interval.ms": "300",
                    "reconnect.backoff.max.ms": "500",
                },
            });
            if let Some(key) = key {
                source["key"] = json!(key);
            }
            run.client.put(&format!("/v1/sources/{topic}"), source).await?;
        }
        Ok(())
    }

    pub async fn carry_out(&mut self, run: &Run) -> Result<()> {
        let steps = std::mem::take(&mut self.steps);
        let stages = (steps.len() + 1) as f64;
        for (index, step) in steps.iter().enumerate() {
            self.gate.open_to((index + 2) as f64 / stages);
            let at = (index as f64 + self.rng.random_range(0.05..0.95)) / stages;
            self.wait_for(run, (at * run.book.records as f64) as u64).await?;
            eprintln!(
                "ledger: {:5.1} s, {:6} done: {step:?}",
                self.began.elapsed().as_secs_f64(),
                run.book.done()
            );
            self.take(*step, run).await?;
        }
        self.gate.open_to(1.0);
        self.wait_for(run, self.gate.push_quota + self.gate.produce_quota).await
    }

    /// Until so many are acknowledged, with server and broker alive.
    async fn wait_for(&mut self, run: &Run, done: u64) -> Result<()> {
        let (mut last, mut since) = (run.book.done(), Instant::now());
        while run.book.done() < done {
            self.server.must_run()?;
            if let Some(broker) = &mut self.broker {
                let process = broker.process()?;
                if let Some(status) = process.ended() {
                    bail!("the broker ended by itself: {status}; {}", process.last_words());
                }
            }
            if run.book.ended.load(Ordering::Relaxed) {
                bail!("the load ended early, at {} of {done}", run.book.done());
            }
            let now = run.book.done();
            if now > last {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() > STANDSTILL {
                bail!(
                    "nothing was acknowledged for {STANDSTILL:?}, at {now} of {done}: {}; {}",
                    run.book.standing(),
                    self.server.process(0)?.last_words()
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    async fn take(&mut self, step: Step, run: &Run) -> Result<()> {
        match step {
            Step::KillServer => self.kill_server(run).await,
            Step::KillBroker => self.kill_broker(run).await,
            Step::PauseServer => {
                let who = self.anybody();
                self.count(self.server.role(who).words()[2]);
                pause(self.server.process(who)?).await
            }
            Step::PauseBroker => {
                self.count("pauses of the broker");
                match &mut self.broker {
                    Some(broker) => pause(broker.process()?).await,
                    None => Ok(()),
                }
            }
            Step::RestartServer => {
                let who = self.anybody();
                self.count(self.server.role(who).words()[3]);
                self.server.stop(who).await?;
                self.server.spawn(who, None)?;
                self.server.ready(READY_WITHIN).await
            }
        }
    }

    async fn kill_server(&mut self, run: &Run) -> Result<()> {
        if self.server.crashes() && self.rng.random_bool(0.8) {
            return self.crash_server(run).await;
        }
        let who = self.anybody();
        let [killed, killed_at_start, ..] = self.server.role(who).words();
        let in_flight = something_in_flight(&run.book.pushes_in_flight).await;
        self.server.kill(who).await?;
        self.note_kill(killed, in_flight);
        self.wait_a_little(400).await;
        self.server.spawn(who, None)?;
        if self.rng.random_bool(0.25) {
            // Recovery is a moment like any other.
            self.wait_a_little(300).await;
            self.server.must_run()?;
            self.count(killed_at_start);
            self.server.process(who)?.kill()?;
            self.server.spawn(who, None)?;
        }
        self.server.ready(READY_WITHIN).await
    }

    /// The server ends itself at a named point; where it never comes by there, it is killed.
    async fn crash_server(&mut self, run: &Run) -> Result<()> {
        const COMES_BY_WITHIN: Duration = Duration::from_secs(8);
        /// Few enough for a point that the server comes by only now and then.
        const PASSES_MAX: u32 = 3;
        let crash = (
            self.rng.random_range(0..1_000),
            self.rng.random_range(1..PASSES_MAX + 1),
        );
        let who = self.anybody();
        self.server.process(who)?.kill()?;
        self.server.spawn(who, Some(crash))?;
        let ready = self.server.ready(READY_WITHIN).await;
        let ended = self.server.process(who)?.wait(COMES_BY_WITHIN).await;
        match (ready, ended) {
            (_, Ok(_)) => self.note_kill(
                "ends of the server at a named point",
                run.book.pushes_in_flight.load(Ordering::Relaxed),
            ),
            (Err(error), Err(_)) => return Err(error),
            (Ok(()), Err(_)) => {
                self.note_kill(
                    self.server.role(who).words()[0],
                    run.book.pushes_in_flight.load(Ordering::Relaxed),
                );
                self.server.process(who)?.kill()?;
            }
        }
        self.server.spawn(who, None)?;
        self.server.ready(READY_WITHIN).await
    }

    async fn kill_broker(&mut self, run: &Run) -> Result<()> {
        let downtime = self.rng.random_range(0..800);
        let in_flight = something_in_flight(&run.book.records_in_flight).await;
        self.note_kill("kills of the broker", in_flight);
        let Some(broker) = &mut self.broker else { return Ok(()) };
        broker.process()?.kill()?;
        tokio::time::sleep(Duration::from_millis(downtime)).await;
        broker.spawn()?;
        broker.answers(READY_WITHIN).await
    }

    /// One kill more of everybody, with nothing in flight: what was there must be there.
    pub async fn kill_and_restart_server(&mut self) -> Result<()> {
        for who in self.server.everybody() {
            self.server.kill(who).await?;
        }
        for who in self.server.everybody() {
            self.server.spawn(who, None)?;
        }
        self.server.ready(READY_WITHIN).await
    }

    /// One of the server's processes.
    fn anybody(&mut self) -> usize {
        self.rng.random_range(self.server.everybody())
    }

    async fn wait_a_little(&mut self, milliseconds_max: u64) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..milliseconds_max))).await;
    }

    fn note_kill(&mut self, what: &'static str, in_flight: u64) {
        self.count(what);
        self.in_flight += usize::from(in_flight > 0);
    }

    fn count(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    pub async fn report(&self, run: &Run, seed: u64) -> Report {
        Report::new(
            seed,
            self.kills_wanted,
            self.done.clone(),
            self.in_flight,
            self.server.refused().await,
            &run.book,
        )
    }

    /// An orderly end; what remains is killed when it is dropped.
    pub async fn stop(&mut self) {
        for who in self.server.everybody().rev() {
            if let Err(error) = self.server.stop(who).await {
                eprintln!("ledger: {error:#}");
            }
        }
    }
}

/// What is under way, once there is something: the load stops only for moments before it is done.
async fn something_in_flight(counter: &AtomicU64) -> u64 {
    const WITHIN: Duration = Duration::from_secs(3);
    let began = Instant::now();
    loop {
        match counter.load(Ordering::Relaxed) {
            0 if began.elapsed() < WITHIN => tokio::time::sleep(Duration::from_micros(200)).await,
            in_flight => return in_flight,
        }
    }
}

async fn pause(process: &mut crate::process::Process) -> Result<()> {
    process.signal(Signal::SIGSTOP)?;
    tokio::time::sleep(PAUSE).await;
    process.signal(Signal::SIGCONT)
}

/// Kills, a quarter of them the broker's, and between them pauses and orderly restarts, shuffled.
fn steps(rng: &mut StdRng, kills: usize, kafka: bool) -> Vec<Step> {
    let broker_kills = if kafka { kills.div_ceil(4) } else { 0 };
    let few = (kills / 8).max(1);
    let mut steps = vec![Step::KillServer; kills - broker_kills];
    steps.extend(vec![Step::KillBroker; broker_kills]);
    steps.extend(vec![Step::PauseServer; few]);
    steps.extend(vec![Step::RestartServer; few]);
    if kafka {
        steps.extend(vec![Step::PauseBroker; few]);
    }
    steps.shuffle(rng);
    steps
}
