//! Which collections a query reads: known before anything is resolved, because their shards are pinned first and tell
//! the kinds of paths.

use std::{collections::BTreeSet, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{Expr, Query};
use front::{Node, Root, walk};
use proto::{Catalog, Code, CollectionName, Problem, catalog::DefinitionId};

use super::{names::nearest, resolve::function_name, statement};
use crate::typing::is_aggregate;

/// The collections that a query reads, through views too. A name that is nothing at all is an error.
pub fn collections(query: &Query, catalog: &Catalog) -> Result<BTreeSet<CollectionName>, Problem> {
    let mut found = BTreeSet::new();
    let mut views: BTreeSet<DefinitionId> = BTreeSet::new();
    let mut open = vec![named(query)];
    while let Some(names) = open.pop() {
        for name in names {
            match meaning(&name, catalog) {
                Some(Meaning::Collection(collection)) => {
                    found.insert(collection);
                }
                Some(Meaning::View(id)) => {
                    if let Some(definition) = catalog.definitions.get(&id)
                        && views.insert(id.clone())
                    {
                        open.push(named(&*statement::parse_query(
                            &definition.current().text,
                            proto::limits::DEFINITION_BYTES_MAX,
                        )?));
                    }
                }
                // What a WITH names is told apart by the resolver, which knows the scopes.
                None => {}
            }
        }
    }
    Ok(found)
}

enum Meaning {
    Collection(CollectionName),
    View(DefinitionId),
}

fn meaning(name: &str, catalog: &Catalog) -> Option<Meaning> {
    [name.to_owned(), name.to_lowercase()].into_iter().find_map(|spelled| {
        if catalog.view(&spelled).is_some() {
            return Some(Meaning::View(DefinitionId::view(&spelled)));
        }
        let collection: CollectionName = spelled.parse().ok()?;
        catalog
            .collections
            .contains_key(&collection)
            .then_some(Meaning::Collection(collection))
    })
}

/// All one-part names of relations in a query.
fn named(query: &Query) -> BTreeSet<String> {
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

/// The refusal of a name that is neither a collection nor a view.
pub fn no_such_table(name: &str, catalog: &Catalog) -> Problem {
    let views = catalog
        .definitions
        .keys()
        .filter(|id| id.collection.is_none())
        .map(|id| id.name.as_str());
    let near = nearest(
        name,
        catalog.collections.keys().map(CollectionName::as_str).chain(views),
    );
    let hint = near.map_or(
        "SHOW TABLES lists what there is; a push or a source creates a collection".into(),
        |near| format!("perhaps {near} was meant"),
    );
    Problem::new(Code::NotFound, format!("there is no collection {name}")).hint(hint)
}

/// A field is computed from one document: no sub-query, no aggregate, no window.
pub fn refuse_unfit_for_field(expression: &Expr) -> Result<(), Problem> {
    let unfit = walk(Root::Expr(expression), &mut |node| match node {
        Node::Query(_) => ControlFlow::Break("a sub-query"),
        Node::Expr(Expr::Function(function)) if function.over.is_some() => ControlFlow::Break("a window"),
        Node::Expr(Expr::Function(function)) => match function_name(&function.name) {
            Some(name) if is_aggregate(&name) => ControlFlow::Break("an aggregate"),
            Some(name) if name == "unnest" => ControlFlow::Break("unnest"),
            _ => ControlFlow::Continue(()),
        },
        _ => ControlFlow::Continue(()),
    });
    match unfit {
        Some(what) => Err(Problem::new(Code::NotSupported, format!("{what} in a field"))
            .hint("a field is computed from one document; a view takes any query")),
        None => Ok(()),
    }
}
