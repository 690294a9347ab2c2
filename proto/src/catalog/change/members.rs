//! Changes of the members of the cluster.

use uuid::Uuid;

use super::{super::Catalog, REPLICAS_LEVEL};
use crate::{
    cluster::{Member, NodeName, Role},
    limits::MEMBERS_MAX,
    problem::{Code, Problem},
};

impl Catalog {
    /// Adds a node, or changes what it has announced. Another data folder takes a name over only if it names the one
    /// that has it.
    pub(super) fn announce(
        &mut self,
        level: u16,
        name: &NodeName,
        member: &Member,
        replaces: Option<Uuid>,
        from_snapshots: bool,
    ) -> Result<(), Problem> {
        if let Some(fault) = member.fault() {
            return Err(Problem::new(
                Code::BadRequest,
                format!("node {name} cannot be a member: {fault}"),
            ));
        }
        match self.members.get(name) {
            Some(known) if known.role != member.role => return Err(taken(name, known)),
            Some(known) if known.instance != member.instance && replaces != Some(known.instance) => {
                return Err(taken(name, known));
            }
            None if self.members.len() >= MEMBERS_MAX => {
                return Err(Problem::new(
                    Code::LimitReached,
                    format!("the cluster has reached the limit of {MEMBERS_MAX} nodes"),
                )
                .hint("remove nodes that no longer exist: `rachis cluster remove NAME`"));
            }
            _ => {}
        }
        let known = self.members.insert(name.clone(), member.clone());
        if level >= REPLICAS_LEVEL && known.is_none_or(|known| known.instance != member.instance) {
            self.lose_replicas(name, from_snapshots);
        }
        Ok(())
    }

    /// Removes a node with this data folder. A leaf that holds shards stays, unless its disk is lost: a new leaf of its
    /// name then fills them again.
    pub(super) fn remove_member(
        &mut self,
        level: u16,
        name: &NodeName,
        instance: Uuid,
        lost: bool,
        from_snapshots: bool,
    ) -> Result<(), Problem> {
        let Some(known) = self.members.get(name) else {
            return Err(Problem::new(Code::NotFound, format!("the cluster has no node {name}"))
                .hint("`rachis cluster status` lists its nodes"));
        };
        if known.instance != instance {
            return Err(Problem::new(
                Code::Conflict,
                format!("another {} has taken the name {name} in the meantime", known.role),
            )
            .hint("`rachis cluster status` shows where it runs"));
        }
        let held = self.shards_on(name);
        if known.role == Role::Leaf && held > 0 && !lost {
            let shards = if held == 1 {
                "1 shard".to_owned()
            } else {
                format!("{held} shards")
            };
            return Err(
                Problem::new(Code::InUse, format!("leaf {name} cannot be removed: it holds {shards}")).hint(format!(
                    "`rachis cluster drain {name}` moves them to other leaves; if its disk is lost, `rachis cluster \
                     remove {name} --lost` removes it, and a new leaf of that name fills its shards again"
                )),
            );
        }
        self.members.remove(name);
        self.draining.remove(name);
        self.controller.node.take_if(|node| node == name);
        for collection in self.collections.values_mut() {
            (0..collection.settings.shards).for_each(|shard| collection.forget_left(shard, name));
        }
        if level >= REPLICAS_LEVEL {
            self.lose_replicas(name, from_snapshots);
        }
        Ok(())
    }

    /// How many shards a leaf holds.
    pub fn shards_on(&self, leaf: &NodeName) -> usize {
        let placements = self.collections.values().flat_map(|collection| &collection.placement);
        placements.filter(|replicas| replicas.contains(leaf)).count()
    }
}

fn taken(name: &NodeName, known: &Member) -> Problem {
    Problem::new(
        Code::Conflict,
        format!(
            "the name {name} is taken by the {} at {}, which has another data folder",
            known.role, known.url
        ),
    )
    .hint(format!(
        "choose another --name; if that node no longer exists, remove it with `rachis cluster remove {name}`"
    ))
}

#[cfg(test)]
mod tests;
