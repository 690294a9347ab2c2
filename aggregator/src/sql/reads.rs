//! Finds the collections that a query reads. This happens before anything is resolved: their shards are opened first,
//! and the read views provide the kinds of paths.

use std::{collections::BTreeSet, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{Expr, Query};
use front::{Node, Root, walk};
use plan::{
    functions::registry::{self, Property},
    nearest::nearest,
};
use proto::{
    Catalog, Code, CollectionName, Problem,
    catalog::{DefinitionId, DefinitionKind, VersionRef},
};

use super::{resolve::function_name, statement};
use crate::typing::is_aggregate;

/// The collections that a query reads, directly or through views. Names that the catalog does not have are skipped.
pub(super) fn collections(query: &Query, catalog: &Catalog) -> Result<BTreeSet<CollectionName>, Problem> {
    let mut found = BTreeSet::new();
    let mut views: BTreeSet<(DefinitionId, u32)> = BTreeSet::new();
    let mut pending = vec![relation_names(query)];
    while let Some(names) = pending.pop() {
        for name in names {
            match find_relation(&name, catalog)? {
                Some(NamedRelation::Collection(collection)) => {
                    found.insert(collection);
                }
                Some(NamedRelation::View(id, version)) => {
                    let version = catalog.definition_version(&id, &version)?;
                    if views.insert((id, version.number)) {
                        let bytes_max = proto::limits::DEFINITION_BYTES_MAX;
                        pending.push(relation_names(&*statement::parse_query(&version.text, bytes_max)?));
                    }
                }
                // It may be a WITH query; the resolver knows the scopes and rejects unknown names.
                None => {}
            }
        }
    }
    Ok(found)
}

/// What a one-part relation name refers to in the catalog.
enum NamedRelation {
    Collection(CollectionName),
    View(DefinitionId, VersionRef),
}

/// Looks a name up as written, then in lower case.
fn find_relation(name: &str, catalog: &Catalog) -> Result<Option<NamedRelation>, Problem> {
    for spelled in [name.to_owned(), name.to_lowercase()] {
        if let Some((id, version)) = view_version(&spelled, catalog)? {
            return Ok(Some(NamedRelation::View(id, version)));
        }
        if let Ok(collection) = spelled.parse::<CollectionName>()
            && catalog.collections.contains_key(&collection)
        {
            return Ok(Some(NamedRelation::Collection(collection)));
        }
    }
    Ok(None)
}

/// The view of a name, and which version of it: `slow`, `slow@2`.
pub(super) fn view_version(name: &str, catalog: &Catalog) -> Result<Option<(DefinitionId, VersionRef)>, Problem> {
    let is_view = |name: &str| catalog.view(name).is_some();
    if is_view(name) {
        return Ok(Some((DefinitionId::view(name), VersionRef::latest())));
    }
    match name.rsplit_once('@') {
        Some((view, version)) if is_view(view) => Ok(Some((DefinitionId::view(view), VersionRef::parse(version)?))),
        _ => Ok(None),
    }
}

/// All one-part relation names in a query.
fn relation_names(query: &Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    walk(Root::Query(query), &mut |node| {
        if let Node::Relation(relation) = node
            && let [part] = relation.0.as_slice()
            && let Some(ident) = part.as_ident()
        {
            names.insert(ident.value.clone());
        }
        ControlFlow::Continue(())
    });
    names
}

/// The error for a name that is neither a collection nor a view.
pub(super) fn no_such_table(name: &str, catalog: &Catalog) -> Problem {
    let views = catalog
        .definitions
        .keys()
        .filter(|id| id.kind == DefinitionKind::View)
        .map(|id| id.name.as_str());
    let near = nearest(
        name,
        catalog.collections.keys().map(CollectionName::as_str).chain(views),
    );
    let hint = near.map_or(
        "SHOW TABLES lists collections and views; a push or a source creates a collection".into(),
        |near| format!("did you mean {near}?"),
    );
    Problem::new(Code::NotFound, format!("collection {name} does not exist")).hint(hint)
}

/// Rejects subqueries, aggregates, windows and unnest: a field is computed from one document, a function from its
/// arguments.
pub(super) fn check_row_expression(kind: DefinitionKind, expression: &Expr) -> Result<(), Problem> {
    let unsupported = walk(Root::Expr(expression), &mut |node| match node {
        Node::Query(_) => ControlFlow::Break("a subquery"),
        Node::Expr(Expr::Function(function)) if function.over.is_some() => ControlFlow::Break("a window"),
        Node::Expr(Expr::Function(function)) => match function_name(&function.name) {
            Some(name) if is_aggregate(&name) => ControlFlow::Break("an aggregate"),
            Some(name) if name == "unnest" => ControlFlow::Break("unnest"),
            Some(name) if registry::function(&name).is_some_and(|known| known.has(Property::IsRandom)) => {
                ControlFlow::Break("a random function: the value of a document would differ each time it is computed")
            }
            _ => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    });
    match unsupported {
        Some(what) => Err(
            Problem::new(Code::NotSupported, format!("a {} cannot contain {what}", kind.as_str())).hint(match kind {
                DefinitionKind::Field | DefinitionKind::Parser => {
                    "it is computed from one document; a view can use any query"
                }
                _ => "a function is computed from its arguments; a view can use any query",
            }),
        ),
        None => Ok(()),
    }
}
