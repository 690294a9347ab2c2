//! The cells of system tables: rows of cells -> Arrow batch.

use std::sync::Arc;

use datafusion::arrow::{
    array::{
        ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray, TimestampMicrosecondArray,
    },
    datatypes::{Field, Schema},
};
use plan::Type;
use proto::{Code, Problem};

/// A value in a system table.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::query) enum Cell {
    Text(Option<String>),
    Int(Option<i64>),
    Bool(bool),
    /// Milliseconds since 1970.
    Time(Option<i64>),
}

impl Cell {
    /// A text that is not NULL.
    pub(crate) fn text(text: impl Into<String>) -> Self {
        Self::Text(Some(text.into()))
    }

    /// A count that is not NULL.
    pub(crate) fn count(count: u64) -> Self {
        Self::Int(Some(i64::try_from(count).unwrap_or(i64::MAX)))
    }

    fn as_text(&self) -> Option<&str> {
        if let Self::Text(text) = self {
            text.as_deref()
        } else {
            None
        }
    }

    fn as_int(&self) -> Option<i64> {
        if let Self::Int(int) = self { *int } else { None }
    }

    fn as_bool(&self) -> Option<bool> {
        if let Self::Bool(bool) = self { Some(*bool) } else { None }
    }

    fn as_micros(&self) -> Option<i64> {
        if let Self::Time(Some(ms)) = self {
            Some(ms.saturating_mul(1_000))
        } else {
            None
        }
    }
}

/// Builds a batch with these columns. Every row has one cell per column, of the column's type.
pub(in crate::query) fn batch(columns: &[(&str, Type)], rows: Vec<Vec<Cell>>) -> Result<RecordBatch, Problem> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, data_type)| Field::new(*name, data_type.arrow(), true))
        .collect();
    let arrays = columns
        .iter()
        .enumerate()
        .map(|(index, (_, data_type))| array(*data_type, rows.iter().map(|row| row.get(index))))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|e| Problem::new(Code::Internal, format!("cannot build the rows of a system table: {e}")))
}

fn array<'a>(data_type: Type, cells: impl Iterator<Item = Option<&'a Cell>>) -> ArrayRef {
    match data_type {
        Type::Bool => Arc::new(cells.map(|cell| cell?.as_bool()).collect::<BooleanArray>()),
        Type::Int => Arc::new(cells.map(|cell| cell?.as_int()).collect::<Int64Array>()),
        Type::Time => {
            let micros = cells.map(|cell| cell?.as_micros());
            Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        _ => Arc::new(cells.map(|cell| cell?.as_text()).collect::<StringViewArray>()),
    }
}

pub(in crate::query) fn sql_name(data_type: Type) -> &'static str {
    Type::TABLE
        .iter()
        .find(|row| row.0 == data_type)
        .map_or("JSON", |row| row.2)
}
