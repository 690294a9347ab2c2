//! Turns the settings of a source into the configuration of a consumer: which keys are fixed, which have a default, and
//! which are refused.

use proto::{
    Code, Problem,
    catalog::{SourceSettings, is_secret_setting},
};
use rdkafka::{ClientConfig, config::RDKafkaLogLevel, error::KafkaError};

/// Keys that make the client load or run code, or open something in this process. A request must never set them.
pub(super) const KEYS_THAT_LOAD_CODE: [&str; 8] = [
    "plugin.library.paths",
    "ssl.engine.location",
    "ssl.engine.id",
    "ssl.providers",
    "sasl.kerberos.kinit.cmd",
    "test.mock.num.brokers",
    "test.mock.broker.rtt",
    "interceptors",
];

/// Keys with a fixed value: exactly-once ingest or the poll thread depends on it.
const FIXED: [(&str, &str); 9] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    ("check.crcs", "true"),
    ("enable.partition.eof", "true"),
    ("allow.auto.create.topics", "false"),
    ("partition.assignment.strategy", "range"),
    // Only this debug log tells that a topic was recreated.
    ("debug", "topic"),
];

/// Keys with a default that a user may override.
const DEFAULTS: [(&str, &str); 9] = [
    ("client.id", "rachis"),
    ("session.timeout.ms", "10000"),
    // New partitions, and topics that are created later, are noticed within this time.
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("queued.max.messages.kbytes", "32768"),
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.max.bytes", "16777216"),
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "2000"),
    ("statistics.interval.ms", "1000"),
];

/// The configuration of a consumer for a source. `instance` is the name of this node as a static member of the group.
pub(super) fn consumer(
    settings: &SourceSettings,
    group: &str,
    instance: Option<&str>,
) -> Result<ClientConfig, Problem> {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Debug);
    config.extend(DEFAULTS.map(owned));
    config.set("group.id", group);
    if let Some(instance) = instance {
        // A restarted node gets its place in the group back at once, without waiting for its old session to expire.
        config.set("group.instance.id", instance);
    }
    for (key, value) in &settings.config {
        check(key, value)?;
        config.set(key.as_str(), value.as_str());
    }
    if config
        .get("bootstrap.servers")
        .or(config.get("metadata.broker.list"))
        .is_none_or(|servers| servers.trim().is_empty())
    {
        return Err(Problem::new(
            Code::BadRequest,
            "bootstrap.servers is missing from the source's config",
        )
        .hint("set it, for example \"bootstrap.servers\": \"kafka-1:9092\""));
    }
    config.extend(FIXED.map(owned));
    config.create_native_config().map_err(|error| invalid(&error))?;
    Ok(config)
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn check(key: &str, value: &str) -> Result<(), Problem> {
    if KEYS_THAT_LOAD_CODE.contains(&key) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("{key} is not allowed: it makes the Kafka client load or run code on the server"),
        )
        .hint("remove it"));
    }
    if let Some((_, fixed)) = FIXED.iter().find(|(name, fixed)| *name == key && *fixed != value) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("{key} must be {fixed}: otherwise records could be lost or ingested twice"),
        )
        .hint("remove it"));
    }
    if key == "group.protocol" && value != "classic" {
        return Err(Problem::new(Code::BadRequest, "group.protocol must be classic").hint("remove it"));
    }
    // Each key alone, so that the error names it.
    let mut single = ClientConfig::new();
    single.set(key, value);
    single.create_native_config().map(drop).map_err(|error| invalid(&error))
}

fn invalid(error: &KafkaError) -> Problem {
    const HINT: &str =
        "the keys are those of librdkafka: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md";
    match error {
        // librdkafka's own text repeats the value, which may be a secret.
        KafkaError::ClientConfig(_, _, key, _) if is_secret_setting(key) => {
            Problem::new(Code::BadRequest, format!("the value of {key} is invalid")).hint(HINT)
        }
        KafkaError::ClientConfig(_, text, key, _) => {
            Problem::new(Code::BadRequest, format!("{key} is invalid: {text}")).hint(HINT)
        }
        other => Problem::new(Code::BadRequest, other.to_string()).hint(HINT),
    }
}

/// Checks the name of a topic. Kafka's rules exclude patterns (`^…`), which would subscribe to many topics.
pub(super) fn check_topic(topic: &str) -> Result<(), Problem> {
    let valid = (1..=249).contains(&topic.len())
        && topic.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && topic != "."
        && topic != "..";
    match valid {
        true => Ok(()),
        false => Err(
            Problem::new(Code::BadRequest, format!("{topic:?} is not a valid topic name"))
                .hint("a topic name has at most 249 letters, digits, `.`, `_` and `-`"),
        ),
    }
}

#[cfg(test)]
mod tests;
