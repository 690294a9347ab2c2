//! The rows of system tables: JSON objects -> Arrow batch.

use std::sync::Arc;

use datafusion::arrow::{
    array::{
        ArrayRef, BooleanArray, Float64Array, Int64Array, LargeStringArray, RecordBatch, RecordBatchOptions,
        StringViewArray, TimestampMicrosecondArray,
    },
    datatypes::{Field, Schema},
};
use plan::{Kinds, Type, column::json_field};
use proto::{Code, Problem};
use serde_json::Value;

/// Builds a batch with these columns. Each row is an object with values by column: texts, numbers, booleans, texts of
/// JSON, and times as milliseconds since 1970. A column that it does not name is NULL.
pub(in crate::query) fn batch(columns: &[(&str, Type)], rows: &[Value]) -> Result<RecordBatch, Problem> {
    let failed = |why: String| {
        let detail = format!("cannot build the rows of a system table: {why}");
        Problem::new(Code::Internal, detail)
    };
    let mut names = rows.iter().filter_map(Value::as_object).flat_map(|row| row.keys());
    if let Some(name) = names.find(|name| columns.iter().all(|(column, _)| column != name)) {
        return Err(failed(format!("it has no column {name}")));
    }
    let (fields, arrays): (Vec<Field>, Vec<ArrayRef>) = columns
        .iter()
        .map(|(name, data_type)| {
            let field = match data_type {
                Type::Json => json_field(name, Kinds::default()),
                _ => Field::new(*name, data_type.arrow(), true),
            };
            (field, array(*data_type, rows.iter().map(|row| &row[*name])))
        })
        .unzip();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|e| failed(e.to_string()))
}

fn array<'a>(data_type: Type, values: impl Iterator<Item = &'a Value>) -> ArrayRef {
    match data_type {
        Type::Bool => Arc::new(values.map(Value::as_bool).collect::<BooleanArray>()),
        Type::Int => {
            let int = |value: &Value| value.as_i64().or(value.as_u64().map(|_| i64::MAX));
            Arc::new(values.map(int).collect::<Int64Array>())
        }
        Type::Double => Arc::new(values.map(Value::as_f64).collect::<Float64Array>()),
        Type::Time => {
            let micros = |value: &Value| Some(value.as_i64()?.saturating_mul(1_000));
            let times = values.map(micros).collect::<TimestampMicrosecondArray>();
            Arc::new(times.with_timezone("UTC"))
        }
        Type::Json => Arc::new(values.map(Value::as_str).collect::<LargeStringArray>()),
        _ => Arc::new(values.map(Value::as_str).collect::<StringViewArray>()),
    }
}

pub(in crate::query) fn sql_name(data_type: Type) -> &'static str {
    Type::TABLE
        .iter()
        .find(|row| row.0 == data_type)
        .map_or("JSON", |row| row.2)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_column_that_a_row_does_not_name_is_null_and_an_unknown_name_is_an_error() {
        let columns = [("name", Type::Text), ("count", Type::Int), ("at", Type::Time)];
        let rows = [
            json!({ "name": "a", "at": 7 }),
            json!({ "count": u64::MAX, "name": null }),
        ];
        let expected: [ArrayRef; 3] = [
            Arc::new(StringViewArray::from_iter([Some("a"), None])),
            Arc::new(Int64Array::from(vec![None, Some(i64::MAX)])),
            Arc::new(TimestampMicrosecondArray::from(vec![Some(7_000), None]).with_timezone("UTC")),
        ];
        assert_eq!(batch(&columns, &rows).expect("a batch").columns(), expected);
        assert!(batch(&columns, &[json!({ "nmae": "a" })]).is_err());
    }
}
