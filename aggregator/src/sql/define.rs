//! Checks CREATE. A definition is parsed and resolved once before it enters the catalog, so every accepted definition
//! can be queried.

use std::collections::{BTreeMap, BTreeSet};

use datafusion::sql::sqlparser::ast;
use plan::{
    Path,
    functions::{parsed::PARSED_JSON, registry},
};
use proto::{
    Code, CollectionName, Problem,
    catalog::{Catalog, Definition, DefinitionId, DefinitionKind, DefinitionUse, DefinitionVersion, LATEST, Origin},
    limits::DEFINITION_BYTES_MAX,
};

use super::{
    NewDefinition, ResolvedDefinition, ResolvedQuery, SchemaContext,
    names::{CollectionNames, ResolvedName},
    parser_text::ParserText,
    reads,
    resolve::{self, Resolver, scope::InputKind},
    signature::{FunctionText, SavedQuery, Unknown},
    statement,
};
use crate::typing::is_aggregate;

/// Checks a new definition or a new version of one. Returns what it uses, the query to plan as a check, and warnings for
/// the user.
pub(super) fn define(new: &NewDefinition, context: &dyn SchemaContext) -> Result<ResolvedDefinition, Problem> {
    let NewDefinition {
        id,
        text,
        replace,
        number,
        ..
    } = new;
    if text.len() > DEFINITION_BYTES_MAX {
        return Err(Problem::new(
            Code::TooComplex,
            format!("the definition is too long: {} bytes", text.len()),
        )
        .hint(format!("the limit is {DEFINITION_BYTES_MAX} bytes")));
    }
    let exists = context.catalog().definitions.contains_key(id);
    if exists && !replace {
        return Err(Problem::new(Code::Conflict, format!("{id} already exists"))
            .hint("use CREATE OR REPLACE to create a new version"));
    }
    let (catalog, number) = catalog_with(context.catalog(), id, text, *number);
    let mut warnings = check_name(id, context)?;
    // Resolving the text alone reports errors with their position. Only the expansion finds cycles and definitions that
    // are nested too deeply.
    let checked = query_of(id, text, context);
    let mut parameters = Vec::new();
    let mut resolver = Resolver::new(context, &catalog, &[]);
    let saved;
    let expanded = match id.kind {
        DefinitionKind::Field => {
            let expression = statement::parse_expression(text, DEFINITION_BYTES_MAX)?;
            over_documents(&mut resolver, id, number, |resolver| {
                resolver.expression(&expression).map(drop)
            })
        }
        DefinitionKind::Parser => {
            let parser = ParserText::parse(text)?;
            over_documents(&mut resolver, id, number, |resolver| {
                resolver.parsed(id, &parser, Vec::new()).map(drop)
            })
        }
        DefinitionKind::View => {
            let query = statement::parse_query(text, DEFINITION_BYTES_MAX)?;
            resolver.expand(id, number, |resolver| resolver.query(&query)).map(drop)
        }
        DefinitionKind::Function => {
            let function = FunctionText::parse(text)?;
            let columns = resolver.argument_columns(&function, function.null_arguments())?;
            let body = |resolver: &mut Resolver<'_>| resolver.function_body(id, &function, columns);
            resolver.expand(id, number, body).map(drop)
        }
        DefinitionKind::Query => {
            saved = SavedQuery::parse(text)?.bind(&BTreeMap::new(), Unknown::Null)?;
            resolver = Resolver::new(context, &catalog, &saved.parameters);
            parameters.clone_from(&saved.parameters);
            resolver
                .expand(id, number, |resolver| resolver.query(&saved.query))
                .map(drop)
        }
    };
    let query = match expanded {
        Err(problem) if problem.code == Code::Conflict || problem.code == Code::TooComplex => return Err(problem),
        Err(problem) => return Err(checked.err().unwrap_or(problem)),
        Ok(()) => checked?.0,
    };
    warnings.extend(resolver.take_warnings());
    Ok(ResolvedDefinition {
        uses: resolver.take_uses(),
        reads: match &id.collection {
            Some(collection) => vec![collection.clone()],
            None => resolver.reads.iter().cloned().collect(),
        },
        query,
        parameters,
        warnings,
    })
}

/// The definitions that a definition of this text uses directly.
pub(super) fn uses_of(
    id: &DefinitionId,
    text: &str,
    context: &dyn SchemaContext,
) -> Result<Vec<DefinitionUse>, Problem> {
    let version = NewDefinition {
        id: id.clone(),
        text: text.to_owned(),
        at: (1, 1),
        replace: true,
        note: None,
        number: None,
    };
    Ok(define(&version, context)?.uses)
}

/// Whether documents may have a path with the name of this field or parser.
pub(super) fn is_stored_path(id: &DefinitionId, context: &dyn SchemaContext) -> bool {
    let (Some(collection), Ok(path)) = (&id.collection, Path::parse(&id.name)) else {
        return false;
    };
    let names = CollectionNames::new(collection, context.catalog(), context.paths(collection));
    names.overflow() || names.stored_path(&path).is_some()
}

/// Runs `inside` as the expansion of a field or a parser, over the documents of its collection.
fn over_documents<'c>(
    resolver: &mut Resolver<'c>,
    id: &DefinitionId,
    number: u32,
    inside: impl FnOnce(&mut Resolver<'c>) -> Result<(), Problem>,
) -> Result<(), Problem> {
    resolver.expand(id, number, |resolver| {
        let collection = collection_of(id)?;
        let names = resolver.collection_names(collection);
        let table = resolver.document_table(collection)?;
        resolver.within(collection.as_str(), InputKind::Documents { table, names }, inside)
    })
}

/// A query that uses a definition, and its parameters: planning it checks the definition.
pub(super) fn query_of(
    id: &DefinitionId,
    text: &str,
    context: &dyn SchemaContext,
) -> Result<(ResolvedQuery, Vec<serde_json::Value>), Problem> {
    let none = Vec::new();
    let resolve = |query: &ast::Query| resolve::resolve(query, context, &[], &[]);
    let query = match id.kind {
        DefinitionKind::Field => {
            let expression = statement::parse_expression(text, DEFINITION_BYTES_MAX)?;
            reads::check_row_expression(id.kind, &expression)?;
            resolve(&select_from_collection(&expression, collection_of(id)?)?)?
        }
        DefinitionKind::Parser => {
            let parser = ParserText::parse(text)?;
            reads::check_row_expression(id.kind, &parser.on)?;
            resolve(&select_from_collection(
                &parser.call(PARSED_JSON, parser.on.clone(), id),
                collection_of(id)?,
            )?)?
        }
        DefinitionKind::View => resolve(&*statement::parse_query(text, DEFINITION_BYTES_MAX)?)?,
        DefinitionKind::Function => {
            let function = FunctionText::parse(text)?;
            reads::check_row_expression(id.kind, &function.body)?;
            resolve::resolve_expression(context, |resolver| {
                let columns = resolver.argument_columns(&function, function.null_arguments())?;
                resolver.function_body(id, &function, columns)
            })?
        }
        DefinitionKind::Query => {
            let bound = SavedQuery::parse(text)?.bind(&BTreeMap::new(), Unknown::Null)?;
            let query = resolve::resolve(&bound.query, context, &bound.parameters, &[])?;
            return Ok((query, bound.parameters));
        }
    };
    Ok((query, none))
}

/// The collections that a definition reads, directly or through views. Names that the catalog does not have are skipped.
pub(super) fn collections_of(
    id: &DefinitionId,
    text: &str,
    catalog: &Catalog,
) -> Result<BTreeSet<CollectionName>, Problem> {
    match id.kind {
        DefinitionKind::Field | DefinitionKind::Parser => {
            let own = id
                .collection
                .iter()
                .filter(|name| catalog.collections.contains_key(*name));
            Ok(own.cloned().collect())
        }
        DefinitionKind::Function => Ok(BTreeSet::new()),
        DefinitionKind::Query => {
            let bound = SavedQuery::parse(text)?.bind(&BTreeMap::new(), Unknown::Null)?;
            reads::collections(&bound.query, catalog)
        }
        DefinitionKind::View => reads::collections(&*statement::parse_query(text, DEFINITION_BYTES_MAX)?, catalog),
    }
}

/// The catalog with the new version, so that a definition that uses itself is found; and the number of the version.
fn catalog_with(catalog: &Catalog, id: &DefinitionId, text: &str, number: Option<u32>) -> (Catalog, u32) {
    let mut next = catalog.clone();
    let free = next.next_definition_number(id);
    // Whether it is free is decided later.
    let number = number.filter(|number| *number > free).unwrap_or(free);
    let version = DefinitionVersion {
        number,
        text: text.to_owned(),
        uses: vec![],
        reads: vec![],
        note: None,
        replaces: None,
        origin: Origin::default(),
    };
    let definition = next.definitions.entry(id.clone()).or_insert_with(|| Definition {
        versions: vec![],
        tags: BTreeMap::new(),
        former_names: BTreeMap::new(),
    });
    definition.versions.push(version);
    definition.tags.remove(LATEST);
    (next, number)
}

fn collection_of(id: &DefinitionId) -> Result<&CollectionName, Problem> {
    let missing = || Problem::new(Code::BadSql, format!("{id} needs a collection"));
    id.collection.as_ref().ok_or_else(missing)
}

/// Checks that the name of a definition is free for use. Returns warnings.
pub(super) fn check_name(id: &DefinitionId, context: &dyn SchemaContext) -> Result<Vec<String>, Problem> {
    let catalog = context.catalog();
    match id.kind {
        DefinitionKind::Field | DefinitionKind::Parser => {
            let collection = collection_of(id)?;
            let path = check_field_name(id, collection, catalog)?;
            let names = CollectionNames::new(collection, catalog, context.paths(collection));
            let mut warnings = match names.stored_path(&path) {
                Some(ResolvedName::Path(path, _)) => vec![hidden_path_warning(id, &path)],
                _ => Vec::new(),
            };
            warnings.extend(
                names
                    .defined_below(&path)
                    .map(|below| format!("{below} stays a definition of its own: it is not a part of {}", id.name)),
            );
            Ok(warnings)
        }
        // Names of functions of other systems are replaced before a defined function is looked up.
        DefinitionKind::Function => match registry::function(&id.name).is_some()
            || registry::compat(&id.name).is_some()
            || registry::is_refused(&id.name)
            || is_aggregate(&id.name)
        {
            true => Err(Problem::new(
                Code::Conflict,
                format!("{} is a function of Rachis or of another system", id.name),
            )
            .hint("choose another name")),
            false => Ok(Vec::new()),
        },
        // The catalog refuses a view with the name of a collection.
        DefinitionKind::View | DefinitionKind::Query => Ok(Vec::new()),
    }
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
        return Err(reads::no_such_table(collection.as_str(), catalog));
    }
    let path = Path::parse(&id.name).map_err(|detail| Problem::new(Code::BadSql, detail))?;
    let keys: Vec<String> = path
        .keys()
        .unwrap_or_default()
        .iter()
        .map(ToString::to_string)
        .collect();
    if let Some(first) = keys.first()
        && plan::Column::system(&first.to_ascii_lowercase()).is_some()
    {
        return Err(Problem::new(Code::BadSql, format!("{first} is a system column")).hint("choose another name"));
    }
    if keys.iter().any(|key| key.is_empty() || key.contains(char::is_control)) {
        let detail = format!(
            "the name of a {} cannot have empty parts or control characters",
            id.kind.as_str()
        );
        return Err(Problem::new(Code::BadSql, detail).hint("choose another name"));
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

/// `SELECT expression FROM collection`.
fn select_from_collection(expression: &ast::Expr, collection: &CollectionName) -> Result<ast::Query, Problem> {
    let mut query = statement::parse_query(&format!("SELECT 1 FROM \"{collection}\""), DEFINITION_BYTES_MAX)?;
    if let ast::SetExpr::Select(select) = &mut *query.body {
        select.projection = vec![ast::SelectItem::UnnamedExpr(expression.clone())];
    }
    Ok(*query)
}
