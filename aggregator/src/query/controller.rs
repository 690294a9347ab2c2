//! The controller: one aggregator of a cluster, which places replicas anew whose leaf has been away for long.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use metrics::{counter, gauge};
use proto::{
    Catalog, Code, Problem,
    catalog::{Change, Controller},
    cluster::{NodeName, Role},
    controller::{Absences, ClusterView, Duty, Idleness},
    ingest::ShardId,
    node::{NodeReport, absences, reports},
    rebalance::Plan,
    replacement::{Decision, ReplacementInput, ReplacementLimits, decide, lost_replicas},
};
use tokio::time::sleep;
use tracing::{info, warn};

use super::Engine;

/// How often an aggregator looks, at least and at most: ten times within the time after which a leaf is replaced.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(30)];

/// Looks at the cluster until the engine is dropped.
pub(super) async fn run(engine: Weak<Engine>) {
    let mut term = Term::default();
    loop {
        let Some(alive) = engine.upgrade() else { return };
        let absent_after = alive.options.replacement.absent_after;
        if absent_after.is_zero() {
            return;
        }
        let wait = (absent_after / 10).clamp(LOOK_EVERY[0], LOOK_EVERY[1]);
        // One process holds all shards itself.
        if alive.catalog().members_of(Role::Leaf).next().is_some() {
            let looked = term.look(&alive).await;
            term.tell(&alive.catalog().controller, looked);
        }
        drop(alive);
        // So that several aggregators do not ask at the same moment.
        sleep(wait.mul_f64(rand::random_range(0.5..1.0))).await;
    }
}

/// What an aggregator remembers between two looks.
#[derive(Default)]
struct Term {
    /// The epoch that it has taken.
    epoch: Option<u64>,
    absences: Absences,
    idleness: Idleness,
    /// Whether so many leaves are away that nothing is replaced.
    stopped: bool,
    /// Why nothing was replaced, and at how many looks one after the other.
    why: (String, u32),
}

impl Term {
    async fn look(&mut self, engine: &Engine) -> Result<(), Problem> {
        self.stopped = false;
        let (catalog, limits) = (engine.catalog(), engine.options.replacement.clone());
        let reports = reports(engine.roles.nodes.status().await);
        let away = self.absences.see(&absences(&reports), Instant::now());
        let own: NodeName = engine.roles.nodes.own().parse()?;
        let lost = lost_replicas(&catalog, &away, limits.absent_after);
        gauge!("rachis_lost_replicas").set(lost as f64);
        let is_idle = self.is_idle(engine, &catalog, &away, lost).await?;
        let view = ClusterView {
            catalog: &catalog,
            own: &own,
            reports: &reports,
            away: &away,
            absent_after: limits.absent_after,
        };
        match view.duty(self.epoch, is_idle) {
            Duty::Nothing => Ok(()),
            Duty::Unheard => Err(Problem::new(
                Code::Unavailable,
                "this aggregator should become the controller, but no other node hears it",
            )
            .hint("check the address that it announces (`--address`) and the network")),
            Duty::WaitFor(older) => Err(older_members(&older)),
            Duty::Take(epoch) => self.take(engine, &reports, own, epoch).await,
            // Most of the time nothing is lost.
            Duty::Control if lost == 0 || catalog.controller.held => Ok(()),
            Duty::Control => match self.decide(engine, &catalog, &away).await? {
                Some(plan) => replace(engine, catalog.controller.epoch, plan).await,
                None => Ok(()),
            },
        }
    }

    async fn take(
        &mut self,
        engine: &Engine,
        reports: &[(NodeName, NodeReport)],
        node: NodeName,
        epoch: u64,
    ) -> Result<(), Problem> {
        let own = reports.iter().find(|(name, _)| *name == node);
        let Some(instance) = own.and_then(|(_, report)| report.instance) else {
            let detail = "this aggregator does not reach itself at the address that it announces";
            return Err(Problem::new(Code::Unavailable, detail).hint("check `--address`"));
        };
        let change = Change::TakeControl { node, instance, epoch };
        match engine.change_catalog(change).await {
            // Another aggregator was faster.
            Err(problem) if problem.code == Code::Conflict => return Ok(()),
            taken => taken?,
        };
        info!(
            epoch,
            "this aggregator is the controller: it replaces the replicas of leaves that are away for long"
        );
        self.epoch = Some(epoch);
        Ok(())
    }

    /// Whether the controller, which may be another aggregator, does not do its work.
    async fn is_idle(
        &mut self,
        engine: &Engine,
        catalog: &Arc<Catalog>,
        away: &BTreeMap<NodeName, Duration>,
        lost: usize,
    ) -> Result<bool, Problem> {
        let mut limits = engine.options.replacement.clone();
        limits.absent_after *= 2;
        let overdue = lost > 0
            && !catalog.controller.held
            && matches!(
                decided(engine, catalog, away, BTreeMap::new(), limits).await?,
                Decision::Replace(_)
            );
        Ok(self.idleness.see(lost, overdue))
    }

    /// What is to be replaced now, if anything is.
    async fn decide(
        &mut self,
        engine: &Engine,
        catalog: &Arc<Catalog>,
        away: &BTreeMap<NodeName, Duration>,
    ) -> Result<Option<Plan>, Problem> {
        let limits = &engine.options.replacement;
        let decision = match decided(engine, catalog, away, BTreeMap::new(), limits.clone()).await? {
            // Where the replicas are placed depends on the sizes, for which the leaves have to be asked.
            Decision::Replace(_) => {
                let bytes = engine.shard_bytes(catalog).await;
                decided(engine, catalog, away, bytes, limits.clone()).await?
            }
            other => other,
        };
        match decision {
            Decision::Nothing => Ok(None),
            Decision::Replace(plan) => Ok(Some(plan)),
            Decision::TooManyAway { away, leaves } => {
                self.stopped = true;
                let detail = format!("{away} of {leaves} leaves are away, so their replicas are not replaced");
                Err(Problem::new(Code::Unavailable, detail).hint(
                    "check the network, or start them again; `rachis cluster drain NAME` moves the shards of one that will \
                     not come back",
                ))
            }
        }
    }

    /// Says what a look has led to, unless it has just said the same.
    fn tell(&mut self, controller: &Controller, looked: Result<(), Problem>) {
        // An epoch that is over is not its own any more.
        self.epoch.take_if(|epoch| *epoch != controller.epoch);
        let one_if = |is_so: bool| if is_so { 1.0 } else { 0.0 };
        gauge!("rachis_controller").set(one_if(self.epoch.is_some()));
        gauge!("rachis_replacements_stopped").set(one_if(self.stopped));
        gauge!("rachis_replacements_held").set(one_if(controller.held));
        let why = looked.err().map(|problem| problem.to_string()).unwrap_or_default();
        match why == self.why.0 {
            true => self.why.1 += 1,
            false => self.why = (why, 1),
        }
        // While a cluster starts, not every member answers at the first look.
        if let (why, 2) = &self.why
            && !why.is_empty()
        {
            warn!(
                why,
                "replicas of leaves that are away for long are not replaced now; it tries again"
            );
        }
    }
}

impl Engine {
    /// Has the controller replace nothing, or go on.
    pub(crate) async fn hold_replacements(&self, held: bool) -> Result<(), Problem> {
        let catalog = self.catalog();
        if catalog.members_of(Role::Leaf).next().is_none() {
            let detail = "there are no leaves: one process holds all shards, or none has joined yet";
            return Err(Problem::new(Code::BadRequest, detail));
        }
        let reports = reports(self.roles.nodes.status().await);
        let view = ClusterView {
            catalog: &catalog,
            own: &self.roles.nodes.own().parse()?,
            reports: &reports,
            away: &absences(&reports),
            absent_after: self.options.replacement.absent_after,
        };
        match view.older_members() {
            older if older.is_empty() => self.change_catalog(Change::HoldReplacements { held }).await.map(drop),
            older => Err(older_members(&older)),
        }
    }
}

/// That there can be no controller yet.
fn older_members(older: &[NodeName]) -> Problem {
    let names: Vec<&str> = older.iter().map(NodeName::as_str).collect();
    let detail = format!(
        "there is no controller yet, and nothing is replaced: {} may run a release that does not know of one",
        names.join(", ")
    );
    Problem::new(Code::Unavailable, detail).hint("upgrade these nodes, start them, or remove them from the cluster")
}

/// What is decided. It takes a while for a large cluster, so not on a thread that others wait for.
async fn decided(
    engine: &Engine,
    catalog: &Arc<Catalog>,
    away: &BTreeMap<NodeName, Duration>,
    bytes: BTreeMap<ShardId, u64>,
    limits: ReplacementLimits,
) -> Result<Decision, Problem> {
    let (catalog, away, replicas) = (catalog.clone(), away.clone(), engine.options.replicas);
    let decided = tokio::task::spawn_blocking(move || {
        decide(&ReplacementInput {
            catalog: &catalog,
            replicas,
            away: &away,
            bytes: &bytes,
            limits: &limits,
        })
    });
    let decided = decided.await;
    decided.map_err(|failure| Problem::new(Code::Internal, format!("nothing was decided: {failure}")))
}

async fn replace(engine: &Engine, epoch: u64, plan: Plan) -> Result<(), Problem> {
    let Plan { added, retired, .. } = plan;
    let leaves: BTreeSet<&NodeName> = added.iter().filter_map(|added| added.instead_of.as_ref()).collect();
    let leaves = leaves.into_iter().map(NodeName::as_str).collect::<Vec<_>>().join(", ");
    let (replaced, given_up) = (added.len(), retired.len());
    let change = Change::ReplaceReplicas { epoch, retired, added };
    engine.change_catalog(change).await?;
    counter!("rachis_replaced_replicas_total").increment(replaced as u64);
    info!(
        leaves,
        replaced, given_up, "replicas of leaves that have been away for long are placed anew; see rachis.moves"
    );
    Ok(())
}
