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
    super::{function::limit_reached, text},
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
/// Steps to compile one byte of a LIKE pattern.
const PATTERN_BYTE_WEIGHT: u64 = 500;
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
    /// States of the pattern, if it is the same for all rows.
    states: u64,
}

/// The bytes that a call produces, or the steps it takes, for a row in addition to the size of its arguments.
type Growth = fn(&ArgumentRow<'_>) -> u64;

struct ArgumentRow<'a> {
    args: &'a [Argument],
    row: usize,
}

impl ArgumentRow<'_> {
    fn bytes(&self, index: usize) -> u64 {
        self.args.get(index).map_or(0, |arg| arg.bytes(self.row))
    }

    fn items(&self, index: usize) -> u64 {
        self.args.get(index).map_or(0, |arg| arg.items(self.row))
    }

    fn text(&self, index: usize) -> &str {
        self.args
            .get(index)
            .and_then(|arg| arg.text(self.row))
            .unwrap_or_default()
    }

    fn total_bytes(&self) -> u64 {
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
        let growth = growth(name);
        let per_value = growth.is_some() || name.starts_with("regexp_");
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
            Some(pattern) if name.starts_with("regexp_") => {
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
        let is_regex = self.name.starts_with("regexp_");
        self.args
            .get(1)
            .filter(|pattern| is_regex && !matches!(pattern, Argument::Constant { .. }))
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

/// How the results or the work of a function grow beyond its arguments. None for functions whose results are no larger
/// than their arguments.
fn growth(name: &str) -> Option<Growth> {
    Some(match name {
        "lpad" | "rpad" => |row| {
            row.args
                .get(1)
                .map_or(0, Argument::int)
                .saturating_mul(row.bytes(2).max(4))
        },
        "replace" => |row| replacement_bytes(row.text(0), row.text(1), row.text(2)),
        "translate" => |row| {
            if row.text(2).is_ascii() {
                row.bytes(0)
            } else {
                row.bytes(0).saturating_mul(row.text(2).len() as u64)
            }
        },
        "regexp_replace" => |row| {
            let references = row.text(2).matches(['$', '\\']).count() as u64;
            // Without `g`, only one match is replaced.
            let matches = if row.text(3).contains('g') { row.bytes(0) + 1 } else { 1 };
            matches
                .saturating_mul(row.text(2).len() as u64)
                .saturating_add(references.saturating_mul(row.bytes(0)))
        },
        "regexp_match" => |row| row.bytes(0).saturating_mul(row.text(1).matches('(').count() as u64 + 1),
        "to_char" => |row| row.bytes(1).saturating_mul(40),
        "upper" | "lower" | "initcap" | "encode" | "text_hex" => |row| row.bytes(0).saturating_mul(2),
        "string_to_array" | "text_split" => |row| row.bytes(0).saturating_mul(20),
        "array_to_string" => |row| row.items(0).saturating_mul(row.bytes(1) + row.bytes(2) + 32),
        "array_replace" | "array_replace_n" | "array_replace_all" => |row| row.items(0).saturating_mul(row.bytes(2)),
        "concat_ws" => |row| row.bytes(0).saturating_mul(row.args.len() as u64),
        "array_has_all" | "array_has_any" => |row| row.items(0).saturating_mul(row.items(1)),
        // A pattern with inner wildcards is compiled, once for each row unless it is the same for all.
        text::LIKE | text::ILIKE => |row| match row.args.get(1) {
            Some(Argument::Texts(_)) if text::is_compiled(row.text(1)) => {
                row.bytes(1).saturating_mul(PATTERN_BYTE_WEIGHT)
            }
            _ => 0,
        },
        // Each item and member is looked for among all others.
        "jsonb_contains" => |row| {
            row.bytes(0)
                .saturating_mul(row.text(1).matches([',', ':']).count() as u64)
        },
        "levenshtein" => |row| row.bytes(0).saturating_mul(row.bytes(1)),
        "to_json" | "json_get" | "json_items" => |row| row.total_bytes().saturating_mul(6),
        _ => return None,
    })
}

/// The bytes that replacements add to a text. Occurrences are counted only if the estimate is large.
fn replacement_bytes(text: &str, from: &str, to: &str) -> u64 {
    const ESTIMATE_BYTES_MAX: usize = 64 << 10;
    let (length, to) = (text.len() as u64, to.len() as u64);
    let most = length / (from.len().max(1) as u64) + 1;
    match most.saturating_mul(to) {
        small if small <= ESTIMATE_BYTES_MAX as u64 => small,
        _ => (text.matches(from).count() as u64).saturating_mul(to),
    }
}
