//! Splits SQL text into tokens and enforces limits. All later stages recurse (parser, resolver, planner, drop), so
//! depth is limited here, where nothing recurses.
//!
//! The pass also makes words that occur in documents usable as names: `user.name`, `@timestamp`, `price@2`, `interval`
//! as a field, any word after a dot. The parser's dialect would read them as a function, an absolute value, an operator
//! or a literal.

mod limits;

use datafusion::sql::sqlparser::{
    keywords::Keyword,
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
};
use proto::{Code, Problem};

use super::{StatementText, dialect::RachisDialect};

/// Tokens of one statement.
pub(super) const TOKENS_MAX: usize = 50_000;

/// The tokens of one statement, without white space, comments and the final semicolon.
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

    /// The statement's text from this token through the last.
    pub(super) fn text_from<'a>(&self, sql: &'a str, index: usize) -> &'a str {
        match (self.all.get(index), self.all.last()) {
            (Some(first), Some(last)) => &sql[offset(sql, first.span.start)..offset(sql, last.span.end)],
            _ => "",
        }
    }
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
    Tokenizer::new(&RachisDialect, sql)
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
    if all.len() > TOKENS_MAX {
        return Err(too_complex(
            format!("the statement is too long: {} tokens", all.len()),
            format!("the limit is {TOKENS_MAX} tokens"),
        ));
    }
    if let Some(stray) = all.iter().find(|t| matches!(t.token, Token::SemiColon)) {
        return Err(Problem::new(Code::BadSql, "the request has more than one statement")
            .hint("send one statement at a time")
            .at(stray.span.start.line, stray.span.start.column));
    }
    limits::check_limits(&all)?;
    quote_names(&mut all);
    Ok(Tokens {
        all: with_distinct_operators(all),
    })
}

/// See [`super::texts`].
pub(super) fn texts(sql: &str) -> Option<Vec<StatementText>> {
    let mut raw = Vec::new();
    Tokenizer::new(&RachisDialect, sql)
        .tokenize_with_location_into_buf(&mut raw)
        .ok()?;
    let all: Vec<&TokenWithSpan> = (raw.iter())
        .filter(|token| !matches!(token.token, Token::Whitespace(_) | Token::EOF))
        .collect();
    let is_text = |token: &Token| matches!(token, Token::SingleQuotedString(_) | Token::Placeholder(_));
    let at = |index: usize| all.get(index).map(|token| &token.token);
    let mut texts = Vec::new();
    for (index, token) in all.iter().enumerate() {
        if !is_text(&token.token) {
            continue;
        }
        texts.push(StatementText {
            is_compared: ends_operand(at(index + 1)) && begins_operand(&all[..index]),
            span: offset(sql, token.span.start)..offset(sql, token.span.end),
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

/// Whether what follows these tokens is the right operand of `=` or `<>`, or in a list after IN.
fn begins_operand(before: &[&TokenWithSpan]) -> bool {
    let is_item = |token: &&&TokenWithSpan| {
        matches!(
            token.token,
            Token::Comma | Token::SingleQuotedString(_) | Token::Placeholder(_) | Token::Number(..)
        )
    };
    match before.last().map(|token| &token.token) {
        Some(Token::Eq | Token::Neq) => true,
        Some(Token::LParen | Token::Comma) => {
            let mut rest = before.iter().rev().skip_while(is_item);
            let opens = rest.next().is_some_and(|token| matches!(token.token, Token::LParen));
            let is_in = |token: &Token| matches!(token, Token::Word(word) if word.keyword == Keyword::IN && word.quote_style.is_none());
            opens && rest.next().is_some_and(|token| is_in(&token.token))
        }
        _ => false,
    }
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
                    let joined = joined_with_at(&mut all, &token, &name, end);
                    all.push(joined);
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
            Token::Word(word) => Some(word.value.clone()),
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
        [
            "millisecond",
            "second",
            "minute",
            "hour",
            "day",
            "week",
            "month",
            "quarter",
            "year",
        ]
        .contains(&unit)
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

/// The byte offset of a line and column in the text.
fn offset(sql: &str, at: Location) -> usize {
    let (mut line, mut column) = (1, 1);
    for (i, c) in sql.char_indices() {
        if line == at.line && column == at.column {
            return i;
        }
        if c == '\n' {
            line += 1;
            column = 1;
        } else {
            column += 1;
        }
    }
    sql.len()
}
