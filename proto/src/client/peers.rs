//! Connections to the other members of the cluster, as the catalog lists them.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::Peer;
use crate::{
    catalog::Catalog,
    cluster::{Member, NodeName, Role},
    problem::{Code, Problem},
};

/// Connections to the members. A node that joins or moves is reached as soon as the catalog says so. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Peers {
    catalog: watch::Receiver<Arc<Catalog>>,
    /// The catalog whose version requests carry.
    versions: watch::Receiver<Arc<Catalog>>,
    /// By name, with what the catalog said of each.
    connected: Arc<Mutex<BTreeMap<NodeName, (Member, Peer)>>>,
}

impl Peers {
    /// Connections whose requests carry the catalog version of this process: the other node waits until it has it.
    pub fn new(catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self {
            versions: catalog.clone(),
            catalog,
            connected: Arc::default(),
        }
    }

    /// Connections for requests that are about the nodes themselves: they wait for no catalog.
    pub fn of_any_version(catalog: watch::Receiver<Arc<Catalog>>) -> Self {
        Self {
            versions: watch::channel(Arc::default()).1,
            ..Self::new(catalog)
        }
    }

    /// The catalog, now and as it changes.
    pub fn catalog(&self) -> &watch::Receiver<Arc<Catalog>> {
        &self.catalog
    }

    /// A member by its name. Must be called within a tokio runtime.
    pub fn named(&self, name: &NodeName) -> Result<Peer, Problem> {
        let catalog = self.catalog.borrow().clone();
        let member = catalog.members.get(name).ok_or_else(|| {
            Problem::new(Code::Unavailable, format!("{name} is not a member of the cluster"))
                .hint("start it: a node joins by itself; `rachis cluster status` lists the members")
        })?;
        self.connect(name, member)
    }

    /// The members of a role, ordered by name. Must be called within a tokio runtime.
    pub fn of(&self, role: Role) -> Vec<Peer> {
        let catalog = self.catalog.borrow().clone();
        let members = catalog.members_of(role);
        // The catalog accepts no URL to which no connection can be made.
        members
            .filter_map(|(name, member)| self.connect(name, member).ok())
            .collect()
    }

    /// A connection that is kept until the node moves or leaves. No other node at its address answers it.
    fn connect(&self, name: &NodeName, member: &Member) -> Result<Peer, Problem> {
        let mut connected = self.connected.lock();
        if let Some((known, peer)) = connected.get(name)
            && (&known.url, known.instance) == (&member.url, member.instance)
        {
            return Ok(peer.clone());
        }
        let peer = Peer::new(name.clone(), &member.url, self.versions.clone())?.of_instance(member.instance);
        let catalog = self.catalog.borrow().clone();
        connected.retain(|name, _| catalog.members.contains_key(name));
        connected.insert(name.clone(), (member.clone(), peer.clone()));
        Ok(peer)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[tokio::test]
    async fn connections_follow_the_members_of_the_catalog() {
        let (sender, receiver) = watch::channel(Arc::<Catalog>::default());
        let peers = Peers::new(receiver);
        let leaf: NodeName = "leaf-1".parse().expect("a name");
        let join = |url: &str| {
            let mut catalog = (**sender.borrow()).clone();
            let member = Member::new(Role::Leaf, url, Uuid::nil());
            catalog.members.insert(leaf.clone(), member);
            sender.send_replace(Arc::new(catalog));
        };
        assert_eq!(
            peers.named(&leaf).map_err(|problem| problem.code).err(),
            Some(Code::Unavailable)
        );
        join("http://leaf-1.example:7700");
        assert_eq!(peers.named(&leaf).expect("a member").name, leaf);
        assert_eq!((peers.of(Role::Leaf).len(), peers.of(Role::Tailer).len()), (1, 0));
        join("http://leaf-1.elsewhere:7700");
        peers.named(&leaf).expect("a member");
        assert_eq!(peers.connected.lock()[&leaf].0.url, "http://leaf-1.elsewhere:7700");
        sender.send_replace(Arc::default());
        assert!(peers.named(&leaf).is_err() && peers.of(Role::Leaf).is_empty());
    }
}
