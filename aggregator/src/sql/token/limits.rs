//! Limits the nesting of a statement and its operator chains, by counting tokens.

use datafusion::sql::sqlparser::{
    keywords::Keyword,
    tokenizer::{Token, TokenWithSpan},
};
use proto::Problem;

use super::too_complex;

/// Nesting of parentheses, brackets and CASE.
const NESTING_MAX: usize = 50;
/// ANDs and ORs in one expression, and other operators in one of their operands. A comma or a clause keyword ends an
/// expression.
const OPERATORS_MAX: usize = 1_000;
/// Operators from the top of an expression down to its deepest part, including those in parentheses.
const OPERATORS_DEEP_MAX: usize = 2 * OPERATORS_MAX;
/// The squares of the lengths of all chains of operators, in sum: three chains of 1,000 or three hundred of 100. Planning
/// hashes and compares each operator with everything below it.
const CHAIN_SQUARES_MAX: usize = 3_000_000;
/// Dots in one name: a collection, and a path into a document, which has at most 100 levels. The parser reads the rest of
/// a name anew at each dot.
const DOTS_MAX: usize = 200;
/// UNION, EXCEPT and INTERSECT at one level of nesting.
const SET_OPERATIONS_MAX: usize = 200;

/// Checks nesting and the length of operator chains.
pub(super) fn check_limits(all: &[TokenWithSpan]) -> Result<(), Problem> {
    let mut levels = vec![Level::default()];
    let (mut dots, mut squares) = (0, 0);
    for (index, token) in all.iter().enumerate() {
        let at = token.span.start;
        if token.token == Token::Period {
            let continues = index > 1 && all[index - 2].token == Token::Period;
            dots = if continues { dots + 1 } else { 1 };
            check_dots(dots).map_err(|problem| problem.at(at.line, at.column))?;
        }
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
            levels.push(Level {
                case,
                ..Level::default()
            });
            check_nesting(&levels).map_err(|problem| problem.at(at.line, at.column))?;
        }
        let nested = if closes && levels.len() > 1 {
            squares += levels.last().map_or(0, Level::square);
            levels.pop().map_or(0, |level| level.depth())
        } else {
            0
        };
        let Some(level) = levels.last_mut() else { continue };
        level.nested = level.nested.max(nested);
        match role(&token.token) {
            Role::Operator => level.operators += 1,
            Role::Connective => {
                squares += level.square();
                level.next_operand();
            }
            Role::SetOperation => level.set_operations += 1,
            Role::Boundary => {
                squares += level.square();
                level.next_expression();
            }
            Role::Plain => {}
        }
        level.check().map_err(|problem| problem.at(at.line, at.column))?;
        check_squares(squares).map_err(|problem| problem.at(at.line, at.column))?;
    }
    Ok(())
}

/// Checks the lengths of all chains together.
fn check_squares(squares: usize) -> Result<(), Problem> {
    if squares > CHAIN_SQUARES_MAX {
        return Err(too_complex(
            "the statement has too many long chains of operators".into(),
            "use fewer operators in one expression, or IN (…) for a list".into(),
        ));
    }
    Ok(())
}

/// Checks the length of a name.
fn check_dots(dots: usize) -> Result<(), Problem> {
    if dots > DOTS_MAX {
        return Err(too_complex(
            format!("a name has more than {DOTS_MAX} dots"),
            "write a key that contains dots in double quotes".into(),
        ));
    }
    Ok(())
}

/// Checks how deeply the innermost level is nested.
fn check_nesting(levels: &[Level]) -> Result<(), Problem> {
    if levels.len() - 1 > NESTING_MAX {
        return Err(too_complex(
            format!("the statement is nested more than {NESTING_MAX} levels deep"),
            "split the statement with WITH".into(),
        ));
    }
    Ok(())
}

/// Counts for one level of nesting.
#[derive(Default)]
struct Level {
    /// ANDs and ORs since the last comma or clause.
    connectives: usize,
    /// Other operators since the last comma, clause, AND or OR.
    operators: usize,
    /// The depth of the deepest parentheses in the current operand of AND or OR.
    nested: usize,
    /// The depth of the deepest operand before the last AND or OR of the current expression.
    deepest_operand: usize,
    /// The depth of the deepest expression before the last comma or clause.
    deepest_expression: usize,
    set_operations: usize,
    /// Whether it is a CASE, which END closes.
    case: bool,
}

impl Level {
    /// The number of operators down to the deepest part.
    fn depth(&self) -> usize {
        self.deepest_expression
            .max(self.connectives + self.deepest_operand.max(self.operators + self.nested))
    }

    /// The square of the length of the current chain of operators.
    fn square(&self) -> usize {
        match self.operators {
            0 => 0,
            operators => (operators + self.nested).pow(2),
        }
    }

    /// Begins the operand after an AND or OR.
    fn next_operand(&mut self) {
        self.deepest_operand = self.deepest_operand.max(self.operators + self.nested);
        (self.connectives, self.operators, self.nested) = (self.connectives + 1, 0, 0);
    }

    /// Begins the expression after a comma or a clause keyword.
    fn next_expression(&mut self) {
        self.deepest_expression = self.depth();
        (self.connectives, self.deepest_operand, self.operators, self.nested) = (0, 0, 0, 0);
    }

    /// Checks the number of operators and set operations.
    fn check(&self) -> Result<(), Problem> {
        if self.depth() > OPERATORS_DEEP_MAX {
            return Err(too_complex(
                format!("operators are nested more than {OPERATORS_DEEP_MAX} levels deep"),
                "move a part of the expression to a WITH query".into(),
            ));
        }
        if self.operators.max(self.connectives) > OPERATORS_MAX {
            return Err(too_complex(
                format!("an expression has more than {OPERATORS_MAX} operators"),
                "use IN (…) or VALUES for a long list".into(),
            ));
        }
        if self.set_operations > SET_OPERATIONS_MAX {
            return Err(too_complex(
                format!("a query has more than {SET_OPERATIONS_MAX} set operations"),
                "use VALUES for a long list".into(),
            ));
        }
        Ok(())
    }
}

/// The role of a token in the operator counts.
enum Role {
    Operator,
    /// AND or OR.
    Connective,
    SetOperation,
    /// A comma or clause keyword, which ends an expression.
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
            | Keyword::WHEN
            | Keyword::THEN
            | Keyword::ELSE
            | Keyword::ON => Role::Boundary,
            Keyword::UNION | Keyword::EXCEPT | Keyword::INTERSECT => Role::SetOperation,
            Keyword::AND | Keyword::OR => Role::Connective,
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
