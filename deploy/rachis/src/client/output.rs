//! Writes answers to standard output, as tables for people or as the server's bytes for programs; notes go to standard
//! error.

use std::io::{self, IsTerminal, Write};

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde::Deserialize;
use serde_json::{Value, value::RawValue};

use super::Failure;
use crate::cli::ListOutput;

/// Longest cell on a terminal, in characters; longer ones are cut.
const CELL_CHARACTERS_MAX: usize = 100;

/// Writes to standard output. A closed pipe (`| head`) is not a failure.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|e| Failure::new(format!("cannot write the answer: {e}"))),
    }
}

/// Writes a line to standard error.
pub(crate) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", harmless(text));
}

/// Replaces control characters, which would control the terminal, except for line breaks and tabs.
pub(crate) fn harmless(text: &str) -> String {
    let is_harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    text.replace(is_harmful, "\u{FFFD}")
}

/// Writes the warnings of an answer, and that it is partial, to standard error.
pub(crate) fn note_warnings(answer: &Value) {
    for warning in answer["warnings"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
    {
        note(&format!("warning: {warning}"));
    }
    if answer["partial"] == true {
        note("warning: partial answer: not all shards responded");
    }
}

/// Writes indented JSON.
pub(crate) fn pretty(value: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string_pretty(value).map_err(|e| Failure::with_cause("cannot write the answer", &e))?;
    write(format!("{text}\n").as_bytes())
}

/// The answer to a statement; values keep their original JSON text.
#[derive(Deserialize)]
pub(crate) struct SqlAnswer<'a> {
    /// The columns in order.
    pub columns: Vec<Column>,
    /// Each row: column name -> value.
    #[serde(borrow)]
    pub rows: Vec<std::collections::HashMap<String, &'a RawValue>>,
    /// Statistics and warnings.
    pub stats: Value,
    /// Whether its statement was an EXPLAIN.
    #[serde(skip)]
    pub is_explained: bool,
}

/// How much of a value a table shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cells {
    Whole,
    /// Long values are cut.
    Cut,
}

impl Cells {
    /// As standard output needs it.
    pub(crate) fn of_stdout() -> Self {
        match io::stdout().is_terminal() {
            true => Self::Cut,
            false => Self::Whole,
        }
    }
}

/// A column of an answer.
#[derive(Deserialize)]
pub(crate) struct Column {
    pub name: String,
    /// The SQL name of its type.
    #[serde(rename = "type")]
    pub kind: String,
}

impl SqlAnswer<'_> {
    /// Renders a table; plans of EXPLAIN keep their lines.
    pub(crate) fn table(&self, cells: Cells) -> String {
        if self.is_plan() {
            return self.plan();
        }
        let numeric = |kind: &str| {
            ["BIGINT", "INTEGER", "SMALLINT", "DOUBLE", "REAL"].contains(&kind) || kind.starts_with("DECIMAL")
        };
        let align_right: Vec<bool> = self.columns.iter().map(|column| numeric(&column.kind)).collect();
        let cell = |row: &std::collections::HashMap<String, &RawValue>, name: &str| {
            row.get(name).map_or(String::new(), |raw| cell_text(raw.get(), cells))
        };
        let rows = self
            .rows
            .iter()
            .map(|row| self.columns.iter().map(|column| cell(row, &column.name)).collect())
            .collect();
        table(
            self.columns.iter().map(|column| column.name.as_str()),
            rows,
            &align_right,
        )
    }

    /// Renders each value on a line of its own.
    pub(crate) fn vertical(&self) -> String {
        let names: Vec<String> = self.columns.iter().map(|column| one_line(&column.name)).collect();
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
        let mut text = String::new();
        for (number, row) in self.rows.iter().enumerate() {
            let title = format!("-[ {} ]", number + 1);
            text.push_str(&format!("{title:-<width$}\n", width = width.max(title.len()) + 2));
            for (column, name) in self.columns.iter().zip(&names) {
                let value = row.get(&column.name).map_or("null", |raw| raw.get());
                let value = match serde_json::from_str::<String>(value) {
                    Ok(text) => text,
                    Err(_) if value == "null" => "NULL".to_owned(),
                    Err(_) => value.to_owned(),
                };
                text.push_str(&format!("{name:width$} | {}\n", one_line(&value)));
            }
        }
        text
    }

    /// Whether it is the answer of EXPLAIN.
    pub(crate) fn is_plan(&self) -> bool {
        let names: Vec<&str> = self.columns.iter().map(|column| column.name.as_str()).collect();
        self.is_explained && matches!(names.as_slice(), ["plan"] | ["plan_type", "plan"])
    }

    /// The lines of EXPLAIN, those of DataFusion's plans under their types.
    fn plan(&self) -> String {
        let text = |row: &std::collections::HashMap<String, &RawValue>, name: &str| {
            let raw = row.get(name)?;
            serde_json::from_str::<String>(raw.get()).ok()
        };
        let plan = |row| {
            let plan = text(row, "plan").unwrap_or_default();
            match text(row, "plan_type") {
                Some(kind) => format!("{}\n{}\n\n", one_line(&kind), indented(&plan)),
                None => format!("{}\n", one_line(&plan)),
            }
        };
        let plans: String = self.rows.iter().map(plan).collect();
        format!("{}\n", plans.trim_end())
    }
}

/// Writes the number of rows, the elapsed time and the warnings of an answer to standard error.
pub(crate) fn note_stats(rows: usize, stats: &Value) {
    let noun = if rows == 1 { "row" } else { "rows" };
    note(&format!("{rows} {noun} in {} ms", stats["elapsed_ms"]));
    note_warnings(stats);
}

/// Writes a list of objects; a table shows only these keys.
pub(crate) fn list(list: &Value, keys: &[&str], form: ListOutput) -> Result<(), Failure> {
    match form {
        ListOutput::Table => write(objects(list, keys).as_bytes()),
        ListOutput::Json => pretty(list),
        ListOutput::Ndjson => {
            let lines: String = list
                .as_array()
                .into_iter()
                .flatten()
                .map(|object| format!("{object}\n"))
                .collect();
            write(lines.as_bytes())
        }
    }
}

/// Renders a list of objects as a table of the values at these keys; a key may be a dotted path.
pub(crate) fn objects(list: &Value, keys: &[&str]) -> String {
    let text = |value: &Value| match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        }
        other => other.to_string(),
    };
    let at = |object: &Value, key: &str| text(key.split('.').fold(object, |value, part| &value[part]));
    let rows: Vec<Vec<String>> = list
        .as_array()
        .into_iter()
        .flatten()
        .map(|object| {
            keys.iter()
                .map(|key| shown(&at(object, key), Cells::of_stdout()))
                .collect()
        })
        .collect();
    let names: Vec<&str> = keys.iter().map(|key| key.rsplit('.').next().unwrap_or(key)).collect();
    table(names.into_iter(), rows, &[])
}

fn table<'a>(names: impl Iterator<Item = &'a str>, rows: Vec<Vec<String>>, right: &[bool]) -> String {
    let mut table = Table::new();
    table
        .load_preset(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(names.map(|name| Cell::new(one_line(name))));
    for row in rows {
        table.add_row(row.iter().enumerate().map(|(i, text)| match right.get(i) {
            Some(true) => Cell::new(text).set_alignment(CellAlignment::Right),
            _ => Cell::new(text),
        }));
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    format!("{}\n", lines.join("\n"))
}

/// The text of a JSON value in a table cell.
fn cell_text(raw: &str, cells: Cells) -> String {
    if raw == "null" {
        return "NULL".into();
    }
    let text = serde_json::from_str::<String>(raw);
    shown(text.as_deref().unwrap_or(raw), cells)
}

fn shown(text: &str, cells: Cells) -> String {
    let text = one_line(text);
    match text.char_indices().nth(CELL_CHARACTERS_MAX) {
        Some((at, _)) if cells == Cells::Cut => format!("{}…", &text[..at]),
        _ => text,
    }
}

/// Indents each line and replaces control characters.
fn indented(text: &str) -> String {
    text.lines()
        .map(|line| format!("  {}", one_line(line)))
        .collect::<Vec<_>>()
        .join("\n")
}

/// Replaces line breaks and control characters, which would break the table or control the terminal.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|c| match c {
            '\n' | '\r' | '\t' => ' ',
            c if c.is_control() => '\u{FFFD}',
            c => c,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_shows_the_original_json_text_of_values() {
        let text = r#"{
            "columns":[{"name":"n","type":"DECIMAL(38,0)"},{"name":"t","type":"TEXT"},{"name":"j","type":"JSON"}],
            "rows":[
                {"n":123456789012345678901234567890,"t":"two\nlines","j":{"a" : 1.50}},
                {"n":1,"t":null,"j":"\u001b[31m"}
            ],
            "stats":{}
        }"#;
        let answer = serde_json::from_str::<SqlAnswer>(text).expect("an answer");
        let table = answer.table(Cells::Whole);
        let lines: Vec<&str> = table.lines().collect();
        assert!(
            lines[1].contains("123456789012345678901234567890")
                && lines[1].contains("two lines")
                && lines[1].contains("{\"a\" : 1.50}"),
            "{table}"
        );
        assert!(
            lines[2].contains("NULL") && lines[2].contains("\u{FFFD}[31m"),
            "{table}"
        );
    }

    #[test]
    fn a_plan_keeps_its_lines_uncut() {
        let scan = format!("  ShardScan: {}", "x".repeat(CELL_CHARACTERS_MAX));
        let answer = serde_json::json!({
            "columns": [{"name": "plan_type", "type": "TEXT"}, {"name": "plan", "type": "TEXT"}],
            "rows": [
                {"plan_type": "logical_plan", "plan": "Limit\n  Scan"},
                {"plan_type": "physical_plan", "plan": format!("Limit\n{scan}")},
            ],
            "stats": {},
        });
        let text = answer.to_string();
        let mut answer = serde_json::from_str::<SqlAnswer>(&text).expect("an answer");
        answer.is_explained = true;
        assert_eq!(
            answer.table(Cells::Cut),
            format!("logical_plan\n  Limit\n    Scan\n\nphysical_plan\n  Limit\n  {scan}\n")
        );
    }

    #[test]
    fn the_steps_of_a_plan_are_its_lines() {
        let answer = serde_json::json!({
            "columns": [{"name": "plan", "type": "TEXT"}],
            "rows": [{"plan": "First 3 rows"}, {"plan": "  Scan events"}],
            "stats": {},
        });
        let text = answer.to_string();
        let mut answer: SqlAnswer = serde_json::from_str(&text).expect("an answer");
        assert!(answer.table(Cells::Cut).starts_with(" plan"), "a column of that name");
        answer.is_explained = true;
        assert_eq!(answer.table(Cells::Cut), "First 3 rows\n  Scan events\n");
    }

    #[test]
    fn objects_become_rows_of_the_values_at_the_keys() {
        let list = serde_json::json!([{"a": {"b": 7}, "c": ["x", "y"]}, {"a": {}, "c": null}]);
        let table = objects(&list, &["a.b", "c"]);
        let lines: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines, [vec!["b", "c"], vec!["7", "x,", "y"], vec![]]);
    }
}
