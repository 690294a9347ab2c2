//! Parses the names that clients send, and reports names that do not exist.

use proto::{Catalog, Code, CollectionName, Problem, SourceName, catalog::Source};

use crate::nearest::nearest;
pub(super) use crate::query::{find_collection, no_collection};

pub(super) fn collection_name(text: &str) -> Result<CollectionName, Problem> {
    Ok(text.parse()?)
}

/// Parses the name of a source. `push` is reserved.
pub(super) fn source_name(text: &str) -> Result<SourceName, Problem> {
    let name: SourceName = text.parse()?;
    match name.is_push() {
        false => Ok(name),
        true => Err(Problem::new(
            Code::BadRequest,
            "the source name push is reserved: every collection has a push source",
        )
        .hint("POST /v1/collections/{c}/documents feeds it; choose another name for a topic")),
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

/// Whether a text is a word, or a word and a version: `top_users`, `top_users@2`, `top_users@prod`.
pub(super) fn is_versioned_name(text: &str) -> bool {
    let is_word = |text: &str| {
        text.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    };
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.split_once('@') {
        None => is_word(text),
        Some((name, version)) => is_word(name) && (is_number(version) || is_word(&version.replace('-', "_"))),
    }
}
