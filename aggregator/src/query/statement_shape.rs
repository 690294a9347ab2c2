//! Statements that differ in their texts only: `WHERE id = 'a'` and `WHERE id = 'b'` have the same plan, but for the
//! text. So have `WHERE id = $1` with different texts.
//!
//! A statement has a shape only if its syntax says that each of its texts is compared for equality. Then these texts
//! become parameters before names are resolved, so nothing but the types of a query can depend on them. Whether the plan
//! serves other texts is decided when it is typed, see [`placeholders`](super::placeholders).

use std::{collections::HashSet, ops::Range, sync::Arc};

use datafusion::{
    common::{ParamValues, ScalarValue, metadata::ScalarAndMetadata},
    sql::sqlparser::tokenizer::Location,
};
use proto::{Code, Problem};
use serde_json::Value;

use super::placeholders::{Texts, numbered};
use crate::{answer::SqlQuery, sql};

/// A statement that is longer, in bytes with its parameters, has no plan in the cache.
const STATEMENT_BYTES_MAX: usize = 8 << 10;
/// A statement with more texts has a plan for each list of them.
const TEXTS_MAX: usize = 16;
/// Longer texts are not replaced: some rules leave long constants alone.
const TEXT_BYTES_MAX: usize = 1_000;
/// Takes the place of a text in the key of a shape. The statement has none.
const PLACE: char = '\0';

/// A statement with its parameters as JSON, or what is left of both without the texts.
pub(super) type StatementKey = (String, String);

/// A statement without its texts, and these.
pub(super) struct StatementShape {
    /// No statement that is cached with its texts has the same.
    pub key: StatementKey,
    /// Where the quoted texts begin.
    pub quoted: Vec<Location>,
    /// Which parameters are texts.
    parameters: Vec<usize>,
    /// The quoted texts, and then the parameters.
    pub texts: Texts,
}

impl StatementShape {
    /// The shape of a statement with texts, if its syntax allows others instead.
    pub(super) fn of(request: &SqlQuery) -> Option<Self> {
        if !may_be_kept(request) || request.sql.contains(PLACE) {
            return None;
        }
        let (mut quoted, mut spans, mut texts) = (Vec::new(), Vec::new(), Vec::new());
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
                    quoted.push(text.start);
                    spans.push(text.span);
                    texts.push(text.text);
                }
                None => return None,
            }
        }
        // Equal texts may make expressions equal, for example one that is selected and grouped by.
        if texts.iter().collect::<HashSet<_>>().len() < texts.len() {
            return None;
        }
        let (mut parameters, mut others) = (Vec::new(), request.parameters.clone());
        for (number, value) in request.parameters.iter().enumerate() {
            if let Value::String(text) = value {
                if uses[number] != (1, true) {
                    return None;
                }
                parameters.push(number);
                others[number] = Value::Null;
                texts.push(text.clone());
            }
        }
        let fits = (1..=TEXTS_MAX).contains(&texts.len()) && texts.iter().all(|text| text.len() <= TEXT_BYTES_MAX);
        fits.then(|| Self {
            key: (
                without(&request.sql, &spans),
                format!("{PLACE}{}", serde_json::json!([parameters, others])),
            ),
            quoted,
            parameters,
            texts: texts.into(),
        })
    }
}

/// A statement without its texts.
fn without(sql: &str, texts: &[Range<usize>]) -> String {
    let (mut rest, mut from) = (String::with_capacity(sql.len()), 0);
    for text in texts {
        rest.push_str(&sql[from..text.start]);
        rest.push(PLACE);
        from = text.end;
    }
    rest.push_str(&sql[from..]);
    rest
}

/// The key of a statement that is short enough, with its texts.
pub(super) fn key(request: &SqlQuery) -> Option<StatementKey> {
    if !may_be_kept(request) {
        return None;
    }
    let parameters = match request.parameters.as_slice() {
        [] => String::new(),
        parameters => serde_json::to_string(parameters).ok()?,
    };
    Some((request.sql.clone(), parameters))
}

/// Whether a statement is short enough, with its parameters. One that returns all rows has another plan, and is rare.
fn may_be_kept(request: &SqlQuery) -> bool {
    if request.all_rows {
        return false;
    }
    let parameters = request.parameters.iter().map(|value| match value {
        Value::String(text) => text.len(),
        Value::Array(_) => value.to_string().len(),
        // Such a parameter is refused.
        Value::Object(_) => STATEMENT_BYTES_MAX,
        _ => size_of::<Value>(),
    });
    request.sql.len() + parameters.sum::<usize>() <= STATEMENT_BYTES_MAX
}

/// The values of a statement's parameters, and behind them the quoted texts that have become parameters.
#[derive(Default)]
pub(super) struct StatementValues {
    values: Vec<ScalarAndMetadata>,
    /// The texts of its shape, if it has one.
    pub texts: Texts,
}

impl StatementValues {
    /// Values without texts of a shape.
    pub(super) fn of_parameters(parameters: &[Value]) -> Result<Self, Problem> {
        let values = parameters.iter().map(parameter);
        let values = values.map(|value| value.map(ScalarAndMetadata::from));
        Ok(Self {
            values: values.collect::<Result<_, _>>()?,
            texts: Texts::default(),
        })
    }

    pub(super) fn of(request: &SqlQuery, shape: Option<&StatementShape>) -> Result<Self, Problem> {
        let parameters = Self::of_parameters(&request.parameters)?;
        let Some(shape) = shape else { return Ok(parameters) };
        let mut values = parameters.values;
        let mut texts = shape
            .texts
            .iter()
            .enumerate()
            .map(|(number, text)| numbered(number, text));
        let quoted: Vec<_> = texts.by_ref().take(shape.quoted.len()).collect();
        for (parameter, text) in shape.parameters.iter().zip(texts) {
            values[*parameter] = text;
        }
        values.extend(quoted);
        Ok(Self {
            values,
            texts: Arc::clone(&shape.texts),
        })
    }

    /// What takes the place of `$1`, `$2`, …
    pub(super) fn into_parameters(self) -> Option<ParamValues> {
        (!self.values.is_empty()).then_some(ParamValues::List(self.values))
    }
}

/// Converts a parameter from JSON; its type follows from its value.
pub(crate) fn parameter(value: &Value) -> Result<ScalarValue, Problem> {
    Ok(match value {
        Value::Null => ScalarValue::Null,
        Value::Bool(bool) => ScalarValue::from(*bool),
        Value::Number(number) => match number.as_i64() {
            Some(int) => ScalarValue::from(int),
            None => ScalarValue::from(number.as_f64().unwrap_or(f64::NAN)),
        },
        Value::String(text) => ScalarValue::from(text.as_str()),
        // Its items are literals in the resolved query.
        Value::Array(_) => ScalarValue::Null,
        Value::Object(_) => {
            return Err(Problem::new(Code::BadSql, "a parameter cannot be an object")
                .hint("pass a text, a number, a boolean, null, or a list of these"));
        }
    })
}
