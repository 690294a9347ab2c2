//! Finds a collection by its name, and explains why a name refers to no collection.

use proto::{Catalog, Code, CollectionName, Problem, catalog::Collection};

use plan::nearest::nearest;

/// A collection by its name.
pub(crate) fn find_collection<'a>(catalog: &'a Catalog, name: &CollectionName) -> Result<&'a Collection, Problem> {
    catalog
        .collections
        .get(name)
        .ok_or_else(|| no_collection(name, catalog))
}

/// The error of a name that is not a collection. Its hint suggests a similar name or, for a view, what to do instead.
pub(crate) fn no_collection(name: &CollectionName, catalog: &Catalog) -> Problem {
    let similar = || nearest(name.as_str(), catalog.collections.keys().map(CollectionName::as_str));
    let hint = match catalog.view(name.as_str()) {
        Some(_) => format!("{name} is a view: query it with SQL or search it"),
        None => similar().map_or_else(
            || {
                "GET /v1/collections or SHOW TABLES lists all collections; a push or a new source creates one"
                    .to_owned()
            },
            |near| format!("did you mean {near}?"),
        ),
    };
    Problem::new(Code::NotFound, format!("collection {name} does not exist")).hint(hint)
}
