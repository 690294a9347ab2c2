//! Needles: texts that the bytes of a document must contain for a condition to be true of it. Documents without an
//! index that contain none are left out without being parsed.

use datafusion::logical_expr::{BinaryExpr, Expr, Like, Operator};
use memchr::{memchr, memmem::Finder};
use plan::{Column, ColumnSource, Type};

use super::literal::{constant, subject};

/// A condition is true only of documents that contain one of these, or that spell a text with escapes.
pub(crate) struct Needles(Vec<Finder<'static>>);

impl Needles {
    /// The needles of a condition, if it is known that it has some.
    pub(crate) fn of(condition: &Expr) -> Option<Self> {
        let finder = |needle: &String| Finder::new(needle.as_bytes()).into_owned();
        Some(Self(needles(condition)?.iter().map(finder).collect()))
    }

    /// Whether the condition may be true of a document.
    pub(crate) fn may_be_in(&self, document: &[u8]) -> bool {
        self.0.iter().any(|needle| needle.find(document).is_some()) || memchr(b'\\', document).is_some()
    }
}

fn needles(condition: &Expr) -> Option<Vec<String>> {
    match condition {
        Expr::Alias(alias) => needles(&alias.expr),
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => match op {
            Operator::And => needles(left).or_else(|| needles(right)),
            Operator::Or => Some([needles(left)?, needles(right)?].concat()),
            Operator::Eq => equal(left, right).or_else(|| equal(right, left)),
            _ => None,
        },
        Expr::InList(list) if !list.negated => {
            let needles = list.list.iter().map(|value| equal(&list.expr, value));
            Some(needles.collect::<Option<Vec<_>>>()?.concat())
        }
        Expr::Like(like) => matched(like),
        _ => None,
    }
}

fn equal(text: &Expr, value: &Expr) -> Option<Vec<String>> {
    let column = text_column(text)?;
    let value = constant(value)?.try_as_str()??;
    // With a cast, the text of another value is not always as the document spells it.
    let is_of_string = !value.starts_with(|c: char| c.is_ascii_digit() || "-[{".contains(c))
        && !["", "true", "false"].contains(&value);
    (is_of_string || !column.read_as.cast).then(|| vec![value.to_owned()])
}

/// The longest constant piece of a pattern.
fn matched(like: &Like) -> Option<Vec<String>> {
    let column = text_column(&like.expr)?;
    let pattern = constant(&like.pattern)?.try_as_str()??;
    if like.negated || like.case_insensitive || column.read_as.cast || pattern.contains('\\') {
        return None;
    }
    let longest = pattern.split(['%', '_']).max_by_key(|piece| piece.len())?;
    (!longest.is_empty() && like.escape_char.is_none()).then(|| vec![longest.to_owned()])
}

fn text_column(expr: &Expr) -> Option<Column> {
    subject(expr).filter(|column| column.read_as.to == Type::Text && matches!(column.source, ColumnSource::Path(_)))
}
