//! Rewrites operators and conditions.

use datafusion::sql::sqlparser::ast::{BinaryOperator as Op, Expr, UnaryOperator};
use proto::Problem;

use super::{
    problem::{bad, not_offered},
    value::{call, text_literal},
};

/// Rewrites a binary operator: chains of AND and OR are balanced, and some operators become calls.
pub(super) fn rewrite_binary(node: Expr) -> Result<Expr, Problem> {
    if let Expr::BinaryOp {
        op: op @ (Op::And | Op::Or),
        ..
    } = &node
    {
        let parts = operands(&node, op)
            .into_iter()
            .map(|part| operand(truth(part.clone())))
            .collect();
        return balanced(parts, op).ok_or_else(|| bad("a condition is missing"));
    }
    let (left, op, right) = match node {
        Expr::BinaryOp { left, op, right } => (left, op, right),
        other => return Ok(other),
    };
    match &op {
        Op::PGCustomBinaryOperator(name) => match name.as_slice() {
            [name] if name == "is_distinct" || name == "is_not_distinct" => Ok(call(name, vec![*left, *right])),
            _ => Err(not_offered("OPERATOR(…)")),
        },
        Op::PGExp => Ok(call("power", vec![*left, *right])),
        Op::PGStartsWith => Ok(call("starts_with", vec![*left, *right])),
        _ => {
            check_operator(&op)?;
            Ok(Expr::BinaryOp { left, op, right })
        }
    }
}

/// The literal pattern of a match of a regular expression.
pub(super) fn matched_pattern(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::BinaryOp {
            op: Op::PGRegexMatch | Op::PGRegexIMatch | Op::PGRegexNotMatch | Op::PGRegexNotIMatch,
            right,
            ..
        } => text_literal(right),
        _ => None,
    }
}

/// Rewrites a unary operator: the operand of NOT is a condition, and signs of computed values become calls.
pub(super) fn rewrite_unary(op: UnaryOperator, expr: Box<Expr>) -> Result<Expr, Problem> {
    match op {
        UnaryOperator::Not => Ok(Expr::UnaryOp {
            op: UnaryOperator::Not,
            expr: Box::new(truth(*expr)),
        }),
        UnaryOperator::Minus if matches!(*expr, Expr::Value(_) | Expr::Interval(_)) => Ok(Expr::UnaryOp {
            op: UnaryOperator::Minus,
            expr,
        }),
        UnaryOperator::Minus => Ok(call("negative", vec![*expr])),
        UnaryOperator::Plus => Ok(call("positive", vec![*expr])),
        op => Err(not_offered(format!("the operator {op}"))),
    }
}

/// Makes a condition of an expression, unless it can be nothing else.
pub(super) fn truth(expr: Expr) -> Expr {
    match expr {
        Expr::Nested(inner) => nested(truth(*inner)),
        Expr::BinaryOp { left, op, right } if is_condition(&op) => Expr::BinaryOp { left, op, right },
        condition @ (Expr::UnaryOp {
            op: UnaryOperator::Not, ..
        }
        | Expr::IsNull(_)
        | Expr::IsNotNull(_)
        | Expr::IsTrue(_)
        | Expr::IsNotTrue(_)
        | Expr::IsFalse(_)
        | Expr::IsNotFalse(_)
        | Expr::IsUnknown(_)
        | Expr::IsNotUnknown(_)
        | Expr::IsDistinctFrom(..)
        | Expr::IsNotDistinctFrom(..)
        | Expr::InList { .. }
        | Expr::InSubquery { .. }
        | Expr::Between { .. }
        | Expr::Like { .. }
        | Expr::ILike { .. }
        | Expr::SimilarTo { .. }
        | Expr::AnyOp { .. }
        | Expr::AllOp { .. }
        | Expr::Exists { .. }) => condition,
        other => call("truth", vec![other]),
    }
}

/// Whether the result of an operator is a condition.
fn is_condition(op: &Op) -> bool {
    !matches!(
        op,
        Op::Plus
            | Op::Minus
            | Op::Multiply
            | Op::Divide
            | Op::Modulo
            | Op::StringConcat
            | Op::PGExp
            | Op::BitwiseAnd
            | Op::BitwiseOr
            | Op::BitwiseXor
            | Op::PGBitwiseXor
            | Op::PGBitwiseShiftLeft
            | Op::PGBitwiseShiftRight
            | Op::Arrow
            | Op::LongArrow
            | Op::HashArrow
            | Op::HashLongArrow
    )
}

fn check_operator(op: &Op) -> Result<(), Problem> {
    let known = is_condition(op) || !matches!(op, Op::Arrow | Op::LongArrow | Op::HashArrow | Op::HashLongArrow);
    let refused = matches!(
        op,
        Op::Xor
            | Op::Spaceship
            | Op::MyIntegerDivide
            | Op::DuckIntegerDivide
            | Op::Custom(_)
            | Op::PGCustomBinaryOperator(_)
    ) || matches!(
        op,
        Op::AtArrow
            | Op::ArrowAt
            | Op::AtQuestion
            | Op::AtAt
            | Op::Question
            | Op::QuestionAnd
            | Op::QuestionPipe
            | Op::HashMinus
    ) || matches!(
        op,
        Op::PGOverlap | Op::Overlaps | Op::Assignment | Op::Match | Op::Regexp
    );
    match known && !refused {
        true => Ok(()),
        false => Err(not_offered(format!("the operator {op}"))
            .hint("use -> and ->> to read inside documents, search('…') to look inside lists")),
    }
}

/// The operands of a chain of one operator, first to last.
pub(super) fn operands<'e>(expr: &'e Expr, op: &Op) -> Vec<&'e Expr> {
    let mut operands = Vec::new();
    let mut at = expr;
    while let Expr::BinaryOp { left, op: same, right } = at
        && same == op
    {
        operands.push(&**right);
        at = left;
    }
    operands.push(at);
    operands.reverse();
    operands
}

/// Combines conditions with AND or OR to a balanced tree: every later walk of a deep chain would need a deep stack.
pub(super) fn balanced(mut conditions: Vec<Expr>, op: &Op) -> Option<Expr> {
    while conditions.len() > 1 {
        let mut next = Vec::with_capacity(conditions.len().div_ceil(2));
        let mut pairs = conditions.into_iter();
        while let Some(left) = pairs.next() {
            next.push(match pairs.next() {
                Some(right) => binary(operand(left), op.clone(), operand(right)),
                None => left,
            });
        }
        conditions = next;
    }
    conditions.pop()
}

/// `left op right`.
pub(super) fn binary(left: Expr, op: Op, right: Expr) -> Expr {
    Expr::BinaryOp {
        left: Box::new(left),
        op,
        right: Box::new(right),
    }
}

/// Puts an expression in parentheses, unless it never needs them.
pub(super) fn nested(expr: Expr) -> Expr {
    match expr {
        atom @ (Expr::Nested(_) | Expr::Value(_) | Expr::CompoundIdentifier(_) | Expr::Function(_)) => atom,
        other => Expr::Nested(Box::new(other)),
    }
}

/// Puts AND and OR in parentheses, so that another AND or OR does not regroup them.
fn operand(expr: Expr) -> Expr {
    match expr {
        Expr::BinaryOp {
            op: Op::And | Op::Or, ..
        } => Expr::Nested(Box::new(expr)),
        other => other,
    }
}
