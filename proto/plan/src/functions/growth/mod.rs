//! How the results of functions, or their work, grow beyond their arguments: the bytes or steps of a row. The registry
//! says which function grows how.

mod argument;

pub(in crate::functions) use argument::{Argument, ArgumentRow, Growth};

/// Steps to compile one byte of a LIKE pattern.
const PATTERN_BYTE_WEIGHT: u64 = 500;

/// A text padded to a length.
pub(in crate::functions) fn padding(row: &ArgumentRow<'_>) -> u64 {
    row.int(1).saturating_mul(row.bytes(2).max(4))
}

/// Each character may take twice as many bytes.
pub(in crate::functions) fn double(row: &ArgumentRow<'_>) -> u64 {
    row.bytes(0).saturating_mul(2)
}

/// A text with each occurrence of another one replaced. They are counted only if the estimate is large.
pub(in crate::functions) fn replacement(row: &ArgumentRow<'_>) -> u64 {
    const ESTIMATE_BYTES_MAX: u64 = 64 << 10;
    let (text, from, to) = (row.text(0), row.text(1), row.text(2).len() as u64);
    let most = text.len() as u64 / (from.len().max(1) as u64) + 1;
    match most.saturating_mul(to) {
        small if small <= ESTIMATE_BYTES_MAX => small,
        _ => (text.matches(from).count() as u64).saturating_mul(to),
    }
}

/// A text with each of some characters replaced by another.
pub(in crate::functions) fn translation(row: &ArgumentRow<'_>) -> u64 {
    if row.text(2).is_ascii() {
        row.bytes(0)
    } else {
        row.bytes(0).saturating_mul(row.text(2).len() as u64)
    }
}

/// A text with the matches of a regular expression replaced.
pub(in crate::functions) fn regex_replacement(row: &ArgumentRow<'_>) -> u64 {
    let references = row.text(2).matches(['$', '\\']).count() as u64;
    // Without `g`, only one match is replaced.
    let matches = if row.text(3).contains('g') { row.bytes(0) + 1 } else { 1 };
    matches
        .saturating_mul(row.text(2).len() as u64)
        .saturating_add(references.saturating_mul(row.bytes(0)))
}

/// The groups of a match.
pub(in crate::functions) fn groups(row: &ArgumentRow<'_>) -> u64 {
    row.bytes(0).saturating_mul(row.text(1).matches('(').count() as u64 + 1)
}

/// A pattern of which each letter becomes a part of a time.
pub(in crate::functions) fn time_pattern(row: &ArgumentRow<'_>) -> u64 {
    row.bytes(1).saturating_mul(40)
}

/// A list of the parts of a text.
pub(in crate::functions) fn parts(row: &ArgumentRow<'_>) -> u64 {
    row.bytes(0).saturating_mul(20)
}

/// Texts joined by a separator.
pub(in crate::functions) fn separators(row: &ArgumentRow<'_>) -> u64 {
    row.bytes(0).saturating_mul(row.count())
}

/// The items of a list as one text.
pub(in crate::functions) fn joined_items(row: &ArgumentRow<'_>) -> u64 {
    row.items(0).saturating_mul(row.bytes(1) + row.bytes(2) + 32)
}

/// A list with items replaced by another one.
pub(in crate::functions) fn replaced_items(row: &ArgumentRow<'_>) -> u64 {
    row.items(0).saturating_mul(row.bytes(2))
}

/// Each item is compared with each item of another list.
pub(in crate::functions) fn item_pairs(row: &ArgumentRow<'_>) -> u64 {
    row.items(0).saturating_mul(row.items(1))
}

/// A pattern with inner wildcards is compiled, once for each row unless it is the same for all.
pub(in crate::functions) fn compiled_pattern(row: &ArgumentRow<'_>) -> u64 {
    if row.is_text_column(1) && is_compiled(row.text(1)) {
        row.bytes(1).saturating_mul(PATTERN_BYTE_WEIGHT)
    } else {
        0
    }
}

/// Each item and member is looked for among all others.
pub(in crate::functions) fn containment(row: &ArgumentRow<'_>) -> u64 {
    row.bytes(0)
        .saturating_mul(row.text(1).matches([',', ':']).count() as u64)
}

/// Each character is compared with each of another text.
pub(in crate::functions) fn edit_distance(row: &ArgumentRow<'_>) -> u64 {
    row.bytes(0).saturating_mul(row.bytes(1))
}

/// A value written as JSON, in which a byte may take six.
pub(in crate::functions) fn json(row: &ArgumentRow<'_>) -> u64 {
    row.total_bytes().saturating_mul(6)
}

/// A list of numbers or times, as long as it may be.
pub(in crate::functions) fn series(_: &ArgumentRow<'_>) -> u64 {
    const LIST_BYTES_MAX: u64 = 8 * 100_000;
    LIST_BYTES_MAX
}

/// A text with marks around some of its words.
pub(in crate::functions) fn marks(row: &ArgumentRow<'_>) -> u64 {
    row.bytes(0).saturating_mul(5)
}

/// Whether a pattern of LIKE has inner wildcards, so it is compiled to a regular expression.
pub(in crate::functions) fn is_compiled(pattern: &str) -> bool {
    pattern.trim_matches('%').contains(['%', '_'])
}
