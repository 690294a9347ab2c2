//! Tests of `config`.

use std::collections::BTreeMap;

use proto::{catalog::Start, record::Rules};

use super::*;

#[test]
fn any_other_key_of_the_client_is_passed_on() {
    let config = built(&[
        ("fetch.min.bytes", "2"),
        ("group.id", "mine"),
        ("session.timeout.ms", "6000"),
    ])
    .expect("accepted");
    assert_eq!(
        ["fetch.min.bytes", "group.id", "session.timeout.ms", "auto.offset.reset"].map(|key| config.get(key)),
        [Some("2"), Some("mine"), Some("6000"), Some("error")]
    );
}

#[test]
fn an_unknown_key_or_an_invalid_value_is_refused_and_the_error_names_the_key() {
    let problem = built(&[("fetch.mim.bytes", "2")]).expect_err("no such key");
    assert!(problem.detail.contains("fetch.mim.bytes"), "{problem}");
    let problem = built(&[("fetch.min.bytes", "many")]).expect_err("no number");
    assert!(problem.detail.contains("fetch.min.bytes"), "{problem}");
}

#[test]
fn an_error_never_repeats_a_secret() {
    for (key, value) in [
        ("sasl.password\n", "hunter2"),
        ("ssl.key.pem", "hunter2"),
        ("sasl.oauthbearer.token.endpoint.urlx.secret", "hunter2"),
    ] {
        if let Err(problem) = built(&[(key, value)]) {
            assert!(!problem.to_string().contains("hunter2"), "{problem}");
        }
    }
}

#[test]
fn keys_that_load_code_are_refused() {
    for key in KEYS_THAT_LOAD_CODE {
        let problem = built(&[(key, "1")]).expect_err("loads code");
        assert!(problem.detail.starts_with(key), "{problem}");
    }
}

#[test]
fn fixed_keys_cannot_be_overridden() {
    for (key, value) in FIXED {
        assert!(
            built(&[(key, value)]).is_ok(),
            "{key} = {value} repeats the fixed value"
        );
    }
    for (key, value) in [
        ("enable.auto.commit", "true"),
        ("auto.offset.reset", "latest"),
        ("isolation.level", "read_uncommitted"),
        ("group.protocol", "consumer"),
    ] {
        assert!(built(&[(key, value)]).expect_err("a fixed key").detail.contains(key));
    }
}

#[test]
fn a_source_needs_bootstrap_servers() {
    let settings = SourceSettings {
        config: BTreeMap::new(),
        ..settings()
    };
    assert!(
        consumer(&settings, "g", None)
            .expect_err("no brokers")
            .detail
            .contains("bootstrap.servers")
    );
}

#[test]
fn a_pattern_is_not_a_topic_name() {
    assert!(check_topic("orders.v2_x-1").is_ok());
    for topic in ["^orders", "", ".", "a b", "ä"] {
        assert!(check_topic(topic).is_err(), "{topic}");
    }
}

fn built(keys: &[(&str, &str)]) -> Result<ClientConfig, Problem> {
    let mut settings = settings();
    settings
        .config
        .extend(keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    consumer(&settings, "g", Some("node"))
}

fn settings() -> SourceSettings {
    let config = BTreeMap::from([("bootstrap.servers".to_owned(), "nowhere.invalid:9092".to_owned())]);
    SourceSettings {
        collection: "c".parse().expect("a name"),
        topic: "t".into(),
        config,
        rules: Rules::default(),
        start: Start::Earliest,
        partitions: None,
        ends: Vec::new(),
    }
}
