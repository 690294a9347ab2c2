//! The files of the repository, as the rules see them.

use std::{collections::BTreeMap, fs, path::Path};

use toml::{Table, Value};

/// The files of the repository and their text, by path from the root. Hidden entries and build output are left out.
#[derive(Clone)]
pub(crate) struct Repository(BTreeMap<String, String>);

impl Repository {
    /// Reads the repository that this test belongs to.
    pub(crate) fn read() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the tests are in a folder of the repository");
        let mut files = BTreeMap::new();
        let walk = walkdir::WalkDir::new(root).into_iter().filter_entry(|entry| {
            let name = entry.file_name().to_string_lossy();
            entry.depth() == 0 || !(name.starts_with('.') || name == "target" || name == "__pycache__")
        });
        for entry in walk.filter_map(Result::ok).filter(|entry| entry.file_type().is_file()) {
            let path = entry
                .path()
                .strip_prefix(root)
                .expect("a file below the root")
                .to_string_lossy()
                .replace('\\', "/");
            // Of a file that is not text, the rules see only the name.
            files.insert(path, fs::read_to_string(entry.path()).unwrap_or_default());
        }
        Self(files)
    }

    /// A copy in which this text is appended to a file.
    pub(crate) fn with(&self, file: &str, text: &str) -> Self {
        let mut changed = self.clone();
        changed.0.entry(file.to_owned()).or_default().push_str(text);
        changed
    }

    pub(crate) fn paths(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    /// The folders that have a `Cargo.toml`, without the root.
    pub(crate) fn crates(&self) -> impl Iterator<Item = &str> {
        self.paths().filter_map(|path| path.strip_suffix("/Cargo.toml"))
    }

    /// The Rust files of a crate, without those of crates inside its folder; `""` stands for the whole repository.
    pub(crate) fn sources<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let crates: Vec<String> = self.crates().map(|path| format!("{path}/")).collect();
        let own = match folder {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        self.0
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .filter(move |(path, _)| {
                let in_another = !own.is_empty()
                    && crates
                        .iter()
                        .any(|other| other.len() > own.len() && path.starts_with(other.as_str()));
                path.ends_with(".rs") && path.starts_with(&own) && !in_another
            })
    }

    pub(crate) fn toml(&self, file: &str) -> Table {
        self.0
            .get(file)
            .unwrap_or_else(|| panic!("{file} is missing"))
            .parse()
            .unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    /// The manifests of all crates, without that of the workspace.
    pub(crate) fn manifests(&self) -> impl Iterator<Item = (&str, Table)> {
        self.paths()
            .filter(|path| path.ends_with("/Cargo.toml"))
            .map(|path| (path, self.toml(path)))
    }

    /// The names of all dependencies of a crate.
    pub(crate) fn dependencies(&self, folder: &str) -> Vec<String> {
        dependency_tables(&self.toml(&format!("{folder}/Cargo.toml")))
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
            .collect()
    }
}

/// Normal, development and build dependencies, target-specific ones included. A renamed package has its own name.
pub(crate) fn dependency_tables(manifest: &Table) -> Vec<Vec<(String, Value)>> {
    const KINDS: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];
    let targets = manifest
        .get("target")
        .and_then(Value::as_table)
        .into_iter()
        .flat_map(Table::values)
        .filter_map(Value::as_table);
    std::iter::once(manifest)
        .chain(targets)
        .flat_map(|table| KINDS.iter().filter_map(|kind| table.get(*kind)?.as_table()))
        .map(|table| {
            let package =
                |name: &String, value: &Value| value.get("package").and_then(Value::as_str).unwrap_or(name).to_owned();
            table
                .iter()
                .map(|(name, value)| (package(name, value), value.clone()))
                .collect()
        })
        .collect()
}
