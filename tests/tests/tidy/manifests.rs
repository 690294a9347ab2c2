//! Rules about what crates may depend on, and about the settings in their manifests.

use toml::Value;

use super::{
    lexer::{code_of, names_path},
    repository::{Repository, dependency_tables},
};

/// The crates of the product.
pub(crate) const PRODUCT: [&str; 7] = [
    "proto",
    "proto/plan",
    "tailer",
    "leaf",
    "aggregator",
    "aggregator/front",
    "deploy/rachis",
];

/// Crate folder -> the workspace crates that it may depend on. The binary, tests and benches may depend on all.
const MAY_DEPEND: [(&str, &[&str]); 6] = [
    ("proto", &[]),
    ("proto/plan", &["proto"]),
    ("tailer", &["proto", "plan"]),
    ("leaf", &["proto", "plan"]),
    ("aggregator", &["proto", "plan", "front"]),
    ("aggregator/front", &[]),
];

pub(crate) fn roles_depend_only_on_proto_and_plan(repository: &Repository) -> Vec<String> {
    const WORKSPACE: [&str; 11] = [
        "proto",
        "plan",
        "tailer",
        "leaf",
        "aggregator",
        "front",
        "rachis",
        "tests",
        "ledger",
        "child-process",
        "benches",
    ];
    let mut violations = Vec::new();
    for (folder, allowed) in MAY_DEPEND {
        for name in repository.dependencies(folder) {
            if WORKSPACE.contains(&name.as_str()) && !allowed.contains(&name.as_str()) {
                violations.push(format!("{folder} depends on {name}; it may depend on {allowed:?}"));
            }
        }
    }
    violations
}

pub(crate) fn the_ledger_shares_no_code_with_the_server(repository: &Repository) -> Vec<String> {
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
    let mut violations = Vec::new();
    for folder in ["tests/ledger", "tests/process"] {
        for name in repository.dependencies(folder) {
            if SERVER.contains(&name.as_str()) {
                violations.push(format!("{folder} depends on {name}"));
            }
        }
    }
    violations
}

/// Dependency -> the crates of the product that may use it, in their manifest or their sources. Tests and benches may
/// use everything. A name that ends in `-` stands for all dependencies with this prefix.
const USED_ONLY_IN: [(&str, &[&str]); 10] = [
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

/// The only files that may use gRPC: they convert between wire messages and our types.
const GRPC_FILES: [&str; 11] = [
    "proto/src/wire/",
    "proto/src/client/",
    "/service/",
    "proto/plan/src/client",
    "proto/plan/src/wire.rs",
    "aggregator/src/doors/mod.rs",
    "aggregator/src/doors/grpc/",
    "deploy/rachis/src/node.rs",
    "deploy/rachis/src/shell.rs",
    "deploy/rachis/src/cluster.rs",
    "aggregator/src/query/distribution/service.rs",
];

pub(crate) fn a_dependency_is_used_only_in_its_crates(repository: &Repository) -> Vec<String> {
    let mut violations = Vec::new();
    for folder in PRODUCT {
        for (name, allowed) in USED_ONLY_IN {
            if !allowed.contains(&folder) {
                let dependencies = repository.dependencies(folder);
                violations.extend(
                    dependencies
                        .iter()
                        .filter(|dependency| is_covered_by(dependency, name))
                        .map(|dependency| format!("{folder}/Cargo.toml names {dependency}; only {allowed:?} may")),
                );
            }
            let path = format!("{}::", name.replace('-', "_"));
            for (file, text) in repository.sources(folder).filter(|(file, _)| !file.contains("/tests/")) {
                let may_use = match name {
                    "tonic" => GRPC_FILES.iter().any(|part| file.contains(part)),
                    _ => allowed.contains(&folder),
                };
                if !may_use && names_path(&code_of(text, false), &path) {
                    violations.push(format!("{file} names {path}; only {allowed:?} may"));
                }
            }
        }
    }
    violations
}

/// Whether a dependency is covered by this row of [`USED_ONLY_IN`]: it has the name or prefix, or is a sub-crate
/// (`datafusion-proto` of `datafusion`) for which there is no row.
fn is_covered_by(dependency: &str, name: &str) -> bool {
    let sub_crates = format!("{name}-");
    match name.strip_suffix('-') {
        Some(_) => dependency.starts_with(name),
        None if dependency == name => true,
        None => dependency.starts_with(&sub_crates) && !USED_ONLY_IN.iter().any(|(other, _)| *other == sub_crates),
    }
}

pub(crate) fn versions_are_set_in_the_workspace(repository: &Repository) -> Vec<String> {
    let mut violations = Vec::new();
    for (file, manifest) in repository.manifests() {
        for (name, value) in dependency_tables(&manifest).into_iter().flatten() {
            if !value.get("workspace").and_then(Value::as_bool).unwrap_or(false) {
                violations.push(format!(
                    "{file} sets the version of {name}; move it to [workspace.dependencies]"
                ));
            }
        }
    }
    violations
}

pub(crate) fn every_crate_uses_the_workspace_lints(repository: &Repository) -> Vec<String> {
    let mut violations = Vec::new();
    let workspace = repository.toml("Cargo.toml");
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
            violations.push(format!("the lint {group}.{name} of the workspace is not {level}"));
        }
    }
    for (file, manifest) in repository.manifests() {
        if manifest.contains_key("package")
            && manifest
                .get("lints")
                .and_then(|lints| lints.get("workspace"))
                .and_then(Value::as_bool)
                != Some(true)
        {
            violations.push(format!("{file} does not use the lints of the workspace"));
        }
    }
    for (file, text) in repository.sources("") {
        if code_of(text, false).contains("unsafe_code)") {
            violations.push(format!("{file} loosens the lint unsafe_code"));
        }
    }
    violations
}

/// A panic may end a task, but not the process.
pub(crate) fn no_profile_aborts_on_panic(repository: &Repository) -> Vec<String> {
    let manifest = repository.toml("Cargo.toml");
    let profiles = manifest
        .get("profile")
        .and_then(Value::as_table)
        .cloned()
        .unwrap_or_default();
    profiles
        .iter()
        .filter(|(_, profile)| profile.get("panic").and_then(Value::as_str) == Some("abort"))
        .map(|(name, _)| format!("[profile.{name}] sets panic = \"abort\""))
        .collect()
}

/// Types of these dependencies cross crate boundaries.
pub(crate) fn shared_dependencies_have_one_version(repository: &Repository) -> Vec<String> {
    const SHARED: [&str; 5] = ["arrow", "datafusion", "tonic", "prost", "object_store"];
    let lock = repository.toml("Cargo.lock");
    let packages = lock
        .get("package")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut violations = Vec::new();
    for name in SHARED {
        let versions: Vec<_> = packages
            .iter()
            .filter(|package| package["name"].as_str() == Some(name))
            .filter_map(|package| package["version"].as_str())
            .collect();
        if versions.len() > 1 {
            violations.push(format!("{name} has the versions {}", versions.join(" and ")));
        }
    }
    violations
}
