//! Parts of texts as DuckDB, ClickHouse and MySQL cut them. All positions count characters.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _, ListBuilder, StringViewArray, StringViewBuilder},
        compute::cast,
        datatypes::{DataType, Int64Type},
    },
    common::Result,
    logical_expr::ScalarUDF,
};
use regex::Regex;

use super::{
    super::{
        function::{Call, Function, Returns},
        json::text_views,
    },
    each_row::each_row,
};

/// `regexp_extract(text, pattern[, group])` of DuckDB: an empty text if nothing matches.
const EXTRACT: &str = "regexp_extract";
/// `text_split(text, separator)`: the parts of a text; the characters if the separator is empty.
const SPLIT: &str = "text_split";
/// `text_slice(text, from[, length])` is ClickHouse's `substringUTF8`.
const SLICE: &str = "text_slice";
/// `text_mid(text, from[, length])` is MySQL's `mid`.
const MID: &str = "text_mid";
/// `text_hex(text)`: the bytes of a text in upper-case digits.
pub const HEX: &str = "text_hex";

/// All these functions.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    let text = || Returns::Type(DataType::Utf8View);
    vec![
        Function::new(EXTRACT, None, text(), extract).strict().into(),
        Function::new(
            SPLIT,
            Some(2),
            Returns::Type(DataType::new_list(DataType::Utf8View, true)),
            split,
        )
        .into(),
        Function::new(SLICE, None, text(), |call| parts(call, slice))
            .strict()
            .into(),
        Function::new(MID, None, text(), |call| parts(call, mid))
            .strict()
            .into(),
        Function::new(HEX, Some(1), text(), hex).strict().into(),
    ]
}

fn extract(call: &Call) -> Result<ArrayRef> {
    const GROUPS_MAX: i64 = 9;
    let (texts, patterns) = (text_views(&call.column(0)?)?, text_views(&call.column(1)?)?);
    let groups = match call.args().len() {
        0..=2 => None,
        _ => Some(cast(&call.column(2)?, &DataType::Int64)?),
    };
    let mut columns = vec![&texts, &patterns];
    columns.extend(&groups);
    let mut compiled: Option<(String, Option<Regex>)> = None;
    let found = each_row(call, &columns, |row| {
        let pattern = patterns.as_string_view().value(row);
        if compiled.as_ref().is_none_or(|(text, _)| text != pattern) {
            compiled = Some((pattern.to_owned(), Regex::new(pattern).ok()));
        }
        let regex = compiled.as_ref().and_then(|(_, regex)| regex.as_ref())?;
        let group = groups
            .as_ref()
            .map_or(0, |groups| groups.as_primitive::<Int64Type>().value(row));
        let group = usize::try_from(group).ok().filter(|_| group <= GROUPS_MAX)?;
        let text = texts.as_string_view().value(row);
        let part = match group {
            0 => regex.find(text).map(|found| found.as_str()),
            group => regex
                .captures(text)
                .and_then(|groups| Some(groups.get(group)?.as_str())),
        };
        Some(part.unwrap_or_default().to_owned())
    });
    Ok(Arc::new(StringViewArray::from_iter(found)))
}

fn split(call: &Call) -> Result<ArrayRef> {
    let (texts, separators) = (text_views(&call.column(0)?)?, text_views(&call.column(1)?)?);
    let (texts, separators) = (texts.as_string_view(), separators.as_string_view());
    let mut lists = ListBuilder::new(StringViewBuilder::new());
    for (text, separator) in texts.iter().zip(separators) {
        match (text, separator) {
            (None, _) => lists.append_null(),
            // Without a separator nothing is split.
            (Some(text), None) => lists.append_value([Some(text)]),
            (Some(text), Some("")) => {
                let ends = text
                    .char_indices()
                    .map(|(at, char)| Some(&text[at..at + char.len_utf8()]));
                lists.append_value(ends);
            }
            (Some(text), Some(separator)) => lists.append_value(text.split(separator).map(Some)),
        }
    }
    Ok(Arc::new(lists.finish()))
}

/// The part of a text of so many characters from a position on that is given by a rule.
type PartRule = fn(characters: i64, from: i64, length: Option<i64>) -> (i64, i64);

fn parts(call: &Call, rule: PartRule) -> Result<ArrayRef> {
    let texts = text_views(&call.column(0)?)?;
    let numbers: Vec<ArrayRef> = call
        .columns(1)?
        .iter()
        .map(|column| Ok(cast(column, &DataType::Int64)?))
        .collect::<Result<_>>()?;
    let columns: Vec<&ArrayRef> = std::iter::once(&texts).chain(&numbers).collect();
    let found = each_row(call, &columns, |row| {
        let number = |index: usize| numbers.get(index).map(|n| n.as_primitive::<Int64Type>().value(row));
        let text = texts.as_string_view().value(row);
        let count = i64::try_from(text.chars().count()).ok()?;
        let (from, to) = rule(count, number(0)?, number(1));
        let (from, to) = (from.clamp(0, count), to.clamp(0, count));
        let (from, to) = (usize::try_from(from).ok()?, usize::try_from(to).ok()?);
        Some(
            text.chars()
                .skip(from)
                .take(to.saturating_sub(from))
                .collect::<String>(),
        )
    });
    Ok(Arc::new(StringViewArray::from_iter(found)))
}

/// ClickHouse: a negative position or length counts from the end; position 0 is nowhere.
fn slice(count: i64, from: i64, length: Option<i64>) -> (i64, i64) {
    let begin = match from {
        0 => return (0, 0),
        from if from > 0 => from - 1,
        from => count.saturating_add(from),
    };
    match length {
        None => (begin, count),
        Some(length) if length < 0 => (begin, count.saturating_add(length)),
        Some(length) => (begin, begin.saturating_add(length)),
    }
}

/// MySQL: a negative position counts from the end, and before the beginning is nowhere, like position 0.
fn mid(count: i64, from: i64, length: Option<i64>) -> (i64, i64) {
    let begin = match from {
        from if from > 0 => from - 1,
        from if from < 0 && count.saturating_add(from) >= 0 => count + from,
        _ => return (0, 0),
    };
    (
        begin,
        length.map_or(count, |length| begin.saturating_add(length.max(0))),
    )
}

fn hex(call: &Call) -> Result<ArrayRef> {
    let texts = text_views(&call.column(0)?)?;
    let spelled = |text: &str| text.bytes().map(|byte| format!("{byte:02X}")).collect::<String>();
    let found = texts.as_string_view().iter().map(|text| text.map(spelled));
    Ok(Arc::new(StringViewArray::from_iter(found)))
}
