//! Parses DELETE: `DELETE FROM events [[AS] e] WHERE condition`.

use datafusion::sql::sqlparser::tokenizer::Token;
use proto::{Code, CollectionName, Problem};

use super::{definition::at_token, dotted_name, expression};
use crate::sql::{DocumentDelete, Statement, token::Tokens};

const EXAMPLE: &str = "write DELETE FROM events WHERE user = 'bob'";

pub(super) fn delete(tokens: &Tokens, sql: &str) -> Result<Statement, Problem> {
    if tokens.word(1) != "FROM" {
        return Err(at_token(
            tokens,
            1,
            Problem::new(Code::BadSql, "DELETE needs FROM").hint(EXAMPLE),
        ));
    }
    let (collection, next) = collection(tokens)?;
    let (alias, next) = alias(tokens, next);
    if tokens.word(next) != "WHERE" {
        return Err(at_token(tokens, next, without_where(tokens, next, &collection)));
    }
    let all = tokens.all.get(next + 1..).unwrap_or_default().to_vec();
    if all.is_empty() {
        return Err(Problem::new(Code::BadSql, "WHERE needs a condition").hint(EXAMPLE));
    }
    Ok(Statement::Delete(Box::new(DocumentDelete {
        collection,
        alias,
        text: tokens.text_without_values(sql, next + 1),
        condition: expression(Tokens { all })?,
    })))
}

/// The collection, and the index of the token after its name.
fn collection(tokens: &Tokens) -> Result<(CollectionName, usize), Problem> {
    let (words, next) = dotted_name(tokens, 2);
    match words.as_slice() {
        [name] => {
            let name = name.to_ascii_lowercase().parse();
            let name = name
                .map_err(|e: proto::address::Malformed| at_token(tokens, 2, Problem::new(Code::BadSql, e.to_string())));
            Ok((name?, next))
        }
        [] => {
            let problem = Problem::new(Code::BadSql, "DELETE FROM needs a collection").hint(EXAMPLE);
            Err(at_token(tokens, 2, problem))
        }
        words => {
            let detail = format!(
                "{} is not a collection: nothing can be deleted from it",
                words.join(".")
            );
            Err(at_token(
                tokens,
                2,
                Problem::new(Code::NotSupported, detail).hint(EXAMPLE),
            ))
        }
    }
}

/// The other name of the collection, if there is one, and the index of the token after it.
fn alias(tokens: &Tokens, index: usize) -> (Option<String>, usize) {
    let at = match tokens.word(index).as_str() {
        "AS" => index + 1,
        "WHERE" | "USING" | "RETURNING" | "LIMIT" | "ORDER" => return (None, index),
        _ => index,
    };
    match tokens.all.get(at).map(|token| &token.token) {
        Some(Token::Word(word)) => (Some(word.value.clone()), at + 1),
        _ => (None, index),
    }
}

fn without_where(tokens: &Tokens, index: usize, collection: &CollectionName) -> Problem {
    match tokens.word(index).as_str() {
        word @ ("USING" | "RETURNING" | "LIMIT" | "ORDER") => {
            let problem = Problem::new(Code::NotSupported, format!("{word} in DELETE is not supported"));
            problem.hint(match word {
                "USING" => "a condition may read other collections: WHERE user IN (SELECT name FROM banned)",
                "RETURNING" => "select the documents before you delete them",
                _ => "to delete a part of the documents, add a condition, for example on _time",
            })
        }
        _ => {
            let hint = format!(
                "DELETE FROM {collection} WHERE true deletes all documents; DELETE /v1/collections/{collection} drops the \
                 collection"
            );
            Problem::new(Code::BadSql, "DELETE needs WHERE: it says which documents").hint(hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sql::parse;

    #[test]
    fn a_delete_has_a_collection_and_a_condition_whose_text_shows_no_value() {
        for (sql, expected) in [
            ("delete from Events where a = 1 ;", "events as None: a = 1 [a = ?]"),
            (
                "DELETE FROM \"my-events\" AS e WHERE e.a IN (SELECT b FROM c) -- bob\n AND  _doc->>'a'='x' AND n > $1",
                "my-events as Some(\"e\"): e.a IN (SELECT b FROM c) AND _doc ->> 'a' = 'x' AND n > $1 \
                 [e.a IN (SELECT b FROM c) AND _doc->>?=? AND n > $1]",
            ),
        ] {
            let Ok(Statement::Delete(delete)) = parse(sql, 1 << 20) else {
                panic!("{sql} is no delete");
            };
            let DocumentDelete {
                collection,
                alias,
                condition,
                text,
            } = *delete;
            assert_eq!(format!("{collection} as {alias:?}: {condition} [{text}]"), expected);
        }
    }
}
