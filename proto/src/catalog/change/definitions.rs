//! Definitions: the rules for creating, replacing and dropping fields and views.

use std::collections::BTreeMap;

use super::no_collection;
use crate::{
    catalog::{Catalog, CollectionName, Definition, DefinitionId, DefinitionKind, DefinitionVersion},
    limits::{DEFINITION_BYTES_MAX, DEFINITIONS_MAX},
    problem::{Code, Problem},
};

impl Catalog {
    /// Creates a definition or, with `replace`, a new version of it.
    pub(super) fn define(
        &mut self,
        id: &DefinitionId,
        text: &str,
        uses: &[DefinitionId],
        reads: &[CollectionName],
        replace: bool,
    ) -> Result<(), Problem> {
        self.check_definition_limits(id, text)?;
        self.check_references(id, uses, reads)?;
        self.check_acyclic(id, uses)?;
        let version = DefinitionVersion {
            number: self.next_definition_number(id),
            text: text.to_owned(),
            uses: uses.to_vec(),
            reads: reads.to_vec(),
        };
        match self.definitions.get_mut(id) {
            Some(_) if !replace => Err(Problem::new(Code::Conflict, format!("{id} already exists"))
                .hint("use CREATE OR REPLACE to create a new version")),
            Some(definition) => {
                definition.versions.push(version);
                Ok(())
            }
            None => {
                let definition = Definition {
                    versions: vec![version],
                };
                self.definitions.insert(id.clone(), definition);
                Ok(())
            }
        }
    }

    fn check_definition_limits(&self, id: &DefinitionId, text: &str) -> Result<(), Problem> {
        if text.len() > DEFINITION_BYTES_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("{id} has {} bytes; the limit is {DEFINITION_BYTES_MAX}", text.len()),
            ));
        }
        if !self.definitions.contains_key(id) && self.definitions.len() >= DEFINITIONS_MAX {
            return Err(Problem::new(
                Code::LimitReached,
                format!("the limit of {DEFINITIONS_MAX} definitions is reached"),
            )
            .hint("drop definitions that are no longer needed"));
        }
        Ok(())
    }

    /// Checks that everything the definition refers to exists, and that a view does not hide a collection.
    fn check_references(
        &self,
        id: &DefinitionId,
        uses: &[DefinitionId],
        reads: &[CollectionName],
    ) -> Result<(), Problem> {
        let mut collections = id.collection.iter().chain(reads);
        if let Some(missing) = collections.find(|name| !self.collections.contains_key(*name)) {
            return Err(no_collection(missing));
        }
        let is_collection = |name: &str| {
            name.parse::<CollectionName>()
                .is_ok_and(|name| self.collections.contains_key(&name))
        };
        if id.kind == DefinitionKind::View && is_collection(&id.name) {
            return Err(
                Problem::new(Code::Conflict, format!("a collection named {} already exists", id.name))
                    .hint("choose another name for the view"),
            );
        }
        let missing = uses
            .iter()
            .find(|used| !self.definitions.contains_key(used) && *used != id);
        match missing {
            Some(missing) => Err(Problem::new(
                Code::NotFound,
                format!("{id} uses {missing}, which does not exist"),
            )),
            None => Ok(()),
        }
    }

    fn check_acyclic(&self, id: &DefinitionId, uses: &[DefinitionId]) -> Result<(), Problem> {
        let Some(chain) = self.use_chain(uses, id) else {
            return Ok(());
        };
        let names: Vec<String> = chain.iter().map(DefinitionId::to_string).collect();
        let hint = match id.kind {
            DefinitionKind::Field => {
                format!("to reach the stored value of the same name, write _doc->'{}'", id.name)
            }
            DefinitionKind::View => "a view cannot read itself".into(),
        };
        Err(Problem::new(
            Code::Conflict,
            format!("{id} would use itself: {id} -> {}", names.join(" -> ")),
        )
        .hint(hint))
    }

    /// A chain of uses that leads from one of `from` to `to`, if there is one.
    fn use_chain(&self, from: &[DefinitionId], to: &DefinitionId) -> Option<Vec<DefinitionId>> {
        let mut user_of: BTreeMap<&DefinitionId, Option<&DefinitionId>> = from.iter().map(|id| (id, None)).collect();
        let mut open: Vec<&DefinitionId> = user_of.keys().copied().collect();
        while let Some(id) = open.pop() {
            if id == to {
                let mut chain: Vec<DefinitionId> =
                    std::iter::successors(Some(id), |at| user_of.get(at).copied().flatten())
                        .cloned()
                        .collect();
                chain.reverse();
                return Some(chain);
            }
            let uses = self.definitions.get(id).map(|d| &d.current().uses[..]);
            for next in uses.unwrap_or_default() {
                if !user_of.contains_key(next) {
                    user_of.insert(next, Some(id));
                    open.push(next);
                }
            }
        }
        None
    }

    /// The number of the next version; it continues after a drop.
    fn next_definition_number(&self, id: &DefinitionId) -> u32 {
        let current = self.definitions.get(id).map(|d| d.current().number);
        current.or(self.retired.get(id).copied()).unwrap_or(0) + 1
    }

    /// Drops a definition that no other definition uses.
    pub(super) fn undefine(&mut self, id: &DefinitionId, if_exists: bool) -> Result<(), Problem> {
        if !self.definitions.contains_key(id) {
            return if if_exists {
                Ok(())
            } else {
                Err(Problem::new(Code::NotFound, format!("{id} does not exist")))
            };
        }
        let users: Vec<String> = self.dependents(id).map(DefinitionId::to_string).collect();
        if !users.is_empty() {
            return Err(
                Problem::new(Code::InUse, format!("{id} is used by {}", users.join(", ")))
                    .hint("drop or change the definitions that use it first"),
            );
        }
        self.retire(id);
        Ok(())
    }

    /// Removes a definition and keeps its last version number, so that the number is not reused.
    pub(super) fn retire(&mut self, id: &DefinitionId) {
        if let Some(definition) = self.definitions.remove(id) {
            self.retired.insert(id.clone(), definition.current().number);
        }
    }
}
