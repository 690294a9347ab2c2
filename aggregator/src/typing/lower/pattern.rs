//! Lowers LIKE and SIMILAR TO, and decides which patterns are slow.

use datafusion::{
    common::{DFSchema, Result},
    logical_expr::{Expr, Like, lit},
};
use plan::functions::text;

use crate::typing::operand::{Operand, call, literal};

/// A regular expression up to this length is matched quickly, whatever the length of the text.
const FAST_REGEX_BYTES_MAX: usize = 64;

/// Whether matching a regular expression against a long text may take long. A function that works in parts then does
/// it.
pub(super) fn is_slow_regex(pattern: &str) -> bool {
    pattern.len() > FAST_REGEX_BYTES_MAX || pattern.contains('{')
}

/// LIKE, ILIKE or SIMILAR TO; `wrap` is the expression's variant.
pub(super) fn lower_like(like: Like, schema: &DFSchema, wrap: fn(Like) -> Expr) -> Result<Expr> {
    let (value, pattern) = (Operand::of(*like.expr, schema)?, Operand::of(*like.pattern, schema)?);
    let (pattern, escape) = match (like.escape_char, pattern.quoted()) {
        // DataFusion supports only the backslash as the escape character.
        (Some(escape), Some(text)) if escape != '\\' => (lit(with_backslashes(text, escape)), None),
        (escape, _) => (pattern.text(), escape.filter(|escape| *escape != '\\')),
    };
    // A pattern that is not a literal is compiled for each row, and a long pattern is slow on long texts: a function
    // that works in parts matches both.
    let constant = literal(&pattern).map(|pattern| pattern.try_as_str().flatten().unwrap_or_default());
    if constant.is_none_or(text::is_slow_pattern) && escape.is_none() {
        let matched = call(
            if like.case_insensitive { text::ILIKE } else { text::LIKE },
            vec![value.text(), pattern],
        );
        return Ok(if like.negated { !matched } else { matched });
    }
    Ok(wrap(Like {
        negated: like.negated,
        expr: Box::new(value.text()),
        pattern: Box::new(pattern),
        escape_char: escape,
        case_insensitive: like.case_insensitive,
    }))
}

/// The pattern with the backslash as its escape character.
fn with_backslashes(pattern: &str, escape: char) -> String {
    let mut escaped = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(c) = chars.next() {
        match c {
            c if c == escape => escaped.extend(chars.next().into_iter().flat_map(|next| ['\\', next])),
            '\\' => escaped.push_str("\\\\"),
            c => escaped.push(c),
        }
    }
    escaped
}
