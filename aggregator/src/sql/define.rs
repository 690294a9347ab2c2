//! CREATE FIELD and CREATE VIEW: a definition is read and resolved once before it is agreed on, so that what is
//! accepted can be asked.

use datafusion::sql::sqlparser::ast;
use plan::Path;
use proto::{
    Code, CollectionName, Problem,
    catalog::{Catalog, Change, Definition, DefinitionId, DefinitionKind, DefinitionVersion},
};

use super::{
    Defined, Resolved, World,
    names::{Found, Names},
    resolve::{
        self, Resolver,
        name::{Input, Rows, Scope},
    },
    statement,
};

/// Checks a definition and makes the change that creates it, with what the user should know.
pub fn define(id: &DefinitionId, text: &str, replace: bool, world: &dyn World) -> Result<Defined, Problem> {
    if text.len() > proto::limits::DEFINITION_BYTES_MAX {
        let limit = proto::limits::DEFINITION_BYTES_MAX;
        return Err(
            Problem::new(Code::TooComplex, format!("a definition of {} bytes", text.len()))
                .hint(format!("the limit is {limit} bytes")),
        );
    }
    let exists = world.catalog().definitions.contains_key(id);
    if exists && !replace {
        return Err(
            Problem::new(Code::Conflict, format!("{id} is there")).hint("CREATE OR REPLACE makes a new version of it")
        );
    }
    let catalog = with(world.catalog(), id, text);
    match id.kind {
        DefinitionKind::Field => field(id, text, replace, world, &catalog),
        DefinitionKind::View => view(id, text, replace, world, &catalog),
    }
}

/// The catalog as it would be: so a definition that names itself is seen to.
fn with(catalog: &Catalog, id: &DefinitionId, text: &str) -> Catalog {
    let mut next = catalog.clone();
    let number = next.definitions.get(id).map_or(1, |d| d.current().number + 1);
    let version = DefinitionVersion {
        number,
        text: text.to_owned(),
        uses: vec![],
        reads: vec![],
    };
    next.definitions
        .entry(id.clone())
        .or_insert_with(|| Definition { versions: vec![] })
        .versions
        .push(version);
    next
}

fn field(
    id: &DefinitionId,
    text: &str,
    replace: bool,
    world: &dyn World,
    catalog: &Catalog,
) -> Result<Defined, Problem> {
    let collection = id
        .collection
        .clone()
        .ok_or_else(|| Problem::new(Code::BadSql, "a field has a collection"))?;
    if catalog.view(collection.as_str()).is_some() {
        return Err(Problem::new(
            Code::BadSql,
            format!("{collection} is a view, and a field belongs to a collection"),
        )
        .hint("put the expression into the view: CREATE OR REPLACE VIEW …"));
    }
    if !catalog.collections.contains_key(&collection) {
        return Err(super::reads::no_such_table(collection.as_str(), catalog));
    }
    let path = Path::parse(&id.name).map_err(|detail| Problem::new(Code::BadSql, detail))?;
    if let Some(first) = path.keys().and_then(|keys| keys.first().map(|key| key.to_string()))
        && plan::Column::always(&first).is_some()
    {
        return Err(
            Problem::new(Code::BadSql, format!("{first} is what every document has")).hint("choose another name"),
        );
    }
    let expression = statement::parse_expression(text, proto::limits::DEFINITION_BYTES_MAX)?;
    super::reads::refuse_unfit_for_field(&expression)?;
    let query = resolve::resolve(&of_every_document(&expression, &collection)?, world, &[]);
    let mut resolver = Resolver::new(world, catalog, &[]);
    let names = resolver.names(&collection);
    let table = resolver.document_table(&collection)?;
    // The field is expanded as it will be, which also meets every use of itself.
    let resolved = resolver.expand(id, |resolver| {
        resolver.scopes.push(Scope {
            inputs: vec![Input {
                alias: collection.as_str().to_owned(),
                rows: Rows::Documents { table, names },
            }],
            closed: true,
            ..Scope::default()
        });
        resolver.expression(&expression)
    });
    let query = said_best(resolved, query)?;
    let uses = resolver.used_by(id);
    let mut warnings = resolver.take_warnings();
    let stored = Names::new(&collection, world.catalog(), world.paths(&collection));
    if let Some(Found::Path(path, _)) = stored.stored(&path) {
        let keys: String = path
            .keys()
            .unwrap_or_default()
            .iter()
            .map(|key| format!("->'{}'", key.replace('\'', "''")))
            .collect();
        warnings.push(format!(
            "{} hides a path that documents have; _doc{keys} still reaches it",
            id.name
        ));
    }
    let reads = vec![collection];
    Ok(Defined {
        change: Change::Define {
            id: id.clone(),
            text: text.to_owned(),
            uses,
            reads,
            replace,
        },
        query,
        warnings,
    })
}

/// What the definition computes. The check of its text reports mistakes with their place; only a cycle of definitions,
/// or too deep a nesting, is reported by the expansion.
fn said_best<T>(resolved: Result<T, Problem>, checked: Result<Resolved, Problem>) -> Result<Resolved, Problem> {
    match resolved {
        Err(problem) if problem.code == Code::Conflict || problem.code == Code::TooComplex => Err(problem),
        Err(problem) => Err(checked.err().unwrap_or(problem)),
        Ok(_) => checked,
    }
}

/// `SELECT expression FROM collection`.
fn of_every_document(expression: &ast::Expr, collection: &CollectionName) -> Result<ast::Query, Problem> {
    let mut query = statement::parse_query(
        &format!("SELECT 1 FROM \"{collection}\""),
        proto::limits::DEFINITION_BYTES_MAX,
    )?;
    if let ast::SetExpr::Select(select) = &mut *query.body {
        select.projection = vec![ast::SelectItem::UnnamedExpr(expression.clone())];
    }
    Ok(*query)
}

fn view(
    id: &DefinitionId,
    text: &str,
    replace: bool,
    world: &dyn World,
    catalog: &Catalog,
) -> Result<Defined, Problem> {
    if catalog
        .collections
        .keys()
        .any(|collection| collection.as_str() == id.name)
    {
        return Err(Problem::new(Code::Conflict, format!("{} is a collection", id.name)).hint("choose another name"));
    }
    let query = statement::parse_query(text, proto::limits::DEFINITION_BYTES_MAX)?;
    let checked = resolve::resolve(&query, world, &[]);
    let mut resolver = Resolver::new(world, catalog, &[]);
    let resolved = resolver.expand(id, |resolver| resolver.query(&query));
    let checked = said_best(resolved, checked)?;
    let (uses, warnings) = (resolver.used_by(id), resolver.take_warnings());
    let reads = resolver.reads.iter().cloned().collect();
    Ok(Defined {
        change: Change::Define {
            id: id.clone(),
            text: text.to_owned(),
            uses,
            reads,
            replace,
        },
        query: checked,
        warnings,
    })
}
