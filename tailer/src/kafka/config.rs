//! From a source's settings to a consumer: what we decide, what passes through, what is refused. And what a Kafka error
//! means to a person.

use proto::{Code, Problem, catalog::SourceSettings};
use rdkafka::{
    ClientConfig,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode},
};

/// Keys that make the client load or run code, or open something in this process: never from a request.
pub const KEYS_THAT_LOAD_CODE: [&str; 8] = [
    "plugin.library.paths",
    "ssl.engine.location",
    "ssl.engine.id",
    "ssl.providers",
    "sasl.kerberos.kinit.cmd",
    "test.mock.num.brokers",
    "test.mock.broker.rtt",
    "interceptors",
];

/// What exactness rests on, or what the poll thread is built for: ours to say. Key, value.
const OURS: [(&str, &str); 9] = [
    ("enable.auto.commit", "false"),
    ("enable.auto.offset.store", "false"),
    ("auto.offset.reset", "error"),
    ("isolation.level", "read_committed"),
    ("check.crcs", "true"),
    ("enable.partition.eof", "true"),
    ("allow.auto.create.topics", "false"),
    ("partition.assignment.strategy", "range"),
    // Only here does the client say that a topic was made anew.
    ("debug", "topic"),
];

/// What suits most, and what a user may set otherwise. Key, value.
const DEFAULTS: [(&str, &str); 9] = [
    ("client.id", "rachis"),
    ("session.timeout.ms", "10000"),
    // New partitions and topics made later are noticed within this.
    ("topic.metadata.refresh.interval.ms", "10000"),
    ("queued.max.messages.kbytes", "32768"),
    ("fetch.queue.backoff.ms", "20"),
    ("fetch.max.bytes", "16777216"),
    ("reconnect.backoff.ms", "100"),
    ("reconnect.backoff.max.ms", "2000"),
    ("statistics.interval.ms", "1000"),
];

/// A consumer for a source, in a group or (without one) for looking only.
pub fn consumer(settings: &SourceSettings, group: &str, instance: Option<&str>) -> Result<ClientConfig, Problem> {
    let mut config = ClientConfig::new();
    config.set_log_level(RDKafkaLogLevel::Debug);
    config.extend(DEFAULTS.map(owned));
    config.set("group.id", group);
    if let Some(instance) = instance {
        // A restarted node takes its place in the group back at once, instead of waiting until its old self is given
        // up.
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
        .hint("such as \"bootstrap.servers\": \"kafka-1:9092\""));
    }
    config.extend(OURS.map(owned));
    config.create_native_config().map_err(|error| refused(&error))?;
    Ok(config)
}

fn owned((key, value): (&str, &str)) -> (String, String) {
    (key.to_owned(), value.to_owned())
}

fn check(key: &str, value: &str) -> Result<(), Problem> {
    if KEYS_THAT_LOAD_CODE.contains(&key) {
        return Err(Problem::new(
            Code::BadRequest,
            format!("{key} is not accepted: it makes the Kafka client load or run something on the server"),
        )
        .hint("leave it out"));
    }
    if let Some((_, ours)) = OURS
        .iter()
        .find(|(ours, value_of_ours)| *ours == key && *value_of_ours != value)
    {
        return Err(Problem::new(
            Code::BadRequest,
            format!("{key} is always {ours} here: that nothing is lost or taken twice rests on it"),
        )
        .hint("leave it out"));
    }
    if key == "group.protocol" && value != "classic" {
        return Err(Problem::new(Code::BadRequest, "group.protocol is always classic here").hint("leave it out"));
    }
    // One key at a time, so that the refusal names it.
    let mut one = ClientConfig::new();
    one.set(key, value);
    one.create_native_config().map(drop).map_err(|error| refused(&error))
}

fn refused(error: &KafkaError) -> Problem {
    const HINT: &str =
        "the keys are librdkafka's: https://github.com/confluentinc/librdkafka/blob/master/CONFIGURATION.md";
    match error {
        // The library's own text repeats the value, which may be a secret.
        KafkaError::ClientConfig(_, _, key, _) if is_secret(key) => {
            Problem::new(Code::BadRequest, format!("the value of {key} is not accepted")).hint(HINT)
        }
        KafkaError::ClientConfig(_, text, key, _) => {
            Problem::new(Code::BadRequest, format!("{key} is not accepted: {text}")).hint(HINT)
        }
        other => Problem::new(Code::BadRequest, other.to_string()).hint(HINT),
    }
}

fn is_secret(key: &str) -> bool {
    ["password", "secret", "pem", "token", "jaas", "oauthbearer.config"]
        .iter()
        .any(|part| key.contains(part))
}

/// Topic names as Kafka has them; in particular not a pattern (`^…`), which a subscription would take as many topics.
pub fn check_topic(topic: &str) -> Result<(), Problem> {
    let valid = (1..=249).contains(&topic.len())
        && topic.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && topic != "."
        && topic != "..";
    match valid {
        true => Ok(()),
        false => Err(
            Problem::new(Code::BadRequest, format!("{topic:?} is not the name of a topic"))
                .hint("letters, digits, `.`, `_` and `-`, at most 249"),
        ),
    }
}

/// What an explanation ends with where the client goes on by itself.
const RETRIED: &str = "this is retried automatically";

/// What an error of the client means, with what to do about it. `reason` is the client's own text.
pub fn explain(code: RDKafkaErrorCode, reason: &str) -> String {
    use RDKafkaErrorCode as E;
    let hint = match code {
        E::AllBrokersDown | E::BrokerTransportFailure | E::OperationTimedOut => {
            "no broker answers: check bootstrap.servers, the network and the broker; this is retried automatically"
        }
        E::Resolve => {
            "the broker's name cannot be resolved: check bootstrap.servers and the broker's advertised.listeners"
        }
        E::Authentication | E::SaslAuthenticationFailed => {
            "the broker refuses the login: check sasl.mechanisms, sasl.username, sasl.password and security.protocol"
        }
        E::SSL => "TLS fails: check security.protocol, ssl.ca.location and that the broker's port speaks TLS",
        E::UnknownTopicOrPartition | E::UnknownTopic | E::UnknownPartition => {
            "the topic does not exist there: create it, or check its name; this is retried automatically"
        }
        E::TopicAuthorizationFailed => "the login may not read the topic: give it READ and DESCRIBE on it",
        E::GroupAuthorizationFailed => {
            "the login may not use the consumer group: give it READ on the group, or set group.id to one that it may use"
        }
        E::ClusterAuthorizationFailed => "the login may not do this on the cluster",
        E::Fenced | E::FencedInstanceId => {
            "another process reads this source under the same node name: stop one of them"
        }
        E::PollExceeded => "the reader was held up for too long and begins again",
        _ => RETRIED,
    };
    match reason.is_empty() {
        true => format!("{code} ({hint})"),
        false => format!("{reason} ({hint})"),
    }
}

/// An explanation of [`explain`] for somebody who asked once: nothing goes on afterwards, so it must not say that it
/// does.
pub fn without_retry(explanation: &str) -> String {
    explanation
        .replace(&format!(" ({RETRIED})"), "")
        .replace(&format!("; {RETRIED}"), "")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proto::{catalog::Start, record::Rules};

    use super::*;

    #[test]
    fn any_key_of_the_client_passes_through() {
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
    fn a_key_that_the_client_does_not_know_is_refused_by_name() {
        let problem = built(&[("fetch.mim.bytes", "2")]).expect_err("no such key");
        assert!(problem.detail.contains("fetch.mim.bytes"), "{problem}");
        let problem = built(&[("fetch.min.bytes", "many")]).expect_err("no number");
        assert!(problem.detail.contains("fetch.min.bytes"), "{problem}");
    }

    #[test]
    fn a_refusal_never_repeats_a_secret() {
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
    fn what_exactness_rests_on_cannot_be_set_otherwise() {
        for (key, value) in OURS {
            assert!(built(&[(key, value)]).is_ok(), "{key} = {value} says what is so anyway");
        }
        for (key, value) in [
            ("enable.auto.commit", "true"),
            ("auto.offset.reset", "latest"),
            ("isolation.level", "read_uncommitted"),
            ("group.protocol", "consumer"),
        ] {
            assert!(built(&[(key, value)]).expect_err("ours").detail.contains(key));
        }
    }

    #[test]
    fn a_source_says_where_its_brokers_are() {
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
    fn a_pattern_is_not_a_topic() {
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
        }
    }
}
