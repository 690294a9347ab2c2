//! `search_score`: how well a row fits a search, and what its statistics are made from.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array, ArrayRef, AsArray as _, Float64Builder, Int64Builder},
        compute::cast,
        datatypes::{DataType, Int64Type},
    },
    common::{DataFusionError, Result, ScalarValue, exec_err},
    logical_expr::{ColumnarValue, ScalarUDF},
};
use proto::json::{self, Value};

use super::{
    function::{Call, Function, Returns},
    json::text_views,
};
use crate::{
    matcher::{ScoreStatistics, Scorer, count_tokens},
    path::Path,
};

/// `search_score(search, lengths, frequencies, value, …)`: the score of a row with these values in a
/// [`ScoredSearch`](crate::matcher::ScoredSearch). The lengths and frequencies are lists of integers, the same in all rows,
/// or NULL.
pub const SCORE: &str = "search_score";
/// `search_tokens(path, value, …)`: the number of tokens of the texts at a path of these values. The path is JSON; that of
/// all texts is `null`. NULL if there are none.
pub const TOKENS: &str = "search_tokens";

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new(SCORE, None, Returns::Type(DataType::Float64), score).into(),
        Function::new(TOKENS, None, Returns::Type(DataType::Int64), tokens).into(),
    ]
}

fn score(call: &Call) -> Result<ArrayRef> {
    let search = serde_json::from_str(call.text(0)?).map_err(malformed)?;
    let statistics = ScoreStatistics {
        lengths: numbers(call, 1)?,
        frequencies: numbers(call, 2)?,
    };
    let scorer = Scorer::new(&search, &statistics);
    let columns = values(call, 3)?;
    let mut scores = Float64Builder::with_capacity(call.rows);
    for row in 0..call.rows {
        call.check()?;
        let values = row_values(&columns, row);
        let values: Vec<Option<&Value>> = values.iter().map(Option::as_ref).collect();
        scores.append_value(scorer.score(&values));
    }
    Ok(Arc::new(scores.finish()))
}

fn tokens(call: &Call) -> Result<ArrayRef> {
    let path: Option<Path> = serde_json::from_str(call.text(0)?).map_err(malformed)?;
    let columns = values(call, 1)?;
    let mut counts = Int64Builder::with_capacity(call.rows);
    for row in 0..call.rows {
        call.check()?;
        let values = row_values(&columns, row);
        let count: u64 = values
            .iter()
            .flatten()
            .map(|value| count_tokens(value, path.as_ref()))
            .sum();
        counts.append_option(i64::try_from(count).ok().filter(|count| *count > 0));
    }
    Ok(Arc::new(counts.finish()))
}

fn malformed(error: serde_json::Error) -> DataFusionError {
    DataFusionError::Execution(error.to_string())
}

/// The integers of a list that all rows share; empty for NULL.
fn numbers(call: &Call, index: usize) -> Result<Vec<i64>> {
    let list = match call.args().get(index) {
        Some(ColumnarValue::Scalar(list)) => list.clone(),
        Some(ColumnarValue::Array(lists)) if !lists.is_empty() => ScalarValue::try_from_array(lists, 0)?,
        _ => ScalarValue::Null,
    };
    match list {
        list if list.is_null() => Ok(Vec::new()),
        ScalarValue::List(list) => {
            // A sum is a decimal.
            let integers = cast(&list.value(0), &DataType::Int64)?;
            Ok(integers.as_primitive::<Int64Type>().values().to_vec())
        }
        other => exec_err!("the statistics of a search cannot be {}", other.data_type()),
    }
}

/// The texts of the arguments from this one on.
fn values(call: &Call, from: usize) -> Result<Vec<ArrayRef>> {
    call.columns(from)?.iter().map(text_views).collect()
}

/// The values in one row: JSON, or a document of plain text.
fn row_values(columns: &[ArrayRef], row: usize) -> Vec<Option<Value<'_>>> {
    let value = |column| {
        let texts = ArrayRef::as_string_view(column);
        let text = texts.is_valid(row).then(|| texts.value(row))?;
        Some(json::parse(text.as_bytes()).unwrap_or(Value::Text(text.into())))
    };
    columns.iter().map(value).collect()
}
