//! The schema that the name resolver sees: the catalog, the kinds of the paths of pinned collections, and the columns
//! of system tables.

use std::{collections::BTreeMap, sync::Arc};

use plan::{PathKinds, Type};
use proto::{Catalog, CollectionName};

use super::{pins::Pins, system};
use crate::sql::SchemaContext;

/// The schema as of one query's read views.
pub(super) struct PinnedSchemaContext {
    catalog: Arc<Catalog>,
    paths: BTreeMap<CollectionName, Arc<PathKinds>>,
}

impl PinnedSchemaContext {
    /// Takes the paths of the pinned collections; other collections have none.
    pub(super) fn new(catalog: Arc<Catalog>, pins: &Pins) -> Self {
        let paths = pins
            .collections
            .iter()
            .map(|collection| (collection.name.clone(), Arc::clone(&collection.paths)))
            .collect();
        Self { catalog, paths }
    }
}

impl SchemaContext for PinnedSchemaContext {
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
