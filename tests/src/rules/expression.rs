//! Expressions over one row, and their SQL.

use std::collections::BTreeMap;

use super::value::SqlValue;

/// The paths at which documents have values.
pub(super) const PATHS: [&str; 6] = ["a", "b", "n", "t", "o.x", "l"];

/// A document's values by path.
pub type Row = BTreeMap<&'static str, SqlValue>;

/// A comparison operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ComparisonOp {
    /// `=`
    Equal,
    /// `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// An expression that the reference evaluator can compute.
#[derive(Debug, Clone, PartialEq)]
pub enum EvalExpr {
    /// A path.
    Path(&'static str),
    /// The spelling of a number or a boolean, or NULL.
    Literal(&'static str),
    /// A quoted string.
    Quoted(&'static str),
    /// `a < b`
    Compare(ComparisonOp, Box<EvalExpr>, Box<EvalExpr>),
    /// `a is [not] distinct from b`
    Distinct(bool, Box<EvalExpr>, Box<EvalExpr>),
    /// `a [not] in (…)`
    In(bool, Box<EvalExpr>, Vec<EvalExpr>),
    /// `a [not] between b and c`
    Between(bool, Box<EvalExpr>, Box<EvalExpr>, Box<EvalExpr>),
    /// `a is [not] null`
    IsNull(bool, Box<EvalExpr>),
    /// `a and b`, `a or b`
    AndOr(bool, Box<EvalExpr>, Box<EvalExpr>),
    /// `not a`
    Not(Box<EvalExpr>),
    /// `case a when b then 0 when c then 1 … else -1 end`
    Case(Box<EvalExpr>, Vec<EvalExpr>),
    /// `case when p then a else 'x' end`
    CaseElse(Box<EvalExpr>, Box<EvalExpr>, &'static str),
    /// `coalesce(a, …, 'x')`
    Coalesce(Vec<EvalExpr>, &'static str),
    /// `nullif(a, b)`
    NullIf(Box<EvalExpr>, Box<EvalExpr>),
    /// `a || b`
    Concat(Box<EvalExpr>, Box<EvalExpr>),
    /// `upper(a)`, `lower(a)`, `length(a)`, `concat(a, '-')`
    TextFunction(&'static str, Box<EvalExpr>),
    /// `a [not] like '…'`
    Like(bool, Box<EvalExpr>, &'static str),
    /// `a ~ '…'`, with the pattern [`DIGITS`] or [`BEGINS_WITH_X`].
    Regex(Box<EvalExpr>, &'static str),
    /// `(a)::bigint`
    Cast(Box<EvalExpr>, &'static str),
    /// `a + b`, `-`, `*`, `/`
    Arithmetic(char, Box<EvalExpr>, Box<EvalExpr>),
    /// `abs(a)`, `floor(a)`
    NumberFunction(&'static str, Box<EvalExpr>),
    /// `_doc->>'a'`
    DocArrow(&'static str),
}

/// The pattern of strings of digits.
pub(super) const DIGITS: &str = "^[0-9]+$";
/// The pattern of strings that begin with an x.
pub(super) const BEGINS_WITH_X: &str = "^x";

impl ComparisonOp {
    fn operator(self) -> &'static str {
        match self {
            Self::Equal => "=",
            Self::NotEqual => "<>",
            Self::Less => "<",
            Self::LessOrEqual => "<=",
            Self::Greater => ">",
            Self::GreaterOrEqual => ">=",
        }
    }
}

impl EvalExpr {
    /// Its SQL; `prefix` (`x.`) qualifies each path.
    pub fn text(&self, prefix: &str) -> String {
        let text = |expr: &Self| expr.text(prefix);
        let not = |not: bool| if not { "not " } else { "" };
        let list = |exprs: &[Self]| exprs.iter().map(text).collect::<Vec<_>>().join(", ");
        match self {
            Self::Path(path) => format!("{prefix}{path}"),
            Self::Literal(literal) if literal.starts_with('-') => format!("({literal})"),
            Self::Literal(literal) => (*literal).to_owned(),
            Self::Quoted(literal) => format!("'{literal}'"),
            Self::Compare(comparison, a, b) => {
                format!("({} {} {})", text(a), comparison.operator(), text(b))
            }
            Self::Distinct(is_not, a, b) => format!("({} is {}distinct from {})", text(a), not(*is_not), text(b)),
            Self::In(is_not, a, b) => format!("({} {}in ({}))", text(a), not(*is_not), list(b)),
            Self::Between(is_not, a, b, c) => {
                format!("({} {}between {} and {})", text(a), not(*is_not), text(b), text(c))
            }
            Self::IsNull(is_not, a) => format!("({} is {}null)", text(a), not(*is_not)),
            Self::AndOr(and, a, b) => format!("({} {} {})", text(a), if *and { "and" } else { "or" }, text(b)),
            Self::Not(a) => format!("(not {})", text(a)),
            Self::Case(a, whens) => {
                let whens: Vec<String> = whens
                    .iter()
                    .enumerate()
                    .map(|(i, when)| format!("when {} then {i}", text(when)))
                    .collect();
                format!("case {} {} else -1 end", text(a), whens.join(" "))
            }
            Self::CaseElse(when, a, other) => format!("case when {} then {} else '{other}' end", text(when), text(a)),
            Self::Coalesce(a, other) => format!("coalesce({}, '{other}')", list(a)),
            Self::NullIf(a, b) => format!("nullif({}, {})", text(a), text(b)),
            Self::Concat(a, b) => format!("({} || {})", text(a), text(b)),
            Self::TextFunction("concat", a) => format!("concat({}, '-')", text(a)),
            Self::TextFunction(name, a) | Self::NumberFunction(name, a) => format!("{name}({})", text(a)),
            Self::Like(is_not, a, pattern) => format!("({} {}like '{pattern}')", text(a), not(*is_not)),
            Self::Regex(a, pattern) => format!("({} ~ '{pattern}')", text(a)),
            Self::Cast(a, kind) => format!("({})::{kind}", text(a)),
            Self::Arithmetic(sign, a, b) => format!("({} {sign} {})", text(a), text(b)),
            Self::DocArrow(path) => format!("({prefix}_doc{})", arrows(path)),
        }
    }
}

/// A path as a chain of arrows: `->'o'->>'x'`.
fn arrows(path: &str) -> String {
    let steps: Vec<&str> = path.split('.').collect();
    let arrow = |(i, step): (usize, &&str)| format!("{}'{step}'", if i + 1 == steps.len() { "->>" } else { "->" });
    steps.iter().enumerate().map(arrow).collect()
}
