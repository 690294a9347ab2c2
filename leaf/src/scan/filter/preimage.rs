//! Preimages: which texts a function of a text may map to a constant. An index of the texts looks them up, and the
//! condition is evaluated only for these.

use datafusion::{
    logical_expr::{BinaryExpr, Expr, Operator},
    scalar::ScalarValue,
};
use plan::{Column, ColumnSource, Path, Type};
use regex_syntax::hir::{Hir, HirKind, Look, literal::Extractor};

use super::literal::{constant, subject};
use crate::split::{Literal, Lookup};

/// Texts of a column, some of which may satisfy a condition. No other text does.
pub(super) struct TextSet {
    pub column: Column,
    /// The column's path.
    pub path: Path,
    /// A text of the set matches one of these.
    pub patterns: Vec<TextPattern>,
}

/// Texts that an index finds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum TextPattern {
    /// This text.
    Equal(String),
    /// Texts that begin with this one.
    Prefix(String),
}

impl TextPattern {
    /// The lookup of these texts at a path.
    pub(super) fn lookup(self, path: Path) -> Lookup {
        match self {
            Self::Equal(text) => Lookup::In(path, Type::Text, vec![Literal::Text(text)]),
            Self::Prefix(prefix) if prefix.is_empty() => Lookup::Exists(path, Type::Text),
            Self::Prefix(prefix) => Lookup::StringPrefix(path, prefix),
        }
    }
}

/// The texts for which a function equals `value`. None if it is not known which these are.
pub(super) fn where_equal(function: &Expr, value: &str) -> Option<TextSet> {
    let call = match function {
        Expr::Alias(alias) => return where_equal(&alias.expr, value),
        Expr::ScalarFunction(call) => call,
        _ => return None,
    };
    let starts_with_value = || vec![TextPattern::Prefix(value.to_owned())];
    let (subject, patterns) = match (call.func.name(), call.args.as_slice()) {
        // The first part of a text, or its beginning.
        ("left", [subject, _]) => (subject, starts_with_value()),
        ("substr", [subject, from] | [subject, from, _]) if int(from)? <= 1 => (subject, starts_with_value()),
        ("split_part", [subject, _, number]) if int(number)? == 1 => (subject, starts_with_value()),
        ("regexp_replace", [subject, pattern, replacement, flags @ ..]) => {
            let is_plain = match flags {
                [] => true,
                [flags] => matches!(text(flags)?, "" | "g"),
                _ => false,
            };
            if !is_plain {
                return None;
            }
            let mut patterns = replaced_by(text(pattern)?, text(replacement)?, value)?;
            // What does not match stays as it is.
            patterns.push(TextPattern::Equal(value.to_owned()));
            (subject, patterns)
        }
        _ => return None,
    };
    text_set(subject, patterns)
}

/// The texts for which a condition is true. None if it is not known which these are.
pub(super) fn where_true(condition: &Expr) -> Option<TextSet> {
    let (subject, pattern) = match condition {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::RegexMatch,
            right,
        }) => (left.as_ref(), right.as_ref()),
        Expr::ScalarFunction(call) if call.func.name() == "regexp_like" => match call.args.as_slice() {
            [subject, pattern] => (subject, pattern),
            _ => return None,
        },
        _ => return None,
    };
    text_set(subject, prefixes(&regex_syntax::parse(text(pattern)?).ok()?)?)
}

fn text_set(subject_expr: &Expr, patterns: Vec<TextPattern>) -> Option<TextSet> {
    let column = subject(subject_expr).filter(|column| column.read_as.to == Type::Text)?;
    match column.source.clone() {
        ColumnSource::Path(path) => Some(TextSet { column, path, patterns }),
        _ => None,
    }
}

fn text(expr: &Expr) -> Option<&str> {
    constant(expr)?.try_as_str()?
}

fn int(expr: &Expr) -> Option<i64> {
    match constant(expr)? {
        ScalarValue::Int64(int) => *int,
        _ => None,
    }
}

/// The texts that a regular expression matches and that become `value` when the match is replaced. If the expression
/// matches only whole texts, and they are replaced by one of its groups, this group is the value.
fn replaced_by(pattern: &str, replacement: &str, value: &str) -> Option<Vec<TextPattern>> {
    let pattern = regex_syntax::parse(pattern).ok()?;
    let is_whole = pattern.properties().look_set_prefix().contains(Look::Start)
        && pattern.properties().look_set_suffix().contains(Look::End);
    let with_value = group(replacement)
        .filter(|_| is_whole)
        .and_then(|group| with_group(&pattern, group, value));
    prefixes(with_value.as_ref().unwrap_or(&pattern))
}

/// The number of a group, if the replacement is this group alone: `\1`, `$1` or `${1}`.
fn group(replacement: &str) -> Option<u32> {
    let braced = |text: &str| -> Option<String> { Some(text.strip_prefix("${")?.strip_suffix('}')?.to_owned()) };
    let plain = replacement.strip_prefix(['\\', '$'])?;
    let number = braced(replacement).unwrap_or_else(|| plain.to_owned());
    number
        .bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| number.parse().ok())?
}

/// The expression with a constant instead of a group that takes part in every match exactly once.
fn with_group(pattern: &Hir, group: u32, value: &str) -> Option<Hir> {
    match pattern.kind() {
        HirKind::Capture(capture) if capture.index == group => Some(Hir::literal(value.as_bytes())),
        HirKind::Capture(capture) => with_group(&capture.sub, group, value),
        HirKind::Concat(parts) => {
            let replaced = |part: &Hir| with_group(part, group, value);
            let (at, part) = (0..)
                .zip(parts)
                .find_map(|(at, part): (usize, _)| Some((at, replaced(part)?)))?;
            let mut parts = parts.clone();
            parts[at] = part;
            Some(Hir::concat(parts))
        }
        _ => None,
    }
}

/// The texts that may match an expression that begins at the start of a text.
fn prefixes(pattern: &Hir) -> Option<Vec<TextPattern>> {
    if !pattern.properties().look_set_prefix().contains(Look::Start) {
        return None;
    }
    let found = Extractor::new().extract(pattern);
    let prefix = |bytes: &[u8]| {
        // A prefix of limited length may end within a character.
        let valid = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        TextPattern::Prefix(valid.to_owned())
    };
    Some(
        found
            .literals()?
            .iter()
            .map(|literal| prefix(literal.as_bytes()))
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefixes_of(pattern: &str) -> Option<Vec<TextPattern>> {
        prefixes(&regex_syntax::parse(pattern).expect("a pattern"))
    }

    fn prefix(text: &str) -> TextPattern {
        TextPattern::Prefix(text.to_owned())
    }

    #[test]
    fn an_expression_that_begins_at_the_start_has_prefixes() {
        assert_eq!(prefixes_of("^GET /a+"), Some(vec![prefix("GET /a")]));
        assert_eq!(
            prefixes_of("^(GET|PUT) /"),
            Some(vec![prefix("GET /"), prefix("PUT /")])
        );
        assert_eq!(prefixes_of("^(?i)ab?$"), prefixes_of("^(?:A|a)(?:B|b)?$"));
        assert_eq!(prefixes_of("^.*x"), None, "any text may begin so");
        for pattern in ["GET", "(?m)^GET", "^a|b", "(^a)?b"] {
            assert_eq!(prefixes_of(pattern), None, "{pattern} may match in the middle");
        }
    }

    #[test]
    fn a_text_that_is_replaced_by_its_group_has_the_value_there() {
        let replaced = |pattern, replacement| replaced_by(pattern, replacement, "abc");
        for group in [r"\1", "$1", "${1}"] {
            assert_eq!(replaced("^did:(...).*$", group), Some(vec![prefix("did:abc")]));
        }
        assert_eq!(replaced("^(a(b))x(.)$", r"\3"), Some(vec![prefix("abxabc")]));
        // Another text stays beside the group, or the group may not be the one that matched last.
        for (pattern, replacement) in [
            ("^did:(...)", r"\1"),
            ("^did:(...)$", r"\1!"),
            ("^did:(...)+$", r"\1"),
            ("^did:(?:(a)|b)$", r"\1"),
            ("^did:(...)$", r"\2"),
            ("^did:(...)$", r"\+1"),
        ] {
            assert_eq!(
                replaced(pattern, replacement),
                prefixes_of(pattern),
                "{pattern} by {replacement}"
            );
        }
    }
}
