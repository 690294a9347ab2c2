//! A source's `config`: librdkafka's own keys as a client gives them, checked and told back without secrets.

use std::collections::BTreeMap;

use proto::{Code, Problem};
use serde_json::Value;

/// What stands for a secret when a source is shown.
pub(super) const HIDDEN: &str = "***";
/// Keys of one config, and bytes of one value.
const KEYS_MAX: usize = 200;
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Keys that make the process load code or run commands; never from a request. (What else a consumer cannot take, the
/// tailer says.)
const LOAD_CODE: [&str; 8] = [
    "plugin.library.paths",
    "ssl.engine.location",
    "ssl.engine.id",
    "ssl.providers",
    "sasl.kerberos.kinit.cmd",
    "sasl.kerberos.keytab",
    "sasl.kerberos.principal",
    "sasl.kerberos.service.name",
];

/// The value of a source's body with its config as texts: numbers and booleans are taken by their text.
pub(super) fn with_texts(mut body: Value) -> Value {
    if let Some(config) = body.get_mut("config").and_then(Value::as_object_mut) {
        for value in config
            .values_mut()
            .filter(|value| value.is_number() || value.is_boolean())
        {
            *value = Value::String(value.to_string());
        }
    }
    body
}

/// Refuses what must not come from a request; every offending key is named.
pub(super) fn check(config: &BTreeMap<String, String>) -> Result<(), Problem> {
    if config.len() > KEYS_MAX || config.values().any(|value| value.len() > VALUE_BYTES_MAX) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("config has over {KEYS_MAX} keys, or a value of over {VALUE_BYTES_MAX} bytes"),
        ));
    }
    let load_code: Vec<&str> = config
        .keys()
        .map(String::as_str)
        .filter(|key| LOAD_CODE.contains(key))
        .collect();
    if !load_code.is_empty() {
        return Err(Problem::new(
            Code::BadRequest,
            format!(
                "config may not hold {}: it makes this process load or run code",
                load_code.join(", ")
            ),
        )
        .hint("any other key of librdkafka passes through"));
    }
    if config
        .get("sasl.mechanisms")
        .or(config.get("sasl.mechanism"))
        .is_some_and(|value| value.eq_ignore_ascii_case("GSSAPI"))
    {
        return Err(Problem::new(
            Code::NotSupported,
            "Kerberos (GSSAPI) is not supported: it loads modules and runs kinit",
        )
        .hint("use PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER"));
    }
    if config
        .get("bootstrap.servers")
        .is_none_or(|servers| servers.trim().is_empty())
    {
        return Err(Problem::new(Code::BadRequest, "config has no bootstrap.servers")
            .hint("for example {\"bootstrap.servers\": \"kafka:9092\"}"));
    }
    Ok(())
}

/// Puts the secrets of the source that is there where a client sent back what it was shown.
pub(super) fn keep_secrets(
    config: &mut BTreeMap<String, String>,
    there: Option<&BTreeMap<String, String>>,
) -> Result<(), Problem> {
    for (key, value) in config
        .iter_mut()
        .filter(|(key, value)| is_secret(key) && *value == HIDDEN)
    {
        let kept = there.and_then(|there| there.get(key));
        *value = kept.cloned().ok_or_else(|| {
            Problem::new(Code::BadRequest, format!("config.{key} is {HIDDEN}")).hint("give the secret itself")
        })?;
    }
    Ok(())
}

/// The config as it may be shown.
pub(super) fn shown(config: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    config
        .iter()
        .map(|(key, value)| (key.as_str(), if is_secret(key) { HIDDEN } else { value.as_str() }))
        .collect()
}

fn is_secret(key: &str) -> bool {
    ["password", "secret", ".pem", "jaas", "oauthbearer.config", "token"]
        .iter()
        .any(|part| key.contains(part))
        && !key.ends_with(".location")
        && key != "ssl.ca.pem"
        && key != "ssl.certificate.pem"
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    #[test]
    fn keys_that_load_code_are_refused_and_named() {
        for key in LOAD_CODE {
            let problem =
                check(&config(&[("bootstrap.servers", "b:1"), (key, "/tmp/x.so")])).expect_err("it is refused");
            assert!(problem.detail.contains(key), "{problem}");
        }
        assert!(check(&config(&[("bootstrap.servers", "b:1"), ("sasl.mechanisms", "GSSAPI")])).is_err());
        assert!(check(&config(&[("bootstrap.servers", " ")])).is_err());
        assert!(
            check(&config(&[
                ("bootstrap.servers", "b:1"),
                ("sasl.mechanisms", "PLAIN"),
                ("fetch.wait.max.ms", "10")
            ]))
            .is_ok()
        );
    }

    #[test]
    fn secrets_are_not_told_back_and_survive_being_sent_back() {
        let there = config(&[
            ("bootstrap.servers", "b:1"),
            ("sasl.password", "hunter2"),
            ("ssl.ca.location", "/etc/ca"),
        ]);
        let told: BTreeMap<String, String> = shown(&there)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        assert_eq!(told["sasl.password"], HIDDEN);
        assert_eq!(told["ssl.ca.location"], "/etc/ca");
        let mut again = told.clone();
        assert_eq!(keep_secrets(&mut again, Some(&there)), Ok(()));
        assert_eq!(again, there);
        assert!(keep_secrets(&mut told.clone(), None).is_err());
    }

    #[test]
    fn numbers_and_booleans_are_taken_by_their_text() {
        let body = with_texts(
            serde_json::json!({"config": {"fetch.wait.max.ms": 10, "check": true, "a": "b", "o": {}}, "topic": 7}),
        );
        assert_eq!(
            body,
            serde_json::json!({"config": {"fetch.wait.max.ms": "10", "check": "true", "a": "b", "o": {}}, "topic": 7})
        );
    }
}
