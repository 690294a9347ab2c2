//! The state while a query is resolved, and what it may grow to.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    rc::Rc,
};

use chrono::{DateTime, Utc};
use datafusion::sql::sqlparser::{ast, tokenizer::Location};
use plan::Column;
use proto::{
    Catalog, Code, CollectionName, Problem,
    catalog::{DefinitionId, DefinitionKind, DefinitionUse, DefinitionVersion, VersionRef},
    limits::DEFINITION_DEPTH_MAX,
};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::scope::{CteInScope, Scope};
use crate::sql::{
    ResolvedQuery, SchemaContext, Table, TableUse,
    copies::{Copies, expressions},
    names::CollectionNames,
};

/// Base tables of one query, including those of its views.
pub(in crate::sql) const TABLES_MAX: usize = 200;
/// Expressions of one query, including those of expanded definitions.
pub(in crate::sql) const EXPRESSIONS_MAX: usize = 200_000;
/// Relations of one query. A WITH query counts once for each use, and a subquery once for each copy.
const RELATIONS_MAX: usize = 200;
/// Bytes of a text that cost as much as an expression.
const BYTES_OF_EXPRESSION: usize = 32;
/// Subqueries in expressions, once for each copy. Each becomes a join.
const SUBQUERIES_MAX: usize = 100;
/// Warnings returned for one query.
pub(in crate::sql) const WARNINGS_MAX: usize = 50;
/// Top-level keys that `*` expands to.
pub(in crate::sql) const STAR_KEYS_MAX: usize = 200;

/// The state while a query is resolved.
pub(in crate::sql) struct Resolver<'c> {
    pub(super) context: &'c dyn SchemaContext,
    /// The catalog to look names up in: the context's, or a copy with the definition being created.
    pub(in crate::sql) catalog: &'c Catalog,
    pub(super) parameters: &'c [serde_json::Value],
    /// Where the quoted texts of the statement begin that become further parameters.
    pub(super) quoted: &'c [Location],
    pub tables: Vec<TableUse>,
    pub(super) warnings: Vec<String>,
    pub(super) names: HashMap<CollectionName, Rc<CollectionNames<'c>>>,
    /// Versions of definitions being expanded, outermost first.
    pub(super) expanding: Vec<(DefinitionId, u32)>,
    /// What relative times in searches are relative to.
    pub now: DateTime<Utc>,
    /// Whether a search has such a time.
    pub is_relative: bool,
    /// Versions of definitions that were expanded.
    expanded: BTreeSet<(DefinitionId, u32)>,
    /// Definitions used directly by the one that is expanded first.
    uses: BTreeSet<DefinitionUse>,
    /// Collections that the query reads, or the definition that is expanded first: not those that it uses.
    pub reads: BTreeSet<CollectionName>,
    /// Scopes of the FROM clauses around the current expression, outermost first.
    pub scopes: Vec<Scope<'c>>,
    /// WITH queries in scope, outermost first.
    pub(super) ctes: Vec<CteInScope>,
    pub(super) cte_count: usize,
    /// Relations that the query reads once its WITH queries are inlined.
    pub relations: usize,
    pub(super) expressions: usize,
    pub(super) subqueries: usize,
    /// Subqueries in expressions around the current one.
    pub(super) subqueries_around: usize,
    /// WITH clauses whose queries are being resolved.
    pub(super) with_clauses_around: usize,
    /// Expressions of WITH queries, once for each use.
    pub(super) inlined_expressions: usize,
    pub(super) copies: Copies,
    /// States of the regular expressions so far.
    pub(super) pattern_states: u64,
    /// The windows that rows are sorted for, each once.
    pub(super) windows: HashSet<(Vec<ast::Expr>, Vec<ast::OrderByExpr>)>,
    /// Whether the current expression is a condition on rows: WHERE, HAVING or ON.
    pub(in crate::sql) in_filter: bool,
    /// Whether the current name is one in a search.
    pub(in crate::sql) in_search: bool,
    /// The index of the outermost scope in which a name was resolved. It shows whether a subquery is correlated.
    pub(super) outermost_scope: usize,
}

/// What a resolver has resolved at one moment.
#[derive(Debug, Clone, Copy)]
pub(in crate::sql) struct Resolved {
    pub(super) expressions: usize,
    relations: usize,
    pub(super) subqueries: usize,
}

impl<'c> Resolver<'c> {
    pub(in crate::sql) fn new(
        context: &'c dyn SchemaContext,
        catalog: &'c Catalog,
        parameters: &'c [serde_json::Value],
    ) -> Self {
        Self {
            context,
            catalog,
            parameters,
            quoted: &[],
            tables: Vec::new(),
            warnings: Vec::new(),
            names: HashMap::new(),
            expanding: Vec::new(),
            now: context.now(),
            is_relative: false,
            expanded: BTreeSet::new(),
            uses: BTreeSet::new(),
            reads: BTreeSet::new(),
            scopes: Vec::new(),
            ctes: Vec::new(),
            cte_count: 0,
            relations: 0,
            expressions: 0,
            subqueries: 0,
            subqueries_around: 0,
            with_clauses_around: 0,
            inlined_expressions: 0,
            copies: Copies::default(),
            pattern_states: 0,
            windows: HashSet::new(),
            in_filter: false,
            in_search: false,
            outermost_scope: usize::MAX,
        }
    }

    pub(super) fn into_resolved(self, query: ast::Query) -> ResolvedQuery {
        ResolvedQuery {
            query: Box::new(query),
            definitions_hash: self.definitions_hash(),
            is_relative: self.is_relative,
            tables: self.tables,
            warnings: self.warnings,
        }
    }

    fn definitions_hash(&self) -> u64 {
        self.expanded.iter().fold(0, |hash, (id, number)| {
            let definition = self.catalog.definitions.get(id);
            let text = definition.and_then(|definition| definition.numbered(*number));
            let text = text.map_or("", |version| &version.text);
            xxh3_64_with_seed(format!("{id}@{number} {text}").as_bytes(), hash)
        })
    }

    /// Adds a warning for the user, unless it is a repetition or there are too many.
    pub(in crate::sql) fn warn(&mut self, warning: String) {
        if self.warnings.len() < WARNINGS_MAX && !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }

    /// The number of warnings so far, for [`Self::forget_warnings`].
    pub(in crate::sql) fn warning_count(&self) -> usize {
        self.warnings.len()
    }

    /// Removes all warnings but the first `first`.
    pub(in crate::sql) fn forget_warnings(&mut self, first: usize) {
        self.warnings.truncate(first);
    }

    pub(in crate::sql) fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// The definitions that the definition expanded first uses directly.
    pub(in crate::sql) fn take_uses(&mut self) -> Vec<DefinitionUse> {
        std::mem::take(&mut self.uses).into_iter().collect()
    }

    /// The value of `$index`.
    pub(in crate::sql) fn parameter(&self, index: usize) -> Option<&serde_json::Value> {
        self.parameters.get(index.checked_sub(1)?)
    }

    /// Records that a column of a table is read.
    pub(in crate::sql) fn add_column(&mut self, table: usize, column: Column) {
        if let Some(TableUse {
            table: Table::Collection { columns, .. },
            ..
        }) = self.tables.get_mut(table)
            && !columns.contains(&column)
        {
            columns.push(column);
        }
    }

    /// The names of a collection, the same for all of the query.
    pub(in crate::sql) fn collection_names(&mut self, collection: &CollectionName) -> Rc<CollectionNames<'c>> {
        let (catalog, context) = (self.catalog, self.context);
        let names = self
            .names
            .entry(collection.clone())
            .or_insert_with(|| Rc::new(CollectionNames::new(collection, catalog, context.paths(collection))));
        Rc::clone(names)
    }

    /// Counts an expression, including those of expanded definitions. This stops definitions that double at every
    /// level.
    pub(in crate::sql) fn count_expression(&mut self) -> Result<(), Problem> {
        self.expressions += 1;
        match self.expressions > EXPRESSIONS_MAX {
            true => Err(Problem::new(
                Code::TooComplex,
                format!("the query has more than {EXPRESSIONS_MAX} expressions"),
            )
            .hint("each use of a field or view adds all expressions of its definition")),
            false => Ok(()),
        }
    }

    /// Counts relations. A WITH query counts for each use, because the planner inlines each use.
    pub(in crate::sql) fn count_relations(&mut self, more: usize) -> Result<(), Problem> {
        self.relations = self.relations.saturating_add(more);
        match self.relations > RELATIONS_MAX {
            true => Err(Problem::new(
                Code::TooComplex,
                format!("the query reads more than {RELATIONS_MAX} relations"),
            )
            .hint(
                "each use of a WITH query adds all relations that it reads; IN with a subquery adds those of the \
                 subquery three times, unless it is a condition of WHERE that AND combines with others",
            )),
            false => Ok(()),
        }
    }

    /// Counts subqueries in expressions.
    pub(in crate::sql) fn count_subqueries(&mut self, more: usize) -> Result<(), Problem> {
        self.subqueries = self.subqueries.saturating_add(more);
        match self.subqueries > SUBQUERIES_MAX {
            true => Err(Problem::new(
                Code::TooComplex,
                format!("the statement has more than {SUBQUERIES_MAX} subqueries in its expressions"),
            )
            .hint(
                "join with a query in FROM or WITH instead; IN with a subquery counts three times, unless it is a \
                 condition of WHERE that AND combines with others",
            )),
            false => Ok(()),
        }
    }

    /// What was resolved so far, for [`Self::charge_copies`].
    pub(in crate::sql) fn resolved(&self) -> Resolved {
        Resolved {
            expressions: self.expressions.saturating_add(self.inlined_expressions),
            relations: self.relations,
            subqueries: self.subqueries,
        }
    }

    /// Charges further copies of everything that was resolved since.
    pub(super) fn charge_copies(&mut self, copies: usize, since: Resolved) -> Result<(), Problem> {
        let now = self.resolved();
        let expressions = now.expressions.saturating_sub(since.expressions);
        self.copies.charge(copies, expressions)?;
        self.expressions = self.expressions.saturating_add(copies.saturating_mul(expressions));
        self.count_subqueries(copies.saturating_mul(now.subqueries.saturating_sub(since.subqueries)))?;
        let relations = now.relations.saturating_sub(since.relations);
        self.count_relations(copies.saturating_mul(relations))
    }

    /// Charges everything that was resolved since as a copy.
    pub(in crate::sql) fn charge_as_copy(&mut self, since: Resolved) -> Result<(), Problem> {
        let expressions = self.resolved().expressions.saturating_sub(since.expressions);
        self.copies.charge(1, expressions)
    }

    /// Charges copies of a literal text.
    pub(in crate::sql) fn charge_text(&mut self, copies: usize, text: &str) -> Result<(), Problem> {
        self.copies.charge(copies, 1 + text.len() / BYTES_OF_EXPRESSION)
    }

    /// Charges copies of a resolved expression.
    pub(in crate::sql) fn charge_expression(&mut self, copies: usize, expr: &ast::Expr) -> Result<(), Problem> {
        self.copies.charge(copies, expressions(expr))
    }

    /// Finds a version of a definition that is used.
    pub(in crate::sql) fn used(
        &mut self,
        id: &DefinitionId,
        version: &VersionRef,
    ) -> Result<&'c DefinitionVersion, Problem> {
        let found = self.catalog.definition_version(id, version)?;
        if self.expanding.len() == 1 {
            self.uses.insert(DefinitionUse {
                id: id.clone(),
                version: version.clone(),
            });
        }
        Ok(found)
    }

    /// Runs `inside` as the expansion of a version of a definition. Detects cycles and limits the nesting of definitions.
    pub(in crate::sql) fn expand<T>(
        &mut self,
        id: &DefinitionId,
        number: u32,
        inside: impl FnOnce(&mut Self) -> Result<T, Problem>,
    ) -> Result<T, Problem> {
        let version = (id.clone(), number);
        if self.expanding.contains(&version) {
            let names = self.expanding.iter().chain([&version]).map(|(id, _)| id.to_string());
            let hint = match id.kind {
                DefinitionKind::Field | DefinitionKind::Parser => {
                    format!("to reach the stored value of the same name, write _doc->'{}'", id.name)
                }
                kind => format!("a {} cannot use itself", kind.as_str()),
            };
            let chain: Vec<String> = names.collect();
            return Err(
                Problem::new(Code::Conflict, format!("{id} would use itself: {}", chain.join(" -> "))).hint(hint),
            );
        }
        if self.expanding.len() >= DEFINITION_DEPTH_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("definitions are nested more than {DEFINITION_DEPTH_MAX} levels deep"),
            ));
        }
        self.expanded.insert(version.clone());
        self.expanding.push(version);
        let result = inside(self);
        self.expanding.pop();
        result.map_err(|mut problem| {
            // A position in the definition's text would be misread as one in the statement.
            if problem.at.take().is_some() {
                problem.detail = format!("in {id}: {}", problem.detail);
            }
            problem
        })
    }
}
