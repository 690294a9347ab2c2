//! The repository keeps its invariants: which crate may depend on which, what code must not contain, and how a file
//! starts.
//!
//! A rule is a function from the repository (all of its files) to violations. Each rule is run twice: the repository
//! itself must have no violation, and the repository with one breach must have exactly one more, which proves that the
//! rule can fail.

#[path = "tidy/breaches.rs"]
mod breaches;
#[path = "tidy/lexer.rs"]
mod lexer;
#[path = "tidy/manifests.rs"]
mod manifests;
#[path = "tidy/repository.rs"]
mod repository;
#[path = "tidy/sources.rs"]
mod sources;

use breaches::BREACHES;
use manifests::{
    a_dependency_is_used_only_in_its_crates, every_crate_uses_the_workspace_lints, no_profile_aborts_on_panic,
    roles_depend_only_on_proto_and_plan, shared_dependencies_have_one_version,
    the_ledger_shares_no_code_with_the_server, versions_are_set_in_the_workspace,
};
use repository::Repository;
use sources::{
    every_module_has_documentation, no_channel_is_unbounded, no_file_is_too_long, no_module_has_a_catch_all_name,
    no_port_is_hard_coded, no_role_writes_to_stdout, no_test_sleeps_for_a_condition, no_type_name_is_declared_twice,
    the_top_level_has_only_agreed_entries,
};

type Rule = fn(&Repository) -> Vec<String>;

/// Pairs each rule with its name.
macro_rules! rules {
    ($($rule:ident),* $(,)?) => { &[$((stringify!($rule), $rule as Rule)),*] };
}

const RULES: &[(&str, Rule)] = rules![
    roles_depend_only_on_proto_and_plan,
    the_ledger_shares_no_code_with_the_server,
    a_dependency_is_used_only_in_its_crates,
    versions_are_set_in_the_workspace,
    every_crate_uses_the_workspace_lints,
    no_profile_aborts_on_panic,
    shared_dependencies_have_one_version,
    the_top_level_has_only_agreed_entries,
    no_module_has_a_catch_all_name,
    every_module_has_documentation,
    no_file_is_too_long,
    no_type_name_is_declared_twice,
    no_role_writes_to_stdout,
    no_channel_is_unbounded,
    no_test_sleeps_for_a_condition,
    no_port_is_hard_coded,
];

#[test]
fn the_repository_keeps_every_rule() {
    let repository = Repository::read();
    let files = repository.paths().count();
    assert!(files > 30, "the repository was not found: it has {files} files");
    let violations: Vec<String> = RULES
        .iter()
        .flat_map(|(name, rule)| {
            rule(&repository)
                .into_iter()
                .map(move |violation| format!("{name}: {violation}"))
        })
        .collect();
    assert!(
        violations.is_empty(),
        "{} violations\n  {}",
        violations.len(),
        violations.join("\n  ")
    );
}

#[test]
fn every_rule_detects_a_breach() {
    let repository = Repository::read();
    for (name, rule) in RULES {
        let known = rule(&repository);
        let breaches: Vec<_> = BREACHES.iter().filter(|(broken, ..)| broken == name).collect();
        assert!(!breaches.is_empty(), "there is no breach of {name}");
        for (_, file, text) in breaches {
            let found: Vec<String> = rule(&repository.with(file, text))
                .into_iter()
                .filter(|violation| !known.contains(violation))
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
