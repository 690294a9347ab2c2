//! Parses the text of a search into a [`SearchExpr`].

use std::{net::IpAddr, ops::Range};

use proto::{Code, Problem};

use super::{CLAUSES_MAX, Match, RangeBound, SEARCH_DEPTH_MAX, SearchExpr};
use crate::{path::Path, token};

/// The name before a path that must have a value.
const EXISTS: &str = "_exists_";

/// A recursive-descent parser. Every step consumes some text, so it terminates.
pub(super) struct Parser<'a> {
    text: &'a str,
    at: usize,
    clauses: usize,
    depth: usize,
    /// The tests of the clauses, in their order, and where each is in the text.
    pub(super) tests: Vec<(Range<usize>, Match)>,
}

impl<'a> Parser<'a> {
    /// A parser at the beginning of a text.
    pub(super) fn new(text: &'a str) -> Self {
        Self {
            text,
            at: 0,
            clauses: 0,
            depth: 0,
            tests: Vec::new(),
        }
    }

    /// Parses the whole text.
    pub(super) fn parse(&mut self) -> Result<SearchExpr, Problem> {
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
        if (signed(self.rest(), '-') && name.is_none()) || signed(self.rest(), '!') {
            self.at += 1;
            return self
                .nested(|parser| parser.part(name))
                .map(|part| SearchExpr::Not(Box::new(part)));
        }
        if signed(self.rest(), '+') && name.is_none() {
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
        self.skip_space();
        Ok(query)
    }

    fn clause(&mut self, name: Option<&str>) -> Result<SearchExpr, Problem> {
        self.clauses += 1;
        if self.clauses > CLAUSES_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("the search has more than {CLAUSES_MAX} clauses"),
            )
            .hint("split it into several searches"));
        }
        if self.rest().starts_with("*:*") {
            self.at += "*:*".len();
            self.check_value_end()?;
            self.skip_space();
            return Ok(SearchExpr::All);
        }
        let own = if name.is_none() { self.name() } else { None };
        if own.as_deref() == Some(EXISTS) {
            return self.existing();
        }
        if own.is_some() && self.rest().starts_with('(') {
            return self.group(own.as_deref());
        }
        let name = own.or(name.map(str::to_owned));
        let started = self.at;
        self.check_value_start()?;
        let is_quoted = self.rest().starts_with('"');
        let matches = self.value()?;
        self.check_value_end()?;
        if let (Some(name), Some(Match::Words(text)), false) = (&name, &matches, is_quoted) {
            self.refuse_network(started, name, text)?;
            if text != "now" {
                self.refuse_relative_time(started, text)?;
            }
        }
        let ended = self.at;
        self.skip_space();
        match (name, matches) {
            (None, Some(Match::Exists)) => Ok(SearchExpr::All),
            (None, Some(Match::Range { .. })) => {
                Err(self.error_at(started, "a range needs a path", "write path:[1 TO 9] or path:>3"))
            }
            (name, Some(matches)) => {
                self.tests.push((started..ended, matches.clone()));
                Ok(SearchExpr::Clause { name, matches })
            }
            (_, None) => Err(self.error_at(
                started,
                "there is nothing to search for here",
                "a word needs a letter or a digit",
            )),
        }
    }

    /// The path after `_exists_:`.
    fn existing(&mut self) -> Result<SearchExpr, Problem> {
        let started = self.at;
        let (path, _) = self.bare(&[])?;
        self.skip_space();
        if path.is_empty() || Path::parse(&path).is_err() {
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
            Some(sign @ ('!' | ':' | '^' | '~')) => Err(self.error(
                &format!("unexpected {sign}"),
                "NOT or - before a clause negates it; put literal text in quotes",
            )),
            _ => Ok(()),
        }
    }

    fn check_value_end(&self) -> Result<(), Problem> {
        match self.rest().chars().next() {
            Some('~' | '^') => Err(self.error(
                "fuzzy matching (~) and boosting (^) are not supported",
                "remove ~ and ^",
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

    /// An unquoted word up to white space or a parenthesis, and whether a `*` ended it.
    fn bare(&mut self, stops: &[char]) -> Result<(String, bool), Problem> {
        let (mut text, mut star, started) = (String::new(), false, self.at);
        let rest = self.rest();
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((i, c)) = chars.next() {
            if star && !(c.is_whitespace() || matches!(c, '(' | ')') || stops.contains(&c)) {
                return Err(self.error_at(
                    started,
                    "* is only allowed at the end of a word",
                    "disk* matches a prefix; for other patterns use LIKE or regular expressions in SQL",
                ));
            }
            match c {
                c if c.is_whitespace() || matches!(c, '(' | ')' | '"') || stops.contains(&c) => {
                    end = i;
                    break;
                }
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                '?' | '~' | '^' if !text.contains("//") && stops.is_empty() => {
                    let hint = "wildcards, fuzzy matching and boosting are not supported; disk* matches a prefix; \
                                put literal text in quotes";
                    return Err(self.error_at(started + i, &format!("{c} is not supported in a word"), hint));
                }
                '*' => star = true,
                c => text.push(c),
            }
        }
        self.at += end;
        Ok((text, star))
    }

    fn word(&mut self) -> Result<Option<Match>, Problem> {
        let started = self.at;
        match self.bare(&[])? {
            (text, true) if text.is_empty() => Ok(Some(Match::Exists)),
            (text, true) if text.chars().all(token::is_token_char) => {
                Ok(Some(Match::Prefix(token::lower(&text).into_owned())))
            }
            (text, true) => {
                let detail = format!("{text}* is more than one word");
                Err(self.error_at(
                    started,
                    &detail,
                    "a prefix consists of letters and digits; separate the words before it with spaces",
                ))
            }
            (text, false) => Ok(Some(Match::Words(text)).filter(has_token)),
        }
    }

    /// A relative time would be compared as a text.
    fn refuse_relative_time(&self, at: usize, text: &str) -> Result<(), Problem> {
        if !is_relative_time(text) {
            return Ok(());
        }
        Err(self.error_at(
            at,
            &format!("relative times such as {text} are not supported in a search"),
            "write the time itself, for example [\"2026-01-31T08:00:00Z\" TO *]; SQL has now() - INTERVAL '1 hour'; put \
             the text in quotes to search for it",
        ))
    }

    /// A network would be looked up as words.
    fn refuse_network(&self, at: usize, name: &str, text: &str) -> Result<(), Problem> {
        if !is_network(text) {
            return Ok(());
        }
        Err(self.error_at(
            at,
            &format!("{name}:{text}: networks of IP addresses are not supported"),
            "write a range of texts or a prefix in SQL, for example LIKE '10.0.%'; put the text in quotes to search for it",
        ))
    }

    fn comparison(&mut self) -> Result<Option<Match>, Problem> {
        let started = self.at;
        let below = self.rest().starts_with('<');
        self.at += 1;
        let inclusive = self.rest().starts_with('=');
        self.at += usize::from(inclusive);
        let value = match self.rest().starts_with('"') {
            true => self.quoted()?,
            false => {
                let (value, _) = self.bare(&[])?;
                self.refuse_relative_time(started, &value)?;
                value
            }
        };
        if value.is_empty() {
            return Err(self.error_at(
                started,
                "there is nothing to compare with",
                "write path:>3, without a space",
            ));
        }
        let limit = Some(RangeBound { value, inclusive });
        Ok(Some(if below {
            Match::Range { from: None, to: limit }
        } else {
            Match::Range { from: limit, to: None }
        }))
    }

    /// `[1 TO 9]`; `{` and `}` exclude the bound itself; `*` leaves a side unbounded.
    fn range(&mut self) -> Result<Match, Problem> {
        let opened = self.at;
        let hint = "write path:[1 TO 9], path:{1 TO 9} or path:[1 TO *]";
        let from_inclusive = self.rest().starts_with('[');
        self.at += 1;
        let from = self.bound()?;
        if !self.take_keyword("TO") {
            return Err(self.error_at(opened, "a range has no TO", hint));
        }
        let to = self.bound()?;
        let to_inclusive = match self.rest().chars().next() {
            Some(']') => true,
            Some('}') => false,
            _ => return Err(self.error_at(opened, "a range is not closed", hint)),
        };
        self.at += 1;
        let limit = |value: Option<String>, inclusive| value.map(|value| RangeBound { value, inclusive });
        Ok(Match::Range {
            from: limit(from, from_inclusive),
            to: limit(to, to_inclusive),
        })
    }

    fn bound(&mut self) -> Result<Option<String>, Problem> {
        self.skip_space();
        let started = self.at;
        let bound = match self.rest().starts_with('"') {
            true => Some(self.quoted()?),
            false => match self.bare(&[']', '}'])? {
                (text, true) if text.is_empty() => None,
                (text, false) if !text.is_empty() => {
                    self.refuse_relative_time(started, &text)?;
                    Some(text)
                }
                _ => {
                    return Err(self.error(
                        "a bound of the range is missing",
                        "write path:[1 TO 9]; * leaves a side unbounded",
                    ));
                }
            },
        };
        self.skip_space();
        Ok(bound)
    }
}

/// Whether a text is a time relative to another one, as other systems write it: `now`, `now-1h/d`, `2026-01-31||/M`.
fn is_relative_time(text: &str) -> bool {
    let steps = match (text.strip_prefix("now"), text.split_once("||")) {
        (Some(steps), _) => steps,
        (None, Some((_, steps))) => steps,
        (None, None) => return false,
    };
    let (mut rest, mut steps_seen) = (steps, 0);
    while let Some(step) = rest.strip_prefix(['+', '-', '/']) {
        let unit = step.trim_start_matches(|c: char| c.is_ascii_digit());
        let Some(after) = unit.strip_prefix(['y', 'M', 'w', 'd', 'h', 'H', 'm', 's']) else {
            return false;
        };
        (rest, steps_seen) = (after, steps_seen + 1);
    }
    rest.is_empty() && (steps_seen > 0 || text == "now")
}

/// Whether a text is a network of IP addresses: `10.0.0.0/16`, `2001:db8::/32`.
fn is_network(text: &str) -> bool {
    text.split_once('/').is_some_and(|(address, bits)| {
        address.parse::<IpAddr>().is_ok() && bits.len() <= 3 && bits.parse::<u8>().is_ok_and(|bits| bits <= 128)
    })
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
