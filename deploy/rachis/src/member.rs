//! How a node joins its cluster: it announces its name and its address in the change log, and stops if another node has the
//! name.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use proto::{
    Catalog, Code,
    catalog::Change,
    client::{Peer, nodes, peers::Peers},
    cluster::{Member, NodeName, Role},
    node::{NodeReport, is_heard},
    tailer::Changes,
};
use tailer::{CatalogReplica, Follower};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tracing::{info, warn};
use uuid::Uuid;

use crate::{client::Failure, data_folder::FolderMark};

/// How long a tailer or an aggregator must not answer before another process may take over its name.
const SILENT_FOR: Duration = Duration::from_secs(10);
const RETRY: Duration = Duration::from_secs(1);
/// How often a node announces its address again after its own data folder was announced elsewhere. One such announcement
/// may be an old one of this node that reached the log late; several are another process with a copy of the folder.
const REANNOUNCED_MAX: u32 = 3;
/// How often absent nodes are looked for, at most and at least.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(60)];

/// What a node announces of itself.
pub(crate) struct Membership {
    pub name: NodeName,
    pub member: Member,
    pub changes: Arc<dyn Changes>,
    pub replica: Arc<CatalogReplica>,
    pub folder: FolderMark,
    /// Whether it has a snapshot store.
    pub has_snapshots: bool,
}

/// What the node remembers between two looks at the catalog.
#[derive(Default)]
struct Past {
    /// Which log the node was a member in, by how often the log had been restored.
    member_in: Option<u32>,
    /// Since when the other node that has the name has not answered, and its data folder.
    silent_since: Option<(Uuid, Instant)>,
    /// How often the node has announced its address again.
    reannounced: u32,
}

/// What follows from what the catalog says about the node's name.
enum NextStep {
    /// The node is a member as it should be.
    Wait,
    Announce {
        replaces: Option<Uuid>,
    },
    /// Ask again whether the other node that has the name answers.
    AskAgain,
    /// Another node has taken over the name; the reason.
    Displaced(String),
    Leave(Failure),
}

impl Membership {
    /// Keeps the node a member. Returns why it cannot be one.
    pub(crate) async fn keep(self) -> Failure {
        let mut state = self.replica.state();
        let (mut past, mut told) = (Past::default(), String::new());
        loop {
            // Nothing is known of members before the change log has been read.
            if state.wait_for(|state| state.cluster.is_some()).await.is_err() {
                return Failure::new("the change log is closed");
            }
            let (known, log) = {
                let state = state.borrow_and_update();
                (state.catalog.members.get(&self.name).cloned(), state.restored)
            };
            // What this node's name had before with another data folder, this one does not have.
            let is_new = known
                .as_ref()
                .is_none_or(|known| known.instance != self.member.instance);
            match self.next_step(known, log, &mut past).await {
                NextStep::Wait => {
                    if past.member_in.replace(log) != Some(log) {
                        info!(name = %self.name, url = self.member.url, "this node is a member of the cluster");
                    }
                    let _ = state.changed().await;
                }
                NextStep::AskAgain => sleep(RETRY).await,
                NextStep::Leave(failure) => return failure,
                NextStep::Displaced(why) => return self.displaced(&why),
                NextStep::Announce { replaces } => {
                    let change = Change::Announce {
                        name: self.name.clone(),
                        member: self.member.clone(),
                        replaces,
                        from_snapshots: is_new && self.has_snapshots && self.holds_shards(),
                    };
                    match self.changes.propose(change, None).await {
                        Ok(_) => {}
                        Err(problem) if matches!(problem.code, Code::BadRequest | Code::LimitReached) => {
                            return Failure::from(problem).within("the cluster does not accept this node");
                        }
                        Err(problem) => {
                            let why = problem.to_string();
                            if told != why {
                                warn!(why, "this node is not a member of the cluster yet; it tries again");
                                told = why;
                            }
                            sleep(RETRY).await;
                        }
                    }
                }
            }
        }
    }

    /// Whether shards are placed on it. Any of them may be lost by the time the announcement is accepted: other leaves may
    /// have lost their disks, too.
    fn holds_shards(&self) -> bool {
        self.replica.state().borrow().catalog.shards_on(&self.name) > 0
    }

    async fn next_step(&self, known: Option<Member>, log: u32, past: &mut Past) -> NextStep {
        let Some(known) = known else {
            return NextStep::Announce { replaces: None };
        };
        if known == self.member {
            return NextStep::Wait;
        }
        let is_own = known.instance == self.member.instance;
        // A log that was restored from an older copy may name an earlier node.
        let was_member = past.member_in == Some(log);
        if was_member && !is_own {
            return NextStep::Displaced(format!(
                "another {} at {} has taken the name {} from this node",
                known.role, known.url, self.name
            ));
        }
        let is_here = known.url == self.member.url && known.role == self.member.role;
        if is_own && is_here {
            return NextStep::Announce { replaces: None };
        }
        let answers = instance_at(&self.name, &known.url).await == Some(known.instance);
        let is_copied = || {
            format!(
                "a {} at {} runs with a copy of this data folder, also as {}",
                known.role, known.url, self.name
            )
        };
        match (is_own, known.role) {
            (true, _) if answers => NextStep::Leave(
                Failure::new(is_copied()).hint("give this node another --name and an empty --data folder"),
            ),
            (true, _) if was_member && past.reannounced == REANNOUNCED_MAX => NextStep::Displaced(is_copied()),
            (true, _) => {
                past.reannounced += u32::from(was_member);
                NextStep::Announce { replaces: None }
            }
            (false, _) if answers || known.role != self.member.role => NextStep::Leave(self.taken(&known, answers)),
            // At this node's own address the other one cannot be.
            (false, _) if is_here => NextStep::Announce {
                replaces: Some(known.instance),
            },
            (false, Role::Leaf) => NextStep::Leave(self.taken(&known, answers)),
            (false, _) => {
                let since = match past.silent_since {
                    Some((instance, since)) if instance == known.instance => since,
                    _ => Instant::now(),
                };
                past.silent_since = Some((known.instance, since));
                match since.elapsed() < SILENT_FOR {
                    true => NextStep::AskAgain,
                    false => NextStep::Announce {
                        replaces: Some(known.instance),
                    },
                }
            }
        }
    }

    /// The node stays out, also after a restart: two nodes that cannot reach each other must not take turns.
    fn displaced(&self, why: &str) -> Failure {
        let failure = Failure::new(why).hint("start this node again with another --name and another --data folder");
        match self.folder.retire(why) {
            Ok(()) => failure,
            Err(error) => failure.within(&format!("the data folder could not be marked ({error})")),
        }
    }

    fn taken(&self, known: &Member, answers: bool) -> Failure {
        let (role, url, name) = (known.role, &known.url, &self.name);
        let hint = match (answers, known.role) {
            (true, _) => "choose another --name".to_owned(),
            (false, Role::Leaf) => format!(
                "choose another --name; or start that leaf again; or, if its disk is lost, remove it with `rachis \
                 cluster remove {name} --lost`"
            ),
            (false, _) => format!("choose another --name, or remove that node with `rachis cluster remove {name}`"),
        };
        Failure::new(format!(
            "the name {name} is taken by the {role} at {url}, which has another data folder"
        ))
        .hint(hint)
    }
}

/// The data folder of the node that answers at a URL.
async fn instance_at(name: &NodeName, url: &str) -> Option<Uuid> {
    let peer = Peer::new(name.clone(), url, watch::channel(Arc::default()).1).ok()?;
    nodes::report(&peer).await.ok()?.instance
}

/// Removes nodes that hold nothing and have not answered for `kept` from the cluster: they join again by themselves. Never
/// ends.
pub(crate) async fn remove_absent(follower: Arc<Follower>, changes: Arc<dyn Changes>, kept: Duration) {
    let catalog = changes.catalog();
    let peers = Peers::of_any_version(catalog.clone());
    loop {
        sleep((kept / 10).clamp(LOOK_EVERY[0], LOOK_EVERY[1])).await;
        let known = catalog.borrow().clone();
        let absent = |(name, silent): (NodeName, Duration)| {
            let member = known.members.get(&name).filter(|_| silent > kept)?;
            (!is_needed(&known, &name, member)).then_some((name, member.instance))
        };
        let absent: Vec<(NodeName, Uuid)> = follower.silent().into_iter().filter_map(absent).collect();
        if absent.is_empty() {
            continue;
        }
        let reports = reports(&peers).await;
        for (name, instance) in absent.into_iter().filter(|(name, _)| !is_heard(&reports, name)) {
            let change = Change::RemoveMember {
                name: name.clone(),
                instance,
                lost: false,
                from_snapshots: false,
            };
            match changes.propose(change, None).await {
                Ok(_) => info!(%name, "a node that did not answer for long was removed"),
                // Another tailer was faster, or the node has just come back or got shards.
                Err(problem) if matches!(problem.code, Code::NotFound | Code::Conflict | Code::InUse) => {}
                Err(problem) => warn!(%name, %problem, "a node that does not answer cannot be removed"),
            }
        }
    }
}

/// Whether a member stays although it is absent: a leaf that holds shards, and one whose replicas were replaced. When that
/// one comes back, it removes the files of each shard that the catalog says has left it; removing the member would erase
/// that. A leaf that was drained is to be gone for good: if it was stopped before it removed its files, its operator does.
fn is_needed(catalog: &Catalog, name: &NodeName, member: &Member) -> bool {
    let was_replaced = || {
        let mut left = catalog.collections.values().flat_map(|of| of.left.values());
        !catalog.draining.contains(name) && left.any(|leaves| leaves.contains_key(name))
    };
    member.role == Role::Leaf && (catalog.shards_on(name) > 0 || was_replaced())
}

/// What the members that answer report.
async fn reports(peers: &Peers) -> Vec<(NodeName, NodeReport)> {
    let of_roles = [Role::Tailer, Role::Leaf, Role::Aggregator].map(|role| peers.of(role));
    let ask = |peer: Peer| async move { Some((peer.name.clone(), nodes::report(&peer).await.ok()?)) };
    let reports = join_all(of_roles.into_iter().flatten().map(ask)).await;
    reports.into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use proto::catalog::{ChangeRecord, CollectionSettings};

    use super::*;

    #[test]
    fn an_absent_leaf_is_removed_unless_it_holds_shards_or_has_files_of_shards_that_were_replaced() {
        let name = |text: &str| -> NodeName { text.parse().expect("a name") };
        let member = |role| Member::new(role, "http://10.0.0.1:7700".to_owned(), Uuid::nil());
        let (leaf, aggregator) = (member(Role::Leaf), member(Role::Aggregator));
        let record = ChangeRecord {
            uid: Uuid::from_u128(1),
            level: proto::catalog::CATALOG_RULES_LEVEL,
            expected: None,
            change: Change::CreateCollection {
                name: "events".parse().expect("a name"),
                settings: CollectionSettings::default(),
                placement: vec![vec![name("leaf-1")]],
            },
        };
        let (mut catalog, created) = Catalog::default().apply(&record);
        created.expect("a collection");
        let collection = catalog.collections.values_mut().next().expect("it");
        collection
            .left
            .entry(0)
            .or_default()
            .extend([(name("leaf-2"), 1), (name("leaf-3"), 1)]);
        catalog.draining.insert(name("leaf-3"));
        for (absent, member, stays) in [
            ("leaf-1", &leaf, true),
            ("leaf-2", &leaf, true),
            ("leaf-3", &leaf, false),
            ("leaf-4", &leaf, false),
            ("aggregator-1", &aggregator, false),
        ] {
            assert_eq!(is_needed(&catalog, &name(absent), member), stays, "{absent}");
        }
    }
}
