//! GROK: regular expressions with named patterns, `%{IP:client} %{NUMBER:status:int}`. The named patterns are those of the
//! `grok` crate, which has them from Logstash. They are matched in linear time, so their look-around is left out.

use std::{collections::HashMap, fmt::Write as _, sync::LazyLock};

use proto::{Code, Problem};
use regex::Regex;

use super::{
    FieldType, ParsedField,
    pattern::{Pattern, regex},
};
use crate::nearest::nearest;

/// Bytes of the regular expression of a pattern.
const EXPANDED_BYTES_MAX: usize = 256 << 10;
/// Levels of named patterns within each other.
const DEPTH_MAX: usize = 32;

/// The named patterns as the crate has them.
const PATTERNS: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/grok_patterns.rs"));

/// The named patterns, without look-around.
static LIBRARY: LazyLock<HashMap<&'static str, String>> = LazyLock::new(|| {
    let patterns = PATTERNS.iter();
    patterns.map(|(name, pattern)| (*name, linear(pattern))).collect()
});

/// A named pattern: its name, the field, and the field's type.
static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    let named = r"%\{(\w+)(?::([\w.@\[\]-]*))?(?::(\w*))?\}";
    Regex::new(named).expect("the pattern is a constant")
});

/// Compiles a pattern.
pub(super) fn compile(pattern: &str) -> Result<Pattern, Problem> {
    let mut expansion = Expansion::default();
    expansion.expand(pattern, 0)?;
    let compiled = regex(&expansion.regex).map_err(|reason| {
        bad(format!("GROK is not a regular expression: {reason}"))
            .hint("write \\ before characters such as ( ) [ ] . * + ? that mean themselves")
    })?;
    let groups: HashMap<&str, usize> = compiled
        .capture_names()
        .enumerate()
        .filter_map(|(group, name)| Some((name?, group)))
        .collect();
    let mut fields = Vec::with_capacity(expansion.fields.len());
    for (number, field) in expansion.fields.into_iter().enumerate() {
        if let Some(group) = groups.get(group_name(number).as_str()) {
            fields.push((*group, field));
        }
    }
    // Groups in the syntax of regular expressions are fields, too.
    let own = groups.iter().filter(|(name, _)| !name.starts_with(GROUP_PREFIX));
    fields.extend(own.map(|(name, group)| (*group, ParsedField::text(name))));
    fields.sort_by_key(|(group, _)| *group);
    Ok(Pattern::new(compiled, fields))
}

/// Begins the names of groups that stand for fields, whose own names may have dots.
const GROUP_PREFIX: &str = "rachis_field_";

fn group_name(number: usize) -> String {
    format!("{GROUP_PREFIX}{number}")
}

/// A pattern on its way to a regular expression.
#[derive(Default)]
struct Expansion {
    regex: String,
    fields: Vec<ParsedField>,
}

impl Expansion {
    fn expand(&mut self, pattern: &str, depth: usize) -> Result<(), Problem> {
        if depth > DEPTH_MAX || self.regex.len() > EXPANDED_BYTES_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("GROK: with its named patterns, it has over {EXPANDED_BYTES_MAX} bytes or {DEPTH_MAX} levels"),
            )
            .hint("use fewer named patterns"));
        }
        let mut end = 0;
        for found in NAMED.captures_iter(pattern) {
            let part = |group: usize| found.get(group).map_or("", |part| part.as_str());
            let whole = found.get(0).map_or(0..0, |whole| whole.range());
            self.plain(&pattern[end..whole.start])?;
            end = whole.end;
            let (name, field) = (part(1), part(2));
            if field.is_empty() {
                self.regex.push_str("(?:");
            } else {
                let _ = write!(self.regex, "(?<{}>", group_name(self.fields.len()));
                self.fields.push(ParsedField {
                    name: dotted(field),
                    field_type: field_type(part(3))?,
                });
            }
            let known = LIBRARY.get(name).ok_or_else(|| unknown(name))?;
            self.expand(known, depth + 1)?;
            self.regex.push(')');
        }
        self.plain(&pattern[end..])
    }

    /// Adds a part without named patterns.
    fn plain(&mut self, part: &str) -> Result<(), Problem> {
        if part.contains("%{") {
            return Err(bad("GROK: a named pattern is not complete".to_owned())
                .hint("write %{IP}, %{IP:client} or %{NUMBER:status:int}"));
        }
        self.regex.push_str(part);
        Ok(())
    }
}

fn bad(detail: String) -> Problem {
    Problem::new(Code::BadSql, detail)
}

fn unknown(name: &str) -> Problem {
    let near = nearest(name, LIBRARY.keys().copied());
    bad(format!("GROK: there is no pattern named {name}")).hint(match near {
        Some(near) => format!("did you mean {near}?"),
        None => "the names are those of Logstash, such as IP, NUMBER, WORD, DATA, GREEDYDATA".to_owned(),
    })
}

/// `[client][address]` as `client.address`.
fn dotted(alias: &str) -> String {
    alias.trim_start_matches('[').trim_end_matches(']').replace("][", ".")
}

fn field_type(name: &str) -> Result<FieldType, Problem> {
    match name.to_ascii_lowercase().as_str() {
        "" | "string" | "text" => Ok(FieldType::Text),
        "int" | "integer" | "long" => Ok(FieldType::Int),
        "float" | "double" => Ok(FieldType::Double),
        _ => Err(bad(format!("GROK: {name} is not a type of a field")).hint("write :int, :float or :text")),
    }
}

/// What makes a pattern large where it says little: that a label of a host name is short, and that a digit may be one of
/// any script.
const RELAXED: [(&str, &str); 5] = [
    ("{0,62}", "*"),
    ("{0,63}", "*"),
    ("{1,62}", "+"),
    ("{1,64}", "+"),
    (r"\d", "[0-9]"),
];

/// A pattern of the library for an engine that matches in linear time.
fn linear(pattern: &str) -> String {
    let relax = |pattern: String, (from, to): &(&str, &str)| pattern.replace(from, to);
    RELAXED.iter().fold(without_look_around(pattern), relax)
}

/// What says that no digit follows. It decides which of several alternatives matches, so it becomes a word boundary.
const NO_DIGIT_FOLLOWS: &str = "(?![0-9])";

/// A pattern without look-around; atomic groups become plain ones. What remains finds the same parts, and some more.
fn without_look_around(pattern: &str) -> String {
    let (mut kept, mut rest) = (String::with_capacity(pattern.len()), pattern);
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("(?>") {
            kept.push_str("(?:");
            rest = after;
        } else if let Some(after) = rest.strip_prefix(NO_DIGIT_FOLLOWS) {
            kept.push_str(r"(?-u:\b)");
            rest = after;
        } else if ["(?=", "(?!", "(?<=", "(?<!"]
            .iter()
            .any(|begin| rest.starts_with(begin))
        {
            rest = &rest[group_len(rest)..];
        } else {
            let (part, after) = rest.split_at(part_len(rest));
            kept.push_str(part);
            rest = after;
        }
    }
    kept
}

/// The bytes of the group at the beginning of a pattern.
fn group_len(pattern: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < pattern.len() {
        match pattern.as_bytes()[at] {
            b'(' => depth += 1,
            b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        at += part_len(&pattern[at..]);
        if depth == 0 {
            break;
        }
    }
    at
}

/// The bytes of a character, an escape or a set of characters at the beginning of a pattern.
fn part_len(pattern: &str) -> usize {
    let char_len = |text: &str| text.chars().next().map_or(0, char::len_utf8);
    match pattern.as_bytes().first() {
        Some(b'\\') => 1 + char_len(&pattern[1..]),
        Some(b'[') => {
            // A ] is a member of the set if it comes first.
            let mut at = 1 + pattern[1..].len() - pattern[1..].trim_start_matches('^').len();
            let first = at;
            while at < pattern.len() && (at == first || pattern.as_bytes()[at] != b']') {
                at += part_of_set_len(&pattern[at..]);
            }
            (at + 1).min(pattern.len())
        }
        _ => char_len(pattern),
    }
}

/// The bytes of an escape, a class or a character within a set.
fn part_of_set_len(set: &str) -> usize {
    if set.starts_with("[:") {
        return set.find(":]").map_or(1, |end| end + 2);
    }
    let char_len = |text: &str| text.chars().next().map_or(0, char::len_utf8);
    match set.strip_prefix('\\') {
        Some(escaped) => 1 + char_len(escaped),
        None => char_len(set),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearly_all_patterns_of_the_library_compile() {
        let failed: Vec<&str> = PATTERNS
            .iter()
            .filter(|(name, _)| {
                let mut expansion = Expansion::default();
                expansion.expand(&format!("%{{{name}}}"), 0).is_err() || regex(&expansion.regex).is_err()
            })
            .map(|(name, _)| *name)
            .collect();
        assert!(failed.len() <= 5, "{} of {}: {failed:?}", failed.len(), PATTERNS.len());
    }

    #[test]
    fn look_around_is_left_out_and_nothing_else() {
        for (pattern, expected) in [
            ("(?<![0-9.+-])(?>a|b)c", "(?:a|b)c"),
            (r"a(?=(b|[)])\))c", "ac"),
            (r"[(?=](?<name>x)[^]]\(?=", r"[(?=](?<name>x)[^]]\(?="),
            ("[[:alpha:](?!]d", "[[:alpha:](?!]d"),
            ("é(?!é)ü", "éü"),
        ] {
            assert_eq!(without_look_around(pattern), expected, "{pattern}");
        }
    }
}
