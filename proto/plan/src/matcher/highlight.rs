//! Marks what a search found in the texts of a document.

use std::{borrow::Cow, ops::Range};

use proto::json::Value;

use super::value_test::ValueTest;
use crate::{
    path::{Path, Step},
    search::{Match, SearchExpr},
    token::{self, is_token_char},
    value::canonical,
};

/// Begins a mark.
const BEGIN: &str = "<em>";
/// Ends a mark.
const END: &str = "</em>";
/// Marks in one text, at most.
const MARKS_MAX: usize = 1_000;
/// Fragments of a path, at most.
const FRAGMENTS_MAX: usize = 5;
/// A text up to this length is one fragment.
const WHOLE_BYTES_MAX: usize = 250;
/// What a fragment shows before and after its marks.
const AROUND_BYTES: usize = 60;

/// What is marked: the tests of a search whose words a match has.
#[derive(Debug, Clone, Default)]
pub struct Highlighter {
    /// Each with the path of its values; None means anywhere.
    tests: Vec<(Option<Path>, ValueTest)>,
}

/// What was found at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HighlightedPath {
    /// The path, without positions in lists.
    pub path: Path,
    /// Parts of its texts, with marks.
    pub fragments: Vec<String>,
}

impl Highlighter {
    /// Marks what these tests find.
    pub fn new<'a>(tests: impl IntoIterator<Item = (Option<Path>, &'a Match)>) -> Self {
        let tests = tests.into_iter();
        Self {
            tests: tests
                .map(|(path, matches)| (path.map(|path| keys_of(&path)), ValueTest::new(matches)))
                .collect(),
        }
    }

    /// What was found in a document: at or below these paths, or anywhere.
    pub fn document(&self, document: &Value<'_>, paths: Option<&[Path]>) -> Vec<HighlightedPath> {
        let mut found = Vec::new();
        self.add(document, &Path::default(), paths, &mut found);
        found
    }

    fn add(&self, value: &Value<'_>, path: &Path, paths: Option<&[Path]>, found: &mut Vec<HighlightedPath>) {
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.add(item, path, paths, found)),
            Value::Object(members) => {
                let members = members.iter();
                members.for_each(|(key, value)| self.add(value, &path.key(key), paths, found));
            }
            _ if paths.is_some_and(|paths| !paths.iter().any(|wanted| path.steps().starts_with(wanted.steps()))) => {}
            scalar => {
                let text = scalar_text(scalar);
                let marks = self.marks(&text, scalar, |at| at.is_none_or(|at| at == path));
                if marks.is_empty() {
                    return;
                }
                let same = found
                    .iter()
                    .position(|known| known.path == *path)
                    .unwrap_or(found.len());
                if same == found.len() {
                    let (path, fragments) = (path.clone(), Vec::new());
                    found.push(HighlightedPath { path, fragments });
                }
                let fragments = &mut found[same].fragments;
                let free = FRAGMENTS_MAX.saturating_sub(fragments.len());
                fragments.extend(cut(&text, &marks).into_iter().take(free));
            }
        }
    }

    /// A value with marks, whatever the paths of the tests: a text, a number or a boolean, or the first item of a list that
    /// has a mark.
    pub fn value(&self, value: &Value<'_>) -> Option<String> {
        match value {
            Value::Null | Value::Object(_) => None,
            Value::Array(items) => {
                let marked = |item: &Value<'_>| self.value(item).filter(|text| text.contains(BEGIN));
                items.iter().find_map(marked)
            }
            scalar => {
                let text = scalar_text(scalar);
                Some(marked(&text, 0..text.len(), &self.marks(&text, scalar, |_| true)))
            }
        }
    }

    /// What the tests find in a value that is spelled like this, in order and without overlaps.
    fn marks(&self, text: &str, value: &Value<'_>, applies: impl Fn(Option<&Path>) -> bool) -> Vec<Range<usize>> {
        let mut marks = Vec::new();
        for (_, test) in self.tests.iter().filter(|(path, _)| applies(path.as_ref())) {
            match value {
                Value::Text(text) => test.add_marks(text, &mut marks),
                other if !matches!(test, ValueTest::Exists) && test.value(other) => marks.push(0..text.len()),
                _ => {}
            }
        }
        marks.sort_unstable_by_key(|mark| (mark.start, std::cmp::Reverse(mark.end)));
        let mut end = 0;
        marks.retain(|mark| {
            let is_new = mark.start >= end && !mark.is_empty();
            end = if is_new { mark.end } else { end };
            is_new
        });
        marks
    }
}

/// The tests that a match passes, each with the name of its path: those under NOT have found nothing.
pub fn positive_clauses(search: &SearchExpr) -> Vec<(Option<&str>, &Match)> {
    fn add<'a>(search: &'a SearchExpr, is_positive: bool, found: &mut Vec<(Option<&'a str>, &'a Match)>) {
        match search {
            SearchExpr::All => {}
            SearchExpr::And(parts) | SearchExpr::Or(parts) => {
                parts.iter().for_each(|part| add(part, is_positive, found));
            }
            SearchExpr::Not(part) => add(part, !is_positive, found),
            SearchExpr::Clause { name, matches } if is_positive => found.push((name.as_deref(), matches)),
            SearchExpr::Clause { .. } => {}
        }
    }
    let mut found = Vec::new();
    add(search, true, &mut found);
    found
}

impl ValueTest {
    /// Adds where in a text this test finds something: words, or the whole text.
    fn add_marks(&self, text: &str, marks: &mut Vec<Range<usize>>) {
        let mut add = |mark: Range<usize>| {
            if marks.len() < MARKS_MAX {
                marks.push(mark);
            }
        };
        match self {
            Self::Words { tokens: phrase, .. } if self.text(text) => {
                let words: Vec<(Range<usize>, Cow<'_, str>)> = placed_tokens(text).collect();
                for window in words.windows(phrase.len().max(1)) {
                    if window.iter().zip(phrase).all(|((_, word), wanted)| word == wanted) {
                        window.iter().for_each(|(place, _)| add(place.clone()));
                    }
                }
            }
            Self::Near(phrase) if self.text(text) => {
                let is_wanted = |word: &str| phrase.tokens.iter().any(|token| token == word);
                placed_tokens(text)
                    .filter(|(_, word)| is_wanted(word))
                    .for_each(|(place, _)| add(place));
            }
            Self::Token(test) if self.text(text) => {
                placed_tokens(text)
                    .filter(|(_, word)| test.token(word))
                    .for_each(|(place, _)| add(place));
            }
            Self::TokenOrText(pattern) if self.text(text) => {
                let words: Vec<Range<usize>> = placed_tokens(text)
                    .filter(|(_, word)| super::pattern::is_match(pattern, word))
                    .map(|(place, _)| place)
                    .collect();
                match words.is_empty() {
                    true => add(0..text.len()),
                    false => words.into_iter().for_each(add),
                }
            }
            Self::Text(_) | Self::Address(_) | Self::Texts(_) | Self::Times(_) if self.text(text) => {
                add(0..text.len());
            }
            _ => {}
        }
    }
}

/// The tokens of a text with their places.
fn placed_tokens(text: &str) -> impl Iterator<Item = (Range<usize>, Cow<'_, str>)> {
    let mut tokens = token::tokens(text);
    std::iter::from_fn(move || {
        let written = tokens.next_raw()?;
        let end = text.len() - tokens.rest().len();
        Some((end - written.len()..end, token::lower(written)))
    })
}

/// A path without positions in lists.
fn keys_of(path: &Path) -> Path {
    let is_key = |step: &&Step| matches!(step, Step::Key(_));
    Path::new(path.steps().iter().filter(is_key).cloned().collect())
}

fn scalar_text<'a>(scalar: &'a Value<'_>) -> Cow<'a, str> {
    match scalar {
        Value::Text(text) => Cow::Borrowed(text),
        other => Cow::Owned(canonical(other)),
    }
}

/// A part of a text with marks.
fn marked(text: &str, part: Range<usize>, marks: &[Range<usize>]) -> String {
    let (mut shown, mut from) = (String::with_capacity(part.len() + 9 * marks.len()), part.start);
    for mark in marks {
        shown.push_str(&text[from..mark.start]);
        shown.push_str(BEGIN);
        shown.push_str(&text[mark.clone()]);
        shown.push_str(END);
        from = mark.end;
    }
    shown.push_str(&text[from..part.end]);
    shown
}

/// The parts of a text around its marks.
fn cut(text: &str, marks: &[Range<usize>]) -> Vec<String> {
    if text.len() <= WHOLE_BYTES_MAX {
        return vec![marked(text, 0..text.len(), marks)];
    }
    let mut fragments = Vec::new();
    let mut rest = marks;
    while let [first, ..] = rest
        && fragments.len() < FRAGMENTS_MAX
    {
        // A fragment has the marks near its first one. A long mark is a fragment of its own.
        let near = |mark: &&Range<usize>| mark.end <= first.start + WHOLE_BYTES_MAX - 2 * AROUND_BYTES;
        let count = rest.iter().take_while(near).count().max(1);
        let (own, others) = rest.split_at(count);
        let start = word_start(text, first.start.saturating_sub(AROUND_BYTES));
        let end = word_end(text, (own[count - 1].end + AROUND_BYTES).min(text.len()));
        fragments.push(marked(text, start.min(first.start)..end.max(own[count - 1].end), own));
        rest = others;
    }
    fragments
}

/// The beginning of the first word at or after a place that may be inside one, or inside a character.
fn word_start(text: &str, at: usize) -> usize {
    let at = text.ceil_char_boundary(at);
    let inside = at > 0 && text[..at].ends_with(is_token_char);
    match inside {
        true => at + text[at..].find(|c| !is_token_char(c)).unwrap_or(0),
        false => at,
    }
}

/// The end of the last word at or before a place that may be inside one, or inside a character.
fn word_end(text: &str, at: usize) -> usize {
    let at = text.floor_char_boundary(at);
    let inside = text[at..].starts_with(is_token_char);
    match inside {
        true => text[..at]
            .rfind(|c| !is_token_char(c))
            .map_or(at, |before| text.ceil_char_boundary(before + 1)),
        false => at,
    }
}

#[cfg(test)]
mod tests {
    use proto::json;

    use super::*;

    /// `path: fragment | fragment` for each path.
    fn highlights(query: &str, document: &str, paths: Option<&[Path]>) -> Vec<String> {
        let search = crate::search::parse(query, chrono::DateTime::UNIX_EPOCH)
            .expect("a search")
            .expr;
        let clauses = positive_clauses(&search).into_iter();
        let highlighter = Highlighter::new(
            clauses.map(|(name, matches)| (name.map(|name| Path::parse(name).expect("a path")), matches)),
        );
        let document = json::parse(document.as_bytes()).expect("JSON");
        let found = highlighter.document(&document, paths).into_iter();
        found
            .map(|found| format!("{}: {}", found.path, found.fragments.join(" | ")))
            .collect()
    }

    #[test]
    fn what_a_search_found_is_marked() {
        let document = r#"{"msg":"The DISK is full: disk-full","n":12,"ok":true,"tags":["disk","Diskette",{"sub":"full"}],"ip":"10.1.2.3","at":"2026-01-02"}"#;
        for (query, expected) in [
            (
                "disk",
                vec![
                    "msg: The <em>DISK</em> is full: <em>disk</em>-full",
                    "tags: <em>disk</em>",
                ],
            ),
            (
                "\"disk full\"",
                vec!["msg: The DISK is full: <em>disk</em>-<em>full</em>"],
            ),
            (
                "\"full disk\"~1",
                vec!["msg: The <em>DISK</em> is <em>full</em>: <em>disk</em>-<em>full</em>"],
            ),
            (
                "msg:full -n:7",
                vec!["msg: The DISK is <em>full</em>: disk-<em>full</em>"],
            ),
            ("tags:disk*", vec!["tags: <em>disk</em> | <em>Diskette</em>"]),
            (
                "tags:d?sk OR tags.sub:full",
                vec!["tags: <em>disk</em>", "tags.sub: <em>full</em>"],
            ),
            (
                "dosk~1 NOT nothing",
                vec![
                    "msg: The <em>DISK</em> is full: <em>disk</em>-full",
                    "tags: <em>disk</em>",
                ],
            ),
            ("12 true", vec!["n: <em>12</em>", "ok: <em>true</em>"]),
            ("ip:10.0.0.0/8 n:>3", vec!["n: <em>12</em>", "ip: <em>10.1.2.3</em>"]),
            (
                "msg:/dis.*/ at:[2026-01-01 TO 2026-02-01]",
                vec![
                    "msg: The <em>DISK</em> is full: <em>disk</em>-full",
                    "at: <em>2026-01-02</em>",
                ],
            ),
            ("NOT disk", vec![]),
            ("msg:*", vec![]),
            ("*", vec![]),
        ] {
            assert_eq!(highlights(query, document, None), expected, "{query}");
        }
        let paths = [Path::parse("tags").expect("a path")];
        assert_eq!(
            highlights("disk full", document, Some(&paths)),
            ["tags: <em>disk</em>", "tags.sub: <em>full</em>"]
        );
    }

    #[test]
    fn a_long_text_is_cut_around_its_marks() {
        let text = format!(
            "{}ärger disk {}disk ü{}",
            "wörter ".repeat(100),
            "mehr ".repeat(100),
            "ende ".repeat(100)
        );
        let found = highlights("disk", &serde_json::json!({ "msg": text }).to_string(), None);
        let [found] = found.as_slice() else { panic!("{found:?}") };
        let fragments: Vec<&str> = found.strip_prefix("msg: ").expect("its path").split(" | ").collect();
        assert_eq!(fragments.len(), 2);
        for fragment in fragments {
            let plain = fragment.replace(BEGIN, "").replace(END, "");
            assert!(text.contains(&plain) && plain.len() <= 200, "{fragment}");
            assert!(
                plain
                    .trim()
                    .split(' ')
                    .all(|word| ["wörter", "ärger", "disk", "mehr", "ü", "üende", "ende"].contains(&word)),
                "{fragment}"
            );
        }
    }

    #[test]
    fn a_text_of_random_letters_keeps_all_of_them() {
        let mut state = 7_u64;
        for _ in 0..500 {
            let mut text = String::new();
            for _ in 0..300 {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                text.push(['a', 'b', ' ', 'é', '東', '-', '😀', 'İ'][(state >> 40) as usize % 8]);
            }
            let search = crate::search::parse("a OR b* OR \"é a\"", chrono::DateTime::UNIX_EPOCH)
                .expect("a search")
                .expr;
            let highlighter = Highlighter::new(
                positive_clauses(&search)
                    .into_iter()
                    .map(|(_, matches)| (None, matches)),
            );
            let value = Value::Text(Cow::Borrowed(&text));
            let marked = highlighter.value(&value).expect("a text");
            assert_eq!(marked.replace(BEGIN, "").replace(END, ""), text);
            for fragment in highlighter
                .document(&value, None)
                .iter()
                .flat_map(|found| &found.fragments)
            {
                assert!(
                    text.contains(&fragment.replace(BEGIN, "").replace(END, "")),
                    "{fragment} of {text}"
                );
            }
        }
    }
}
