//! DuckDB as a process that runs one statement after the other (`answers/duck.py`).

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::DocumentSet;

/// DuckDB's rows, or its error.
pub type DuckResult = Result<Vec<Vec<Value>>, String>;

/// A DuckDB process with a table for each document set.
pub struct DuckDb {
    child: Child,
    pipe: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl DuckDb {
    /// Starts it over these sets, whose rows are written to the folder.
    pub fn start(sets: &[DocumentSet], folder: &Path) -> Result<Self> {
        let mut tables = serde_json::Map::new();
        for set in sets {
            let file = folder.join(format!("{}.ndjson", set.name));
            let lines: Vec<String> = set.rows.iter().map(Value::to_string).collect();
            std::fs::write(&file, lines.join("\n"))?;
            tables.insert(set.name.clone(), json!({ "file": file, "columns": set.types() }));
        }
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("answers/duck.py");
        let python = crate::oracle::python();
        let mut child = Command::new(&python)
            .arg(script)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot run {}; ./tests/run --prepare creates it", python.display()))?;
        let mut input = child.stdin.take().context("DuckDB has no standard input")?;
        writeln!(input, "{}", json!({ "tables": tables }))?;
        let output = BufReader::new(child.stdout.take().context("DuckDB has no standard output")?);
        Ok(Self {
            child,
            pipe: Mutex::new((input, output)),
        })
    }

    /// Runs a statement. Blocks, so do not call it from an asynchronous task.
    pub fn query(&self, sql: &str) -> Result<DuckResult> {
        let mut pipe = self
            .pipe
            .lock()
            .map_err(|_| anyhow::anyhow!("an earlier statement panicked"))?;
        writeln!(pipe.0, "{}", json!({ "sql": sql }))?;
        let mut line = String::new();
        pipe.1.read_line(&mut line)?;
        let mut response: Value =
            serde_json::from_str(&line).with_context(|| format!("DuckDB answered {line:?} to {sql}"))?;
        match response["error"].as_str() {
            Some(error) => Ok(Err(error.to_owned())),
            None => Ok(Ok(serde_json::from_value(response["rows"].take())?)),
        }
    }
}

impl Drop for DuckDb {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
