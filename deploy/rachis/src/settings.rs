//! Settings: defaults, then a TOML file, then the environment (`RACHIS_LEAF__SPLIT_DOCUMENTS=1000` is `split_documents`
//! of `[leaf]`). A key that nobody knows is refused and named, in both.

use std::{collections::BTreeMap, path::Path, time::Duration};

use aggregator::AggregatorOptions;
use config::{Config, File, FileFormat};
use leaf::LeafOptions;
use proto::cluster::{Members, Role};
use serde::Deserialize;
use tailer::{TailerOptions, kafka::cluster::ClusterKafka};

use crate::client::Failure;

/// Everything that can be set.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// What is logged, and how.
    pub log: Log,
    /// Limits of the leaf.
    pub leaf: Leaf,
    /// Limits of the aggregator.
    pub aggregator: Aggregator,
    /// Limits of the tailer.
    pub tailer: Tailer,
    /// The cluster that the node belongs to.
    pub cluster: Cluster,
    /// What may ask.
    pub http: Http,
}

/// What may ask a node over HTTP and gRPC.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Http {
    /// `NAME,NAME`: names that the node answers to besides its own addresses, and whose pages may ask it.
    names: String,
}

impl Http {
    /// The names.
    pub fn names(&self) -> aggregator::http::Names {
        self.names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// The cluster that a node belongs to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Cluster {
    /// `bootstrap.servers` of its Kafka.
    kafka: Option<String>,
    /// Further librdkafka keys.
    kafka_config: BTreeMap<String, String>,
    /// The topic of the change log.
    changes_topic: Option<String>,
    /// Copies of each topic.
    replication: Option<i32>,
    /// `NAME=URL,NAME=URL`.
    tailers: String,
    /// `NAME=URL,NAME=URL`.
    leaves: String,
    /// `NAME=URL,NAME=URL`.
    aggregators: String,
}

/// The key of [cluster] that names the nodes of a role.
pub fn members_key(role: Role) -> &'static str {
    match role {
        Role::Tailer => "tailers",
        Role::Leaf => "leaves",
        Role::Aggregator => "aggregators",
    }
}

impl Cluster {
    /// All nodes.
    pub fn members(&self) -> Result<Members, Failure> {
        let mut members = Members::default();
        for (role, list) in [
            (Role::Tailer, &self.tailers),
            (Role::Leaf, &self.leaves),
            (Role::Aggregator, &self.aggregators),
        ] {
            let key = members_key(role);
            members.add(role, list).map_err(|why| {
                Failure::usage(format!("{key} in [cluster]: {why}"))
                    .hint("such as leaf-1=http://10.0.0.7:7700,leaf-2=http://10.0.0.8:7700")
            })?;
        }
        Ok(members)
    }

    /// Its Kafka.
    pub fn kafka(&self) -> Result<ClusterKafka, Failure> {
        let servers = self.kafka.clone().filter(|servers| !servers.trim().is_empty());
        let servers = servers.ok_or_else(|| {
            Failure::usage("kafka in [cluster] is missing")
                .hint("it is the bootstrap.servers of the cluster's Kafka, such as kafka-1:9092")
        })?;
        let changes_topic = self
            .changes_topic
            .clone()
            .unwrap_or_else(|| "rachis-changes".to_owned());
        Ok(ClusterKafka {
            servers,
            config: self.kafka_config.clone(),
            changes_topic,
            replication: self.replication.unwrap_or(3),
        })
    }
}

/// What is logged, and how.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// As `RUST_LOG`, which goes before it; `info` unless said.
    pub filter: Option<String>,
    /// Text unless said.
    pub format: LogFormat,
}

/// How a line of the log looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: a JSON object a line.
    Json,
}

/// A section of the file: keys that may be left out, and how they change the options.
macro_rules! section {
    ($(#[$doc:meta])* $name:ident of $options:ty { $($key:ident: $kind:ty => $($field:ident).+ $(as $convert:path)?,)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct $name { $($key: Option<$kind>,)* }

        impl $name {
            /// Puts what was said into the options.
            pub fn apply(self, options: &mut $options) {
                $(if let Some(value) = self.$key { options.$($field).+ = section!(@value value $($convert)?); })*
            }
        }
    };
    (@value $value:ident) => { $value };
    (@value $value:ident $convert:path) => { $convert($value) };
}

section! {
    /// Limits of the leaf: see `LeafOptions`.
    Leaf of LeafOptions {
        scan_tail_documents_max: usize => scan_tail_documents_max,
        publish_documents: usize => publish_documents,
        publish_bytes: usize => publish_bytes,
        publish_after_ms: u64 => publish_after as Duration::from_millis,
        publish_pause_ms: u64 => publish_pause as Duration::from_millis,
        split_documents: usize => split_documents,
        split_bytes: usize => split_bytes,
        split_idle_ms: u64 => split_idle as Duration::from_millis,
        memory_segments_max: usize => memory_segments_max,
        memory_bytes_max: u64 => memory_bytes_max,
        merge_splits: usize => merge_splits,
        merge_documents_max: usize => merge_documents_max,
        tail_documents_max: usize => tail_documents_max,
        tail_bytes_max: usize => tail_bytes_max,
        unsplit_bytes_max: usize => unsplit_bytes_max,
        index_threads: usize => index_threads,
        scan_threads: usize => scan_threads,
        disk_used_percent_max: u8 => disk_used_percent_max,
        open_shards_max: usize => open_shards_max,
        idle_shards_max: usize => idle_shards_max,
        shard_idle_ms: u64 => shard_idle as Duration::from_millis,
        scrub_bytes_per_second: u64 => scrub_bytes_per_second,
        scrub_every_ms: u64 => scrub_every as Duration::from_millis,
        request_rows_kept_ms: u64 => request_rows_kept as Duration::from_millis,
        dead_letters_kept_ms: u64 => dead_letters_kept as Duration::from_millis,
        dead_letter_bytes_max: u64 => dead_letter_bytes_max,
        dropped_kept_ms: u64 => dropped_kept as Duration::from_millis,
    }
}

section! {
    /// Limits of the aggregator: see `AggregatorOptions`.
    Aggregator of AggregatorOptions {
        queries_max: usize => queries_max,
        queue_max: usize => queue_max,
        timeout_ms: u64 => timeout as Duration::from_millis,
        timeout_max_ms: u64 => timeout_max as Duration::from_millis,
        query_bytes_max: usize => query_bytes_max,
        queries_bytes_max: usize => queries_bytes_max,
        rows_max: usize => rows_max,
        statement_bytes_max: usize => statement_bytes_max,
        spill_bytes_max: u64 => spill_bytes_max,
        push_bytes_inflight_max: usize => push_bytes_inflight_max,
        push_shards: u32 => push_shards,
    }
}

section! {
    /// Limits of the tailer: see `TailerOptions`.
    Tailer of TailerOptions {
        window_bytes_max: usize => window_bytes_max,
        windows_bytes_max: usize => windows_bytes_max,
        batch_records_max: usize => batch_records_max,
        batch_bytes_max: usize => batch_bytes_max,
        dropped_kept_ms: u64 => dropped_kept as Duration::from_millis,
    }
}

const SECTIONS: [&str; 5] = ["log", "leaf", "aggregator", "tailer", "cluster"];
/// Where nothing, or at once, is a sensible thing to say.
const MAY_BE_ZERO: [&str; 8] = [
    "scan_tail_documents_max",
    "publish_after_ms",
    "publish_pause_ms",
    "split_idle_ms",
    "idle_shards_max",
    "shard_idle_ms",
    "queue_max",
    "dropped_kept_ms",
];

/// Reads the settings.
pub fn load(file: Option<&Path>) -> Result<Settings, Failure> {
    let text = match file {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|e| Failure::usage(format!("cannot read the settings in {}: {e}", file.display())))?,
        None => String::new(),
    };
    read(
        &text,
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    )
    .map_err(|why| {
        let place = file.map_or("the environment".into(), |file| {
            format!("{} and the environment", file.display())
        });
        Failure::usage(format!("the settings in {place} are not understood: {why}"))
            .hint("deploy/rachis.toml lists every key with its default")
    })
}

/// The settings in a text, overridden by those in an environment.
fn read(text: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Settings, String> {
    let mut builder = Config::builder().add_source(File::from_str(text, FileFormat::Toml));
    let mut names = Vec::new();
    for (name, value) in environment {
        // Names without two underscores belong to others: RACHIS_URL, RACHIS_DATA.
        let Some(rest) = name.strip_prefix("RACHIS_") else {
            continue;
        };
        let Some((section, key)) = rest.split_once("__") else {
            if let Some(section) = SECTIONS
                .iter()
                .find(|section| rest.to_ascii_lowercase().starts_with(&format!("{section}_")))
            {
                return Err(format!(
                    "{name}: two underscores stand between section and key: RACHIS_{}__…",
                    section.to_ascii_uppercase()
                ));
            }
            continue;
        };
        let path = format!("{}.{}", section.to_ascii_lowercase(), key.to_ascii_lowercase());
        builder = builder.set_override(path, value).map_err(|e| format!("{name}: {e}"))?;
        names.push(name);
    }
    let named = |e: config::ConfigError| match names.is_empty() {
        true => e.to_string(),
        false => format!("{e} (from the environment: {})", names.join(", ")),
    };
    let config = builder.build().map_err(named)?;
    refuse_zeros(&config)?;
    config.try_deserialize().map_err(named)
}

/// A limit of nothing would stop everything without a word.
fn refuse_zeros(config: &Config) -> Result<(), String> {
    for section in SECTIONS {
        let Ok(keys) = config.get_table(section) else { continue };
        let zero = |value: config::Value| value.into_string().is_ok_and(|text| text.trim() == "0");
        if let Some((key, _)) = keys
            .into_iter()
            .find(|(key, value)| !MAY_BE_ZERO.contains(&key.as_str()) && zero(value.clone()))
        {
            return Err(format!("{key} of [{section}] is 0; it is at least 1"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, environment: &[(&str, &str)]) -> Result<LeafOptions, String> {
        let mut options = LeafOptions::new("/nowhere");
        read(
            text,
            environment
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        )?
        .leaf
        .apply(&mut options);
        Ok(options)
    }

    #[test]
    fn the_environment_goes_before_the_file_and_both_before_the_defaults() {
        let file = "[leaf]\nsplit_documents = 7\nmerge_splits = 3\n";
        let options = with(
            file,
            &[
                ("RACHIS_LEAF__SPLIT_DOCUMENTS", "9"),
                ("RACHIS_LEAF__SPLIT_IDLE_MS", "300"),
                ("RACHIS_URL", "x"),
            ],
        )
        .expect("settings");
        assert_eq!(
            (options.split_documents, options.merge_splits, options.split_idle),
            (9, 3, Duration::from_millis(300))
        );
        assert_eq!(
            options.publish_documents,
            LeafOptions::new("/nowhere").publish_documents
        );
    }

    #[test]
    fn a_key_that_nobody_knows_is_refused_and_named() {
        for (file, environment, named) in [
            ("[leaf]\nsplit_docs = 7\n", ("RACHIS_URL", ""), "split_docs"),
            ("[leef]\n", ("RACHIS_URL", ""), "leef"),
            ("", ("RACHIS_LEAF__SPLITS", "1"), "splits"),
            ("", ("RACHIS_LEEF__SPLIT_DOCUMENTS", "1"), "leef"),
            (
                "",
                ("RACHIS_LEAF__SPLIT_DOCUMENTS", "many"),
                "RACHIS_LEAF__SPLIT_DOCUMENTS",
            ),
            ("[log]\nformat = \"xml\"\n", ("RACHIS_URL", ""), "xml"),
            ("[leaf]\nmerge_splits = 0\n", ("RACHIS_URL", ""), "merge_splits"),
            ("", ("RACHIS_AGGREGATOR__QUERIES_MAX", "0"), "queries_max"),
            ("", ("RACHIS_LEAF_SPLIT_DOCUMENTS", "1"), "RACHIS_LEAF__"),
        ] {
            let why = with(file, &[environment]).expect_err("it is refused");
            assert!(why.contains(named), "{why} names {named}");
        }
    }

    #[test]
    fn the_sample_names_every_key_with_its_default() {
        let sample = include_str!("../../rachis.toml");
        let said: String = sample
            .lines()
            .map(|line| {
                line.strip_prefix("# ")
                    .filter(|rest| rest.contains(" = "))
                    .unwrap_or(line)
            })
            .collect::<Vec<_>>()
            .join("\n");
        let settings = read(&said, std::iter::empty()).expect("the sample is understood");
        let Settings {
            leaf,
            aggregator,
            tailer,
            ..
        } = settings;
        let unset = |section: String| section.contains("None");
        assert!(
            !unset(format!("{leaf:?}{aggregator:?}{tailer:?}")),
            "a key is missing in {leaf:?} {aggregator:?} {tailer:?}"
        );
        let (mut leaf_options, mut aggregator_options, mut tailer_options) = (
            LeafOptions::new("/nowhere"),
            AggregatorOptions::new("/nowhere"),
            TailerOptions::default(),
        );
        leaf.apply(&mut leaf_options);
        aggregator.apply(&mut aggregator_options);
        tailer.apply(&mut tailer_options);
        assert_eq!(
            format!("{leaf_options:?}"),
            format!("{:?}", LeafOptions::new("/nowhere"))
        );
        assert_eq!(
            format!("{aggregator_options:?}"),
            format!("{:?}", AggregatorOptions::new("/nowhere"))
        );
        assert_eq!(format!("{tailer_options:?}"), format!("{:?}", TailerOptions::default()));
    }
}
