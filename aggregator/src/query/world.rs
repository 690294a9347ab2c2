//! What the resolver is told of the world: the catalog, the kinds of the pinned collections' paths, the system tables'
//! columns.

use std::{collections::BTreeMap, sync::Arc};

use plan::{PathKinds, Type};
use proto::{Catalog, CollectionName};

use super::{pins::Pins, system};
use crate::sql::World;

/// The world at one moment of one query.
pub(super) struct PinnedWorld {
    catalog: Arc<Catalog>,
    paths: BTreeMap<CollectionName, Arc<PathKinds>>,
}

impl PinnedWorld {
    /// The world as far as it is pinned; other collections have no paths in it.
    pub fn new(catalog: Arc<Catalog>, pins: &Pins) -> Self {
        let paths = pins
            .collections
            .iter()
            .map(|collection| (collection.name.clone(), Arc::clone(&collection.paths)))
            .collect();
        Self { catalog, paths }
    }
}

impl World for PinnedWorld {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn paths(&self, collection: &CollectionName) -> Arc<PathKinds> {
        self.paths.get(collection).cloned().unwrap_or_default()
    }

    fn system_table(&self, schema: &str, name: &str) -> Option<Vec<(String, Type)>> {
        let table = system::find(schema, name)?;
        Some(
            table
                .columns
                .iter()
                .map(|(name, column)| ((*name).to_owned(), *column))
                .collect(),
        )
    }
}
