//! Splits SQL text into tokens and enforces limits. All later stages recurse (parser, resolver, planner, drop), so
//! depth is limited here, where nothing recurses.
//!
//! The pass also makes words that occur in documents usable as names: `user.name`, `@timestamp`, `price@2`, `interval`
//! as a field, any word after a dot. The parser's dialect would read them as a function, an absolute value, an operator
//! or a literal.

mod asof;
mod limits;

use datafusion::sql::sqlparser::{
    keywords::Keyword,
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
};
use proto::{Code, Problem};

use self::asof::with_asof_joins;
use super::{StatementText, dialect::RachisDialect};
use crate::typing::TIME_UNITS;

/// Tokens of one statement, not counting the lists of literals after IN.
pub(super) const TOKENS_MAX: usize = 50_000;
/// Literals in all lists after IN of one statement.
const LIST_LITERALS_MAX: usize = 150_000;

/// A name before an `@` is joined with what follows if it is not longer: `a@a@a…` is copied for each `@`.
const JOINED_BYTES_MAX: usize = 512;

/// The tokens of one statement, without white space, comments and the final semicolon.
#[derive(Clone)]
pub(super) struct Tokens {
    /// The tokens in order, with their positions.
    pub all: Vec<TokenWithSpan>,
}

impl Tokens {
    /// The unquoted word at this index, in upper case; empty if the token is anything else.
    pub(super) fn word(&self, index: usize) -> String {
        match self.all.get(index).map(|t| &t.token) {
            Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
            _ => String::new(),
        }
    }

    /// Whether the tokens from this index are these words.
    pub(super) fn words(&self, index: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| self.word(index + i) == *word)
    }

    /// The statement's text from a token on, with `?` for every value, and without comments.
    pub(super) fn text_without_values(&self, sql: &str, from: usize) -> String {
        let (mut offsets, mut text, mut end) = (Offsets::new(sql), String::new(), None);
        for TokenWithSpan { token, span } in self.all.get(from..).unwrap_or_default() {
            let start = offsets.of(span.start);
            if end.is_some_and(|end| end < start) {
                text.push(' ');
            }
            let token_end = offsets.of(span.end);
            match is_value(token) {
                true => text.push('?'),
                false => text.push_str(&sql[start..token_end]),
            }
            end = Some(token_end);
        }
        text
    }

    /// The statement's text from a token to before another one.
    pub(super) fn text_between<'a>(&self, sql: &'a str, from: usize, until: usize) -> &'a str {
        let tokens = self.all.get(from..until).unwrap_or_default();
        match (tokens.first(), tokens.last()) {
            (Some(first), Some(last)) => {
                let mut offsets = Offsets::new(sql);
                let start = offsets.of(first.span.start);
                &sql[start..offsets.of(last.span.end)]
            }
            _ => "",
        }
    }
}

/// Whether a token is a number or a text.
fn is_value(token: &Token) -> bool {
    matches!(
        token,
        Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::DoubleQuotedString(_)
            | Token::TripleSingleQuotedString(_)
            | Token::TripleDoubleQuotedString(_)
            | Token::DollarQuotedString(_)
            | Token::SingleQuotedByteStringLiteral(_)
            | Token::DoubleQuotedByteStringLiteral(_)
            | Token::SingleQuotedRawStringLiteral(_)
            | Token::DoubleQuotedRawStringLiteral(_)
            | Token::NationalStringLiteral(_)
            | Token::EscapedStringLiteral(_)
            | Token::UnicodeStringLiteral(_)
            | Token::HexStringLiteral(_)
    )
}

/// Splits a statement into tokens and checks all limits.
pub(super) fn tokenize(sql: &str, statement_bytes_max: usize) -> Result<Tokens, Problem> {
    if sql.len() > statement_bytes_max {
        return Err(too_complex(
            format!("the statement is too long: {} bytes", sql.len()),
            format!("the limit is {statement_bytes_max} bytes"),
        ));
    }
    let mut raw = Vec::new();
    Tokenizer::new(&RachisDialect::for_tokenizer(), sql)
        .tokenize_with_location_into_buf(&mut raw)
        .map_err(|e| {
            Problem::new(Code::BadSql, format!("cannot parse the statement: {}", e.message))
                .at(e.location.line, e.location.column)
        })?;
    let mut all = significant(raw);
    while all
        .last()
        .is_some_and(|t| matches!(t.token, Token::SemiColon | Token::EOF))
    {
        all.pop();
    }
    check_count(&all)?;
    if let Some(stray) = all.iter().find(|t| matches!(t.token, Token::SemiColon)) {
        return Err(Problem::new(Code::BadSql, "the request has more than one statement")
            .hint("send one statement at a time")
            .at(stray.span.start.line, stray.span.start.column));
    }
    limits::check_limits(&all)?;
    quote_names(&mut all);
    Ok(Tokens {
        all: with_asof_joins(with_parameters_last(with_distinct_operators(all))),
    })
}

/// See [`super::texts`].
pub(super) fn texts(sql: &str) -> Option<Vec<StatementText>> {
    let mut raw = Vec::new();
    Tokenizer::new(&RachisDialect::for_tokenizer(), sql)
        .tokenize_with_location_into_buf(&mut raw)
        .ok()?;
    let all: Vec<&TokenWithSpan> = (raw.iter())
        .filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF))
        .collect();
    let is_text = |token: &Token| matches!(token, Token::SingleQuotedString(_) | Token::Placeholder(_));
    let (mut offsets, mut texts, mut list) = (Offsets::new(sql), Vec::new(), InList::default());
    for (index, token) in all.iter().enumerate() {
        let (before, next) = (index.checked_sub(1).map(|i| &all[i].token), all.get(index + 1));
        let in_list = list.contains(&token.token);
        if !is_text(&token.token) {
            continue;
        }
        let begins_operand = match before {
            Some(Token::Eq | Token::Neq) => true,
            Some(Token::LParen | Token::Comma) => in_list,
            _ => false,
        };
        texts.push(StatementText {
            is_compared: begins_operand && ends_operand(next.map(|token| &token.token)),
            span: offsets.of(token.span.start)..offsets.of(token.span.end),
            start: token.span.start,
            parameter: match &token.token {
                Token::Placeholder(name) => Some(name.clone()),
                _ => None,
            },
            text: match &token.token {
                Token::SingleQuotedString(text) => text.clone(),
                _ => String::new(),
            },
        });
    }
    Some(texts)
}

/// Finds the lists of literals after IN, one token after the other.
#[derive(Default)]
struct InList {
    after_in: bool,
    inside: bool,
}

impl InList {
    /// Whether the next token is inside such a list, and so are all tokens since its parenthesis.
    fn contains(&mut self, token: &Token) -> bool {
        self.inside = match token {
            Token::LParen => self.after_in,
            Token::SingleQuotedString(_) | Token::Placeholder(_) | Token::Number(..) => self.inside,
            Token::Comma | Token::Minus => self.inside,
            _ => false,
        };
        self.after_in = matches!(token, Token::Word(word) if word.keyword == Keyword::IN && word.quote_style.is_none());
        self.inside
    }
}

/// Checks the number of tokens.
fn check_count(all: &[TokenWithSpan]) -> Result<(), Problem> {
    let (mut tokens, mut literals, mut list) = (0, 0, InList::default());
    for token in all {
        match (list.contains(&token.token), &token.token) {
            (true, Token::Comma | Token::LParen | Token::Minus) => {}
            (true, _) => literals += 1,
            (false, _) => tokens += 1,
        }
    }
    if tokens > TOKENS_MAX {
        return Err(too_complex(
            format!("the statement is too long: {tokens} tokens"),
            format!("the limit is {TOKENS_MAX} tokens; lists of literals after IN do not count"),
        ));
    }
    if literals > LIST_LITERALS_MAX {
        return Err(too_complex(
            format!("the statement has {literals} literals in lists after IN"),
            format!("the limit is {LIST_LITERALS_MAX}; push the list as documents and join with them"),
        ));
    }
    Ok(())
}

/// Whether an operand before this token is complete.
fn ends_operand(next: Option<&Token>) -> bool {
    match next {
        None | Some(Token::SemiColon | Token::RParen | Token::Comma) => true,
        Some(Token::Word(word)) => {
            let ends = [
                Keyword::AND,
                Keyword::OR,
                Keyword::GROUP,
                Keyword::ORDER,
                Keyword::LIMIT,
            ];
            word.quote_style.is_none() && ends.contains(&word.keyword)
        }
        _ => false,
    }
}

fn too_complex(detail: String, hint: String) -> Problem {
    Problem::new(Code::TooComplex, detail).hint(hint)
}

/// Drops white space and comments, and joins names with `@` if they touch it: `@timestamp`, `price@2`.
fn significant(raw: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut all: Vec<TokenWithSpan> = Vec::with_capacity(raw.len());
    let mut raw = raw.into_iter().peekable();
    while let Some(token) = raw.next() {
        match &token.token {
            Token::Whitespace(_) => {}
            Token::AtSign => match raw.peek().and_then(|next| name_after_at(&token, next)) {
                None => all.push(token),
                Some(name) => {
                    let end = raw.next().map_or(token.span.end, |next| next.span.end);
                    // In `price@1.x` the dot is of the path.
                    let version = name.strip_suffix('.');
                    let joined = joined_with_at(&mut all, &token, version.unwrap_or(&name), end);
                    let span = joined.span;
                    all.push(joined);
                    if version.is_some() {
                        all.push(TokenWithSpan {
                            token: Token::Period,
                            span,
                        });
                    }
                }
            },
            // `a>-1`: no SQL operator ends in a sign.
            Token::CustomBinaryOperator(op) => match split_signed_comparison(op) {
                Some((comparison, sign)) => {
                    let span = token.span;
                    all.extend([comparison, sign].map(|token| TokenWithSpan { token, span }));
                }
                None => all.push(token),
            },
            _ => all.push(token),
        }
    }
    all
}

/// The text of an unquoted word or a number that directly follows an `@`.
fn name_after_at(at: &TokenWithSpan, next: &TokenWithSpan) -> Option<String> {
    if next.span.start != at.span.end {
        return None;
    }
    match &next.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.clone()),
        Token::Number(digits, false) => Some(digits.clone()),
        _ => None,
    }
}

/// A quoted word of `@` and the name after it. If a word directly precedes the `@`, it is removed from `all` and
/// becomes the beginning of the new word.
fn joined_with_at(all: &mut Vec<TokenWithSpan>, at: &TokenWithSpan, name: &str, end: Location) -> TokenWithSpan {
    let before = all
        .last()
        .filter(|last| last.span.end == at.span.start)
        .and_then(|last| match &last.token {
            Token::Word(word) if word.value.len() <= JOINED_BYTES_MAX => Some(word.value.clone()),
            _ => None,
        });
    let mut start = at.span.start;
    if before.is_some() {
        start = all.pop().map_or(start, |last| last.span.start);
    }
    let name = format!("{}@{name}", before.unwrap_or_default());
    TokenWithSpan {
        token: Token::make_word(&name, Some('"')),
        span: datafusion::sql::sqlparser::tokenizer::Span::new(start, end),
    }
}

/// Splits a comparison from the sign of the number after it, for `a>-1` without a space.
fn split_signed_comparison(op: &str) -> Option<(Token, Token)> {
    let (comparison, sign) = match op.strip_suffix('-') {
        Some(comparison) => (comparison, Token::Minus),
        None => (op.strip_suffix('+')?, Token::Plus),
    };
    let comparison = match comparison {
        "=" => Token::Eq,
        "<" => Token::Lt,
        ">" => Token::Gt,
        "<=" => Token::LtEq,
        ">=" => Token::GtEq,
        "<>" | "!=" => Token::Neq,
        _ => return None,
    };
    Some((comparison, sign))
}

/// Quotes keywords of the dialect that are names in their position.
fn quote_names(all: &mut [TokenWithSpan]) {
    for i in 0..all.len() {
        let after_dot = i > 0 && matches!(all[i - 1].token, Token::Period);
        // A type follows, not a name.
        let after_cast = i > 0
            && (matches!(all[i - 1].token, Token::DoubleColon)
                || matches!(&all[i - 1].token, Token::Word(w) if w.keyword == Keyword::AS));
        let next = all.get(i + 1).map(|t| t.token.clone());
        let dot = matches!(next, Some(Token::Period));
        // In CURRENT ROW, the bound of a window frame, ROW stays a keyword.
        let after_current =
            i > 0 && matches!(&all[i - 1].token, Token::Word(w) if w.value.eq_ignore_ascii_case("current"));
        let counts_units = is_interval_of_number(&all[i..]);
        let Token::Word(word) = &mut all[i].token else { continue };
        if word.quote_style.is_some()
            || word.keyword == Keyword::NoKeyword
            || (after_current && word.keyword == Keyword::ROW)
        {
            continue;
        }
        if !counts_units && (after_dot || dot || (!after_cast && is_name_here(word.keyword, next.as_ref()))) {
            word.quote_style = Some('"');
            word.keyword = Keyword::NoKeyword;
        }
    }
}

/// Whether these tokens begin with `INTERVAL 2 HOURS`.
fn is_interval_of_number(tokens: &[TokenWithSpan]) -> bool {
    let is_unit = |unit: &str| {
        let unit = unit.to_ascii_lowercase();
        let unit = unit.strip_suffix('s').unwrap_or(&unit);
        TIME_UNITS.contains(&unit)
    };
    matches!(
        tokens,
        [
            TokenWithSpan { token: Token::Word(interval), .. },
            TokenWithSpan { token: Token::Number(..), .. },
            TokenWithSpan { token: Token::Word(unit), .. },
            ..
        ] if interval.keyword == Keyword::INTERVAL && is_unit(&unit.value)
    )
}

/// Replaces `IS [NOT] DISTINCT FROM` with a custom operator. The parser would take everything after it as its right
/// side, including AND and OR.
fn with_distinct_operators(all: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is = |index: usize, keyword: Keyword| {
        let token = all.get(index).map(|t| &t.token);
        matches!(token, Some(Token::Word(word)) if word.keyword == keyword)
    };
    let (mut out, mut index) = (Vec::with_capacity(all.len()), 0);
    while let Some(token) = all.get(index) {
        let not = usize::from(is(index + 1, Keyword::NOT));
        if is(index, Keyword::IS) && is(index + 1 + not, Keyword::DISTINCT) && is(index + 2 + not, Keyword::FROM) {
            let name = if not == 1 { "is_not_distinct" } else { "is_distinct" };
            let tokens = [
                Token::make_keyword("OPERATOR"),
                Token::LParen,
                Token::make_word(name, None),
                Token::RParen,
            ];
            out.extend(tokens.map(|new| TokenWithSpan {
                token: new,
                span: token.span,
            }));
            index += 3 + not;
        } else {
            out.push(token.clone());
            index += 1;
        }
    }
    out
}

/// Moves the parameters of an aggregate, as ClickHouse writes them, behind its arguments: `f(0.9)(x)` becomes `f(x, 0.9)`.
/// ClickHouse's `quantile` interpolates and DuckDB's does not, so `quantile(0.9)(x)` becomes `quantile_cont(x, 0.9)`.
fn with_parameters_last(mut all: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let (mut depth, mut parameters) = (0_usize, Vec::new());
    let mut out = Vec::with_capacity(all.len());
    let mut rest = all.drain(..).peekable();
    while let Some(token) = rest.next() {
        match token.token {
            Token::LParen => depth += 1,
            Token::RParen => {
                if let Some((_, parameter)) = parameters.pop_if(|(closes_at, _)| *closes_at == depth) {
                    let comma = TokenWithSpan {
                        token: Token::Comma,
                        span: token.span,
                    };
                    out.extend([comma, parameter]);
                }
                depth = depth.saturating_sub(1);
            }
            _ => {}
        }
        out.push(token);
        let is_next_open = matches!(
            rest.peek(),
            Some(TokenWithSpan {
                token: Token::LParen,
                ..
            })
        );
        if let [.., name, open, parameter, close] = out.as_mut_slice()
            && is_next_open
            && let Token::Word(word) = &mut name.token
            && word.keyword == Keyword::NoKeyword
            && open.token == Token::LParen
            && matches!(parameter.token, Token::Number(..) | Token::SingleQuotedString(_))
            && close.token == Token::RParen
        {
            if word.value.eq_ignore_ascii_case("quantile") {
                word.value = "quantile_cont".into();
            }
            parameters.push((depth + 1, parameter.clone()));
            out.truncate(out.len() - 3);
        }
    }
    out
}

/// Whether a keyword is a plain name, given the token after it.
fn is_name_here(keyword: Keyword, next: Option<&Token>) -> bool {
    let string = matches!(
        next,
        Some(
            Token::SingleQuotedString(_)
                | Token::EscapedStringLiteral(_)
                | Token::UnicodeStringLiteral(_)
                | Token::DollarQuotedString(_)
                | Token::Placeholder(_)
        )
    );
    let paren = matches!(next, Some(Token::LParen));
    match keyword {
        Keyword::USER
        | Keyword::SESSION_USER
        | Keyword::CURRENT_USER
        | Keyword::CURRENT_ROLE
        | Keyword::CURRENT_CATALOG => true,
        Keyword::INTERVAL => !string,
        Keyword::DATE | Keyword::TIME | Keyword::TIMESTAMP | Keyword::TIMESTAMPTZ | Keyword::DATETIME => {
            !string && !paren && !matches!(next, Some(Token::Word(_)))
        }
        Keyword::ARRAY => !matches!(next, Some(Token::LBracket | Token::LParen)),
        Keyword::TRIM
        | Keyword::MAP
        | Keyword::STRUCT
        | Keyword::ROW
        | Keyword::POSITION
        | Keyword::SUBSTRING
        | Keyword::OVERLAY
        | Keyword::EXTRACT
        | Keyword::CEIL
        | Keyword::FLOOR
        | Keyword::CAST
        | Keyword::TRY_CAST
        | Keyword::CONVERT
        | Keyword::TUPLE
        | Keyword::CUBE
        | Keyword::ROLLUP
        | Keyword::LOCALTIME
        | Keyword::MATCH => !paren,
        _ => false,
    }
}

/// Finds the byte offsets of places in a text. It reads the text once, so the places must come in their order.
struct Offsets<'a> {
    rest: std::iter::Peekable<std::str::CharIndices<'a>>,
    /// The place of the next character.
    next: Location,
    end: usize,
}

impl<'a> Offsets<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text.char_indices().peekable(),
            next: Location::new(1, 1),
            end: text.len(),
        }
    }

    fn of(&mut self, place: Location) -> usize {
        while let Some(&(offset, c)) = self.rest.peek() {
            if self.next >= place {
                return offset;
            }
            self.rest.next();
            match c {
                '\n' => self.next = Location::new(self.next.line + 1, 1),
                _ => self.next.column += 1,
            }
        }
        self.end
    }
}
