//! SQL text -> tokens, within limits. Everything that recurses later (parser, resolver, planner, drop) is bounded here,
//! where nothing does.
//!
//! The pass also makes words of documents usable as names: `user.name`, `@timestamp`, `price@2`, `interval` as a field,
//! any word after a dot. The parser's dialect would read them as a function, an absolute value, an operator, a literal.

use datafusion::sql::sqlparser::{
    dialect::PostgreSqlDialect,
    keywords::Keyword,
    tokenizer::{Location, Token, TokenWithSpan, Tokenizer},
};
use proto::{Code, Problem};

/// Tokens of one statement.
pub const TOKENS_MAX: usize = 50_000;
/// Parentheses, brackets and CASE inside one another.
pub const NESTING_MAX: usize = 50;
/// Function calls inside one another: the parser tries each argument twice, so each level doubles its work.
pub const CALLS_NESTED_MAX: usize = 16;
/// Conditions joined by AND and OR, and operators within one of them, side by side: without a comma or a clause between
/// them.
pub const OPERATORS_MAX: usize = 1_000;
/// Operators on the way from an expression to its deepest part, those in parentheses included.
pub const OPERATORS_DEEP_MAX: usize = 2 * OPERATORS_MAX;
/// UNION, EXCEPT and INTERSECT side by side.
pub const SET_OPERATIONS_MAX: usize = 200;

/// The tokens of one statement: no white space, no comments, no semicolon at the end.
pub struct Tokens {
    /// In order, with where they stand.
    pub all: Vec<TokenWithSpan>,
}

impl Tokens {
    /// The word at this place, in capitals; empty where there is none, and for a quoted one.
    pub fn word(&self, index: usize) -> String {
        match self.all.get(index).map(|t| &t.token) {
            Some(Token::Word(word)) if word.quote_style.is_none() => word.value.to_ascii_uppercase(),
            _ => String::new(),
        }
    }

    /// Whether the words from here on are these.
    pub fn words(&self, index: usize, words: &[&str]) -> bool {
        words.iter().enumerate().all(|(i, word)| self.word(index + i) == *word)
    }

    /// The text from this token to the last, as it was written.
    pub fn text_from<'a>(&self, sql: &'a str, index: usize) -> &'a str {
        match (self.all.get(index), self.all.last()) {
            (Some(first), Some(last)) => &sql[offset(sql, first.span.start)..offset(sql, last.span.end)],
            _ => "",
        }
    }
}

/// Reads the tokens of a statement and checks all limits.
pub fn tokens(sql: &str, statement_bytes_max: usize) -> Result<Tokens, Problem> {
    if sql.len() > statement_bytes_max {
        return Err(too_complex(
            format!("a statement of {} bytes", sql.len()),
            format!("the limit is {statement_bytes_max} bytes"),
        ));
    }
    let mut raw = Vec::new();
    Tokenizer::new(&PostgreSqlDialect {}, sql)
        .tokenize_with_location_into_buf(&mut raw)
        .map_err(|e| {
            Problem::new(Code::BadSql, format!("the statement cannot be read: {}", e.message))
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
            format!("a statement of {} tokens", all.len()),
            format!("the limit is {TOKENS_MAX} tokens"),
        ));
    }
    if let Some(stray) = all.iter().find(|t| matches!(t.token, Token::SemiColon)) {
        return Err(Problem::new(Code::BadSql, "more than one statement")
            .hint("send one statement at a time")
            .at(stray.span.start.line, stray.span.start.column));
    }
    bound(&all)?;
    soften(&mut all);
    Ok(Tokens {
        all: with_distinct_operators(all),
    })
}

fn too_complex(detail: String, hint: String) -> Problem {
    Problem::new(Code::TooComplex, detail).hint(hint)
}

/// Drops white space and comments, and joins what belongs together only when it touches: `@timestamp`, `price@2`.
fn significant(raw: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let mut all: Vec<TokenWithSpan> = Vec::with_capacity(raw.len());
    let mut raw = raw.into_iter().peekable();
    while let Some(token) = raw.next() {
        match &token.token {
            Token::Whitespace(_) => continue,
            Token::AtSign => {
                let next = raw
                    .peek()
                    .filter(|next| next.span.start == token.span.end)
                    .and_then(|next| match &next.token {
                        Token::Word(word) if word.quote_style.is_none() => Some(word.value.clone()),
                        Token::Number(digits, false) => Some(digits.clone()),
                        _ => None,
                    });
                let before = all
                    .last()
                    .filter(|last| last.span.end == token.span.start)
                    .and_then(|last| match &last.token {
                        Token::Word(word) => Some(word.value.clone()),
                        _ => None,
                    });
                let Some(next) = next else {
                    all.push(token);
                    continue;
                };
                let end = raw.next().map_or(token.span.end, |next| next.span.end);
                let mut start = token.span.start;
                if before.is_some() {
                    start = all.pop().map_or(start, |last| last.span.start);
                }
                let name = format!("{}@{next}", before.unwrap_or_default());
                all.push(TokenWithSpan {
                    token: Token::make_word(&name, Some('"')),
                    span: datafusion::sql::sqlparser::tokenizer::Span::new(start, end),
                });
            }
            // `a>-1`: no operator of SQL ends in a sign.
            Token::CustomBinaryOperator(op) => match compared_with_signed(op) {
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

/// A comparison and the sign of the number behind it, written without a space between them.
fn compared_with_signed(op: &str) -> Option<(Token, Token)> {
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

/// Counts nesting and operator chains.
fn bound(all: &[TokenWithSpan]) -> Result<(), Problem> {
    let mut levels = vec![Level::default()];
    for (index, token) in all.iter().enumerate() {
        let at = token.span.start;
        let (opens, closes, case) = match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => (true, false, false),
            Token::RParen | Token::RBracket | Token::RBrace => (false, true, false),
            Token::Word(word) if word.keyword == Keyword::CASE => (true, false, true),
            Token::Word(word) if word.keyword == Keyword::END => {
                (false, levels.last().is_some_and(|level| level.case), false)
            }
            _ => (false, false, false),
        };
        if opens {
            let before = index.checked_sub(1).map(|before| &all[before].token);
            let call = token.token == Token::LParen && before.is_some_and(is_called);
            levels.push(Level {
                case,
                call,
                ..Level::default()
            });
            if levels.iter().filter(|level| level.call).count() > CALLS_NESTED_MAX {
                return Err(too_complex(
                    format!("over {CALLS_NESTED_MAX} function calls inside one another"),
                    "split the statement with WITH".into(),
                )
                .at(at.line, at.column));
            }
            if levels.len() - 1 > NESTING_MAX {
                return Err(too_complex(
                    format!("nested over {NESTING_MAX} levels deep"),
                    "split the statement with WITH".into(),
                )
                .at(at.line, at.column));
            }
        }
        let inside = if closes && levels.len() > 1 {
            levels.pop().map_or(0, |level| level.depth())
        } else {
            0
        };
        let Some(level) = levels.last_mut() else { continue };
        level.inside = level.inside.max(inside);
        match role(&token.token) {
            Role::Operator => level.operators += 1,
            Role::Junction => level.join(),
            Role::SetOperation => level.set_operations += 1,
            Role::Boundary => level.begin(),
            Role::Plain => {}
        }
        if level.depth() > OPERATORS_DEEP_MAX {
            return Err(too_complex(
                format!("over {OPERATORS_DEEP_MAX} operators inside one another"),
                "compute a part in a WITH query".into(),
            )
            .at(at.line, at.column));
        }
        if level.operators.max(level.junctions) > OPERATORS_MAX {
            return Err(too_complex(
                format!("over {OPERATORS_MAX} operators side by side"),
                "a list fits into IN (…) or VALUES".into(),
            )
            .at(at.line, at.column));
        }
        if level.set_operations > SET_OPERATIONS_MAX {
            return Err(too_complex(
                format!("over {SET_OPERATIONS_MAX} set operations side by side"),
                "a list fits into VALUES".into(),
            )
            .at(at.line, at.column));
        }
    }
    Ok(())
}

/// What was seen at one level of nesting.
#[derive(Default)]
struct Level {
    /// ANDs and ORs since the last comma or clause.
    junctions: usize,
    /// Other operators since then, or since the last of those.
    operators: usize,
    /// The depth of what stood in parentheses since then.
    inside: usize,
    /// The depth of the deepest condition before the last AND or OR.
    joined: usize,
    /// The depth of the deepest expression before the last comma or clause.
    before: usize,
    set_operations: usize,
    /// Whether it is a CASE, which END closes.
    case: bool,
    /// Whether it holds the arguments of a call.
    call: bool,
}

impl Level {
    /// Operators on the way to the deepest part.
    fn depth(&self) -> usize {
        self.before
            .max(self.junctions + self.joined.max(self.operators + self.inside))
    }

    /// Goes on behind an AND or OR.
    fn join(&mut self) {
        self.joined = self.joined.max(self.operators + self.inside);
        (self.junctions, self.operators, self.inside) = (self.junctions + 1, 0, 0);
    }

    /// Goes on behind a comma or a clause.
    fn begin(&mut self) {
        self.before = self.depth();
        (self.junctions, self.joined, self.operators, self.inside) = (0, 0, 0, 0);
    }
}

/// Whether a parenthesis behind this token opens arguments: it is a name, not a word that stands before a condition, a
/// list or a query.
fn is_called(before: &Token) -> bool {
    let Token::Word(word) = before else { return false };
    !matches!(
        word.keyword,
        Keyword::ALL
            | Keyword::AND
            | Keyword::ANY
            | Keyword::AS
            | Keyword::BETWEEN
            | Keyword::BY
            | Keyword::DISTINCT
            | Keyword::ELSE
            | Keyword::EXCEPT
            | Keyword::EXISTS
            | Keyword::FILTER
            | Keyword::FROM
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::IN
            | Keyword::INTERSECT
            | Keyword::JOIN
            | Keyword::LATERAL
            | Keyword::LIKE
            | Keyword::NOT
            | Keyword::ON
            | Keyword::OR
            | Keyword::OVER
            | Keyword::SELECT
            | Keyword::SETS
            | Keyword::SOME
            | Keyword::THEN
            | Keyword::UNION
            | Keyword::USING
            | Keyword::VALUES
            | Keyword::WHEN
            | Keyword::WHERE
    ) || word.quote_style.is_some()
}

enum Role {
    Operator,
    Junction,
    SetOperation,
    Boundary,
    Plain,
}

fn role(token: &Token) -> Role {
    match token {
        Token::Comma => Role::Boundary,
        Token::Word(word) if word.quote_style.is_none() => match word.keyword {
            Keyword::SELECT
            | Keyword::FROM
            | Keyword::WHERE
            | Keyword::GROUP
            | Keyword::HAVING
            | Keyword::ORDER
            | Keyword::ON => Role::Boundary,
            Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => Role::SetOperation,
            Keyword::AND | Keyword::OR => Role::Junction,
            Keyword::XOR
            | Keyword::NOT
            | Keyword::IS
            | Keyword::IN
            | Keyword::LIKE
            | Keyword::ILIKE
            | Keyword::SIMILAR
            | Keyword::BETWEEN
            | Keyword::COLLATE
            | Keyword::AT
            | Keyword::NOTNULL
            | Keyword::OVERLAPS
            | Keyword::OPERATOR
            | Keyword::JOIN
            | Keyword::INTERVAL => Role::Operator,
            _ => Role::Plain,
        },
        Token::Word(_)
        | Token::Number(..)
        | Token::SingleQuotedString(_)
        | Token::Period
        | Token::LParen
        | Token::RParen
        | Token::LBracket
        | Token::RBracket
        | Token::LBrace
        | Token::RBrace
        | Token::Placeholder(_)
        | Token::EOF => Role::Plain,
        _ => Role::Operator,
    }
}

/// Quotes words that are names where they stand, though the dialect knows them as something else.
fn soften(all: &mut [TokenWithSpan]) {
    for i in 0..all.len() {
        let after_dot = i > 0 && matches!(all[i - 1].token, Token::Period);
        // A type stands there, not a name.
        let after_cast = i > 0
            && (matches!(all[i - 1].token, Token::DoubleColon)
                || matches!(&all[i - 1].token, Token::Word(w) if w.keyword == Keyword::AS));
        let next = all.get(i + 1).map(|t| t.token.clone());
        let dot = matches!(next, Some(Token::Period));
        // CURRENT ROW bounds a window.
        let after_current =
            i > 0 && matches!(&all[i - 1].token, Token::Word(w) if w.value.eq_ignore_ascii_case("current"));
        let Token::Word(word) = &mut all[i].token else { continue };
        if word.quote_style.is_some()
            || word.keyword == Keyword::NoKeyword
            || (after_current && word.keyword == Keyword::ROW)
        {
            continue;
        }
        if after_dot || dot || (!after_cast && is_name_here(word.keyword, next.as_ref())) {
            word.quote_style = Some('"');
            word.keyword = Keyword::NoKeyword;
        }
    }
}

/// `IS [NOT] DISTINCT FROM` as an operator of its own: the parser takes all that follows it, AND and OR included, for
/// its right side.
fn with_distinct_operators(all: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is = |place: usize, keyword: Keyword| matches!(all.get(place).map(|t| &t.token), Some(Token::Word(word)) if word.keyword == keyword);
    let (mut out, mut place) = (Vec::with_capacity(all.len()), 0);
    while let Some(token) = all.get(place) {
        let not = usize::from(is(place + 1, Keyword::NOT));
        if is(place, Keyword::IS) && is(place + 1 + not, Keyword::DISTINCT) && is(place + 2 + not, Keyword::FROM) {
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
            place += 3 + not;
        } else {
            out.push(token.clone());
            place += 1;
        }
    }
    out
}

/// Whether a keyword is a plain name, given what follows it.
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

/// Where a line and column are in the text, in bytes.
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
