//! What the resolver needs to know of the collections that a statement reads.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use plan::{PathKinds, Type};
use proto::{Catalog, CollectionName};

/// The catalog and schema information that the resolver needs.
pub(crate) trait SchemaContext {
    /// The catalog.
    fn catalog(&self) -> &Catalog;
    /// The time that `now` means in searches.
    fn now(&self) -> DateTime<Utc>;
    /// The kinds of a collection's paths.
    fn paths(&self, collection: &CollectionName) -> Arc<PathKinds>;
    /// The columns of a system table, or `None` if there is no table of this name.
    fn system_table(&self, schema: &str, name: &str) -> Option<Vec<(String, Type)>>;
}
