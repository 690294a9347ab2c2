//! The oracle: expected answers from DuckDB and from plain Python over the files (`answers/oracle.py`).

use std::{
    collections::BTreeMap,
    io::Write as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// A statement that DuckDB answers, too.
#[derive(Debug, Clone)]
pub struct OracleStatement {
    /// The features that it covers.
    pub features: Vec<String>,
    /// The SQL for the server.
    pub sql: String,
    /// The SQL for DuckDB.
    pub oracle: String,
}

impl OracleStatement {
    /// Whether the order of the rows matters.
    pub fn is_ordered(&self) -> bool {
        self.features.iter().any(|feature| feature == "ordered")
    }

    /// Its text without literals; statements that differ only in literals have the same shape.
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
pub struct OracleSearch {
    /// The data set, whose name is also the collection's.
    pub set: String,
    /// The query for the server.
    pub query: String,
    /// The same condition in the oracle's form.
    pub condition: Value,
}

/// The data sets of real events and their files.
pub const SETS: [(&str, &str); 4] = [
    ("wiki", "wikiticker_2015.ndjson.gz"),
    ("github", "gharchive_2015.ndjson.gz"),
    ("orders", "osd_ecommerce.ndjson.gz"),
    ("trail", "cloudtrail.ndjson.gz"),
];

fn answers() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("answers")
}

/// All statements of `answers/statements.sql`, which we wrote, and of `answers/exploring.sql`, which a program wrote.
pub fn statements() -> Result<Vec<OracleStatement>> {
    let read = |name| std::fs::read_to_string(answers().join(name));
    let text = format!("{}\n\n{}", read("statements.sql")?, read("exploring.sql")?);
    let is_comment = |line: &str| line.starts_with("--") && !line.starts_with("-- [");
    text.split("\n\n")
        .filter(|block| !block.trim().lines().all(is_comment))
        .map(parse_statement)
        .collect()
}

fn parse_statement(block: &str) -> Result<OracleStatement> {
    let mut lines = block.trim().lines();
    let head = lines.next().context("a statement's block is empty")?;
    let features = head
        .strip_prefix("-- [")
        .and_then(|rest| rest.strip_suffix(']'))
        .with_context(|| format!("a statement does not begin with its features: {block}"))?
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
    Ok(OracleStatement {
        features,
        oracle: oracle.unwrap_or_else(|| sql.clone()),
        sql,
    })
}

/// All searches of `answers/searches.json`.
pub fn searches() -> Result<Vec<OracleSearch>> {
    let list: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(answers().join("searches.json"))?)?;
    let text = |value: &Value| value.as_str().map(str::to_owned).context("not a string");
    list.iter()
        .map(|s| {
            Ok(OracleSearch {
                set: text(&s["set"])?,
                query: text(&s["q"])?,
                condition: s["means"].clone(),
            })
        })
        .collect()
}

/// The expected answers.
pub struct OracleAnswers {
    /// Rows, by statement.
    pub statements: Vec<Vec<Vec<Value>>>,
    /// What each search matches.
    pub searches: Vec<OracleMatches>,
}

/// What a search matches, and what the oracle says about all of it.
#[derive(Debug, Deserialize)]
pub struct OracleMatches {
    /// Line numbers, from 0.
    pub lines: Vec<usize>,
    /// The score of each line.
    pub scores: Vec<f64>,
    /// By path, the values and how many matches have each, the most frequent first.
    pub facets: BTreeMap<String, Vec<(Value, u64)>>,
    /// By path, how many matches lie in each range.
    pub ranges: BTreeMap<String, Vec<u64>>,
    /// When each interval begins, and how many matches fall into it.
    pub histogram: Vec<(String, u64)>,
    /// The keys of each path, and how many matches have more than null there.
    pub fields: Vec<(Vec<String>, u64)>,
}

/// What to ask about all matches of a search.
#[derive(Debug, Clone, Deserialize, Serialize)]
pub struct SummaryQuestions {
    /// Paths whose values are counted.
    pub facets: Vec<String>,
    /// By path, the bounds between ranges.
    pub ranges: BTreeMap<String, Vec<i64>>,
    /// The path of a time, and an interval.
    pub histogram: (String, String),
}

/// The questions of `answers/summaries.json`, by data set.
pub fn summaries() -> Result<BTreeMap<String, SummaryQuestions>> {
    Ok(serde_json::from_str(&std::fs::read_to_string(
        answers().join("summaries.json"),
    )?)?)
}

/// Computes the expected answers.
pub fn compute(statements: &[OracleStatement], searches: &[OracleSearch]) -> Result<OracleAnswers> {
    let sets: serde_json::Map<String, Value> = SETS
        .iter()
        .map(|(name, file)| ((*name).to_owned(), (*file).into()))
        .collect();
    let request = json!({
        "data": crate::data::folder().context("no folder of real event data")?,
        "sets": sets,
        "statements": statements.iter().map(|s| s.oracle.as_str()).collect::<Vec<_>>(),
        "summaries": summaries()?,
        "searches": searches.iter().map(|s| json!({ "set": s.set, "means": s.condition })).collect::<Vec<_>>(),
    });
    let python = python();
    let mut child = Command::new(&python)
        .arg(answers().join("oracle.py"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot run {}; ./tests/run --prepare creates it", python.display()))?;
    child
        .stdin
        .take()
        .context("the oracle has no standard input")?
        .write_all(request.to_string().as_bytes())?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "the oracle failed");
    let answer: Value = serde_json::from_slice(&output.stdout)?;
    Ok(OracleAnswers {
        statements: serde_json::from_value(answer["statements"].clone())?,
        searches: serde_json::from_value(answer["searches"].clone())?,
    })
}

/// A Python that has DuckDB: `RACHIS_PYTHON`, else the environment that `tests/run` creates.
pub fn python() -> PathBuf {
    if let Some(python) = std::env::var_os("RACHIS_PYTHON") {
        return PathBuf::from(python);
    }
    crate::cache_dir()
        .unwrap_or_default()
        .join("python-duckdb-2.0.0-chdb-4.4.0-grpcio-1.85.1-openapi-0.9.0/bin/python")
}
