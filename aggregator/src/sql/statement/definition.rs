//! Parses the statements on definitions: CREATE, ALTER, REVERT, DROP and SHOW.

use datafusion::sql::sqlparser::tokenizer::Token;
use plan::Path;
use proto::{
    Code, CollectionName, Problem,
    catalog::{DefinitionId, DefinitionKind, LATEST, VersionRef, is_plain_name, parse_tag},
};
use serde_json::Value;

use super::{SUPPORTED, dotted_name, expect_end};
use crate::sql::{
    NewDefinition, Statement, TagTarget,
    parsed_statement::{Argument, ArgumentValue, Arguments, DefinitionChange},
    token::Tokens,
};

/// `CREATE [OR REPLACE] kind name[@number] definition [COMMENT 'note']`.
pub(super) fn create(tokens: &Tokens, sql: &str) -> Result<Statement, Problem> {
    let replace = tokens.words(1, &["OR", "REPLACE"]);
    let kind = if replace { 3 } else { 1 };
    if tokens.words(kind + 1, &["IF", "NOT", "EXISTS"]) {
        return Err(Problem::new(Code::NotSupported, "IF NOT EXISTS is not supported")
            .hint("use CREATE OR REPLACE to create a new version"));
    }
    let (id, number, next) = new_version(tokens, kind)?;
    let from = match id.kind {
        DefinitionKind::Field | DefinitionKind::View => after_as(tokens, &id, next)?,
        DefinitionKind::Function | DefinitionKind::Query | DefinitionKind::Parser => next,
    };
    let (until, note) = match tokens.all.as_slice() {
        [.., comment, note] if is_word(&comment.token, "COMMENT") => match &note.token {
            Token::SingleQuotedString(text) => (tokens.all.len() - 2, Some(text.clone())),
            _ => (tokens.all.len(), None),
        },
        all => (all.len(), None),
    };
    if until <= from {
        return Err(missing(&id));
    }
    let at = tokens
        .all
        .get(from)
        .map_or((1, 1), |token| (token.span.start.line, token.span.start.column));
    changed(DefinitionChange::Define(NewDefinition {
        id,
        text: tokens.text_between(sql, from, until).to_owned(),
        at,
        replace,
        note,
        number,
    }))
}

/// The definition at these tokens, the number after the `@` of its name, and the index of the token after it.
fn new_version(tokens: &Tokens, kind: usize) -> Result<(DefinitionId, Option<u32>, usize), Problem> {
    let (keys, next) = dotted_name(tokens, kind + 1);
    let Some((last, others)) = keys.split_last().filter(|(last, _)| last.rfind('@') > Some(0)) else {
        let (id, next) = definition_id(tokens, kind)?;
        return Ok((id, None, next));
    };
    check_unversioned(tokens, kind + 1, others)?;
    let (id, version) = versioned_id(tokens, kind, keys.clone())?;
    match version {
        VersionRef::Number(number) => Ok((id, Some(number), next)),
        VersionRef::Tag(_) => {
            let problem = Problem::new(
                Code::BadSql,
                format!("{last}: a new version has a number, and gets tags later"),
            );
            Err(at_token(
                tokens,
                kind + 1,
                problem.hint("remove the @, or write a number that is free, as in price@3"),
            ))
        }
    }
}

fn changed(change: DefinitionChange) -> Result<Statement, Problem> {
    Ok(Statement::ChangeDefinition(change))
}

/// The token after AS, which must be at this index.
fn after_as(tokens: &Tokens, id: &DefinitionId, index: usize) -> Result<usize, Problem> {
    if tokens.all.get(index).is_some_and(|token| token.token == Token::LParen) {
        return Err(
            Problem::new(Code::NotSupported, "a column list after the name is not supported")
                .hint("name the columns in the query: SELECT a AS x"),
        );
    }
    match tokens.word(index) == "AS" {
        true => Ok(index + 1),
        false => Err(missing(id)),
    }
}

fn missing(id: &DefinitionId) -> Problem {
    let example = match id.kind {
        DefinitionKind::Field => "CREATE FIELD events.price AS expression",
        DefinitionKind::View => "CREATE VIEW slow AS SELECT …",
        DefinitionKind::Function => "CREATE FUNCTION euros(cents bigint) RETURNS double AS cents / 100.0",
        DefinitionKind::Parser => "CREATE PARSER logs.access ON message AS GROK '%{IP:client} %{WORD:method}'",
        DefinitionKind::Query => "CREATE QUERY top_users(k int DEFAULT 10) AS SELECT … LIMIT $k",
    };
    Problem::new(Code::BadSql, format!("{id}: the definition is missing")).hint(format!("write {example}"))
}

/// `ALTER kind name SET TAG tag TO version [FROM version]`, `… DROP TAG tag`, `… RENAME TO name`.
pub(super) fn alter(tokens: &Tokens) -> Result<Statement, Problem> {
    let (id, next) = definition_id(tokens, 1)?;
    if tokens.words(next, &["SET", "TAG"]) && tokens.word(next + 3) == "TO" {
        let (tag, to) = (tag_at(tokens, next + 2)?, version_at(tokens, next + 4)?);
        let from = match tokens.word(next + 5).as_str() {
            "FROM" => Some(version_at(tokens, next + 6)?),
            _ => None,
        };
        let from = match from {
            None => None,
            Some(VersionRef::Number(number)) => Some(number),
            Some(VersionRef::Tag(_)) => {
                return Err(Problem::new(Code::BadSql, "FROM needs the number of a version")
                    .hint("write SET TAG prod TO 2 FROM 1"));
            }
        };
        expect_end(tokens, next + if from.is_some() { 7 } else { 5 })?;
        let to = TagTarget::Version(to);
        return changed(DefinitionChange::MoveTag { id, tag, to, from });
    }
    if tokens.words(next, &["DROP", "TAG"]) {
        let tag = tag_at(tokens, next + 2)?;
        expect_end(tokens, next + 3)?;
        let to = TagTarget::Nowhere;
        return changed(DefinitionChange::MoveTag {
            id,
            tag,
            to,
            from: None,
        });
    }
    if tokens.words(next, &["RENAME", "TO"]) {
        let (mut keys, end) = dotted_name(tokens, next + 2);
        check_unversioned(tokens, next + 2, &keys)?;
        // As in other statements, the collection may come first.
        if let ([first, _, ..], Some(collection)) = (keys.as_slice(), &id.collection)
            && first.eq_ignore_ascii_case(collection.as_str())
        {
            keys.remove(0);
        }
        let to = name_of(id.kind, &keys).map_err(|problem| at_token(tokens, next + 2, problem))?;
        expect_end(tokens, end)?;
        return changed(DefinitionChange::Rename { id, to });
    }
    Err(at_token(
        tokens,
        next,
        Problem::new(
            Code::BadSql,
            format!(
                "ALTER {} needs SET TAG, DROP TAG or RENAME TO",
                id.kind.as_str().to_uppercase()
            ),
        )
        .hint("write ALTER FIELD events.price SET TAG prod TO 1, … DROP TAG prod or … RENAME TO cost"),
    ))
}

/// `REVERT kind name [TO version]`: moves the tag `latest`.
pub(super) fn revert(tokens: &Tokens) -> Result<Statement, Problem> {
    let (id, next) = definition_id(tokens, 1)?;
    let to = match tokens.word(next).as_str() {
        "TO" => TagTarget::Version(version_at(tokens, next + 1)?),
        _ => TagTarget::Back,
    };
    expect_end(tokens, next + if to == TagTarget::Back { 0 } else { 2 })?;
    changed(DefinitionChange::MoveTag {
        id,
        tag: LATEST.to_owned(),
        to,
        from: None,
    })
}

/// `DROP kind [IF EXISTS] name`.
pub(super) fn drop(tokens: &Tokens) -> Result<Statement, Problem> {
    // IF EXISTS follows the kind, where the name would be.
    let if_exists = tokens.words(2, &["IF", "EXISTS"]);
    let (id, next) = if if_exists {
        let mut all = tokens.all.clone();
        all.drain(2..4);
        definition_id(&Tokens { all }, 1).map(|(id, next)| (id, next + 2))?
    } else {
        definition_id(tokens, 1)?
    };
    expect_end(tokens, next)?;
    changed(DefinitionChange::Drop { id, if_exists })
}

/// `CALL name[@version] ([[parameter =>] value, …])`.
pub(super) fn call(tokens: &Tokens) -> Result<Statement, Problem> {
    let (keys, mut next) = dotted_name(tokens, 1);
    let [name] = keys.as_slice() else {
        return Err(
            Problem::new(Code::BadSql, "CALL needs the name of a saved query").hint("write CALL top_users(k => 3)")
        );
    };
    let (name, version) = match name.rsplit_once('@').filter(|(name, _)| !name.is_empty()) {
        Some((name, version)) => (name, VersionRef::parse(version)?),
        None => (*name, VersionRef::latest()),
    };
    let id = DefinitionId::global(DefinitionKind::Query, &word_name(DefinitionKind::Query, name)?);
    let mut arguments = Vec::new();
    if tokens.all.get(next).is_some_and(|token| token.token == Token::LParen) {
        next += 1;
        while tokens.all.get(next).is_some_and(|token| token.token != Token::RParen) {
            let (argument, end) = argument(tokens, next)?;
            arguments.push(argument);
            next = match tokens.all.get(end).map(|token| &token.token) {
                Some(Token::Comma) => end + 1,
                _ => end,
            };
            if next == end {
                break;
            }
        }
        match tokens.all.get(next).map(|token| &token.token) {
            Some(Token::RParen) => next += 1,
            _ => {
                return Err(at_token(
                    tokens,
                    next,
                    Problem::new(Code::BadSql, "a closing parenthesis is missing"),
                ));
            }
        }
    }
    expect_end(tokens, next)?;
    let arguments = Arguments(arguments);
    Ok(Statement::Call { id, version, arguments })
}

/// Reads `[parameter =>] value`. Also returns the index of the token after it.
fn argument(tokens: &Tokens, index: usize) -> Result<(Argument, usize), Problem> {
    let token = |index: usize| tokens.all.get(index).map(|token| &token.token);
    let (name, at) = match (token(index), token(index + 1)) {
        (Some(Token::Word(word)), Some(Token::RArrow)) => (Some(word.value.to_ascii_lowercase()), index + 2),
        _ => (None, index),
    };
    let wrong = || {
        let problem = Problem::new(Code::BadSql, "an argument of CALL must be a literal or $1, $2, …");
        at_token(
            tokens,
            at,
            problem.hint("write CALL top_users(k => 3, since => '2026-01-31')"),
        )
    };
    let number = |digits: &str| serde_json::from_str::<Value>(digits).map_err(|_| wrong());
    let (value, next) = match (token(at), token(at + 1)) {
        (Some(Token::SingleQuotedString(text)), _) => (Value::String(text.clone()), at + 1),
        (Some(Token::Number(digits, _)), _) => (number(digits)?, at + 1),
        (Some(Token::Minus), Some(Token::Number(digits, _))) => (number(&format!("-{digits}"))?, at + 2),
        (Some(Token::Placeholder(place)), _) => {
            let number = place.strip_prefix('$').and_then(|number| number.parse().ok());
            let value = ArgumentValue::Parameter(number.ok_or_else(wrong)?);
            return Ok((Argument { name, value }, at + 1));
        }
        (Some(token), _) if is_word(token, "TRUE") => (Value::Bool(true), at + 1),
        (Some(token), _) if is_word(token, "FALSE") => (Value::Bool(false), at + 1),
        (Some(token), _) if is_word(token, "NULL") => (Value::Null, at + 1),
        _ => return Err(wrong()),
    };
    let value = ArgumentValue::Literal(value);
    Ok((Argument { name, value }, next))
}

/// `SHOW VERSIONS OF kind name`, `SHOW DEPENDENTS OF kind name`, `SHOW ERRORS OF kind name`, `SHOW CREATE kind name`. None for any other SHOW.
pub(super) fn show(tokens: &Tokens) -> Result<Option<Statement>, Problem> {
    if tokens.word(1) == "CREATE" {
        let (keys, next) = dotted_name(tokens, 3);
        let (id, version) = versioned_id(tokens, 2, keys)?;
        expect_end(tokens, next)?;
        return Ok(Some(Statement::ShowCreate { id, version }));
    }
    if tokens.word(1) == "ERRORS" {
        let kind = if tokens.word(2) == "OF" { 3 } else { 2 };
        let (keys, next) = dotted_name(tokens, kind + 1);
        let (id, version) = versioned_id(tokens, kind, keys)?;
        expect_end(tokens, next)?;
        return Ok(Some(Statement::ShowErrors { id, version }));
    }
    let show: fn(DefinitionId) -> Statement = match tokens.word(1).as_str() {
        "VERSIONS" => Statement::ShowVersions,
        "DEPENDENTS" => Statement::ShowDependents,
        _ => return Ok(None),
    };
    let kind = if tokens.word(2) == "OF" { 3 } else { 2 };
    let (id, next) = definition_id(tokens, kind)?;
    expect_end(tokens, next)?;
    Ok(Some(show(id)))
}

/// Reads `FIELD collection.path` or `VIEW name`. Also returns the index of the token after it.
fn definition_id(tokens: &Tokens, index: usize) -> Result<(DefinitionId, usize), Problem> {
    let (keys, next) = dotted_name(tokens, index + 1);
    check_unversioned(tokens, index + 1, &keys)?;
    Ok((id_of(tokens, index, &keys)?, next))
}

/// Refuses `price@2` where a definition is named.
fn check_unversioned(tokens: &Tokens, index: usize, keys: &[&str]) -> Result<(), Problem> {
    match keys.iter().find(|key| key.contains('@') && !key.starts_with('@')) {
        Some(versioned) => {
            let detail = format!(
                "{versioned}: {} is about a definition, not about a version",
                tokens.word(0)
            );
            let name = versioned.split('@').next().unwrap_or_default();
            let problem = Problem::new(Code::BadSql, detail).hint(format!("write {name}; versions stay as they are"));
            Err(at_token(tokens, index, problem))
        }
        None => Ok(()),
    }
}

/// The definition of a kind and name at these tokens, and the version after the `@` of the name.
pub(super) fn versioned_id(
    tokens: &Tokens,
    index: usize,
    mut keys: Vec<&str>,
) -> Result<(DefinitionId, VersionRef), Problem> {
    let mut version = VersionRef::latest();
    if let Some(last) = keys.last_mut()
        && let Some((name, wanted)) = last.rsplit_once('@').filter(|(name, _)| !name.is_empty())
    {
        version = VersionRef::parse(wanted)?;
        *last = name;
    }
    Ok((id_of(tokens, index, &keys)?, version))
}

fn id_of(tokens: &Tokens, index: usize, keys: &[&str]) -> Result<DefinitionId, Problem> {
    let word = tokens.word(index);
    let at = |problem| at_token(tokens, index + 1, problem);
    let Some(kind) = DefinitionKind::parse(&word) else {
        let refused = format!("{} {word} is not supported", tokens.word(0));
        let problem = Problem::new(Code::NotSupported, refused);
        return Err(at(match (tokens.word(0).as_str(), word.as_str()) {
            ("CREATE", "TABLE") => {
                problem.hint("a collection needs no declaration: push documents to it, and it is created")
            }
            ("DROP", "TABLE") => {
                problem.hint("drop a collection with `rachis collection delete NAME` or DELETE /v1/collections/NAME")
            }
            ("DIFF" | "REVERT" | "SHOW", _) => {
                let detail = match word.to_lowercase() {
                    word if word.is_empty() => "the kind of the definition is missing".to_owned(),
                    word => format!("{word} is not a kind of definition"),
                };
                Problem::new(Code::BadSql, detail).hint("write FIELD, PARSER, FUNCTION, VIEW or QUERY before the name")
            }
            _ => problem.hint(SUPPORTED),
        }));
    };
    let (collection, keys) = match (kind, keys) {
        (DefinitionKind::Field | DefinitionKind::Parser, [collection, path @ ..]) if !path.is_empty() => {
            (Some(collection_name(collection).map_err(at)?), path)
        }
        (DefinitionKind::Field | DefinitionKind::Parser, _) => {
            let detail = format!("a {} needs a collection and a name", kind.as_str());
            let hint = format!("write {} events.price", kind.as_str().to_uppercase());
            return Err(at(Problem::new(Code::BadSql, detail).hint(hint)));
        }
        (_, keys) => (None, keys),
    };
    let name = name_of(kind, keys).map_err(at)?;
    Ok(DefinitionId { kind, collection, name })
}

/// The name of a definition within its collection.
fn name_of(kind: DefinitionKind, keys: &[&str]) -> Result<String, Problem> {
    match (kind, keys) {
        (_, []) => Err(Problem::new(
            Code::BadSql,
            format!("the name of the {} is missing", kind.as_str()),
        )),
        (DefinitionKind::Field | DefinitionKind::Parser, keys) => Ok(Path::of_keys(keys.iter().copied()).to_string()),
        (DefinitionKind::View, [name]) => Ok(collection_name(name)?.as_str().to_owned()),
        (DefinitionKind::Function | DefinitionKind::Query, [name]) => word_name(kind, name),
        (kind, _) => Err(
            Problem::new(Code::BadSql, format!("the name of a {} has one part", kind.as_str()))
                .hint(format!("write {} name", kind.as_str().to_uppercase())),
        ),
    }
}

/// Parses the name of a collection or view in lower case: all of their names are lower case.
fn collection_name(name: &str) -> Result<CollectionName, Problem> {
    name.to_ascii_lowercase()
        .parse()
        .map_err(|e| Problem::new(Code::BadSql, format!("{e}")))
}

/// Bytes of the name of a function or saved query.
const WORD_BYTES_MAX: usize = 128;

/// The name of a function or saved query, in lower case.
fn word_name(kind: DefinitionKind, name: &str) -> Result<String, Problem> {
    let name = name.to_ascii_lowercase();
    match is_plain_name(&name) && name.len() <= WORD_BYTES_MAX {
        true => Ok(name),
        false => Err(Problem::new(
            Code::BadSql,
            format!("{name:?} cannot be the name of a {}", kind.as_str()),
        )
        .hint(format!(
            "use letters, digits and underscores, at most {WORD_BYTES_MAX}, beginning with a letter"
        ))),
    }
}

/// The tag at a token.
fn tag_at(tokens: &Tokens, index: usize) -> Result<String, Problem> {
    let word = match tokens.all.get(index).map(|token| &token.token) {
        Some(Token::Word(word)) => Ok(word.value.as_str()),
        _ => Err(Problem::new(Code::BadSql, "the name of the tag is missing")),
    };
    word.and_then(parse_tag)
        .map_err(|problem| at_token(tokens, index, problem))
}

/// The number or tag of a version at a token: `2`, `prod`, `@2`, `@prod`.
pub(super) fn version_at(tokens: &Tokens, index: usize) -> Result<VersionRef, Problem> {
    let version = match tokens.all.get(index).map(|token| &token.token) {
        Some(Token::Word(word)) => VersionRef::parse(word.value.trim_start_matches('@')),
        Some(Token::Number(digits, _)) => VersionRef::parse(digits),
        _ => Err(Problem::new(Code::BadSql, "the version is missing").hint("write TO 2 or TO prod")),
    };
    version.map_err(|problem| at_token(tokens, index, problem))
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.quote_style.is_none() && found.value.eq_ignore_ascii_case(word))
}

pub(super) fn at_token(tokens: &Tokens, index: usize, problem: Problem) -> Problem {
    match tokens.all.get(index) {
        Some(token) => problem.at(token.span.start.line, token.span.start.column),
        None => problem,
    }
}
