//! The plan: which process is killed, paused or restarted when. It follows from the seed alone.
//!
//! Disturbances are placed by progress, not by the clock: each happens when a certain share of the records is
//! acknowledged, while the gate lets the load run one stage ahead. So there is always something in flight, on a slow
//! machine as on a fast one.

mod leaves;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use child_process::Process;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use serde_json::json;

use crate::{
    Arguments, Run,
    broker::{Broker, READY_WITHIN},
    gate::Gate,
    http::COLLECTION,
    questions::Probed,
    report::{Disturbances, Report},
    server::{CLUSTER, Server},
    topics::{KEYED, PLAIN, TOPICS},
};

/// Longer than the session timeout of the sources.
const PAUSE: Duration = Duration::from_millis(3_000);
const SESSION_TIMEOUT_MS: u32 = 1_500;
/// The run has failed if the load makes no progress for this long.
const STALL_TIMEOUT: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    KillServer,
    KillBroker,
    PauseServer,
    PauseBroker,
    RestartServer,
    MoveShards,
    EmptyDisk,
    CutNetwork,
    SpreadPartition,
    UpgradeNode,
}

/// Owns the server and the broker, and disturbs them.
pub(crate) struct Plan {
    rng: StdRng,
    steps: Vec<Step>,
    kills_wanted: usize,
    server: Server,
    broker: Option<Broker>,
    /// Leaves that are being drained.
    draining: Vec<String>,
    /// How often the records of a partition have been spread over shards anew.
    spreads: Arc<AtomicU64>,
    gate: Arc<Gate>,
    disturbances: Disturbances,
    began: Instant,
}

impl Plan {
    pub(crate) fn new(seed: u64, arguments: &Arguments, server: Server, broker: Option<Broker>) -> Self {
        let (kills, records) = (arguments.kills, arguments.records);
        let mut rng = StdRng::seed_from_u64(seed);
        let steps = steps(&mut rng, broker.is_some(), arguments);
        let produce_quota = if broker.is_some() { records / 2 } else { 0 };
        let gate = Arc::new(Gate::new(records - produce_quota, produce_quota));
        Self {
            rng,
            steps,
            kills_wanted: kills,
            server,
            broker,
            draining: Vec::new(),
            spreads: Arc::default(),
            gate,
            disturbances: Disturbances::default(),
            began: Instant::now(),
        }
    }

    pub(crate) fn gate(&self) -> Arc<Gate> {
        self.gate.clone()
    }

    pub(crate) fn broker(&self) -> Option<&Broker> {
        self.broker.as_ref()
    }

    /// Creates the collection, the topics and the sources.
    pub(crate) async fn prepare(&mut self, run: &Run) -> Result<()> {
        let mut settings = json!({"shards": 2});
        if run.replicas > 1 {
            settings["replicas"] = run.replicas.into();
        }
        run.client
            .put(&format!("/v1/collections/{COLLECTION}"), settings)
            .await?;
        let Some(broker) = &self.broker else { return Ok(()) };
        for (topic, partitions) in TOPICS {
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
            if topic == KEYED {
                source["key"] = json!("record");
            }
            run.client.put(&format!("/v1/sources/{topic}"), source).await?;
        }
        Ok(())
    }

    pub(crate) async fn carry_out(&mut self, run: &Run) -> Result<()> {
        let steps = std::mem::take(&mut self.steps);
        let stages = (steps.len() + 1) as f64;
        for (index, step) in steps.iter().enumerate() {
            self.gate.open_to((index + 2) as f64 / stages);
            let at = (index as f64 + self.rng.random_range(0.05..0.95)) / stages;
            self.wait_until_done(run, (at * run.ledger.records as f64) as u64)
                .await?;
            // A producer that is replaced gives up all its records at once. Without more load, nothing would be in flight.
            let done = run.ledger.done() as f64 / run.ledger.records as f64;
            self.gate
                .open_to(((index + 2) as f64 / stages).max(done + 1.0 / stages));
            eprintln!(
                "ledger: {:5.1} s, {:6} done: {step:?}",
                self.began.elapsed().as_secs_f64(),
                run.ledger.done()
            );
            self.perform(*step, run).await?;
        }
        while self.server.older_node().is_some() {
            self.upgrade_node().await?;
        }
        self.gate.open_to(1.0);
        self.wait_until_done(run, self.gate.push_quota + self.gate.produce_quota)
            .await
    }

    /// Waits until this many records are done, and checks that server and broker keep running.
    async fn wait_until_done(&mut self, run: &Run, target: u64) -> Result<()> {
        let (mut last, mut since) = (run.ledger.done(), Instant::now());
        while run.ledger.done() < target {
            self.check_running()?;
            if run.ledger.load_aborted.load(Ordering::Relaxed) {
                bail!("the load ended early, at {} of {target}", run.ledger.done());
            }
            let now = run.ledger.done();
            if now > last {
                (last, since) = (now, Instant::now());
            }
            if since.elapsed() > STALL_TIMEOUT {
                bail!(
                    "nothing was acknowledged for {STALL_TIMEOUT:?}, at {now} of {target}: {}; {}",
                    run.ledger.progress(),
                    self.server.process(0)?.log_tail()
                );
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    fn check_running(&mut self) -> Result<()> {
        self.server.check_running()?;
        if let Some(broker) = &mut self.broker {
            let process = broker.process()?;
            if let Some(status) = process.exit_status() {
                bail!("the broker exited on its own: {status}; {}", process.log_tail());
            }
        }
        Ok(())
    }

    async fn perform(&mut self, step: Step, run: &Run) -> Result<()> {
        match step {
            Step::KillServer => self.kill_server(run).await,
            Step::KillBroker => self.kill_broker(run).await,
            Step::MoveShards => self.move_shards(run).await,
            Step::EmptyDisk => self.empty_disk(run).await,
            Step::UpgradeNode => self.upgrade_node().await,
            Step::SpreadPartition => {
                self.spread_partition(run);
                Ok(())
            }
            Step::CutNetwork => {
                let node = self.random_node();
                self.disturbances.add(self.server.role(node).labels().cut);
                let long = PAUSE.mul_f64(self.rng.random_range(0.5..4.0));
                let lasts = match self.serves_alone(run, node).await {
                    true => long.min(PAUSE),
                    false => long,
                };
                let broker = self.broker.as_ref().map(Broker::place);
                self.server.cut_some(&mut self.rng, node, broker)?;
                tokio::time::sleep(lasts).await;
                self.server.heal();
                Ok(())
            }
            Step::PauseServer => {
                let node = self.random_node();
                self.disturbances.add(self.server.role(node).labels().pause);
                pause(self.server.process(node)?).await;
                Ok(())
            }
            Step::PauseBroker => {
                self.disturbances.add("pauses of the broker");
                if let Some(broker) = &mut self.broker {
                    pause(broker.process()?).await;
                }
                Ok(())
            }
            Step::RestartServer => {
                let node = self.random_node();
                self.disturbances.add(self.server.role(node).labels().restart);
                self.server.stop(node).await?;
                self.server.spawn(node, None)?;
                self.server.wait_until_ready(READY_WITHIN).await
            }
        }
    }

    /// Whether a node is a leaf that alone serves a shard, while the other replicas catch up: to cut it off stops all
    /// answers. True if no aggregator says.
    async fn serves_alone(&self, run: &Run, node: usize) -> bool {
        let sql = format!(
            "SELECT count(*) AS alone FROM (SELECT collection, shard FROM rachis.replicas WHERE state = 'serving' \
             GROUP BY collection, shard HAVING count(*) = 1 AND max(leaf) = '{}')",
            self.server.name(node)
        );
        let rows = run.client.rows::<serde_json::Value>(json!({ "sql": sql })).await;
        rows.ok()
            .is_none_or(|rows| rows.first().is_none_or(|row| row["alone"] != 0))
    }

    /// Has a node that runs the older release run the other one.
    async fn upgrade_node(&mut self) -> Result<()> {
        let Some(node) = self.server.older_node() else {
            return Ok(());
        };
        self.disturbances.add("nodes upgraded");
        self.server.upgrade(node).await?;
        self.server.wait_until_ready(READY_WITHIN).await
    }

    /// Spreads the records of a partition over other shards. The next steps come before that is done.
    fn spread_partition(&mut self, run: &Run) {
        const SHARDS: [&[u32]; 4] = [&[0, 1], &[1, 0], &[0], &[1]];
        let Some((topic, partitions)) = TOPICS.into_iter().find(|(topic, _)| *topic == PLAIN) else {
            return;
        };
        let partition = self.rng.random_range(0..partitions);
        let shards = SHARDS[self.rng.random_range(0..SHARDS.len())];
        let (client, spreads) = (run.client.clone(), self.spreads.clone());
        tokio::spawn(async move {
            let body = json!({ "partition": partition, "shards": shards });
            match client.post(&format!("/v1/sources/{topic}/spread"), body).await {
                Ok(_) => drop(spreads.fetch_add(1, Ordering::Relaxed)),
                // It belongs to that shard already, or waits for a leaf, or for the broker.
                Err(error) => eprintln!("ledger: partition {partition} is not spread: {error:#}"),
            }
        });
    }

    async fn kill_server(&mut self, run: &Run) -> Result<()> {
        if self.server.crashes() && self.rng.random_bool(0.8) {
            return self.crash_server(run).await;
        }
        let node = self.random_node();
        let labels = self.server.role(node).labels();
        let in_flight = wait_for_in_flight(&run.ledger.pushes_in_flight).await;
        self.server.kill(node).await?;
        self.disturbances.add_kill(labels.kill, in_flight);
        self.random_sleep(400).await;
        self.server.spawn(node, None)?;
        if self.rng.random_bool(0.25) {
            // Recovery must survive a kill too.
            self.random_sleep(300).await;
            self.server.check_running()?;
            self.disturbances.add(labels.kill_at_start);
            self.server.process(node)?.kill();
            self.server.spawn(node, None)?;
        }
        self.server.wait_until_ready(READY_WITHIN).await
    }

    /// Lets the server end itself at a named point; kills it if it does not reach the point in time.
    async fn crash_server(&mut self, run: &Run) -> Result<()> {
        const CRASH_WITHIN: Duration = Duration::from_secs(8);
        /// Few enough for a point that the server reaches only now and then.
        const PASSES_MAX: u32 = 3;
        let crash = (
            self.rng.random_range(0..1_000),
            self.rng.random_range(1..PASSES_MAX + 1),
        );
        let node = self.random_node();
        self.server.process(node)?.kill();
        self.server.spawn(node, Some(crash))?;
        let ready = self.server.wait_until_ready(READY_WITHIN).await;
        let crashed = self.server.process(node)?.wait(CRASH_WITHIN).await;
        let in_flight = run.ledger.pushes_in_flight.load(Ordering::Relaxed);
        match (ready, crashed) {
            (_, Ok(_)) => self
                .disturbances
                .add_kill("ends of the server at a named point", in_flight),
            (Err(error), Err(_)) => return Err(error),
            (Ok(()), Err(_)) => {
                self.disturbances
                    .add_kill(self.server.role(node).labels().kill, in_flight);
                self.server.process(node)?.kill();
            }
        }
        self.server.spawn(node, None)?;
        self.server.wait_until_ready(READY_WITHIN).await
    }

    async fn kill_broker(&mut self, run: &Run) -> Result<()> {
        let downtime = self.rng.random_range(0..800);
        let in_flight = wait_for_in_flight(&run.ledger.records_in_flight).await;
        self.disturbances.add_kill("kills of the broker", in_flight);
        let Some(broker) = &mut self.broker else { return Ok(()) };
        broker.process()?.kill();
        tokio::time::sleep(Duration::from_millis(downtime)).await;
        broker.spawn()?;
        broker.wait_until_reachable(READY_WITHIN).await
    }

    /// Kills and restarts every node once more, with nothing in flight: nothing may be lost.
    pub(crate) async fn kill_and_restart_server(&mut self) -> Result<()> {
        for node in self.server.nodes() {
            self.server.kill(node).await?;
        }
        for node in self.server.nodes() {
            self.server.spawn(node, None)?;
        }
        self.server.wait_until_ready(READY_WITHIN).await
    }

    fn random_node(&mut self) -> usize {
        let node = self.rng.random_range(self.server.nodes());
        eprintln!("    {}", self.server.name(node));
        node
    }

    async fn random_sleep(&mut self, milliseconds_max: u64) {
        tokio::time::sleep(Duration::from_millis(self.rng.random_range(0..milliseconds_max))).await;
    }

    pub(crate) async fn report(&self, run: &Run, seed: u64, probed: Option<&Probed>) -> Report {
        let mut disturbances = self.disturbances.clone();
        let spreads = usize::try_from(self.spreads.load(Ordering::Relaxed)).unwrap_or_default();
        disturbances.counts.insert("spreads of a partition", spreads);
        Report::new(
            seed,
            self.kills_wanted,
            disturbances,
            self.server.refused_batches().await,
            probed,
            run,
        )
    }

    /// Stops every node in order; whatever still runs is killed on drop.
    pub(crate) async fn stop(&mut self) {
        for node in self.server.nodes().rev() {
            if let Err(error) = self.server.stop(node).await {
                eprintln!("ledger: {error:#}");
            }
        }
    }
}

/// Waits until something is in flight and returns how much; 0 if nothing is for a while. Before it is done, the load
/// stops only for moments.
async fn wait_for_in_flight(counter: &AtomicU64) -> u64 {
    const WITHIN: Duration = Duration::from_secs(3);
    let began = Instant::now();
    loop {
        match counter.load(Ordering::Relaxed) {
            0 if began.elapsed() < WITHIN => tokio::time::sleep(Duration::from_micros(200)).await,
            in_flight => return in_flight,
        }
    }
}

async fn pause(process: &Process) {
    process.pause();
    tokio::time::sleep(PAUSE).await;
    process.resume();
}

/// The kills, a quarter of them of the broker, with pauses and orderly restarts between them, shuffled. With `moves`,
/// leaves also come and go, and lose their disks; with `cuts`, the network is cut.
fn steps(rng: &mut StdRng, kafka: bool, arguments: &Arguments) -> Vec<Step> {
    let kills = arguments.kills;
    let broker_kills = if kafka { kills.div_ceil(4) } else { 0 };
    let few = (kills / 8).max(1);
    let mut steps = vec![Step::KillServer; kills - broker_kills];
    steps.extend(vec![Step::KillBroker; broker_kills]);
    steps.extend(vec![Step::PauseServer; few]);
    steps.extend(vec![Step::RestartServer; few]);
    if kafka {
        steps.extend(vec![Step::PauseBroker; few]);
        steps.extend(vec![Step::SpreadPartition; kills.div_ceil(3)]);
    }
    if arguments.cuts {
        steps.extend(vec![Step::CutNetwork; kills.div_ceil(4)]);
    }
    if arguments.older.is_some() {
        steps.extend(vec![Step::UpgradeNode; CLUSTER.iter().map(|(_, count)| count).sum()]);
    }
    if arguments.moves {
        steps.extend(vec![Step::MoveShards; kills.div_ceil(3)]);
        steps.extend(vec![Step::EmptyDisk; few]);
    }
    steps.shuffle(rng);
    steps
}
