//! Tests of tokens and of whole texts: wildcards, regular expressions, similar words.

use std::{num::NonZeroUsize, sync::LazyLock};

use parking_lot::Mutex;
use regex::Regex;

use crate::{byte_lru::ByteLru, search::WHOLE_TEXT_BYTES_MAX, token};

/// Bytes of a compiled pattern.
const COMPILED_BYTES_MAX: usize = 1 << 20;
/// Compiled patterns that are kept: a search compiles its patterns for each part of a shard.
const COMPILED_MAX: NonZeroUsize = NonZeroUsize::new(100).expect("not zero");

/// Compiles a case-insensitive regular expression that must match a whole text. The error is one line that says why the
/// pattern is invalid.
pub(crate) fn regex(pattern: &str) -> Result<Regex, String> {
    static COMPILED: LazyLock<Mutex<ByteLru<String, Regex>>> =
        LazyLock::new(|| Mutex::new(ByteLru::new(COMPILED_BYTES_MAX * COMPILED_MAX.get(), COMPILED_MAX)));
    if let Some(known) = COMPILED.lock().get(pattern) {
        return Ok(known.clone());
    }
    let compiled = regex::RegexBuilder::new(&format!("^(?:{pattern})$"))
        .case_insensitive(true)
        .dot_matches_new_line(true)
        .size_limit(COMPILED_BYTES_MAX)
        .dfa_size_limit(COMPILED_BYTES_MAX)
        .build();
    let compiled = compiled.map_err(|error| {
        let message = error.to_string();
        let last = message.lines().last().unwrap_or_default();
        last.trim().trim_start_matches("error: ").to_owned()
    })?;
    let displaced = COMPILED
        .lock()
        .put(pattern.to_owned(), compiled.clone(), COMPILED_BYTES_MAX);
    drop(displaced);
    Ok(compiled)
}

/// Whether a token or a text matches a pattern.
pub(super) fn is_match(pattern: &Regex, text: &str) -> bool {
    text.len() <= WHOLE_TEXT_BYTES_MAX && pattern.is_match(text)
}

/// A test of a token.
#[derive(Debug, Clone)]
pub enum TokenTest {
    /// It begins with this.
    Prefix(String),
    /// All of it matches, and it begins with this prefix.
    Pattern {
        /// What all tokens that match begin with.
        prefix: String,
        /// The pattern.
        pattern: Regex,
    },
    /// At most so many changes make it this token: a character added, left out or replaced, two neighbours exchanged.
    Fuzzy {
        /// The other token.
        token: String,
        /// Its characters.
        chars: usize,
        /// Changes.
        changes: usize,
    },
}

impl TokenTest {
    pub(super) fn fuzzy(token: &str, changes: u8) -> Self {
        Self::Fuzzy {
            token: token.to_owned(),
            chars: token.chars().count(),
            changes: changes.into(),
        }
    }

    /// Whether a token, in lower case, passes.
    pub fn token(&self, token: &str) -> bool {
        match self {
            Self::Prefix(prefix) => token.starts_with(prefix),
            Self::Pattern { prefix, pattern } => token.starts_with(prefix) && is_match(pattern, token),
            Self::Fuzzy {
                token: other,
                chars,
                changes,
            } => {
                // UTF-8 takes at most four bytes per character: this rejects long tokens before their characters are counted.
                token.len() <= 4 * (chars + changes)
                    && token.chars().count().abs_diff(*chars) <= *changes
                    && strsim::osa_distance(token, other) <= *changes
            }
        }
    }

    /// What all tokens that pass begin with.
    pub fn prefix(&self) -> &str {
        match self {
            Self::Prefix(prefix) | Self::Pattern { prefix, .. } => prefix,
            Self::Fuzzy { .. } => "",
        }
    }

    /// Whether a token of a text passes.
    pub(super) fn text(&self, text: &str) -> bool {
        match self {
            Self::Prefix(prefix) => token::contains_prefix(text, prefix),
            _ => token::tokens(text).any(|token| self.token(&token)),
        }
    }
}

/// Whether a pattern with wildcards can be compiled.
pub(crate) fn is_wildcard(pattern: &str) -> bool {
    Wildcard::new(pattern).is_some()
}

/// A pattern with wildcards. What it is compared with is in lower case.
pub(super) struct Wildcard {
    /// What it begins with.
    pub(super) prefix: String,
    pub(super) pattern: Regex,
    /// Whether a token can match it. Otherwise a whole text can.
    pub(super) is_of_token: bool,
}

impl Wildcard {
    /// Compiles a pattern; None if it is too large.
    pub(super) fn new(pattern: &str) -> Option<Self> {
        let (mut expression, mut prefix) = (String::new(), String::new());
        let (mut is_of_token, mut in_prefix) = (true, true);
        let mut chars = pattern.chars();
        while let Some(c) = chars.next() {
            let literal = match c {
                '*' | '?' => {
                    in_prefix = false;
                    expression.push_str(if c == '*' { r"\S*" } else { r"\S" });
                    continue;
                }
                '\\' => chars.next()?,
                literal => literal,
            };
            is_of_token &= token::is_token_char(literal);
            let lower = token::lower(literal.encode_utf8(&mut [0; 4])).into_owned();
            expression.push_str(&regex::escape(&lower));
            if in_prefix {
                prefix.push_str(&lower);
            }
        }
        Some(Self {
            prefix,
            pattern: regex(&expression).ok()?,
            is_of_token,
        })
    }
}
