//! Resolves table names in FROM: WITH queries, collections, views and system tables.

use datafusion::sql::sqlparser::ast::{Ident, ObjectName, TableAlias, TableFactor};
use proto::{
    Code, CollectionName, Problem,
    catalog::{DefinitionId, VersionRef},
};

use super::{
    build::{derived, table_factor, untyped_column},
    problem::{at, not_offered},
    query::rename,
    resolver::{Resolver, TABLES_MAX},
    scope::{CteInScope, InputKind, OutputColumn},
};
use crate::sql::{
    Table, TableUse,
    reads::{no_such_table, view_version},
    statement,
};

impl Resolver<'_> {
    /// Resolves a table name and adds the table as an input.
    pub(super) fn table(&mut self, name: &ObjectName, alias: Option<&TableAlias>) -> Result<TableFactor, Problem> {
        let parts: Vec<Ident> = name.0.iter().filter_map(|part| part.as_ident().cloned()).collect();
        match parts.as_slice() {
            [only] => {
                if let Some(cte) = self.find_cte(&only.value) {
                    self.count_relations(cte.relations)?;
                    // The planner inlines each use.
                    self.copies.charge(usize::from(cte.used), cte.expressions)?;
                    self.inlined_expressions = self.inlined_expressions.saturating_add(cte.expressions);
                    return self.fixed_columns(&cte.internal, cte.columns, only, alias);
                }
                self.count_relations(1)?;
                self.collection_or_view(only, alias)
            }
            [schema, table] => self.system_table(schema, table, alias),
            _ => Err(Problem::new(Code::NotFound, format!("table {name} does not exist"))),
        }
    }

    /// The innermost WITH query of a name, as written or ignoring case. It counts as used from then on.
    fn find_cte(&mut self, name: &str) -> Option<CteInScope> {
        let written = self.ctes.iter().rposition(|cte| cte.name == name);
        let folded = || (self.ctes.iter()).rposition(|cte| cte.name.eq_ignore_ascii_case(name));
        let index = written.or_else(folded)?;
        let cte = self.ctes.get_mut(index)?;
        let found = cte.clone();
        cte.used = true;
        Some(found)
    }

    fn system_table(
        &mut self,
        schema: &Ident,
        table: &Ident,
        alias: Option<&TableAlias>,
    ) -> Result<TableFactor, Problem> {
        let (schema_name, table_name) = (schema.value.to_lowercase(), table.value.to_lowercase());
        let columns = self.context.system_table(&schema_name, &table_name).ok_or_else(|| {
            let hint = "SHOW TABLES lists all tables; write the name of a collection without a schema";
            at(
                Problem::new(
                    Code::NotFound,
                    format!("table {schema_name}.{table_name} does not exist"),
                )
                .hint(hint),
                schema.span,
            )
        })?;
        let columns = columns.into_iter().map(|(name, _)| OutputColumn::new(name)).collect();
        let internal = self.base_table(Table::System {
            schema: schema_name,
            name: table_name,
        })?;
        self.fixed_columns(&internal, columns, table, alias)
    }

    /// A collection or a view, as written or in lower case.
    fn collection_or_view(&mut self, name: &Ident, alias: Option<&TableAlias>) -> Result<TableFactor, Problem> {
        let catalog = self.catalog;
        for spelled in [name.value.clone(), name.value.to_lowercase()] {
            if let Some((view, version)) = view_version(&spelled, catalog)? {
                return self.view(&view, &version, name, alias);
            }
            if let Ok(collection) = spelled.parse::<CollectionName>()
                && catalog.collections.contains_key(&collection)
            {
                return self.collection(&collection, name, alias);
            }
        }
        Err(at(no_such_table(&name.value, catalog), name.span))
    }

    fn collection(
        &mut self,
        collection: &CollectionName,
        name: &Ident,
        alias: Option<&TableAlias>,
    ) -> Result<TableFactor, Problem> {
        if alias.is_some_and(|alias| !alias.columns.is_empty()) {
            return Err(not_offered("a list of column names for a collection").hint("documents have no fixed columns"));
        }
        if self.expanding.len() <= 1 {
            self.reads.insert(collection.clone());
        }
        let internal = self.base_table(Table::Collection {
            collection: collection.clone(),
            columns: vec![],
        })?;
        let names = self.collection_names(collection);
        let alias = alias.map_or(name, |alias| &alias.name);
        self.add_input(
            alias,
            InputKind::Documents {
                table: self.tables.len() - 1,
                names,
            },
        )?;
        Ok(table_factor(&internal, &alias.value))
    }

    fn view(
        &mut self,
        id: &DefinitionId,
        version: &VersionRef,
        name: &Ident,
        alias: Option<&TableAlias>,
    ) -> Result<TableFactor, Problem> {
        let version = self.used(id, version)?;
        let parsed = statement::parse_query(&version.text, proto::limits::DEFINITION_BYTES_MAX)?;
        let (query, columns) = self.expand(id, version.number, |resolver| {
            resolver.isolated(|resolver| resolver.query(&parsed))
        })?;
        let (alias, renamed) = alias_and_columns(name, alias);
        let columns = rename(columns, &renamed, &alias.value)?;
        let names: Vec<String> = columns.iter().map(|c| c.name.clone()).collect();
        self.add_input(alias, InputKind::Columns(columns.into()))?;
        Ok(derived(query, &alias.value, &names))
    }

    /// A table of fixed columns.
    fn fixed_columns(
        &mut self,
        internal: &str,
        columns: Vec<OutputColumn>,
        name: &Ident,
        alias: Option<&TableAlias>,
    ) -> Result<TableFactor, Problem> {
        let (alias, renamed) = alias_and_columns(name, alias);
        if renamed.is_empty() {
            self.add_input(alias, InputKind::Columns(columns.into()))?;
            return Ok(table_factor(internal, &alias.value));
        }
        let columns = rename(columns, &renamed, &alias.value)?;
        let names = columns.iter().map(|c| untyped_column(&c.name)).collect();
        self.add_input(alias, InputKind::Columns(columns.into()))?;
        let mut factor = table_factor(internal, &alias.value);
        if let TableFactor::Table { alias: Some(alias), .. } = &mut factor {
            alias.columns = names;
        }
        Ok(factor)
    }

    /// Adds a base table for a collection's documents. Returns its index.
    pub(crate) fn document_table(&mut self, collection: &CollectionName) -> Result<usize, Problem> {
        self.base_table(Table::Collection {
            collection: collection.clone(),
            columns: vec![],
        })?;
        Ok(self.tables.len() - 1)
    }

    /// Adds a base table. Returns its name.
    fn base_table(&mut self, table: Table) -> Result<String, Problem> {
        if self.tables.len() >= TABLES_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("the query reads more than {TABLES_MAX} tables"),
            )
            .hint("each use of a view adds all tables that it reads"));
        }
        let name = format!("rachis_{}", self.tables.len());
        self.tables.push(TableUse {
            name: name.clone(),
            table,
        });
        Ok(name)
    }
}

/// The name that a table has in its scope, and the column names of its alias.
fn alias_and_columns<'a>(name: &'a Ident, alias: Option<&'a TableAlias>) -> (&'a Ident, Vec<String>) {
    match alias {
        None => (name, Vec::new()),
        Some(alias) => (
            &alias.name,
            alias.columns.iter().map(|c| c.name.value.clone()).collect(),
        ),
    }
}
