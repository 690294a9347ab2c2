//! Search: what `q=` and `search('…')` say. A query is a tree of clauses; a clause is a boolean column of a scan, so a
//! search can stand wherever a condition can, and means the same by index and by raw document.
//!
//! Grammar: words, `"a phrase"`, `path:word`, `path:"a phrase"`, `path:pre*`, `path:[1 TO 9]`, `path:{1 TO 9}`,
//! `path:>3` (`>=`, `<`, `<=`), `path:*` (there is a value), `AND`, `OR`, `NOT`, `-`, `+`, parentheses. Two clauses
//! side by side must both match.
//!
//! What a clause means, for one value of a document: `Words` is split into tokens (runs of letters and digits,
//! lower-cased), which must stand side by side in the tokens of a string; where the text is a number it also equals
//! that number, where it is `true` or `false` that boolean. A document matches where any value does, inside arrays too:
//! at the clause's path or, without one, anywhere.

use proto::{Code, Problem};
use serde::{Deserialize, Serialize};

use crate::{path::Path, token};

/// One condition of a search.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Clause {
    /// Where; anywhere, if none.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "in")]
    pub path: Option<Path>,
    /// What.
    #[serde(flatten)]
    pub matches: Match,
}

/// What a clause asks of a value.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Match {
    /// Its tokens side by side.
    Words(String),
    /// A token that begins so (lower-case letters and digits).
    Prefix(String),
    /// Between two bounds: as numbers where the bounds are numbers, as strings (whole, byte by byte) otherwise.
    Range {
        /// The lower bound, if any.
        from: Option<Limit>,
        /// The upper bound, if any.
        to: Option<Limit>,
    },
    /// Any value but null.
    Exists,
}

/// A bound of a range.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Limit {
    /// As written.
    pub value: String,
    /// Whether the bound itself is in.
    pub inclusive: bool,
}

/// A search as written: paths are names that the resolver still has to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Query {
    /// Everything (`*`, or nothing written).
    All,
    /// All of them.
    And(Vec<Query>),
    /// At least one.
    Or(Vec<Query>),
    /// Not this.
    Not(Box<Query>),
    /// A condition.
    Clause {
        /// The name before the colon.
        name: Option<String>,
        /// What is asked of its values.
        matches: Match,
    },
}

/// Bytes of one search.
pub const SEARCH_BYTES_MAX: usize = 64 << 10;
/// Clauses of one search.
pub const CLAUSES_MAX: usize = 1_024;
/// Parentheses and negations inside one another.
pub const SEARCH_DEPTH_MAX: usize = 50;

/// Reads a search.
pub fn parse(text: &str) -> Result<Query, Problem> {
    if text.len() > SEARCH_BYTES_MAX {
        return Err(
            Problem::new(Code::TooComplex, format!("a search of {} bytes", text.len()))
                .hint(format!("the limit is {SEARCH_BYTES_MAX} bytes")),
        );
    }
    let mut parser = Parser {
        text,
        at: 0,
        clauses: 0,
        depth: 0,
    };
    parser.skip_space();
    if parser.rest().is_empty() {
        return Ok(Query::All);
    }
    let query = parser.any_of(None)?;
    match parser.rest().chars().next() {
        None => Ok(query),
        Some(')') => Err(parser.wrong(
            "a parenthesis is closed that was not opened",
            "take it away, or put it in quotes",
        )),
        Some(c) => Err(parser.wrong(
            &format!("{c:?} is not expected here"),
            "put what is meant literally in quotes",
        )),
    }
}

/// A recursive descent; every step takes something from the text, so it ends.
struct Parser<'a> {
    text: &'a str,
    at: usize,
    clauses: usize,
    depth: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_space(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn wrong(&self, detail: &str, hint: &str) -> Problem {
        self.wrong_at(self.at, detail, hint)
    }

    fn wrong_at(&self, at: usize, detail: &str, hint: &str) -> Problem {
        let before = &self.text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
        Problem::new(Code::BadRequest, detail)
            .hint(hint)
            .at(line as u64, column as u64)
    }

    /// Takes a capital word if it stands here alone.
    fn take_word(&mut self, word: &str) -> bool {
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

    fn deeper<T>(&mut self, inside: impl FnOnce(&mut Self) -> Result<T, Problem>) -> Result<T, Problem> {
        self.depth += 1;
        if self.depth > SEARCH_DEPTH_MAX {
            return Err(Problem::new(
                Code::TooComplex,
                format!("a search over {SEARCH_DEPTH_MAX} levels deep"),
            )
            .hint("write it without so many parentheses"));
        }
        let result = inside(self);
        self.depth -= 1;
        result
    }

    /// Parts joined by OR.
    fn any_of(&mut self, name: Option<&str>) -> Result<Query, Problem> {
        let mut parts = vec![self.all_of(name)?];
        while self.take_word("OR") {
            parts.push(self.all_of(name)?);
        }
        Ok(if parts.len() == 1 {
            parts.remove(0)
        } else {
            Query::Or(parts)
        })
    }

    /// Parts side by side, or joined by AND.
    fn all_of(&mut self, name: Option<&str>) -> Result<Query, Problem> {
        let mut parts = vec![self.part(name)?];
        loop {
            if self.take_word("AND") {
                parts.push(self.part(name)?);
                continue;
            }
            let rest = self.rest();
            let ends = rest.is_empty() || rest.starts_with(')') || is_word(rest, "OR");
            if ends {
                return Ok(if parts.len() == 1 {
                    parts.remove(0)
                } else {
                    Query::And(parts)
                });
            }
            parts.push(self.part(name)?);
        }
    }

    /// A clause or a group, negated or not.
    fn part(&mut self, name: Option<&str>) -> Result<Query, Problem> {
        if is_word(self.rest(), "AND") || is_word(self.rest(), "OR") || self.rest().is_empty() {
            return Err(self.wrong(
                "something to search for is missing here",
                "AND and OR stand between two clauses; in quotes they are words",
            ));
        }
        if self.take_word("NOT") {
            return self
                .deeper(|parser| parser.part(name))
                .map(|part| Query::Not(Box::new(part)));
        }
        let signed = |rest: &str, sign: char| {
            rest.strip_prefix(sign)
                .is_some_and(|after| after.starts_with(|c: char| !c.is_whitespace()))
        };
        if signed(self.rest(), '-') && name.is_none() {
            self.at += 1;
            return self
                .deeper(|parser| parser.part(name))
                .map(|part| Query::Not(Box::new(part)));
        }
        if signed(self.rest(), '+') && name.is_none() {
            self.at += 1;
            return self.deeper(|parser| parser.part(name));
        }
        if self.rest().starts_with('(') {
            return self.group(name);
        }
        self.clause(name)
    }

    fn group(&mut self, name: Option<&str>) -> Result<Query, Problem> {
        let opened = self.at;
        self.at += 1;
        self.skip_space();
        let query = self.deeper(|parser| parser.any_of(name))?;
        if !self.rest().starts_with(')') {
            return Err(self.wrong_at(opened, "a parenthesis is not closed", "close it, or put it in quotes"));
        }
        self.at += 1;
        self.skip_space();
        Ok(query)
    }

    fn clause(&mut self, name: Option<&str>) -> Result<Query, Problem> {
        self.clauses += 1;
        if self.clauses > CLAUSES_MAX {
            return Err(
                Problem::new(Code::TooComplex, format!("a search of over {CLAUSES_MAX} clauses"))
                    .hint("ask in several searches"),
            );
        }
        let own = if name.is_none() { self.name() } else { None };
        if own.is_some() && self.rest().starts_with('(') {
            return self.group(own.as_deref());
        }
        let name = own.or(name.map(str::to_owned));
        let started = self.at;
        if let Some(sign) = self
            .rest()
            .chars()
            .next()
            .filter(|c| matches!(c, '!' | ':' | '^' | '~'))
        {
            return Err(self.wrong(
                &format!("{sign} is not expected here"),
                "NOT or - before a clause negates it; put what is meant literally in quotes",
            ));
        }
        let matches = self.value()?;
        if self.rest().starts_with(['~', '^']) {
            return Err(self.wrong(
                "words are matched as they are, without distance or weight",
                "leave ~ and ^ away",
            ));
        }
        if self.at < self.text.len()
            && !self
                .rest()
                .starts_with(|c: char| c.is_whitespace() || c == ')' || c == '(')
        {
            return Err(self.wrong("a space is missing here", "put what is meant literally in quotes"));
        }
        self.skip_space();
        match (name, matches) {
            (None, Some(Match::Exists)) => Ok(Query::All),
            (None, Some(Match::Range { .. })) => {
                Err(self.wrong_at(started, "a range does not say where", "write path:[1 TO 9] or path:>3"))
            }
            (name, Some(matches)) => Ok(Query::Clause { name, matches }),
            (_, None) => Err(self.wrong_at(
                started,
                "there is nothing to search for here",
                "a word has a letter or a digit",
            )),
        }
    }

    /// `path:` before a value, in the spelling that SQL takes.
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

    /// What is asked of a value; None where it has nothing to look for.
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
        Err(self.wrong_at(
            opened,
            "a quote is not closed",
            "close it, or write \\\" for a quote itself",
        ))
    }

    /// A bare word up to white space or a parenthesis; the flag says whether a `*` ended it.
    fn bare(&mut self, stops: &[char]) -> Result<(String, bool), Problem> {
        let (mut text, mut star, started) = (String::new(), false, self.at);
        let rest = self.rest();
        let mut chars = rest.char_indices();
        let mut end = rest.len();
        while let Some((i, c)) = chars.next() {
            if star && !(c.is_whitespace() || matches!(c, '(' | ')') || stops.contains(&c)) {
                return Err(self.wrong_at(
                    started,
                    "a * stands inside of a word",
                    "a * ends a prefix, as in disk*; in SQL, LIKE and regular expressions find more",
                ));
            }
            match c {
                c if c.is_whitespace() || matches!(c, '(' | ')' | '"') || stops.contains(&c) => {
                    end = i;
                    break;
                }
                '\\' => text.extend(chars.next().map(|(_, c)| c)),
                '?' | '~' | '^' if !text.contains("//") && stops.is_empty() => {
                    let hint = "words are matched as they are, without wildcards, distance or weight; disk* finds beginnings; in quotes it is text";
                    return Err(self.wrong_at(started + i, &format!("{c} is not offered in a word"), hint));
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
                Err(self.wrong_at(
                    started,
                    &detail,
                    "a prefix is of letters and digits; write the words before it apart",
                ))
            }
            (text, false) => Ok(Some(Match::Words(text)).filter(has_token)),
        }
    }

    fn comparison(&mut self) -> Result<Option<Match>, Problem> {
        let started = self.at;
        let below = self.rest().starts_with('<');
        self.at += 1;
        let inclusive = self.rest().starts_with('=');
        self.at += usize::from(inclusive);
        let value = match self.rest().starts_with('"') {
            true => self.quoted()?,
            false => self.bare(&[])?.0,
        };
        if value.is_empty() {
            return Err(self.wrong_at(
                started,
                "there is nothing to compare with",
                "write path:>3 without a space",
            ));
        }
        let limit = Some(Limit { value, inclusive });
        Ok(Some(if below {
            Match::Range { from: None, to: limit }
        } else {
            Match::Range { from: limit, to: None }
        }))
    }

    /// `[1 TO 9]`; `{` and `}` leave the bound itself out; `*` is no bound.
    fn range(&mut self) -> Result<Match, Problem> {
        let opened = self.at;
        let hint = "write path:[1 TO 9], path:{1 TO 9} or path:[1 TO *]";
        let from_inclusive = self.rest().starts_with('[');
        self.at += 1;
        let from = self.bound()?;
        if !self.take_word("TO") {
            return Err(self.wrong_at(opened, "a range has no TO", hint));
        }
        let to = self.bound()?;
        let to_inclusive = match self.rest().chars().next() {
            Some(']') => true,
            Some('}') => false,
            _ => return Err(self.wrong_at(opened, "a range is not closed", hint)),
        };
        self.at += 1;
        let limit = |value: Option<String>, inclusive| value.map(|value| Limit { value, inclusive });
        Ok(Match::Range {
            from: limit(from, from_inclusive),
            to: limit(to, to_inclusive),
        })
    }

    fn bound(&mut self) -> Result<Option<String>, Problem> {
        self.skip_space();
        let bound = match self.rest().starts_with('"') {
            true => Some(self.quoted()?),
            false => match self.bare(&[']', '}'])? {
                (text, true) if text.is_empty() => None,
                (text, false) if !text.is_empty() => Some(text),
                _ => return Err(self.wrong("a bound of the range is missing", "write path:[1 TO 9]; * is no bound")),
            },
        };
        self.skip_space();
        Ok(bound)
    }
}

/// Whether this capital word stands here alone.
fn is_word(rest: &str, word: &str) -> bool {
    rest.strip_prefix(word)
        .is_some_and(|after| !after.starts_with(|c: char| !c.is_whitespace() && c != '(' && c != ')'))
}

fn has_token(matches: &Match) -> bool {
    match matches {
        Match::Words(text) => text.chars().any(token::is_token_char),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A search in a spelling of its own, in which the structure shows.
    fn shown(query: &Query) -> String {
        let all = |parts: &[Query], op: &str| format!("({})", parts.iter().map(shown).collect::<Vec<_>>().join(op));
        match query {
            Query::All => "all".into(),
            Query::And(parts) => all(parts, " & "),
            Query::Or(parts) => all(parts, " | "),
            Query::Not(part) => format!("!{}", shown(part)),
            Query::Clause { name, matches } => {
                let name = name.as_ref().map_or(String::new(), |name| format!("{name}="));
                match matches {
                    Match::Words(text) => format!("{name}{text:?}"),
                    Match::Prefix(text) => format!("{name}{text}.."),
                    Match::Exists => format!("{name}exists"),
                    Match::Range { from, to } => {
                        let bound = |limit: &Option<Limit>| {
                            limit.as_ref().map_or("*".into(), |l| {
                                format!("{}{}", l.value, if l.inclusive { "=" } else { "" })
                            })
                        };
                        format!("{name}[{} {}]", bound(from), bound(to))
                    }
                }
            }
        }
    }

    fn read(text: &str) -> String {
        parse(text).map_or_else(|problem| format!("error: {}", problem.detail), |query| shown(&query))
    }

    #[test]
    fn searches_read_as_they_are_meant() {
        let table = [
            ("", "all"),
            ("  *  ", "all"),
            ("disk", "\"disk\""),
            ("disk full", "(\"disk\" & \"full\")"),
            ("\"disk full\"", "\"disk full\""),
            ("level:error AND \"disk full\"", "(level=\"error\" & \"disk full\")"),
            ("a OR b c", "(\"a\" | (\"b\" & \"c\"))"),
            ("(a OR b) c", "((\"a\" | \"b\") & \"c\")"),
            ("NOT a", "!\"a\""),
            ("-a +b", "(!\"a\" & \"b\")"),
            ("a -level:debug", "(\"a\" & !level=\"debug\")"),
            ("level:(error OR warn*)", "(level=\"error\" | level=warn..)"),
            ("ms:>3 ms:<=9.5", "(ms=[3 *] & ms=[* 9.5=])"),
            ("ms:[1 TO 9]", "ms=[1= 9=]"),
            ("ms:{1 TO 9]", "ms=[1 9=]"),
            ("ms:[* TO 9}", "ms=[* 9]"),
            ("t:[\"2026-01-01 08:00\" TO *]", "t=[2026-01-01 08:00= *]"),
            ("ms:-5", "ms=\"-5\""),
            ("user.name:*", "user.name=exists"),
            ("\"odd key\".x:1", "\"odd key\".x=\"1\""),
            ("items[0].sku:abc", "items[0].sku=\"abc\""),
            ("http://example.org", "\"http://example.org\""),
            ("12:30", "\"12:30\""),
            ("http://example.org/?a=b", "\"http://example.org/?a=b\""),
            ("\"what?\" di\\?k", "(\"what?\" & \"di?k\")"),
            ("and or not", "(\"and\" & \"or\" & \"not\")"),
            ("ORDER ANDROID", "(\"ORDER\" & \"ANDROID\")"),
            ("Disk*", "disk.."),
            ("a\\:b", "\"a:b\""),
            ("größe:5 😀a", "(größe=\"5\" & \"😀a\")"),
        ];
        for (text, expected) in table {
            assert_eq!(read(text), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused_with_a_place_and_a_hint() {
        let table = [
            ("a AND", "something to search for is missing here", 6),
            ("OR a", "something to search for is missing here", 1),
            ("(a", "a parenthesis is not closed", 1),
            ("a)", "a parenthesis is closed that was not opened", 2),
            ("x \"a", "a quote is not closed", 3),
            ("di*sk", "a * stands inside of a word", 1),
            ("a-b*", "a-b* is more than one word", 1),
            ("[1 TO 2]", "a range does not say where", 1),
            ("x:[1 2]", "a range has no TO", 3),
            ("x:[1 TO 2", "a range is not closed", 3),
            ("x:>", "there is nothing to compare with", 3),
            ("a --- b", "there is nothing to search for here", 5),
            ("!a", "! is not expected here", 1),
            ("a::b", ": is not expected here", 3),
            ("di?k", "? is not offered in a word", 3),
            ("disk~1", "~ is not offered in a word", 5),
            (
                "\"a b\"~2",
                "words are matched as they are, without distance or weight",
                6,
            ),
            ("level:", "there is nothing to search for here", 7),
        ];
        for (text, detail, column) in table {
            let problem = parse(text).expect_err(text);
            assert_eq!(
                (problem.detail.as_str(), problem.at),
                (detail, Some((1, column))),
                "{text}"
            );
            assert!(problem.hint.is_some(), "{text}");
        }
    }

    #[test]
    fn hostile_searches_end_quickly_in_a_problem() {
        let hostile = [
            "(".repeat(60_000),
            "NOT ".repeat(10_000) + "a",
            "-".repeat(60_000) + "a",
            "a ".repeat(20_000),
            "x".repeat(100_000),
            "\"".repeat(60_001),
        ];
        for text in hostile {
            let started = std::time::Instant::now();
            let read = parse(&text);
            assert!(read.is_err(), "{}…", &text[..20]);
            assert!(
                started.elapsed() < std::time::Duration::from_secs(2),
                "{}… took {:?}",
                &text[..20],
                started.elapsed()
            );
        }
    }
}
