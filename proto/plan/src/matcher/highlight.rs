//! Marks what a search found in the texts of a document.

use std::{borrow::Cow, collections::VecDeque, ops::Range};

use proto::json::Value;

use super::value_test::{ValueTest, addresses};
use crate::{
    path::Path,
    search::{Match, SearchExpr},
    token::{self, is_token_char},
    value::canonical,
};

/// Begins a mark.
const BEGIN: &str = "<em>";
/// Ends a mark.
const END: &str = "</em>";
/// Marks of one test in one text, at most.
const MARKS_MAX: usize = 1_000;
/// Longer matches are not marked.
const MARK_BYTES_MAX: usize = 1_000;
/// Paths of a document, at most.
const PATHS_MAX: usize = 100;
/// Fragments of a path, at most.
const FRAGMENTS_MAX: usize = 5;
/// A text up to this length is one fragment.
const WHOLE_BYTES_MAX: usize = 250;
/// What a fragment shows before and after its marks.
const AROUND_BYTES: usize = 60;
/// Bytes of a document that are compared with tests, at most, counted for each test.
const COMPARED_BYTES_MAX: usize = 64 << 20;

/// What is marked: the tests of a search whose words a match has.
#[derive(Debug, Clone, Default)]
pub struct Highlighter {
    /// Each with the keys of the path of its values; None means anywhere.
    tests: Vec<(Option<Vec<String>>, ValueTest)>,
}

/// What was found at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HighlightedPath {
    /// The path, without positions in lists.
    pub path: Path,
    /// Parts of its texts, with marks.
    pub fragments: Vec<String>,
}

/// A document that is looked through.
struct Highlighted<'a> {
    /// The keys that lead to the current value.
    path: Vec<&'a str>,
    found: Vec<HighlightedPath>,
    /// Bytes that may still be compared.
    free_bytes: usize,
}

impl Highlighter {
    /// Marks what these tests find. A path matches in upper and lower case, and without its positions in lists.
    pub fn new<'a>(tests: impl IntoIterator<Item = (Option<Path>, &'a Match)>) -> Self {
        let keys_of = |path: Path| {
            let keys = path.steps().iter().filter_map(|step| step.key());
            // `_doc` is the document itself.
            let keys: Vec<String> = keys.skip_while(|key| *key == "_doc").map(str::to_owned).collect();
            (!keys.is_empty()).then_some(keys)
        };
        let tests = tests.into_iter();
        Self {
            tests: tests
                .map(|(path, matches)| (path.and_then(keys_of), ValueTest::new(matches)))
                .collect(),
        }
    }

    /// What was found in a document: at or below these paths, or anywhere. At most 100 paths, and of a very long document
    /// only what its beginning has.
    pub fn document(&self, document: &Value<'_>, paths: Option<&[Path]>) -> Vec<HighlightedPath> {
        self.below(document, &Path::default(), paths)
    }

    /// The same for a value at a path.
    pub fn below<'a>(&self, value: &'a Value<'_>, path: &'a Path, paths: Option<&[Path]>) -> Vec<HighlightedPath> {
        let mut document = Highlighted {
            path: path.steps().iter().filter_map(|step| step.key()).collect(),
            found: Vec::new(),
            free_bytes: COMPARED_BYTES_MAX,
        };
        self.add(value, paths, &mut document);
        document.found
    }

    fn add<'a>(&self, value: &'a Value<'_>, paths: Option<&[Path]>, document: &mut Highlighted<'a>) {
        if document.free_bytes == 0 || document.found.len() >= PATHS_MAX {
            return;
        }
        match value {
            Value::Array(items) => items.iter().for_each(|item| self.add(item, paths, document)),
            Value::Object(members) => {
                for (key, value) in members {
                    document.path.push(key);
                    self.add(value, paths, document);
                    document.path.pop();
                }
            }
            _ if paths.is_some_and(|paths| !paths.iter().any(|wanted| is_below(&document.path, wanted))) => {}
            scalar => {
                let text = scalar_text(scalar);
                let tests = self
                    .tests
                    .iter()
                    .filter(|(at, _)| at.as_ref().is_none_or(|at| is_path(&document.path, at)));
                let compared = tests.clone().count().saturating_mul(text.len() + 1);
                document.free_bytes = document.free_bytes.saturating_sub(compared);
                let marks = marks(&text, scalar, tests.map(|(_, test)| test));
                if marks.is_empty() {
                    return;
                }
                let path = Path::of_keys(document.path.iter().copied());
                let known = document.found.iter().position(|known| known.path == path);
                let same = known.unwrap_or(document.found.len());
                if known.is_none() {
                    let fragments = Vec::new();
                    document.found.push(HighlightedPath { path, fragments });
                }
                let fragments = &mut document.found[same].fragments;
                let free = FRAGMENTS_MAX.saturating_sub(fragments.len());
                fragments.extend(cut(&text, &marks).into_iter().take(free));
            }
        }
    }

    /// A value with marks, whatever the paths of the tests: a text, a number or a boolean, or the first item of a list that
    /// has a mark.
    pub fn value(&self, value: &Value<'_>) -> Option<String> {
        match value {
            Value::Null | Value::Object(_) | Value::Array(_) => self.marked_item(value),
            scalar => {
                let text = scalar_text(scalar);
                let marks = marks(&text, scalar, self.tests.iter().map(|(_, test)| test));
                Some(marked(&text, 0..text.len(), &marks))
            }
        }
    }

    /// The first value with a mark in a list.
    fn marked_item(&self, value: &Value<'_>) -> Option<String> {
        match value {
            Value::Null | Value::Object(_) => None,
            Value::Array(items) => items.iter().find_map(|item| self.marked_item(item)),
            scalar => {
                let text = scalar_text(scalar);
                let marks = marks(&text, scalar, self.tests.iter().map(|(_, test)| test));
                (!marks.is_empty()).then(|| marked(&text, 0..text.len(), &marks))
            }
        }
    }
}

/// Whether keys are those of a path, in upper or lower case.
fn is_path(keys: &[&str], path: &[String]) -> bool {
    keys.len() == path.len()
        && keys
            .iter()
            .zip(path)
            .all(|(key, other)| key.eq_ignore_ascii_case(other))
}

/// Whether keys lead to a path, or further. `_doc` is the document itself.
fn is_below(keys: &[&str], path: &Path) -> bool {
    let mut path = path
        .steps()
        .iter()
        .filter_map(|step| step.key())
        .skip_while(|key| *key == "_doc");
    let mut keys = keys.iter();
    path.all(|wanted| keys.next().is_some_and(|key| key.eq_ignore_ascii_case(wanted)))
}

/// What tests find in a value that is spelled like this, in order and without overlaps.
fn marks<'a>(text: &str, value: &Value<'_>, tests: impl Iterator<Item = &'a ValueTest>) -> Vec<Range<usize>> {
    let mut marks = Vec::new();
    for test in tests {
        match value {
            Value::Text(text) => test.add_marks(text, &mut marks),
            other if !matches!(test, ValueTest::Exists) && test.value(other) => marks.push(0..text.len()),
            _ => {}
        }
    }
    marks.sort_unstable_by_key(|mark| (mark.start, std::cmp::Reverse(mark.end)));
    let mut end = 0;
    marks.retain(|mark| {
        let is_new = mark.start >= end && !mark.is_empty() && mark.len() <= MARK_BYTES_MAX;
        end = if is_new { mark.end } else { end };
        is_new
    });
    marks
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
            SearchExpr::Weighted(part, _) => add(part, is_positive, found),
            SearchExpr::Clause { name, matches } if is_positive => found.push((name.as_deref(), matches)),
            SearchExpr::Clause { .. } => {}
        }
    }
    let mut found = Vec::new();
    add(search, true, &mut found);
    found
}

impl ValueTest {
    /// Adds where in a text this test finds something: words, addresses, or the whole text.
    fn add_marks(&self, text: &str, marks: &mut Vec<Range<usize>>) {
        if !self.text(text) {
            return;
        }
        let mut free = MARKS_MAX;
        let mut add = |mark: Range<usize>| {
            if free > 0 {
                free -= 1;
                marks.push(mark);
            }
        };
        match self {
            Self::Words { tokens: phrase, .. } => {
                // The places of as many words as the phrase has.
                let mut window: VecDeque<(Range<usize>, Cow<'_, str>)> = VecDeque::with_capacity(phrase.len());
                for word in placed_tokens(text) {
                    if window.len() == phrase.len() {
                        window.pop_front();
                    }
                    window.push_back(word);
                    let is_phrase = window.len() == phrase.len()
                        && window.iter().zip(phrase).all(|((_, word), wanted)| word == wanted);
                    if is_phrase {
                        window.iter().for_each(|(place, _)| add(place.clone()));
                    }
                }
            }
            Self::Near(phrase) => {
                let is_wanted = |word: &str| phrase.tokens.iter().any(|token| token == word);
                let words = placed_tokens(text).filter(|(_, word)| is_wanted(word));
                words.for_each(|(place, _)| add(place));
            }
            Self::Token(test) => {
                let words = placed_tokens(text).filter(|(_, word)| test.token(word));
                words.for_each(|(place, _)| add(place));
            }
            Self::TokenOrText(pattern) => {
                let mut words = placed_tokens(text).filter(|(_, word)| super::pattern::is_match(pattern, word));
                match words.next() {
                    None => add(0..text.len()),
                    Some((first, _)) => {
                        add(first);
                        words.for_each(|(place, _)| add(place));
                    }
                }
            }
            Self::Address(network) => addresses(text, network).for_each(add),
            Self::Text(_) | Self::Texts(_) | Self::Times(_) => add(0..text.len()),
            Self::Numbers(_) | Self::Exists | Self::Nothing => {}
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

/// The parts of a text around its marks. They do not overlap.
fn cut(text: &str, marks: &[Range<usize>]) -> Vec<String> {
    if text.len() <= WHOLE_BYTES_MAX {
        return vec![marked(text, 0..text.len(), marks)];
    }
    let (mut fragments, mut rest, mut shown) = (Vec::new(), marks, 0);
    while let [first, ..] = rest
        && fragments.len() < FRAGMENTS_MAX
    {
        // A fragment has the marks near its first one. A long mark is a fragment of its own.
        let near = |mark: &&Range<usize>| mark.end <= first.start + WHOLE_BYTES_MAX - 2 * AROUND_BYTES;
        let last = rest.iter().take_while(near).last().unwrap_or(first);
        let start = word_start(text, first.start.saturating_sub(AROUND_BYTES))
            .min(first.start)
            .max(shown);
        let end = word_end(text, (last.end + AROUND_BYTES).min(text.len())).max(last.end);
        // What is shown behind the last mark may have others, or the beginning of one.
        let count = rest.iter().take_while(|mark| mark.start < end).count();
        let (own, others) = rest.split_at(count);
        shown = own.last().map_or(end, |mark| mark.end.max(end));
        fragments.push(marked(text, start..shown, own));
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
    fn addresses_are_marked_and_marks_in_the_data_are_none() {
        let found = |query, document| highlights(query, document, None);
        assert_eq!(
            found(
                "msg:10.0.0.0/8",
                r#"{"msg":"login from 10.1.2.3:80 and src:10.9.9.9, not 11.0.0.1"}"#
            ),
            ["msg: login from <em>10.1.2.3</em>:80 and src:<em>10.9.9.9</em>, not 11.0.0.1"]
        );
        let search = crate::search::parse("disk", chrono::DateTime::UNIX_EPOCH)
            .expect("a search")
            .expr;
        let highlighter = Highlighter::new(positive_clauses(&search).into_iter().map(|(_, test)| (None, test)));
        let list = json::parse(br#"["<em>x","disk"]"#).expect("JSON");
        assert_eq!(highlighter.value(&list), Some("<em>disk</em>".into()));
        // Each test has its own marks, and what a fragment shows is marked.
        let text = format!("{}disk", "the ".repeat(2_000));
        let document = serde_json::json!({ "msg": text }).to_string();
        assert!(found("the OR disk", &document)[0].contains("<em>the</em> <em>the</em>"));
        let text = format!("disk {} disk {} disk", "x".repeat(100), "y".repeat(20)) + &" z".repeat(100);
        let found = found("disk", &serde_json::json!({ "msg": text }).to_string());
        assert_eq!(
            found[0].matches("disk").count(),
            found[0].matches("<em>disk</em>").count(),
            "{found:?}"
        );
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
