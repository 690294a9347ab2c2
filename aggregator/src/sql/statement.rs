//! Parses tokens into a statement. Our own statements are parsed here and queries by sqlparser; any other statement is
//! rejected by name.

mod definition;
mod delete;
mod diff;

use datafusion::sql::sqlparser::{
    ast,
    parser::{Parser, ParserError},
    tokenizer::Token,
};
use proto::{Code, CollectionName, Problem, catalog::DefinitionKind};

use super::{
    DefinitionChange, DocumentDelete, ExplainOptions, Statement, Summarized, compat,
    dialect::RachisDialect,
    token::{Tokens, tokenize},
};

/// Recursion limit of the parser. One level of nesting takes several; the nesting itself is limited earlier.
const PARSER_LEVELS_MAX: usize = 500;
const EXPLAIN_SYNTAX: &str = "write EXPLAIN [ANALYZE] [VERBOSE] SELECT …";
/// The hint for unsupported statements.
const SUPPORTED: &str = "supported are SELECT, WITH, VALUES, EXPLAIN [ANALYZE] [VERBOSE], SUMMARIZE, CREATE [OR REPLACE], ALTER, REVERT and \
                         DROP of a FIELD, PARSER, FUNCTION, QUERY or VIEW, DELETE, DIFF, TRY, CALL, SHOW and DESCRIBE";

pub(super) fn parse(sql: &str, statement_bytes_max: usize) -> Result<Statement, Problem> {
    let tokens = tokenize(sql, statement_bytes_max)?;
    if tokens.all.is_empty() {
        return Err(Problem::new(Code::BadSql, "the statement is empty").hint(SUPPORTED));
    }
    if begins_query(&tokens, 0) {
        return Ok(Statement::Query(query(tokens)?));
    }
    match tokens.word(0).as_str() {
        "EXPLAIN" => explain(tokens),
        "SUMMARIZE" | "SUMMARISE" => summarize(&tokens, sql),
        "CREATE" => definition::create(&tokens, sql),
        "ALTER" => definition::alter(&tokens),
        "REVERT" => definition::revert(&tokens),
        "DROP" => definition::drop(&tokens),
        "CALL" => definition::call(&tokens),
        "DELETE" => delete::delete(&tokens, sql),
        "DIFF" => diff::diff(&tokens),
        "TRY" => try_definition(tokens, sql),
        "SHOW" => show(&tokens),
        "DESCRIBE" | "DESC" => match tokens.words(1, &["TABLE"]) && tokens.all.len() > 2 {
            true => describe(&tokens, 2),
            false => describe(&tokens, 1),
        },
        word => {
            let at = tokens.all[0].span.start;
            let what = if word.is_empty() {
                tokens.all[0].token.to_string()
            } else {
                word.to_owned()
            };
            Err(
                Problem::new(Code::NotSupported, format!("{what} is not a supported statement"))
                    .hint(instead_of(word).unwrap_or(SUPPORTED))
                    .at(at.line, at.column),
            )
        }
    }
}

/// What to do instead of a statement of other systems.
fn instead_of(word: &str) -> Option<&'static str> {
    match word {
        "INSERT" | "COPY" | "LOAD" | "IMPORT" => {
            Some("push documents: POST /v1/collections/{collection}/documents, or rachis push")
        }
        "UPDATE" | "MERGE" | "REPLACE" => Some(
            "push a document with the same _id, which replaces it; or compute another value for all documents: CREATE \
                 FIELD collection.name AS …",
        ),
        "TRUNCATE" => Some(
            "DELETE FROM collection WHERE true deletes all documents; DELETE /v1/collections/{collection} drops the \
             collection",
        ),
        _ => None,
    }
}

/// Parses the text of a view.
pub(super) fn parse_query(sql: &str, bytes_max: usize) -> Result<Box<ast::Query>, Problem> {
    match parse(sql, bytes_max)? {
        Statement::Query(query) => Ok(query),
        _ => Err(Problem::new(Code::BadSql, "a view must be a query").hint("write CREATE VIEW name AS SELECT …")),
    }
}

/// A delete of the documents of a collection that meet a condition.
pub(super) fn delete_where(
    collection: CollectionName,
    condition: &str,
    bytes_max: usize,
) -> Result<DocumentDelete, Problem> {
    let tokens = tokenize(condition, bytes_max)?;
    Ok(DocumentDelete {
        collection,
        alias: None,
        text: tokens.text_without_values(condition, 0),
        condition: expression(tokens)?,
    })
}

/// Parses the text of a field.
pub(super) fn parse_expression(sql: &str, bytes_max: usize) -> Result<ast::Expr, Problem> {
    expression(tokenize(sql, bytes_max)?)
}

pub(super) fn expression(tokens: Tokens) -> Result<ast::Expr, Problem> {
    if tokens.all.is_empty() {
        return Err(Problem::new(Code::BadSql, "the expression is empty"));
    }
    let mut expression = with_parser(tokens, |parser| parser.parse_expr())?;
    compat::rewrite_expression(&mut expression)?;
    Ok(expression)
}

pub(super) fn query(tokens: Tokens) -> Result<Box<ast::Query>, Problem> {
    let mut query = with_parser(tokens, |parser| parser.parse_query())?;
    compat::rewrite_query(&mut query)?;
    Ok(query)
}

pub(super) fn with_parser<T>(
    tokens: Tokens,
    parse: impl FnOnce(&mut Parser<'_>) -> Result<T, ParserError>,
) -> Result<T, Problem> {
    let dialect = RachisDialect::for_tokens(tokens.all.len());
    let mut parser = Parser::new(&dialect)
        .with_recursion_limit(PARSER_LEVELS_MAX)
        .with_tokens_with_locations(tokens.all);
    let parsed = parse(&mut parser).map_err(parser_problem)?;
    let next = parser.peek_token();
    match next.token {
        Token::EOF => Ok(parsed),
        token => {
            let at = next.span.start;
            let problem = Problem::new(Code::BadSql, format!("unexpected {token}")).at(at.line, at.column);
            let is_word =
                |token: &Token, wanted| matches!(token, Token::Word(word) if word.value.eq_ignore_ascii_case(wanted));
            Err(
                match is_word(&token, "USING") && is_word(&parser.peek_nth_token(1).token, "SAMPLE") {
                    true => problem.hint("a sample belongs to its table: FROM events TABLESAMPLE (10 PERCENT)"),
                    false => problem,
                },
            )
        }
    }
}

/// Converts a parser error, moving the position out of its text.
fn parser_problem(error: ParserError) -> Problem {
    let text = match error {
        ParserError::TokenizerError(text) | ParserError::ParserError(text) => text,
        ParserError::RecursionLimitExceeded => {
            return Problem::new(Code::TooComplex, "the statement is nested too deeply").hint("split it with WITH");
        }
    };
    let Some((message, place)) = text.rsplit_once(" at Line: ") else {
        let unended = text.strip_suffix("found: EOF");
        return match unended {
            Some(expected) => Problem::new(Code::BadSql, format!("{expected}found: the end"))
                .hint("the statement ends too early: complete it, or look for a parenthesis or a quote"),
            None => Problem::new(Code::BadSql, text),
        };
    };
    let at = place
        .split_once(", Column: ")
        .and_then(|(line, column)| Some((line.trim().parse().ok()?, column.trim().parse().ok()?)));
    match at {
        Some((line, column)) => {
            let problem = Problem::new(Code::BadSql, message).at(line, column);
            match message.strip_prefix("Expected: (, found: $") {
                Some(parameter) => problem.hint(format!("put a list into parentheses: IN (${parameter})")),
                None => problem,
            }
        }
        None => Problem::new(Code::BadSql, text),
    }
}

/// Documents that TRY shows, unless it says otherwise, and at most.
const TRIED_DOCUMENTS: usize = 20;
const TRIED_DOCUMENTS_MAX: usize = 1_000;

/// `TRY [LIMIT n] CREATE …`.
fn try_definition(mut tokens: Tokens, sql: &str) -> Result<Statement, Problem> {
    tokens.all.remove(0);
    let mut limit = TRIED_DOCUMENTS;
    if tokens.word(0) == "LIMIT" {
        limit = match tokens.all.get(1).map(|token| &token.token) {
            Some(Token::Number(digits, _)) => digits.parse().ok(),
            _ => None,
        }
        .filter(|limit| (1..=TRIED_DOCUMENTS_MAX).contains(limit))
        .ok_or_else(|| {
            let detail = format!("LIMIT needs a number from 1 to {TRIED_DOCUMENTS_MAX}");
            Problem::new(Code::BadSql, detail).hint("write TRY LIMIT 20 CREATE …")
        })?;
        tokens.all.drain(..2);
    }
    if tokens.word(0) == "CREATE"
        && let Statement::ChangeDefinition(DefinitionChange::Define(new)) = definition::create(&tokens, sql)?
    {
        return match new.id.kind {
            DefinitionKind::Field | DefinitionKind::Parser => Ok(Statement::Try { new, limit }),
            kind => {
                let detail = format!("TRY of a {} is not supported", kind.as_str());
                Err(Problem::new(Code::NotSupported, detail).hint("run its query; TRY shows a FIELD or a PARSER"))
            }
        };
    }
    Err(Problem::new(Code::BadSql, "TRY needs a CREATE statement")
        .hint("write TRY CREATE PARSER logs.access ON message AS GROK '…'"))
}

fn explain(mut tokens: Tokens) -> Result<Statement, Problem> {
    let (options, from) = explain_options(&tokens)?;
    tokens.all.drain(..from);
    if !begins_query(&tokens, 0) {
        return Err(Problem::new(Code::NotSupported, "EXPLAIN needs a query").hint(EXPLAIN_SYNTAX));
    }
    Ok(Statement::Explain {
        query: query(tokens)?,
        options,
    })
}

/// `SUMMARIZE events`, `SUMMARIZE SELECT …`.
fn summarize(tokens: &Tokens, sql: &str) -> Result<Statement, Problem> {
    let text = tokens.text_between(sql, 1, tokens.all.len());
    if begins_query(tokens, 1) {
        // So that its own errors have their places.
        let mut of_query = tokens.clone();
        of_query.all.drain(..1);
        query(of_query)?;
        return Ok(Statement::Summarize(Summarized {
            relation: format!("({text})"),
            collection: None,
        }));
    }
    let (words, next) = dotted_name(tokens, 1);
    if words.is_empty() {
        return Err(Problem::new(Code::BadSql, "SUMMARIZE needs a table or a query")
            .hint("write SUMMARIZE events, or SUMMARIZE SELECT …"));
    }
    expect_end(tokens, next)?;
    Ok(Statement::Summarize(Summarized {
        relation: text.to_owned(),
        collection: match words.as_slice() {
            [name] => name.to_lowercase().parse().ok(),
            _ => None,
        },
    }))
}

/// The options, as words or in parentheses, and the index of the token after them.
fn explain_options(tokens: &Tokens) -> Result<(ExplainOptions, usize), Problem> {
    let (mut options, mut at) = (ExplainOptions::default(), 1);
    let token = |index: usize| tokens.all.get(index).map(|t| &t.token);
    if token(at) != Some(&Token::LParen) || begins_query(tokens, at + 1) {
        loop {
            match tokens.word(at).as_str() {
                "ANALYZE" => options.analyze = true,
                "VERBOSE" => options.verbose = true,
                _ => return Ok((options, at)),
            }
            at += 1;
        }
    }
    loop {
        let (name, mut value) = (tokens.word(at + 1), tokens.word(at + 2));
        at += 2;
        if matches!(token(at), Some(Token::Comma | Token::RParen)) {
            value = "TRUE".to_owned();
        } else {
            at += 1;
        }
        let is_on = !matches!(value.as_str(), "FALSE" | "OFF");
        match (name.as_str(), value.as_str()) {
            ("ANALYZE", "TRUE" | "ON" | "FALSE" | "OFF") => options.analyze = is_on,
            ("VERBOSE", "TRUE" | "ON" | "FALSE" | "OFF") => options.verbose = is_on,
            ("ANALYZE" | "VERBOSE", _) => {
                let detail = format!("the option {name} of EXPLAIN is TRUE or FALSE");
                return Err(Problem::new(Code::BadSql, detail).hint("write EXPLAIN (ANALYZE, VERBOSE) SELECT …"));
            }
            ("FORMAT", "TEXT") => {}
            ("FORMAT", _) => {
                let detail = "EXPLAIN has no other format than text";
                return Err(Problem::new(Code::NotSupported, detail).hint("leave FORMAT out; every line is a row"));
            }
            _ => {
                let name = if name.is_empty() { "this".to_owned() } else { name };
                let detail = format!("EXPLAIN does not have the option {name}");
                return Err(Problem::new(Code::NotSupported, detail).hint(EXPLAIN_SYNTAX));
            }
        }
        match token(at) {
            Some(Token::Comma) => {}
            Some(Token::RParen) => return Ok((options, at + 1)),
            _ => {
                let detail = "the options of EXPLAIN do not end";
                return Err(Problem::new(Code::BadSql, detail).hint(EXPLAIN_SYNTAX));
            }
        }
    }
}

/// Whether a query begins with the token at this index.
fn begins_query(tokens: &Tokens, index: usize) -> bool {
    match tokens.word(index).as_str() {
        "SELECT" | "WITH" | "VALUES" | "FROM" => true,
        "" => matches!(tokens.all.get(index).map(|t| &t.token), Some(Token::LParen)),
        _ => false,
    }
}

/// Reads the words of a name with dots, if there is one. Also returns the index of the token after it.
fn dotted_name(tokens: &Tokens, index: usize) -> (Vec<&str>, usize) {
    let (mut words, mut next) = (Vec::new(), index);
    while let Some(Token::Word(word)) = tokens.all.get(next).map(|t| &t.token) {
        words.push(word.value.as_str());
        next += 1;
        match tokens.all.get(next).map(|t| &t.token) {
            Some(Token::Period) => next += 1,
            _ => break,
        }
    }
    (words, next)
}

fn show(tokens: &Tokens) -> Result<Statement, Problem> {
    if matches!(tokens.word(1).as_str(), "COLUMNS" | "FIELDS") && matches!(tokens.word(2).as_str(), "FROM" | "IN") {
        return describe(tokens, 3);
    }
    if let Some(shown) = definition::show(tokens)? {
        return Ok(shown);
    }
    let statement = match tokens.word(1).as_str() {
        "TABLES" | "COLLECTIONS" => Statement::ShowTables,
        "DEFINITIONS" => Statement::ShowDefinitions(None),
        "FIELDS" => Statement::ShowDefinitions(Some(DefinitionKind::Field)),
        "PARSERS" => Statement::ShowDefinitions(Some(DefinitionKind::Parser)),
        "FUNCTIONS" => return show_functions(tokens),
        "VIEWS" => Statement::ShowDefinitions(Some(DefinitionKind::View)),
        "QUERIES" => Statement::ShowDefinitions(Some(DefinitionKind::Query)),
        _ => {
            return Err(Problem::new(
                Code::NotSupported,
                "SHOW needs TABLES, DEFINITIONS, FIELDS, PARSERS, FUNCTIONS, VIEWS, QUERIES, VERSIONS OF, DEPENDENTS OF, \
                 ERRORS OF or CREATE",
            )
            .hint("settings and statistics are in the system tables of the schema rachis"));
        }
    };
    if matches!(tokens.word(2).as_str(), "LIKE" | "ILIKE" | "WHERE") {
        let hint = match statement {
            Statement::ShowTables => {
                "write SELECT table_name FROM information_schema.tables WHERE table_name LIKE 'a%'"
            }
            _ => "write SELECT * FROM rachis.definitions WHERE name LIKE 'a%'",
        };
        let detail = format!("{} after SHOW {} is not supported", tokens.word(2), tokens.word(1));
        return Err(Problem::new(Code::NotSupported, detail).hint(hint));
    }
    expect_end(tokens, 2)?;
    Ok(statement)
}

/// `SHOW FUNCTIONS [LIKE 'array%']`.
fn show_functions(tokens: &Tokens) -> Result<Statement, Problem> {
    let pattern = match (tokens.word(2).as_str(), tokens.all.get(3).map(|token| &token.token)) {
        ("LIKE" | "ILIKE", Some(Token::SingleQuotedString(pattern))) => Some(pattern.to_lowercase()),
        ("LIKE" | "ILIKE", _) => {
            return Err(Problem::new(Code::BadSql, "LIKE needs a pattern").hint("write SHOW FUNCTIONS LIKE '%date%'"));
        }
        _ => None,
    };
    expect_end(tokens, if pattern.is_some() { 4 } else { 2 })?;
    Ok(Statement::ShowFunctions { pattern })
}

/// `DESCRIBE name`, with the name at this token.
fn describe(tokens: &Tokens, index: usize) -> Result<Statement, Problem> {
    if begins_query(tokens, index) && tokens.all.len() > index + 1 {
        return Err(Problem::new(Code::NotSupported, "DESCRIBE of a query is not supported")
            .hint("write SUMMARIZE SELECT …, which shows its columns and what values they have"));
    }
    let (words, next) = dotted_name(tokens, index);
    if words.is_empty() {
        return Err(Problem::new(Code::BadSql, "DESCRIBE needs a name").hint("write DESCRIBE events"));
    }
    expect_end(tokens, next)?;
    Ok(Statement::Describe {
        name: words.join(".").to_ascii_lowercase(),
    })
}

fn expect_end(tokens: &Tokens, index: usize) -> Result<(), Problem> {
    match tokens.all.get(index) {
        None => Ok(()),
        Some(token) => {
            let at = token.span.start;
            Err(Problem::new(Code::BadSql, format!("unexpected {}", token.token)).at(at.line, at.column))
        }
    }
}
