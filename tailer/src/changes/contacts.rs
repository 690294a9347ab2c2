//! Which members this node hears from.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proto::cluster::{NodeName, Role};

/// Whether each member that this node follows answers.
#[derive(Debug, Default)]
pub(super) struct Contacts {
    members: Mutex<BTreeMap<NodeName, Contact>>,
}

#[derive(Debug)]
struct Contact {
    role: Role,
    /// Which following of the member this is: an earlier one, which is about to end, says nothing any more.
    following: u64,
    /// Since when it has not answered; none while it does.
    away_since: Option<Instant>,
}

impl Contacts {
    /// Begins to follow a member, which has not answered yet.
    pub(super) fn follow(&self, name: &NodeName, role: Role, following: u64) {
        let contact = Contact {
            role,
            following,
            away_since: Some(Instant::now()),
        };
        self.members.lock().insert(name.clone(), contact);
    }

    /// Notes whether a member answers.
    pub(super) fn note(&self, name: &NodeName, following: u64, answers: bool) {
        let mut members = self.members.lock();
        if let Some(contact) = members.get_mut(name).filter(|contact| contact.following == following) {
            let since = contact.away_since.unwrap_or_else(Instant::now);
            contact.away_since = (!answers).then_some(since);
        }
    }

    /// Notes that a node is no member any more.
    pub(super) fn forget(&self, name: &NodeName) {
        self.members.lock().remove(name);
    }

    /// Whether a node of this role answers.
    pub(super) fn has(&self, role: Role) -> bool {
        let members = self.members.lock();
        let mut of_role = members.values().filter(|contact| contact.role == role);
        of_role.any(|contact| contact.away_since.is_none())
    }

    /// For how long each member that does not answer has not answered.
    pub(super) fn silent(&self) -> BTreeMap<NodeName, Duration> {
        let members = self.members.lock();
        let silent = |(name, contact): (&NodeName, &Contact)| Some((name.clone(), contact.away_since?.elapsed()));
        members.iter().filter_map(silent).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_following_that_has_ended_says_nothing_of_the_member() {
        let (contacts, name): (_, NodeName) = (Contacts::default(), "tailer-1".parse().expect("a name"));
        contacts.follow(&name, Role::Tailer, 1);
        assert!(!contacts.has(Role::Tailer) && contacts.silent().contains_key(&name));
        contacts.note(&name, 1, true);
        assert!(contacts.has(Role::Tailer) && !contacts.has(Role::Leaf) && contacts.silent().is_empty());
        // It moves, and the old following still notes what it heard.
        contacts.follow(&name, Role::Tailer, 2);
        contacts.note(&name, 1, true);
        assert!(!contacts.has(Role::Tailer));
        contacts.note(&name, 2, true);
        contacts.note(&name, 1, false);
        assert!(contacts.has(Role::Tailer));
        contacts.forget(&name);
        contacts.note(&name, 2, true);
        assert!(!contacts.has(Role::Tailer));
    }
}
