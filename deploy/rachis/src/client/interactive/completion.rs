//! What the line editor asks: how a word can be completed, whether an entry is complete, and what to say on a new line.

use std::{borrow::Cow, sync::Arc};

use rustyline::{
    Context, Helper, Result,
    completion::{Completer, Pair},
    highlight::Highlighter,
    hint::{Hint, Hinter},
    validate::{ValidationContext, ValidationResult, Validator},
};
use tokio::runtime::Handle;

use super::{
    command::COMMANDS,
    entry::{self, Entry},
    names::Names,
};

/// Words of statements.
const KEYWORDS: [&str; 45] = [
    "ALTER",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BY",
    "CASE",
    "CREATE",
    "DELETE FROM",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DROP",
    "ELSE",
    "END",
    "EXISTS",
    "EXPLAIN ANALYZE",
    "FIELD",
    "FROM",
    "GROUP BY",
    "HAVING",
    "IN",
    "INTERVAL",
    "IS NOT NULL",
    "IS NULL",
    "JOIN",
    "LEFT JOIN",
    "LIKE",
    "LIMIT",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OR",
    "ORDER BY",
    "OVER",
    "PARSER",
    "PARTITION BY",
    "SELECT",
    "SHOW FUNCTIONS",
    "SHOW TABLES",
    "SUMMARIZE",
    "VIEW",
    "WHERE",
    "WITH",
];

/// Helps the line editor.
pub(super) struct Assistant {
    names: Arc<Names>,
    runtime: Handle,
}

impl Assistant {
    /// For these names; paths are asked on the runtime.
    pub(super) fn new(names: Arc<Names>, runtime: Handle) -> Self {
        Self { names, runtime }
    }
}

impl Completer for Assistant {
    type Candidate = Pair;

    fn complete(&self, line: &str, pos: usize, _: &Context<'_>) -> Result<(usize, Vec<Pair>)> {
        let before = &line[..pos];
        let start = word_start(before);
        let word = &before[start..];
        let pair = |name: String| Pair {
            display: name.clone(),
            replacement: name,
        };
        if begins_line(&before[..start]) && word.starts_with('\\') {
            let names = COMMANDS.iter().map(|(name, ..)| (*name).to_owned());
            return Ok((start, names.filter(|name| name.starts_with(word)).map(pair).collect()));
        }
        let tables = self.names.tables();
        let mut candidates = matching(word, &tables);
        if !expects_table(&before[..start]) {
            for table in tables_of(line, &tables) {
                candidates.extend(matching(word, &self.runtime.block_on(self.names.paths(table))));
            }
            let functions = matching(word, &self.names.functions());
            candidates.extend(functions.into_iter().map(|name| format!("{name}(")));
            if !word.is_empty() {
                candidates.extend(matching(word, &KEYWORDS.map(str::to_owned)));
            }
        }
        candidates.sort();
        candidates.dedup();
        Ok((start, candidates.into_iter().map(pair).collect()))
    }
}

/// Whether a line has nothing yet.
fn begins_line(before: &str) -> bool {
    let line = before.rsplit('\n').next().unwrap_or_default();
    line.trim().is_empty()
}

/// Where the word before the cursor begins. A path is one word.
fn word_start(before: &str) -> usize {
    if before.matches('"').count() % 2 == 1 {
        // Within a quoted name.
        let quote = before.rfind('"').unwrap_or_default();
        return word_start(&before[..quote]);
    }
    let of_word = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '@' | '\\' | '"' | '$');
    before
        .char_indices()
        .rev()
        .take_while(|(_, c)| of_word(*c))
        .last()
        .map_or(before.len(), |(at, _)| at)
}

/// The names that begin with a word, regardless of case.
fn matching(word: &str, names: &[String]) -> Vec<String> {
    let unquoted = |name: &str| name.replace('"', "").to_lowercase();
    let word = unquoted(word);
    names
        .iter()
        .filter(|name| unquoted(name).starts_with(&word))
        .cloned()
        .collect()
}

/// Whether only a table can follow.
fn expects_table(before: &str) -> bool {
    let last = before.split_whitespace().next_back().unwrap_or_default().to_uppercase();
    matches!(last.as_str(), "FROM" | "JOIN" | "DESCRIBE" | "SUMMARIZE" | "\\D")
}

/// The tables that a statement names.
fn tables_of<'t>(line: &str, tables: &'t [String]) -> Vec<&'t String> {
    let words: Vec<&str> = line
        .split(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.')))
        .collect();
    tables.iter().filter(|table| words.contains(&table.as_str())).collect()
}

impl Validator for Assistant {
    fn validate(&self, context: &mut ValidationContext) -> Result<ValidationResult> {
        Ok(match Entry::read(context.input()).is_complete {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

/// What is said behind the cursor. It is not part of the entry, so no key can complete it.
pub(super) struct Advice(&'static str);

impl Hint for Advice {
    fn display(&self) -> &str {
        self.0
    }

    fn completion(&self) -> Option<&str> {
        None
    }
}

impl Hinter for Assistant {
    type Hint = Advice;

    fn hint(&self, line: &str, pos: usize, _: &Context<'_>) -> Option<Advice> {
        match pos == line.len() {
            true => entry::advice(line).map(Advice),
            false => None,
        }
    }
}

impl Highlighter for Assistant {
    /// Faint.
    fn highlight_hint<'h>(&self, hint: &'h str) -> Cow<'h, str> {
        Cow::Owned(format!("\x1b[2m{hint}\x1b[0m"))
    }
}

impl Helper for Assistant {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_one_word_and_the_tables_of_a_statement_are_found() {
        assert_eq!(word_start("select user.na"), 7);
        assert_eq!(word_start("select upper(user.na"), 13);
        assert_eq!(word_start("select "), 7);
        assert_eq!(word_start("\\d"), 0);
        assert!(begins_line("") && begins_line("select\n ") && !begins_line("select "));
        let tables = ["events", "logs", "rachis.sources"].map(str::to_owned);
        assert_eq!(
            tables_of("select n from events e, rachis.sources", &tables),
            [&tables[0], &tables[2]]
        );
        assert!(expects_table("select 1 FROM ") && expects_table("\\d ") && !expects_table("select "));
        assert_eq!(matching("EV", &tables), ["events"]);
    }
}
