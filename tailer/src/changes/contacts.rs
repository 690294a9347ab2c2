//! Which members this node hears from.

use std::{collections::BTreeMap, time::Instant};

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
    /// Since when it has not answered; none while it does.
    away_since: Option<Instant>,
}

impl Contacts {
    /// Notes that a member answers.
    pub(super) fn heard(&self, name: &NodeName, role: Role) {
        self.note(name, role, None);
    }

    /// Notes that a member does not answer, or has not yet.
    pub(super) fn lost(&self, name: &NodeName, role: Role) {
        let known = self.members.lock().get(name).and_then(|contact| contact.away_since);
        self.note(name, role, Some(known.unwrap_or_else(Instant::now)));
    }

    fn note(&self, name: &NodeName, role: Role, away_since: Option<Instant>) {
        self.members.lock().insert(name.clone(), Contact { role, away_since });
    }

    /// Notes that a node is no member any more.
    pub(super) fn forget(&self, name: &NodeName) {
        self.members.lock().remove(name);
    }

    /// Whether a node of this role answers.
    pub(super) fn has(&self, role: Role) -> bool {
        let members = self.members.lock();
        members
            .values()
            .any(|contact| contact.role == role && contact.away_since.is_none())
    }

    /// Since when a member has not answered, if it does not.
    pub(super) fn away_since(&self, name: &NodeName) -> Option<Instant> {
        self.members.lock().get(name)?.away_since
    }
}
