//! Rows of cells -> an Arrow batch.

use std::sync::Arc;

use datafusion::arrow::{
    array::{
        ArrayRef, BooleanArray, Int64Array, RecordBatch, RecordBatchOptions, StringViewArray, TimestampMicrosecondArray,
    },
    datatypes::{Field, Schema},
};
use plan::Type;
use proto::{Code, Problem};

/// A value of a system table.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::query) enum Cell {
    /// Text.
    Text(Option<String>),
    /// A whole number.
    Int(Option<i64>),
    /// Yes or no.
    Bool(bool),
    /// Milliseconds since 1970.
    Time(Option<i64>),
}

impl Cell {
    /// Text that is there.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Some(text.into()))
    }

    /// A count.
    pub fn count(count: u64) -> Self {
        Self::Int(Some(i64::try_from(count).unwrap_or(i64::MAX)))
    }
}

/// A batch of these columns; every row has a cell for each, of its type.
pub(in crate::query) fn batch(columns: &[(&str, Type)], rows: Vec<Vec<Cell>>) -> Result<RecordBatch, Problem> {
    let fields: Vec<Field> = columns
        .iter()
        .map(|(name, of)| Field::new(*name, of.arrow(), true))
        .collect();
    let arrays = columns
        .iter()
        .enumerate()
        .map(|(index, (_, of))| array(*of, rows.iter().map(|row| row.get(index))))
        .collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)
        .map_err(|e| Problem::new(Code::Internal, format!("a system table's rows: {e}")))
}

fn array<'a>(of: Type, cells: impl Iterator<Item = Option<&'a Cell>>) -> ArrayRef {
    match of {
        Type::Bool => Arc::new(
            cells
                .map(|cell| {
                    if let Some(Cell::Bool(value)) = cell {
                        Some(*value)
                    } else {
                        None
                    }
                })
                .collect::<BooleanArray>(),
        ),
        Type::Int => Arc::new(
            cells
                .map(|cell| {
                    if let Some(Cell::Int(value)) = cell {
                        *value
                    } else {
                        None
                    }
                })
                .collect::<Int64Array>(),
        ),
        Type::Time => {
            let micros = cells.map(|cell| {
                if let Some(Cell::Time(Some(ms))) = cell {
                    Some(ms.saturating_mul(1_000))
                } else {
                    None
                }
            });
            Arc::new(micros.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
        }
        _ => Arc::new(
            cells
                .map(|cell| {
                    if let Some(Cell::Text(Some(text))) = cell {
                        Some(text.as_str())
                    } else {
                        None
                    }
                })
                .collect::<StringViewArray>(),
        ),
    }
}

/// The name of a type in SQL.
pub(in crate::query) fn sql_name(of: Type) -> &'static str {
    Type::TABLE.iter().find(|row| row.0 == of).map_or("JSON", |row| row.2)
}
