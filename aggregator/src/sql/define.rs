//! Checks CREATE FIELD and CREATE VIEW. A definition is parsed and resolved once before it enters the catalog, so every
//! accepted definition can be queried.

use datafusion::sql::sqlparser::ast;
use plan::Path;
use proto::{
    Code, CollectionName, Problem,
    catalog::{Catalog, Change, Definition, DefinitionId, DefinitionKind, DefinitionVersion},
};

use super::{
    ResolvedDefinition, ResolvedQuery, SchemaContext,
    names::{CollectionNames, ResolvedName},
    resolve::{
        self, Resolver,
        scope::{Input, InputKind, Scope},
    },
    statement,
};

/// Checks a definition. Returns the change that creates it, the query to plan as a check, and warnings for the user.
pub(super) fn define(
    id: &DefinitionId,
    text: &str,
    replace: bool,
    context: &dyn SchemaContext,
) -> Result<ResolvedDefinition, Problem> {
    if text.len() > proto::limits::DEFINITION_BYTES_MAX {
        let limit = proto::limits::DEFINITION_BYTES_MAX;
        return Err(Problem::new(
            Code::TooComplex,
            format!("the definition is too long: {} bytes", text.len()),
        )
        .hint(format!("the limit is {limit} bytes")));
    }
    let exists = context.catalog().definitions.contains_key(id);
    if exists && !replace {
        return Err(Problem::new(Code::Conflict, format!("{id} already exists"))
            .hint("use CREATE OR REPLACE to create a new version"));
    }
    let catalog = catalog_with(context.catalog(), id, text);
    match id.kind {
        DefinitionKind::Field => define_field(id, text, replace, context, &catalog),
        DefinitionKind::View => define_view(id, text, replace, context, &catalog),
    }
}

/// The catalog with the new definition, so that a definition that uses itself is found.
fn catalog_with(catalog: &Catalog, id: &DefinitionId, text: &str) -> Catalog {
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

fn define_field(
    id: &DefinitionId,
    text: &str,
    replace: bool,
    context: &dyn SchemaContext,
    catalog: &Catalog,
) -> Result<ResolvedDefinition, Problem> {
    let collection = id
        .collection
        .clone()
        .ok_or_else(|| Problem::new(Code::BadSql, "a field needs a collection"))?;
    let path = check_field_name(id, &collection, catalog)?;
    let expression = statement::parse_expression(text, proto::limits::DEFINITION_BYTES_MAX)?;
    super::reads::check_field_expression(&expression)?;
    let query = resolve::resolve(&select_from_collection(&expression, &collection)?, context, &[], &[]);
    let mut resolver = Resolver::new(context, catalog, &[]);
    let names = resolver.collection_names(&collection);
    let table = resolver.document_table(&collection)?;
    // Expanding the field as a query would expand it also finds every use of itself.
    let resolved = resolver.expand(id, |resolver| {
        resolver.scopes.push(Scope {
            inputs: vec![Input {
                alias: collection.as_str().to_owned(),
                kind: InputKind::Documents { table, names },
            }],
            closed: true,
            ..Scope::default()
        });
        resolver.expression(&expression)
    });
    let query = clearest_result(resolved, query)?;
    let uses = resolver.definitions_used_by(id);
    let mut warnings = resolver.take_warnings();
    let names = CollectionNames::new(&collection, context.catalog(), context.paths(&collection));
    if let Some(ResolvedName::Path(path, _)) = names.stored_path(&path) {
        warnings.push(hidden_path_warning(id, &path));
    }
    Ok(ResolvedDefinition {
        change: Change::Define {
            id: id.clone(),
            text: text.to_owned(),
            uses,
            reads: vec![collection],
            replace,
        },
        query,
        warnings,
    })
}

/// Checks that the collection exists and that the field's name is free for use. Returns the name as a path.
fn check_field_name(id: &DefinitionId, collection: &CollectionName, catalog: &Catalog) -> Result<Path, Problem> {
    if catalog.view(collection.as_str()).is_some() {
        return Err(Problem::new(
            Code::BadSql,
            format!("{collection} is a view; only a collection can have fields"),
        )
        .hint("put the expression into the view: CREATE OR REPLACE VIEW …"));
    }
    if !catalog.collections.contains_key(collection) {
        return Err(super::reads::no_such_table(collection.as_str(), catalog));
    }
    let path = Path::parse(&id.name).map_err(|detail| Problem::new(Code::BadSql, detail))?;
    if let Some(first) = path.keys().and_then(|keys| keys.first().map(|key| key.to_string()))
        && plan::Column::system(&first).is_some()
    {
        return Err(Problem::new(Code::BadSql, format!("{first} is a system column")).hint("choose another name"));
    }
    Ok(path)
}

fn hidden_path_warning(id: &DefinitionId, path: &Path) -> String {
    let keys: String = path
        .keys()
        .unwrap_or_default()
        .iter()
        .map(|key| format!("->'{}'", key.replace('\'', "''")))
        .collect();
    format!(
        "{} hides a path of the same name in documents; use _doc{keys} to read the stored value",
        id.name
    )
}

/// Chooses the more useful error. Resolving the text (`checked`) reports errors with their position. Only the expansion
/// (`resolved`) finds cycles and definitions that are nested too deeply.
fn clearest_result<T>(
    resolved: Result<T, Problem>,
    checked: Result<ResolvedQuery, Problem>,
) -> Result<ResolvedQuery, Problem> {
    match resolved {
        Err(problem) if problem.code == Code::Conflict || problem.code == Code::TooComplex => Err(problem),
        Err(problem) => Err(checked.err().unwrap_or(problem)),
        Ok(_) => checked,
    }
}

/// `SELECT expression FROM collection`.
fn select_from_collection(expression: &ast::Expr, collection: &CollectionName) -> Result<ast::Query, Problem> {
    let mut query = statement::parse_query(
        &format!("SELECT 1 FROM \"{collection}\""),
        proto::limits::DEFINITION_BYTES_MAX,
    )?;
    if let ast::SetExpr::Select(select) = &mut *query.body {
        select.projection = vec![ast::SelectItem::UnnamedExpr(expression.clone())];
    }
    Ok(*query)
}

fn define_view(
    id: &DefinitionId,
    text: &str,
    replace: bool,
    context: &dyn SchemaContext,
    catalog: &Catalog,
) -> Result<ResolvedDefinition, Problem> {
    if catalog
        .collections
        .keys()
        .any(|collection| collection.as_str() == id.name)
    {
        return Err(
            Problem::new(Code::Conflict, format!("a collection named {} already exists", id.name))
                .hint("choose another name"),
        );
    }
    let query = statement::parse_query(text, proto::limits::DEFINITION_BYTES_MAX)?;
    let checked = resolve::resolve(&query, context, &[], &[]);
    let mut resolver = Resolver::new(context, catalog, &[]);
    let resolved = resolver.expand(id, |resolver| resolver.query(&query));
    let checked = clearest_result(resolved, checked)?;
    let (uses, warnings) = (resolver.definitions_used_by(id), resolver.take_warnings());
    let reads = resolver.reads.iter().cloned().collect();
    Ok(ResolvedDefinition {
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
