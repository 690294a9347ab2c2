//! Separates Rust code from comments and literals, so that rules look at code only.

/// Whether the code has a path that begins with this crate: `tantivy::`, but not `not_tantivy::` or `crate::tantivy::`.
pub(crate) fn names_path(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = &code[..at];
        !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            || before.ends_with(" ::")
            || before.ends_with("(::")
    })
}

/// The code before the unit tests of a file, which are its last part.
pub(crate) fn without_unit_tests(code: &str) -> &str {
    &code[..code.find("#[cfg(test)]").unwrap_or(code.len())]
}

/// Turns `f::<T>(` into `f(`, for one level of brackets.
pub(crate) fn without_turbofish(code: &str) -> String {
    let mut rest = code;
    let mut out = String::with_capacity(code.len());
    while let Some(at) = rest.find("::<") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match rest.find('>') {
            Some(end) => rest = &rest[end + 1..],
            None => break,
        }
    }
    out + rest
}

/// Rust code without its comments and, unless `with_literals`, without the contents of its literals. Newlines stay.
pub(crate) fn code_of(text: &str, with_literals: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word_before = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (length, is_literal) = match c {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), false),
            '/' if rest.starts_with("/*") => (block_comment_length(rest), false),
            '"' => (quoted_length(rest), true),
            'r' if !word_before && raw_length(rest).is_some() => (raw_length(rest).unwrap_or(1), true),
            '\'' if char_length(rest).is_some() => (char_length(rest).unwrap_or(1), true),
            _ => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        if is_literal && with_literals {
            out.push_str(&rest[..length]);
        } else {
            out.extend(rest[..length].chars().filter(|c| *c == '\n'));
        }
        rest = &rest[length..];
    }
    out
}

fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0usize);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        match here {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`.
fn raw_length(rest: &str) -> Option<usize> {
    let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = rest[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + body.find(&end)? + end.len())
}

/// `'x'`, `'\n'`, `'\u{1}'`, but not the lifetime `'a`.
fn char_length(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return rest
            .char_indices()
            .skip(3)
            .take(12)
            .find(|(_, c)| *c == '\'')
            .map(|(at, _)| at + 1);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}

/// The names of structs, enums, unions and traits, however deep, and of type aliases at the top level.
pub(crate) fn declared_types(code: &str) -> impl Iterator<Item = &str> {
    code.lines().filter_map(|line| {
        let at_top_level = !line.starts_with(char::is_whitespace);
        let declaration = without_qualifiers(line.trim_start());
        let (keyword, rest) = declaration.split_once(' ')?;
        let declares_a_type = match keyword {
            "struct" | "enum" | "union" | "trait" => true,
            "type" => at_top_level,
            _ => false,
        };
        let end = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_'))
            .unwrap_or(rest.len());
        (declares_a_type && end > 0).then(|| &rest[..end])
    })
}

/// A declaration without `pub`, `pub(…)` and `unsafe`.
fn without_qualifiers(declaration: &str) -> &str {
    let visible = match declaration.strip_prefix("pub(") {
        Some(rest) => rest.split_once(") ").map_or(declaration, |(_, rest)| rest),
        None => declaration.strip_prefix("pub ").unwrap_or(declaration),
    };
    visible.strip_prefix("unsafe ").unwrap_or(visible)
}

#[test]
fn comments_and_literals_are_separated_from_code() {
    let text = "a /* b /* c */ d */ e // f\ng \"h // \\\" i\" r#\"j \" k\"# 'l' '\\'' 'm: n<'o>\n";
    assert_eq!(code_of(text, false), "a  e \ng     'm: n<'o>\n");
    assert_eq!(
        code_of(text, true),
        "a  e \ng \"h // \\\" i\" r#\"j \" k\"# 'l' '\\'' 'm: n<'o>\n"
    );
}

#[test]
fn declared_types_are_found_in_code() {
    let code = [
        "pub(crate) struct A<T>(T);",
        "    enum B {",
        "pub unsafe trait C: D {}",
        "type E = u8;",
        "    type Item = u8;",
        "struct $name;",
        "let structure = F;",
    ]
    .join("\n");
    assert_eq!(declared_types(&code).collect::<Vec<_>>(), ["A", "B", "C", "E"]);
}
