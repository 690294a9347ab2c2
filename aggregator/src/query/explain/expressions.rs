//! Expressions of a plan in the words of the statement: names of paths instead of flat columns, and no casts that the
//! statement does not have.

use std::{
    borrow::Cow,
    sync::{Arc, LazyLock},
};

use datafusion::{
    common::{DFSchema, ScalarValue, config::ConfigOptions, tree_node::Transformed},
    logical_expr::{Expr, physical_planning_context::PhysicalPlanningContext},
    physical_expr::{
        PhysicalExpr, PhysicalSortExpr, ScalarFunctionExpr,
        aggregate::AggregateFunctionExpr,
        create_physical_expr,
        execution_props::ExecutionProps,
        expressions::{CastExpr, Column as PhysicalColumn, Literal},
    },
    physical_expr_common::physical_expr::fmt_sql,
};
use plan::{
    Column, ColumnSource,
    functions::checked,
    search::{Clause, Match, RangeBound},
    walk::Walk as _,
};
use regex::{Captures, Regex};

/// The number of characters of an expression that are shown, at most.
const SHOWN_CHARACTERS_MAX: usize = 300;

/// An expression over the output of an operator.
pub(super) fn shown(expr: &Arc<dyn PhysicalExpr>) -> String {
    let replaced = Arc::clone(expr).transform_up(|part| {
        let replacement = if let Some(column) = part.downcast_ref::<PhysicalColumn>() {
            named(name(column.name()).into_owned())
        } else if let Some(cast) = part.downcast_ref::<CastExpr>() {
            Arc::clone(cast.expr())
        } else if let Some(text) = part
            .downcast_ref::<Literal>()
            .and_then(|literal| quoted(literal.value()))
        {
            named(text)
        } else if let Some(text) = part.downcast_ref::<ScalarFunctionExpr>().and_then(operators) {
            named(text)
        } else {
            return Ok(Transformed::no(part));
        };
        Ok(Transformed::yes(replacement))
    });
    let expr = replaced.map_or_else(|_| Arc::clone(expr), |replaced| replaced.data);
    shortened(&fmt_sql(expr.as_ref()).to_string())
}

/// Arithmetic, which is a function within a plan: `a + b - c`, `a * b`. Its arguments are shown already.
fn operators(call: &ScalarFunctionExpr) -> Option<String> {
    let operand = |expr: &Arc<dyn PhysicalExpr>| {
        let text = fmt_sql(expr.as_ref()).to_string();
        if text.contains(' ') { format!("({text})") } else { text }
    };
    let joined = |operands: &[Arc<dyn PhysicalExpr>], operator: &str| {
        Some(operands.iter().map(operand).collect::<Vec<_>>().join(operator))
    };
    match (call.fun().name(), call.args()) {
        (checked::SUM | checked::DOUBLE_SUM, [signs, operands @ ..]) => {
            let signs = signs
                .downcast_ref::<PhysicalColumn>()?
                .name()
                .trim_matches('\'')
                .to_owned();
            let signed = |(index, (sign, expr)): (usize, (char, _))| match (index, sign) {
                (0, '+') => operand(expr),
                (0, sign) => format!("{sign}{}", operand(expr)),
                (_, sign) => format!(" {sign} {}", operand(expr)),
            };
            Some(signs.chars().zip(operands).enumerate().map(signed).collect())
        }
        (checked::PRODUCT | checked::DOUBLE_PRODUCT, operands) => joined(operands, " * "),
        (checked::QUOTIENT, operands) => joined(operands, " / "),
        (checked::REMAINDER, operands) => joined(operands, " % "),
        _ => None,
    }
}

/// A text in place of a part of an expression.
fn named(text: String) -> Arc<dyn PhysicalExpr> {
    Arc::new(PhysicalColumn::new(&text, 0))
}

/// A text or a time in quotes.
fn quoted(value: &ScalarValue) -> Option<String> {
    let text = match value.try_as_str() {
        Some(text) => text?.replace('\'', "''"),
        None if value.data_type().is_temporal() && !value.is_null() => value.cast_to_text()?,
        None => return None,
    };
    Some(format!("'{text}'"))
}

trait CastToText {
    fn cast_to_text(&self) -> Option<String>;
}

impl CastToText for ScalarValue {
    fn cast_to_text(&self) -> Option<String> {
        let text = self.cast_to(&datafusion::arrow::datatypes::DataType::Utf8).ok()?;
        text.try_as_str().flatten().map(str::to_owned)
    }
}

/// A condition of a scan, which names flat columns.
pub(super) fn condition(condition: &Expr) -> String {
    let physical = || {
        let columns = condition.column_refs();
        let columns = columns.iter().filter_map(|column| Column::parse(&column.name));
        let schema = plan::column::schema(&columns.collect::<Vec<_>>());
        let mut props = ExecutionProps::new();
        props.mark_start_execution(Arc::new(ConfigOptions::default()));
        let schema = DFSchema::try_from(schema)?;
        create_physical_expr(condition, &schema, &props, &PhysicalPlanningContext::default())
    };
    match physical() {
        Ok(physical) => shown(&physical),
        Err(_) => shortened(&condition.human_display().to_string()),
    }
}

/// A call of an aggregate function.
pub(super) fn aggregate(call: &AggregateFunctionExpr) -> String {
    let arguments: Vec<String> = call.expressions().iter().map(shown).collect();
    let arguments = match (call.fun().name(), arguments.as_slice()) {
        ("count", [one]) if one == "1" => "*".to_owned(),
        _ => arguments.join(", "),
    };
    let distinct = if call.is_distinct() { "DISTINCT " } else { "" };
    format!("{}({distinct}{arguments})", call.fun().name())
}

/// A list of sort keys.
pub(super) fn keys<'k>(keys: impl IntoIterator<Item = &'k PhysicalSortExpr>) -> String {
    let key = |key: &PhysicalSortExpr| ordered(shown(&key.expr), key.options.descending);
    list(keys.into_iter().map(key))
}

/// A sort key and its direction.
pub(super) fn ordered(key: String, descending: bool) -> String {
    if descending { format!("{key} DESC") } else { key }
}

/// A list of a bounded length.
pub(super) fn list(items: impl IntoIterator<Item = String>) -> String {
    const ITEMS_MAX: usize = 20;
    let mut items: Vec<String> = items.into_iter().collect();
    let more = items.len().saturating_sub(ITEMS_MAX);
    items.truncate(ITEMS_MAX);
    match more {
        0 => items.join(", "),
        more => format!("{} and {more} more", items.join(", ")),
    }
}

/// A column that a scan reads.
pub(super) fn column(column: &Column) -> String {
    match &column.source {
        ColumnSource::Path(path) => path.to_string(),
        ColumnSource::Search(clause) => search(clause),
        ColumnSource::Tokens(None) => "words of the document".to_owned(),
        ColumnSource::Tokens(Some(path)) => format!("words of {path}"),
        ColumnSource::Score(_) => "score of the search".to_owned(),
        _ => column.name(),
    }
}

/// The name of a column of a plan. Some are texts of expressions, in which columns have types.
pub(super) fn name(flat: &str) -> Cow<'_, str> {
    static TYPES: LazyLock<Option<Regex>> = LazyLock::new(|| {
        let of_type = r"(?P<path>[^\s:]):(?:bool|int|double|text|time|json|canonical|rank)\b!?";
        let literal =
            r#"(?:Utf8|Utf8View|LargeUtf8)\("(?P<text>[^"]*)"\)|(?:Int64|UInt64|Float64)\((?P<number>[^)]*)\)"#;
        Regex::new(&format!("{of_type}|{literal}")).ok()
    });
    // A control character tells two copies of a column apart.
    let unmarked = match flat.contains(char::is_control) {
        true => Cow::Owned(flat.replace(char::is_control, "")),
        false => Cow::Borrowed(flat),
    };
    // A column may have been read as JSON and then, perhaps several times, as another type.
    let mut flat = unmarked.as_ref();
    while let Some((read, _)) = flat.rsplit_once(':')
        && read.trim_matches('"').ends_with(":json")
    {
        flat = read.trim_matches('"');
    }
    if let Some(parsed) = Column::parse(flat) {
        return Cow::Owned(column(&parsed));
    }
    let Some(types) = TYPES.as_ref() else {
        return Cow::Owned(flat.to_owned());
    };
    let plain = |found: &Captures| {
        if let Some(text) = found.name("text") {
            return format!("'{}'", text.as_str());
        }
        let kept = found.name("path").or_else(|| found.name("number"));
        kept.map_or(String::new(), |kept| kept.as_str().to_owned())
    };
    // A type may follow another.
    let once = types.replace_all(flat, plain);
    let name = types.replace_all(&once, plain).replace("count(1)", "count(*)");
    Cow::Owned(shortened(&name))
}

/// A clause as a search spells it.
fn search(clause: &Clause) -> String {
    let phrase = |text: &str| match text.chars().all(char::is_alphanumeric) {
        true => text.to_owned(),
        false => format!("\"{text}\""),
    };
    let end = |bound: &Option<RangeBound>| bound.as_ref().map_or("*".to_owned(), |bound| bound.value.clone());
    let is_inclusive = |bound: &Option<RangeBound>| bound.as_ref().is_none_or(|bound| bound.inclusive);
    let time = |micros: &Option<i64>| {
        let time = micros.and_then(chrono::DateTime::from_timestamp_micros);
        time.map_or("*".to_owned(), |time| time.format("%Y-%m-%dT%H:%M:%S%.fZ").to_string())
    };
    let test = match &clause.matches {
        Match::Words(text) => phrase(text),
        Match::Prefix(prefix) => format!("{prefix}*"),
        Match::Near { text, slop } => format!("\"{text}\"~{slop}"),
        Match::Wildcard(pattern) => pattern.clone(),
        Match::Regex(pattern) => format!("/{pattern}/"),
        Match::Fuzzy { token, changes } => format!("{token}~{changes}"),
        Match::Network(network) => network.clone(),
        Match::Times { from, to } => format!("[{} TO {}]", time(from), time(to)),
        Match::Range { from, to } => {
            let open = if is_inclusive(from) { '[' } else { '{' };
            let close = if is_inclusive(to) { ']' } else { '}' };
            format!("{open}{} TO {}{close}", end(from), end(to))
        }
        Match::Exists => "*".to_owned(),
    };
    let text = match &clause.path {
        Some(path) => format!("{path}:{test}"),
        None => test,
    };
    format!("search('{}')", text.replace('\'', "''"))
}

fn shortened(text: &str) -> String {
    let one_line = text.replace(['\n', '\r'], " ");
    match one_line.char_indices().nth(SHOWN_CHARACTERS_MAX) {
        Some((at, _)) => format!("{}…", &one_line[..at]),
        None => one_line,
    }
}

#[cfg(test)]
mod tests {
    use plan::{Path, Type};

    use super::*;

    #[test]
    fn columns_have_the_names_of_the_statement() {
        let path = Path::of_keys(["user", "name"]);
        for (flat, shown) in [
            ("user.name:text", "user.name"),
            ("user.name:text!", "user.name"),
            ("_time", "_time"),
            ("avg(gh.payload.size:json)", "avg(gh.payload.size)"),
            ("type:json:text", "type"),
            ("type:json:json:text", "type"),
            ("type:json\u{1}:int", "type"),
            ("\"user.name:json\":text", "user.name"),
            ("count(Int64(1))", "count(*)"),
            ("n", "n"),
        ] {
            assert_eq!(name(flat), shown, "{flat}");
        }
        assert_eq!(name(&Column::path(path, Type::Json).name()), "user.name");
    }

    #[test]
    fn clauses_are_spelled_as_in_a_search() {
        let at = |matches| {
            column(&Column::search(Clause {
                path: Some(Path::of_keys(["msg"])),
                matches,
            }))
        };
        let bound = |value: &str, inclusive| {
            Some(RangeBound {
                value: value.to_owned(),
                inclusive,
            })
        };
        for (matches, text) in [
            (Match::Words("disk full".to_owned()), "search('msg:\"disk full\"')"),
            (Match::Prefix("dis".to_owned()), "search('msg:dis*')"),
            (
                Match::Range {
                    from: bound("3", false),
                    to: None,
                },
                "search('msg:{3 TO *]')",
            ),
            (
                Match::Times {
                    from: Some(0),
                    to: None,
                },
                "search('msg:[1970-01-01T00:00:00Z TO *]')",
            ),
            (Match::Exists, "search('msg:*')"),
        ] {
            assert_eq!(at(matches), text);
        }
    }
}
