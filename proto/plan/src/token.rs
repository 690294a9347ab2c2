//! Tokens: what a search compares. Shared by: leaf (indexes and scans them), aggregator (marks them in hits).
//!
//! A token is a maximal run of letters and decimal digits, lower-cased character by character. The class is a subset of
//! the regular expression class `\w`, and there is no limit of length: an id of any length is one token.

use std::{borrow::Cow, sync::LazyLock};

use regex::Regex;

/// The characters beyond ASCII that belong to a token, a bit each.
static BEYOND_ASCII: LazyLock<Vec<u64>> = LazyLock::new(|| {
    let word = Regex::new(r"^\w").expect("a constant expression");
    let mut bits = vec![0u64; (char::MAX as usize >> 6) + 1];
    for c in ('\u{80}'..=char::MAX).filter(|c| c.is_alphanumeric() && word.is_match(c.encode_utf8(&mut [0; 4]))) {
        bits[c as usize >> 6] |= 1 << (c as usize & 63);
    }
    bits
});

/// Whether a character belongs to a token.
pub fn is_token_char(c: char) -> bool {
    if c.is_ascii() {
        return c.is_ascii_alphanumeric();
    }
    BEYOND_ASCII[c as usize >> 6] >> (c as usize & 63) & 1 == 1
}

/// The tokens of a text, in order.
pub fn tokens(text: &str) -> Tokens<'_> {
    Tokens { rest: text }
}

/// The tokens of a text that are left.
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    /// The next token as it is written, not yet lower-cased.
    pub fn next_written(&mut self) -> Option<&'a str> {
        let start = self.rest.find(is_token_char)?;
        let from = &self.rest[start..];
        let (token, rest) = from.split_at(from.find(|c| !is_token_char(c)).unwrap_or(from.len()));
        self.rest = rest;
        Some(token)
    }

    /// What follows the tokens taken so far.
    pub fn rest(&self) -> &'a str {
        self.rest
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Cow<'a, str>> {
        self.next_written().map(lower)
    }
}

/// A text in lower case, character by character: no character's case depends on its neighbours.
pub fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().flat_map(char::to_lowercase).collect())
}

/// Whether the tokens of a text hold these, side by side and in this order. Nothing holds no tokens at all.
pub fn holds(text: &str, phrase: &[String]) -> bool {
    let [first, others @ ..] = phrase else { return false };
    let mut rest = tokens(text);
    while let Some(written) = rest.next_written() {
        if is(written, first) && begins_with(rest.clone(), others) {
            return true;
        }
    }
    false
}

fn begins_with(mut tokens: Tokens<'_>, phrase: &[String]) -> bool {
    phrase
        .iter()
        .all(|wanted| tokens.next_written().is_some_and(|written| is(written, wanted)))
}

/// Whether a run of token characters is this token once it is lower-cased.
fn is(written: &str, token: &str) -> bool {
    if written.is_ascii() {
        written.eq_ignore_ascii_case(token)
    } else {
        lower(written) == token
    }
}

/// Whether a token of a text begins so (in lower case).
pub fn holds_prefix(text: &str, prefix: &str) -> bool {
    tokens(text).any(|token| token.starts_with(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_runs_of_letters_and_digits_in_lower_case() {
        let all = |text| tokens(text).collect::<Vec<_>>();
        assert_eq!(all("Disk /dev/sda1 FULL: 99%"), ["disk", "dev", "sda1", "full", "99"]);
        assert_eq!(all("it's_a-test"), ["it", "s", "a", "test"]);
        assert_eq!(all("Grüße ΣΊΣΥΦΟΣ 東京 ٣٤"), ["grüße", "σίσυφοσ", "東京", "٣٤"]);
        assert_eq!(all("x² ½"), ["x"], "a superscript is no decimal digit");
        assert!(all(" \t\0-_.").is_empty());
        assert_eq!(all(&"a".repeat(100_000))[0].len(), 100_000);
    }

    #[test]
    fn a_token_is_made_of_word_characters() {
        let word = Regex::new(r"^\w$").expect("a constant expression");
        for c in (0..=0x10_FFFF).filter_map(char::from_u32).filter(|c| is_token_char(*c)) {
            assert!(word.is_match(c.encode_utf8(&mut [0; 4])), "{c:?}");
        }
    }

    #[test]
    fn a_phrase_is_found_side_by_side() {
        let phrase = |text: &str| tokens(text).map(Cow::into_owned).collect::<Vec<_>>();
        assert!(holds("the DISK is disk, full!", &phrase("disk full")));
        assert!(!holds("disk is full", &phrase("disk full")));
        assert!(!holds("disk", &phrase("disk full")));
        assert!(!holds("superuser=bob", &phrase("user")));
        assert!(!holds("anything", &[]));
        assert!(holds_prefix("the DISK", "dis") && !holds_prefix("the disk", "isk"));
    }
}
