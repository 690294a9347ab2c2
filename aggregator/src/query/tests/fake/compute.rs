//! Computes scans by brute force: evaluates every column of every document, and filters with DataFusion.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _, BooleanArray, RecordBatch, RecordBatchOptions, UInt32Array},
        compute::{and_kleene, filter_record_batch, take_record_batch},
        row::{OwnedRow, RowConverter},
    },
    common::DFSchema,
    datasource::memory::MemorySourceConfig,
    logical_expr::utils::split_conjunction,
    physical_plan::{ExecutionPlan as _, collect},
    prelude::SessionContext,
    scalar::ScalarValue,
};
use plan::{
    Column, ColumnSource, Kinds, Path, PathKinds, Type,
    matcher::{DocumentScore, Matcher, Scorer, count_tokens},
    path::Step,
    scan::{
        CastFailure, ColumnReads, ConditionCounts, PageStart, PartialAggregate, ScanRequest, ScanTrailer, SortKey,
        Stage,
    },
};
use proto::Address;
use serde_json::Value;

/// Computes a scan of these documents.
pub(super) fn compute(request: &ScanRequest, documents: &[(Address, Value)]) -> (Vec<RecordBatch>, ScanTrailer) {
    let columns = needed_columns(request);
    let mut cast_failures = Vec::new();
    let arrays = columns
        .iter()
        .map(|column| array(column, documents, &mut cast_failures))
        .collect::<Vec<ArrayRef>>();
    let options = RecordBatchOptions::new().with_row_count(Some(documents.len()));
    let all = RecordBatch::try_new_with_options(plan::column::schema(&columns), arrays, &options).expect("a batch");
    let mask = filter_mask(request, &all);
    let addresses: Vec<Address> = documents
        .iter()
        .zip(mask.iter())
        .filter(|(_, passes)| *passes == Some(true))
        .map(|((address, _), _)| address.clone())
        .collect();
    let matched = filter_record_batch(&all, &mask).expect("filtered");
    let shown = matched
        .project(&(0..request.columns.len()).collect::<Vec<_>>())
        .expect("projected");
    let batches = match &request.stage {
        Stage::Rows { limit } => vec![shown.slice(0, shown.num_rows().min(limit.unwrap_or(usize::MAX)))],
        Stage::Top { keys, after, limit, .. } => vec![top(&matched, &shown, &addresses, keys, after.as_ref(), *limit)],
        Stage::Partial(partial) => partial_states(partial, shown),
    };
    let trailer = ScanTrailer {
        documents: documents.len() as u64,
        matched: addresses.len() as u64,
        shipped: batches.iter().map(|b| b.num_rows() as u64).sum(),
        cast_failures,
        conditions: conditions(request, documents.len() as u64),
        column_reads: (request.columns.iter())
            .map(|column| (column.clone(), reads(documents.len() as u64)))
            .collect(),
        ..ScanTrailer::default()
    };
    (batches, trailer)
}

/// Every condition is evaluated on every document.
fn conditions(request: &ScanRequest, documents: u64) -> Vec<ConditionCounts> {
    let counts = ConditionCounts {
        evaluated: documents,
        ..ConditionCounts::default()
    };
    let conditions = request.filter.iter().flat_map(split_conjunction);
    conditions.map(|_| counts).collect()
}

/// Every document is in no split.
fn reads(documents: u64) -> ColumnReads {
    ColumnReads {
        tail: documents,
        ..ColumnReads::default()
    }
}

/// The requested columns, and behind them those that only the filter or the sort keys need.
fn needed_columns(request: &ScanRequest) -> Vec<Column> {
    let mut columns = request.columns.clone();
    let filter_columns = request.filter.iter().flat_map(|f| {
        f.column_refs()
            .into_iter()
            .map(|c| Column::parse(&c.name).expect("a flat name"))
            .collect::<Vec<_>>()
    });
    let keys = if let Stage::Top { keys, .. } = &request.stage {
        keys.clone()
    } else {
        Vec::new()
    };
    for column in filter_columns.chain(keys.into_iter().map(|key| key.column)) {
        if !columns.contains(&column) {
            columns.push(column);
        }
    }
    columns
}

fn filter_mask(request: &ScanRequest, all: &RecordBatch) -> BooleanArray {
    let schema = DFSchema::try_from(all.schema().as_ref().clone()).expect("a schema");
    let state = SessionContext::new().state();
    let mut mask = BooleanArray::from(vec![true; all.num_rows()]);
    for condition in &request.filter {
        assert!(
            condition.column_refs().iter().all(|c| c.relation.is_none()),
            "{condition} has a qualifier"
        );
        let physical = state
            .create_physical_expr(condition.clone(), &schema)
            .expect("a physical expression");
        let value = physical
            .evaluate(all)
            .expect("evaluated")
            .into_array(all.num_rows())
            .expect("an array");
        mask = and_kleene(&mask, value.as_boolean()).expect("and");
    }
    mask
}

/// The first rows in the order of the keys and then of the address.
fn top(
    matched: &RecordBatch,
    shown: &RecordBatch,
    addresses: &[Address],
    keys: &[SortKey],
    after: Option<&PageStart>,
    limit: usize,
) -> RecordBatch {
    let converter = RowConverter::new(keys.iter().map(SortKey::sort_field).collect()).expect("a converter");
    let arrays = |batch: &RecordBatch| {
        keys.iter()
            .map(|key| Arc::clone(batch.column_by_name(&key.column.name()).expect("a key")))
            .collect::<Vec<_>>()
    };
    let rows = converter.convert_columns(&arrays(matched)).expect("rows");
    let after: Option<(OwnedRow, Address)> = after.map(|after| {
        let values: Vec<ArrayRef> = after
            .values
            .iter()
            .map(|value| value.to_array().expect("an array"))
            .collect();
        (
            converter.convert_columns(&values).expect("rows").row(0).owned(),
            after.address.clone(),
        )
    });
    let mut order: Vec<(OwnedRow, &Address, u32)> = (0..matched.num_rows())
        .map(|i| (rows.row(i).owned(), &addresses[i], i as u32))
        .collect();
    order.retain(|(row, address, _)| {
        after
            .as_ref()
            .is_none_or(|(after_row, after_address)| (row, *address) > (after_row, after_address))
    });
    order.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
    let first: UInt32Array = order.iter().take(limit).map(|(_, _, index)| *index).collect();
    take_record_batch(shown, &first).expect("taken")
}

/// The partial states, computed by DataFusion's own operator.
fn partial_states(partial: &PartialAggregate, rows: RecordBatch) -> Vec<RecordBatch> {
    // The planned schema has the kinds of each path as metadata, which a leaf does not know.
    let rows = rows.with_schema(Arc::clone(&partial.input));
    let rows = rows.expect("the schema is the planned one");
    let source = MemorySourceConfig::try_new_exec(&[vec![rows]], Arc::clone(&partial.input), None).expect("a source");
    let aggregate = partial.over(source).expect("an aggregate");
    assert_eq!(
        aggregate.schema(),
        partial.output,
        "the states' schema is the planned one"
    );
    let run = async {
        collect(Arc::new(aggregate), SessionContext::new().task_ctx())
            .await
            .expect("states")
    };
    std::thread::scope(|scope| {
        scope
            .spawn(|| {
                tokio::runtime::Builder::new_current_thread()
                    .build()
                    .expect("a runtime")
                    .block_on(run)
            })
            .join()
            .expect("no panic")
    })
}

fn array(column: &Column, documents: &[(Address, Value)], failures: &mut Vec<CastFailure>) -> ArrayRef {
    let (mut total, mut failed) = (0, 0);
    let values: Vec<ScalarValue> = documents
        .iter()
        .map(|(address, document)| {
            let value = scalar(column, address, document);
            if let ColumnSource::Path(path) = &column.source {
                let has_value = value_at(document, path).is_some_and(|v| !v.is_null());
                total += u64::from(has_value);
                failed += u64::from(has_value && value.is_null());
            }
            value
        })
        .collect();
    if total > 0 {
        failures.push(CastFailure {
            column: column.clone(),
            values: failed,
            total,
        });
    }
    match values.is_empty() {
        true => datafusion::arrow::array::new_empty_array(&column.read_as.to.arrow()),
        false => ScalarValue::iter_to_array(values).expect("one type"),
    }
}

fn value_at<'a>(document: &'a Value, path: &Path) -> Option<&'a Value> {
    path.steps().iter().try_fold(document, |value, step| match step {
        Step::Key(key) => value.get(&**key),
        Step::Index(index) => value.get(*index as usize),
    })
}

fn scalar(column: &Column, address: &Address, document: &Value) -> ScalarValue {
    let micros = |seconds: i64| ScalarValue::TimestampMicrosecond(Some(seconds * 1_000_000), Some("UTC".into()));
    let text = |text: String| ScalarValue::Utf8View(Some(text));
    match &column.source {
        ColumnSource::Id => text(
            document
                .get("_id")
                .and_then(Value::as_str)
                .map_or_else(|| address.to_string(), str::to_owned),
        ),
        ColumnSource::Time => document
            .get("at")
            .and_then(Value::as_i64)
            .map_or(ScalarValue::TimestampMicrosecond(None, Some("UTC".into())), micros),
        ColumnSource::Ingested => micros(address.offset),
        ColumnSource::Source => text(address.source.to_string()),
        ColumnSource::Partition => ScalarValue::Int64(Some(i64::from(address.partition))),
        ColumnSource::Offset => ScalarValue::Int64(Some(address.offset)),
        ColumnSource::Item => ScalarValue::Int64(Some(i64::from(address.item.unwrap_or(0)))),
        ColumnSource::Doc => text(document.to_string()),
        ColumnSource::Key => ScalarValue::Utf8View(None),
        ColumnSource::Path(path) => cast(column, value_at(document, path)),
        ColumnSource::Tokens(path) => {
            let text = document.to_string();
            let root = proto::json::parse(text.as_bytes()).expect("JSON");
            let count = count_tokens(&root, path.as_ref()) as i64;
            ScalarValue::Int64(Some(count).filter(|count| *count > 0))
        }
        ColumnSource::Score(score) => {
            let text = document.to_string();
            let root = proto::json::parse(text.as_bytes()).expect("JSON");
            let score: DocumentScore = serde_json::from_str(score).expect("a score");
            let scorer = Scorer::new(&score.search, &score.statistics);
            ScalarValue::Float64(Some(scorer.score(&[Some(&root)])))
        }
        ColumnSource::Search(clause) => {
            let text = document.to_string();
            ScalarValue::Boolean(Some(
                Matcher::new(clause).matches(&proto::json::parse(text.as_bytes()).expect("JSON")),
            ))
        }
    }
}

fn cast(column: &Column, value: Option<&Value>) -> ScalarValue {
    let (is_cast, string) = (column.read_as.cast, value.and_then(Value::as_str));
    match column.read_as.to {
        Type::Bool => ScalarValue::Boolean(value.and_then(Value::as_bool)),
        Type::Int => ScalarValue::Int64(
            value
                .and_then(Value::as_i64)
                .or(string.filter(|_| is_cast).and_then(|s| s.parse().ok())),
        ),
        Type::Double => ScalarValue::Float64(
            value
                .and_then(Value::as_f64)
                .or(string.filter(|_| is_cast).and_then(|s| s.parse().ok())),
        ),
        Type::Text => ScalarValue::Utf8View(
            string
                .map(str::to_owned)
                .or(value.filter(|v| is_cast && !v.is_null()).map(ToString::to_string)),
        ),
        Type::Time => ScalarValue::TimestampMicrosecond(None, Some("UTC".into())),
        Type::Json | Type::Canonical => ScalarValue::LargeUtf8(value.filter(|v| !v.is_null()).map(ToString::to_string)),
        Type::Rank => {
            let text = value.filter(|v| !v.is_null()).map(ToString::to_string);
            let rank = |text: String| plan::value::rank(&proto::json::parse(text.as_bytes()).expect("JSON"));
            ScalarValue::Utf8View(text.map(rank))
        }
    }
}

/// The kinds of all paths in these documents.
pub(super) fn kinds_of(documents: &[(Address, Value)]) -> PathKinds {
    fn walk(path: &Path, value: &Value, is_element: bool, kinds: &mut PathKinds) {
        let kind = match value {
            Value::Null => Kinds::NULL,
            Value::Bool(_) => Kinds::BOOL,
            Value::Number(n) if n.is_i64() => Kinds::INT,
            Value::Number(_) => Kinds::FLOAT,
            Value::String(_) => Kinds::TEXT,
            Value::Array(_) => Kinds::ARRAY,
            Value::Object(_) => Kinds::OBJECT,
        };
        *kinds.paths.entry(path.clone()).or_default() |= if is_element { Kinds::ELEMENT } else { kind };
        match value {
            Value::Object(entries) => entries
                .iter()
                .for_each(|(key, value)| walk(&path.key(key), value, is_element, kinds)),
            Value::Array(items) => items.iter().for_each(|item| walk(path, item, true, kinds)),
            _ => {}
        }
    }
    let mut kinds = PathKinds::default();
    documents
        .iter()
        .for_each(|(_, document)| walk(&Path::default(), document, false, &mut kinds));
    kinds
}
