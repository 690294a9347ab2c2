//! Decides which aggregator is the controller, the one that replaces lost replicas (see [`crate::replacement`]).
//!
//! Every aggregator looks at the cluster again and again. It asks the change log for the next epoch if there is no
//! controller, if the controller is away, or if it does not do its work. Of several that ask for an epoch, the first gets it.
//! What a controller asks for after its epoch is refused, so two that both take themselves for it do no harm.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::{
    catalog::{CONTROLLER_LEVEL, Catalog},
    cluster::NodeName,
    node::{NodeReport, is_heard},
};

/// For how long the controller must not have been heard before another one takes over, if that is shorter than half the
/// time after which a leaf is replaced.
const TAKEN_OVER_AFTER: Duration = Duration::from_secs(60);

/// The controller does not work if it has begun no replacement within so many looks, although it could have long ago. It
/// looks as often, at the least.
const IDLE_LOOKS: u32 = 6;

/// What an aggregator sees of the cluster.
pub struct ClusterView<'a> {
    /// The catalog.
    pub catalog: &'a Catalog,
    /// The name of the aggregator.
    pub own: &'a NodeName,
    /// What the nodes that answer it report, itself among them.
    pub reports: &'a [(NodeName, NodeReport)],
    /// The members that are away, and for how long: see [`crate::node::absences`].
    pub away: &'a BTreeMap<NodeName, Duration>,
    /// After what time the replicas of a leaf that is away are replaced.
    pub absent_after: Duration,
}

/// What an aggregator has to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Duty {
    /// Another aggregator is the controller.
    Nothing,
    /// It would take over, but no other node hears it: the next one would take over from it at once.
    Unheard,
    /// There is no controller before these members run a release that knows of one.
    WaitFor(Vec<NodeName>),
    /// To become the controller of this epoch.
    Take(u64),
    /// It is the controller.
    Control,
}

impl ClusterView<'_> {
    /// What the aggregator has to do, with the epoch that it has taken, if any. `idle` says that lost replicas have not been
    /// replaced for so long that the controller cannot be at work.
    pub fn duty(&self, epoch: Option<u64>, idle: bool) -> Duty {
        let controller = &self.catalog.controller;
        if epoch == Some(controller.epoch) {
            return Duty::Control;
        }
        let taken_over_after = TAKEN_OVER_AFTER.min(self.absent_after / 2);
        let is_there = |node: &NodeName| self.away.get(node).is_none_or(|time| *time < taken_over_after);
        if !idle
            && controller
                .node
                .as_ref()
                .is_some_and(|node| node != self.own && is_there(node))
        {
            return Duty::Nothing;
        }
        let others: Vec<_> = self.reports.iter().filter(|(by, _)| by != self.own).cloned().collect();
        if !is_heard(&others, self.own) {
            return Duty::Unheard;
        }
        match self.older_members() {
            older if older.is_empty() => Duty::Take(controller.epoch + 1),
            older => Duty::WaitFor(older),
        }
    }

    /// The members that may not know of controllers: they would stop at the first record of one in the change log. Those that
    /// have been away for long are not waited for. Once there has been a controller, there are none.
    pub fn older_members(&self) -> Vec<NodeName> {
        if self.catalog.controller.epoch > 0 {
            return Vec::new();
        }
        let may_be_older = |name: &&NodeName| {
            let report = self.reports.iter().find(|(by, _)| by == *name);
            match report {
                Some((_, report)) => report.rules_level < CONTROLLER_LEVEL,
                None => self.away.get(*name).is_none_or(|time| *time < self.absent_after),
            }
        };
        self.catalog.members.keys().filter(may_be_older).cloned().collect()
    }
}

/// Since when an aggregator itself has found the members away, one look after the other.
///
/// A node that is heard for a moment is not away, even if the others have not heard it for long.
#[derive(Debug, Default)]
pub struct Absences {
    since: BTreeMap<NodeName, Instant>,
}

impl Absences {
    /// Adds what was seen at a look. Returns the members that are away, for no longer than twice the time that they were
    /// found away here.
    pub fn see(&mut self, away: &BTreeMap<NodeName, Duration>, now: Instant) -> BTreeMap<NodeName, Duration> {
        self.since.retain(|name, _| away.contains_key(name));
        let seen = |(name, time): (&NodeName, &Duration)| {
            let since = *self.since.entry(name.clone()).or_insert(now);
            (name.clone(), (*time).min(2 * now.saturating_duration_since(since)))
        };
        away.iter().map(seen).collect()
    }
}

/// Whether the controller works, as another aggregator sees it.
#[derive(Debug, Default)]
pub struct Idleness {
    /// The looks, one after the other, at which it had begun nothing.
    looks: u32,
    /// The replicas that were lost at the last look.
    lost: usize,
}

impl Idleness {
    /// Adds a look, at which so many replicas are lost, and some of them could have been replaced long ago if `overdue`.
    /// Returns whether the controller is idle.
    pub fn see(&mut self, lost: usize, overdue: bool) -> bool {
        let has_begun = lost < std::mem::replace(&mut self.lost, lost);
        self.looks = if overdue && !has_begun { self.looks + 1 } else { 0 };
        self.looks >= IDLE_LOOKS
    }
}

#[cfg(test)]
mod tests;
