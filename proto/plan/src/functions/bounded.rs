//! Calls within bounds. A function of the library computes a batch in one go, however much it makes of it, and nothing
//! can stop it meanwhile. So each call is weighed first: what its rows may come to, in bytes or in work, by the lengths
//! of its arguments. A heavy batch is computed in parts, and between two parts the query may end, at its deadline or at
//! its limit of memory.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _, UInt64Array},
        compute::{cast, concat, take},
        datatypes::DataType,
    },
    common::{Result, ScalarValue},
    logical_expr::{ColumnarValue, ScalarFunctionArgs},
};

use regex_syntax::hir::{Hir, HirKind};

use super::{constants, function::limit, query::Query, text};
use crate::arrays::{compact, items, size, value_size};

/// What the rows of one part may weigh: bytes that are made, or steps of work.
const PART_WEIGHT_MAX: u64 = 16 << 20;
/// What one row may weigh. A part has one row at least.
const ROW_WEIGHT_MAX: u64 = 256 << 20;
/// Bytes of one call's result for a batch.
const CALL_BYTES_MAX: u64 = 128 << 20;
/// Bytes of one value that is made of constants: it is copied while the query is planned, and for every row.
const CONSTANT_BYTES_MAX: u64 = 16 << 20;
/// What a compiled regular expression takes, besides what the library keeps for each.
const PATTERN_BYTES_MAX: usize = 1 << 20;
const PATTERN_WEIGHT: u64 = 2 << 20;
/// States of a regular expression that are looked at in one step, at worst, …
const STATES_A_STEP: u64 = 2;
/// … and mostly: a part is not made so small that compiling the pattern for each takes longer than its rows.
const STATES_A_STEP_MOSTLY: u64 = 16;
/// What compiling one byte of a LIKE pattern takes, in steps.
const PATTERN_BYTE_WEIGHT: u64 = 500;
/// Bytes of a row's own: a view, an offset, a validity.
const ROW_BYTES: u64 = 24;

/// Computes a call, in parts where the whole would be too much at once.
pub(super) fn invoke(
    name: &str,
    args: ScalarFunctionArgs,
    compute: impl Fn(ScalarFunctionArgs) -> Result<ColumnarValue>,
) -> Result<ColumnarValue> {
    let query = Query::of(&args.config_options).cloned().unwrap_or_default();
    let of_rows = args.args.iter().any(|arg| matches!(arg, ColumnarValue::Array(_)));
    let rows = if of_rows { args.number_rows } else { 1 };
    // A join may call for every batch of pairs, and look at the clock nowhere else.
    query.check()?;
    let call = Weighed::new(name, &args, rows)?;
    let most = if of_rows {
        query.room().min(CALL_BYTES_MAX)
    } else {
        CONSTANT_BYTES_MAX
    };
    let too_much = |bytes: u64| {
        let shown = shown(name);
        limit(
            format!("{shown} makes {bytes} bytes of {rows} rows at once; the limit is {most}"),
            "make shorter texts or lists, or fewer of them",
        )
    };
    if !call.is_heavy() {
        let computed = compute(args)?;
        let bytes = computed_size(&computed);
        if bytes > most {
            return Err(too_much(bytes));
        }
        if let ColumnarValue::Array(array) = &computed {
            query.hold(array, bytes);
        }
        return Ok(computed);
    }
    let mut parts: Vec<ArrayRef> = Vec::new();
    let (mut from, mut bytes) = (0, 0);
    while from < rows {
        query.check()?;
        let to = call.part(from)?;
        let part = compute(sliced(&args, from, to - from)?)?;
        if !of_rows {
            let bytes = computed_size(&part);
            return if bytes > most { Err(too_much(bytes)) } else { Ok(part) };
        }
        let part = part.into_array(to - from)?;
        bytes += size(&part);
        if bytes > most {
            return Err(too_much(bytes));
        }
        parts.push(part);
        from = to;
    }
    let whole = match parts.as_slice() {
        [one] => Arc::clone(one),
        parts => concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())?,
    };
    query.hold(&whole, bytes);
    Ok(ColumnarValue::Array(whole))
}

/// A function as the statement spells it.
fn shown(name: &str) -> &str {
    match name {
        text::JOIN => "||",
        text::LIKE => "LIKE",
        text::ILIKE => "ILIKE",
        name => name,
    }
}

fn computed_size(value: &ColumnarValue) -> u64 {
    match value {
        ColumnarValue::Scalar(value) => value_size(value),
        ColumnarValue::Array(array) => size(array),
    }
}

fn sliced(args: &ScalarFunctionArgs, from: usize, rows: usize) -> Result<ScalarFunctionArgs> {
    let slice = |arg: &ColumnarValue| match arg {
        ColumnarValue::Array(array) => own_rows(array, from, rows).map(ColumnarValue::Array),
        scalar => Ok(scalar.clone()),
    };
    Ok(ScalarFunctionArgs {
        args: args.args.iter().map(slice).collect::<Result<_>>()?,
        number_rows: rows,
        ..args.clone()
    })
}

/// Some rows of an array, in buffers of their own: functions make room for a result by the length of these.
fn own_rows(array: &ArrayRef, from: usize, rows: usize) -> Result<ArrayRef> {
    match array.data_type() {
        DataType::Utf8View => Ok(compact(&array.slice(from, rows))),
        of if constants::is_long(of) => Ok(take(
            array,
            &UInt64Array::from_iter_values((from..from + rows).map(|row| row as u64)),
            None,
        )?),
        _ => Ok(array.slice(from, rows)),
    }
}

/// An argument by what its values weigh.
enum Argument {
    /// The same for all rows.
    Constant {
        bytes: u64,
        items: u64,
        int: u64,
        value: ScalarValue,
    },
    /// Texts, their lengths in bytes.
    Texts(ArrayRef),
    /// Lists: bytes and items of each.
    Lists(Vec<(u64, u64)>),
    /// Values of one length, or of which only all together count.
    Fixed { bytes: u64 },
}

impl Argument {
    /// `alone`: each value counts, not only all together.
    fn new(arg: &ColumnarValue, alone: bool) -> Result<Self> {
        let array = match arg {
            ColumnarValue::Scalar(value) => {
                let items = if value.data_type().is_nested() {
                    value.to_array().map_or(1, |array| items(&array))
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
        let all = size(array);
        Ok(match array.data_type() {
            DataType::Utf8View => Self::Texts(Arc::clone(array)),
            DataType::Utf8 | DataType::LargeUtf8 if alone || all > PART_WEIGHT_MAX => {
                Self::Texts(cast(array, &DataType::Utf8View)?)
            }
            of if of.is_nested() && (alone || all > PART_WEIGHT_MAX) => Self::Lists(
                (0..array.len())
                    .map(|row| {
                        let one = array.slice(row, 1);
                        (size(&one), items(&one))
                    })
                    .collect(),
            ),
            _ => Self::Fixed {
                bytes: all.div_ceil(array.len().max(1) as u64),
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

    fn all(&self, rows: usize) -> u64 {
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
struct Weighed<'a> {
    name: &'a str,
    args: Vec<Argument>,
    rows: usize,
    growth: Option<Growth>,
    /// States of a regular expression that is the same for all rows.
    states: u64,
}

/// What a call makes of a row beyond its arguments.
type Growth = fn(&Row<'_>) -> u64;

/// The arguments of one row.
struct Row<'a> {
    args: &'a [Argument],
    row: usize,
}

impl Row<'_> {
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

    fn all(&self) -> u64 {
        self.args
            .iter()
            .map(|arg| arg.bytes(self.row))
            .fold(ROW_BYTES, u64::saturating_add)
    }

    /// What the row weighs: a copy of its arguments, because the library may make one, and what the call makes beyond
    /// that.
    fn weight(&self, growth: Option<Growth>) -> u64 {
        self.all().saturating_add(growth.map_or(0, |growth| growth(self)))
    }
}

/// How a function's results, or its work, grow beyond its arguments. The results of all others are no larger than
/// these.
fn growth(name: &str) -> Option<Growth> {
    Some(match name {
        "lpad" | "rpad" => |row| {
            row.args
                .get(1)
                .map_or(0, Argument::int)
                .saturating_mul(row.bytes(2).max(4))
        },
        "replace" => |row| replaced(row.text(0), row.text(1), row.text(2)),
        "translate" => |row| {
            if row.text(2).is_ascii() {
                row.bytes(0)
            } else {
                row.bytes(0).saturating_mul(row.text(2).len() as u64)
            }
        },
        "regexp_replace" => |row| {
            let references = row.text(2).matches(['$', '\\']).count() as u64;
            // Without `g` one match is replaced.
            let matches = if row.text(3).contains('g') { row.bytes(0) + 1 } else { 1 };
            matches
                .saturating_mul(row.text(2).len() as u64)
                .saturating_add(references.saturating_mul(row.bytes(0)))
        },
        "regexp_match" => |row| row.bytes(0).saturating_mul(row.text(1).matches('(').count() as u64 + 1),
        "to_char" => |row| row.bytes(1).saturating_mul(40),
        "upper" | "lower" | "initcap" | "encode" => |row| row.bytes(0).saturating_mul(2),
        "string_to_array" => |row| row.bytes(0).saturating_mul(20),
        "array_to_string" => |row| row.items(0).saturating_mul(row.bytes(1) + row.bytes(2) + 32),
        "array_replace" | "array_replace_n" | "array_replace_all" => |row| row.items(0).saturating_mul(row.bytes(2)),
        "concat_ws" => |row| row.bytes(0).saturating_mul(row.args.len() as u64),
        "array_has_all" | "array_has_any" => |row| row.items(0).saturating_mul(row.items(1)),
        // A pattern with wildcards inside is compiled, for each row unless all have the same.
        text::LIKE | text::ILIKE => |row| match row.args.get(1) {
            Some(Argument::Texts(_)) if text::is_compiled(row.text(1)) => {
                row.bytes(1).saturating_mul(PATTERN_BYTE_WEIGHT)
            }
            _ => 0,
        },
        "levenshtein" => |row| row.bytes(0).saturating_mul(row.bytes(1)),
        "to_json" | "json_get" | "json_items" => |row| row.all().saturating_mul(6),
        _ => return None,
    })
}

impl<'a> Weighed<'a> {
    fn new(name: &'a str, args: &ScalarFunctionArgs, rows: usize) -> Result<Self> {
        let growth = growth(name);
        let alone = growth.is_some() || name.starts_with("regexp_");
        let args: Vec<_> = args
            .args
            .iter()
            .map(|arg| Argument::new(arg, alone))
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

    fn weight(&self, row: usize) -> u64 {
        Row { args: &self.args, row }.weight(self.growth)
    }

    /// States times bytes that a search of the row's text may look at: for each row's own regular expression see
    /// [`part`](Self::part).
    fn searched(&self, row: usize) -> u64 {
        let row = Row { args: &self.args, row };
        let states = match (self.name, row.args.get(1)) {
            (text::LIKE | text::ILIKE, Some(Argument::Texts(_))) if text::is_compiled(row.text(1)) => row.bytes(1),
            _ => self.states,
        };
        row.bytes(0).saturating_mul(states)
    }

    /// Whether the rows together are too much for one part.
    fn is_heavy(&self) -> bool {
        let weight = match self.growth {
            None if self.states == 0 => self
                .args
                .iter()
                .map(|arg| arg.all(self.rows))
                .fold(0, u64::saturating_add),
            _ => (0..self.rows)
                .map(|row| {
                    self.weight(row)
                        .saturating_add(self.searched(row) / STATES_A_STEP_MOSTLY)
                })
                .fold(0, u64::saturating_add),
        };
        weight > PART_WEIGHT_MAX || (self.rows > 0 && self.pattern().is_some())
    }

    /// The argument that is a regular expression of each row's own.
    fn pattern(&self) -> Option<&Argument> {
        let is_regex = self.name.starts_with("regexp_");
        self.args
            .get(1)
            .filter(|pattern| is_regex && !matches!(pattern, Argument::Constant { .. }))
    }

    /// The end of the part that begins here.
    fn part(&self, from: usize) -> Result<usize> {
        let (mut sum, mut patterns) = (0_u64, HashMap::new());
        for row in from..self.rows {
            let mut weight = self.weight(row);
            let mut searched = self.searched(row);
            if let Some(pattern) = self.pattern().and_then(|pattern| pattern.text(row)) {
                let states = match patterns.entry(pattern) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(new) => {
                        check_pattern(self.name, pattern)?;
                        weight += PATTERN_WEIGHT;
                        *new.insert(states(pattern))
                    }
                };
                searched = Row { args: &self.args, row }.bytes(0).saturating_mul(states);
            }
            let worst = weight.saturating_add(searched / STATES_A_STEP);
            if worst > ROW_WEIGHT_MAX {
                return Err(limit(
                    format!(
                        "{} would take {worst} bytes or steps for one row; the limit is {ROW_WEIGHT_MAX}",
                        shown(self.name)
                    ),
                    "give it shorter texts or lists, such as left(x, 1000)",
                ));
            }
            sum = sum
                .saturating_add(weight)
                .saturating_add(searched / STATES_A_STEP_MOSTLY);
            if sum > PART_WEIGHT_MAX && row > from {
                return Ok(row);
            }
        }
        Ok(self.rows)
    }
}

/// The length of a text in which another is replaced, exactly where it may be long.
fn replaced(text: &str, from: &str, to: &str) -> u64 {
    const COUNTED_BYTES_MIN: usize = 64 << 10;
    let (length, to) = (text.len() as u64, to.len() as u64);
    let most = length / (from.len().max(1) as u64) + 1;
    match most.saturating_mul(to) {
        small if small <= COUNTED_BYTES_MIN as u64 => small,
        _ => (text.matches(from).count() as u64).saturating_mul(to),
    }
}

/// How many states a regular expression may be in at once, about: the length of what it is written out to. Where the
/// library cannot keep all combinations of them, it looks at each at every byte.
fn states(pattern: &str) -> u64 {
    fn of(part: &Hir) -> u64 {
        match part.kind() {
            HirKind::Empty | HirKind::Look(_) => 0,
            HirKind::Literal(literal) => literal.0.len() as u64,
            HirKind::Class(_) => 1,
            HirKind::Repetition(repeated) => {
                u64::from(repeated.max.unwrap_or(repeated.min + 1)).saturating_mul(of(&repeated.sub))
            }
            HirKind::Capture(group) => of(&group.sub),
            HirKind::Concat(parts) | HirKind::Alternation(parts) => parts.iter().map(of).fold(0, u64::saturating_add),
        }
    }
    regex_syntax::parse(pattern).as_ref().map_or(0, of)
}

/// Rejects a regular expression from the data if it compiles to more than the limit. The function itself handles an
/// invalid one.
fn check_pattern(name: &str, pattern: &str) -> Result<()> {
    match regex::RegexBuilder::new(pattern).size_limit(PATTERN_BYTES_MAX).build() {
        Err(regex::Error::CompiledTooBig(_)) => Err(limit(
            format!("{name}: a regular expression takes over {PATTERN_BYTES_MAX} bytes when it is compiled"),
            "repeat less: (a{1000}){1000} is a million states",
        )),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use datafusion::{arrow::array::StringViewArray, arrow::datatypes::Field, config::ConfigOptions};
    use proto::{Code, Problem};

    use super::{super::notices::Notices, *};

    fn args(columns: &[ColumnarValue], rows: usize, query: &Query) -> ScalarFunctionArgs {
        let mut options = ConfigOptions::new();
        options.extensions.insert(query.clone());
        ScalarFunctionArgs {
            args: columns.to_vec(),
            arg_fields: columns
                .iter()
                .map(|arg| Arc::new(Field::new("", arg.data_type(), true)))
                .collect(),
            number_rows: rows,
            return_field: Arc::new(Field::new("", DataType::Utf8View, true)),
            config_options: Arc::new(options),
        }
    }

    fn call(name: &str, columns: &[ColumnarValue], rows: usize, query: &Query) -> Result<ColumnarValue> {
        let function = super::super::scalar()
            .into_iter()
            .find(|function| function.name() == name)
            .expect("it is there");
        let mut args = args(columns, rows, query);
        let types: Vec<DataType> = columns.iter().map(ColumnarValue::data_type).collect();
        args.return_field = Arc::new(Field::new(
            "",
            function.return_type(&types).unwrap_or(DataType::Utf8View),
            true,
        ));
        function.invoke_with_args(args)
    }

    fn texts(text: &str, rows: usize) -> ColumnarValue {
        ColumnarValue::Array(Arc::new(StringViewArray::from_iter_values(std::iter::repeat_n(
            text, rows,
        ))))
    }

    fn constant(text: &str) -> ColumnarValue {
        ColumnarValue::Scalar(ScalarValue::Utf8View(Some(text.to_owned())))
    }

    #[test]
    fn a_heavy_batch_is_computed_in_parts_and_gives_the_same() {
        let query = Query::default();
        let (rows, long) = (100, "ab".repeat(5_000));
        let replaced = call(
            "replace",
            &[texts(&long, rows), constant("a"), constant(&"x".repeat(100))],
            rows,
            &query,
        )
        .expect("50 MB");
        let ColumnarValue::Array(replaced) = replaced else {
            panic!("rows")
        };
        let expected = long.replace('a', &"x".repeat(100));
        assert_eq!(replaced.len(), rows);
        let replaced = cast(&replaced, &DataType::Utf8View).expect("texts");
        assert!(
            replaced
                .as_string_view()
                .iter()
                .all(|text| text == Some(expected.as_str()))
        );
    }

    #[test]
    fn what_functions_made_counts_while_somebody_has_it() {
        let query = Query::default().with_memory(128 << 20);
        let (rows, long) = (200, "a".repeat(10_000));
        let replace = || {
            call(
                "replace",
                &[texts(&long, rows), constant("a"), constant(&"x".repeat(35))],
                rows,
                &query,
            )
        };
        let held = replace().expect("70 MB fit");
        let refused = replace().expect_err("twice that does not");
        assert!(refused.to_string().contains("replace makes"), "{refused}");
        drop(held);
        assert!(replace().is_ok(), "what was let go of does not count");
    }

    #[test]
    fn between_two_parts_the_query_may_end() {
        // The deadline passes between the first part and the second: the light call asks once, the heavy one before it
        // begins and before each part.
        let looks = std::sync::atomic::AtomicUsize::new(0);
        let over = move || {
            (looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 2).then(|| Problem::new(Code::Timeout, "over"))
        };
        let query = Query::new(Notices::default(), over);
        let rows = 100;
        assert!(
            call(
                "replace",
                &[texts("ab", rows), constant("a"), constant("b")],
                rows,
                &query
            )
            .is_ok(),
            "a light call looks once"
        );
        let long = "ab".repeat(5_000);
        let ended = call(
            "replace",
            &[texts(&long, rows), constant("a"), constant(&"x".repeat(100))],
            rows,
            &query,
        )
        .expect_err("its time is over");
        assert!(ended.to_string().contains("over"), "{ended}");
    }

    #[test]
    fn a_constant_that_grows_is_refused() {
        let query = Query::default();
        let refused = call(
            text::JOIN,
            &[constant(&"a".repeat(9 << 20)), constant(&"a".repeat(9 << 20))],
            1,
            &query,
        )
        .expect_err("18 MiB");
        assert!(refused.to_string().contains("|| makes"), "{refused}");
    }

    #[test]
    fn the_states_of_a_regular_expression_are_those_of_what_it_is_written_out_to() {
        for (pattern, expected) in [
            ("abc", 3),
            ("a.*b", 3),
            ("(a|bc)+", 6),
            ("[a-z]{10}", 10),
            ("(a.*){50}", 100),
            ("((a{9}){9}){9}", 729),
            ("(", 0),
        ] {
            assert_eq!(states(pattern), expected, "{pattern}");
        }
    }

    #[test]
    fn a_pattern_in_the_data_is_bounded() {
        let patterns = ColumnarValue::Array(Arc::new(StringViewArray::from_iter_values(["a+", r"(\w{100}){100}"])));
        let refused = call("regexp_like", &[texts("aaa", 2), patterns], 2, &Query::default()).expect_err("it is large");
        assert!(refused.to_string().contains("when it is compiled"), "{refused}");
    }

    #[test]
    fn the_distance_of_texts_that_are_too_long_is_refused() {
        let distance = |length: usize| {
            call(
                "levenshtein",
                &[texts(&"a".repeat(length), 1), constant(&"b".repeat(length))],
                1,
                &Query::default(),
            )
        };
        assert!(distance(1_000).is_ok());
        let refused = distance(20_000).expect_err("it would take seconds");
        assert!(refused.to_string().contains("for one row"), "{refused}");
    }

    /// No result of an offered function is larger than the weight of its call.
    #[test]
    fn a_weight_is_no_less_than_the_result() {
        let query = Query::default();
        let long = "aß(".repeat(300);
        let two = [constant(&long), constant("ß")];
        let three = [constant(&long), constant("a"), constant("xyzß")];
        let calls: [(&str, &[ColumnarValue]); 9] = [
            ("replace", &three),
            ("replace", &[constant(&long), constant(""), constant("xyz")]),
            ("translate", &three),
            ("regexp_replace", &three),
            ("upper", &two[..1]),
            ("string_to_array", &two),
            ("concat", &three),
            ("concat_ws", &three),
            (text::JOIN, &three),
        ];
        for (name, columns) in calls {
            let texts =
                |column: &ColumnarValue| cast(&column.to_array(3).expect("rows"), &DataType::Utf8).expect("texts");
            let rows: Vec<ColumnarValue> = columns
                .iter()
                .map(|column| ColumnarValue::Array(texts(column)))
                .collect();
            let weighed = Weighed::new(name, &args(&rows, 3, &query), 3).expect("weighed");
            let weight: u64 = (0..3).map(|row| weighed.weight(row)).sum();
            let ColumnarValue::Array(made) = call(name, &rows, 3, &query).expect("computed") else {
                panic!("rows")
            };
            assert!(size(&made) <= weight, "{name}: {} bytes, weighed {weight}", size(&made));
        }
    }
}
