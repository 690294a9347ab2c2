//! The `config` of a source: librdkafka settings from a client, checked here and shown with secrets redacted.

use std::collections::BTreeMap;

use proto::{
    Code, Problem,
    catalog::{REDACTED, is_secret_setting},
};
use serde_json::Value;

/// Keys of one config.
const KEYS_MAX: usize = 200;
/// Bytes of one value.
const VALUE_BYTES_MAX: usize = 64 << 10;

/// Keys that make the process load code or run commands. A request may not set them. (The tailer reports other settings
/// that a consumer does not accept.)
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

/// The body of a source with numbers and booleans in its config turned into strings.
pub(super) fn stringify_values(mut body: Value) -> Value {
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

/// Rejects settings that a request may not make. The error names every offending key.
pub(super) fn check(config: &BTreeMap<String, String>) -> Result<(), Problem> {
    if config.len() > KEYS_MAX || config.values().any(|value| value.len() > VALUE_BYTES_MAX) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("config has more than {KEYS_MAX} keys or a value of more than {VALUE_BYTES_MAX} bytes"),
        ));
    }
    let forbidden: Vec<&str> = config
        .keys()
        .map(String::as_str)
        .filter(|key| LOAD_CODE.contains(key))
        .collect();
    if !forbidden.is_empty() {
        return Err(Problem::new(
            Code::BadRequest,
            format!(
                "config may not set {}: it makes this process load or run code",
                forbidden.join(", ")
            ),
        )
        .hint("all other librdkafka settings are allowed"));
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
            .hint("set it, for example {\"bootstrap.servers\": \"kafka:9092\"}"));
    }
    Ok(())
}

/// Restores the secrets of the existing source in a config that a client read and sent back.
pub(super) fn restore_secrets(
    config: &mut BTreeMap<String, String>,
    existing: Option<&BTreeMap<String, String>>,
) -> Result<(), Problem> {
    for (key, value) in config
        .iter_mut()
        .filter(|(key, value)| is_secret_setting(key) && *value == REDACTED)
    {
        let secret = existing.and_then(|existing| existing.get(key));
        *value = secret.cloned().ok_or_else(|| {
            Problem::new(Code::BadRequest, format!("config.{key} is {REDACTED}")).hint("send the secret itself")
        })?;
    }
    Ok(())
}

/// The config without its secrets.
pub(super) fn redacted(config: &BTreeMap<String, String>) -> BTreeMap<&str, &str> {
    config
        .iter()
        .map(|(key, value)| {
            (
                key.as_str(),
                if is_secret_setting(key) {
                    REDACTED
                } else {
                    value.as_str()
                },
            )
        })
        .collect()
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
    fn keys_that_load_code_are_errors_that_name_the_key() {
        for key in LOAD_CODE {
            let problem = check(&config(&[("bootstrap.servers", "b:1"), (key, "/tmp/x.so")])).expect_err("an error");
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
    fn secrets_are_redacted_and_survive_a_round_trip_through_the_client() {
        let existing = config(&[
            ("bootstrap.servers", "b:1"),
            ("sasl.password", "hunter2"),
            ("ssl.ca.location", "/etc/ca"),
        ]);
        let shown: BTreeMap<String, String> = redacted(&existing)
            .into_iter()
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        assert_eq!(shown["sasl.password"], REDACTED);
        assert_eq!(shown["ssl.ca.location"], "/etc/ca");
        let mut sent_back = shown.clone();
        assert_eq!(restore_secrets(&mut sent_back, Some(&existing)), Ok(()));
        assert_eq!(sent_back, existing);
        assert!(restore_secrets(&mut shown.clone(), None).is_err());
    }

    #[test]
    fn numbers_and_booleans_become_strings() {
        let body = stringify_values(
            serde_json::json!({"config": {"fetch.wait.max.ms": 10, "check": true, "a": "b", "o": {}}, "topic": 7}),
        );
        assert_eq!(
            body,
            serde_json::json!({"config": {"fetch.wait.max.ms": "10", "check": "true", "a": "b", "o": {}}, "topic": 7})
        );
    }
}
