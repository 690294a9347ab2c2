//! The syntax and meaning of a search, as in `q=` and `search('…')`. A search is a tree of clauses. A clause is a
//! boolean column of a scan, so a search is allowed wherever a condition is, and has the same result by index and by
//! raw document.
//!
//! Grammar: words, `"a phrase"`, `"a phrase"~2` (words near each other), `path:word`, `path:"a phrase"`, `pre*`, `wi?d*`
//! (wildcards), `/a regular expression/`, `wrod~1` (similar words), `path:[1 TO 9]`, `path:{1 TO 9}`, `path:>3` (`>=`,
//! `<`, `<=`), `path:[now-1h TO now/d]` (relative times), `path:10.0.0.0/8` (networks), `path:*` (a value exists), `AND`,
//! `OR`, `NOT`, `-`, `+`, parentheses, `term^2` (weights). Two adjacent clauses must both match.
//!
//! The meaning of a clause for one value of a document: `Words` is split into tokens (runs of letters and digits,
//! lower-cased), which must be adjacent among the tokens of a string. If the text is a number, it also matches that
//! number; if it is `true` or `false`, it also matches that boolean. A document matches if any of its values does, even
//! inside arrays: at the clause's path or, without one, anywhere.

mod parser;
mod relative_time;

use chrono::{DateTime, Utc};
use proto::{Code, Problem};
use serde::{Deserialize, Serialize};

use self::parser::Parser;
use crate::path::Path;

/// One condition of a search.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Clause {
    /// The path of the values; None means anywhere.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "in")]
    pub path: Option<Path>,
    /// The test of a value.
    #[serde(flatten)]
    pub matches: Match,
}

/// The test that a clause applies to a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// A phrase: the tokens of this text, adjacent and in order. Serialized, so the name stays.
    Words(String),
    /// A token that begins with this prefix (lower-case letters and digits).
    Prefix(String),
    /// The tokens of a text, in a text where they can be brought together by moving tokens over `slop` places.
    Near {
        /// A phrase.
        text: String,
        /// Places.
        slop: u32,
    },
    /// A pattern, in any case: `*` stands for any characters, `?` for one, and `\` makes the next one literal. If all
    /// other characters are those of tokens, a token must match it, otherwise a whole text without white space.
    Wildcard(String),
    /// A regular expression that a token or a whole text must match from beginning to end, in any case. Texts over
    /// [`WHOLE_TEXT_BYTES_MAX`] are only compared token by token.
    Regex(String),
    /// A token that becomes this one by at most so many changes: a character added, left out or replaced, or two
    /// neighbours exchanged.
    Fuzzy {
        /// A token.
        token: String,
        /// Changes.
        changes: u8,
    },
    /// A text that has an IP address of this network, such as `10.0.0.0/8`.
    Network(String),
    /// A time between two others, in microseconds since 1970, both inclusive. A text or a number is a time if a cast makes
    /// it one.
    Times {
        /// The earliest, if there is one.
        from: Option<i64>,
        /// The latest, if there is one.
        to: Option<i64>,
    },
    /// A value between two bounds. Numeric bounds compare numbers, other bounds compare whole strings byte by byte.
    Range {
        /// The lower bound, if any.
        from: Option<RangeBound>,
        /// The upper bound, if any.
        to: Option<RangeBound>,
    },
    /// Any value but null.
    Exists,
}

/// A bound of a range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct RangeBound {
    /// The bound as written.
    pub value: String,
    /// Whether the range includes the bound itself.
    pub inclusive: bool,
}

/// A parsed search. Its paths are names that the resolver still has to resolve.
#[derive(Debug, Clone, PartialEq)]
pub enum SearchExpr {
    /// Matches everything (`*`, or an empty search).
    All,
    /// All parts must match.
    And(Vec<SearchExpr>),
    /// At least one part must match.
    Or(Vec<SearchExpr>),
    /// The part must not match.
    Not(Box<SearchExpr>),
    /// A part whose score is multiplied by this weight.
    Weighted(Box<SearchExpr>, f64),
    /// One condition.
    Clause {
        /// The name before the colon.
        name: Option<String>,
        /// The test of its values.
        matches: Match,
    },
}

/// What a search says, read at some time.
#[derive(Debug, Clone, PartialEq)]
pub struct ParsedSearch {
    /// The search.
    pub expr: SearchExpr,
    /// Notes for the user on words that may mean something else.
    pub notes: Vec<String>,
    /// Whether it names times relative to now, so that it means something else at another time.
    pub is_relative: bool,
}

/// Maximum length of a search in bytes.
pub const SEARCH_BYTES_MAX: usize = 64 << 10;
/// Maximum number of clauses in a search.
pub const CLAUSES_MAX: usize = 1_024;
/// Maximum nesting depth of parentheses and negations.
pub const SEARCH_DEPTH_MAX: usize = 25;

/// Maximum length of a regular expression, or of a word with wildcards, in bytes.
pub const PATTERN_BYTES_MAX: usize = 1_000;
/// Maximum number of wildcards, regular expressions and similar words.
pub const PATTERNS_MAX: usize = 50;
/// Maximum number of states of all wildcards and regular expressions of a search: of each, the length of its expansion.
pub const PATTERN_STATES_MAX: u64 = 1_000;
/// Maximum length of a word that others are similar to.
pub const FUZZY_CHARS_MAX: usize = 100;
/// A pattern is not compared with longer texts as a whole, nor with longer tokens.
pub const WHOLE_TEXT_BYTES_MAX: usize = 32 << 10;
/// Maximum number of tokens of a phrase whose tokens may be apart.
pub const NEAR_TOKENS_MAX: usize = 50;

/// A search without the tests of its clauses, and these. Searches with the same template have the same plan.
#[derive(Debug, Clone)]
pub struct SearchTemplate {
    /// The search with a place for each test. It is a search itself, but must not run.
    pub text: String,
    /// The tests, in the order of their places.
    pub tests: Vec<Match>,
    /// Notes for the user on words that may mean something else.
    pub notes: Vec<String>,
}

/// A test whose text is this and a number is the place of a test in a template.
const PLACE: &str = "\u{1}test";

impl SearchTemplate {
    /// Parses a search. Its template is the search itself if its text contains the beginning of a place, or if the template
    /// would be too long.
    pub fn of(text: &str, now: DateTime<Utc>) -> Result<Self, Problem> {
        let mut parser = parser(text, now)?;
        let parsed = parser.parse()?;
        let mut template = Self {
            text: String::with_capacity(text.len()),
            tests: Vec::with_capacity(parser.tests.len()),
            notes: parsed.notes,
        };
        let mut from = 0;
        for (at, tests) in parser.tests {
            if text.contains(PLACE) {
                break;
            }
            let first = template.tests.len();
            let places = (first..first + tests.len()).map(|place| format!("{PLACE}{place}"));
            let places: Vec<String> = places.collect();
            template.text.push_str(&text[from..at.start]);
            template.text.push_str(&match places.as_slice() {
                [place] => place.clone(),
                several => format!("({})", several.join(" OR ")),
            });
            template.tests.extend(tests);
            from = at.end;
        }
        template.text.push_str(&text[from..]);
        // A place may be longer than the test, and a clause may have two.
        if template.text.len() > SEARCH_BYTES_MAX || template.tests.len() > CLAUSES_MAX {
            template = Self {
                text: text.to_owned(),
                tests: Vec::new(),
                ..template
            };
        }
        Ok(template)
    }
}

impl Match {
    /// The number of the place that this test is, if it is one.
    pub fn place(&self) -> Option<usize> {
        match self {
            Self::Words(text) => text.strip_prefix(PLACE)?.parse().ok(),
            _ => None,
        }
    }
}

/// Parses a time into microseconds since 1970: a relative one, such as `now-1h`, or an absolute one. A rounded time, such as
/// `now/d`, gives the beginning of its unit.
pub fn time(text: &str, now: DateTime<Utc>) -> Option<i64> {
    relative_time::parse(text, now).map(|span| span.first)
}

/// Parses a search, at this time.
pub fn parse(text: &str, now: DateTime<Utc>) -> Result<ParsedSearch, Problem> {
    parser(text, now)?.parse()
}

fn parser(text: &str, now: DateTime<Utc>) -> Result<Parser<'_>, Problem> {
    if text.len() > SEARCH_BYTES_MAX {
        return Err(Problem::new(
            Code::TooComplex,
            format!("the search is too long: {} bytes", text.len()),
        )
        .hint(format!("the limit is {SEARCH_BYTES_MAX} bytes")));
    }
    Ok(Parser::new(text, now))
}

#[cfg(test)]
mod tests;
