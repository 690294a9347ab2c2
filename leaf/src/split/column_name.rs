//! The name of a column in a part: kind of value, array scope and path.

/// A kind of value that has columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum ColumnKind {
    Bool,
    Int,
    Float,
    Text,
}

/// The name of a column: kind, inside or outside of arrays (upper or lower case), path. It has six characters, none of
/// them special to tantivy.
pub(super) struct ColumnName([u8; 6]);

impl ColumnName {
    pub(super) fn new(path: u32, kind: ColumnKind, inside: bool) -> Self {
        const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
        let kind = match kind {
            ColumnKind::Bool => b'b',
            ColumnKind::Int => b'i',
            ColumnKind::Float => b'f',
            ColumnKind::Text => b't',
        };
        let digit = |place: u32| DIGITS[(path >> (5 * place) & 31) as usize];
        Self([
            if inside { kind.to_ascii_uppercase() } else { kind },
            digit(4),
            digit(3),
            digit(2),
            digit(1),
            digit(0),
        ])
    }

    pub(super) fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("digits are ASCII")
    }
}
