//! Texts of a statement as parameters of its plan: `WHERE id = 'a'` and `WHERE id = 'b'` have the same plan, but for the
//! text. So have `WHERE id = $1` with different texts.
//!
//! A statement shares its plan only if its syntax says that each of its texts is compared for equality. The shared plan
//! is made for marks instead of the texts, so nothing else can be equal to one of them. It is kept only if each mark
//! occurs in it exactly once, in a condition that a leaf evaluates and that compares a column of texts with it. So
//! nothing else in the plan depends on the texts: one that is read as a time or a number, or that decides which rules
//! apply, is no such literal any more.

use std::{collections::HashMap, ops::Range, sync::Arc};

use datafusion::{
    common::tree_node::{TreeNode as _, TreeNodeRecursion},
    logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator},
    physical_plan::ExecutionPlan,
};
use plan::{Column, Type};
use serde_json::Value;

use super::{plan_walk::each_node, shard_scan::ShardScan};
use crate::{answer::SqlQuery, sql};

/// A statement that is longer, in bytes with its parameters, has no plan in the cache.
const STATEMENT_BYTES_MAX: usize = 8 << 10;
/// A statement with more texts has a plan for each list of them.
const TEXTS_MAX: usize = 16;
/// Longer texts are not replaced: some rules leave long constants alone.
const TEXT_BYTES_MAX: usize = 1_000;
/// Takes the place of a text in the key of a shape. The statement has none.
const PLACE: char = '\0';
/// A mark begins with this.
const MARK: &str = "text 6d1f0c5e-9f0b-4f0e-8f39-3d1c9b7a5e21 ";

/// A statement of which only the texts differ from others.
pub(super) struct StatementShape<'r> {
    request: &'r SqlQuery,
    /// Where its quoted texts are.
    spans: Vec<Range<usize>>,
    /// Which parameters are texts.
    parameters: Vec<usize>,
    /// The quoted texts, and then the parameters.
    pub texts: Vec<String>,
}

impl<'r> StatementShape<'r> {
    /// The shape of a statement with texts, if its syntax allows others instead.
    pub(super) fn of(request: &'r SqlQuery) -> Option<Self> {
        if !may_be_kept(request) || request.sql.contains(PLACE) {
            return None;
        }
        let (mut spans, mut texts) = (Vec::new(), Vec::new());
        // How often each parameter is used, and whether it is always compared.
        let mut uses = vec![(0, true); request.parameters.len()];
        for text in sql::texts(&request.sql)? {
            match text.parameter {
                Some(name) => {
                    let number = name.strip_prefix('$')?.parse::<usize>().ok()?.checked_sub(1)?;
                    let (count, compared) = uses.get_mut(number)?;
                    *count += 1;
                    *compared &= text.is_compared;
                }
                None if text.is_compared => {
                    spans.push(text.span);
                    texts.push(text.text);
                }
                None => return None,
            }
        }
        let mut parameters = Vec::new();
        for (number, value) in request.parameters.iter().enumerate() {
            if let Value::String(text) = value {
                if uses[number] != (1, true) {
                    return None;
                }
                parameters.push(number);
                texts.push(text.clone());
            }
        }
        let fits = (1..=TEXTS_MAX).contains(&texts.len()) && texts.iter().all(|text| text.len() <= TEXT_BYTES_MAX);
        fits.then_some(Self {
            request,
            spans,
            parameters,
            texts,
        })
    }

    /// The statement and its parameters without the texts. No statement that is kept with its texts has the same.
    pub(super) fn key(&self) -> (String, String) {
        let (sql, parameters) = self.with_texts(|_| PLACE.to_string(), |_| Value::Null);
        (
            sql,
            format!("{PLACE}{}", serde_json::json!([self.parameters, parameters])),
        )
    }

    /// The statement with a mark instead of each text, and these marks.
    pub(super) fn marked(&self) -> (SqlQuery, Vec<String>) {
        let mark = |number: usize| format!("{MARK}{number}");
        let (sql, parameters) = self.with_texts(|number| format!("'{}'", mark(number)), |number| mark(number).into());
        let request = SqlQuery {
            sql,
            parameters,
            options: self.request.options.clone(),
        };
        (request, (0..self.texts.len()).map(mark).collect())
    }

    /// The statement and its parameters with other texts, by number.
    fn with_texts(&self, quoted: impl Fn(usize) -> String, parameter: impl Fn(usize) -> Value) -> (String, Vec<Value>) {
        let (mut sql, mut from) = (String::with_capacity(self.request.sql.len()), 0);
        for (number, span) in self.spans.iter().enumerate() {
            sql.push_str(&self.request.sql[from..span.start]);
            sql.push_str(&quoted(number));
            from = span.end;
        }
        sql.push_str(&self.request.sql[from..]);
        let mut parameters = self.request.parameters.clone();
        for (number, index) in (self.spans.len()..).zip(&self.parameters) {
            parameters[*index] = parameter(number);
        }
        (sql, parameters)
    }
}

/// Whether a statement is short enough, with its parameters.
pub(super) fn may_be_kept(request: &SqlQuery) -> bool {
    let parameters = request.parameters.iter().map(|value| match value {
        Value::String(text) => text.len(),
        // Such a parameter is refused.
        Value::Array(_) | Value::Object(_) => STATEMENT_BYTES_MAX,
        _ => size_of::<Value>(),
    });
    request.sql.len() + parameters.sum::<usize>() <= STATEMENT_BYTES_MAX
}

/// Whether a plan for these marks can be used for texts instead.
pub(super) fn are_replaceable(marks: &[String], logical: &LogicalPlan, physical: &Arc<dyn ExecutionPlan>) -> bool {
    let mut counts: HashMap<&str, Occurrences> = (marks.iter())
        .map(|mark| (mark.as_str(), Occurrences::default()))
        .collect();
    let in_logical = each_node(logical, |expr| {
        if let Some(counted) = expr.and_then(text).and_then(|text| counts.get_mut(text)) {
            counted.in_plan += 1;
        }
        true
    });
    let in_scans = physical.apply(|node| {
        for condition in node
            .downcast_ref::<ShardScan>()
            .into_iter()
            .flat_map(|scan| &scan.filter)
        {
            condition.apply(|expr| {
                for text in compared_texts(expr) {
                    if let Some(counted) = counts.get_mut(text) {
                        counted.compared += 1;
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    let once = Occurrences {
        in_plan: 1,
        compared: 1,
    };
    in_logical.is_ok() && in_scans.is_ok() && counts.values().all(|counted| *counted == once)
}

#[derive(Default, PartialEq)]
struct Occurrences {
    in_plan: usize,
    /// In comparisons of scans.
    compared: usize,
}

/// The texts that an expression compares with a column of texts for equality.
fn compared_texts(expr: &Expr) -> Vec<&str> {
    let is_column = |expr: &Expr| match expr {
        Expr::Column(column) => Column::parse(&column.name).is_some_and(|column| column.read_as.to == Type::Text),
        _ => false,
    };
    match expr {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq | Operator::NotEq,
            right,
        }) => match (is_column(left), is_column(right)) {
            (true, _) => text(right).into_iter().collect(),
            (_, true) => text(left).into_iter().collect(),
            _ => Vec::new(),
        },
        Expr::InList(list) if is_column(&list.expr) => list.list.iter().filter_map(text).collect(),
        _ => Vec::new(),
    }
}

fn text(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        _ => None,
    }
}
