//! How answers are shown: as a table or value by value, in a pager if the terminal is too small, with a line about rows,
//! time and freshness.

use std::{
    io::{IsTerminal as _, Write as _},
    process::{Command, Stdio},
};

use serde_json::Value;

use super::super::{
    Failure,
    output::{self, Cells, SqlAnswer},
};
use super::command::Expanded;

/// Columns and rows of a terminal.
#[derive(Debug, Clone, Copy)]
pub(super) struct TerminalSize {
    pub columns: usize,
    pub rows: usize,
}

/// The text of an answer.
#[derive(Debug, PartialEq)]
pub(super) struct Rendered {
    pub text: String,
    /// Whether its long lines are wrapped; those of a table are not, as they would be no table then.
    pub wraps: bool,
}

/// Renders an answer for a terminal of this size.
pub(super) fn rendered(answer: &SqlAnswer, expanded: Expanded, size: Option<TerminalSize>, cells: Cells) -> Rendered {
    let vertical = || Rendered {
        text: answer.vertical(),
        wraps: true,
    };
    if expanded == Expanded::On {
        return vertical();
    }
    let table = answer.table(cells);
    let is_too_wide = |size: TerminalSize| width(&table) > size.columns;
    match expanded == Expanded::Auto && size.is_some_and(is_too_wide) && !answer.is_plan() {
        true => vertical(),
        false => Rendered {
            text: table,
            wraps: false,
        },
    }
}

/// `3 rows in 12 ms, as of 0.2 s ago`.
pub(super) fn summary(rows: usize, stats: &Value) -> String {
    let noun = if rows == 1 { "row" } else { "rows" };
    let elapsed = stats["elapsed_ms"].as_u64().unwrap_or_default();
    let freshness = match stats["freshness_ms"].as_f64() {
        Some(ms) if stats["shards"]["total"].as_u64() > Some(0) => format!(", as of {:.1} s ago", ms / 1e3),
        _ => String::new(),
    };
    format!("{rows} {noun} in {elapsed} ms{freshness}")
}

/// Writes to the terminal, through the pager if the text does not fit.
pub(super) fn page(shown: &Rendered, size: Option<TerminalSize>) -> Result<(), Failure> {
    let Rendered { text, wraps } = shown;
    let fits = |size: TerminalSize| {
        let rows = |line: &str| match wraps {
            true => line.chars().count().div_ceil(size.columns.max(1)).max(1),
            false => 1,
        };
        text.lines().map(rows).sum::<usize>() < size.rows && (*wraps || width(text) <= size.columns)
    };
    if !std::io::stdout().is_terminal() || size.is_none_or(fits) {
        return output::write(text.as_bytes());
    }
    match paged(text, *wraps) {
        Ok(()) => Ok(()),
        Err(_) => output::write(text.as_bytes()),
    }
}

/// Shows a text in `$PAGER`, or in less.
fn paged(text: &str, wraps: bool) -> std::io::Result<()> {
    let pager = std::env::var("PAGER").ok().filter(|pager| !pager.trim().is_empty());
    let mut words = pager.as_deref().unwrap_or("less").split_whitespace();
    let mut command = Command::new(words.next().unwrap_or("less"));
    command.args(words).stdin(Stdio::piped());
    if std::env::var_os("LESS").is_none() {
        command.env("LESS", if wraps { "-RX" } else { "-SRX" });
    }
    let mut pager = command.spawn()?;
    if let Some(mut input) = pager.stdin.take() {
        // A reader who leaves early has seen enough.
        let _ = input.write_all(text.as_bytes());
    }
    pager.wait().map(|_| ())
}

/// The columns that the widest line takes.
fn width(text: &str) -> usize {
    text.lines().map(|line| line.chars().count()).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_table_that_is_too_wide_is_shown_value_by_value() {
        let answer = json!({
            "columns": [{"name": "id", "type": "TEXT"}, {"name": "message", "type": "TEXT"}],
            "rows": [{"id": "a", "message": "x".repeat(60)}, {"id": "b", "message": null}],
            "stats": {},
        });
        let text = answer.to_string();
        let answer: SqlAnswer = serde_json::from_str(&text).expect("an answer");
        let size = |columns| Some(TerminalSize { columns, rows: 24 });
        let table = answer.table(Cells::Cut);
        assert_eq!(rendered(&answer, Expanded::Auto, size(100), Cells::Cut).text, table);
        assert_eq!(rendered(&answer, Expanded::Off, size(40), Cells::Cut).text, table);
        let vertical = rendered(&answer, Expanded::Auto, size(40), Cells::Cut).text;
        let lines: Vec<&str> = vertical.lines().collect();
        assert!(lines[0].starts_with("-[ 1 ]-"), "{vertical}");
        assert_eq!(lines[1], "id      | a");
        assert_eq!(lines[5], "message | NULL");
    }

    #[test]
    fn a_summary_has_rows_time_and_freshness() {
        let stats = json!({"elapsed_ms": 12, "freshness_ms": 1_250, "shards": {"total": 2}});
        assert_eq!(summary(1, &stats), "1 row in 12 ms, as of 1.2 s ago");
        let stats = json!({"elapsed_ms": 3, "freshness_ms": 0, "shards": {"total": 0}});
        assert_eq!(summary(0, &stats), "0 rows in 3 ms");
    }
}
