//! SUMMARIZE: for each column of a table or a query, its least and greatest value, how many different values it has, its
//! mean and quartiles, and how often it is NULL. It becomes queries of aggregates over one read view.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, RecordBatch},
        compute::cast,
        datatypes::DataType,
    },
    physical_plan::execute_stream,
};
use futures::TryStreamExt as _;
use plan::{Path, Type, path::Step};
use proto::{Code, CollectionName, Problem};
use serde_json::{Value, json};

use super::{Engine, context::QueryContext, read_views::QueryViews, run::QueryOutput, statement::prepare, system};
use crate::{
    answer::{SqlQuery, type_name},
    failure,
    sql::{self, SchemaContext as _, Statement, Summarized},
};

/// Columns that are summarized, at most.
const COLUMNS_MAX: usize = 1_000;
/// The alias of what is summarized. All names are qualified with it, so a path that begins with it does no harm.
const ALIAS: &str = "\"\u{1}\"";
/// Columns in one query.
const COLUMNS_AT_ONCE: usize = 25;

/// The columns of the result.
const RESULT: [(&str, Type); 12] = [
    ("column_name", Type::Text),
    ("column_type", Type::Text),
    ("min", Type::Text),
    ("max", Type::Text),
    ("approx_unique", Type::Int),
    ("avg", Type::Double),
    ("std", Type::Double),
    ("q25", Type::Double),
    ("q50", Type::Double),
    ("q75", Type::Double),
    ("count", Type::Int),
    ("null_percentage", Type::Double),
];

/// A column to summarize.
struct Column {
    name: String,
    /// How a statement spells it.
    spelled: String,
    type_name: String,
    data_type: Option<DataType>,
}

/// Summarizes what the statement names.
pub(super) async fn run(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    summarized: &Summarized,
) -> Result<QueryOutput, Problem> {
    let relation = format!("{} AS {ALIAS}", summarized.relation);
    let all = format!("SELECT * FROM {relation}");
    let (read_views, planned) = plan(engine, context, request, &all, None).await?;
    let mut columns = match &summarized.collection {
        Some(name) if engine.catalog().collections.contains_key(name) => columns_of_documents(&read_views, name),
        _ => (planned.physical.schema().fields().iter())
            .map(|field| Column {
                name: field.name().clone(),
                spelled: spelled(&Path::of_keys([field.name().as_str()])),
                type_name: type_name(field.data_type()).to_string(),
                data_type: Some(field.data_type().clone()),
            })
            .collect(),
    };
    if columns.len() > COLUMNS_MAX {
        let left_out = columns.len() - COLUMNS_MAX;
        columns.truncate(COLUMNS_MAX);
        context.report.warn(format!(
            "{left_out} columns are left out: SUMMARIZE takes {COLUMNS_MAX}; name those you need in SUMMARIZE SELECT …"
        ));
    }
    let (mut rows, mut read_views) = (Vec::with_capacity(columns.len()), read_views);
    for columns in columns.chunks(COLUMNS_AT_ONCE) {
        let values: Vec<String> = columns.iter().flat_map(aggregates).collect();
        let text = format!("SELECT count(*), {} FROM {relation}", values.join(", "));
        let (same_views, planned) = plan(engine, context, request, &text, Some(read_views)).await?;
        read_views = same_views;
        let stream = execute_stream(planned.physical, planned.task).map_err(failure::problem)?;
        let batches: Vec<RecordBatch> = stream.map_err(failure::problem).try_collect().await?;
        let found = texts(&batches)?;
        let (total, found) = match found.split_first() {
            Some((total, found)) => (number(total.as_deref()).unwrap_or_default(), found),
            None => return Err(Problem::new(Code::Internal, "an aggregate has no row")),
        };
        let summaries = columns.iter().zip(found.chunks(AGGREGATES));
        rows.extend(summaries.map(|(column, found)| row(column, found, total)));
    }
    Ok(QueryOutput {
        read_views: Some(read_views),
        ..QueryOutput::of_batch(system::batch(&RESULT, &rows)?)
    })
}

/// Plans a query that this module has written.
async fn plan(
    engine: &Engine,
    context: &Arc<QueryContext>,
    request: &SqlQuery,
    text: &str,
    read_views: Option<QueryViews>,
) -> Result<(QueryViews, super::query_plan::ExecutablePlan), Problem> {
    let Statement::Query(query) = sql::parse(text, text.len())? else {
        return Err(Problem::new(Code::Internal, "an internal statement is not a query"));
    };
    let (read_views, planned, _) = prepare(engine, context, request, None, &query, read_views).await?;
    Ok((read_views, planned.executable))
}

/// The event time, the fields and the paths of a collection. A path of lists or objects is a column, too: how often it
/// is there.
fn columns_of_documents(read_views: &QueryViews, collection: &CollectionName) -> Vec<Column> {
    let column = |path: &Path, to: Option<Type>, seen: String| Column {
        name: path.to_string(),
        spelled: spelled(path),
        type_name: to.map_or(seen, |to| system::sql_name(to).to_owned()),
        data_type: to.map(Type::arrow),
    };
    let time = Path::of_keys(["_time"]);
    let fields = sql::defined_columns(read_views.catalog(), collection);
    let fields = fields.into_iter();
    let fields: BTreeMap<Path, Option<Type>> = fields
        .filter_map(|field| Some((Path::parse(&field.path).ok()?, field.data_type)))
        .collect();
    let columns = fields.iter().map(|(path, to)| column(path, *to, "JSON".to_owned()));
    let paths = read_views.paths(collection);
    let paths = (paths.paths.iter()).filter(|(path, _)| !path.steps().is_empty() && !fields.contains_key(*path));
    let paths = paths.map(|(path, kinds)| column(path, kinds.native(), kinds.to_string()));
    let time = column(&time, Some(Type::Time), String::new());
    std::iter::once(time).chain(columns).chain(paths).collect()
}

/// A path of the summarized relation in SQL. All keys are quoted, so that none is read as a keyword.
fn spelled(path: &Path) -> String {
    path.steps().iter().fold(ALIAS.to_owned(), |start, step| match step {
        Step::Key(key) => format!("{start}.\"{}\"", key.replace('"', "\"\"")),
        Step::Index(index) => format!("{start}[{index}]"),
    })
}

/// The number of aggregates of a column.
const AGGREGATES: usize = 9;

/// The aggregates of a column, in the order of the result.
fn aggregates(column: &Column) -> [String; AGGREGATES] {
    let value = &column.spelled;
    let none = || "NULL".to_owned();
    let (is_ordered, is_number) = match &column.data_type {
        Some(data_type) if data_type.is_numeric() => (true, true),
        Some(DataType::Utf8View | DataType::Utf8 | DataType::Boolean) => (true, false),
        Some(data_type) => (data_type.is_temporal(), false),
        None => (false, false),
    };
    let of_order = |call: String| if is_ordered { call } else { none() };
    let of_number = |call: String| if is_number { call } else { none() };
    [
        of_order(format!("min({value})")),
        of_order(format!("max({value})")),
        format!("approx_distinct({value})"),
        of_number(format!("avg({value})")),
        of_number(format!("stddev_samp({value})")),
        of_number(format!("approx_quantile({value}, 0.25)")),
        of_number(format!("approx_quantile({value}, 0.5)")),
        of_number(format!("approx_quantile({value}, 0.75)")),
        format!("count({value})"),
    ]
}

/// The values of the only row, as texts.
fn texts(batches: &[RecordBatch]) -> Result<Vec<Option<String>>, Problem> {
    let Some(batch) = batches.iter().find(|batch| batch.num_rows() > 0) else {
        return Ok(Vec::new());
    };
    let text = |array: &ArrayRef| {
        let texts = cast(array, &DataType::Utf8).map_err(|e| failure::problem(e.into()))?;
        let texts = texts.as_string::<i32>();
        Ok(texts.is_valid(0).then(|| texts.value(0).to_owned()))
    };
    batch.columns().iter().map(text).collect()
}

fn number(text: Option<&str>) -> Option<f64> {
    text?.parse().ok()
}

fn row(column: &Column, found: &[Option<String>], total: f64) -> Value {
    let found = |index: usize| found.get(index).and_then(Option::as_deref);
    let count = number(found(8)).unwrap_or_default();
    let nulls = (total > 0.0).then(|| ((total - count) / total * 1e4).round() / 1e2);
    json!({
        "column_name": column.name,
        "column_type": column.type_name,
        "min": found(0),
        "max": found(1),
        "approx_unique": number(found(2)).map(|count| count as i64),
        "avg": number(found(3)),
        "std": number(found(4)),
        "q25": number(found(5)),
        "q50": number(found(6)),
        "q75": number(found(7)),
        "count": count as i64,
        "null_percentage": nulls,
    })
}
