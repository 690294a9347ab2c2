//! A node as a member of its cluster: it announces itself, so that no other node needs to be told of it.

use std::{sync::Arc, time::Duration};

use futures::future::join_all;
use proto::{
    Code, Problem,
    catalog::Change,
    client::{Peer, nodes, peers::Peers},
    cluster::{Member, NodeName, Role},
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
/// How often absent nodes are looked for, at most and at least.
const LOOK_EVERY: [Duration; 2] = [Duration::from_millis(200), Duration::from_secs(60)];

/// What a node announces of itself.
pub(crate) struct Membership {
    pub name: NodeName,
    pub member: Member,
    pub changes: Arc<dyn Changes>,
    pub replica: Arc<CatalogReplica>,
    pub folder: FolderMark,
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
    /// Another node has taken over the name.
    Displaced(Member),
    Leave(Failure),
}

impl Membership {
    /// Keeps the node a member. Returns why it cannot be one.
    pub(crate) async fn keep(self) -> Failure {
        let mut state = self.replica.state();
        let (mut was_member, mut silent_since, mut told) = (false, None, String::new());
        loop {
            // Nothing is known of members before the change log has been read.
            if state.wait_for(|state| state.cluster.is_some()).await.is_err() {
                return Failure::new("the change log is closed");
            }
            let known = state.borrow_and_update().catalog.members.get(&self.name).cloned();
            match self.next_step(known, was_member, &mut silent_since).await {
                NextStep::Wait => {
                    if !std::mem::replace(&mut was_member, true) {
                        info!(name = %self.name, url = self.member.url, "this node is a member of the cluster");
                    }
                    let _ = state.changed().await;
                }
                NextStep::AskAgain => sleep(RETRY).await,
                NextStep::Leave(failure) => return failure,
                NextStep::Displaced(by) => return self.displaced(&by),
                NextStep::Announce { replaces } => {
                    let change = Change::Announce {
                        name: self.name.clone(),
                        member: self.member.clone(),
                        replaces,
                    };
                    match self.changes.propose(change, None).await {
                        Ok(_) => {}
                        Err(problem) if matches!(problem.code, Code::BadRequest | Code::LimitReached) => {
                            return refused(problem);
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

    async fn next_step(
        &self,
        known: Option<Member>,
        was_member: bool,
        silent_since: &mut Option<(Uuid, Instant)>,
    ) -> NextStep {
        let Some(known) = known else {
            return NextStep::Announce { replaces: None };
        };
        if known == self.member {
            return NextStep::Wait;
        }
        let is_own = known.instance == self.member.instance;
        if was_member && !is_own {
            return NextStep::Displaced(known);
        }
        let is_here = known.url == self.member.url && known.role == self.member.role;
        if is_own && is_here {
            return NextStep::Announce { replaces: None };
        }
        let answers = instance_at(&self.name, &known.url).await == Some(known.instance);
        match (is_own, known.role) {
            (true, _) if answers => NextStep::Leave(
                Failure::new(format!(
                    "a {} at {} runs with a copy of this data folder, also as {}",
                    known.role, known.url, self.name
                ))
                .hint("give this node another --name and an empty --data folder"),
            ),
            (true, _) => NextStep::Announce { replaces: None },
            (false, _) if answers || known.role != self.member.role => NextStep::Leave(self.taken(&known, answers)),
            // At this node's own address the other one cannot be.
            (false, _) if is_here => NextStep::Announce {
                replaces: Some(known.instance),
            },
            (false, Role::Leaf) => NextStep::Leave(self.taken(&known, answers)),
            (false, _) => {
                let since = match *silent_since {
                    Some((instance, since)) if instance == known.instance => since,
                    _ => Instant::now(),
                };
                *silent_since = Some((known.instance, since));
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
    fn displaced(&self, by: &Member) -> Failure {
        let why = format!(
            "another {} at {} has taken the name {} from this node",
            by.role, by.url, self.name
        );
        let failure =
            Failure::new(why.clone()).hint("start this node again with another --name and another --data folder");
        match self.folder.retire(&why) {
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

fn refused(problem: Problem) -> Failure {
    let failure = Failure::new(format!("the cluster does not accept this node: {}", problem.detail));
    match problem.hint {
        Some(hint) => failure.hint(hint),
        None => failure,
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
        let absent = follower.silent().into_iter().filter(|(_, silent)| *silent > kept);
        for (name, _) in absent {
            let Some(member) = known.members.get(&name) else {
                continue;
            };
            let holds_shards = member.role == Role::Leaf && known.shards_on(&name) > 0;
            if holds_shards || is_heard(&peers, &name).await {
                continue;
            }
            let change = Change::RemoveMember {
                name: name.clone(),
                instance: member.instance,
                lost: false,
            };
            match changes.propose(change, None).await {
                Ok(_) => info!(%name, role = %member.role, "a node that did not answer for long was removed"),
                // Another tailer was faster, or the node has just come back or got shards.
                Err(problem) if matches!(problem.code, Code::NotFound | Code::Conflict | Code::InUse) => {}
                Err(problem) => warn!(%name, %problem, "a node that does not answer cannot be removed"),
            }
        }
    }
}

/// Whether a node answers this one after all, or any other that answers this one.
async fn is_heard(peers: &Peers, name: &NodeName) -> bool {
    let of_roles = [Role::Tailer, Role::Leaf, Role::Aggregator].map(|role| peers.of(role));
    let ask = |peer: Peer| async move {
        match nodes::report(&peer).await {
            Ok(_) if peer.name == *name => true,
            Ok(report) => report.silent.is_some_and(|silent| !silent.contains_key(name.as_str())),
            Err(_) => false,
        }
    };
    join_all(of_roles.into_iter().flatten().map(ask)).await.contains(&true)
}
