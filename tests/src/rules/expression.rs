//! Expressions over one row: their text, and what the rules say they are.

use std::{cmp::Ordering, collections::BTreeMap};

use super::value::{Number, Unsaid, V};

/// What a row has at each path.
pub type Row = BTreeMap<&'static str, V>;

/// How values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// `=`
    Equal,
    /// `<>`
    Unequal,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// An expression.
#[derive(Debug, Clone, PartialEq)]
pub enum Expr {
    /// A path.
    Path(&'static str),
    /// A number or a boolean as it is spelled, or NULL.
    Literal(&'static str),
    /// A text in quotes.
    Quoted(&'static str),
    /// `a < b`
    Compare(Compare, Box<Expr>, Box<Expr>),
    /// `a is [not] distinct from b`
    Distinct(bool, Box<Expr>, Box<Expr>),
    /// `a [not] in (…)`
    In(bool, Box<Expr>, Vec<Expr>),
    /// `a [not] between b and c`
    Between(bool, Box<Expr>, Box<Expr>, Box<Expr>),
    /// `a is [not] null`
    Null(bool, Box<Expr>),
    /// `a and b`, `a or b`
    Both(bool, Box<Expr>, Box<Expr>),
    /// `not a`
    Not(Box<Expr>),
    /// `case a when b then 0 when c then 1 … else -1 end`
    Case(Box<Expr>, Vec<Expr>),
    /// `case when p then a else 'x' end`
    Else(Box<Expr>, Box<Expr>, &'static str),
    /// `coalesce(a, …, 'x')`
    Coalesce(Vec<Expr>, &'static str),
    /// `nullif(a, b)`
    NullIf(Box<Expr>, Box<Expr>),
    /// `a || b`
    Joined(Box<Expr>, Box<Expr>),
    /// `upper(a)`, `lower(a)`, `length(a)`, `concat(a, '-')`
    OfText(&'static str, Box<Expr>),
    /// `a [not] like '…'`
    Like(bool, Box<Expr>, &'static str),
    /// `a ~ '…'`: one of the two patterns that [`matches`] knows.
    Pattern(Box<Expr>, &'static str),
    /// `(a)::bigint`
    Cast(Box<Expr>, &'static str),
    /// `a + b`, `-`, `*`, `/`
    Arithmetic(char, Box<Expr>, Box<Expr>),
    /// `abs(a)`, `floor(a)`
    OfNumber(&'static str, Box<Expr>),
    /// `_doc->>'a'`
    Arrow(&'static str),
}

/// The pattern of digits alone.
pub const DIGITS: &str = "^[0-9]+$";
/// The pattern of what begins with an x.
pub const BEGINS: &str = "^x";

impl Expr {
    /// As it is written, with paths behind this prefix (`x.`).
    pub fn text(&self, prefix: &str) -> String {
        let of = |expr: &Self| expr.text(prefix);
        let not = |not: bool| if not { "not " } else { "" };
        let list = |exprs: &[Self]| exprs.iter().map(of).collect::<Vec<_>>().join(", ");
        match self {
            Self::Path(path) => format!("{prefix}{path}"),
            Self::Literal(text) => {
                if text.starts_with('-') {
                    format!("({text})")
                } else {
                    (*text).to_owned()
                }
            }
            Self::Quoted(text) => format!("'{text}'"),
            Self::Compare(compare, a, b) => {
                let sign = match compare {
                    Compare::Equal => "=",
                    Compare::Unequal => "<>",
                    Compare::Less => "<",
                    Compare::LessOrEqual => "<=",
                    Compare::Greater => ">",
                    Compare::GreaterOrEqual => ">=",
                };
                format!("({} {sign} {})", of(a), of(b))
            }
            Self::Distinct(is_not, a, b) => format!("({} is {}distinct from {})", of(a), not(*is_not), of(b)),
            Self::In(is_not, a, b) => format!("({} {}in ({}))", of(a), not(*is_not), list(b)),
            Self::Between(is_not, a, b, c) => format!("({} {}between {} and {})", of(a), not(*is_not), of(b), of(c)),
            Self::Null(is_not, a) => format!("({} is {}null)", of(a), not(*is_not)),
            Self::Both(and, a, b) => format!("({} {} {})", of(a), if *and { "and" } else { "or" }, of(b)),
            Self::Not(a) => format!("(not {})", of(a)),
            Self::Case(a, whens) => {
                let whens: Vec<String> = whens
                    .iter()
                    .enumerate()
                    .map(|(i, when)| format!("when {} then {i}", of(when)))
                    .collect();
                format!("case {} {} else -1 end", of(a), whens.join(" "))
            }
            Self::Else(when, a, other) => format!("case when {} then {} else '{other}' end", of(when), of(a)),
            Self::Coalesce(a, other) => format!("coalesce({}, '{other}')", list(a)),
            Self::NullIf(a, b) => format!("nullif({}, {})", of(a), of(b)),
            Self::Joined(a, b) => format!("({} || {})", of(a), of(b)),
            Self::OfText("concat", a) => format!("concat({}, '-')", of(a)),
            Self::OfText(name, a) | Self::OfNumber(name, a) => format!("{name}({})", of(a)),
            Self::Like(is_not, a, pattern) => format!("({} {}like '{pattern}')", of(a), not(*is_not)),
            Self::Pattern(a, pattern) => format!("({} ~ '{pattern}')", of(a)),
            Self::Cast(a, kind) => format!("({})::{kind}", of(a)),
            Self::Arithmetic(sign, a, b) => format!("({} {sign} {})", of(a), of(b)),
            Self::Arrow(path) => {
                let steps: Vec<&str> = path.split('.').collect();
                let arrows = steps
                    .iter()
                    .enumerate()
                    .map(|(i, step)| format!("{}'{step}'", if i + 1 == steps.len() { "->>" } else { "->" }));
                format!("({prefix}_doc{})", arrows.collect::<String>())
            }
        }
    }

    /// What the rules say it is.
    pub fn value(&self, row: &Row) -> Result<V, Unsaid> {
        Ok(match self {
            Self::Path(path) => row.get(path).cloned().unwrap_or(V::Null),
            Self::Literal("NULL") => V::Null,
            Self::Literal(text) => V::parse(text),
            Self::Quoted(text) => V::Text((*text).to_owned()),
            Self::Compare(compare, a, b) => V::truth(compared(*compare, a, b, row)?),
            Self::Distinct(is_not, a, b) => {
                let distinct = match (a.value(row)?.is_null(), b.value(row)?.is_null()) {
                    (true, true) => false,
                    (true, false) | (false, true) => true,
                    _ => compared(Compare::Equal, a, b, row)? != Some(true),
                };
                V::Bool(distinct != *is_not)
            }
            Self::In(is_not, a, list) => {
                let mut found = Some(false);
                for b in list {
                    found = or(found, compared(Compare::Equal, a, b, row)?);
                }
                V::truth(found.map(|found| found != *is_not))
            }
            Self::Between(is_not, a, b, c) => {
                let (above, below) = (
                    compared(Compare::GreaterOrEqual, a, b, row)?,
                    compared(Compare::LessOrEqual, a, c, row)?,
                );
                V::truth(and(above, below).map(|between| between != *is_not))
            }
            Self::Null(is_not, a) => V::Bool(a.value(row)?.is_null() != *is_not),
            Self::Both(both, a, b) => {
                let (a, b) = (a.truth(row)?, b.truth(row)?);
                V::truth(if *both { and(a, b) } else { or(a, b) })
            }
            Self::Not(a) => V::truth(a.truth(row)?.map(|truth| !truth)),
            Self::Case(a, whens) => {
                for (i, when) in whens.iter().enumerate() {
                    if compared(Compare::Equal, a, when, row)? == Some(true) {
                        return Ok(V::count(i));
                    }
                }
                V::Number(Number::integer(-1))
            }
            Self::Else(when, a, other) => match when.truth(row)? {
                Some(true) => text(a.value(row)?.text()?),
                _ => V::Text((*other).to_owned()),
            },
            Self::Coalesce(list, other) => {
                for a in list {
                    let value = a.value(row)?;
                    if !value.is_null() {
                        return Ok(text(value.text()?));
                    }
                }
                V::Text((*other).to_owned())
            }
            Self::NullIf(a, b) => {
                if compared(Compare::Equal, a, b, row)? == Some(true) {
                    V::Null
                } else {
                    a.value(row)?
                }
            }
            Self::Joined(a, b) => match (a.value(row)?.text()?, b.value(row)?.text()?) {
                (Some(a), Some(b)) => V::Text(a + &b),
                _ => V::Null,
            },
            Self::OfText("concat", a) => V::Text(a.value(row)?.text()?.unwrap_or_default() + "-"),
            Self::OfText(name, a) => match (a.value(row)?.text()?, *name) {
                (None, _) => V::Null,
                (Some(text), "upper") => V::Text(text.to_uppercase()),
                (Some(text), "lower") => V::Text(text.to_lowercase()),
                (Some(text), _) => V::count(text.chars().count()),
            },
            Self::Like(is_not, a, pattern) => {
                V::truth(a.value(row)?.text()?.map(|text| is_like(&text, pattern) != *is_not))
            }
            Self::Pattern(a, pattern) => V::truth(a.value(row)?.text()?.map(|text| matches(&text, pattern))),
            Self::Cast(a, kind) => cast(a.value(row)?, kind)?,
            Self::Arithmetic(sign, a, b) => match (a.value(row)?, b.value(row)?) {
                (V::Number(a), V::Number(b)) if *sign == '/' => match (a.is_small() && b.is_small(), b.double()) {
                    (false, _) => return Err(Unsaid),
                    (true, 0.0) => V::Null,
                    (true, b) => V::About(a.double() / b),
                },
                (V::Number(a), V::Number(b)) => V::Number(a.computed(*sign, &b)?),
                (V::About(_), _) | (_, V::About(_)) => return Err(Unsaid),
                _ => V::Null,
            },
            Self::OfNumber(name, a) => match a.value(row)? {
                V::Number(number) if !number.is_small() => return Err(Unsaid),
                V::Number(number) if *name == "abs" => V::About(number.double().abs()),
                V::Number(number) => V::About(number.double().floor()),
                V::About(_) => return Err(Unsaid),
                _ => V::Null,
            },
            Self::Arrow(path) => text(row.get(path).cloned().unwrap_or(V::Null).text()?),
        })
    }

    /// As a condition.
    pub fn truth(&self, row: &Row) -> Result<Option<bool>, Unsaid> {
        match self.value(row)? {
            V::Null => Ok(None),
            V::Bool(truth) => Ok(Some(truth)),
            _ => Err(Unsaid),
        }
    }

    /// Whether it computes with numbers: beyond 2^53 that is no part of what the rules promise.
    pub fn computes(&self) -> bool {
        match self {
            Self::Arithmetic(..) | Self::OfNumber(..) => true,
            Self::Cast(_, kind) => *kind == "double",
            Self::Compare(_, a, b) => a.computes() || b.computes(),
            _ => false,
        }
    }

    /// Whether a value that is no number is left out of arithmetic here, which must be said.
    pub fn leaves_out(&self, row: &Row) -> bool {
        let no_number =
            |a: &Self| matches!(a.value(row), Ok(V::Text(_) | V::Bool(_) | V::Json(..))) && matches!(a, Self::Path(_));
        match self {
            // What is NULL anyway need not be read.
            Self::Arithmetic('/', _, b) if **b == Self::Literal("0") => false,
            Self::Arithmetic(_, a, b) => no_number(a) || no_number(b) || a.leaves_out(row) || b.leaves_out(row),
            Self::OfNumber(_, a) => no_number(a) || a.leaves_out(row),
            _ => false,
        }
    }
}

fn text(text: Option<String>) -> V {
    text.map_or(V::Null, V::Text)
}

fn and(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    if a == Some(false) || b == Some(false) {
        Some(false)
    } else {
        Some(a? && b?)
    }
}

fn or(a: Option<bool>, b: Option<bool>) -> Option<bool> {
    if a == Some(true) || b == Some(true) {
        Some(true)
    } else {
        Some(a? || b?)
    }
}

/// Two expressions; a quoted literal takes the kind of the value that it meets.
fn compared(compare: Compare, a: &Expr, b: &Expr, row: &Row) -> Result<Option<bool>, Unsaid> {
    let (one, other) = (a.value(row)?, b.value(row)?);
    let (one, other) = match (a, b) {
        (Expr::Quoted(literal), _) => (V::quoted_beside(literal, &other), other),
        (_, Expr::Quoted(literal)) => {
            let literal = V::quoted_beside(literal, &one);
            (one, literal)
        }
        _ => (one, other),
    };
    let has_quoted = matches!(a, Expr::Quoted(_)) || matches!(b, Expr::Quoted(_));
    let has_boolean = matches!(one, V::Bool(_)) || matches!(other, V::Bool(_));
    match compare {
        Compare::Equal => one.equals(&other),
        Compare::Unequal => Ok(one.equals(&other)?.map(|equal| !equal)),
        _ if has_quoted && has_boolean => Err(Unsaid),
        _ => Ok(one.compared(&other)?.map(|order| match compare {
            Compare::Less => order == Ordering::Less,
            Compare::LessOrEqual => order != Ordering::Greater,
            Compare::Greater => order == Ordering::Greater,
            _ => order != Ordering::Less,
        })),
    }
}

fn cast(value: V, kind: &str) -> Result<V, Unsaid> {
    Ok(match (value, kind) {
        (V::Null, _) => V::Null,
        (value, "text") => text(value.text()?),
        (V::Json(..), _) => V::Null,
        (V::Bool(value), "boolean") => V::Bool(value),
        (V::Text(text), "boolean") => match text.as_str() {
            "true" | "false" => V::Bool(text == "true"),
            text if text == "y" || Number::parse(text).is_some() => return Err(Unsaid),
            _ => V::Null,
        },
        (V::Number(number), "bigint") => V::Number(Number::integer(number.whole().ok_or(Unsaid)?)),
        (V::Number(number), "double") if number.is_small() => V::About(number.double()),
        (V::Text(text), "bigint" | "double") => match Number::parse(&text) {
            None => V::Null,
            Some(number) if kind == "double" && number.is_small() => V::About(number.double()),
            Some(number) if kind == "bigint" && !text.contains('.') => {
                V::Number(Number::integer(number.whole().ok_or(Unsaid)?))
            }
            Some(_) => return Err(Unsaid),
        },
        _ => return Err(Unsaid),
    })
}

/// Whether a text matches one of the two patterns.
fn matches(text: &str, pattern: &str) -> bool {
    match pattern {
        DIGITS => !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()),
        BEGINS => text.starts_with('x'),
        _ => panic!("the rules know no pattern {pattern}"),
    }
}

fn is_like(text: &str, pattern: &str) -> bool {
    let mut wanted = pattern.chars();
    match wanted.next() {
        None => text.is_empty(),
        Some('%') => (0..=text.len())
            .filter(|at| text.is_char_boundary(*at))
            .any(|at| is_like(&text[at..], wanted.as_str())),
        Some(c) => {
            let mut there = text.chars();
            there
                .next()
                .is_some_and(|first| (c == '_' || c == first) && is_like(there.as_str(), wanted.as_str()))
        }
    }
}
