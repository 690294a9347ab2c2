//! DuckDB, in a process of its own that is asked one statement after the other (`answers/duck.py`).

use std::{
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    sync::Mutex,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::Set;

/// What DuckDB says: rows, or why there are none.
pub type Said = Result<Vec<Vec<Value>>, String>;

/// DuckDB over some sets.
pub struct Duck {
    child: Child,
    line: Mutex<(ChildStdin, BufReader<ChildStdout>)>,
}

impl Duck {
    /// Over these sets; their rows are written to the folder.
    pub fn start(sets: &[Set], folder: &Path) -> Result<Self> {
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
            .with_context(|| format!("{}; ./tests/run --prepare makes it", python.display()))?;
        let mut asked = child.stdin.take().context("its input")?;
        writeln!(asked, "{}", json!({ "tables": tables }))?;
        let said = BufReader::new(child.stdout.take().context("its output")?);
        Ok(Self {
            child,
            line: Mutex::new((asked, said)),
        })
    }

    /// Asks; waits for the answer, so not from an asynchronous task.
    pub fn ask(&self, sql: &str) -> Result<Said> {
        let mut line = self
            .line
            .lock()
            .map_err(|_| anyhow::anyhow!("an earlier question failed"))?;
        writeln!(line.0, "{}", json!({ "sql": sql }))?;
        let mut said = String::new();
        line.1.read_line(&mut said)?;
        let mut said: Value = serde_json::from_str(&said).with_context(|| format!("DuckDB said {said:?} to {sql}"))?;
        match said["error"].as_str() {
            Some(error) => Ok(Err(error.to_owned())),
            None => Ok(Ok(serde_json::from_value(said["rows"].take())?)),
        }
    }
}

impl Drop for Duck {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
