//! The registry of SQL functions: everything that the code knows about a function by its name, in one entry for each.
//! Shared by: aggregator (which calls a statement may have, what they become, and the types of their arguments), leaf
//! (which partial states it may keep), and the functions of this crate (how much memory and work they take).
//!
//! ```text
//! name ─ compat ──> what the call becomes before names are resolved: another name, an expression, a hint
//!      └ function ─> types of arguments, growth, properties
//! ```
//!
//! The functions themselves are in the other modules and in DataFusion. A function has further names there; they share
//! its entry unless they have one of their own.

mod aggregates;
mod calendar;
mod conditions;
mod entry;
mod json;
mod lists;
mod numbers;
mod operators;
mod texts;
mod times;

use std::{
    collections::{BTreeMap, HashMap},
    sync::LazyLock,
};

use datafusion::execution::SessionStateDefaults;

pub use entry::{ArgumentTypes, FunctionKind, Meaning, PathResult, Property, SqlFunction, TimeLetters};

/// All entries.
const FAMILIES: [&[SqlFunction]; 9] = [
    aggregates::FUNCTIONS,
    calendar::FUNCTIONS,
    conditions::FUNCTIONS,
    json::FUNCTIONS,
    lists::FUNCTIONS,
    numbers::FUNCTIONS,
    operators::FUNCTIONS,
    texts::FUNCTIONS,
    times::FUNCTIONS,
];

/// Functions of DataFusion that statements may not call: they allocate much memory from small inputs, or reveal
/// something about the machine.
const REFUSED: [&str; 19] = [
    "repeat",
    "array_repeat",
    "list_repeat",
    "gen_series",
    "array_resize",
    "list_resize",
    "arrow_cast",
    "arrow_try_cast",
    "arrow_metadata",
    "arrow_field",
    "with_metadata",
    "input_file_name",
    "named_struct",
    "struct",
    "map",
    "make_map",
    "union_extract",
    "union_tag",
    "version",
];

/// All entries.
pub fn all() -> impl Iterator<Item = &'static SqlFunction> {
    FAMILIES.into_iter().flatten()
}

/// The function that a session has under this name.
pub fn function(name: &str) -> Option<&'static SqlFunction> {
    FUNCTIONS.get(name).copied()
}

/// The function that becomes something else before names are resolved, by a name in lower case.
pub fn compat(name: &str) -> Option<&'static SqlFunction> {
    COMPAT.get(name).copied()
}

/// The names that [`compat`] knows.
pub fn compat_names() -> impl Iterator<Item = (&'static str, &'static SqlFunction)> {
    COMPAT.iter().map(|(name, function)| (name.as_str(), *function))
}

/// The names of all functions that statements may call.
pub fn callable() -> impl Iterator<Item = &'static str> {
    FUNCTIONS
        .iter()
        .filter(|(_, function)| function.is_callable())
        .map(|(name, _)| name.as_str())
}

/// Whether statements may not call a function of DataFusion.
pub fn is_refused(name: &str) -> bool {
    REFUSED.contains(&name)
}

/// The functions of a session by each of their names.
static FUNCTIONS: LazyLock<BTreeMap<String, &'static SqlFunction>> = LazyLock::new(|| {
    let own = all().filter(|function| function.kind != FunctionKind::Compat);
    let mut functions: BTreeMap<String, _> = own.map(|function| (function.name().to_owned(), function)).collect();
    for names in library_names() {
        let Some(function) = names.iter().find_map(|name| functions.get(name).copied()) else {
            continue;
        };
        for name in names {
            functions.entry(name).or_insert(function);
        }
    }
    functions.retain(|name, _| !is_refused(name));
    functions
});

/// Functions that become something else, by each of their names.
static COMPAT: LazyLock<HashMap<String, &'static SqlFunction>> = LazyLock::new(|| {
    let names = |function: &'static SqlFunction| {
        let own = Some(function.name().to_lowercase()).filter(|_| function.meaning != Meaning::Itself);
        let synonyms = function.synonyms.split_whitespace().map(str::to_owned);
        own.into_iter().chain(synonyms).map(move |name| (name, function))
    };
    all().flat_map(names).collect()
});

/// The names of each function of DataFusion. The first one is its own.
fn library_names() -> Vec<Vec<String>> {
    fn names(name: &str, aliases: &[String]) -> Vec<String> {
        std::iter::once(name.to_owned())
            .chain(aliases.iter().cloned())
            .collect()
    }
    let scalar = SessionStateDefaults::default_scalar_functions();
    let scalar = scalar.iter().map(|function| names(function.name(), function.aliases()));
    let aggregates = SessionStateDefaults::default_aggregate_functions();
    let aggregates = aggregates
        .iter()
        .map(|function| names(function.name(), function.aliases()));
    let windows = SessionStateDefaults::default_window_functions();
    let windows = windows
        .iter()
        .map(|function| names(function.name(), function.aliases()));
    scalar.chain(aggregates).chain(windows).collect()
}

#[cfg(test)]
mod tests;
