//! Resolves steps into documents and lists: subscripts, dots and arrows.

use datafusion::sql::sqlparser::{
    ast::{AccessExpr, BinaryOperator as Op, Expr, Subscript, Value as Literal, ValueWithSpan},
    tokenizer::Span,
};
use plan::path::Step;
use proto::Problem;

use super::{
    problem::{bad, not_offered},
    resolver::Resolver,
    scope::{SpelledName, steps},
    value::{Value, call, text_literal},
};

impl Resolver<'_> {
    /// Resolves `items[0].sku`, and a subscript of any other expression.
    pub(super) fn access(&mut self, root: &Expr, chain: &[AccessExpr]) -> Result<Value, Problem> {
        let further: Option<Vec<Step>> = chain.iter().map(access_step).collect();
        match (root, further) {
            (Expr::Identifier(_) | Expr::CompoundIdentifier(_), Some(further)) => {
                let idents = match root {
                    Expr::Identifier(ident) => std::slice::from_ref(ident),
                    Expr::CompoundIdentifier(idents) => idents,
                    _ => &[],
                };
                let span = idents.first().map_or(Span::empty(), |ident| ident.span);
                let path: Vec<Step> = steps(idents).into_iter().chain(further).collect();
                self.resolve_name(&SpelledName { steps: path, span })
            }
            (_, Some(further)) => {
                let value = self.value(root)?;
                self.descend(value, further)
            }
            (_, None) => {
                let root = Box::new(self.expression(root)?);
                let chain = chain
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
            AccessExpr::Dot(_) => Err(not_offered("a name after this expression")),
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
