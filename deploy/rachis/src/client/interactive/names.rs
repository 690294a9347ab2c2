//! The names that Tab completes: tables, functions, and the paths of tables. They are asked from the server; the paths of
//! a table when they are first needed.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

use serde_json::json;

use super::super::{Failure, http::Client};

/// How long Tab may wait for the paths of a table.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// Paths of a table.
const PATHS_MAX: usize = 2_000;

/// Names of the server.
pub(super) struct Names {
    client: Client,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    tables: Vec<String>,
    functions: Vec<String>,
    paths: BTreeMap<String, Vec<String>>,
}

impl Names {
    /// No names yet.
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            known: Mutex::default(),
        }
    }

    /// Asks for tables and functions, and forgets the paths.
    pub(super) async fn refresh(&self) -> Result<(), Failure> {
        let tables = self.first_column("SHOW TABLES").await?;
        let functions = self
            .first_column("SELECT DISTINCT name FROM rachis.functions ORDER BY 1")
            .await?;
        self.with(|known| {
            known.tables = tables.iter().map(|name| spelled(name)).collect();
            known.functions = functions;
            known.paths.clear();
        });
        Ok(())
    }

    /// The names of tables.
    pub(super) fn tables(&self) -> Vec<String> {
        self.with(|known| known.tables.clone())
    }

    /// The names of functions.
    pub(super) fn functions(&self) -> Vec<String> {
        self.with(|known| known.functions.clone())
    }

    /// The paths of a collection and the columns of other tables. None at all if the server does not answer in time.
    pub(super) async fn paths(&self, table: &str) -> Vec<String> {
        if let Some(paths) = self.with(|known| known.paths.get(table).cloned()) {
            return paths;
        }
        let describe = format!("DESCRIBE {table}");
        let Ok(Ok(mut paths)) = tokio::time::timeout(WAIT_MAX, self.first_column(&describe)).await else {
            return Vec::new();
        };
        paths.truncate(PATHS_MAX);
        paths.iter_mut().for_each(|path| *path = spelled(path));
        self.with(|known| known.paths.insert(table.to_owned(), paths.clone()));
        paths
    }

    /// Names with control characters are left out: they would control the terminal.
    async fn first_column(&self, sql: &str) -> Result<Vec<String>, Failure> {
        let answer = self.client.sql(&json!({ "sql": sql })).await?;
        let name = answer["columns"][0]["name"].as_str().unwrap_or_default();
        let rows = answer["rows"].as_array().into_iter().flatten();
        let names = rows.filter_map(|row| row[name].as_str());
        let names = names.filter(|name| !name.contains(char::is_control));
        Ok(names.map(str::to_owned).collect())
    }

    fn with<T>(&self, read: impl FnOnce(&mut Known) -> T) -> T {
        read(&mut self.known.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A name as a statement spells it: steps with a hyphen are quoted, else they would be differences.
fn spelled(name: &str) -> String {
    if name.contains('"') || !name.contains('-') {
        return name.to_owned();
    }
    let step = |step: &str| match step.contains('-') {
        true => format!("\"{step}\""),
        false => step.to_owned(),
    };
    name.split('.').map(step).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_with_a_hyphen_are_quoted() {
        assert_eq!(spelled("my-logs"), "\"my-logs\"");
        assert_eq!(spelled("headers.user-agent"), "headers.\"user-agent\"");
        assert_eq!(spelled("a.\"b-c\""), "a.\"b-c\"");
        assert_eq!(spelled("user.name"), "user.name");
    }
}
