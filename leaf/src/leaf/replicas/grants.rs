//! Which grants this leaf holds and which it has given, and what each of its replicas must have before it answers.
//!
//! Pure: time comes in as an argument. It is that of [`since_boot`](proto::clock::since_boot), which also runs while the
//! machine is suspended.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use parking_lot::Mutex;
use proto::{
    PositionVector,
    cluster::NodeName,
    ingest::ShardId,
    replica::{GRANT_USED_FOR, GRANTED_FOR},
};

/// The grants of a leaf.
#[derive(Debug)]
pub(in crate::leaf) struct Grants(Mutex<State>);

#[derive(Debug)]
struct State {
    /// When this leaf started. What it granted before is not known any more.
    started: Duration,
    /// When this process has first seen that it is the member of its name: until then, another one may have been granted
    /// something.
    member_since: Option<Duration>,
    /// Until when each other leaf lets this one answer.
    held: HashMap<NodeName, Duration>,
    /// What this leaf has granted others that may still be used.
    given: HashMap<NodeName, VecDeque<Given>>,
    /// What each replica must have of what another leaf had.
    floors: HashMap<(ShardId, NodeName), Floor>,
}

/// A grant that was given to a leaf.
#[derive(Debug, Clone, Copy)]
struct Given {
    /// The catalog version of that leaf. It uses the grant with this version or a later one.
    version: u64,
    until: Duration,
}

/// What a replica must have before it answers: what another one had when it was asked.
#[derive(Debug, Clone)]
pub(super) struct Floor {
    /// The catalog version that the other leaf had, or an earlier one.
    pub version: u64,
    /// When it was asked.
    pub asked: Duration,
    /// What it had; `None` once this replica has it, too.
    pub positions: Option<PositionVector>,
}

impl Grants {
    /// No grants. What the process before this one has granted may still be used.
    pub(in crate::leaf) fn new(started: Duration) -> Self {
        Self(Mutex::new(State {
            started,
            member_since: None,
            held: HashMap::new(),
            given: HashMap::new(),
            floors: HashMap::new(),
        }))
    }

    /// As if the leaf had started then.
    #[cfg(test)]
    pub(super) fn start_at(&self, started: Duration) {
        self.0.lock().started = started;
    }

    /// Notes that this process is the member of its name.
    pub(super) fn note_member(&self, now: Duration) {
        self.0.lock().member_since.get_or_insert(now);
    }

    /// How long a grant to the process before this one may still be used.
    pub(super) fn earlier_end_in(&self, now: Duration) -> Duration {
        let since = self.0.lock().member_since;
        since.map_or(GRANTED_FOR, |since| (since + GRANTED_FOR).saturating_sub(now))
    }

    /// Notes that a leaf has granted a call that was sent at this time.
    pub(super) fn hold(&self, from: &NodeName, sent: Duration) {
        self.0.lock().held.insert(from.clone(), sent + GRANT_USED_FOR);
    }

    /// Whether this leaf holds a grant of that one.
    pub(super) fn is_held(&self, from: &NodeName, now: Duration) -> bool {
        self.0.lock().held.get(from).is_some_and(|until| now < *until)
    }

    /// Whether that leaf has ever granted something.
    pub(super) fn was_held(&self, from: &NodeName) -> bool {
        self.0.lock().held.contains_key(from)
    }

    /// Grants something to a leaf with a catalog of this version.
    pub(super) fn give(&self, to: &NodeName, version: u64, now: Duration) {
        let mut state = self.0.lock();
        state.given.retain(|_, given| {
            given.retain(|given| now < given.until);
            !given.is_empty()
        });
        let given = state.given.entry(to.clone()).or_default();
        // Of grants with the same version, the last one counts.
        given.retain(|given| given.version != version);
        given.push_back(Given {
            version,
            until: now + GRANTED_FOR,
        });
    }

    /// Whether a leaf may use a grant of this one with a catalog of an earlier version than this.
    pub(super) fn is_given_before(&self, to: &NodeName, version: u64, now: Duration) -> bool {
        let state = self.0.lock();
        if now < state.started + GRANTED_FOR {
            return true;
        }
        let given = state.given.get(to).into_iter().flatten();
        given
            .into_iter()
            .any(|given| now < given.until && given.version < version)
    }

    /// What a replica must have of what a leaf had.
    pub(super) fn floor(&self, shard: ShardId, of: &NodeName) -> Option<Floor> {
        self.0.lock().floors.get(&(shard, of.clone())).cloned()
    }

    /// Whether it is known what a replica must have of what a leaf had.
    pub(super) fn has_floor(&self, shard: ShardId, of: &NodeName) -> bool {
        self.0.lock().floors.contains_key(&(shard, of.clone()))
    }

    /// Sets what a replica must have of what a leaf had.
    pub(super) fn set_floor(&self, shard: ShardId, of: &NodeName, floor: Floor) {
        self.0.lock().floors.insert((shard, of.clone()), floor);
    }

    /// Notes that a replica has what it must have by this floor.
    pub(super) fn reach_floor(&self, shard: ShardId, of: &NodeName, version: u64) {
        if let Some(floor) = self.0.lock().floors.get_mut(&(shard, of.clone()))
            && floor.version == version
        {
            floor.positions = None;
        }
    }

    /// Forgets the floors of other shards and leaves than these.
    pub(super) fn retain_floors(&self, is_needed: impl Fn(ShardId, &NodeName) -> bool) {
        self.0.lock().floors.retain(|(shard, of), _| is_needed(*shard, of));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaf(number: u32) -> NodeName {
        format!("leaf-{number}").parse().expect("a name")
    }

    #[test]
    fn a_grant_is_used_for_a_shorter_time_than_it_is_taken_into_account() {
        let (holder, giver) = (Grants::new(Duration::ZERO), Grants::new(Duration::ZERO));
        let second = Duration::from_secs(1);
        // The call is on its way for a second.
        giver.give(&leaf(1), 7, 11 * second);
        holder.hold(&leaf(2), 10 * second);
        let used = |at| holder.is_held(&leaf(2), at);
        let counted = |at| giver.is_given_before(&leaf(1), 8, at);
        assert!(used(14 * second) && !used(15 * second));
        assert!(counted(15 * second) && !counted(16 * second));
        assert!(!holder.is_held(&leaf(3), 11 * second) && !giver.is_given_before(&leaf(3), 8, 11 * second));
    }

    #[test]
    fn a_grant_to_a_leaf_that_knows_it_is_behind_does_not_count() {
        let giver = Grants::new(Duration::ZERO);
        let second = Duration::from_secs(1);
        giver.give(&leaf(1), 7, 11 * second);
        giver.give(&leaf(1), 9, 12 * second);
        assert!(giver.is_given_before(&leaf(1), 8, 13 * second));
        assert!(
            !giver.is_given_before(&leaf(1), 8, 16 * second),
            "the later one was given to a leaf that knows version 8"
        );
        assert!(giver.is_given_before(&leaf(1), 10, 16 * second));
    }

    #[test]
    fn after_a_start_every_leaf_may_have_a_grant_of_the_process_before() {
        let second = Duration::from_secs(1);
        let giver = Grants::new(100 * second);
        assert!(giver.is_given_before(&leaf(1), 8, 104 * second));
        assert!(!giver.is_given_before(&leaf(1), 8, 105 * second));
    }
}
