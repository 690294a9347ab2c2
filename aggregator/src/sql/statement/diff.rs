//! Parses DIFF: `DIFF FIELD events.price@1 TO events.price@2 [WHERE condition] [SAMPLE 1 PERCENT]`.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::tokenizer::Token;
use front::{Node, Root};
use proto::{
    Code, Problem,
    catalog::{DefinitionId, VersionRef},
};

use super::{
    definition::{at_token, version_at, versioned_id},
    dotted_name, expect_end, expression,
};
use crate::sql::{DefinitionDiff, Statement, token::Tokens};

const EXAMPLE: &str = "write DIFF FIELD events.price@1 TO events.price@2 [WHERE …] [SAMPLE 1 PERCENT]";

pub(super) fn diff(tokens: &Tokens) -> Result<Statement, Problem> {
    let (keys, next) = dotted_name(tokens, 2);
    let (id, from) = versioned_id(tokens, 1, keys)?;
    if id.collection.is_none() {
        let problem = Problem::new(
            Code::NotSupported,
            format!("DIFF of a {} is not supported", id.kind.as_str()),
        );
        return Err(at_token(
            tokens,
            1,
            problem.hint("DIFF compares two versions of a FIELD or PARSER"),
        ));
    }
    if tokens.word(next) != "TO" {
        let problem = Problem::new(Code::BadSql, "TO and another version are missing").hint(EXAMPLE);
        return Err(at_token(tokens, next, problem));
    }
    let (to, next) = other_version(tokens, next + 1, &id)?;
    let (sample, end) = sample(tokens)?;
    let mut condition = None;
    if tokens.word(next) == "WHERE" {
        let all = tokens.all.get(next + 1..end).unwrap_or_default().to_vec();
        let found = expression(Tokens { all })?;
        let is_query = |node: Node<'_>| match node {
            Node::Query(_) => ControlFlow::Break("a subquery"),
            _ => ControlFlow::Continue(()),
        };
        if let Some(what) = front::walk(Root::Expr(&found), &mut { is_query }) {
            let problem = Problem::new(
                Code::NotSupported,
                format!("{what} in the condition of DIFF is not supported"),
            );
            return Err(at_token(
                tokens,
                next,
                problem.hint("write a condition over the documents alone"),
            ));
        }
        condition = Some(found);
    } else if next < end {
        expect_end(tokens, next)?;
    }
    Ok(Statement::Diff(Box::new(DefinitionDiff {
        id,
        from,
        to,
        condition,
        sample,
    })))
}

/// Reads `events.price@2`, or only `2`, `@2` or `prod`. Also returns the index of the token after it.
fn other_version(tokens: &Tokens, index: usize, id: &DefinitionId) -> Result<(VersionRef, usize), Problem> {
    let (keys, next) = dotted_name(tokens, index);
    if keys.len() < 2 {
        return Ok((version_at(tokens, index)?, index + 1));
    }
    let (other, to) = versioned_id(tokens, 1, keys)?;
    match other == *id {
        true => Ok((to, next)),
        false => {
            let problem = Problem::new(Code::BadSql, format!("{other} is not {id}")).hint(EXAMPLE);
            Err(at_token(tokens, index, problem))
        }
    }
}

/// The percentage of `SAMPLE 1 PERCENT` at the end. Also returns the index at which it begins.
fn sample(tokens: &Tokens) -> Result<(Option<f64>, usize), Problem> {
    let count = tokens.all.len();
    let begin = count.saturating_sub(3);
    if count < 3 || tokens.word(begin) != "SAMPLE" {
        return Ok((None, count));
    }
    let percent = match tokens.all.get(begin + 1).map(|token| &token.token) {
        Some(Token::Number(digits, _)) => digits.parse::<f64>().ok(),
        _ => None,
    };
    match percent.filter(|percent| *percent > 0.0 && *percent <= 100.0) {
        Some(percent) if matches!(tokens.word(count - 1).as_str(), "PERCENT") => Ok((Some(percent), begin)),
        _ => {
            let problem = Problem::new(Code::BadSql, "SAMPLE needs a percentage over 0 and up to 100");
            Err(at_token(tokens, begin, problem.hint("write SAMPLE 1 PERCENT")))
        }
    }
}
