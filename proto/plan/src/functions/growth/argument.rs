//! The sizes of the arguments of a call, row by row.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _},
        compute::cast,
        datatypes::DataType,
    },
    common::{Result, ScalarValue},
    logical_expr::ColumnarValue,
};

use crate::arrays::{count_items, size, value_size};

/// Bytes that a row takes by itself: a view, an offset, a validity bit.
const ROW_BYTES: u64 = 24;
/// If all values together have more bytes, the size of each matters.
const LARGE_BYTES: u64 = 16 << 20;

/// The size of an argument's values.
pub(in crate::functions) enum Argument {
    /// The same for all rows.
    Constant {
        bytes: u64,
        items: u64,
        int: u64,
        value: ScalarValue,
    },
    /// Texts, each with its own length.
    Texts(ArrayRef),
    /// The bytes and items of each list.
    Lists(Vec<(u64, u64)>),
    /// Values of the same length, or values for which the average length suffices.
    Fixed { bytes: u64 },
}

impl Argument {
    /// `per_value`: whether the size of each value matters, not only their sum.
    pub(in crate::functions) fn new(arg: &ColumnarValue, per_value: bool) -> Result<Self> {
        let array = match arg {
            ColumnarValue::Scalar(value) => {
                let items = if value.data_type().is_nested() {
                    value.to_array().map_or(1, |array| count_items(&array))
                } else {
                    1
                };
                let int = match value.cast_to(&DataType::Int64) {
                    Ok(ScalarValue::Int64(Some(int))) => u64::try_from(int).unwrap_or_default(),
                    _ => 0,
                };
                return Ok(Self::Constant {
                    bytes: value_size(value),
                    items,
                    int,
                    value: value.clone(),
                });
            }
            ColumnarValue::Array(array) => array,
        };
        let total = size(array);
        Ok(match array.data_type() {
            DataType::Utf8View => Self::Texts(Arc::clone(array)),
            DataType::Utf8 | DataType::LargeUtf8 if per_value || total > LARGE_BYTES => {
                Self::Texts(cast(array, &DataType::Utf8View)?)
            }
            data_type if data_type.is_nested() && (per_value || total > LARGE_BYTES) => Self::Lists(
                (0..array.len())
                    .map(|row| {
                        let list = array.slice(row, 1);
                        (size(&list), count_items(&list))
                    })
                    .collect(),
            ),
            _ => Self::Fixed {
                bytes: total.div_ceil(array.len().max(1) as u64),
            },
        })
    }

    pub(in crate::functions) fn bytes(&self, row: usize) -> u64 {
        match self {
            Self::Constant { bytes, .. } | Self::Fixed { bytes } => *bytes,
            Self::Texts(texts) => texts
                .as_string_view()
                .views()
                .get(row)
                .map_or(0, |view| u64::from(*view as u32)),
            Self::Lists(lists) => lists.get(row).map_or(0, |(bytes, _)| *bytes),
        }
    }

    pub(in crate::functions) fn total_bytes(&self, rows: usize) -> u64 {
        match self {
            Self::Constant { bytes, .. } | Self::Fixed { bytes } => bytes.saturating_mul(rows as u64),
            Self::Texts(texts) => size(texts),
            Self::Lists(lists) => lists.iter().map(|(bytes, _)| bytes).sum(),
        }
    }

    pub(in crate::functions) fn items(&self, row: usize) -> u64 {
        match self {
            Self::Constant { items, .. } => *items,
            Self::Lists(lists) => lists.get(row).map_or(0, |(_, items)| *items),
            Self::Texts(_) | Self::Fixed { .. } => 1,
        }
    }

    pub(in crate::functions) fn text(&self, row: usize) -> Option<&str> {
        match self {
            Self::Constant { value, .. } => value.try_as_str().flatten(),
            Self::Texts(texts) => texts.is_valid(row).then(|| texts.as_string_view().value(row)),
            _ => None,
        }
    }

    pub(in crate::functions) fn int(&self) -> u64 {
        match self {
            Self::Constant { int, .. } => *int,
            _ => 0,
        }
    }

    /// Whether it is the same for all rows.
    pub(in crate::functions) fn is_constant(&self) -> bool {
        matches!(self, Self::Constant { .. })
    }
}

/// The bytes that a call produces, or the steps it takes, for a row in addition to the size of its arguments.
pub(in crate::functions) type Growth = fn(&ArgumentRow<'_>) -> u64;

/// The arguments of a call in one row.
pub(in crate::functions) struct ArgumentRow<'a> {
    pub(in crate::functions) args: &'a [Argument],
    pub(in crate::functions) row: usize,
}

impl ArgumentRow<'_> {
    /// The number of arguments.
    pub(in crate::functions) fn count(&self) -> u64 {
        self.args.len() as u64
    }

    pub(in crate::functions) fn bytes(&self, index: usize) -> u64 {
        self.args.get(index).map_or(0, |arg| arg.bytes(self.row))
    }

    /// The number of items of a list, with those of inner lists.
    pub(in crate::functions) fn items(&self, index: usize) -> u64 {
        self.args.get(index).map_or(0, |arg| arg.items(self.row))
    }

    pub(in crate::functions) fn text(&self, index: usize) -> &str {
        self.args
            .get(index)
            .and_then(|arg| arg.text(self.row))
            .unwrap_or_default()
    }

    /// An argument that is a constant number; otherwise 0.
    pub(in crate::functions) fn int(&self, index: usize) -> u64 {
        self.args.get(index).map_or(0, Argument::int)
    }

    /// Whether an argument is a text that differs by row.
    pub(in crate::functions) fn is_text_column(&self, index: usize) -> bool {
        matches!(self.args.get(index), Some(Argument::Texts(_)))
    }

    pub(in crate::functions) fn total_bytes(&self) -> u64 {
        self.args
            .iter()
            .map(|arg| arg.bytes(self.row))
            .fold(ROW_BYTES, u64::saturating_add)
    }

    /// The weight of the row: a copy of its arguments, because the library may make one, plus the growth.
    pub(in crate::functions) fn weight(&self, growth: Option<Growth>) -> u64 {
        self.total_bytes()
            .saturating_add(growth.map_or(0, |growth| growth(self)))
    }
}
