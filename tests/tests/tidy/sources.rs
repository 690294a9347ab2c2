//! Rules about files: where they are, how they are named, how long they are, and what their code contains.

use std::collections::BTreeMap;

use super::{
    lexer::{code_of, declared_types, without_turbofish, without_unit_tests},
    manifests::PRODUCT,
    repository::Repository,
};

pub(crate) fn the_top_level_has_only_agreed_entries(repository: &Repository) -> Vec<String> {
    const AGREED: [&str; 12] = [
        "Cargo.toml",
        "Cargo.lock",
        "tailer",
        "leaf",
        "aggregator",
        "proto",
        "deploy",
        "tests",
        "benches",
        "README.md",
        "LICENSE",
        // rustfmt looks for its settings only here.
        "rustfmt.toml",
    ];
    let mut names: Vec<&str> = repository
        .paths()
        .filter_map(|path| path.split('/').next())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.dedup();
    names
        .iter()
        .filter(|name| !AGREED.contains(name))
        .map(|name| format!("{name} is not an agreed top-level entry"))
        .collect()
}

/// A module with such a name collects whatever has no better place.
pub(crate) fn no_module_has_a_catch_all_name(repository: &Repository) -> Vec<String> {
    const CATCH_ALL: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "misc", "type", "types"];
    let mut violations = Vec::new();
    for (file, text) in repository.sources("") {
        if let Some(name) = file
            .trim_end_matches(".rs")
            .split('/')
            .find(|part| CATCH_ALL.contains(part))
        {
            violations.push(format!("{file} has the catch-all name {name} in its path"));
        }
        let code = code_of(text, false);
        let words: Vec<&str> = code
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .collect();
        for pair in words
            .windows(2)
            .filter(|pair| pair[0] == "mod" && CATCH_ALL.contains(&pair[1]))
        {
            violations.push(format!("{file} has a module with the catch-all name {}", pair[1]));
        }
    }
    violations
}

pub(crate) fn every_module_has_documentation(repository: &Repository) -> Vec<String> {
    let starts_with_docs = |text: &str| match text.lines().next() {
        Some(line) if line.starts_with("#![doc = include_str!(") => true,
        Some(line) => line.strip_prefix("//!").is_some_and(|words| words.trim().len() > 3),
        None => false,
    };
    repository
        .sources("")
        .filter(|(_, text)| !starts_with_docs(text))
        .map(|(file, _)| format!("{file} does not start with //! and what the module is for"))
        .collect()
}

pub(crate) fn no_file_is_too_long(repository: &Repository) -> Vec<String> {
    const LINES_MAX: usize = 800;
    repository
        .sources("")
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(file, lines)| format!("{file} has {lines} lines; {LINES_MAX} are allowed"))
        .collect()
}

/// Whoever searches for a type by its name must find one. Unit and integration tests belong to their crate.
pub(crate) fn no_type_name_is_declared_twice(repository: &Repository) -> Vec<String> {
    let mut violations = Vec::new();
    for folder in repository.crates() {
        let mut files_by_name: BTreeMap<String, Vec<&str>> = BTreeMap::new();
        for (file, text) in repository.sources(folder) {
            for name in declared_types(&code_of(text, false)) {
                files_by_name.entry(name.to_owned()).or_default().push(file);
            }
        }
        violations.extend(
            files_by_name
                .iter()
                .filter(|(_, files)| files.len() > 1)
                .map(|(name, files)| format!("{folder} declares the type {name} in {}", files.join(" and in "))),
        );
    }
    violations
}

/// The code of a file without its unit tests.
fn product_code(file: &str, text: &str) -> String {
    if is_unit_test_file(file) {
        return String::new();
    }
    without_unit_tests(&code_of(text, false)).to_owned()
}

fn is_unit_test_file(file: &str) -> bool {
    file.ends_with("/tests.rs")
}

pub(crate) fn no_role_writes_to_stdout(repository: &Repository) -> Vec<String> {
    let mut violations = Vec::new();
    for folder in ["proto", "proto/plan", "tailer", "leaf", "aggregator"] {
        for (file, text) in repository.sources(folder).filter(|(file, _)| file.contains("/src/")) {
            let code = product_code(file, text);
            for word in ["println!", "print!", "stdout()", "dbg!"] {
                if contains_word(&code, word) {
                    violations.push(format!("{file} has {word}"));
                }
            }
        }
    }
    violations
}

pub(crate) fn no_channel_is_unbounded(repository: &Repository) -> Vec<String> {
    let mut violations = Vec::new();
    for folder in PRODUCT {
        for (file, text) in repository.sources(folder) {
            let code: String = product_code(file, text).split_whitespace().collect();
            let unbounded =
                code.contains("unbounded_channel") || code.contains("unbounded()") || code.contains("unbounded::<");
            // The standard library's `channel()` takes no capacity.
            let unbounded = unbounded || without_turbofish(&code).contains("mpsc::channel()");
            if unbounded {
                violations.push(format!("{file} has an unbounded channel"));
            }
        }
    }
    violations
}

/// Where tests may sleep: in functions that poll with a deadline and report what they waited for, and in the ledger,
/// which paces its own plan.
const MAY_SLEEP: [&str; 3] = ["tests/src/", "tests/ledger/src/", "leaf/src/tests/support.rs"];

pub(crate) fn no_test_sleeps_for_a_condition(repository: &Repository) -> Vec<String> {
    let mut violations = Vec::new();
    for (file, text) in repository.sources("") {
        if MAY_SLEEP.iter().any(|place| file.starts_with(place)) {
            continue;
        }
        let code = code_of(text, false);
        let tests = match file.contains("/tests/") || is_unit_test_file(file) {
            true => code.as_str(),
            false => &code[without_unit_tests(&code).len()..],
        };
        if contains_word(tests, "sleep(") {
            violations.push(format!(
                "{file} sleeps in a test; poll for the condition, with a deadline"
            ));
        }
    }
    violations
}

/// Whether the code contains a word that is not the end of a longer identifier.
fn contains_word(code: &str, word: &str) -> bool {
    code.match_indices(word)
        .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
}

pub(crate) fn no_port_is_hard_coded(repository: &Repository) -> Vec<String> {
    const LOCAL_HOSTS: [&str; 4] = ["127.0.0.1:", "localhost:", "0.0.0.0:", "[::1]:"];
    let mut violations = Vec::new();
    for (file, text) in repository.sources("") {
        if file == "tests/tests/tidy/breaches.rs" {
            continue;
        }
        let code = code_of(text, true);
        for host in LOCAL_HOSTS {
            for (at, _) in code.match_indices(host) {
                let port: String = code[at + host.len()..]
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect();
                // The default port of the binary is public, and its command line may describe it.
                let is_default = file.starts_with("deploy/rachis/") && port == "7700";
                if !port.is_empty() && port != "0" && !is_default {
                    violations.push(format!("{file} has {host}{port}"));
                }
            }
        }
    }
    violations
}
