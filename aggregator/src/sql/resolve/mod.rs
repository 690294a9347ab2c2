//! Resolving: every name of a query becomes a flat typed column of a base table, every definition its expansion. What
//! comes out is a query again, which the planner takes as it is: it meets no path, no view and no field.

mod expression;
mod from;
pub mod name;
mod query;
mod select;
pub mod value;

use std::{
    collections::{BTreeSet, HashMap},
    rc::Rc,
};

use datafusion::sql::sqlparser::{ast, tokenizer::Span};
use plan::Column;
use proto::{Catalog, Code, CollectionName, Problem, catalog::DefinitionId};

pub use self::{expression::function_name, value::Value};
use super::{Resolved, Table, TableUse, World, names::Names};
use name::Scope;

/// Base tables of one query, views' included.
pub const TABLES_MAX: usize = 200;
/// Expressions of one query, those of expanded definitions included.
pub const EXPRESSIONS_MAX: usize = 200_000;
/// Relations of a query.
const RELATIONS_MAX: usize = 200;
/// Definitions inside one another.
pub const EXPANSIONS_MAX: usize = 50;
/// Warnings that are told.
pub const WARNINGS_MAX: usize = 50;
/// Top-level keys that `*` stands for.
pub const STAR_KEYS_MAX: usize = 200;

/// What is known while a query is resolved.
pub struct Resolver<'w> {
    world: &'w dyn World,
    /// The catalog that names are looked up in: the world's, or one with the definition that is just being made.
    catalog: &'w Catalog,
    parameters: &'w [serde_json::Value],
    pub tables: Vec<TableUse>,
    warnings: Vec<String>,
    names: HashMap<CollectionName, Rc<Names>>,
    /// Definitions that are being expanded, the outermost first.
    expanding: Vec<DefinitionId>,
    /// Definitions named by the statement, or by the definition that the statement makes.
    pub uses: BTreeSet<DefinitionId>,
    /// Collections read.
    pub reads: BTreeSet<CollectionName>,
    /// FROM clauses around the place that is resolved, the outermost first.
    pub scopes: Vec<Scope>,
    /// WITH queries around it.
    with: Vec<from::With>,
    with_count: usize,
    /// Relations that the query reads once every WITH is put where it is named.
    pub relations: usize,
    expressions: usize,
    /// Whether it is a condition on rows.
    filtering: bool,
    /// The index of the outermost scope in which a name was resolved: tells whether a sub-query is correlated.
    reached: usize,
}

/// Resolves a query.
pub fn resolve(query: &ast::Query, world: &dyn World, parameters: &[serde_json::Value]) -> Result<Resolved, Problem> {
    let mut resolver = Resolver::new(world, world.catalog(), parameters);
    let (query, _) = resolver.query(query)?;
    Ok(resolver.into_resolved(query))
}

/// The names of the columns that a query gives.
pub fn columns(query: &ast::Query, world: &dyn World) -> Result<Vec<String>, Problem> {
    let (_, columns) = Resolver::new(world, world.catalog(), &[]).query(query)?;
    Ok(columns.into_iter().map(|column| column.name).collect())
}

impl<'w> Resolver<'w> {
    pub fn new(world: &'w dyn World, catalog: &'w Catalog, parameters: &'w [serde_json::Value]) -> Self {
        Self {
            world,
            catalog,
            parameters,
            tables: Vec::new(),
            warnings: Vec::new(),
            names: HashMap::new(),
            expanding: Vec::new(),
            uses: BTreeSet::new(),
            reads: BTreeSet::new(),
            scopes: Vec::new(),
            with: Vec::new(),
            with_count: 0,
            relations: 0,
            expressions: 0,
            filtering: false,
            reached: usize::MAX,
        }
    }

    fn into_resolved(self, query: ast::Query) -> Resolved {
        Resolved {
            query: Box::new(query),
            tables: self.tables,
            warnings: self.warnings,
        }
    }

    /// What the user should know, once.
    pub fn warn(&mut self, warning: String) {
        if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// How many warnings there are, for [`Self::forget_warnings`].
    pub fn warning_count(&self) -> usize {
        self.warnings.len()
    }

    /// Takes back the warnings after the first ones.
    pub fn forget_warnings(&mut self, first: usize) {
        self.warnings.truncate(first);
    }

    /// All warnings.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// What the definition that is being made names itself.
    pub fn used_by(&self, id: &DefinitionId) -> Vec<DefinitionId> {
        self.uses.iter().filter(|used| *used != id).cloned().collect()
    }

    /// The columns read of a table so far.
    pub fn columns(&self, table: usize) -> Vec<Column> {
        match self.tables.get(table).map(|t| &t.table) {
            Some(Table::Collection { columns, .. }) => columns.clone(),
            _ => Vec::new(),
        }
    }

    /// The value of `$index`.
    pub fn parameter(&self, index: usize) -> Option<&serde_json::Value> {
        self.parameters.get(index.checked_sub(1)?)
    }

    /// Notes that a column of a table is read.
    pub fn read(&mut self, table: usize, column: Column) {
        if let Some(TableUse {
            table: Table::Collection { columns, .. },
            ..
        }) = self.tables.get_mut(table)
            && !columns.contains(&column)
        {
            columns.push(column);
        }
    }

    pub fn names(&mut self, collection: &CollectionName) -> Rc<Names> {
        let (catalog, world) = (self.catalog, self.world);
        let names = self
            .names
            .entry(collection.clone())
            .or_insert_with(|| Rc::new(Names::new(collection, catalog, world.paths(collection))));
        Rc::clone(names)
    }

    /// Counts an expression, those of definitions included: what doubles in every definition ends here.
    pub fn count(&mut self) -> Result<(), Problem> {
        self.expressions += 1;
        match self.expressions > EXPRESSIONS_MAX {
            true => Err(
                Problem::new(Code::TooComplex, format!("over {EXPRESSIONS_MAX} expressions"))
                    .hint("definitions in definitions multiply"),
            ),
            false => Ok(()),
        }
    }

    /// Counts relations, those behind a WITH for each time it is named: the planner puts it there each time.
    pub fn count_relations(&mut self, more: usize) -> Result<(), Problem> {
        self.relations = self.relations.saturating_add(more);
        match self.relations > RELATIONS_MAX {
            true => Err(Problem::new(
                Code::TooComplex,
                format!("over {RELATIONS_MAX} relations, when every WITH is put where it is named"),
            )
            .hint("WITH queries that name one another multiply")),
            false => Ok(()),
        }
    }

    /// Runs `inside` as the expansion of a definition, with nothing of the statement around it in sight.
    pub fn expand<T>(
        &mut self,
        id: &DefinitionId,
        inside: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        if self.expanding.len() <= 1 {
            self.uses.insert(id.clone());
        }
        if self.expanding.contains(id) {
            let way: Vec<String> = self.expanding.iter().chain([id]).map(DefinitionId::to_string).collect();
            let hint = id
                .collection
                .as_ref()
                .map_or("a view cannot read itself".to_owned(), |_| {
                    format!("to reach the stored value of the same name, write _doc->'{}'", id.name)
                });
            return Err(
                Problem::new(Code::Conflict, format!("{id} would use itself: {}", way.join(" -> "))).hint(hint),
            );
        }
        if self.expanding.len() >= EXPANSIONS_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("definitions over {EXPANSIONS_MAX} levels deep"),
            ));
        }
        self.expanding.push(id.clone());
        let result = inside(self);
        self.expanding.pop();
        result.map_err(|mut problem| {
            // A position inside of the definition's text would be read as one in the statement.
            if problem.at.take().is_some() {
                problem.detail = format!("in {id}: {}", problem.detail);
            }
            problem
        })
    }
}

/// A problem with a place in the statement.
fn at(problem: Problem, span: Span) -> Problem {
    match span.start.line {
        0 => problem,
        line => problem.at(line, span.start.column),
    }
}

/// Something that SQL has and we do not.
fn not_offered(what: impl std::fmt::Display) -> Problem {
    Problem::new(Code::NotSupported, format!("{what} is not supported"))
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(Code::BadSql, detail)
}
