//! The texts of functions and saved queries: their parameters, and what they return.
//!
//! ```text
//! (cents bigint) RETURNS double AS cents / 100.0
//! (since timestamp DEFAULT now() - interval '1 hour', k int DEFAULT 10) AS SELECT … LIMIT $k
//! ```

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::ControlFlow,
};

use datafusion::sql::sqlparser::{
    ast::{self, Expr, LimitClause, Query, Value as Literal},
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan},
};
use front::{Node, NodeMut, Root, walk};
use plan::Type;
use proto::{Code, Problem, catalog::is_plain_name, limits::DEFINITION_BYTES_MAX};
use serde_json::Value;

use super::{
    resolve::value::literal,
    statement,
    token::{Tokens, tokenize},
};
use crate::typing;

/// Parameters of one function or saved query.
const PARAMETERS_MAX: usize = 64;
/// Options of a call, which no parameter may be named after.
pub(crate) const RESERVED: [&str; 6] = [
    "at_least",
    "allow_partial",
    "timeout_ms",
    "scan",
    "query_id",
    "parameters",
];

/// A parameter of a function or saved query.
#[derive(Debug, Clone)]
pub(crate) struct Parameter {
    /// Its name, in lower case.
    pub name: String,
    /// Its type.
    pub data_type: ast::DataType,
    /// Its value if none is given.
    pub default: Option<Expr>,
}

/// A function: `(parameters) RETURNS type AS expression`.
pub(super) struct FunctionText {
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    /// The type of its result.
    pub returns: ast::DataType,
    /// The expression over its parameters.
    pub body: Expr,
}

/// A saved query: `[(parameters)] AS query`.
pub(crate) struct SavedQuery {
    /// Its parameters, in order.
    pub parameters: Vec<Parameter>,
    query: Box<Query>,
}

/// A saved query with values for its parameters.
#[derive(Debug)]
pub(crate) struct BoundQuery {
    /// The query, with `$1`, `$2`, … for the values.
    pub query: Box<Query>,
    /// The values.
    pub parameters: Vec<Value>,
}

/// What becomes of a parameter that has neither a value nor a default.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unknown {
    /// A problem.
    Refused,
    /// NULL: the query is only checked.
    Null,
}

impl FunctionText {
    pub(super) fn parse(text: &str) -> Result<Self, Problem> {
        let tokens = tokenize(text, DEFINITION_BYTES_MAX)?.all;
        let (parameters, rest) = parameters(&tokens)?;
        if let Some(parameter) = parameters.iter().find(|parameter| parameter.default.is_some()) {
            return Err(Problem::new(
                Code::NotSupported,
                format!("the parameter {} has a default", parameter.name),
            )
            .hint("functions take all their arguments; saved queries may have defaults"));
        }
        let example = "write CREATE FUNCTION euros(cents bigint) RETURNS double AS cents / 100.0";
        let end = position(rest, "AS").ok_or_else(|| bad("the expression of the function is missing").hint(example))?;
        let returns = match rest.first() {
            Some(first) if is_word(first, "RETURNS") => data_type(&rest[1..end], "the result")?,
            _ => return Err(bad("the type of the function's result is missing").hint(example)),
        };
        let body = statement::expression(Tokens {
            all: rest[end + 1..].to_vec(),
        })?;
        Ok(Self {
            parameters,
            returns,
            body,
        })
    }

    /// A NULL of its type for each parameter.
    pub(super) fn null_arguments(&self) -> Vec<Expr> {
        self.parameters.iter().map(|_| literal(Literal::Null)).collect()
    }
}

impl SavedQuery {
    pub(crate) fn parse(text: &str) -> Result<Self, Problem> {
        let tokens = tokenize(text, DEFINITION_BYTES_MAX)?.all;
        let (parameters, rest) = match tokens.first() {
            Some(first) if first.token == Token::LParen => parameters(&tokens)?,
            _ => (Vec::new(), &tokens[..]),
        };
        if let Some(parameter) = parameters
            .iter()
            .find(|parameter| RESERVED.contains(&parameter.name.as_str()))
        {
            return Err(bad(format!("{} cannot be the name of a parameter", parameter.name))
                .hint(format!("a call has options of these names: {}", RESERVED.join(", "))));
        }
        if !rest.first().is_some_and(|first| is_word(first, "AS")) {
            return Err(
                bad("the query is missing").hint("write CREATE QUERY top_users(k int DEFAULT 10) AS SELECT … LIMIT $k")
            );
        }
        let query = statement::query(Tokens {
            all: rest[1..].to_vec(),
        })?;
        let numbered = tokens.iter().find(|token| is_numbered_place(&token.token));
        match numbered {
            Some(token) => Err(bad(format!("{} is not a parameter of the query", token.token))
                .hint("a saved query names its parameters: $k")),
            None => Ok(Self { parameters, query }),
        }
    }

    /// Values by the names of the parameters: a value without a name is of the next parameter.
    pub(crate) fn named(&self, values: Vec<(Option<String>, Value)>) -> Result<BTreeMap<String, Value>, Problem> {
        let mut given = BTreeMap::new();
        for (position, (name, value)) in values.into_iter().enumerate() {
            let name = match (name, self.parameters.get(position)) {
                (Some(name), _) => name,
                (None, Some(parameter)) => parameter.name.clone(),
                (None, None) => {
                    let count = self.parameters.len();
                    return Err(bad(format!(
                        "the query takes {count} parameters, and more values were given"
                    )));
                }
            };
            if given.insert(name.clone(), value).is_some() {
                return Err(bad(format!("parameter {name} is given twice")));
            }
        }
        Ok(given)
    }

    /// The query with these values, by the names of the parameters. A value is used as a value, never as SQL.
    pub(crate) fn bind(mut self, given: &BTreeMap<String, Value>, unknown: Unknown) -> Result<BoundQuery, Problem> {
        if let Some(name) = given
            .keys()
            .find(|name| self.parameters.iter().all(|known| known.name != **name))
        {
            let names: Vec<&str> = self
                .parameters
                .iter()
                .map(|parameter| parameter.name.as_str())
                .collect();
            let hint = match names.is_empty() {
                true => "it has no parameters".to_owned(),
                false => format!("its parameters are {}", names.join(", ")),
            };
            return Err(Problem::new(Code::BadRequest, format!("the query has no parameter {name}")).hint(hint));
        }
        let used = places(&self.query);
        let (mut values, mut bound) = (Vec::new(), BTreeMap::new());
        for parameter in &self.parameters {
            let value = match (given.get(&parameter.name), &parameter.default) {
                (Some(value), _) => Some(typed_value(parameter, value)?),
                (None, Some(default)) => constant(default)
                    .map(|value| typed_value(parameter, &value))
                    .transpose()?,
                (None, None) if unknown == Unknown::Null => Some(Value::Null),
                (None, None) => {
                    return Err(Problem::new(
                        Code::BadRequest,
                        format!("the parameter {} has no value", parameter.name),
                    )
                    .hint(format!("its type is {}", parameter.data_type)));
                }
            };
            let expr = match (value, &parameter.default) {
                (Some(_), _) if !used.contains(&format!("${}", parameter.name)) => literal(Literal::Null),
                (Some(value), _) => {
                    values.push(value);
                    literal(Literal::Placeholder(format!("${}", values.len())))
                }
                (None, Some(default)) => default.clone(),
                (None, None) => literal(Literal::Null),
            };
            bound.insert(format!("${}", parameter.name), (expr, parameter.data_type.clone()));
        }
        fill(&mut self.query, &bound)?;
        Ok(BoundQuery {
            query: self.query,
            parameters: values,
        })
    }
}

/// The names of the parameters that a query uses, in lower case: `$k`.
fn places(query: &Query) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    walk(Root::Query(query), &mut |node| {
        if let Node::Expr(Expr::Value(value)) = node
            && let Literal::Placeholder(name) = &value.value
        {
            names.insert(name.to_ascii_lowercase());
        }
        ControlFlow::Continue(())
    });
    names
}

/// Replaces the parameters in a query by their values: as they are in LIMIT and OFFSET, with their types elsewhere.
fn fill(query: &mut Query, bound: &BTreeMap<String, (Expr, ast::DataType)>) -> Result<(), Problem> {
    let mut unknown = None;
    let name_of = |expr: &Expr| match expr {
        Expr::Value(value) => match &value.value {
            // A number is a place that has been filled.
            Literal::Placeholder(name) if name[1..].parse::<usize>().is_err() => Some(name.to_ascii_lowercase()),
            _ => None,
        },
        _ => None,
    };
    let _ = front::revise_query(query, &mut |node| {
        match node {
            NodeMut::Query(query) => {
                for bound_of_rows in row_bounds(query) {
                    if let Some((value, _)) = name_of(bound_of_rows).and_then(|name| bound.get(&name)) {
                        *bound_of_rows = value.clone();
                    }
                }
            }
            NodeMut::Expr(expr) => match name_of(expr) {
                Some(name) if let Some((value, data_type)) = bound.get(&name) => {
                    *expr = Expr::Nested(Box::new(Expr::Cast {
                        kind: ast::CastKind::Cast,
                        expr: Box::new(value.clone()),
                        data_type: data_type.clone(),
                        array: false,
                        format: None,
                    }));
                }
                Some(name) => {
                    unknown = Some(name);
                    return ControlFlow::Break(());
                }
                None => {}
            },
            NodeMut::EnterSelect(_) | NodeMut::LeaveSelect(_) => {}
        }
        ControlFlow::Continue(())
    });
    let names: Vec<&str> = bound.keys().map(String::as_str).collect();
    unknown.map_or(Ok(()), |name| {
        let hint = match names.is_empty() {
            true => "declare it: CREATE QUERY name(k int) AS …".to_owned(),
            false => format!("its parameters are {}", names.join(", ")),
        };
        Err(bad(format!("{name} is not a parameter of the query")).hint(hint))
    })
}

/// The expressions of LIMIT and OFFSET.
fn row_bounds(query: &mut Query) -> Vec<&mut Expr> {
    match &mut query.limit_clause {
        Some(LimitClause::LimitOffset { limit, offset, .. }) => {
            let offset = offset.as_mut().map(|offset| &mut offset.value);
            limit.iter_mut().chain(offset).collect()
        }
        Some(LimitClause::OffsetCommaLimit { offset, limit }) => vec![offset, limit],
        None => Vec::new(),
    }
}

/// The value of a constant; none for any other expression.
fn constant(expr: &Expr) -> Option<Value> {
    match expr {
        Expr::Value(value) => match &value.value {
            Literal::Number(digits, _) => serde_json::from_str(digits).ok(),
            Literal::SingleQuotedString(text) => Some(Value::String(text.clone())),
            Literal::Boolean(bool) => Some(Value::Bool(*bool)),
            Literal::Null => Some(Value::Null),
            _ => None,
        },
        _ => None,
    }
}

/// A value as its parameter's type takes it. A text that spells a number or boolean is one, as in the query of a URL.
fn typed_value(parameter: &Parameter, value: &Value) -> Result<Value, Problem> {
    let wrong = || {
        let shown: String = value.to_string().chars().take(100).collect();
        Problem::new(
            Code::BadRequest,
            format!(
                "parameter {} takes {}, not {shown}",
                parameter.name, parameter.data_type
            ),
        )
    };
    let expected = typing::type_of(&parameter.data_type);
    let of = |known: Type| expected.as_ref() == Some(&known.arrow());
    match value {
        Value::Null => Ok(Value::Null),
        Value::Array(_) | Value::Object(_) => Err(wrong().hint("pass a string, a number, a boolean or null")),
        Value::String(text) if of(Type::Int) => text.trim().parse::<i64>().map(Value::from).map_err(|_| wrong()),
        Value::String(text) if of(Type::Double) => {
            let double = text.trim().parse::<f64>().ok();
            let double = double.and_then(serde_json::Number::from_f64);
            double.map(Value::Number).ok_or_else(wrong)
        }
        Value::String(text) if of(Type::Bool) => match text.trim().to_ascii_lowercase().as_str() {
            "true" => Ok(Value::Bool(true)),
            "false" => Ok(Value::Bool(false)),
            _ => Err(wrong().hint("write true or false")),
        },
        Value::String(text) if of(Type::Time) => {
            let number = || text.trim().parse().ok().and_then(plan::value::time_of_int);
            let micros = plan::value::time_of_text(text.trim()).or_else(number);
            micros.and_then(time_value).ok_or_else(|| wrong().hint(TIME_HINT))
        }
        Value::Number(number) if of(Type::Time) => {
            let micros = number.as_i64().and_then(plan::value::time_of_int);
            micros.and_then(time_value).ok_or_else(|| wrong().hint(TIME_HINT))
        }
        Value::Number(number) if of(Type::Int) => number.as_i64().map(Value::from).ok_or_else(wrong),
        Value::Number(_) if of(Type::Bool) => Err(wrong()),
        Value::Bool(_) if !of(Type::Bool) && !of(Type::Text) && !of(Type::Json) => Err(wrong()),
        Value::Number(_) | Value::Bool(_) if of(Type::Text) => Ok(Value::String(value.to_string())),
        _ => Ok(value.clone()),
    }
}

const TIME_HINT: &str = "write a time as 2026-01-31, 2026-01-31 08:30 or 2026-01-31T08:30:00Z, or as seconds or \
                         milliseconds since 1970";

/// A time in microseconds since 1970 as a parameter.
fn time_value(micros: i64) -> Option<Value> {
    let time = chrono::DateTime::from_timestamp_micros(micros)?;
    Some(Value::String(time.to_rfc3339_opts(chrono::SecondsFormat::Micros, true)))
}

/// Reads `(name type [DEFAULT expression], …)`. Also returns the tokens behind it.
fn parameters(tokens: &[TokenWithSpan]) -> Result<(Vec<Parameter>, &[TokenWithSpan]), Problem> {
    let opened = tokens.first().is_some_and(|first| first.token == Token::LParen);
    if !opened {
        return Err(bad("the parameters are missing").hint("write them in parentheses: (cents bigint), or ()"));
    }
    let (mut depth, mut commas, mut end) = (0_usize, vec![0], None);
    for (index, token) in tokens.iter().enumerate() {
        match token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
            Token::Comma if depth == 1 => commas.push(index),
            _ => {}
        }
        if depth == 0 {
            end = Some(index);
            break;
        }
    }
    let end = end.ok_or_else(|| bad("the parenthesis behind the parameters is missing"))?;
    let rest = &tokens[end + 1..];
    if end == 1 {
        return Ok((Vec::new(), rest));
    }
    if commas.len() > PARAMETERS_MAX {
        return Err(Problem::new(
            Code::TooComplex,
            format!("the limit is {PARAMETERS_MAX} parameters"),
        ));
    }
    commas.push(end);
    let mut found: Vec<Parameter> = Vec::with_capacity(commas.len());
    for between in commas.windows(2) {
        let parameter = parameter(&tokens[between[0] + 1..between[1]])?;
        if found.iter().any(|other| other.name == parameter.name) {
            return Err(bad(format!("two parameters have the name {}", parameter.name)));
        }
        found.push(parameter);
    }
    Ok((found, rest))
}

fn parameter(tokens: &[TokenWithSpan]) -> Result<Parameter, Problem> {
    let (name, rest) = match tokens.split_first() {
        Some((first, rest)) if let Token::Word(word) = &first.token => (word.value.to_ascii_lowercase(), rest),
        _ => return Err(bad("the name of a parameter is missing").hint("write (name type, …)")),
    };
    if !is_plain_name(&name) {
        return Err(bad(format!("{name:?} cannot be the name of a parameter"))
            .hint("use letters, digits and underscores, beginning with a letter"));
    }
    let end = position(rest, "DEFAULT").unwrap_or(rest.len());
    let default = match rest.get(end + 1..) {
        None => None,
        Some(default) => Some(statement::expression(Tokens { all: default.to_vec() })?),
    };
    Ok(Parameter {
        data_type: data_type(&rest[..end], &format!("the parameter {name}"))?,
        name,
        default,
    })
}

/// The type that these tokens are.
fn data_type(tokens: &[TokenWithSpan], of: &str) -> Result<ast::DataType, Problem> {
    let hint = "write a type of SQL: bigint, double, text, boolean, timestamp, …";
    if tokens.is_empty() {
        return Err(bad(format!("the type of {of} is missing")).hint(hint));
    }
    // The token pass may have quoted the name of a type, as if it were a column.
    let unquoted = |token: &TokenWithSpan| TokenWithSpan {
        token: match &token.token {
            Token::Word(word) => Token::make_word(&word.value, None),
            other => other.clone(),
        },
        span: token.span,
    };
    let tokens = Tokens {
        all: tokens.iter().map(unquoted).collect(),
    };
    let found = statement::with_parser(tokens, |parser| parser.parse_data_type())?;
    match typing::type_of(&found) {
        Some(_) => Ok(found),
        None => Err(Problem::new(Code::NotSupported, format!("the type {found} of {of} is not supported")).hint(hint)),
    }
}

/// The first of these tokens that is a word, outside of parentheses.
pub(super) fn position(tokens: &[TokenWithSpan], word: &str) -> Option<usize> {
    let mut depth = 0_usize;
    tokens.iter().position(|token| {
        match token.token {
            Token::LParen | Token::LBracket => depth += 1,
            Token::RParen | Token::RBracket => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && is_word(token, word)
    })
}

/// `$1`, `$2`, …
fn is_numbered_place(token: &Token) -> bool {
    matches!(token, Token::Placeholder(name) if name[1..].parse::<usize>().is_ok())
}

fn is_word(token: &TokenWithSpan, word: &str) -> bool {
    matches!(&token.token, Token::Word(found) if found.quote_style.is_none()
        && found.keyword != Keyword::NoKeyword && found.value.eq_ignore_ascii_case(word))
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(Code::BadSql, detail)
}
