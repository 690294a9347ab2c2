//! LOGFMT: `level=info msg="GET /a" took=12ms`. Values in quotes may have escapes as in JSON. A key without `=` is
//! true. Dots in a key separate the keys of a path.

use serde_json::{Map, Value};

use super::{has, put};

/// Keys of one text. Further ones are left out.
const KEYS_MAX: usize = 1_000;

/// The keys and values of a text; None if it has no `key=value`. Of a key that occurs twice, the last value counts.
pub(super) fn parse(text: &str) -> Option<Map<String, Value>> {
    let (mut found, mut rest, mut has_value) = (Map::new(), text, false);
    loop {
        rest = rest.trim_start_matches(|c: char| c.is_whitespace() || c == '=' || c == '"');
        if rest.is_empty() || found.len() >= KEYS_MAX {
            return has_value.then_some(found);
        }
        let end = rest.find(|c: char| c.is_whitespace() || c == '=' || c == '"');
        let (key, after) = rest.split_at(end.unwrap_or(rest.len()));
        let Some(after) = after.strip_prefix('=') else {
            // A word of a sentence must not take the place of a value.
            if !has(&found, key) {
                put(&mut found, key, Value::Bool(true));
            }
            rest = after;
            continue;
        };
        has_value = true;
        let value;
        (value, rest) = match after.strip_prefix('"').and_then(quoted) {
            Some((text, after)) => (text, after),
            None => {
                let end = after.find(char::is_whitespace).unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        put(&mut found, key, Value::String(value));
    }
}

/// Reads a text up to its closing quote. Also returns what follows. None if no quote closes it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut is_escaped = false;
    let end = text.bytes().position(|byte| {
        let ends = byte == b'"' && !is_escaped;
        is_escaped = byte == b'\\' && !is_escaped;
        ends
    })?;
    let inside = &text[..end];
    // What is no JSON string stays as it is written.
    let mut escaped = String::with_capacity(inside.len() + 2);
    escaped.push('"');
    for c in inside.chars() {
        // JSON strings have no tabs and newlines, but texts of logs do.
        match c.is_ascii_control() {
            true => escaped.push_str(&format!("\\u{:04x}", u32::from(c))),
            false => escaped.push(c),
        }
    }
    escaped.push('"');
    let value = serde_json::from_str(&escaped).unwrap_or_else(|_| inside.to_owned());
    Some((value, &text[end + 1..]))
}
