//! Resolves function calls, and the syntax of SQL that becomes one.

use datafusion::sql::sqlparser::ast::{
    self, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments,
    TimezoneInfo, Value as Literal, WindowFrameBound, WindowType,
};
use plan::functions::{
    registry::{self, Property},
    score::SCORE,
    series::{RANGE, SERIES},
    value_counts::TOP_K,
};
use proto::{Code, Problem};

use super::{
    expression::Rewritten,
    operator::truth,
    problem::{bad, not_offered, shortened},
    resolver::Resolver,
    value::{call, literal, number, quoted, text, text_literal},
};
use crate::{sql::score::STATISTICS, typing};

/// Different PARTITION BY and ORDER BY of window functions. The rows are sorted for each, and each copies the columns of
/// those before.
const WINDOWS_MAX: usize = 100;

/// Expressions in PARTITION BY and ORDER BY of one window.
const WINDOW_KEYS_MAX: usize = 50;
/// Arguments of one call.
const ARGUMENTS_MAX: usize = 1_000;

/// Functions that take the items of a list by their positions. A list in documents becomes a list of its items.
const POSITIONAL: [&str; 2] = ["array_element", "array_slice"];

impl Resolver<'_> {
    /// Checks a function call and normalizes its name.
    pub(super) fn function(&mut self, mut function: Function) -> Result<Rewritten, Problem> {
        let mut name =
            function_name(&function.name).ok_or_else(|| not_offered(format!("the function {}", function.name)))?;
        let arguments = match &function.args {
            FunctionArguments::List(list) => list.args.len(),
            _ => 0,
        };
        match (name.as_str(), arguments) {
            (SCORE, 0) => return self.score_call(&function).map(Rewritten::Done),
            (SCORE, 3) => return self.score_by_statistics(&function).map(Rewritten::Done),
            _ => {}
        }
        if let Some(expression) = self.defined_function(&name, &function)? {
            return Ok(Rewritten::Done(expression));
        }
        if name == STATISTICS {
            let detail = format!("the function {name} outside of the select list of a search");
            return Err(not_offered(detail).hint("write SELECT score() … WHERE search('disk full')"));
        }
        let known = registry::function(&name);
        if known.is_some_and(|known| known.has(Property::IsGenerated)) {
            return Ok(Rewritten::Open(Expr::Function(function)));
        }
        if name == "list_extract" {
            name = "array_element".to_owned();
        }
        check_clauses(&name, &function)?;
        typing::check_function(&name)?;
        if !matches!(function.parameters, FunctionArguments::None) {
            return Err(not_offered(format!("{name} with two argument lists")));
        }
        if name == "search" {
            return self.search_call(&function).map(Rewritten::Done);
        }
        if name == "score" {
            return self.score_call(&function).map(Rewritten::Done);
        }
        if name == "highlight" {
            return self.highlight_call(&function).map(Rewritten::Done);
        }
        match &mut function.args {
            FunctionArguments::None => {}
            FunctionArguments::Subquery(_) => {
                return Err(
                    not_offered(format!("{name} of a subquery")).hint("put the subquery in its own parentheses")
                );
            }
            FunctionArguments::List(list) => {
                if [SERIES, RANGE].contains(&name.as_str()) {
                    read_texts_as_times(&mut list.args);
                }
                self.check_arguments(&name, &mut list.args)?;
            }
        }
        function.name = ast::ObjectName::from(vec![quoted(&name)]);
        if let Some(filter) = function.filter.take() {
            function.filter = Some(Box::new(truth(*filter)));
        }
        match &mut function.over {
            Some(WindowType::NamedWindow(window)) => *window = quoted(&window.value.to_lowercase()),
            Some(WindowType::WindowSpec(spec)) => self.window_spec(spec)?,
            None => {}
        }
        Ok(Rewritten::Open(Expr::Function(function)))
    }

    /// Checks the arguments of a function, and converts that of unnest to a list.
    fn check_arguments(&mut self, name: &str, args: &mut [FunctionArg]) -> Result<(), Problem> {
        if args.len() > ARGUMENTS_MAX {
            let detail = format!("{name} has {} arguments: the limit is {ARGUMENTS_MAX}", args.len());
            return Err(Problem::new(Code::TooComplex, detail).hint("put the values into a list: ARRAY[…]"));
        }
        let single = args.len() == 1;
        for arg in &*args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(_)) => {}
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) if name == "count" && single => {}
                other => return Err(not_offered(format!("the argument {other} of {name}"))),
            }
        }
        let known = registry::function(name);
        if known.is_some_and(|known| POSITIONAL.contains(&known.name()))
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(list))) = args.first_mut()
            && is_path(list)
        {
            *list = call("items", vec![std::mem::replace(list, literal(Literal::Null))]);
        }
        if name == TOP_K
            && let [FunctionArg::Unnamed(FunctionArgExpr::Expr(value))] = &*args
        {
            let hint = format!("write {TOP_K}({}, 10)", shortened(&value.to_string()));
            return Err(bad(format!("{TOP_K} takes a value and how many values to return")).hint(hint));
        }
        if name == "unnest" {
            let [FunctionArg::Unnamed(FunctionArgExpr::Expr(list))] = args else {
                return Err(bad("unnest takes one list in a select list").hint(
                    "unnest several in step in FROM: SELECT x, y FROM events AS e, unnest(e.a, e.b) AS t(x, y)",
                ));
            };
            *list = call("items", vec![std::mem::replace(list, literal(Literal::Null))]);
            return Ok(());
        }
        if known.is_some_and(|known| known.has(Property::TakesRegex))
            && let Some(FunctionArg::Unnamed(FunctionArgExpr::Expr(pattern))) = args.get(1)
            && let Some(pattern) = text_literal(pattern)
        {
            self.check_pattern(pattern)?;
        }
        Ok(())
    }

    /// A text that is a parameter of AT TIME ZONE is the same as a literal.
    pub(super) fn with_zoned_parameter(&self, node: Expr) -> Expr {
        let Expr::AtTimeZone { timestamp, time_zone } = node else {
            return node;
        };
        let value = |mut operand: &Expr| {
            while let Expr::Nested(inner) = operand {
                operand = inner;
            }
            self.parameter(super::super::search::parameter_index(operand)?)?
                .as_str()
        };
        let mut timestamp = timestamp;
        while let Expr::Nested(inner) = *timestamp {
            timestamp = inner;
        }
        let timestamp = match *timestamp {
            Expr::Cast {
                kind,
                expr,
                data_type,
                array,
                format,
            } => Expr::Cast {
                expr: value(&expr).map(text).map_or(expr, Box::new),
                kind,
                data_type,
                array,
                format,
            },
            other => other,
        };
        Expr::AtTimeZone {
            timestamp: Box::new(timestamp),
            time_zone,
        }
    }

    /// Normalizes the name of a window's base window, and checks its frame and the number of windows.
    pub(super) fn window_spec(&mut self, spec: &mut ast::WindowSpec) -> Result<(), Problem> {
        let keys = spec.partition_by.len() + spec.order_by.len();
        if keys > WINDOW_KEYS_MAX {
            let detail = format!("a window has {keys} keys: the limit is {WINDOW_KEYS_MAX}");
            return Err(Problem::new(Code::TooComplex, detail).hint("partition and order by fewer expressions"));
        }
        self.windows.insert((spec.partition_by.clone(), spec.order_by.clone()));
        if self.windows.len() > WINDOWS_MAX {
            let detail = format!("the statement has more than {WINDOWS_MAX} different windows");
            return Err(Problem::new(Code::TooComplex, detail)
                .hint("use the same PARTITION BY and ORDER BY for several functions"));
        }
        if let Some(name) = &mut spec.window_name {
            *name = quoted(&name.value.to_lowercase());
        }
        if let Some(frame) = &spec.window_frame {
            for bound in std::iter::once(&frame.start_bound).chain(&frame.end_bound) {
                if let WindowFrameBound::Preceding(Some(e)) | WindowFrameBound::Following(Some(e)) = bound
                    && !matches!(**e, Expr::Value(_) | Expr::Interval(_))
                {
                    return Err(not_offered("a window frame with a bound that is not a literal"));
                }
            }
        }
        Ok(())
    }
}

/// Returns an error for clauses of PostgreSQL's and BigQuery's aggregates that are written in another way here.
fn check_clauses(name: &str, function: &Function) -> Result<(), Problem> {
    let (first, limit) = match &function.args {
        FunctionArguments::List(list) => (
            list.args.first().map(ToString::to_string),
            list.clauses.iter().find_map(|clause| match clause {
                FunctionArgumentClause::Limit(limit) => Some(limit),
                _ => None,
            }),
        ),
        _ => (None, None),
    };
    let key = function
        .within_group
        .first()
        .map(|key| shortened(&key.expr.to_string()));
    match (name, key) {
        ("percentile_disc", key) => {
            let share = first.filter(|_| key.is_some()).unwrap_or_else(|| "0.5".to_owned());
            let value = key.unwrap_or_else(|| "x".to_owned());
            Err(not_offered("the function percentile_disc").hint(format!("write quantile_disc({value}, {share})")))
        }
        ("mode", Some(key)) => Err(not_offered("WITHIN GROUP with mode").hint(format!("write mode({key})"))),
        _ => match limit {
            Some(limit) => {
                let mut whole = function.clone();
                if let FunctionArguments::List(list) = &mut whole.args {
                    list.clauses
                        .retain(|clause| !matches!(clause, FunctionArgumentClause::Limit(_)));
                }
                let hint = format!(
                    "take the first items of its list: {}[1:{limit}]",
                    shortened(&whole.to_string())
                );
                Err(not_offered(format!("LIMIT in the parentheses of {name}")).hint(hint))
            }
            None => Ok(()),
        },
    }
}

/// Bounds of a series of times that are written as texts.
fn read_texts_as_times(args: &mut [FunctionArg]) {
    let [bounds @ .., FunctionArg::Unnamed(FunctionArgExpr::Expr(step))] = args else {
        return;
    };
    let is_interval = matches!(
        step,
        Expr::Interval(_)
            | Expr::Cast {
                data_type: DataType::Interval { .. },
                ..
            }
    );
    if !is_interval {
        return;
    }
    for bound in bounds {
        if let FunctionArg::Unnamed(FunctionArgExpr::Expr(bound)) = bound
            && text_literal(bound).is_some()
        {
            *bound = Expr::Cast {
                kind: ast::CastKind::Cast,
                expr: Box::new(std::mem::replace(bound, literal(Literal::Null))),
                data_type: DataType::Timestamp(None, TimezoneInfo::None),
                array: false,
                format: None,
            };
        }
    }
}

/// Whether an expression is written as a path: `tags`, `user.tags`, `_doc->'tags'`, `item[0]`.
fn is_path(expr: &Expr) -> bool {
    use ast::BinaryOperator::{Arrow, HashArrow};
    match expr {
        Expr::Nested(inner) => is_path(inner),
        Expr::BinaryOp { op, .. } => matches!(op, Arrow | HashArrow),
        other => matches!(
            other,
            Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::CompoundFieldAccess { .. }
        ),
    }
}

/// Whether an expression is a literal of the type TIMESTAMP whose text has no zone.
fn is_without_zone(time: &Expr) -> bool {
    let (data_type, literal) = match time {
        Expr::Nested(inner) => return is_without_zone(inner),
        Expr::TypedString(typed) => (
            &typed.data_type,
            text_literal(&Expr::Value(typed.value.clone())).map(str::to_owned),
        ),
        Expr::Cast { expr, data_type, .. } => (data_type, text_literal(expr).map(str::to_owned)),
        _ => return false,
    };
    let is_of_no_zone = matches!(
        data_type,
        DataType::Timestamp(_, TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) | DataType::Datetime(_)
    );
    let has_zone = |text: &str| {
        let after_date = text.get("2026-01-31".len()..).unwrap_or_default();
        after_date.contains(['Z', 'z', '+', '-'])
    };
    is_of_no_zone && literal.is_some_and(|text| !has_zone(&text))
}

/// Converts SQL syntax with keywords, such as `EXTRACT(… FROM …)`, to a function call. Rejects all other expressions.
pub(super) fn special_call(node: Expr) -> Result<Expr, Problem> {
    match node {
        Expr::AtTimeZone { timestamp, time_zone } => {
            // As in PostgreSQL, a TIMESTAMP literal without a zone is the local time in the zone, not in UTC.
            let time = match is_without_zone(&timestamp) {
                true => call("at_time_zone", vec![*timestamp, text("UTC")]),
                false => *timestamp,
            };
            Ok(call("at_time_zone", vec![time, *time_zone]))
        }
        Expr::Extract { field, expr, .. } => {
            Ok(call("date_part", vec![text(&field.to_string().to_lowercase()), *expr]))
        }
        Expr::Ceil {
            expr,
            field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime),
        } => Ok(call("ceil", vec![*expr])),
        Expr::Floor {
            expr,
            field: ast::CeilFloorKind::DateTimeField(ast::DateTimeField::NoDateTime),
        } => Ok(call("floor", vec![*expr])),
        Expr::Position { expr, r#in } => Ok(call("strpos", vec![*r#in, *expr])),
        Expr::Substring {
            expr,
            substring_from: Some(pattern),
            substring_for: None,
            special: false,
            ..
        } if text_literal(&pattern).is_some() => Ok(call(
            "array_element",
            vec![call("regexp_match", vec![*expr, *pattern]), number("1")],
        )),
        Expr::Substring {
            expr,
            substring_from,
            substring_for,
            ..
        } => {
            let from = substring_from.map_or_else(|| number("1"), |from| *from);
            let length = substring_for.map(|length| *length);
            Ok(call("substr", [*expr, from].into_iter().chain(length).collect()))
        }
        Expr::Trim {
            trim_where,
            trim_what,
            expr,
            trim_characters,
        } => {
            let name = match trim_where {
                Some(ast::TrimWhereField::Leading) => "ltrim",
                Some(ast::TrimWhereField::Trailing) => "rtrim",
                _ => "btrim",
            };
            let characters = trim_what
                .map(|what| *what)
                .into_iter()
                .chain(trim_characters.unwrap_or_default());
            Ok(call(name, [*expr].into_iter().chain(characters).collect()))
        }
        Expr::Overlay {
            expr,
            overlay_what,
            overlay_from,
            overlay_for,
        } => {
            let arguments = [*expr, *overlay_what, *overlay_from]
                .into_iter()
                .chain(overlay_for.map(|length| *length));
            Ok(call("overlay", arguments.collect()))
        }
        Expr::Array(array) => Ok(call("make_array", array.elem)),
        Expr::Tuple(_) => Err(not_offered("a row of values").hint("compare the values one by one")),
        other => Err(not_offered(format!("the expression {}", shortened(&other.to_string())))),
    }
}

/// The name of a function in lower case, if it has one part.
pub(crate) fn function_name(name: &ast::ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ast::ObjectNamePart::Identifier(ident)] => Some(ident.value.to_lowercase()),
        _ => None,
    }
}
