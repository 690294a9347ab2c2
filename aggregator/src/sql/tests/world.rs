//! A small world to ask in: documents in memory, whose columns are computed as the definition of a view says, and the
//! planner itself.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{ArrayRef, RecordBatch, RecordBatchOptions},
        datatypes::{Field, Schema},
        util::display::array_value_to_string,
    },
    datasource::MemTable,
    execution::context::SessionContext,
};
use plan::{
    Column, Kinds, Path, PathKinds, Type, What,
    builder::Builder,
    clause::Matcher,
    value::{Scalar, Seen, at, view},
};
use proto::{
    Catalog, CollectionName, Problem,
    catalog::{Change, ChangeRecord, CollectionSettings, LEVEL},
    json,
};

use crate::typing;

use super::super::{Defined, Resolved, Statement, Table, World, define, parse, resolve};

/// Documents of collections, and the catalog.
#[derive(Default)]
pub struct Small {
    catalog: Catalog,
    documents: BTreeMap<CollectionName, Vec<String>>,
}

impl World for Small {
    fn catalog(&self) -> &Catalog {
        &self.catalog
    }

    fn paths(&self, collection: &CollectionName) -> Arc<PathKinds> {
        let mut kinds = PathKinds::default();
        for document in self.documents.get(collection).into_iter().flatten() {
            note(
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

fn note(value: &json::Value<'_>, path: &Path, inside: Kinds, kinds: &mut PathKinds) {
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
            .for_each(|(key, value)| note(value, &path.key(key), inside, kinds)),
        json::Value::Array(items) => items.iter().for_each(|item| {
            if let json::Value::Object(entries) = item {
                entries
                    .iter()
                    .for_each(|(key, value)| note(value, &path.key(key), Kinds::ELEMENT, kinds));
            }
        }),
        _ => {}
    }
}

impl Small {
    /// A world with these collections.
    pub fn with(collections: &[(&str, &[&str])]) -> Self {
        let mut world = Self::default();
        for (name, documents) in collections {
            let name: CollectionName = name.parse().expect("a name");
            world.change(Change::CreateCollection {
                name: name.clone(),
                settings: CollectionSettings::default(),
                placement: Vec::new(),
            });
            world
                .documents
                .insert(name, documents.iter().map(|d| (*d).to_owned()).collect());
        }
        world
    }

    fn change(&mut self, change: Change) {
        let record = ChangeRecord {
            uid: uuid::Uuid::now_v7(),
            level: LEVEL,
            expected: None,
            change,
        };
        let (catalog, result) = self.catalog.apply(&record);
        result.expect("an accepted change");
        self.catalog = catalog;
    }

    /// Runs a CREATE statement; gives its warnings.
    pub fn create(&mut self, sql: &str) -> Result<Vec<String>, Problem> {
        match parse(sql, 1 << 20)? {
            Statement::Define { id, text, replace, .. } => {
                let Defined { change, warnings, .. } = define(&id, &text, replace, self)?;
                let record = ChangeRecord {
                    uid: uuid::Uuid::now_v7(),
                    level: LEVEL,
                    expected: None,
                    change,
                };
                let (catalog, result) = self.catalog.apply(&record);
                self.catalog = catalog;
                result.map(|()| warnings)
            }
            other => panic!("{other:?}"),
        }
    }

    /// The definitions and collections that a definition names.
    pub fn uses(&self, id: &proto::catalog::DefinitionId) -> (Vec<String>, Vec<String>) {
        let version = self.catalog.definitions[id].current();
        (
            version.uses.iter().map(ToString::to_string).collect(),
            version.reads.iter().map(ToString::to_string).collect(),
        )
    }

    /// A query, resolved.
    pub fn resolved(&self, sql: &str, parameters: &[serde_json::Value]) -> Result<Resolved, Problem> {
        match parse(sql, 1 << 20)? {
            Statement::Query(query) => resolve(&query, self, parameters),
            other => panic!("{other:?}"),
        }
    }

    /// Why a query is not answered: by the resolver, or where it gets its types.
    pub fn problem(&self, sql: &str) -> Option<Problem> {
        let resolved = match self.resolved(sql, &[]) {
            Ok(resolved) => resolved,
            Err(problem) => return Some(problem),
        };
        self.analyzed(&resolved).err().map(crate::query::failure::problem)
    }

    fn analyzed(&self, resolved: &Resolved) -> datafusion::error::Result<datafusion::logical_expr::LogicalPlan> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let context =
                SessionContext::new_with_state(typing::session().with_config(plan::functions::settings()).build());
            for used in &resolved.tables {
                let batch = self.rows(&used.table);
                let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("a table");
                context
                    .register_table(used.name.as_str(), Arc::new(table))
                    .expect("registered");
            }
            let state = context.state();
            let plan = front::logical_plan(&state, resolved.query.clone()).await?;
            state
                .analyzer()
                .execute_and_check(plan, state.config_options(), |_, _| {})
        })
    }

    /// The expression that an item of `SELECT item FROM events e` becomes once it has its types.
    pub fn typed(&self, item: &str) -> String {
        let resolved = match self.resolved(&format!("select {item} from events e"), &[]) {
            Ok(resolved) => resolved,
            Err(problem) => return format!("{}: {problem}", problem.code.word()),
        };
        match self.analyzed(&resolved) {
            Ok(plan) => plan
                .expressions()
                .into_iter()
                .next()
                .map_or_else(String::new, |expr| expr.unalias_nested().data.to_string()),
            Err(error) => crate::query::failure::problem(error).to_string(),
        }
    }

    /// A query's resolved text.
    pub fn text(&self, sql: &str) -> String {
        match self.resolved(sql, &[]) {
            Ok(resolved) => resolved.query.to_string(),
            Err(problem) => format!("{}: {problem}", problem.code.word()),
        }
    }

    /// The answer of a query: its columns' names, its rows, its warnings.
    pub fn ask(&self, sql: &str, parameters: &[serde_json::Value]) -> (Vec<String>, Vec<Vec<String>>, Vec<String>) {
        // As in the engine, what plans a statement has a stack for everything within the limits.
        stacker::grow(256 << 20, || self.planned(sql, parameters))
    }

    fn planned(&self, sql: &str, parameters: &[serde_json::Value]) -> (Vec<String>, Vec<Vec<String>>, Vec<String>) {
        let resolved = self
            .resolved(sql, parameters)
            .unwrap_or_else(|problem| panic!("{sql}\n{problem:?}"));
        let text = resolved.query.to_string();
        let query = plan::functions::Query::default();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let batches = runtime.block_on(async {
            let mut state = typing::session().with_config(plan::functions::settings()).build();
            state.config_mut().options_mut().extensions.insert(query.clone());
            let context = SessionContext::new_with_state(state);
            for used in &resolved.tables {
                let batch = self.rows(&used.table);
                let table = MemTable::try_new(batch.schema(), vec![vec![batch]]).expect("a table");
                context
                    .register_table(used.name.as_str(), Arc::new(table))
                    .expect("registered");
            }
            let plan = front::logical_plan(&context.state(), resolved.query.clone())
                .await
                .unwrap_or_else(|e| panic!("{sql}\n{text}\n{e}"));
            let plan = match parameters {
                [] => plan,
                given => plan
                    .with_param_values(
                        given
                            .iter()
                            .map(|value| crate::query::parameter(value).expect("a value"))
                            .collect::<Vec<_>>(),
                    )
                    .expect("values"),
            };
            let frame = context
                .execute_logical_plan(plan)
                .await
                .unwrap_or_else(|e| panic!("{sql}\n{text}\n{e}"));
            let schema = frame.schema().as_arrow().clone();
            let batches = frame.collect().await.unwrap_or_else(|e| panic!("{sql}\n{text}\n{e}"));
            (schema, batches)
        });
        let (schema, batches) = batches;
        let names = schema.fields().iter().map(|f| f.name().clone()).collect();
        let mut rows = Vec::new();
        for batch in &batches {
            for row in 0..batch.num_rows() {
                let cell = |column: &ArrayRef| {
                    if column.is_null(row) || column.data_type().is_null() {
                        "NULL".into()
                    } else {
                        array_value_to_string(column, row).expect("text")
                    }
                };
                rows.push(batch.columns().iter().map(cell).collect());
            }
        }
        (
            names,
            rows,
            resolved.warnings.into_iter().chain(query.notices.warnings()).collect(),
        )
    }

    /// The rows of an answer, cells apart by `|`.
    pub fn rows(&self, table: &Table) -> RecordBatch {
        match table {
            Table::Collection { collection, columns } => {
                let documents = &self.documents[collection];
                let arrays: Vec<ArrayRef> = columns.iter().map(|column| array(column, documents)).collect();
                let paths = self.paths(collection);
                let kinds = |column: &Column| match &column.what {
                    What::Path(path) => paths.paths.get(path).copied().unwrap_or_default(),
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

    /// The rows of an answer as one text: cells apart by `|`, rows by a space and a semicolon.
    pub fn answer(&self, sql: &str) -> String {
        let (_, rows, _) = self.ask(sql, &[]);
        rows.iter().map(|row| row.join("|")).collect::<Vec<_>>().join("; ")
    }
}

/// One column over documents: what the definition of its view says.
fn array(column: &Column, documents: &[String]) -> ArrayRef {
    let mut built = Builder::new(column.view.to, documents.len());
    for (i, document) in documents.iter().enumerate() {
        let root = json::parse(document.as_bytes()).expect("JSON");
        let text = |text: String| Seen::Fits(Scalar::Text(text.into()));
        let verbatim = |path: &Path| json::raw_at(document, &path.json_steps());
        built.push(match &column.what {
            What::Id => text(format!("push/0@{i}")),
            What::Time | What::Ingested => Seen::Fits(Scalar::Time(1_700_000_000_000_000 + i as i64 * 60_000_000)),
            What::Source => text("push".into()),
            What::Partition | What::Item => Seen::Fits(Scalar::Int(0)),
            What::Offset => Seen::Fits(Scalar::Int(i as i64)),
            What::Doc => text(document.clone()),
            What::Key => Seen::Absent,
            What::Search(clause) => Seen::Fits(Scalar::Bool(Matcher::new(clause).matches(&root))),
            What::Path(path) => {
                at(&root, path).map_or(Seen::Absent, |value| view(value, || verbatim(path), column.view))
            }
        });
    }
    built.finish()
}
