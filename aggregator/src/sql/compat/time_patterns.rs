//! Patterns of times: the letters of DuckDB, ClickHouse and MySQL in those of `strftime` as `to_char` knows them.

use datafusion::sql::sqlparser::ast::Expr;
use plan::functions::registry::TimeLetters;
use proto::{Code, Problem};

use super::not_supported;
use crate::sql::resolve::value::{call, number, text, text_literal};

/// What to write if the pattern is not a literal.
const HINT: &str = "write the time and a pattern as a literal, for example '%Y-%m-%d'";

/// The letters of a system, each with what it becomes. Letters that are missing are refused.
type Letters = &'static [(&'static str, &'static str)];

const DUCKDB: Letters = &[
    ("a", "%a"),
    ("A", "%A"),
    ("w", "%w"),
    ("d", "%d"),
    ("-d", "%-d"),
    ("b", "%b"),
    ("h", "%b"),
    ("B", "%B"),
    ("m", "%m"),
    ("-m", "%-m"),
    ("y", "%y"),
    ("-y", "%-y"),
    ("Y", "%Y"),
    ("H", "%H"),
    ("-H", "%-H"),
    ("I", "%I"),
    ("-I", "%-I"),
    ("p", "%p"),
    ("M", "%M"),
    ("-M", "%-M"),
    ("S", "%S"),
    ("-S", "%-S"),
    ("f", "%6f"),
    ("g", "%3f"),
    ("z", "+00"),
    ("Z", ""),
    ("j", "%j"),
    ("-j", "%-j"),
    ("U", "%U"),
    ("W", "%W"),
    ("c", "%Y-%m-%d %H:%M:%S"),
    ("x", "%Y-%m-%d"),
    ("X", "%H:%M:%S"),
    ("T", "%H:%M:%S"),
    ("G", "%G"),
    ("V", "%V"),
    ("u", "%u"),
    ("%", "%%"),
];

const CLICKHOUSE: Letters = &[
    ("a", "%a"),
    ("b", "%b"),
    ("c", "%m"),
    ("C", "%C"),
    ("d", "%d"),
    ("D", "%m/%d/%y"),
    ("e", "%-d"),
    ("f", "%6f"),
    ("F", "%Y-%m-%d"),
    ("g", "%g"),
    ("G", "%G"),
    ("h", "%I"),
    ("H", "%H"),
    ("i", "%M"),
    ("I", "%I"),
    ("j", "%j"),
    ("k", "%H"),
    ("l", "%I"),
    ("m", "%m"),
    ("M", "%B"),
    ("n", "%n"),
    ("p", "%p"),
    ("r", "%I:%M %p"),
    ("R", "%H:%M"),
    ("s", "%S"),
    ("S", "%S"),
    ("t", "%t"),
    ("T", "%H:%M:%S"),
    ("u", "%u"),
    ("V", "%V"),
    ("w", "%w"),
    ("W", "%A"),
    ("y", "%y"),
    ("Y", "%Y"),
    ("z", "%z"),
    ("%", "%%"),
];

const MYSQL: Letters = &[
    ("a", "%a"),
    ("b", "%b"),
    ("c", "%-m"),
    ("d", "%d"),
    ("e", "%-d"),
    ("f", "%6f"),
    ("H", "%H"),
    ("h", "%I"),
    ("I", "%I"),
    ("i", "%M"),
    ("j", "%j"),
    ("k", "%-H"),
    ("l", "%-I"),
    ("M", "%B"),
    ("m", "%m"),
    ("p", "%p"),
    ("r", "%I:%M:%S %p"),
    ("S", "%S"),
    ("s", "%S"),
    ("T", "%H:%M:%S"),
    ("U", "%U"),
    ("v", "%V"),
    ("W", "%A"),
    ("w", "%w"),
    ("x", "%G"),
    ("Y", "%Y"),
    ("y", "%y"),
    ("%", "%%"),
];

fn table(letters: TimeLetters) -> Letters {
    match letters {
        TimeLetters::DuckDb => DUCKDB,
        TimeLetters::ClickHouse => CLICKHOUSE,
        TimeLetters::MySql => MYSQL,
    }
}

/// A call that formats a time in a literal pattern.
pub(super) fn time_to_text(name: &str, letters: TimeLetters, arguments: &[Expr]) -> Result<Expr, Problem> {
    let [time, pattern] = arguments else {
        return Err(not_supported(name, HINT));
    };
    // DuckDB takes both orders.
    let (time, pattern) = match (text_literal(time), text_literal(pattern)) {
        (Some(first), None) if letters == TimeLetters::DuckDb && first.contains('%') => (pattern, time),
        _ => (time, pattern),
    };
    let spelled = converted(name, pattern, letters)?;
    Ok(call("to_char", vec![time.clone(), text(&spelled)]))
}

/// A call that reads a time from a text in a literal pattern. The year is that of patterns without one.
pub(super) fn text_to_time(name: &str, letters: TimeLetters, year: &str, arguments: &[Expr]) -> Result<Expr, Problem> {
    let [subject, pattern] = arguments else {
        return Err(not_supported(name, HINT));
    };
    // The digits after the point of a second are a fraction, however many there are.
    let spelled = converted(name, pattern, letters)?.replace(".%6f", "%.f");
    Ok(call("parse_time", vec![subject.clone(), text(&spelled), number(year)]))
}

/// A pattern in the letters of `to_char`.
fn converted(name: &str, pattern: &Expr, letters: TimeLetters) -> Result<String, Problem> {
    let pattern = text_literal(pattern).ok_or_else(|| not_supported(name, HINT))?;
    let refused = |detail: String, hint: &str| Err(Problem::new(Code::NotSupported, detail).hint(hint));
    if !pattern.contains('%') {
        return refused(
            format!("the pattern '{pattern}' of {name} has no %"),
            "write '%Y-%m-%d', or to_char(x, 'YYYY-MM-DD')",
        );
    }
    let (mut spelled, mut rest) = (String::new(), pattern);
    while let Some((before, after)) = rest.split_once('%') {
        spelled.push_str(before);
        let letter = after.len().min(if after.starts_with('-') { 2 } else { 1 });
        let found = after
            .get(..letter)
            .and_then(|letter| table(letters).iter().find(|(own, _)| *own == letter));
        let Some((own, ours)) = found else {
            let letter: String = after.chars().take(1).collect();
            return refused(
                format!("%{letter} in a pattern of {name} is not supported"),
                "%Y, %m, %d, %H and %S mean the same everywhere; to_char(x, pattern) knows all letters of strftime",
            );
        };
        spelled.push_str(ours);
        rest = &after[own.len()..];
    }
    spelled.push_str(rest);
    Ok(spelled)
}
