//! A schema to test queries against: documents in memory, whose columns are computed directly by the definition of path
//! types, and the real planner.

use std::{collections::BTreeMap, sync::Arc};

use chrono::{DateTime, Utc};
use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, RecordBatchOptions},
        datatypes::{Field, Schema},
        util::display::array_value_to_string,
    },
    datasource::MemTable,
    execution::context::SessionContext,
    logical_expr::LogicalPlan,
};
use plan::{
    Column, ColumnSource, Kinds, Path, PathKinds, Type,
    builder::Builder,
    matcher::Matcher,
    value::{CastResult, Scalar, at, read_value},
};
use proto::{
    Catalog, CollectionName, Problem,
    catalog::{CATALOG_RULES_LEVEL, Change, ChangeRecord, CollectionSettings},
    json,
};

use crate::typing;

use super::super::{DefinitionChange, ResolvedQuery, SchemaContext, Statement, Table, define, parse, resolve};

/// A catalog, and the documents of its collections.
#[derive(Default)]
pub(super) struct TestSchema {
    catalog: Catalog,
    documents: BTreeMap<CollectionName, Vec<String>>,
}

impl SchemaContext for TestSchema {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn now(&self) -> DateTime<Utc> {
        Utc::now()
    }

    fn paths(&self, collection: &CollectionName) -> Arc<PathKinds> {
        let mut kinds = PathKinds::default();
        for document in self.documents.get(collection).into_iter().flatten() {
            add_kinds(
                &json::parse(document.as_bytes()).expect("JSON"),
                &Path::default(),
                Kinds::default(),
                &mut kinds,
            );
        }
        Arc::new(kinds)
    }

    fn system_table(&self, schema: &str, name: &str) -> Option<Vec<(String, Type)>> {
        (schema == "rachis" && name == "sources").then(|| {
            vec![
                ("source".into(), Type::Text),
                ("lag".into(), Type::Int),
                ("last_record".into(), Type::Time),
            ]
        })
    }
}

/// Adds the kinds of a value and of all values inside it. `inside` is `ELEMENT` for values inside an array.
fn add_kinds(value: &json::Value<'_>, path: &Path, inside: Kinds, kinds: &mut PathKinds) {
    if !path.steps().is_empty() {
        *kinds.paths.entry(path.clone()).or_default() |= if inside == Kinds::ELEMENT {
            Kinds::ELEMENT
        } else {
            Kinds::of(value)
        };
    }
    match value {
        json::Value::Object(entries) => entries
            .iter()
            .for_each(|(key, value)| add_kinds(value, &path.key(key), inside, kinds)),
        json::Value::Array(items) => items.iter().for_each(|item| {
            if let json::Value::Object(entries) = item {
                entries
                    .iter()
                    .for_each(|(key, value)| add_kinds(value, &path.key(key), Kinds::ELEMENT, kinds));
            }
        }),
        _ => {}
    }
}

impl TestSchema {
    /// A schema of collections with these documents.
    pub(super) fn with(collections: &[(&str, &[&str])]) -> Self {
        let mut schema = Self::default();
        for (name, documents) in collections {
            let name: CollectionName = name.parse().expect("a name");
            schema.apply(Change::CreateCollection {
                name: name.clone(),
                settings: CollectionSettings::default(),
                placement: Vec::new(),
            });
            schema
                .documents
                .insert(name, documents.iter().map(|d| (*d).to_owned()).collect());
        }
        schema
    }

    fn apply(&mut self, change: Change) {
        let (catalog, result) = self.catalog.apply(&record_of(change));
        result.expect("an accepted change");
        self.catalog = catalog;
    }

    /// Runs a CREATE statement and returns its warnings.
    pub(super) fn create(&mut self, sql: &str) -> Result<Vec<String>, Problem> {
        match parse(sql, 1 << 20)? {
            Statement::ChangeDefinition(DefinitionChange::Define(new)) => {
                let defined = define(&new, self)?;
                let change = Change::Define {
                    id: new.id,
                    text: new.text,
                    uses: defined.uses,
                    reads: defined.reads,
                    replace: new.replace,
                    note: new.note,
                    author: None,
                    number: None,
                };
                let (catalog, result) = self.catalog.apply(&record_of(change));
                self.catalog = catalog;
                result.map(|()| defined.warnings)
            }
            other => panic!("{other:?}"),
        }
    }

    /// The definitions and the collections that a definition uses.
    pub(super) fn uses(&self, id: &proto::catalog::DefinitionId) -> (Vec<String>, Vec<String>) {
        let version = self.catalog.definitions[id].current();
        (
            version.uses.iter().map(ToString::to_string).collect(),
            version.reads.iter().map(ToString::to_string).collect(),
        )
    }

    pub(super) fn resolve(&self, sql: &str, parameters: &[serde_json::Value]) -> Result<ResolvedQuery, Problem> {
        match parse(sql, 1 << 20)? {
            Statement::Query(query) => resolve(&query, self, parameters, &[]),
            other => panic!("{other:?}"),
        }
    }

    /// The error of a query, from the resolver or from typing.
    pub(super) fn problem(&self, sql: &str) -> Option<Problem> {
        let resolved = match self.resolve(sql, &[]) {
            Ok(resolved) => resolved,
            Err(problem) => return Some(problem),
        };
        self.analyze(&resolved).err().map(crate::failure::problem)
    }

    /// Plans a resolved query and assigns its types.
    fn analyze(&self, resolved: &ResolvedQuery) -> datafusion::error::Result<LogicalPlan> {
        runtime().block_on(async {
            let state = typing::session().with_config(plan::functions::settings()).build();
            let context = SessionContext::new_with_state(state);
            self.register_tables(&context, resolved);
            let state = context.state();
            let plan = front::logical_plan(&state, resolved.query.clone()).await?;
            state
                .analyzer()
                .execute_and_check(plan, state.config_options(), |_, _| {})
        })
    }

    /// Registers the tables of a resolved query, with all their rows.
    fn register_tables(&self, context: &SessionContext, resolved: &ResolvedQuery) {
        for used in &resolved.tables {
            let batch = self.rows(&used.table);
            let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("a table");
            context
                .register_table(used.name.as_str(), Arc::new(table))
                .expect("registered");
        }
    }

    /// The typed expression for an item of `SELECT item FROM events e`, as text.
    pub(super) fn typed_item(&self, item: &str) -> String {
        let resolved = match self.resolve(&format!("select {item} from events e"), &[]) {
            Ok(resolved) => resolved,
            Err(problem) => return format!("{}: {problem}", problem.code.as_str()),
        };
        match self.analyze(&resolved) {
            Ok(plan) => plan
                .expressions()
                .into_iter()
                .next()
                .map_or_else(String::new, |expr| expr.unalias_nested().data.to_string()),
            Err(error) => crate::failure::problem(error).to_string(),
        }
    }

    /// The SQL to which a query resolves.
    pub(super) fn resolved_sql(&self, sql: &str) -> String {
        match self.resolve(sql, &[]) {
            Ok(resolved) => resolved.query.to_string(),
            Err(problem) => format!("{}: {problem}", problem.code.as_str()),
        }
    }

    /// Runs a query and returns its column names, rows and warnings.
    pub(super) fn run(
        &self,
        sql: &str,
        parameters: &[serde_json::Value],
    ) -> (Vec<String>, Vec<Vec<String>>, Vec<String>) {
        // As in the engine, the stack is large enough for every statement within the limits.
        stacker::grow(256 << 20, || self.run_on_this_stack(sql, parameters))
    }

    fn run_on_this_stack(
        &self,
        sql: &str,
        parameters: &[serde_json::Value],
    ) -> (Vec<String>, Vec<Vec<String>>, Vec<String>) {
        let resolved = self
            .resolve(sql, parameters)
            .unwrap_or_else(|problem| panic!("{sql}\n{problem:?}"));
        let text = resolved.query.to_string();
        let functions = plan::functions::FunctionContext::default();
        let (schema, batches) = runtime().block_on(async {
            let mut state = typing::session().with_config(plan::functions::settings()).build();
            state.config_mut().options_mut().extensions.insert(functions.clone());
            let context = SessionContext::new_with_state(state);
            self.register_tables(&context, &resolved);
            let plan = front::logical_plan(&context.state(), resolved.query.clone())
                .await
                .unwrap_or_else(|e| panic!("{sql}\n{text}\n{e}"));
            let frame = context
                .execute_logical_plan(with_parameters(plan, parameters))
                .await
                .unwrap_or_else(|e| panic!("{sql}\n{text}\n{e}"));
            let schema = frame.schema().as_arrow().clone();
            let batches = frame.collect().await.unwrap_or_else(|e| panic!("{sql}\n{text}\n{e}"));
            (schema, batches)
        });
        let names = schema.fields().iter().map(|f| f.name().clone()).collect();
        let warnings = resolved
            .warnings
            .into_iter()
            .chain(functions.warnings.messages())
            .collect();
        (names, batches.iter().flat_map(cells).collect(), warnings)
    }

    /// All rows of a table; system tables are empty.
    pub(super) fn rows(&self, table: &Table) -> RecordBatch {
        match table {
            Table::Collection { collection, columns } => {
                let documents = &self.documents[collection];
                let arrays: Vec<ArrayRef> = columns.iter().map(|column| array(column, documents)).collect();
                let paths = self.paths(collection);
                let kinds = |column: &Column| match &column.source {
                    ColumnSource::Path(path) => paths.paths.get(path).copied().unwrap_or_default(),
                    _ => Kinds::default(),
                };
                let schema = Schema::new(
                    columns
                        .iter()
                        .map(|column| column.field_of(kinds(column)))
                        .collect::<Vec<Field>>(),
                );
                RecordBatch::try_new_with_options(
                    Arc::new(schema),
                    arrays,
                    &RecordBatchOptions::new().with_row_count(Some(documents.len())),
                )
                .expect("a batch")
            }
            Table::System { schema, name } => {
                let columns = self.system_table(schema, name).expect("a table");
                let schema = Schema::new(
                    columns
                        .into_iter()
                        .map(|(name, of)| Field::new(name, of.arrow(), true))
                        .collect::<Vec<_>>(),
                );
                RecordBatch::new_empty(Arc::new(schema))
            }
        }
    }

    /// The rows of a result as one text: cells separated by `|`, rows by a semicolon and a space.
    pub(super) fn answer(&self, sql: &str) -> String {
        let (_, rows, _) = self.run(sql, &[]);
        rows.iter().map(|row| row.join("|")).collect::<Vec<_>>().join("; ")
    }
}

fn record_of(change: Change) -> ChangeRecord {
    ChangeRecord {
        uid: uuid::Uuid::now_v7(),
        level: CATALOG_RULES_LEVEL,
        expected: None,
        change,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime")
}

fn with_parameters(plan: LogicalPlan, parameters: &[serde_json::Value]) -> LogicalPlan {
    if parameters.is_empty() {
        return plan;
    }
    let values: Vec<_> = parameters
        .iter()
        .map(|value| crate::query::parameter(value).expect("a value"))
        .collect();
    plan.with_param_values(values).expect("values")
}

/// The rows of a batch, each cell as text.
fn cells(batch: &RecordBatch) -> Vec<Vec<String>> {
    let cell = |column: &ArrayRef, row: usize| {
        if column.is_null(row) || column.data_type().is_null() {
            "NULL".into()
        } else {
            array_value_to_string(column, row).expect("text")
        }
    };
    (0..batch.num_rows())
        .map(|row| batch.columns().iter().map(|column| cell(column, row)).collect())
        .collect()
}

/// The values of a column in all documents, by the definition of its path type.
fn array(column: &Column, documents: &[String]) -> ArrayRef {
    let mut built = Builder::new(column.read_as.to, documents.len());
    for (i, document) in documents.iter().enumerate() {
        let root = json::parse(document.as_bytes()).expect("JSON");
        let text = |text: String| CastResult::Fits(Scalar::Text(text.into()));
        let verbatim = |path: &Path| json::raw_at(document, path.steps());
        built.push(match &column.source {
            ColumnSource::Id => text(format!("push/0@{i}")),
            ColumnSource::Time | ColumnSource::Ingested => {
                CastResult::Fits(Scalar::Time(1_700_000_000_000_000 + i as i64 * 60_000_000))
            }
            ColumnSource::Source => text("push".into()),
            ColumnSource::Partition | ColumnSource::Item => CastResult::Fits(Scalar::Int(0)),
            ColumnSource::Offset => CastResult::Fits(Scalar::Int(i as i64)),
            ColumnSource::Doc => text(document.clone()),
            ColumnSource::Key => CastResult::Absent,
            ColumnSource::Search(clause) => CastResult::Fits(Scalar::Bool(Matcher::new(clause).matches(&root))),
            ColumnSource::Tokens(path) => {
                CastResult::Fits(Scalar::Int(plan::matcher::count_tokens(&root, path.as_ref()) as i64))
            }
            ColumnSource::Score(_) => panic!("statements name no scores with known statistics"),
            ColumnSource::Path(path) => at(&root, path).map_or(CastResult::Absent, |value| {
                read_value(value, || verbatim(path), column.read_as)
            }),
        });
    }
    built.finish()
}
