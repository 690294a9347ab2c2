//! The texts of parsers: `ON message AS GROK '%{IP:client} %{NUMBER:status:int}'`, `ON url AS URL`,
//! `ON line AS CSV (a, b, c) SEPARATOR ';'`.

use std::sync::Arc;

use datafusion::sql::sqlparser::{
    ast::Expr,
    tokenizer::{Token, TokenWithSpan},
};
use plan::parser::{Format, TextParser};
use proto::{Code, Problem, catalog::DefinitionId, limits::DEFINITION_BYTES_MAX};

use super::{
    resolve::value::{call, text},
    signature::position,
    statement,
    token::{Tokens, tokenize},
};

/// A parser: `ON expression AS format`.
pub(super) struct ParserText {
    /// The text to parse.
    pub on: Expr,
    /// How it is parsed.
    pub format: Format,
    /// The argument of the format, as [`TextParser::compile`] takes it.
    pub argument: String,
}

impl ParserText {
    pub(super) fn parse(definition: &str) -> Result<Self, Problem> {
        let tokens = tokenize(definition, DEFINITION_BYTES_MAX)?.all;
        let example = "write CREATE PARSER logs.access ON message AS GROK '%{IP:client} %{NUMBER:status:int}'";
        let rest = match tokens.split_first() {
            Some((first, rest)) if word(first).is_some_and(|word| word == "ON") => rest,
            _ => return Err(bad("the text that the parser reads is missing").hint(example)),
        };
        let end = position(rest, "AS").ok_or_else(|| bad("AS and a format are missing").hint(example))?;
        let on = statement::expression(Tokens {
            all: rest[..end].to_vec(),
        })?;
        let (format, argument) = format(&rest[end + 1..])?;
        TextParser::cached(format, &argument)?;
        Ok(Self { on, format, argument })
    }

    /// The parser, compiled.
    pub(super) fn compiled(&self) -> Result<Arc<TextParser>, Problem> {
        TextParser::cached(self.format, &self.argument)
    }

    /// A call of a function that parses this text, which may not be resolved yet.
    pub(super) fn call(&self, function: &str, on: Expr, id: &DefinitionId) -> Expr {
        let name = id.spelled();
        let arguments = [self.format.as_str(), &self.argument, &name].map(text);
        call(function, [on].into_iter().chain(arguments).collect())
    }
}

/// Reads the format and its argument.
fn format(tokens: &[TokenWithSpan]) -> Result<(Format, String), Problem> {
    let formats = "the formats are GROK '…', REGEX '…', LOGFMT, CSV (a, b), JSON, URL and USER_AGENT";
    let (first, rest) = tokens
        .split_first()
        .ok_or_else(|| bad("the format is missing").hint(formats))?;
    let name = word(first).unwrap_or_default();
    let (reads, rest) = match Format::parse(&name) {
        Some(format @ (Format::Grok | Format::Regex)) => match rest.split_first() {
            Some((pattern, rest)) if let Some(pattern) = quoted(&pattern.token) => ((format, pattern.to_owned()), rest),
            _ => {
                let name = format.as_str();
                return Err(bad(format!("the pattern of {name} is missing")).hint(format!("write {name} '…'")));
            }
        },
        Some(Format::Csv) => csv(rest)?,
        Some(format) => ((format, String::new()), rest),
        None => return Err(bad(format!("{} is not a format of a parser", first.token)).hint(formats)),
    };
    match rest.first() {
        None => Ok(reads),
        Some(more) => Err(bad(format!("{} is not expected after the format", more.token))
            .at(more.span.start.line, more.span.start.column)),
    }
}

/// Reads `(a, b, c) [SEPARATOR ';']`.
fn csv(tokens: &[TokenWithSpan]) -> Result<((Format, String), &[TokenWithSpan]), Problem> {
    let wrong = || bad("the names of the values are missing").hint("write CSV (a, b, c) or CSV (a, b) SEPARATOR ';'");
    let end = tokens
        .iter()
        .position(|token| token.token == Token::RParen)
        .ok_or_else(wrong)?;
    let (Some(Token::LParen), inside) = (tokens.first().map(|token| &token.token), &tokens[1.min(end)..end]) else {
        return Err(wrong());
    };
    let mut names = Vec::new();
    for part in inside.split(|token| token.token == Token::Comma) {
        match part {
            [
                TokenWithSpan {
                    token: Token::Word(word),
                    ..
                },
            ] => names.push(word.value.as_str()),
            _ => return Err(wrong()),
        }
    }
    let (separator, rest) = match &tokens[end + 1..] {
        [word_token, separator, rest @ ..] if word(word_token).is_some_and(|word| word == "SEPARATOR") => {
            match quoted(&separator.token) {
                Some("\\t") => ("\t", rest),
                Some(separator) if separator.len() == 1 => (separator, rest),
                _ => return Err(bad("SEPARATOR takes one character").hint("write SEPARATOR ';' or SEPARATOR '\\t'")),
            }
        }
        rest => (",", rest),
    };
    if let Some(name) = names.iter().find(|name| name.contains(separator)) {
        return Err(bad(format!("the name {name:?} contains the separator")).hint("choose another name"));
    }
    let argument = format!("{separator}{}", names.join(separator));
    Ok(((Format::Csv, argument), rest))
}

fn quoted(token: &Token) -> Option<&str> {
    match token {
        Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => Some(text),
        Token::DollarQuotedString(text) => Some(&text.value),
        _ => None,
    }
}

/// A word in upper case; none for a name in quotes.
fn word(token: &TokenWithSpan) -> Option<String> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.value.to_ascii_uppercase()),
        _ => None,
    }
}

fn bad(detail: impl Into<String>) -> Problem {
    Problem::new(Code::BadSql, detail)
}
