//! A breach of every rule: the proof that the rule can fail.

/// Rule, file, and the text that is appended to the file (or is the whole of a new file).
pub(crate) const BREACHES: &[(&str, &str, &str)] = &[
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
        "the_ledger_shares_no_code_with_the_server",
        "tests/process/Cargo.toml",
        "\n[target.'cfg(breach)'.dev-dependencies]\nproto.workspace = true\n",
    ),
    (
        "a_dependency_is_used_only_in_its_crates",
        "aggregator/Cargo.toml",
        "\n[target.'cfg(breach)'.dev-dependencies]\nrocksdb.workspace = true\n",
    ),
    (
        "a_dependency_is_used_only_in_its_crates",
        "leaf/Cargo.toml",
        "\n[target.'cfg(breach)'.build-dependencies]\ntonic-build.workspace = true\n",
    ),
    (
        "a_dependency_is_used_only_in_its_crates",
        "deploy/rachis/Cargo.toml",
        "\n[target.'cfg(breach)'.dev-dependencies]\naxum.workspace = true\n",
    ),
    (
        "a_dependency_is_used_only_in_its_crates",
        "proto/src/some.rs",
        "//! Some.\nuse rdkafka::ClientConfig;\n",
    ),
    (
        "a_dependency_is_used_only_in_its_crates",
        "leaf/src/service/some.rs",
        "//! Some.\nfn f() -> prost::Message { 1 }\n",
    ),
    (
        "a_dependency_is_used_only_in_its_crates",
        "leaf/src/shard/some.rs",
        "//! Some.\nuse tonic::Status;\n",
    ),
    (
        "versions_are_set_in_the_workspace",
        "leaf/Cargo.toml",
        "\n[target.'cfg(breach)'.dev-dependencies]\nrand = \"0.9\"\n",
    ),
    (
        "every_crate_uses_the_workspace_lints",
        "extra/Cargo.toml",
        "[package]\nname = \"extra\"\n",
    ),
    (
        "every_crate_uses_the_workspace_lints",
        "leaf/src/some.rs",
        "//! Some.\n#![allow(unsafe_code)]\n",
    ),
    (
        "no_profile_aborts_on_panic",
        "Cargo.toml",
        "\n[profile.breach]\npanic = \"abort\"\n",
    ),
    (
        "shared_dependencies_have_one_version",
        "Cargo.lock",
        "\n[[package]]\nname = \"arrow\"\nversion = \"1.0.0\"\n",
    ),
    ("the_top_level_has_only_agreed_entries", "scripts/some.sh", "true\n"),
    ("the_top_level_has_only_agreed_entries", "NOTES.md", "notes\n"),
    (
        "no_module_has_a_catch_all_name",
        "leaf/src/shard/utils.rs",
        "//! Some.\n",
    ),
    (
        "no_module_has_a_catch_all_name",
        "leaf/src/common/some.rs",
        "//! Some.\n",
    ),
    (
        "no_module_has_a_catch_all_name",
        "leaf/src/some.rs",
        "//! Some.\npub(crate) mod helpers { }\n",
    ),
    (
        "every_module_has_documentation",
        "leaf/src/some.rs",
        "use std::fmt;\n//! Some.\n",
    ),
    ("every_module_has_documentation", "leaf/src/some.rs", ""),
    (
        "every_module_has_documentation",
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
        "leaf/src/some/tests.rs",
        "//! Some.\nfn f() { sleep(SHORT).await; }\n",
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
    (
        "no_type_name_is_declared_twice",
        "leaf/src/some.rs",
        "//! Some.\npub struct Twice;\nmod tests {\n    pub(super) enum Twice {}\n}\n",
    ),
    (
        "no_type_name_is_declared_twice",
        "leaf/tests/some.rs",
        "//! Some.\nunsafe trait Twice {}\ntype Twice = u8;\n",
    ),
    ("no_file_is_too_long", "leaf/src/some.rs", LONG),
];

const LONG: &str = {
    const NEWLINES: [u8; 901] = [b'\n'; 901];
    match std::str::from_utf8(&NEWLINES) {
        Ok(text) => text,
        Err(_) => "",
    }
};
