//! `search_highlight`: marks in a value what a search found.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{ArrayRef, AsArray as _, StringViewBuilder},
        datatypes::DataType,
    },
    common::{DataFusionError, Result},
    logical_expr::ScalarUDF,
};
use proto::json;

use super::{
    function::{Call, Function, Returns},
    json::text_views,
};
use crate::{matcher::Highlighter, search::Match};

/// `search_highlight(json, tests)`: the text of a value with marks around what these tests of a search find; NULL for
/// objects, and for lists in which they find nothing.
pub const HIGHLIGHT: &str = "search_highlight";

pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![
        Function::new(HIGHLIGHT, Some(2), Returns::Type(DataType::Utf8View), highlight)
            .strict()
            .into(),
    ]
}

fn highlight(call: &Call) -> Result<ArrayRef> {
    let tests: Vec<Match> =
        serde_json::from_str(call.text(1)?).map_err(|e| DataFusionError::Execution(e.to_string()))?;
    let highlighter = Highlighter::new(tests.iter().map(|test| (None, test)));
    let mut marked = StringViewBuilder::with_capacity(call.rows);
    for text in text_views(&call.column(0)?)?.as_string_view() {
        call.check()?;
        let value = text.and_then(|text| json::parse(text.as_bytes()).ok());
        marked.append_option(value.and_then(|value| highlighter.value(&value)));
    }
    Ok(Arc::new(marked.finish()))
}
