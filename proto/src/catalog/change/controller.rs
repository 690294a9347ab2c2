//! Changes of the controller, and by it.

use uuid::Uuid;

use super::{super::Catalog, AddedReplica, RetiredReplica};
use crate::{
    cluster::{NodeName, Role},
    problem::{Code, Problem},
};

impl Catalog {
    /// Makes a node the controller. Of several that ask for an epoch, the first one gets it.
    pub(super) fn take_control(&mut self, node: &NodeName, instance: Uuid, epoch: u64) -> Result<(), Problem> {
        self.check_instance(node, instance)?;
        if self
            .members
            .get(node)
            .is_none_or(|member| member.role != Role::Aggregator)
        {
            let detail = format!("{node} cannot be the controller: it is no aggregator");
            return Err(Problem::new(Code::BadRequest, detail));
        }
        if epoch != self.controller.epoch + 1 {
            return Err(self.another_epoch(epoch));
        }
        self.controller.epoch = epoch;
        self.controller.node = Some(node.clone());
        Ok(())
    }

    pub(super) fn hold_replacements(&mut self, held: bool) -> Result<(), Problem> {
        self.controller.held = held;
        Ok(())
    }

    pub(super) fn replace_replicas(
        &mut self,
        epoch: u64,
        retired: &[RetiredReplica],
        added: &[AddedReplica],
    ) -> Result<(), Problem> {
        if epoch != self.controller.epoch {
            return Err(self.another_epoch(epoch));
        }
        if self.controller.held {
            return Err(Problem::new(Code::Conflict, "replacements are held")
                .hint("`rachis cluster hold --release` lets them go on"));
        }
        // What does not apply any more is left out, of one kind as of the other.
        let retired = self.retire_replicas(retired);
        let added = self.add_replicas(added);
        retired.or(added)
    }

    fn another_epoch(&self, epoch: u64) -> Problem {
        let detail = format!(
            "epoch {epoch} of the controller is not the one: the last was {}",
            self.controller.epoch
        );
        Problem::new(Code::Conflict, detail).hint("another aggregator has become the controller")
    }
}

#[cfg(test)]
mod tests;
