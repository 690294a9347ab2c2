//! Resolves steps into documents and lists: subscripts, dots and arrows.

use datafusion::sql::sqlparser::ast::{
    AccessExpr, BinaryOperator as Op, Expr, Subscript, UnaryOperator, Value as Literal, ValueWithSpan,
};
use plan::path::Step;
use proto::{Code, Problem};

use super::{
    problem::{bad, not_offered, shortened},
    resolver::Resolver,
    scope::{SpelledName, steps},
    value::{Value, call, literal, text_literal},
};

impl Resolver<'_> {
    /// Resolves `items[0].sku`, and a subscript of any other expression.
    pub(super) fn access(&mut self, root: &Expr, chain: &[AccessExpr]) -> Result<Value, Problem> {
        let further: Vec<Step> = chain.iter().map_while(access_step).collect();
        let rest = &chain[further.len()..];
        let idents = match root {
            Expr::Identifier(ident) => std::slice::from_ref(ident),
            Expr::CompoundIdentifier(idents) => idents,
            _ => &[],
        };
        // The longest path: its first steps may be those of an alias or a field.
        let first = |resolver: &mut Self| match idents.first() {
            Some(ident) => {
                let path: Vec<Step> = steps(idents).into_iter().chain(further.clone()).collect();
                resolver.resolve_name(&SpelledName {
                    steps: path,
                    span: ident.span,
                })
            }
            None => {
                let value = resolver.value(root)?;
                resolver.descend_by(value, further.clone())
            }
        };
        match rest {
            [] => first(self),
            rest => {
                let is_known = |access: &AccessExpr| access_step(access).is_some() || number_from_end(access).is_some();
                let value = first(self)?;
                let is_stored = matches!(&value, Value::Path(path) if path.stored().is_some());
                if is_stored || rest.iter().all(is_known) {
                    let before: String = chain[..further.len()].iter().map(ToString::to_string).collect();
                    let list = shortened(&format!("{root}{before}"));
                    return self.access_from_end(value, &list, rest);
                }
                let root = Box::new(self.lower(value));
                let chain = rest
                    .iter()
                    .map(|access| self.subscript(access))
                    .collect::<Result<_, _>>()?;
                Ok(Value::Expr(Expr::CompoundFieldAccess {
                    root,
                    access_chain: chain,
                }))
            }
        }
    }

    /// Resolves a chain that begins with `[-1]`, the last item of a list, and goes on with steps.
    fn access_from_end(&mut self, mut value: Value, list: &str, chain: &[AccessExpr]) -> Result<Value, Problem> {
        let (mut rest, mut from_end) = (chain, 0);
        while let [access, after @ ..] = rest {
            let number = number_from_end(access).ok_or_else(|| no_subscript(list, access))?;
            from_end += 1;
            if from_end > FROM_END_MAX {
                let detail = format!("a path has more than {FROM_END_MAX} indexes from the end");
                return Err(Problem::new(Code::TooComplex, detail).hint("take the inner list in a subquery"));
            }
            let items = call("items", vec![self.lower(value)]);
            let index = Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr: Box::new(literal(number)),
            };
            let steps: Vec<Step> = after.iter().map_while(access_step).collect();
            rest = &after[steps.len()..];
            value = self.descend_by(Value::Expr(call("array_element", vec![items, index])), steps)?;
        }
        Ok(value)
    }

    /// A value, or what is at some steps inside it.
    fn descend_by(&mut self, value: Value, steps: Vec<Step>) -> Result<Value, Problem> {
        match steps.is_empty() {
            true => Ok(value),
            false => self.descend(value, steps),
        }
    }

    fn subscript(&mut self, access: &AccessExpr) -> Result<AccessExpr, Problem> {
        match access {
            AccessExpr::Subscript(Subscript::Index { index }) => Ok(AccessExpr::Subscript(Subscript::Index {
                index: self.expression(index)?,
            })),
            AccessExpr::Subscript(Subscript::Slice {
                lower_bound,
                upper_bound,
                stride,
            }) => {
                let mut bound = |e: &Option<Expr>| e.as_ref().map(|e| self.expression(e)).transpose();
                Ok(AccessExpr::Subscript(Subscript::Slice {
                    lower_bound: bound(lower_bound)?,
                    upper_bound: bound(upper_bound)?,
                    stride: bound(stride)?,
                }))
            }
            AccessExpr::Dot(_) => Err(not_offered("a name after this expression")
                .hint("name the expression in a subquery: SELECT t.item.name FROM (SELECT … AS item FROM …) AS t")),
        }
    }

    /// Resolves `_doc->'a'->>'b'`, `tags->0`, `_doc#>>'{a,b}'`.
    pub(super) fn arrow(&mut self, left: &Expr, op: &Op, right: &Expr) -> Result<Value, Problem> {
        let value = self.value(left)?;
        let key = match right {
            Expr::Value(value) => self.literal(value)?,
            other => other.clone(),
        };
        let steps = match op {
            Op::HashArrow | Op::HashLongArrow => {
                let list = text_literal(&key)
                    .ok_or_else(|| bad(format!("{op} takes a list of keys")).hint("write _doc #>> '{user,name}'"))?;
                let parts = list.trim().trim_start_matches('{').trim_end_matches('}').split(',');
                parts
                    .map(|part| part.trim().trim_matches('"'))
                    .filter(|p| !p.is_empty())
                    .map(text_step)
                    .collect()
            }
            _ if let Some(path) = text_literal(&key).filter(|path| path.starts_with(JSON_PATH)) => json_path(path)
                .ok_or_else(|| {
                    bad(format!("the JSON path {path} is not supported"))
                        .hint("write '$.user.name' or '$.items[0].sku'; unnest lists to look at all their items")
                })?,
            _ => vec![arrow_step(&key).ok_or_else(|| {
                bad(format!("{right} is neither a key nor an index"))
                    .hint("write _doc->'key' or tags->0; a path cannot be computed from data")
            })?],
        };
        let value = self.descend(value, steps)?;
        if matches!(op, Op::LongArrow | Op::HashLongArrow) {
            let expr = self.lower(value);
            return Ok(Value::Expr(call("as_text", vec![expr])));
        }
        Ok(value)
    }
}

/// Indexes from the end in one path. Each makes the expression deeper.
const FROM_END_MAX: usize = 10;

/// The number of an item, counted from the end: 1 for `[-1]`.
fn number_from_end(access: &AccessExpr) -> Option<Literal> {
    match access {
        AccessExpr::Subscript(Subscript::Index {
            index: Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            },
        }) => match &**expr {
            Expr::Value(ValueWithSpan {
                value: number @ Literal::Number(..),
                ..
            }) => Some(number.clone()),
            _ => None,
        },
        _ => None,
    }
}

/// The error for a subscript of a list in documents that is no step of a path.
fn no_subscript(list: &str, access: &AccessExpr) -> Problem {
    match access {
        AccessExpr::Subscript(Subscript::Slice { .. }) => {
            let hint = format!("write array_slice({list}, 1, 2), which counts from 1 and includes both ends");
            not_offered(format!("a slice of {list}, a list in documents,")).hint(hint)
        }
        AccessExpr::Subscript(Subscript::Index { .. }) => {
            let hint = format!("write array_element({list}, n::int), which counts from 1");
            not_offered(format!("a computed index of {list}, a list in documents,")).hint(hint)
        }
        AccessExpr::Dot(_) => {
            not_offered(format!("a name like this after {list}")).hint("write path.name, or path.\"odd name\"")
        }
    }
}

fn access_step(access: &AccessExpr) -> Option<Step> {
    match access {
        AccessExpr::Dot(Expr::Identifier(ident)) => Some(Step::Key(ident.value.as_str().into())),
        AccessExpr::Dot(_) => None,
        AccessExpr::Subscript(Subscript::Index { index }) => arrow_step(index),
        AccessExpr::Subscript(Subscript::Slice { .. }) => None,
    }
}

fn arrow_step(expr: &Expr) -> Option<Step> {
    match expr {
        Expr::Value(ValueWithSpan {
            value: Literal::Number(digits, _),
            ..
        }) => digits.parse().ok().map(Step::Index),
        Expr::Nested(inner) => arrow_step(inner),
        other => text_literal(other).map(|key| Step::Key(key.into())),
    }
}

/// How a JSON path begins.
const JSON_PATH: char = '$';

/// The steps of a JSON path of keys and indexes: `$.items[0]."odd key"`. None for any other path.
pub(crate) fn json_path(path: &str) -> Option<Vec<Step>> {
    let (mut rest, mut steps) = (path.trim().strip_prefix(JSON_PATH)?, Vec::new());
    while !rest.is_empty() {
        let (step, after) = if let Some(quoted) = rest.strip_prefix(".\"") {
            let (key, after) = quoted.split_once('"')?;
            (Step::Key(key.into()), after)
        } else if let Some(name) = rest.strip_prefix('.') {
            let end = name.find(['.', '[']).unwrap_or(name.len());
            let (key, after) = name.split_at(end);
            (Step::Key(key.into()), after)
        } else {
            let (inside, after) = rest.strip_prefix('[')?.split_once(']')?;
            let quoted = ['"', '\'']
                .iter()
                .find_map(|quote| inside.strip_prefix(*quote)?.strip_suffix(*quote));
            let step = match quoted {
                Some(key) => Step::Key(key.into()),
                None => Step::Index(inside.parse().ok()?),
            };
            (step, after)
        };
        if matches!(&step, Step::Key(key) if key.is_empty() || &**key == "*") {
            return None;
        }
        steps.push(step);
        rest = after;
    }
    Some(steps)
}

fn text_step(part: &str) -> Step {
    part.parse().map_or_else(|_| Step::Key(part.into()), Step::Index)
}
