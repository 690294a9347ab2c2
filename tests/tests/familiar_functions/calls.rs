//! The calls of `calls.txt`.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::rows::{self, GeneratedRow};

const CALLS: &str = include_str!("calls.txt");

/// What a call is computed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallShape {
    Rows,
    Groups,
    /// An aggregate that makes a list in any order.
    Sets,
}

/// A call of a familiar name. `{t}` in it is a column.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub home: String,
    pub name: String,
    pub shape: CallShape,
    ours: String,
    theirs: String,
    condition: String,
}

/// All calls, one for each name.
pub(crate) fn read() -> Vec<Call> {
    let mut calls = Vec::new();
    let mut home = "";
    for line in CALLS.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            home = title.split(' ').next().unwrap_or(title);
            continue;
        }
        // An empty part has one blank around it.
        let padded = format!("{line} ").replace(" | | ", " |  | ");
        let parts: Vec<&str> = padded.split(" | ").map(str::trim).collect();
        let [names, call, rest @ ..] = parts.as_slice() else {
            continue;
        };
        if line.starts_with('#') || names.is_empty() {
            continue;
        }
        let (shape, call) = match (call.strip_prefix("agg "), call.strip_prefix("set ")) {
            (Some(call), _) => (CallShape::Groups, call),
            (_, Some(call)) => (CallShape::Sets, call),
            _ => (CallShape::Rows, *call),
        };
        let condition = rest.get(1).map_or("", |text| text.split(": ").next().unwrap_or(""));
        for name in names.split_whitespace() {
            let named = |text: &str| text.replace("$(", &format!("{name}("));
            let theirs = rest.first().filter(|text| !text.is_empty()).unwrap_or(&call);
            calls.push(Call {
                home: home.to_owned(),
                name: name.to_owned(),
                shape,
                ours: named(call),
                theirs: named(theirs),
                condition: condition.to_owned(),
            });
        }
    }
    calls
}

static COLUMNS: LazyLock<Vec<(&str, &str)>> = LazyLock::new(|| {
    rows::COLUMNS
        .iter()
        .map(|column| match *column {
            "t" => ("t", "t::timestamp"),
            "w" => ("w", "w::timestamp"),
            column => (column, column),
        })
        .collect()
});

impl Call {
    /// The call over the paths of the collection.
    pub(crate) fn over_documents(&self) -> String {
        self.filled(|_, path| path.to_owned())
    }

    /// The call over the values of a row.
    pub(crate) fn over_literals(&self, row: &GeneratedRow) -> String {
        self.filled(|column, _| rows::literal(column, &row[column]))
    }

    fn filled(&self, fill: impl Fn(&str, &str) -> String) -> String {
        COLUMNS.iter().fold(self.ours.clone(), |call, (column, path)| {
            call.replace(&format!("{{{column}}}"), &fill(column, path))
        })
    }

    /// The call as `homes.py` takes it.
    pub(crate) fn at_home(&self) -> Value {
        let used = |column: &&&str| self.ours.contains(&format!("{{{column}}}"));
        let used: Vec<&&str> = rows::COLUMNS.iter().filter(used).collect();
        let call = COLUMNS.iter().fold(self.theirs.clone(), |call, (column, _)| {
            call.replace(&format!("{{{column}}}"), column)
        });
        json!({
            "home": self.home,
            "call": call,
            "columns": used,
            "condition": self.condition,
            "aggregate": self.shape != CallShape::Rows,
        })
    }
}
