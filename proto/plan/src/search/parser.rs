//! Parses the text of a search into a [`SearchExpr`].

mod notes;
mod range;

use std::{net::IpAddr, ops::Range};

use chrono::{DateTime, Utc};
use ipnet::IpNet;
use proto::{Code, Problem};

use super::{
    CLAUSES_MAX, FUZZY_CHARS_MAX, Match, NEAR_TOKENS_MAX, PATTERN_BYTES_MAX, PATTERN_STATES_MAX, PATTERNS_MAX,
    ParsedSearch, SEARCH_DEPTH_MAX, SearchExpr, relative_time,
};
use crate::{Column, Type, matcher, path::Path, regex_states::states, token};

/// The name before a path that must have a value.
const EXISTS: &str = "_exists_";
/// The weight of a part.
const WEIGHT_MAX: f64 = 1e6;
/// Notes of one search.
const NOTES_MAX: usize = 5;
/// A note repeats the word that it is about; there is none about a word that would make it longer.
const NOTE_BYTES_MAX: usize = 500;
/// Places by which the tokens of a phrase may be apart.
const SLOP_MAX: u32 = 1_000;
/// Changes that make a token similar. More would find most short tokens.
const CHANGES_MAX: u8 = 2;

/// A recursive-descent parser. Every step consumes some text, so it terminates.
pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
    clauses: usize,
    patterns: usize,
    /// The states of all patterns.
    states: u64,
    depth: usize,
    /// What relative times are relative to.
    now: DateTime<Utc>,
    is_relative: bool,
    notes: Vec<String>,
    /// The tests of the values, in their order, and where each value is in the text. One of several tests must hold.
    pub(super) tests: Vec<(Range<usize>, Vec<Match>)>,
}

/// A word that is not quoted.
struct BareWord {
    /// Without the backslashes before characters that mean themselves, and without wildcards.
    text: String,
    /// With wildcards, and a backslash before what is not one.
    pattern: String,
    has_wildcard: bool,
}

impl BareWord {
    fn push(&mut self, literal: char) {
        self.text.push(literal);
        if matches!(literal, '*' | '?' | '\\') {
            self.pattern.push('\\');
        }
        self.pattern.push(literal);
    }

    /// Whether it is `*`.
    fn is_star(&self) -> bool {
        self.pattern == "*"
    }
}

impl<'a> Parser<'a> {
    /// A parser at the beginning of a text.
    pub(super) fn new(text: &'a str, now: DateTime<Utc>) -> Self {
        Self {
            text,
            at: 0,
            clauses: 0,
            patterns: 0,
            states: 0,
            depth: 0,
            now,
            is_relative: false,
            notes: Vec::new(),
            tests: Vec::new(),
        }
    }

    /// Parses the whole text.
    pub(super) fn parse(&mut self) -> Result<ParsedSearch, Problem> {
        Ok(ParsedSearch {
            expr: self.whole()?,
            notes: std::mem::take(&mut self.notes),
            is_relative: self.is_relative,
        })
    }

    fn whole(&mut self) -> Result<SearchExpr, Problem> {
        self.skip_space();
        if self.rest().is_empty() {
            return Ok(SearchExpr::All);
        }
        let query = self.any_of(None)?;
        match self.rest().chars().next() {
            None => Ok(query),
            Some(')') => Err(self.error(
                "this closing parenthesis has no opening one",
                "remove it, or put it in quotes",
            )),
            Some(c) => Err(self.error(&format!("unexpected {c:?}"), "put literal text in quotes")),
        }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn error(&self, detail: &str, hint: &str) -> Problem {
        self.error_at(self.at, detail, hint)
    }

    fn error_at(&self, at: usize, detail: &str, hint: &str) -> Problem {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Problem::new(Code::BadRequest, detail)
            .hint(hint)
            .at(line as u64, column as u64)
    }

    /// Consumes a keyword (in capitals) if it is the next word.
    fn take_keyword(&mut self, word: &str) -> bool {
        let Some(after) = self.rest().strip_prefix(word) else {
            return false;
        };
        if after.starts_with(|c: char| !c.is_whitespace() && c != '(' && c != ')') {
            return false;
        }
        self.at += word.len();
        self.skip_space();
        true
    }

    /// Parses one nesting level deeper, up to the limit.
    fn nested<T>(&mut self, parse: impl FnOnce(&mut Self) -> Result<T, Problem>) -> Result<T, Problem> {
        self.depth += 1;
        if self.depth > SEARCH_DEPTH_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("the search is nested more than {SEARCH_DEPTH_MAX} levels deep"),
            )
            .hint("use fewer parentheses and negations"));
        }
        let result = parse(self);
        self.depth -= 1;
        result
    }

    /// Parts joined by OR.
    fn any_of(&mut self, name: Option<&str>) -> Result<SearchExpr, Problem> {
        let mut parts = vec![self.all_of(name)?];
        while self.take_keyword("OR") || self.take_keyword("||") {
            parts.push(self.all_of(name)?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            SearchExpr::Or(parts)
        })
    }

    /// Adjacent parts, or parts joined by AND.
    fn all_of(&mut self, name: Option<&str>) -> Result<SearchExpr, Problem> {
        let mut parts = vec![self.part(name)?];
        loop {
            if self.take_keyword("AND") || self.take_keyword("&&") {
                parts.push(self.part(name)?);
                continue;
            }
            let rest = self.rest();
            let ends = rest.is_empty() || rest.starts_with(')') || is_keyword(rest, "OR") || is_keyword(rest, "||");
            if ends {
                return Ok(if parts.len() == 1 {
                    parts.remove(0)
                } else {
                    SearchExpr::And(parts)
                });
            }
            parts.push(self.part(name)?);
        }
    }

    /// A clause or a group, negated or not.
    fn part(&mut self, name: Option<&str>) -> Result<SearchExpr, Problem> {
        if is_keyword(self.rest(), "AND") || is_keyword(self.rest(), "OR") || self.rest().is_empty() {
            return Err(self.error(
                "a search term is missing here",
                "AND and OR join two clauses; put them in quotes to search for the words",
            ));
        }
        if self.take_keyword("NOT") {
            return self
                .nested(|parser| parser.part(name))
                .map(|part| SearchExpr::Not(Box::new(part)));
        }
        let signed = |rest: &str, sign: char| {
            rest.strip_prefix(sign)
                .is_some_and(|after| after.starts_with(|c: char| !c.is_whitespace()))
        };
        // `ms:(-5 OR 5)` has a negative number.
        let after = self.rest().strip_prefix('-').unwrap_or_default();
        let is_number = name.is_some() && after.starts_with(|c: char| c.is_ascii_digit() || c == '.');
        if (signed(self.rest(), '-') && !is_number) || signed(self.rest(), '!') {
            self.at += 1;
            return self
                .nested(|parser| parser.part(name))
                .map(|part| SearchExpr::Not(Box::new(part)));
        }
        if signed(self.rest(), '+') {
            self.at += 1;
            return self.nested(|parser| parser.part(name));
        }
        if self.rest().starts_with('(') {
            return self.group(name);
        }
        self.clause(name)
    }

    fn group(&mut self, name: Option<&str>) -> Result<SearchExpr, Problem> {
        let opened = self.at;
        self.at += 1;
        self.skip_space();
        let query = self.nested(|parser| parser.any_of(name))?;
        if !self.rest().starts_with(')') {
            return Err(self.error_at(opened, "a parenthesis is not closed", "close it, or put it in quotes"));
        }
        self.at += 1;
        let weight = self.weight()?;
        self.skip_space();
        Ok(weighted(query, weight))
    }

    fn count_clause(&mut self) -> Result<(), Problem> {
        self.clauses += 1;
        if self.clauses > CLAUSES_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("the search has more than {CLAUSES_MAX} clauses"),
            )
            .hint("split it into several searches"));
        }
        Ok(())
    }

    fn clause(&mut self, name: Option<&str>) -> Result<SearchExpr, Problem> {
        if self.rest().starts_with("*:*") {
            self.count_clause()?;
            self.at += "*:*".len();
            let weight = self.weight()?;
            self.check_value_end()?;
            self.skip_space();
            return Ok(weighted(SearchExpr::All, weight));
        }
        let own = if name.is_none() { self.name() } else { None };
        if own.as_deref() == Some(EXISTS) {
            self.count_clause()?;
            return self.existing();
        }
        if own.is_some() && self.rest().starts_with('(') {
            return self.group(own.as_deref());
        }
        self.count_clause()?;
        let is_behind_name = own.is_some();
        let name = own.or(name.map(str::to_owned));
        let started = self.at;
        self.check_value_start()?;
        let is_quoted = self.rest().starts_with('"');
        let mut matches = self.value()?;
        if self.rest().starts_with('~') {
            matches = matches
                .map(|matches| self.approximate(matches, is_quoted))
                .transpose()?;
        }
        let ended = self.at;
        let weight = self.weight()?;
        self.check_value_end()?;
        let tests = match (matches, &name) {
            (None, _) => return Err(self.no_value(started, is_behind_name)),
            (Some(Match::Exists), None) => {
                self.skip_space();
                return Ok(weighted(SearchExpr::All, weight));
            }
            (Some(Match::Range { .. } | Match::Times { .. }), None) => {
                return Err(self.error_at(started, "a range needs a path", "write path:[1 TO 9] or path:>3"));
            }
            (Some(Match::Range { from, to }), Some(name))
                if (from.is_some() || to.is_some()) && is_system_time(name) =>
            {
                let detail = format!("{name} can only be compared with times");
                return Err(self.error_at(
                    started,
                    &detail,
                    "write now-1h, now-1d/d, 2026-01-31 or \"2026-01-31T08:00:00Z\"",
                ));
            }
            (Some(Match::Words(text)), Some(name)) => self.at_path(started, name, text, is_quoted)?,
            (Some(test), None) => {
                if !is_quoted {
                    notes::of_word(&test).into_iter().for_each(|note| self.note(note));
                }
                vec![test]
            }
            (Some(test), Some(_)) => vec![test],
        };
        self.skip_space();
        self.tests.push((started..ended, tests.clone()));
        let clause = |matches| SearchExpr::Clause {
            name: name.clone(),
            matches,
        };
        let mut clauses: Vec<SearchExpr> = tests.into_iter().map(clause).collect();
        if clauses.len() == 1 {
            return Ok(weighted(clauses.remove(0), weight));
        }
        // As `path:(one OR other)`, which the template says.
        self.nested(|_| Ok(()))?;
        Ok(weighted(SearchExpr::Or(clauses), weight))
    }

    fn no_value(&self, started: usize, is_behind_name: bool) -> Problem {
        let rest = &self.text[started..];
        let detail = "there is nothing to search for here";
        match rest.chars().next() {
            None | Some(' ' | '\t' | '\n') if is_behind_name => self.error_at(
                started,
                "a value is missing behind the colon",
                "write level:error, without a space; level:* finds every value",
            ),
            Some('=') => self.error_at(
                started,
                detail,
                "a path and its value have a colon between: level:error",
            ),
            _ => self.error_at(started, detail, "a word needs a letter or a digit"),
        }
    }

    /// The path after `_exists_:`.
    fn existing(&mut self) -> Result<SearchExpr, Problem> {
        let started = self.at;
        let word = self.bare(&[]);
        self.skip_space();
        let path = word.text;
        if path.is_empty() || word.has_wildcard || Path::parse(&path).is_err() {
            return Err(self.error_at(
                started,
                "a path is missing here",
                "write _exists_:user.name or user.name:*",
            ));
        }
        Ok(SearchExpr::Clause {
            name: Some(path),
            matches: Match::Exists,
        })
    }

    fn check_value_start(&self) -> Result<(), Problem> {
        match self.rest().chars().next() {
            Some(':') => Err(self.error(
                "unexpected :",
                "put a value that begins with a colon in quotes: ip:\"::1\"",
            )),
            Some(sign @ ('!' | '^' | '~')) => Err(self.error(
                &format!("unexpected {sign}"),
                "NOT or - before a clause negates it; put literal text in quotes",
            )),
            _ => Ok(()),
        }
    }

    fn check_value_end(&self) -> Result<(), Problem> {
        match self.rest().chars().next() {
            Some(sign @ ('~' | '^')) => Err(self.error(
                &format!("unexpected {sign}"),
                "write word~1, \"a phrase\"~2 or word^2; put literal text in quotes",
            )),
            Some(c) if !c.is_whitespace() && !matches!(c, '(' | ')') => {
                Err(self.error("a space is missing here", "put literal text in quotes"))
            }
            _ => Ok(()),
        }
    }

    /// `path:` before a value, spelled as in SQL.
    fn name(&mut self) -> Option<String> {
        let rest = self.rest();
        if !rest.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '@' | '"')) {
            return None;
        }
        let mut quoted = false;
        let end = rest.char_indices().find(|(_, c)| {
            quoted ^= *c == '"';
            !quoted && (*c == ':' || c.is_whitespace() || matches!(c, '(' | ')' | '{' | '}' | '*' | '\\' | '<' | '>'))
        });
        let (end, _) = end.filter(|(_, c)| *c == ':')?;
        let name = &rest[..end];
        // `http://…` is a word.
        if rest[end + 1..].starts_with("//") || Path::parse(name).is_err() {
            return None;
        }
        self.at += end + 1;
        Some(name.to_owned())
    }

    /// The test of a value; None if it has no token to search for.
    fn value(&mut self) -> Result<Option<Match>, Problem> {
        match self.rest().chars().next() {
            None => Ok(None),
            Some('"') => self.quoted().map(|text| Some(Match::Words(text)).filter(has_token)),
            Some('[' | '{') => self.range().map(Some),
            Some('<' | '>') => self.comparison(),
            Some('/') if let Some(end) = self.regex_end() => self.regex(end).map(Some),
            Some(_) => self.word(),
        }
    }

    fn quoted(&mut self) -> Result<String, Problem> {
        let opened = self.at;
        let mut text = String::new();
        let mut chars = self.rest().char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += i + 1;
                    return Ok(text);
                }
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                c => text.push(c),
            }
        }
        Err(self.error_at(
            opened,
            "a quote is not closed",
            "close it, or write \\\" for a quote itself",
        ))
    }

    /// An unquoted word up to white space, a parenthesis or a suffix.
    fn bare(&mut self, stops: &[char]) -> BareWord {
        let mut word = BareWord {
            text: String::new(),
            pattern: String::new(),
            has_wildcard: false,
        };
        let rest = self.rest();
        let mut chars = rest.char_indices();
        let (mut end, mut is_url) = (rest.len(), false);
        while let Some((i, c)) = chars.next() {
            match c {
                c if c.is_whitespace() || matches!(c, '(' | ')' | '"') || stops.contains(&c) => {
                    end = i;
                    break;
                }
                '~' | '^' if i > 0 && !is_url && stops.is_empty() => {
                    end = i;
                    break;
                }
                '\\' => {
                    if let Some((_, literal)) = chars.next() {
                        word.push(literal);
                    }
                }
                '*' | '?' if !(is_url && c == '?') && (c == '*' || stops.is_empty()) => {
                    word.pattern.push(c);
                    word.has_wildcard = true;
                }
                c => {
                    is_url |= c == '/' && word.text.ends_with('/');
                    word.push(c);
                }
            }
        }
        self.at += end;
        word
    }

    fn word(&mut self) -> Result<Option<Match>, Problem> {
        let started = self.at;
        let word = self.bare(&[]);
        if word.is_star() {
            return Ok(Some(Match::Exists));
        }
        let is_prefix = word.has_wildcard
            && word.pattern.strip_suffix('*') == Some(word.text.as_str())
            && word.text.chars().all(token::is_token_char);
        Ok(match word.has_wildcard {
            false => Some(Match::Words(word.text)).filter(has_token),
            true if is_prefix => Some(Match::Prefix(token::lower(&word.text).into_owned())),
            true => {
                // Each character is one state, and each wildcard another.
                self.count_pattern(word.pattern.len() as u64)?;
                if word.pattern.len() > PATTERN_BYTES_MAX || !matcher::is_wildcard(&word.pattern) {
                    let detail = format!("the pattern is too large; the limit is {PATTERN_BYTES_MAX} bytes");
                    return Err(self.error_at(started, &detail, "shorten it, or search for several"));
                }
                Some(Match::Wildcard(word.pattern))
            }
        })
    }

    /// Counts a pattern, which takes memory when it is compiled, and the states that it may be in, each of which takes time
    /// for each character that it reads.
    fn count_pattern(&mut self, states: u64) -> Result<(), Problem> {
        (self.patterns, self.states) = (self.patterns + 1, self.states.saturating_add(states));
        let detail = if self.patterns > PATTERNS_MAX {
            format!("the search has more than {PATTERNS_MAX} wildcards, regular expressions and words with ~")
        } else if self.states > PATTERN_STATES_MAX {
            let states = self.states;
            format!("the patterns of the search have {states} states; the limit is {PATTERN_STATES_MAX}")
        } else {
            return Ok(());
        };
        Err(Problem::new(Code::TooComplex, detail).hint("shorten it, or split it into several searches"))
    }

    /// Where the regular expression that begins here ends, if one does: `/api/v1` and `/wp-admin/` are words.
    fn regex_end(&self) -> Option<usize> {
        let rest = self.rest();
        let mut chars = rest.char_indices().skip(1);
        while let Some((i, c)) = chars.next() {
            match c {
                '\\' => drop(chars.next()),
                '/' => {
                    let after = rest[i + 1..].chars().next();
                    let ends = after.is_none_or(|c| c.is_whitespace() || matches!(c, ')' | '^' | '~'));
                    let is_regex = rest[1..i].contains(['*', '+', '?', '[', '(', '{', '|', '\\', '^', '$']);
                    return Some(i).filter(|_| ends && is_regex);
                }
                _ => {}
            }
        }
        None
    }

    fn regex(&mut self, end: usize) -> Result<Match, Problem> {
        let (started, rest) = (self.at, self.rest());
        let pattern = rest[1..end].replace("\\/", "/");
        self.at += end + 1;
        self.count_pattern(states(&pattern))?;
        if pattern.len() > PATTERN_BYTES_MAX {
            let detail = format!("the regular expression has more than {PATTERN_BYTES_MAX} bytes");
            return Err(self.error_at(started, &detail, "shorten it, or search for several"));
        }
        match matcher::regex(&pattern) {
            Ok(_) => Ok(Match::Regex(pattern)),
            Err(reason) => Err(self.error_at(
                started,
                &format!("this is not a regular expression: {reason}"),
                "write \\ before a character that means itself; put literal text in quotes",
            )),
        }
    }

    /// What is similar to a word, or near each other as a phrase: reads `~`, `~1`.
    fn approximate(&mut self, matches: Match, is_quoted: bool) -> Result<Match, Problem> {
        let started = self.at;
        self.at += 1;
        let number = self.number();
        let Match::Words(text) = matches else {
            return Err(self.error_at(started, "~ needs a word or a phrase", "write disk~1 or \"disk full\"~2"));
        };
        let tokens: Vec<String> = token::tokens(&text).map(|token| token.into_owned()).collect();
        if is_quoted {
            let slop = number.parse::<u32>().ok().filter(|slop| *slop <= SLOP_MAX);
            let slop = slop.ok_or_else(|| {
                let detail = format!("after a phrase, ~ needs a number of places up to {SLOP_MAX}");
                self.error_at(started, &detail, "write \"disk full\"~2")
            })?;
            if tokens.len() > NEAR_TOKENS_MAX {
                let detail = format!("a phrase with ~ has at most {NEAR_TOKENS_MAX} words");
                return Err(self.error_at(started, &detail, "remove the ~, or search for fewer words"));
            }
            return Ok(match slop {
                0 => Match::Words(text),
                slop => Match::Near { text, slop },
            });
        }
        let [token] = tokens.as_slice() else {
            let detail = format!("{text}~ is more than one word");
            return Err(self.error_at(started, &detail, "put a phrase in quotes, or write ~ behind each word"));
        };
        let changes = match (number.is_empty(), token.chars().count()) {
            (true, 0..=2) => Some(0),
            (true, 3..=5) => Some(1),
            (true, _) => Some(2),
            (false, _) => number.parse().ok().filter(|changes| *changes <= CHANGES_MAX),
        };
        match changes {
            Some(0) => Ok(Match::Words(text)),
            Some(_) if token.chars().count() > FUZZY_CHARS_MAX => {
                let detail = format!("a word with ~ has at most {FUZZY_CHARS_MAX} letters and digits");
                Err(self.error_at(started, &detail, "remove the ~, or search for a prefix"))
            }
            Some(changes) => self.count_pattern(0).map(|()| Match::Fuzzy {
                token: token.clone(),
                changes,
            }),
            None => Err(self.error_at(
                started,
                &format!("~ takes a number of changes up to {CHANGES_MAX}"),
                "write disk~1",
            )),
        }
    }

    /// Reads the weight behind a part: `^2`. Without one, it is 1.
    fn weight(&mut self) -> Result<f64, Problem> {
        if !self.rest().starts_with('^') {
            return Ok(1.0);
        }
        let started = self.at;
        self.at += 1;
        match self.number().parse::<f64>() {
            Ok(weight) if weight <= WEIGHT_MAX => Ok(weight),
            Ok(_) => Err(self.error_at(
                started,
                "a weight is at most 1000000",
                "write a smaller one, such as word^10",
            )),
            _ => Err(self.error_at(started, "^ needs a number", "write word^2; put literal text in quotes")),
        }
    }

    /// Reads digits with a decimal point.
    fn number(&mut self) -> &'a str {
        let rest = self.rest();
        let end = rest
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    /// What words at a path mean: a relative time, a network, or words. Words that are a date or a time also match that
    /// time however it is spelled, and a network in quotes its addresses. One of the tests must hold.
    fn at_path(&mut self, started: usize, name: &str, text: String, is_quoted: bool) -> Result<Vec<Match>, Problem> {
        if !is_quoted && text != "now" && relative_time::is_relative(&text) {
            self.is_relative = true;
            return Ok(vec![self.time(started, &text)?.into()]);
        }
        if relative_time::is_absolute(&text) {
            let time = self.time(started, &text)?.into();
            return Ok(vec![Match::Words(text), time]);
        }
        if is_like_network(&text) {
            return match (text.parse::<IpNet>(), is_quoted) {
                (Ok(_), false) => Ok(vec![Match::Network(text)]),
                (Ok(_), true) => Ok(vec![Match::Words(text.clone()), Match::Network(text)]),
                (Err(_), true) => Ok(vec![Match::Words(text)]),
                (Err(_), false) => Err(self.error_at(
                    started,
                    &format!("{text} is not a network"),
                    "write 10.0.0.0/8 or 2001:db8::/32; put literal text in quotes",
                )),
            };
        }
        let note = notes::of_words_at_path(name, &text, is_quoted);
        note.into_iter().for_each(|note| self.note(note));
        Ok(vec![Match::Words(text)])
    }

    /// Notes what may have meant something else.
    fn note(&mut self, note: String) {
        if self.notes.len() < NOTES_MAX && note.len() <= NOTE_BYTES_MAX && !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }
}

/// Whether a name is that of a time which every document has.
fn is_system_time(name: &str) -> bool {
    Column::system(name).is_some_and(|column| column.read_as.to == Type::Time)
}

/// Whether a text is an IP address with a number of bits, perhaps too many.
fn is_like_network(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        address.parse::<IpAddr>().is_ok()
            && (1..=3).contains(&bits.len())
            && bits.bytes().all(|bit| bit.is_ascii_digit())
    })
}

fn weighted(part: SearchExpr, weight: f64) -> SearchExpr {
    match weight {
        1.0 => part,
        weight => SearchExpr::Weighted(Box::new(part), weight),
    }
}

/// Whether this keyword is the next word.
fn is_keyword(rest: &str, word: &str) -> bool {
    rest.strip_prefix(word)
        .is_some_and(|after| !after.starts_with(|c: char| !c.is_whitespace() && c != '(' && c != ')'))
}

fn has_token(matches: &Match) -> bool {
    match matches {
        Match::Words(text) => text.chars().any(token::is_token_char),
        _ => true,
    }
}
