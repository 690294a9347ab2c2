//! `ASOF [LEFT] JOIN t ON …`, which the parser reads only with MATCH_CONDITION, becomes `GLOBAL [LEFT] JOIN t ON …`. So
//! the word GLOBAL of other systems, which means nothing here, is dropped before.

use datafusion::sql::sqlparser::{
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan},
};

/// Rewrites the ASOF JOINs of a statement.
pub(super) fn with_asof_joins(all: Vec<TokenWithSpan>) -> Vec<TokenWithSpan> {
    let is_rare = |token: &TokenWithSpan| matches!(keyword(token), Some(Keyword::ASOF | Keyword::GLOBAL));
    if !all.iter().any(is_rare) {
        return all;
    }
    let is_global_join = |index: usize| {
        keyword(&all[index]) == Some(Keyword::GLOBAL) && !is_name(&all, index) && begins_join(&all[index + 1..])
    };
    let kept = (0..all.len()).filter(|index| !is_global_join(*index));
    let mut kept: Vec<TokenWithSpan> = kept.map(|index| all[index].clone()).collect();
    for index in 0..kept.len() {
        let (before, after) = (index.checked_sub(1).map(|index| &kept[index]), &kept[index + 1..]);
        // `LEFT ASOF JOIN`, as in ClickHouse.
        let swapped =
            before.and_then(keyword) == Some(Keyword::LEFT) && after.first().and_then(keyword) == Some(Keyword::JOIN);
        let is_asof = keyword(&kept[index]) == Some(Keyword::ASOF) && !is_name(&kept, index);
        if !is_asof || !begins_join(after) || has_match_condition(after) {
            continue;
        }
        kept[index].token = Token::make_keyword("GLOBAL");
        if swapped {
            kept.swap(index - 1, index);
        }
    }
    kept
}

fn keyword(token: &TokenWithSpan) -> Option<Keyword> {
    match &token.token {
        Token::Word(word) if word.quote_style.is_none() => Some(word.keyword),
        _ => None,
    }
}

/// Whether a word stands where only a name can be.
fn is_name(all: &[TokenWithSpan], index: usize) -> bool {
    let Some(before) = index.checked_sub(1).map(|index| &all[index]) else {
        return false;
    };
    matches!(keyword(before), Some(Keyword::AS | Keyword::FROM | Keyword::JOIN))
        || matches!(before.token, Token::Period | Token::Comma)
}

/// Whether `[LEFT [OUTER] | INNER] JOIN` follows.
fn begins_join(after: &[TokenWithSpan]) -> bool {
    let keywords: Vec<Keyword> = after.iter().take(3).map_while(keyword).collect();
    matches!(
        keywords.as_slice(),
        [Keyword::JOIN, ..]
            | [Keyword::LEFT | Keyword::INNER, Keyword::JOIN, ..]
            | [Keyword::LEFT, Keyword::OUTER, Keyword::JOIN]
    )
}

/// Whether MATCH_CONDITION comes before ON or USING, outside of parentheses.
fn has_match_condition(after: &[TokenWithSpan]) -> bool {
    let mut depth = 0_usize;
    for token in after {
        match &token.token {
            Token::LParen => depth += 1,
            Token::RParen => match depth.checked_sub(1) {
                Some(outer) => depth = outer,
                None => return false,
            },
            _ if depth > 0 => {}
            _ => match keyword(token) {
                Some(Keyword::MATCH_CONDITION) => return true,
                Some(Keyword::ON | Keyword::USING | Keyword::ASOF) => return false,
                _ => {}
            },
        }
    }
    false
}
