//! Checks regular expressions and converts SIMILAR TO to them.

use datafusion::sql::sqlparser::ast::{BinaryOperator as Op, Expr};
use proto::{Code, Problem};

use super::{
    bad, not_offered,
    value::{text, text_literal},
};

/// Rejects a regular expression that cannot be used, before anything runs.
pub(super) fn check_pattern(pattern: &str) -> Result<(), Problem> {
    match regex::Regex::new(pattern) {
        Ok(_) => Ok(()),
        Err(regex::Error::CompiledTooBig(bytes)) => Err(Problem::new(
            Code::TooComplex,
            format!("the regular expression takes over {bytes} bytes when it is compiled"),
        )
        .hint("repeat less: (a{1000}){1000} is a million states")),
        Err(error) => Err(bad(format!("invalid regular expression: {error}"))),
    }
}

/// `expr [NOT] SIMILAR TO pattern` as a match of a regular expression.
pub(super) fn similar_to(negated: bool, expr: Box<Expr>, pattern: &Expr, has_escape: bool) -> Result<Expr, Problem> {
    let (Some(similar), false) = (text_literal(pattern), has_escape) else {
        return Err(not_offered("SIMILAR TO with a computed pattern or ESCAPE").hint("use ~ with a regular expression"));
    };
    let pattern = regex_of_similar(similar);
    check_pattern(&pattern)?;
    let op = if negated { Op::PGRegexNotMatch } else { Op::PGRegexMatch };
    Ok(Expr::BinaryOp {
        left: expr,
        op,
        right: Box::new(text(&pattern)),
    })
}

/// Converts a pattern of SIMILAR TO to a regular expression over the whole text. `%` matches any text and `_` any
/// character; the rest has the same syntax.
fn regex_of_similar(pattern: &str) -> String {
    let mut regex = String::from("(?s)^(?:");
    let mut chars = pattern.chars();
    let mut in_class = false;
    while let Some(c) = chars.next() {
        match c {
            ']' => {
                in_class = false;
                regex.push(c);
            }
            '[' if !in_class => {
                in_class = true;
                regex.push(c);
            }
            c if in_class && c != '\\' => regex.push(c),
            // In SIMILAR TO, a group never begins with a flag.
            '(' => regex.push_str("(?:"),
            '%' => regex.push_str(".*"),
            '_' => regex.push('.'),
            '\\' => regex.extend(chars.next().map(|c| regex::escape(&c.to_string()))),
            '.' | '^' | '$' => regex.extend(['\\', c]),
            c => regex.push(c),
        }
    }
    regex + ")$"
}
