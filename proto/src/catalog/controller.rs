//! The controller: the aggregator that replaces lost replicas.

use serde::{Deserialize, Serialize};

use crate::cluster::NodeName;

/// Which aggregator replaces lost replicas. Another one takes over with the next epoch; what the former one still asks for
/// is refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Controller {
    /// The number of its term; 0 before the first one.
    pub epoch: u64,
    /// Its name; none before the first one, and once it has been removed from the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<NodeName>,
    /// Whether an operator holds all replacements.
    #[serde(default, skip_serializing_if = "super::collection::is_false")]
    pub held: bool,
}

impl Controller {
    /// Whether there has been none yet.
    pub(super) fn is_unset(&self) -> bool {
        *self == Self::default()
    }
}
