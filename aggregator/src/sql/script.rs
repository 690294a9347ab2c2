//! A file of statements that `;` separates.

/// A statement of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScriptStatement<'a> {
    /// Without comments around it.
    pub text: &'a str,
    /// Where it begins in the file: line and column, both from 1.
    pub at: (u64, u64),
}

/// The statements of a file. Each ends at a `;` outside of texts, quoted names and comments.
pub(super) fn statements(file: &str) -> Vec<ScriptStatement<'_>> {
    let (mut at, mut counted) = ((1, 1), 0);
    let mut located = |(from, text)| {
        for c in file[counted..from].chars() {
            at = if c == '\n' { (at.0 + 1, 1) } else { (at.0, at.1 + 1) };
        }
        counted = from;
        ScriptStatement { text, at }
    };
    divided(file).into_iter().map(&mut located).collect()
}

/// The statements with where they begin, in bytes.
fn divided(text: &str) -> Vec<(usize, &str)> {
    let (mut found, mut from, mut at) = (Vec::new(), None, 0);
    // What comes before decides whether a quote begins a text with escapes, and whether a $ is part of a name.
    let (mut before, mut in_name) = (' ', false);
    while at < text.len() {
        let rest = &text[at..];
        let first = rest.chars().next().unwrap_or_default();
        let (length, is_blank) = match rest.as_bytes() {
            [b';', ..] => {
                found.extend(from.take().map(|from: usize| (from, text[from..at].trim_end())));
                (1, true)
            }
            [b'-', b'-', ..] => (rest.find('\n').unwrap_or(rest.len()), true),
            // One that is not closed becomes a statement, which its parser refuses.
            [b'/', b'*', ..] => comment_len(rest).map_or((rest.len(), false), |length| (length, true)),
            [b'\'', ..] if in_name && matches!(before, 'e' | 'E') => (escaped_len(rest), false),
            [quote @ (b'\'' | b'"' | b'`'), ..] => (quoted_len(rest, char::from(*quote)), false),
            [b'$', ..] if !in_name => (dollar_quoted_len(rest), false),
            _ => (first.len_utf8(), first.is_whitespace()),
        };
        if !is_blank && from.is_none() {
            from = Some(at);
        }
        let is_of_name = first.is_alphanumeric() || first == '_' || (first == '$' && in_name);
        // An E before a quote is a name of its own only if nothing comes before it.
        in_name = is_of_name && length == first.len_utf8();
        before = if in_name && !before.is_alphanumeric() && before != '_' {
            first
        } else if in_name {
            '_'
        } else {
            ' '
        };
        at += length;
    }
    found.extend(from.map(|from| (from, text[from..].trim_end())));
    found
}

/// The bytes of a comment, which may contain others. None if it is not closed.
fn comment_len(text: &str) -> Option<usize> {
    let (mut depth, mut at, bytes) = (0_usize, 0, text.as_bytes());
    while at < bytes.len() {
        match (bytes[at], bytes.get(at + 1)) {
            (b'/', Some(b'*')) => (depth, at) = (depth + 1, at + 2),
            (b'*', Some(b'/')) => {
                (depth, at) = (depth - 1, at + 2);
                if depth == 0 {
                    return Some(at);
                }
            }
            _ => at += 1,
        }
    }
    None
}

/// The bytes of a quoted text at the beginning. A doubled quote is part of it, as two texts are read one after another.
fn quoted_len(text: &str, quote: char) -> usize {
    text[1..].find(quote).map_or(text.len(), |end| end + 2)
}

/// The bytes of a quoted text with escapes at the beginning.
fn escaped_len(text: &str) -> usize {
    let (mut at, bytes) = (1, text.as_bytes());
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            b'\'' => return at + 1,
            _ => at += 1,
        }
    }
    text.len()
}

/// The bytes of `$tag$…$tag$` at the beginning, or of a `$` alone.
fn dollar_quoted_len(text: &str) -> usize {
    let tag = text[1..]
        .find(|c: char| !c.is_alphanumeric() && c != '_')
        .map(|end| end + 1);
    match tag.filter(|end| text[*end..].starts_with('$')) {
        Some(end) => {
            let tag = &text[..=end];
            let inside = &text[tag.len()..];
            inside.find(tag).map_or(text.len(), |end| 2 * tag.len() + end)
        }
        None => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(file: &str) -> Vec<&str> {
        statements(file).iter().map(|statement| statement.text).collect()
    }

    #[test]
    fn a_statement_has_its_place_in_the_file() {
        let file = "-- é\n SELECT 1; /* é */ SELECT\n2;\r\n\r\nSELECT 3";
        let places: Vec<(u64, u64)> = statements(file).iter().map(|statement| statement.at).collect();
        assert_eq!(places, [(2, 2), (2, 20), (5, 1)]);
    }

    #[test]
    fn many_statements_on_one_line_have_their_places() {
        let count = 500_000;
        let file = "é;".repeat(count);
        let statements = statements(&file);
        assert_eq!(statements.len(), count);
        let last = statements.last().map(|statement| statement.at);
        assert_eq!(last, Some((1, 2 * count as u64 - 1)));
    }

    #[test]
    fn a_file_is_divided_at_semicolons_between_statements() {
        let file = "-- a; comment\nCREATE VIEW a AS SELECT ';' AS \"x;y\", $q$;$q$, 'it''s;' /* ; */ ;;\n\nDROP VIEW é;\n/* end */";
        assert_eq!(
            texts(file),
            [
                "CREATE VIEW a AS SELECT ';' AS \"x;y\", $q$;$q$, 'it''s;' /* ; */",
                "DROP VIEW é"
            ]
        );
        for open in ["'a;b", "\"a;b", "$x$a;b", "/* a;b", "SELECT $1"] {
            assert_eq!(texts(open), [open]);
        }
        for whole in [
            "1 /* a /* b */ ; */ + 2",
            r"E'it\'s; x'",
            "SELECT 1 AS `it's;`",
            "SELECT a$b$, c$b$",
            "nameE'\\'",
        ] {
            assert_eq!(texts(whole), [whole]);
        }
        assert!(statements(" ; -- nothing").is_empty());
    }
}
