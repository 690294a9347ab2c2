//! The house keeps its invariants: who may depend on whom, who may name what, and how a file opens.
//!
//! A rule is a function from the house (every file of the repository) to complaints. So each rule is asked twice: the
//! real house gives none, and a house with one breach in it gives exactly that one, which shows that the rule can fail.

use std::{collections::BTreeMap, fs, path::Path};

use toml::{Table, Value};

/// Every file of the repository that is text, by its path from the root. What git ignores and dot-folders are left out.
#[derive(Clone)]
struct House(BTreeMap<String, String>);

type Rule = fn(&House) -> Vec<String>;

const RULES: [(&str, Rule); 15] = [
    (
        "roles_depend_only_on_proto_and_plan",
        roles_depend_only_on_proto_and_plan,
    ),
    (
        "the_ledger_shares_no_code_with_the_server",
        the_ledger_shares_no_code_with_the_server,
    ),
    (
        "only_the_named_crates_name_a_dependency",
        only_the_named_crates_name_a_dependency,
    ),
    ("versions_are_chosen_in_one_place", versions_are_chosen_in_one_place),
    ("the_lints_hold_in_every_crate", the_lints_hold_in_every_crate),
    ("a_panic_never_ends_the_process", a_panic_never_ends_the_process),
    ("one_version_of_what_crosses_crates", one_version_of_what_crosses_crates),
    (
        "the_top_level_holds_only_what_is_agreed",
        the_top_level_holds_only_what_is_agreed,
    ),
    ("no_module_is_a_drawer", no_module_is_a_drawer),
    ("every_module_says_what_it_is", every_module_says_what_it_is),
    ("no_file_is_longer_than_a_reader", no_file_is_longer_than_a_reader),
    ("no_role_writes_to_stdout", no_role_writes_to_stdout),
    ("no_channel_is_unbounded", no_channel_is_unbounded),
    ("no_test_sleeps_for_a_condition", no_test_sleeps_for_a_condition),
    ("no_port_is_hard_coded", no_port_is_hard_coded),
];

#[test]
fn the_house_keeps_every_rule() {
    let house = House::here();
    assert!(house.0.len() > 30, "the repository was found: {} files", house.0.len());
    let complaints: Vec<String> = RULES
        .iter()
        .flat_map(|(name, rule)| {
            rule(&house)
                .into_iter()
                .map(move |complaint| format!("{name}: {complaint}"))
        })
        .collect();
    assert!(
        complaints.is_empty(),
        "{} breaches\n  {}",
        complaints.len(),
        complaints.join("\n  ")
    );
}

#[test]
fn every_rule_notices_a_breach() {
    let house = House::here();
    for (name, rule) in RULES {
        let known = rule(&house);
        let breaches: Vec<_> = BREACHES.iter().filter(|(of, ..)| *of == name).collect();
        assert!(!breaches.is_empty(), "no breach is known that {name} would notice");
        for (_, file, text) in breaches {
            let found: Vec<String> = rule(&house.with(file, text))
                .into_iter()
                .filter(|complaint| !known.contains(complaint))
                .collect();
            assert_eq!(
                found.len(),
                1,
                "{name}, with this in {file}: {text:?}\n  {}",
                found.join("\n  ")
            );
        }
    }
}

/// Rule, file, and what is appended to it (or the whole of a new file).
const BREACHES: &[(&str, &str, &str)] = &[
    (
        "roles_depend_only_on_proto_and_plan",
        "leaf/Cargo.toml",
        "\n[target.'cfg(breach)'.dev-dependencies]\ntailer.workspace = true\n",
    ),
    (
        "roles_depend_only_on_proto_and_plan",
        "tailer/Cargo.toml",
        "\n[target.'cfg(breach)'.dependencies]\naggregator.workspace = true\n",
    ),
    (
        "roles_depend_only_on_proto_and_plan",
        "proto/Cargo.toml",
        "\n[target.'cfg(breach)'.build-dependencies]\nplan.workspace = true\n",
    ),
    (
        "the_ledger_shares_no_code_with_the_server",
        "tests/ledger/Cargo.toml",
        "\n[target.'cfg(breach)'.dev-dependencies]\nproto.workspace = true\n",
    ),
    (
        "only_the_named_crates_name_a_dependency",
        "aggregator/Cargo.toml",
        "\n[target.'cfg(breach)'.dev-dependencies]\nrocksdb.workspace = true\n",
    ),
    (
        "only_the_named_crates_name_a_dependency",
        "leaf/Cargo.toml",
        "\n[target.'cfg(breach)'.build-dependencies]\ntonic-build.workspace = true\n",
    ),
    (
        "only_the_named_crates_name_a_dependency",
        "deploy/rachis/Cargo.toml",
        "\n[target.'cfg(breach)'.dev-dependencies]\naxum.workspace = true\n",
    ),
    (
        "only_the_named_crates_name_a_dependency",
        "proto/src/some.rs",
        "//! Some.\nuse rdkafka::ClientConfig;\n",
    ),
    (
        "only_the_named_crates_name_a_dependency",
        "leaf/src/service/some.rs",
        "//! Some.\nfn f() -> prost::Message { 1 }\n",
    ),
    (
        "only_the_named_crates_name_a_dependency",
        "leaf/src/shard/some.rs",
        "//! Some.\nuse tonic::Status;\n",
    ),
    (
        "versions_are_chosen_in_one_place",
        "leaf/Cargo.toml",
        "\n[target.'cfg(breach)'.dev-dependencies]\nrand = \"0.9\"\n",
    ),
    (
        "the_lints_hold_in_every_crate",
        "extra/Cargo.toml",
        "[package]\nname = \"extra\"\n",
    ),
    (
        "the_lints_hold_in_every_crate",
        "leaf/src/some.rs",
        "//! Some.\n#![allow(unsafe_code)]\n",
    ),
    (
        "a_panic_never_ends_the_process",
        "Cargo.toml",
        "\n[profile.breach]\npanic = \"abort\"\n",
    ),
    (
        "one_version_of_what_crosses_crates",
        "Cargo.lock",
        "\n[[package]]\nname = \"arrow\"\nversion = \"1.0.0\"\n",
    ),
    ("the_top_level_holds_only_what_is_agreed", "scripts/some.sh", "true\n"),
    ("the_top_level_holds_only_what_is_agreed", "NOTES.md", "notes\n"),
    ("no_module_is_a_drawer", "leaf/src/shard/utils.rs", "//! Some.\n"),
    ("no_module_is_a_drawer", "leaf/src/common/some.rs", "//! Some.\n"),
    (
        "no_module_is_a_drawer",
        "leaf/src/some.rs",
        "//! Some.\npub(crate) mod helpers { }\n",
    ),
    (
        "every_module_says_what_it_is",
        "leaf/src/some.rs",
        "use std::fmt;\n//! Some.\n",
    ),
    ("every_module_says_what_it_is", "leaf/src/some.rs", ""),
    (
        "every_module_says_what_it_is",
        "leaf/src/some.rs",
        "//!\n//!\nuse std::fmt;\n",
    ),
    (
        "no_role_writes_to_stdout",
        "leaf/src/some.rs",
        "//! Some.\nfn f() { println!(\"{}\", 1) }\n",
    ),
    (
        "no_role_writes_to_stdout",
        "tailer/src/some.rs",
        "//! Some.\nfn f() { std::io::stdout().lock(); }\n",
    ),
    (
        "no_channel_is_unbounded",
        "leaf/src/some.rs",
        "//! Some.\nfn f() { let (a, b) = mpsc::unbounded_channel(); }\n",
    ),
    (
        "no_channel_is_unbounded",
        "leaf/src/some.rs",
        "//! Some.\nfn f() { let (a, b) = std::sync::mpsc::channel::<u8>(); }\n",
    ),
    (
        "no_test_sleeps_for_a_condition",
        "tests/tests/some.rs",
        "//! Some.\nfn f() { std::thread::sleep(SHORT); }\n",
    ),
    (
        "no_test_sleeps_for_a_condition",
        "leaf/tests/some.rs",
        "//! Some.\nfn f() { tokio::time::sleep(SHORT).await; }\n",
    ),
    (
        "no_test_sleeps_for_a_condition",
        "leaf/src/some.rs",
        "//! Some.\n#[cfg(test)]\nmod tests {\nfn f() { sleep(SHORT).await; }\n}\n",
    ),
    (
        "no_port_is_hard_coded",
        "leaf/src/some.rs",
        "//! Some.\nconst A: &str = \"127.0.0.1:9092\";\n",
    ),
    (
        "no_port_is_hard_coded",
        "tests/tests/some.rs",
        "//! Some.\nconst A: &str = \"http://localhost:80/\";\n",
    ),
    (
        "no_port_is_hard_coded",
        "deploy/rachis/src/some.rs",
        "//! Some.\nconst A: &str = \"0.0.0.0:7701\";\n",
    ),
    ("no_file_is_longer_than_a_reader", "leaf/src/some.rs", LONG),
];

const LONG: &str = {
    const NEWLINES: [u8; 901] = [b'\n'; 901];
    match std::str::from_utf8(&NEWLINES) {
        Ok(text) => text,
        Err(_) => "",
    }
};

/// Crate folder -> the product's own crates that it may depend on. The binary may name all; tests and benches too.
const MAY_DEPEND: [(&str, &[&str]); 6] = [
    ("proto", &[]),
    ("proto/plan", &["proto"]),
    ("tailer", &["proto", "plan"]),
    ("leaf", &["proto", "plan"]),
    ("aggregator", &["proto", "plan", "front"]),
    ("aggregator/front", &[]),
];

fn roles_depend_only_on_proto_and_plan(house: &House) -> Vec<String> {
    const OURS: [&str; 10] = [
        "proto",
        "plan",
        "tailer",
        "leaf",
        "aggregator",
        "front",
        "rachis",
        "tests",
        "ledger",
        "benches",
    ];
    let mut complaints = Vec::new();
    for (folder, allowed) in MAY_DEPEND {
        for name in house.dependencies(folder) {
            if OURS.contains(&name.as_str()) && !allowed.contains(&name.as_str()) {
                complaints.push(format!("{folder} depends on {name}; it may depend on {allowed:?}"));
            }
        }
    }
    complaints
}

fn the_ledger_shares_no_code_with_the_server(house: &House) -> Vec<String> {
    const SERVER: [&str; 8] = [
        "proto",
        "plan",
        "tailer",
        "leaf",
        "aggregator",
        "front",
        "rachis",
        "tests",
    ];
    house
        .dependencies("tests/ledger")
        .into_iter()
        .filter(|name| SERVER.contains(&name.as_str()))
        .map(|name| format!("tests/ledger depends on {name}"))
        .collect()
}

/// What only some of the product's crates may name, as a dependency or in their sources. Tests and benches may name
/// everything.
const NAMED: [(&str, &[&str]); 10] = [
    ("prost", &["proto"]),
    (
        "tonic",
        &["proto", "proto/plan", "tailer", "leaf", "aggregator", "deploy/rachis"],
    ),
    ("tonic-", &["proto", "deploy/rachis"]),
    ("rdkafka", &["tailer"]),
    ("rocksdb", &["leaf"]),
    ("tantivy", &["leaf"]),
    ("axum", &["aggregator"]),
    ("datafusion", &["proto/plan", "leaf", "aggregator", "aggregator/front"]),
    ("clap", &["deploy/rachis"]),
    ("tracing-subscriber", &["deploy/rachis"]),
];

const PRODUCT: [&str; 7] = [
    "proto",
    "proto/plan",
    "tailer",
    "leaf",
    "aggregator",
    "aggregator/front",
    "deploy/rachis",
];

/// Where wire messages are turned into our types and back: nothing deeper sees gRPC, and nothing at all what is
/// generated for it.
const GRPC_DOORS: [&str; 9] = [
    "proto/src/wire/",
    "proto/src/client/",
    "/service/",
    "proto/plan/src/client.rs",
    "proto/plan/src/wire.rs",
    "aggregator/src/http/mod.rs",
    "deploy/rachis/src/node.rs",
    "deploy/rachis/src/shell.rs",
    "deploy/rachis/src/cluster.rs",
];

fn only_the_named_crates_name_a_dependency(house: &House) -> Vec<String> {
    let mut complaints = Vec::new();
    for folder in PRODUCT {
        for (name, allowed) in NAMED {
            let is = |found: &str| match name.strip_suffix('-') {
                Some(_) => found.starts_with(name),
                None => {
                    found == name
                        || found.starts_with(&format!("{name}-"))
                            && !NAMED.iter().any(|(other, _)| *other == format!("{name}-"))
                }
            };
            if !allowed.contains(&folder) {
                let relatives = house.dependencies(folder).into_iter().filter(|found| is(found));
                complaints
                    .extend(relatives.map(|found| format!("{folder}/Cargo.toml names {found}; only {allowed:?} may")));
            }
            let path = format!("{}::", name.replace('-', "_"));
            for (file, text) in house.sources(folder).filter(|(file, _)| !file.contains("/tests/")) {
                let may = match name {
                    "tonic" => GRPC_DOORS.iter().any(|door| file.contains(door)),
                    _ => allowed.contains(&folder),
                };
                if !may && names_path(&code_of(text, false), &path) {
                    complaints.push(format!("{file} names {path}; only {allowed:?} may"));
                }
            }
        }
    }
    complaints
}

fn versions_are_chosen_in_one_place(house: &House) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, manifest) in house.manifests() {
        for (name, value) in dependency_tables(&manifest).into_iter().flatten() {
            if !value.get("workspace").and_then(Value::as_bool).unwrap_or(false) {
                complaints.push(format!(
                    "{file}: {name} has a version of its own; it belongs into [workspace.dependencies]"
                ));
            }
        }
    }
    complaints
}

fn the_lints_hold_in_every_crate(house: &House) -> Vec<String> {
    let mut complaints = Vec::new();
    let workspace = house.toml("Cargo.toml");
    let lint = |group: &str, name: &str| {
        workspace
            .get("workspace")?
            .get("lints")?
            .get(group)?
            .get(name)?
            .as_str()
            .map(str::to_owned)
    };
    for (group, name, level) in [
        ("rust", "unsafe_code", "forbid"),
        ("clippy", "unwrap_used", "deny"),
        ("clippy", "dbg_macro", "deny"),
        ("clippy", "todo", "deny"),
    ] {
        if lint(group, name).as_deref() != Some(level) {
            complaints.push(format!("the workspace's lint {group}.{name} is not {level}"));
        }
    }
    for (file, manifest) in house.manifests() {
        if manifest.contains_key("package")
            && manifest
                .get("lints")
                .and_then(|lints| lints.get("workspace"))
                .and_then(Value::as_bool)
                != Some(true)
        {
            complaints.push(format!("{file} does not take the workspace's lints"));
        }
    }
    for (file, text) in house.sources("") {
        if code_of(text, false).contains("unsafe_code)") {
            complaints.push(format!("{file} loosens the lint unsafe_code"));
        }
    }
    complaints
}

fn a_panic_never_ends_the_process(house: &House) -> Vec<String> {
    let manifest = house.toml("Cargo.toml");
    let profiles = manifest
        .get("profile")
        .and_then(Value::as_table)
        .cloned()
        .unwrap_or_default();
    profiles
        .iter()
        .filter(|(_, profile)| profile.get("panic").and_then(Value::as_str) == Some("abort"))
        .map(|(name, _)| format!("[profile.{name}] says panic = \"abort\""))
        .collect()
}

fn one_version_of_what_crosses_crates(house: &House) -> Vec<String> {
    const SINGLE: [&str; 5] = ["arrow", "datafusion", "tonic", "prost", "object_store"];
    let lock = house.toml("Cargo.lock");
    let packages = lock
        .get("package")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut complaints = Vec::new();
    for name in SINGLE {
        let versions: Vec<_> = packages
            .iter()
            .filter(|package| package["name"].as_str() == Some(name))
            .filter_map(|package| package["version"].as_str())
            .collect();
        if versions.len() > 1 {
            complaints.push(format!("{name} is in the tree as {}", versions.join(" and ")));
        }
    }
    complaints
}

fn the_top_level_holds_only_what_is_agreed(house: &House) -> Vec<String> {
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
        // Read by rustfmt from here and nowhere else.
        "rustfmt.toml",
    ];
    let mut names: Vec<&str> = house
        .0
        .keys()
        .filter_map(|path| path.split('/').next())
        .filter(|name| !name.starts_with('.'))
        .collect();
    names.dedup();
    names
        .iter()
        .filter(|name| !AGREED.contains(name))
        .map(|name| format!("{name} stands at the top level"))
        .collect()
}

fn no_module_is_a_drawer(house: &House) -> Vec<String> {
    const DRAWERS: [&str; 8] = ["util", "utils", "common", "helper", "helpers", "misc", "type", "types"];
    let mut complaints = Vec::new();
    for (file, text) in house.sources("") {
        if let Some(drawer) = file
            .trim_end_matches(".rs")
            .split('/')
            .find(|part| DRAWERS.contains(part))
        {
            complaints.push(format!("{file} is in a drawer called {drawer}"));
        }
        let code = code_of(text, false);
        let words: Vec<&str> = code
            .split(|c: char| !c.is_alphanumeric() && c != '_')
            .filter(|word| !word.is_empty())
            .collect();
        for pair in words
            .windows(2)
            .filter(|pair| pair[0] == "mod" && DRAWERS.contains(&pair[1]))
        {
            complaints.push(format!("{file} has a module called {}", pair[1]));
        }
    }
    complaints
}

fn every_module_says_what_it_is(house: &House) -> Vec<String> {
    let opens_well = |text: &str| match text.lines().next() {
        Some(line) if line.starts_with("#![doc = include_str!(") => true,
        Some(line) => line.strip_prefix("//!").is_some_and(|words| words.trim().len() > 3),
        None => false,
    };
    house
        .sources("")
        .filter(|(_, text)| !opens_well(text))
        .map(|(file, _)| format!("{file} does not open with //! and what it is"))
        .collect()
}

fn no_file_is_longer_than_a_reader(house: &House) -> Vec<String> {
    const LINES_MAX: usize = 800;
    house
        .sources("")
        .map(|(file, text)| (file, text.lines().count()))
        .filter(|(_, lines)| *lines > LINES_MAX)
        .map(|(file, lines)| format!("{file} has {lines} lines, at most {LINES_MAX}"))
        .collect()
}

fn no_role_writes_to_stdout(house: &House) -> Vec<String> {
    let mut complaints = Vec::new();
    for folder in ["proto", "proto/plan", "tailer", "leaf", "aggregator"] {
        for (file, text) in house.sources(folder).filter(|(file, _)| file.contains("/src/")) {
            let code = product_part(&code_of(text, false)).to_owned();
            for word in ["println!", "print!", "stdout()", "dbg!"] {
                if code
                    .match_indices(word)
                    .any(|(at, _)| !code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'))
                {
                    complaints.push(format!("{file} has {word}"));
                }
            }
        }
    }
    complaints
}

fn no_channel_is_unbounded(house: &House) -> Vec<String> {
    let mut complaints = Vec::new();
    for folder in PRODUCT {
        for (file, text) in house.sources(folder) {
            let code: String = product_part(&code_of(text, false)).split_whitespace().collect();
            let endless =
                code.contains("unbounded_channel") || code.contains("unbounded()") || code.contains("unbounded::<");
            // The standard library's `channel()` takes no capacity.
            let endless = endless || without_turbofish(&code).contains("mpsc::channel()");
            if endless {
                complaints.push(format!("{file} has a channel without a limit"));
            }
        }
    }
    complaints
}

/// Where a test may sleep: the places that poll until a deadline and tell what they waited for, and the program that
/// paces its own plan.
const MAY_SLEEP: [&str; 3] = ["tests/src/", "tests/ledger/src/", "leaf/tests/leaf/support.rs"];

fn no_test_sleeps_for_a_condition(house: &House) -> Vec<String> {
    let mut complaints = Vec::new();
    for (file, text) in house.sources("") {
        if MAY_SLEEP.iter().any(|place| file.starts_with(place)) {
            continue;
        }
        let code = code_of(text, false);
        let tested = match file.contains("/tests/") {
            true => code.as_str(),
            false => &code[product_part(&code).len()..],
        };
        let sleeps = tested
            .match_indices("sleep(")
            .any(|(at, _)| !tested[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
        if sleeps {
            complaints.push(format!(
                "{file} sleeps in a test; wait for what it waits for, with a deadline"
            ));
        }
    }
    complaints
}

fn no_port_is_hard_coded(house: &House) -> Vec<String> {
    const HERE: [&str; 4] = ["127.0.0.1:", "localhost:", "0.0.0.0:", "[::1]:"];
    let mut complaints = Vec::new();
    for (file, text) in house.sources("") {
        let code = code_of(text, true);
        for host in HERE {
            for (at, _) in code.match_indices(host) {
                let port: String = code[at + host.len()..]
                    .chars()
                    .take_while(char::is_ascii_digit)
                    .collect();
                // The binary's own default is part of its surface and may stand where the command line is described.
                let default = file.starts_with("deploy/rachis/") && port == "7700";
                if !port.is_empty() && port != "0" && !default && file != "tests/tests/tidy.rs" {
                    complaints.push(format!("{file} has {host}{port}"));
                }
            }
        }
    }
    complaints
}

impl House {
    fn here() -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("the tests are a folder of the repository");
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
            // A file that is not text still takes part by its name.
            files.insert(path, fs::read_to_string(entry.path()).unwrap_or_default());
        }
        Self(files)
    }

    fn with(&self, file: &str, text: &str) -> Self {
        let mut house = self.clone();
        house.0.entry(file.to_owned()).or_default().push_str(text);
        house
    }

    /// The Rust files of a crate (not of a crate inside its folder), or of the whole repository.
    fn sources<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let inner: Vec<String> = self
            .0
            .keys()
            .filter_map(|path| path.strip_suffix("/Cargo.toml"))
            .map(|path| format!("{path}/"))
            .collect();
        let own = match folder {
            "" => String::new(),
            folder => format!("{folder}/"),
        };
        self.0
            .iter()
            .map(|(path, text)| (path.as_str(), text.as_str()))
            .filter(move |(path, _)| {
                let in_another = !own.is_empty()
                    && inner
                        .iter()
                        .any(|other| other.len() > own.len() && path.starts_with(other.as_str()));
                path.ends_with(".rs") && path.starts_with(&own) && !in_another
            })
    }

    fn toml(&self, file: &str) -> Table {
        self.0
            .get(file)
            .unwrap_or_else(|| panic!("{file} is there"))
            .parse()
            .unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    fn manifests(&self) -> impl Iterator<Item = (&str, Table)> {
        self.0
            .keys()
            .filter(|path| path.ends_with("/Cargo.toml"))
            .map(|path| (path.as_str(), self.toml(path)))
    }

    fn dependencies(&self, folder: &str) -> Vec<String> {
        dependency_tables(&self.toml(&format!("{folder}/Cargo.toml")))
            .into_iter()
            .flatten()
            .map(|(name, _)| name)
            .collect()
    }
}

/// Normal, development and build dependencies, those of some targets too. A renamed package counts under its own name.
fn dependency_tables(manifest: &Table) -> Vec<Vec<(String, Value)>> {
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

/// Whether a path begins with this crate: `tantivy::` but not `not_tantivy::` or `crate::tantivy::`.
fn names_path(code: &str, path: &str) -> bool {
    code.match_indices(path).any(|(at, _)| {
        let before = &code[..at];
        !before.ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == ':')
            || before.ends_with(" ::")
            || before.ends_with("(::")
    })
}

/// What stands before the unit tests of a file, which are its last part.
fn product_part(code: &str) -> &str {
    &code[..code.find("#[cfg(test)]").unwrap_or(code.len())]
}

/// `f::<T>(` as `f(`, for one level of brackets.
fn without_turbofish(code: &str) -> String {
    let mut rest = code;
    let mut out = String::with_capacity(code.len());
    while let Some(at) = rest.find("::<") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        match rest.find('>') {
            Some(end) => rest = &rest[end + 1..],
            None => break,
        }
    }
    out + rest
}

/// Rust without its comments and, unless wanted, without what its literals say. Newlines stay.
fn code_of(text: &str, with_literals: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let word_before = out.ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let (length, literal) = match c {
            '/' if rest.starts_with("//") => (rest.find('\n').unwrap_or(rest.len()), None),
            '/' if rest.starts_with("/*") => (block_comment_length(rest), None),
            '"' => (quoted_length(rest), Some(())),
            'r' if !word_before && raw_length(rest).is_some() => (raw_length(rest).unwrap_or(1), Some(())),
            '\'' if char_length(rest).is_some() => (char_length(rest).unwrap_or(1), Some(())),
            _ => {
                out.push(c);
                rest = &rest[c.len_utf8()..];
                continue;
            }
        };
        if literal.is_some() && with_literals {
            out.push_str(&rest[..length]);
        } else {
            out.extend(rest[..length].chars().filter(|c| *c == '\n'));
        }
        rest = &rest[length..];
    }
    out
}

fn block_comment_length(rest: &str) -> usize {
    let (mut depth, mut at) = (0usize, 0usize);
    while at < rest.len() {
        let here = &rest.as_bytes()[at..];
        match here {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

fn quoted_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in rest.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#`.
fn raw_length(rest: &str) -> Option<usize> {
    let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
    let body = rest[1 + hashes..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(hashes));
    Some(1 + hashes + 1 + body.find(&end)? + end.len())
}

/// `'x'`, `'\n'`, `'\u{1}'`, but not the lifetime `'a`.
fn char_length(rest: &str) -> Option<usize> {
    let mut chars = rest.char_indices().skip(1);
    let (_, first) = chars.next()?;
    if first == '\\' {
        chars.next()?;
        return rest
            .char_indices()
            .skip(3)
            .take(12)
            .find(|(_, c)| *c == '\'')
            .map(|(at, _)| at + 1);
    }
    chars.next().filter(|(_, c)| *c == '\'').map(|(at, _)| at + 1)
}

#[test]
fn comments_and_literals_are_told_from_code() {
    let text = "a /* b /* c */ d */ e // f\ng \"h // \\\" i\" r#\"j \" k\"# 'l' '\\'' 'm: n<'o>\n";
    assert_eq!(code_of(text, false), "a  e \ng     'm: n<'o>\n");
    assert_eq!(
        code_of(text, true),
        "a  e \ng \"h // \\\" i\" r#\"j \" k\"# 'l' '\\'' 'm: n<'o>\n"
    );
}
