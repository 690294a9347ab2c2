//! Splits text into tokens, the unit that a search compares. Shared by: leaf (indexes and scans them), aggregator
//! (searches values that a query computes).
//!
//! A token is a maximal run of letters and decimal digits, lower-cased character by character. Its characters are a
//! subset of the regular expression class `\w`. There is no length limit: an id of any length is one token. A
//! leaf keeps no postings of tokens of more than 60,000 bytes; it searches documents with such a token in their raw
//! bytes.
//!
//! Postings on disk contain these tokens. After a change, raise `VERSION` in `leaf/src/split/bundle.rs` and stop
//! reading the older versions: each split is then rebuilt when its shard opens. `tests/answers/oracle.py` has its own
//! copy.

use std::{borrow::Cow, sync::LazyLock};

use memchr::memchr2_iter;
use regex::Regex;

/// The token characters outside ASCII, as a bitmap with one bit per character.
static NON_ASCII: LazyLock<Vec<u64>> = LazyLock::new(|| {
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
    NON_ASCII[c as usize >> 6] >> (c as usize & 63) & 1 == 1
}

/// The tokens of a text, in order.
pub fn tokens(text: &str) -> Tokens<'_> {
    Tokens { rest: text }
}

/// Iterates over the tokens of a text.
#[derive(Debug, Clone)]
pub struct Tokens<'a> {
    rest: &'a str,
}

impl<'a> Tokens<'a> {
    /// The next token as written, not lower-cased.
    pub fn next_raw(&mut self) -> Option<&'a str> {
        let start = self.rest.find(is_token_char)?;
        let from = &self.rest[start..];
        let (token, rest) = from.split_at(from.find(|c| !is_token_char(c)).unwrap_or(from.len()));
        self.rest = rest;
        Some(token)
    }

    /// The text after the tokens consumed so far.
    pub fn rest(&self) -> &'a str {
        self.rest
    }
}

impl<'a> Iterator for Tokens<'a> {
    type Item = Cow<'a, str>;

    fn next(&mut self) -> Option<Cow<'a, str>> {
        self.next_raw().map(lower)
    }
}

/// Lower-cases a text character by character: the case of a character never depends on its neighbours.
pub fn lower(text: &str) -> Cow<'_, str> {
    if text.bytes().all(|b| b.is_ascii() && !b.is_ascii_uppercase()) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().flat_map(char::to_lowercase).collect())
}

/// Whether the tokens of a text contain these tokens, adjacent and in this order. An empty phrase is in no text.
pub fn contains_phrase(text: &str, phrase: &[String]) -> bool {
    if !phrase.first().is_some_and(|first| may_contain(text, first)) {
        return false;
    }
    let mut rest = tokens(text);
    while let Some(written) = rest.next_raw() {
        if is_phrase_start(written, &rest, phrase) {
            return true;
        }
    }
    false
}

/// The number of tokens of a text.
pub fn count(text: &str) -> u64 {
    let (mut tokens, mut count) = (tokens(text), 0);
    while tokens.next_raw().is_some() {
        count += 1;
    }
    count
}

/// How often a text has these tokens, adjacent and in this order, and its number of tokens.
pub fn count_phrase(text: &str, phrase: &[String]) -> (u64, u64) {
    if !phrase.first().is_some_and(|first| may_contain(text, first)) {
        return (0, count(text));
    }
    let (mut occurrences, mut length) = (0, 0);
    let mut rest = tokens(text);
    while let Some(written) = rest.next_raw() {
        length += 1;
        occurrences += u64::from(is_phrase_start(written, &rest, phrase));
    }
    (occurrences, length)
}

/// Whether a token, as written, and those after it begin with this phrase.
fn is_phrase_start(written: &str, rest: &Tokens<'_>, phrase: &[String]) -> bool {
    let [first, others @ ..] = phrase else { return false };
    is(written, first) && begins_with(rest.clone(), others)
}

/// A phrase whose tokens may be apart.
#[derive(Debug, Clone)]
pub struct NearPhrase {
    /// Its tokens, each once.
    pub tokens: Vec<String>,
    /// The token at each place, as an index of `tokens`.
    places: Vec<usize>,
    slop: u32,
}

impl NearPhrase {
    /// The tokens of a text, which may be moved over `slop` places in all until they are adjacent and in this order.
    pub fn new(text: &str, slop: u32) -> Self {
        let (mut distinct, mut places) = (Vec::<String>::new(), Vec::new());
        for token in tokens(text).map(Cow::into_owned) {
            let known = distinct.iter().position(|known| *known == token);
            places.push(known.unwrap_or(distinct.len()));
            if known.is_none() {
                distinct.push(token);
            }
        }
        Self {
            tokens: distinct,
            places,
            slop,
        }
    }

    /// Whether a text has the phrase.
    pub fn is_in(&self, text: &str) -> bool {
        if !self.tokens.iter().all(|token| may_contain(text, token)) {
            return false;
        }
        let mut positions = vec![Vec::new(); self.tokens.len()];
        for (position, written) in (0..).zip(tokens(text)) {
            if let Some(token) = self.tokens.iter().position(|token| *token == written) {
                positions[token].push(position);
            }
        }
        self.is_at(&positions)
    }

    /// Whether the phrase is where its tokens are: `positions` has the places of each of [`Self::tokens`], ascending.
    ///
    /// From its place in the phrase to one in the text, a token has a shift. All shifts must lie within `slop`.
    pub fn is_at(&self, positions: &[Vec<u32>]) -> bool {
        // The shifts of the rarest token say where the others can be.
        let rarest = (0..self.places.len()).min_by_key(|place| positions[self.places[*place]].len());
        let Some(rarest) = rarest else { return false };
        let (place, slop) = (rarest as i64, i64::from(self.slop));
        let (mut taken, mut next) = (Vec::with_capacity(self.places.len()), i64::MIN);
        for position in &positions[self.places[rarest]] {
            let shift = i64::from(*position) - place;
            let from = next.max(shift - slop);
            if (from..=shift).any(|least| self.is_within(least, positions, &mut taken)) {
                return true;
            }
            next = shift + 1;
        }
        false
    }

    /// Whether each token has a shift from `least` to `least + slop`. A token that comes twice needs two positions.
    fn is_within(&self, least: i64, positions: &[Vec<u32>], taken: &mut Vec<u32>) -> bool {
        taken.clear();
        for (place, token) in (0..).zip(&self.places) {
            let before = self.places.iter().zip(&*taken).rev().find(|(other, _)| *other == token);
            let from = before.map_or(0, |(_, taken)| i64::from(*taken) + 1).max(least + place);
            let positions = &positions[*token];
            let at = positions.partition_point(|position| i64::from(*position) < from);
            match positions.get(at) {
                Some(position) if i64::from(*position) <= least + place + i64::from(self.slop) => taken.push(*position),
                _ => return false,
            }
        }
        true
    }
}

fn begins_with(mut tokens: Tokens<'_>, phrase: &[String]) -> bool {
    phrase
        .iter()
        .all(|wanted| tokens.next_raw().is_some_and(|written| is(written, wanted)))
}

/// Whether a run of token characters, lower-cased, is this token.
fn is(written: &str, token: &str) -> bool {
    if written.is_ascii() {
        written.eq_ignore_ascii_case(token)
    } else {
        lower(written) == token
    }
}

/// Whether some token of a text begins with this lower-case prefix.
pub fn contains_prefix(text: &str, prefix: &str) -> bool {
    may_contain(text, prefix) && tokens(text).any(|token| token.starts_with(prefix))
}

/// Whether a text has these lower-case letters in a row, which most texts do not. It is not known of a text beyond ASCII.
fn may_contain(text: &str, letters: &str) -> bool {
    let (text, letters) = (text.as_bytes(), letters.as_bytes());
    let Some(first) = letters.first() else { return true };
    let is_there = |at: usize| {
        let there = text[at..].get(..letters.len());
        there.is_some_and(|there| there.eq_ignore_ascii_case(letters))
    };
    memchr2_iter(*first, first.to_ascii_uppercase(), text).any(is_there) || !text.is_ascii()
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
        assert_eq!(all("x² ½"), ["x"], "a superscript is not a decimal digit");
        assert!(all(" \t\0-_.").is_empty());
        assert_eq!(all(&"a".repeat(100_000))[0].len(), 100_000);
    }

    #[test]
    fn tokens_consist_of_word_characters() {
        let word = Regex::new(r"^\w$").expect("a constant expression");
        for c in (0..=0x10_FFFF).filter_map(char::from_u32).filter(|c| is_token_char(*c)) {
            assert!(word.is_match(c.encode_utf8(&mut [0; 4])), "{c:?}");
        }
    }

    #[test]
    fn a_phrase_matches_adjacent_tokens() {
        let phrase = |text: &str| tokens(text).map(Cow::into_owned).collect::<Vec<_>>();
        assert!(contains_phrase("the DISK is disk, full!", &phrase("disk full")));
        assert!(!contains_phrase("disk is full", &phrase("disk full")));
        assert!(!contains_phrase("disk", &phrase("disk full")));
        assert!(!contains_phrase("superuser=bob", &phrase("user")));
        assert!(!contains_phrase("anything", &[]));
        assert!(contains_prefix("the DISK", "dis") && !contains_prefix("the disk", "isk"));
    }
}
