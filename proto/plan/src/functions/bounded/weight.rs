//! Weighs the rows of a call: the bytes or steps that each may take, by the sizes of its arguments.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _},
        compute::cast,
        datatypes::DataType,
    },
    common::{Result, ScalarValue},
    logical_expr::{ColumnarValue, ScalarFunctionArgs},
};

use super::{
    super::{
        function::limit_reached,
        registry::{self, Property},
        text,
    },
    pattern::{check_pattern, states},
    spelling,
};
use crate::arrays::{count_items, size, value_size};

/// Maximum weight of the rows of one part: bytes produced, or steps of work.
const PART_WEIGHT_MAX: u64 = 16 << 20;
/// Maximum weight of one row. A part has at least one row.
const ROW_WEIGHT_MAX: u64 = 256 << 20;
/// The weight of compiling a regular expression, besides what the library caches for each.
const PATTERN_WEIGHT: u64 = 2 << 20;
/// States of a regular expression that are visited in one step, at worst.
const STATES_PER_STEP_AT_WORST: u64 = 2;
/// States of a regular expression that are usually visited in one step. Parts are sized by this: with the worst case
/// they would be so small that compiling the pattern for each takes longer than its rows.
const STATES_PER_STEP_USUALLY: u64 = 16;
/// Bytes that a row takes by itself: a view, an offset, a validity bit.
const ROW_BYTES: u64 = 24;

/// The size of an argument's values.
enum Argument {
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
    fn new(arg: &ColumnarValue, per_value: bool) -> Result<Self> {
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
            DataType::Utf8 | DataType::LargeUtf8 if per_value || total > PART_WEIGHT_MAX => {
                Self::Texts(cast(array, &DataType::Utf8View)?)
            }
            data_type if data_type.is_nested() && (per_value || total > PART_WEIGHT_MAX) => Self::Lists(
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

    fn bytes(&self, row: usize) -> u64 {
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

    fn total_bytes(&self, rows: usize) -> u64 {
        match self {
            Self::Constant { bytes, .. } | Self::Fixed { bytes } => bytes.saturating_mul(rows as u64),
            Self::Texts(texts) => size(texts),
            Self::Lists(lists) => lists.iter().map(|(bytes, _)| bytes).sum(),
        }
    }

    fn items(&self, row: usize) -> u64 {
        match self {
            Self::Constant { items, .. } => *items,
            Self::Lists(lists) => lists.get(row).map_or(0, |(_, items)| *items),
            Self::Texts(_) | Self::Fixed { .. } => 1,
        }
    }

    fn text(&self, row: usize) -> Option<&str> {
        match self {
            Self::Constant { value, .. } => value.try_as_str().flatten(),
            Self::Texts(texts) => texts.is_valid(row).then(|| texts.as_string_view().value(row)),
            _ => None,
        }
    }

    fn int(&self) -> u64 {
        match self {
            Self::Constant { int, .. } => *int,
            _ => 0,
        }
    }
}

/// A call and the weights of its rows.
pub(super) struct WeighedCall<'a> {
    name: &'a str,
    args: Vec<Argument>,
    rows: usize,
    growth: Option<Growth>,
    /// Whether the second argument is a regular expression.
    takes_regex: bool,
    /// States of the pattern, if it is the same for all rows.
    states: u64,
}

/// The bytes that a call produces, or the steps it takes, for a row in addition to the size of its arguments.
pub(in crate::functions) type Growth = fn(&ArgumentRow<'_>) -> u64;

/// The arguments of a call in one row.
pub(in crate::functions) struct ArgumentRow<'a> {
    args: &'a [Argument],
    row: usize,
}

impl ArgumentRow<'_> {
    /// The number of arguments.
    pub(super) fn count(&self) -> u64 {
        self.args.len() as u64
    }

    pub(super) fn bytes(&self, index: usize) -> u64 {
        self.args.get(index).map_or(0, |arg| arg.bytes(self.row))
    }

    /// The number of items of a list, with those of inner lists.
    pub(super) fn items(&self, index: usize) -> u64 {
        self.args.get(index).map_or(0, |arg| arg.items(self.row))
    }

    pub(super) fn text(&self, index: usize) -> &str {
        self.args
            .get(index)
            .and_then(|arg| arg.text(self.row))
            .unwrap_or_default()
    }

    /// An argument that is a constant number; otherwise 0.
    pub(super) fn int(&self, index: usize) -> u64 {
        self.args.get(index).map_or(0, Argument::int)
    }

    /// Whether an argument is a text that differs by row.
    pub(super) fn is_text_column(&self, index: usize) -> bool {
        matches!(self.args.get(index), Some(Argument::Texts(_)))
    }

    pub(super) fn total_bytes(&self) -> u64 {
        self.args
            .iter()
            .map(|arg| arg.bytes(self.row))
            .fold(ROW_BYTES, u64::saturating_add)
    }

    /// The weight of the row: a copy of its arguments, because the library may make one, plus the growth.
    fn weight(&self, growth: Option<Growth>) -> u64 {
        self.total_bytes()
            .saturating_add(growth.map_or(0, |growth| growth(self)))
    }
}

impl<'a> WeighedCall<'a> {
    pub(super) fn new(name: &'a str, args: &ScalarFunctionArgs, rows: usize) -> Result<Self> {
        let entry = registry::function(name);
        let growth = entry.and_then(|entry| entry.growth);
        let takes_regex = entry.is_some_and(|entry| entry.has(Property::TakesRegex));
        let per_value = growth.is_some() || takes_regex;
        let args: Vec<_> = args
            .args
            .iter()
            .map(|arg| Argument::new(arg, per_value))
            .collect::<Result<_>>()?;
        let states = match args
            .get(1)
            .filter(|pattern| matches!(pattern, Argument::Constant { .. }))
            .and_then(|pattern| pattern.text(0))
        {
            Some(pattern) if takes_regex => {
                check_pattern(name, pattern)?;
                states(pattern)
            }
            Some(pattern) if matches!(name, text::LIKE | text::ILIKE) && text::is_compiled(pattern) => {
                pattern.len() as u64
            }
            _ => 0,
        };
        Ok(Self {
            name,
            args,
            rows,
            growth,
            takes_regex,
            states,
        })
    }

    pub(super) fn weight(&self, row: usize) -> u64 {
        ArgumentRow { args: &self.args, row }.weight(self.growth)
    }

    /// Bytes of the row's text times states of the pattern: the states that a search may visit. A regular expression
    /// that differs by row is handled in [`part_end`](Self::part_end) instead.
    fn visited_states(&self, row: usize) -> u64 {
        let row = ArgumentRow { args: &self.args, row };
        let states = match (self.name, row.args.get(1)) {
            (text::LIKE | text::ILIKE, Some(Argument::Texts(_))) if text::is_compiled(row.text(1)) => row.bytes(1),
            _ => self.states,
        };
        row.bytes(0).saturating_mul(states)
    }

    /// Whether the rows together are too heavy for one part.
    pub(super) fn is_heavy(&self) -> bool {
        let weight = match self.growth {
            None if self.states == 0 => self
                .args
                .iter()
                .map(|arg| arg.total_bytes(self.rows))
                .fold(0, u64::saturating_add),
            _ => (0..self.rows)
                .map(|row| {
                    self.weight(row)
                        .saturating_add(self.visited_states(row) / STATES_PER_STEP_USUALLY)
                })
                .fold(0, u64::saturating_add),
        };
        weight > PART_WEIGHT_MAX || (self.rows > 0 && self.regex_column().is_some())
    }

    /// The argument that is a regular expression, if it differs by row.
    fn regex_column(&self) -> Option<&Argument> {
        self.args
            .get(1)
            .filter(|pattern| self.takes_regex && !matches!(pattern, Argument::Constant { .. }))
    }

    /// The end of the part that begins at row `from`. Fails if one row is too heavy.
    pub(super) fn part_end(&self, from: usize) -> Result<usize> {
        let (mut sum, mut patterns) = (0_u64, HashMap::new());
        for row in from..self.rows {
            let mut weight = self.weight(row);
            let mut visited = self.visited_states(row);
            if let Some(pattern) = self.regex_column().and_then(|pattern| pattern.text(row)) {
                let states = match patterns.entry(pattern) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        check_pattern(self.name, pattern)?;
                        weight += PATTERN_WEIGHT;
                        *new.insert(states(pattern))
                    }
                };
                visited = ArgumentRow { args: &self.args, row }.bytes(0).saturating_mul(states);
            }
            let worst = weight.saturating_add(visited / STATES_PER_STEP_AT_WORST);
            if worst > ROW_WEIGHT_MAX {
                return Err(limit_reached(
                    format!(
                        "{} would take {worst} bytes or steps for one row; the limit is {ROW_WEIGHT_MAX}",
                        spelling(self.name)
                    ),
                    "pass shorter texts or lists, for example left(x, 1000)",
                ));
            }
            sum = sum
                .saturating_add(weight)
                .saturating_add(visited / STATES_PER_STEP_USUALLY);
            if sum > PART_WEIGHT_MAX && row > from {
                return Ok(row);
            }
        }
        Ok(self.rows)
    }
}
