//! Settings: defaults, overridden by a TOML file, overridden by the environment (`RACHIS_LEAF__SPLIT_DOCUMENTS=1000` is
//! `split_documents` of `[leaf]`). An unknown key in either is an error that names it.

use std::{collections::BTreeMap, path::Path, time::Duration};

use aggregator::{AggregatorOptions, SnapshotOptions};
use config::{Config, File, FileFormat};
use leaf::LeafOptions;
use proto::limits::REPLICAS_MAX;
use serde::Deserialize;
use snapshots::SnapshotStore;
use tailer::{ClusterKafka, TailerOptions};
use uuid::Uuid;

use crate::client::Failure;

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Settings {
    pub log: LogSettings,
    /// Limits of the leaf.
    pub leaf: LeafSettings,
    /// Limits of the aggregator.
    pub aggregator: AggregatorSettings,
    /// Limits of the tailer.
    pub tailer: TailerSettings,
    /// The cluster of the node.
    pub cluster: ClusterSettings,
    /// The node as a member of its cluster.
    pub node: NodeSettings,
    /// Which requests are accepted.
    pub http: HttpSettings,
    /// Where snapshots are, and when they are taken.
    pub snapshots: SnapshotSettings,
}

/// Where snapshots are, and when they are taken.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct SnapshotSettings {
    /// `s3://BUCKET/PREFIX`, or a folder.
    url: Option<String>,
    /// How the store is reached, and with which keys.
    options: BTreeMap<String, String>,
    /// How often a snapshot of everything is taken; never if not set.
    every_ms: Option<u64>,
    /// How many of these are kept.
    kept: Option<usize>,
}

/// The snapshots of the schedule that are kept, unless something else is said.
const SNAPSHOTS_KEPT: usize = 7;

impl SnapshotSettings {
    fn url(&self) -> Option<&str> {
        self.url.as_deref().map(str::trim).filter(|url| !url.is_empty())
    }

    /// Whether there is a store.
    pub(crate) fn is_set(&self) -> bool {
        self.url().is_some()
    }

    /// The store, if there is one.
    pub(crate) fn store(&self) -> Result<Option<SnapshotStore>, Failure> {
        match (self.url(), self.every_ms) {
            (Some(url), _) => Ok(Some(SnapshotStore::open(url, &self.options)?)),
            (None, Some(_)) => Err(Failure::usage("url of [snapshots] is missing, but every_ms is set")
                .hint("set it to s3://BUCKET/PREFIX, or to a folder that all nodes have")),
            (None, None) => Ok(None),
        }
    }

    /// The store with its schedule, if there is one. `owner` is the id of a process that is no member of a cluster.
    pub(crate) fn options(&self, owner: Option<Uuid>) -> Result<Option<SnapshotOptions>, Failure> {
        let options = |store| SnapshotOptions {
            store,
            every: Duration::from_millis(self.every_ms.unwrap_or(0)),
            kept: self.kept.unwrap_or(SNAPSHOTS_KEPT),
            owner,
        };
        Ok(self.store()?.map(options))
    }
}

/// Which requests a node accepts over HTTP and gRPC.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct HttpSettings {
    /// `NAME,NAME`: host names that the node accepts besides its own addresses, and whose web pages may send requests.
    names: String,
}

impl HttpSettings {
    pub(crate) fn names(&self) -> aggregator::doors::AllowedHosts {
        self.names
            .split(',')
            .map(str::trim)
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect()
    }
}

/// The replicas of each shard of a new collection, unless something else is said.
const REPLICAS_DEFAULT: u32 = 2;

/// The cluster of a node.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ClusterSettings {
    /// `bootstrap.servers` of its Kafka.
    kafka: Option<String>,
    /// Further librdkafka settings.
    kafka_config: BTreeMap<String, String>,
    /// The topic of the change log.
    changes_topic: Option<String>,
    /// The replication factor of each topic.
    replication: Option<i32>,
    /// The replicas of each shard of a new collection that names no number.
    replicas: Option<u32>,
}

/// A node as a member of its cluster.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct NodeSettings {
    /// Its name.
    pub name: Option<String>,
    /// `HOST:PORT` at which the other nodes reach it.
    pub address: Option<String>,
    /// What fails together with it: a rack, an availability zone.
    pub zone: Option<String>,
    /// How many shards a leaf takes in proportion to others.
    pub capacity: Option<u32>,
}

impl ClusterSettings {
    /// Whether the settings name the Kafka of a cluster.
    pub(crate) fn has_kafka(&self) -> bool {
        self.kafka.as_ref().is_some_and(|servers| !servers.trim().is_empty())
    }

    /// The replicas of each shard of a new collection that names no number.
    pub(crate) fn replicas(&self) -> Result<u32, Failure> {
        let replicas = self.replicas.unwrap_or(REPLICAS_DEFAULT);
        match (1..=REPLICAS_MAX).contains(&replicas) {
            true => Ok(replicas),
            false => Err(Failure::usage(format!(
                "replicas in [cluster] must be a number from 1 to {REPLICAS_MAX}, not {replicas}"
            ))),
        }
    }

    pub(crate) fn kafka(&self) -> Result<ClusterKafka, Failure> {
        let servers = self.kafka.clone().filter(|servers| !servers.trim().is_empty());
        let servers = servers.ok_or_else(|| {
            Failure::usage("kafka in [cluster] is missing")
                .hint("set it to the bootstrap.servers of the cluster's Kafka, for example kafka-1:9092")
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

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogSettings {
    /// In the syntax of `RUST_LOG`, which overrides it; default `info`.
    pub filter: Option<String>,
    /// The format; default text.
    pub format: LogFormat,
}

/// The format of log lines.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// For programs: a JSON object per line.
    Json,
}

/// Defines a section of optional keys and how they override the fields of the options.
macro_rules! section {
    (
        $(#[$doc:meta])* $name:ident of $options:ty {
            $($key:ident: $kind:ty => $($field:ident).+ $(as $convert:path)?,)*
        }
    ) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub(crate) struct $name { $($key: Option<$kind>,)* }

        impl $name {
            /// Overrides the options with the keys that are set.
            pub(crate) fn apply(self, options: &mut $options) {
                $(if let Some(value) = self.$key { options.$($field).+ = section!(@value value $($convert)?); })*
            }
        }
    };
    (@value $value:ident) => { $value };
    (@value $value:ident $convert:path) => { $convert($value) };
}

section! {
    /// Limits of the leaf: see `LeafOptions`.
    LeafSettings of LeafOptions {
        index_tail_documents: usize => index_tail_documents,
        scan_tail_documents_max: usize => scan_tail_documents_max,
        scan_tail_bytes_max: usize => scan_tail_bytes_max,
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
        merge_idle_ms: u64 => merge_idle as Duration::from_millis,
        merge_documents_max: usize => merge_documents_max,
        tail_documents_max: usize => tail_documents_max,
        tail_bytes_max: usize => tail_bytes_max,
        unsplit_bytes_max: usize => unsplit_bytes_max,
        index_threads: usize => index_threads,
        scan_threads: usize => scan_threads,
        kept_states_bytes_max: usize => kept_states_bytes_max,
        disk_used_percent_max: u8 => disk_used_percent_max,
        open_shards_max: usize => open_shards_max,
        idle_shards_max: usize => idle_shards_max,
        shard_idle_ms: u64 => shard_idle as Duration::from_millis,
        scrub_bytes_per_second: u64 => scrub_bytes_per_second,
        scrub_every_ms: u64 => scrub_every as Duration::from_millis,
        request_rows_kept_ms: u64 => request_rows_kept as Duration::from_millis,
        dead_letters_kept_ms: u64 => dead_letters_kept as Duration::from_millis,
        dead_letter_bytes_max: u64 => dead_letter_bytes_max,
        deleted_kept_ms: u64 => deleted_kept as Duration::from_millis,
        dropped_kept_ms: u64 => dropped_kept as Duration::from_millis,
        moved_kept_ms: u64 => moved_kept as Duration::from_millis,
        copy_bytes_per_second: u64 => copy_bytes_per_second,
        copies_at_once: usize => copies_at_once,
    }
}

section! {
    /// Limits of the aggregator: see `AggregatorOptions`.
    AggregatorSettings of AggregatorOptions {
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
        replace_after_ms: u64 => replacement.absent_after as Duration::from_millis,
        replaced_at_once_max: usize => replacement.moves_at_once_max,
        away_percent_max: u32 => replacement.away_percent_max,
        delete_ranges_max: usize => delete_ranges_max,
        collected_join_rows_max: usize => collected_join_rows_max,
        distribute_documents_min: u64 => distribute_documents_min,
    }
}

section! {
    /// Limits of the tailer: see `TailerOptions`.
    TailerSettings of TailerOptions {
        window_bytes_max: usize => window_bytes_max,
        windows_bytes_max: usize => windows_bytes_max,
        batch_records_max: usize => batch_records_max,
        batch_bytes_max: usize => batch_bytes_max,
        dropped_kept_ms: u64 => dropped_kept as Duration::from_millis,
        absent_kept_ms: u64 => absent_kept as Duration::from_millis,
    }
}

const SECTIONS: [&str; 7] = ["log", "leaf", "aggregator", "tailer", "cluster", "node", "snapshots"];
/// Keys for which zero (none, or at once) is a sensible value.
const MAY_BE_ZERO: [&str; 13] = [
    "replace_after_ms",
    "index_tail_documents",
    "scan_tail_documents_max",
    "scan_tail_bytes_max",
    "publish_after_ms",
    "publish_pause_ms",
    "split_idle_ms",
    "idle_shards_max",
    "shard_idle_ms",
    "queue_max",
    "deleted_kept_ms",
    "dropped_kept_ms",
    "distribute_documents_min",
];

/// Loads the settings from a file and the environment.
pub(crate) fn load(file: Option<&Path>) -> Result<Settings, Failure> {
    let text = match file {
        Some(file) => std::fs::read_to_string(file)
            .map_err(|e| Failure::usage(format!("cannot read the settings file {}: {e}", file.display())))?,
        None => String::new(),
    };
    parse(
        &text,
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))),
    )
    .map_err(|why| {
        let place = file.map_or("the environment".into(), |file| {
            format!("{} and the environment", file.display())
        });
        Failure::usage(format!("invalid settings in {place}: {why}"))
            .hint("deploy/rachis.toml lists every key with its default")
    })
}

/// Parses TOML, overridden by the variables of an environment.
fn parse(text: &str, environment: impl Iterator<Item = (String, String)>) -> Result<Settings, String> {
    let mut builder = Config::builder().add_source(File::from_str(text, FileFormat::Toml));
    let mut names = Vec::new();
    for (name, value) in environment {
        // Names without two underscores are not settings, for example RACHIS_URL and RACHIS_DATA.
        let Some(rest) = name.strip_prefix("RACHIS_") else {
            continue;
        };
        let Some((section, key)) = rest.split_once("__") else {
            if let Some(section) = SECTIONS
                .iter()
                .find(|section| rest.to_ascii_lowercase().starts_with(&format!("{section}_")))
            {
                return Err(format!(
                    "{name} is not a setting: two underscores separate section and key, as in RACHIS_{}__…",
                    section.to_ascii_uppercase()
                ));
            }
            continue;
        };
        // A further one leads into a section of the section: RACHIS_SNAPSHOTS__OPTIONS__REGION.
        let key = key.to_ascii_lowercase().replace("__", ".");
        let path = format!("{}.{key}", section.to_ascii_lowercase());
        builder = builder.set_override(path, value).map_err(|e| format!("{name}: {e}"))?;
        names.push(name);
    }
    let describe = |e: config::ConfigError| match names.is_empty() {
        true => e.to_string(),
        false => format!("{e} (from the environment: {})", names.join(", ")),
    };
    let config = builder.build().map_err(describe)?;
    reject_zeros(&config)?;
    if let Some(key) = ["tailers", "leaves", "aggregators"]
        .into_iter()
        .find(|key| config.get::<String>(&format!("cluster.{key}")).is_ok())
    {
        return Err(format!(
            "{key} of [cluster] does not exist any more: nodes announce themselves. Delete it, and start each node with \
             --listen HOST:PORT, and --address HOST:PORT if others reach it elsewhere"
        ));
    }
    config.try_deserialize().map_err(describe)
}

/// Rejects limits of zero, which would silently stop all work.
fn reject_zeros(config: &Config) -> Result<(), String> {
    // A node may have the name 0.
    for section in SECTIONS.into_iter().filter(|section| *section != "node") {
        let Ok(keys) = config.get_table(section) else { continue };
        let is_zero = |value: config::Value| value.into_string().is_ok_and(|text| text.trim() == "0");
        if let Some((key, _)) = keys
            .into_iter()
            .find(|(key, value)| !MAY_BE_ZERO.contains(&key.as_str()) && is_zero(value.clone()))
        {
            return Err(format!("{key} of [{section}] is 0; it must be at least 1"));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
