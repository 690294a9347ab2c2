//! Parses the names that clients send, and reports names that do not exist.

use proto::{
    Catalog, Code, CollectionName, Problem, SourceName,
    catalog::{LATEST, Source, VersionRef, is_plain_name, reserved_source},
};

pub(super) use crate::query::{find_collection, no_collection};
use plan::nearest::nearest;

pub(super) fn collection_name(text: &str) -> Result<CollectionName, Problem> {
    Ok(text.parse()?)
}

/// Parses the name of a source of a user.
pub(super) fn source_name(text: &str) -> Result<SourceName, Problem> {
    let name: SourceName = text.parse()?;
    match name.is_own() {
        false => Ok(name),
        true => Err(reserved_source(&name)),
    }
}

/// A source by its name.
pub(super) fn find_source<'a>(catalog: &'a Catalog, name: &SourceName) -> Result<&'a Source, Problem> {
    catalog.sources.get(name).ok_or_else(|| no_source(name, catalog))
}

/// The problem of an unknown source. The hint suggests the most similar name.
fn no_source(name: &SourceName, catalog: &Catalog) -> Problem {
    let near = nearest(name.as_str(), catalog.sources.keys().map(SourceName::as_str));
    let hint = near.map_or_else(
        || "GET /v1/sources lists all sources".to_owned(),
        |near| format!("did you mean {near}?"),
    );
    Problem::new(Code::NotFound, format!("source {name} does not exist")).hint(hint)
}

/// Whether a text is a plain name, or a plain name and a version: `top_users`, `top_users@2`, `top_users@prod`.
pub(super) fn is_versioned_name(text: &str) -> bool {
    let (name, version) = text.split_once('@').unwrap_or((text, LATEST));
    is_plain_name(&name.to_ascii_lowercase()) && VersionRef::parse(version).is_ok()
}
