//! The oracle: DuckDB, and plain Python over the files, in a process of its own (`answers/oracle.py`).

use std::{
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

/// A statement of `answers/statements.sql`.
#[derive(Debug, Clone)]
pub struct Statement {
    /// What it shows.
    pub features: Vec<String>,
    /// As the server is asked.
    pub sql: String,
    /// As the oracle is asked.
    pub oracle: String,
}

impl Statement {
    /// Whether rows must come in this order.
    pub fn ordered(&self) -> bool {
        self.features.iter().any(|feature| feature == "ordered")
    }

    /// Its text without literals: what makes it another statement.
    pub fn shape(&self) -> String {
        let mut shape = String::new();
        let mut quoted = false;
        for part in self.sql.split('\'') {
            if !quoted {
                shape.extend(part.chars().filter(|c| !c.is_ascii_digit()));
            }
            shape.push('\'');
            quoted = !quoted;
        }
        shape
    }
}

/// A search of `answers/searches.json`.
#[derive(Debug, Clone)]
pub struct Search {
    /// The set, which is also the collection.
    pub set: String,
    /// As the server is asked.
    pub query: String,
    /// What it means, for the oracle.
    pub means: Value,
}

/// The sets of real events and their files.
pub const SETS: [(&str, &str); 4] = [
    ("wiki", "wikiticker_2015.ndjson.gz"),
    ("github", "gharchive_2015.ndjson.gz"),
    ("orders", "osd_ecommerce.ndjson.gz"),
    ("trail", "cloudtrail.ndjson.gz"),
];

fn answers() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("answers")
}

/// All statements.
pub fn statements() -> Result<Vec<Statement>> {
    let text = std::fs::read_to_string(answers().join("statements.sql"))?;
    text.split("\n\n")
        .filter(|block| block.trim_start().starts_with("-- ["))
        .map(statement)
        .collect()
}

fn statement(block: &str) -> Result<Statement> {
    let mut lines = block.trim().lines();
    let head = lines.next().context("a block has a first line")?;
    let features = head
        .trim_start_matches("-- [")
        .trim_end_matches(']')
        .split(", ")
        .map(str::to_owned)
        .collect();
    let mut sql = Vec::new();
    let mut oracle = None;
    for line in lines {
        match line.strip_prefix("-- oracle: ") {
            Some(text) => oracle = Some(text.to_owned()),
            None => sql.push(line),
        }
    }
    let sql = sql.join("\n");
    Ok(Statement {
        features,
        oracle: oracle.unwrap_or_else(|| sql.clone()),
        sql,
    })
}

/// All searches.
pub fn searches() -> Result<Vec<Search>> {
    let list: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(answers().join("searches.json"))?)?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("a text");
    list.iter()
        .map(|s| {
            Ok(Search {
                set: text(&s["set"])?,
                query: text(&s["q"])?,
                means: s["means"].clone(),
            })
        })
        .collect()
}

/// What the oracle says: rows of each statement, line numbers (from 0) of each search.
pub struct Oracle {
    /// By statement.
    pub statements: Vec<Vec<Vec<Value>>>,
    /// By search.
    pub searches: Vec<Vec<usize>>,
}

/// Asks the oracle.
pub fn ask(statements: &[Statement], searches: &[Search]) -> Result<Oracle> {
    let sets: serde_json::Map<String, Value> = SETS
        .iter()
        .map(|(name, file)| ((*name).to_owned(), (*file).into()))
        .collect();
    let request = json!({
        "data": crate::data::folder().context("no folder of real event data")?,
        "sets": sets,
        "statements": statements.iter().map(|s| s.oracle.as_str()).collect::<Vec<_>>(),
        "searches": searches.iter().map(|s| json!({ "set": s.set, "means": s.means })).collect::<Vec<_>>(),
    });
    let python = python();
    let mut child = Command::new(&python)
        .arg(answers().join("oracle.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("{}; ./tests/run --prepare makes it", python.display()))?;
    child
        .stdin
        .take()
        .context("its input")?
        .write_all(request.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the oracle failed");
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    Ok(Oracle {
        statements: serde_json::from_value(answer["statements"].clone())?,
        searches: serde_json::from_value(answer["searches"].clone())?,
    })
}

/// A python that has DuckDB: `RACHIS_PYTHON`, else the one that `tests/run` makes.
pub fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("RACHIS_PYTHON") {
        return PathBuf::from(python);
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    cache
        .unwrap_or_default()
        .join("rachis/python-duckdb-2.0.0-grpcio-1.85.1/bin/python")
}
