//! Compatibility: functions and clauses that people write out of habit in other systems become what Rachis calls them,
//! before names are resolved. [`registry`] says what each name becomes.

mod clauses;
mod json;
mod time_patterns;

use std::{collections::HashMap, ops::ControlFlow, sync::LazyLock};

use datafusion::sql::sqlparser::{
    ast::{
        BinaryOperator, CaseWhen, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause,
        FunctionArguments, Ident, Interval, ObjectName, Query, Select, SelectItem, Value as Literal,
        helpers::attached_token::AttachedToken,
    },
    dialect::PostgreSqlDialect,
    parser::Parser,
};
use front::NodeMut;
use plan::functions::{
    is_rachis_function,
    registry::{self, ArgumentTypes, Meaning},
};
use proto::{Code, Problem};

use super::copies::{Copies, expressions};
use super::resolve::{
    default_name, function_name,
    value::{call, literal, text, text_literal},
};
use crate::typing;

/// Rewrites the calls and clauses of other systems in a query.
pub(super) fn rewrite_query(query: &mut Query) -> Result<(), Problem> {
    let (mut failed, mut copies) = (None, Copies::of_query(query));
    let _ = front::revise_query(query, &mut |node| stop_at_problem(node, &mut copies, &mut failed));
    failed.map_or(Ok(()), Err)
}

/// Rewrites the calls and clauses of other systems in an expression.
pub(super) fn rewrite_expression(expr: &mut Expr) -> Result<(), Problem> {
    let (mut failed, mut copies) = (None, Copies::of_expression(expr));
    let _ = front::revise_expression(expr, &mut |node| stop_at_problem(node, &mut copies, &mut failed));
    failed.map_or(Ok(()), Err)
}

fn stop_at_problem(node: NodeMut<'_>, copies: &mut Copies, failed: &mut Option<Problem>) -> ControlFlow<()> {
    let done = match node {
        NodeMut::Query(query) => {
            clauses::select_order_keys(query);
            Ok(())
        }
        NodeMut::EnterSelect(select) => {
            clauses::complete_from_first(select);
            keep_names(select);
            Ok(())
        }
        NodeMut::LeaveSelect(select) => clauses::nest_qualify(select, copies),
        NodeMut::Expr(expr) => json::rewrite_operator(expr, copies).and_then(|()| rewrite_call(expr, copies)),
    };
    match done {
        Ok(()) => ControlFlow::Continue(()),
        Err(problem) => {
            *failed = Some(problem);
            ControlFlow::Break(())
        }
    }
}

/// A result column keeps the name of the call that was written.
fn keep_names(select: &mut Select) {
    for item in &mut select.projection {
        if let SelectItem::UnnamedExpr(expr) = item
            && let Expr::Function(function) = &*expr
            && function_name(&function.name).is_some_and(|name| is_rewritten(&name, function))
        {
            *item = SelectItem::ExprWithAlias {
                alias: Ident::with_quote('"', default_name(expr)),
                expr: expr.clone(),
            };
        }
    }
}

/// Whether a call is rewritten, and not into a constant.
fn is_rewritten(name: &str, function: &Function) -> bool {
    match registry::compat(name).map(|known| known.meaning) {
        None | Some(Meaning::Constant(_)) => false,
        Some(Meaning::Path(_)) => plain_arguments(function).is_some_and(|arguments| json::reads_path(&arguments)),
        Some(_) => true,
    }
}

/// The expressions of the registry by their text, and how many arguments each takes.
static EXPRESSIONS: LazyLock<HashMap<&str, (usize, Expr)>> = LazyLock::new(|| {
    let texts = registry::all().flat_map(|known| match known.meaning {
        Meaning::Expressions(texts) => texts,
        _ => &[],
    });
    texts
        .filter_map(|text| Some((*text, (arguments_of(text), parsed(text)?))))
        .collect()
});

fn parsed(text: &str) -> Option<Expr> {
    let parser = Parser::new(&PostgreSqlDialect {}).try_with_sql(text);
    parser.and_then(|mut parser| parser.parse_expr()).ok()
}

/// The greatest n of the `$n` in a text.
fn arguments_of(text: &str) -> usize {
    (1..10).rev().find(|n| text.contains(&format!("${n}"))).unwrap_or(0)
}

/// Rewrites a call of a function of another system.
fn rewrite_call(expr: &mut Expr, copies: &mut Copies) -> Result<(), Problem> {
    let Expr::Function(function) = expr else { return Ok(()) };
    let Some(name) = function_name(&function.name) else {
        return Ok(());
    };
    let Some(known) = registry::compat(&name) else {
        return Ok(());
    };
    let Some(arguments) = plain_arguments(function) else {
        return Ok(());
    };
    if rewrite_specially(&name, &arguments, expr)? {
        return Ok(());
    }
    let Expr::Function(function) = &mut *expr else {
        return Ok(());
    };
    match known.meaning {
        Meaning::Itself => rename(function, known.name()),
        Meaning::Call(other, second) => {
            rename(function, other);
            if arguments.len() == 1 {
                push_argument(function, text(second));
            }
        }
        Meaning::Constant(value) if arguments.is_empty() => *expr = text(value),
        Meaning::Constant(_) => {}
        Meaning::Path(result) => {
            if let Some(path) = json::path_of_call(&name, result, &arguments)? {
                *expr = path;
            }
        }
        Meaning::Expressions(templates) => {
            if let Some(expression) = expanded(&name, templates, &arguments, copies)? {
                *expr = with_clauses(&name, expression, function)?;
            }
        }
        Meaning::TimeToText(letters) => {
            let formatted = time_patterns::time_to_text(&name, letters, &arguments)?;
            *expr = with_clauses(&name, formatted, function)?;
        }
        Meaning::TextToTime(letters, year) => {
            let parsed = time_patterns::text_to_time(&name, letters, year, &arguments)?;
            *expr = with_clauses(&name, parsed, function)?;
        }
        Meaning::Hint(hint) => return Err(not_supported(&name, hint)),
    }
    Ok(())
}

/// The error of a call that has no meaning here.
fn not_supported(name: &str, hint: &str) -> Problem {
    Problem::new(Code::NotSupported, format!("the function {name} is not supported")).hint(hint)
}

/// The expression of a call with so many arguments. None if it is to be resolved as it is.
fn expanded(
    name: &str,
    templates: &'static [&'static str],
    arguments: &[Expr],
    copies: &mut Copies,
) -> Result<Option<Expr>, Problem> {
    let mut counts = Vec::new();
    for template in templates {
        match EXPRESSIONS.get(template) {
            Some((count, expression)) if *count == arguments.len() => {
                for (number, argument) in arguments.iter().enumerate() {
                    let uses = template.matches(&format!("${}", number + 1)).count();
                    copies.charge(uses.saturating_sub(1), expressions(argument))?;
                }
                return Ok(Some(filled(expression.clone(), arguments)));
            }
            Some((count, _)) => counts.push(count.to_string()),
            None => {}
        }
    }
    // A function of DataFusion may take other arguments as well.
    let is_complete = |function: &registry::SqlFunction| {
        !function.is_callable() || (function.arguments != ArgumentTypes::Typed && is_rachis_function(name))
    };
    if registry::function(name).is_none_or(is_complete) {
        let detail = format!(
            "{name} takes {} arguments, not {}",
            counts.join(" or "),
            arguments.len()
        );
        return Err(Problem::new(Code::BadSql, detail));
    }
    Ok(None)
}

/// Rewrites calls that an expression of the registry cannot express. Returns whether this was one of them.
fn rewrite_specially(name: &str, arguments: &[Expr], expr: &mut Expr) -> Result<bool, Problem> {
    let Expr::Function(function) = expr else {
        return Ok(false);
    };
    match (name, arguments) {
        ("multiif", [whens @ .., otherwise]) if whens.len() >= 2 && whens.len().is_multiple_of(2) => {
            let when = |pair: &[Expr]| CaseWhen {
                condition: pair[0].clone(),
                result: pair[1].clone(),
            };
            *expr = Expr::Case {
                case_token: AttachedToken::empty(),
                end_token: AttachedToken::empty(),
                operand: None,
                conditions: whens.chunks(2).map(when).collect(),
                else_result: Some(Box::new(otherwise.clone())),
            };
        }
        ("tostartofinterval", [time, Expr::Interval(interval)]) if let Some(width) = width_of(interval) => {
            let start = call("start_of_interval", vec![time.clone(), text(&width)]);
            *expr = with_clauses(name, start, function)?;
        }
        ("match", [subject, pattern]) if let Some(pattern) = text_literal(pattern) => {
            let pattern = text(&format!("(?s){pattern}"));
            set_arguments(function, vec![subject.clone(), pattern]);
            rename(function, "regexp_like");
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// The width of an interval of one number and one unit: `2 week`.
fn width_of(interval: &Interval) -> Option<String> {
    let value = match &*interval.value {
        Expr::Value(value) => match &value.value {
            Literal::Number(number, _) => number.clone(),
            _ => text_literal(&interval.value)?.trim().to_lowercase(),
        },
        _ => return None,
    };
    let spelled = match &interval.leading_field {
        Some(unit) => format!("{value} {}", unit.to_string().to_lowercase()),
        None => value,
    };
    let (number, unit) = spelled.split_once(char::is_whitespace)?;
    let (number, unit) = (number.parse::<i64>().ok()?, unit.trim());
    let unit = unit.strip_suffix('s').unwrap_or(unit);
    (number > 0 && typing::TIME_UNITS.contains(&unit)).then(|| format!("{number} {unit}"))
}

/// The arguments of a call, if all are expressions.
fn plain_arguments(function: &Function) -> Option<Vec<Expr>> {
    match &function.args {
        FunctionArguments::None => Some(Vec::new()),
        FunctionArguments::Subquery(_) => None,
        FunctionArguments::List(list) => list
            .args
            .iter()
            .map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr.clone()),
                _ => None,
            })
            .collect(),
    }
}

fn set_arguments(function: &mut Function, arguments: Vec<Expr>) {
    if let FunctionArguments::List(list) = &mut function.args {
        list.args.clear();
        arguments
            .into_iter()
            .for_each(|argument| list.args.push(unnamed(argument)));
    }
}

fn push_argument(function: &mut Function, argument: Expr) {
    if let FunctionArguments::List(list) = &mut function.args {
        let mut argument = argument;
        list.clauses.retain(|clause| match clause {
            FunctionArgumentClause::Separator(separator) => {
                argument = literal(separator.value.clone());
                false
            }
            _ => true,
        });
        list.args.push(unnamed(argument));
    }
}

fn unnamed(expr: Expr) -> FunctionArg {
    FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))
}

fn rename(function: &mut Function, name: &str) {
    function.name = ObjectName::from(vec![Ident::new(name)]);
}

/// An expression of the registry with these arguments in their places.
fn filled(mut expression: Expr, arguments: &[Expr]) -> Expr {
    let _ = front::revise_expression(&mut expression, &mut |node| {
        if let NodeMut::Expr(expr) = node
            && let Expr::Value(value) = &*expr
            && let Literal::Placeholder(name) = &value.value
            && let Some(argument) = name.strip_prefix('$').and_then(|n| n.parse::<usize>().ok())
            && let Some(argument) = arguments.get(argument.wrapping_sub(1))
        {
            *expr = match argument {
                Expr::BinaryOp { .. } | Expr::UnaryOp { .. } | Expr::Between { .. } | Expr::Like { .. } => {
                    Expr::Nested(Box::new(argument.clone()))
                }
                simple => simple.clone(),
            };
        }
        ControlFlow::Continue(())
    });
    expression
}

/// Moves FILTER and OVER of the call that was written to the call that it stands for.
fn with_clauses(name: &str, expression: Expr, written: &Function) -> Result<Expr, Problem> {
    let refused = |clause| {
        let detail = format!("{clause} with {name} is not supported");
        Err(Problem::new(Code::NotSupported, detail))
    };
    if let FunctionArguments::List(list) = &written.args
        && (list.duplicate_treatment.is_some() || !list.clauses.is_empty())
    {
        return refused("DISTINCT or ORDER BY");
    }
    if written.filter.is_none() && written.over.is_none() {
        return Ok(expression);
    }
    let Expr::Function(mut function) = expression else {
        return refused("FILTER or OVER");
    };
    if !function_name(&function.name).is_some_and(|name| typing::is_aggregate(&name)) {
        return refused("FILTER or OVER");
    }
    function.filter = match (function.filter.take(), written.filter.clone()) {
        (Some(own), Some(other)) => Some(Box::new(Expr::BinaryOp {
            left: Box::new(Expr::Nested(own)),
            op: BinaryOperator::And,
            right: Box::new(Expr::Nested(other)),
        })),
        (own, other) => own.or(other),
    };
    function.over = function.over.or_else(|| written.over.clone());
    Ok(Expr::Function(function))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_expression_of_the_registry_calls_functions_that_exist() {
        for function in registry::all() {
            let Meaning::Expressions(texts) = function.meaning else {
                continue;
            };
            for text in texts {
                let (_, mut expression) = EXPRESSIONS.get(text).expect("an expression").clone();
                let _ = front::revise_expression(&mut expression, &mut |node| {
                    if let NodeMut::Expr(Expr::Function(call)) = node {
                        let name = function_name(&call.name).expect("a name");
                        assert!(registry::function(&name).is_some(), "{}: {name}", function.signature);
                    }
                    ControlFlow::Continue(())
                });
            }
        }
    }

    #[test]
    fn every_name_is_compared_with_its_home() {
        let calls = include_str!("../../../../tests/tests/familiar_functions/calls.txt");
        let compared: BTreeSet<String> = calls
            .lines()
            .filter(|line| !line.starts_with('#'))
            .filter_map(|line| line.split_once(" | "))
            .flat_map(|(names, _)| names.split_whitespace().map(str::to_lowercase))
            .filter(|name| name.starts_with(char::is_alphabetic))
            .collect();
        let all: BTreeSet<String> = registry::compat_names()
            .filter(|(_, function)| !matches!(function.meaning, Meaning::Constant(_)))
            .map(|(name, _)| name.to_owned())
            .collect();
        let missing: Vec<&String> = all.symmetric_difference(&compared).collect();
        assert!(
            missing.is_empty(),
            "only in one of the registry and calls.txt: {missing:?}"
        );
    }
}
