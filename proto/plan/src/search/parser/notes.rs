//! Notes on words that may have meant something else. They are searched as words all the same.

use ipnet::IpNet;

use super::Match;
use crate::token;

/// What to know about a word without a path.
pub(super) fn of_word(test: &Match) -> Option<String> {
    match test {
        Match::Words(text) => of_words(text),
        Match::Wildcard(pattern) => of_pattern(pattern),
        _ => None,
    }
}

fn of_words(text: &str) -> Option<String> {
    let mut tokens = token::tokens(text);
    let is_in_slashes = text.len() > 2 && text.starts_with('/') && text[1..].find('/') == Some(text.len() - 2);
    Some(match (text, tokens.next(), tokens.next()) {
        _ if is_in_slashes && text.contains('.') => {
            format!("`{text}` is searched as words; a regular expression has one of * + ? [ ( {{ | \\")
        }
        ("and" | "or" | "not", ..) => format!(
            "`{text}` is searched as a word; write {} to combine conditions",
            text.to_uppercase()
        ),
        (_, Some(token), None) if text.contains(['+', '#']) => {
            format!("`{text}` is searched as the word `{token}`: symbols are not part of words")
        }
        _ if text.starts_with('`') => {
            format!("{text} is searched as words; a path is written plain or in double quotes, as \"odd name\":value")
        }
        _ if text.parse::<IpNet>().is_ok() => {
            format!("`{text}` is searched as words; write path:{text} to find the addresses of the network")
        }
        _ => return of_comparison(text),
    })
}

/// A word like `ms>10` or `level=error`.
fn of_comparison(text: &str) -> Option<String> {
    let (name, rest) = text.split_at(text.find(['<', '>', '=', '!'])?);
    let value = rest.trim_start_matches(['<', '>', '=', '!']);
    let is_name = name.starts_with(|c: char| c.is_alphabetic() || c == '_')
        && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '.'));
    let is_value = value
        .chars()
        .next()
        .is_some_and(|c| token::is_token_char(c) || c == '-')
        && !value.contains(['<', '>', '=', '&']);
    if !is_name || !is_value {
        return None;
    }
    let instead = match &rest[..rest.len() - value.len()] {
        "=" | "==" => format!("{name}:{value}"),
        "!=" | "<>" => format!("-{name}:{value}"),
        operator @ ("<" | "<=" | ">" | ">=") => format!("{name}:{operator}{value}"),
        _ => return None,
    };
    Some(format!(
        "`{text}` is searched as words; write {instead} to compare values of {name}"
    ))
}

/// A word with wildcards before a colon, like `user.*:ada`.
fn of_pattern(pattern: &str) -> Option<String> {
    let (name, value) = pattern.split_once(':')?;
    let is_name = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '*' | '?');
    let ends = value.starts_with(|c: char| token::is_token_char(c) || c == '*');
    (ends && name.contains(['*', '?']) && name.chars().all(is_name)).then(|| {
        format!("`{pattern}` is searched as one text: a path has no wildcards; write {value} to search everywhere")
    })
}

/// What to know about words at a path.
pub(super) fn of_words_at_path(name: &str, text: &str, is_quoted: bool) -> Option<String> {
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    if is_quoted {
        let is_prefix = text.ends_with('*') && text.contains(token::is_token_char);
        return is_prefix.then(|| {
            let escaped = text.replace(' ', "\\ ");
            format!("the * of {name}:\"{text}\" is not a wildcard, for it is in quotes; write {name}:{escaped}")
        });
    }
    if let Some((from, to)) = text.split_once("..")
        && is_number(from)
        && is_number(to)
    {
        return Some(format!(
            "`{text}` is searched as words; write {name}:[{from} TO {to}] for a range"
        ));
    }
    let steps = text
        .strip_prefix("now")
        .and_then(|steps| steps.strip_prefix(['-', '+']));
    (steps.is_some_and(|steps| steps.starts_with(|c: char| c.is_ascii_digit())))
        .then(|| format!("`{text}` is searched as words, for it is not a time; write now-1h, now-30m or now-1d/d"))
}

/// What to know about a bound: `1,000` is no number.
pub(super) fn of_bound(text: &str) -> Option<String> {
    let plain = text.replace(',', "");
    let is_number = text.contains(',') && plain.parse::<f64>().is_ok();
    is_number.then(|| format!("{text} is compared as a text; write {plain} to compare numbers"))
}
