//! Which collections a query reads: known before anything is resolved, because their shards are pinned first and tell the kinds of paths.

use std::{collections::BTreeSet, ops::ControlFlow};

use datafusion::sql::sqlparser::ast::{Expr, ObjectName, Query, Visit, Visitor};
use proto::{Catalog, Code, CollectionName, Problem, catalog::DefinitionId};

use super::{
    names::nearest,
    resolve::call::{function_name, is_aggregate},
    statement,
};

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
                        open.push(named(&*statement::parse_query(&definition.current().text, proto::limits::DEFINITION_BYTES_MAX)?));
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
        catalog.collections.contains_key(&collection).then_some(Meaning::Collection(collection))
    })
}

/// All one-part names of relations in a query.
fn named(query: &Query) -> BTreeSet<String> {
    struct Relations(BTreeSet<String>);
    impl Visitor for Relations {
        type Break = ();
        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
            if let [part] = relation.0.as_slice()
                && let Some(ident) = part.as_ident()
            {
                self.0.insert(ident.value.clone());
            }
            ControlFlow::Continue(())
        }
    }
    let mut relations = Relations(BTreeSet::new());
    let _ = query.visit(&mut relations);
    relations.0
}

/// The refusal of a name that is neither a collection nor a view.
pub fn no_such_table(name: &str, catalog: &Catalog) -> Problem {
    let views = catalog.definitions.keys().filter(|id| id.collection.is_none()).map(|id| id.name.as_str());
    let near = nearest(name, catalog.collections.keys().map(CollectionName::as_str).chain(views));
    let hint =
        near.map_or("SHOW TABLES lists what there is; a push or a source creates a collection".into(), |near| format!("perhaps {near} was meant"));
    Problem::new(Code::NotFound, format!("there is no collection {name}")).hint(hint)
}

/// A field is computed from one document: no sub-query, no aggregate, no window.
pub fn refuse_unfit_for_field(expression: &Expr) -> Result<(), Problem> {
    struct Unfit;
    impl Visitor for Unfit {
        type Break = &'static str;
        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<&'static str> {
            ControlFlow::Break("a sub-query")
        }
        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<&'static str> {
            match expr {
                Expr::Function(function) if function.over.is_some() => ControlFlow::Break("a window"),
                Expr::Function(function) if function_name(&function.name).is_some_and(|name| is_aggregate(&name)) => {
                    ControlFlow::Break("an aggregate")
                }
                Expr::Function(function) if function_name(&function.name).is_some_and(|name| name == "unnest") => ControlFlow::Break("unnest"),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    match expression.visit(&mut Unfit) {
        ControlFlow::Break(what) => {
            Err(Problem::new(Code::NotSupported, format!("{what} in a field")).hint("a field is computed from one document; a view takes any query"))
        }
        ControlFlow::Continue(()) => Ok(()),
    }
}
