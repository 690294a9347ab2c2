//! Texts of a statement as placeholders of its plan, so that the plan serves other texts too.
//!
//! A text is a literal with a number while the query is typed, because it may be read as a time or a number, or decide
//! which rules apply. If all texts of a statement are then compared with other texts, and with nothing else, they become
//! placeholders. The optimizer knows nothing of them but their type, so the plan does not depend on them. Scans get the
//! texts when they run. If the optimizer has moved a placeholder elsewhere, the plan gets its texts and serves no others.
//!
//! The plan of a search is made from its [template](plan::search::SearchTemplate), so its scan gets the tests in the same
//! way.

use std::{collections::BTreeMap, sync::Arc};

use datafusion::{
    arrow::datatypes::{DataType, Field},
    common::{
        Column, DFSchema, Result, ScalarValue,
        metadata::{FieldMetadata, ScalarAndMetadata},
        tree_node::{Transformed, TransformedResult as _, TreeNodeRecursion},
    },
    logical_expr::{
        BinaryExpr, Expr, ExprSchemable as _, LogicalPlan, Operator, expr::Placeholder, expr_rewriter::NamePreserver,
        utils::merge_schema,
    },
};
use plan::{
    ColumnSource,
    search::{Clause, Match},
    walk::{Walk as _, apply_expressions, apply_with_subqueries, map_expressions, transform_up_with_subqueries},
};

/// The texts of a statement, by number.
pub(super) type Texts = Arc<[String]>;

/// The key of a text's number in the metadata of its literal.
const NUMBER: &str = "rachis.text";
/// The name of a placeholder is this and its number.
const PREFIX: &str = "$text";

/// A text as a literal with its number.
pub(super) fn numbered(number: usize, text: &str) -> ScalarAndMetadata {
    let metadata = BTreeMap::from([(NUMBER.to_owned(), number.to_string())]);
    ScalarAndMetadata::new(ScalarValue::from(text), Some(FieldMetadata::new(metadata)))
}

/// Makes placeholders of the numbered literals of a typed plan, if it can serve other texts. Otherwise its literals lose
/// their numbers.
pub(super) fn with_placeholders(plan: LogicalPlan, texts: &Texts) -> Result<LogicalPlan> {
    if texts.is_empty() {
        return Ok(plan);
    }
    let mut placed = vec![0; texts.len()];
    let mut others = 0;
    let replaced = transform_up_with_subqueries(plan, &mut |node| {
        // The expressions of other operators name their columns.
        let is_condition = matches!(node, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
        let schema = merge_schema(&node.inputs());
        map_expressions(node, &mut |expr| {
            expr.transform_down(|expr| {
                others += usize::from(number(&expr).is_some());
                Ok(match is_condition {
                    true => compare_with_placeholders(expr, &schema, &mut placed),
                    false => Transformed::no(expr),
                })
            })
        })
    })?;
    match others == 0 && placed.iter().all(|count| *count == 1) {
        true => Ok(replaced.data),
        false => plan_with_texts(replaced.data, texts),
    }
}

/// Whether a plan has placeholders, and only in the conditions of its scans.
pub(super) fn are_only_in_scans(plan: &LogicalPlan) -> Result<bool> {
    let (mut in_scans, mut elsewhere) = (false, false);
    apply_with_subqueries(plan, &mut |node| {
        let found = match node {
            LogicalPlan::TableScan(_) => &mut in_scans,
            _ => &mut elsewhere,
        };
        apply_expressions(node, &mut |expr| {
            *found |= expr.exists(|expr| Ok(matches!(expr, Expr::Placeholder(_))))?;
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(in_scans && !elsewhere)
}

/// A plan with its texts instead of placeholders and numbered literals.
pub(super) fn plan_with_texts(plan: LogicalPlan, texts: &Texts) -> Result<LogicalPlan> {
    if texts.is_empty() {
        return Ok(plan);
    }
    let replaced = transform_up_with_subqueries(plan, &mut |node| {
        let names = NamePreserver::new(&node);
        let replaced = map_expressions(node, &mut |expr| {
            let name = names.save(&expr);
            Ok(with_texts(expr, texts)?.update_data(|expr| name.restore(expr)))
        })?;
        match replaced.transformed {
            true => replaced.map_data(LogicalPlan::recompute_schema),
            false => Ok(replaced),
        }
    })?;
    Ok(replaced.data)
}

/// A condition with its texts instead of placeholders.
pub(super) fn condition_with_texts(condition: &Expr, texts: &Texts) -> Result<Expr> {
    with_texts(condition.clone(), texts).data()
}

/// A condition with these tests instead of their places in the template of a search.
pub(super) fn condition_with_tests(condition: &Expr, tests: &[Match]) -> Result<Expr> {
    let with_test = |mut clause: Clause| {
        clause.matches = tests.get(clause.matches.place()?)?.clone();
        Some(clause)
    };
    let searched = |column: &Column| match plan::Column::parse(&column.name)?.source {
        ColumnSource::Search(clause) => Some(plan::Column::search(with_test(clause)?).name()),
        _ => None,
    };
    // The clause of `search_match`.
    let matched = |value: &ScalarValue| {
        let clause = with_test(serde_json::from_str(value.try_as_str()??).ok()?)?;
        serde_json::to_string(&clause).ok()
    };
    let replace = |expr: Expr| {
        let replaced = match &expr {
            Expr::Column(column) => searched(column).map(|name| Ok(Expr::Column(Column::new_unqualified(name)))),
            Expr::Literal(value, _) => matched(value).map(|clause| -> Result<Expr> {
                let clause = ScalarValue::from(clause).cast_to(&value.data_type())?;
                Ok(Expr::Literal(clause, None))
            }),
            _ => None,
        };
        replaced.map_or_else(|| Ok(Transformed::no(expr)), |replaced| replaced.map(Transformed::yes))
    };
    condition.clone().transform_up(replace).data()
}

fn with_texts(expr: Expr, texts: &Texts) -> Result<Transformed<Expr>> {
    expr.transform_up(|expr| {
        let literal = match &expr {
            Expr::Literal(value, _) if number(&expr).is_some() => Some(value.clone()),
            Expr::Placeholder(placeholder) => (placeholder.id.strip_prefix(PREFIX))
                .and_then(|number| texts.get(number.parse::<usize>().ok()?))
                .zip(placeholder.field.as_ref())
                .map(|(text, field)| ScalarValue::from(text.as_str()).cast_to(field.data_type()))
                .transpose()?,
            _ => None,
        };
        Ok(match literal {
            Some(literal) => Transformed::yes(Expr::Literal(literal, None)),
            None => Transformed::no(expr),
        })
    })
}

/// The number of a numbered literal.
fn number(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Literal(_, Some(metadata)) => metadata.inner().get(NUMBER)?.parse().ok(),
        _ => None,
    }
}

/// The number of a numbered literal, which may be cast to another type of texts.
fn compared_number(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Cast(cast) => number(&cast.expr),
        literal => number(literal),
    }
}

/// A comparison of texts with placeholders instead of its numbered literals. Counts them by number.
fn compare_with_placeholders(mut expr: Expr, schema: &DFSchema, placed: &mut [usize]) -> Transformed<Expr> {
    let text_type = |expr: &Expr| {
        let data_type = expr.get_type(schema).ok()?;
        matches!(data_type, DataType::Utf8 | DataType::Utf8View).then_some(data_type)
    };
    let compared: Vec<&mut Expr> = match &mut expr {
        Expr::BinaryExpr(BinaryExpr {
            left,
            op: Operator::Eq | Operator::NotEq,
            right,
        }) => match (compared_number(left), compared_number(right)) {
            (None, Some(_)) if text_type(left).is_some() => vec![right],
            (Some(_), None) if text_type(right).is_some() => vec![left],
            _ => Vec::new(),
        },
        Expr::InList(list) => {
            let has_number = list.list.iter().any(|item| compared_number(item).is_some());
            match has_number && compared_number(&list.expr).is_none() && text_type(&list.expr).is_some() {
                true => list.list.iter_mut().collect(),
                false => Vec::new(),
            }
        }
        _ => Vec::new(),
    };
    let mut replaced = false;
    for text in compared {
        let number = compared_number(text);
        let (Some((number, count)), Some(data_type)) = (
            number.and_then(|number| Some((number, placed.get_mut(number)?))),
            text_type(text),
        ) else {
            continue;
        };
        *count += 1;
        *text = Expr::Placeholder(Placeholder::new_with_field(
            format!("{PREFIX}{number}"),
            Some(Arc::new(Field::new("", data_type, false))),
        ));
        replaced = true;
    }
    Transformed::new_transformed(expr, replaced)
}
