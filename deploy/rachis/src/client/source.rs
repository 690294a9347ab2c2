//! `rachis source`

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Failure, http::Client, output};
use crate::cli::{self, ListOutput, SourceAction, SourceSettingsArgs};

/// Columns of the table of sources, which has a row per partition.
const PARTITION_KEYS: [&str; 8] = [
    "name",
    "collection",
    "topic",
    "partition",
    "state",
    "end",
    "lag",
    "error",
];

/// Lists, shows, creates, changes and controls sources.
pub(crate) async fn run(arguments: cli::SourceArgs) -> Result<(), Failure> {
    match arguments.action {
        SourceAction::Put(settings) => put(settings).await,
        SourceAction::Preview(preview) => self::preview(preview).await,
        SourceAction::List(list) => self::list(list).await,
        SourceAction::Get(one) => simple(&one, Method::GET, None).await,
        SourceAction::Suspend(one) => simple(&one, Method::POST, Some("suspend")).await,
        SourceAction::Resume(one) => simple(&one, Method::POST, Some("resume")).await,
        SourceAction::Delete(one) => {
            let client = Client::new(&one.server.url)?;
            let request = client.request(Method::DELETE, &["sources", &one.name]);
            client.send(request).await?;
            output::note(&format!("deleted source {}; its documents stay", one.name));
            Ok(())
        }
        SourceAction::Skip(one) => skip("sources", one).await,
        SourceAction::Spread(one) => spread(one).await,
    }
}

async fn put(settings: SourceSettingsArgs) -> Result<(), Failure> {
    let client = Client::new(&settings.server.url)?;
    let mut body = body(&settings);
    body.entry("collection").or_insert(settings.name.clone().into());
    body.entry("topic").or_insert(settings.name.clone().into());
    body.entry("config").or_insert(json!({}));
    let request = client.request(Method::PUT, &["sources", &settings.name]).json(&body);
    output::pretty(&client.json(request).await?)
}

async fn list(list: cli::ListArgs) -> Result<(), Failure> {
    let client = Client::new(&list.server.url)?;
    let all = client.json(client.request(Method::GET, &["sources"])).await?;
    if list.output != ListOutput::Table {
        return output::list(&all["sources"], &[], list.output);
    }
    let rows: Vec<Value> = all["sources"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(by_partition)
        .collect();
    output::list(&rows.into(), &PARTITION_KEYS, list.output)
}

/// Continues after a loss of records. `kind` is the path segment: `sources` or `collections`.
pub(crate) async fn skip(kind: &str, skip: cli::SkipArgs) -> Result<(), Failure> {
    let client = Client::new(&skip.server.url)?;
    let offset = |text: String| serde_json::from_str(&text).unwrap_or(Value::String(text));
    let to: Map<String, Value> = skip
        .to
        .into_iter()
        .map(|(partition, text)| (partition, offset(text)))
        .collect();
    let request = client
        .request(Method::POST, &[kind, &skip.name, "skip"])
        .json(&json!({ "to": to }));
    output::pretty(&client.json(request).await?)
}

async fn spread(spread: cli::SpreadArgs) -> Result<(), Failure> {
    let client = Client::new(&spread.server.url)?;
    let segments = ["sources", &spread.name, "spread"];
    let request = match spread.withdraw {
        true => {
            let request = client.request(Method::DELETE, &segments);
            request.query(&[("partition", spread.partition)])
        }
        false => {
            let request = client.request(Method::POST, &segments);
            request.json(&json!({ "partition": spread.partition, "shards": spread.shards }))
        }
    };
    output::pretty(&client.json(request).await?)
}

/// A request without a body, whose answer is shown.
async fn simple(one: &cli::SourceNameArgs, method: Method, action: Option<&str>) -> Result<(), Failure> {
    let client = Client::new(&one.server.url)?;
    let segments: Vec<&str> = ["sources", &one.name].into_iter().chain(action).collect();
    output::pretty(&client.json(client.request(method, &segments)).await?)
}

async fn preview(preview: cli::PreviewArgs) -> Result<(), Failure> {
    let settings = preview.settings;
    let client = Client::new(&settings.server.url)?;
    let mut body = body(&settings);
    if !body.is_empty() {
        body.entry("collection").or_insert("preview".into());
        body.entry("topic").or_insert(settings.name.clone().into());
        body.entry("config").or_insert(json!({}));
    }
    body.insert("limit".into(), preview.limit.into());
    let request = client
        .request(Method::POST, &["sources", &settings.name, "preview"])
        .json(&body);
    output::pretty(&client.json(request).await?)
}

/// The settings given on the command line, without defaults.
fn body(settings: &SourceSettingsArgs) -> Map<String, Value> {
    let mut body = Map::new();
    let texts = [
        ("collection", &settings.collection),
        ("topic", &settings.topic),
        ("format", &settings.format),
        ("key", &settings.key),
        ("start", &settings.start),
    ];
    for (key, value) in texts {
        if let Some(value) = value {
            body.insert(key.into(), value.as_str().into());
        }
    }
    let brokers = settings
        .brokers
        .iter()
        .map(|brokers| ("bootstrap.servers".to_owned(), Value::from(brokers.as_str())));
    let config: Map<String, Value> = brokers
        .chain(
            settings
                .config
                .iter()
                .map(|(key, value)| (key.clone(), value.as_str().into())),
        )
        .collect();
    if !config.is_empty() {
        body.insert("config".into(), config.into());
    }
    body
}

/// A row per partition of a source; a single row if it has no partitions yet.
fn by_partition(source: &Value) -> Vec<Value> {
    let row = |partition: &Value| {
        let mut row = partition.clone();
        for key in ["name", "collection", "topic"] {
            row[key] = source[key].clone();
        }
        row
    };
    match source["partitions"].as_array().map(Vec::as_slice) {
        None | Some([]) => vec![row(
            &json!({ "state": if source["suspended"] == true { "suspended" } else { "starting" } }),
        )],
        Some(partitions) => partitions.iter().map(row).collect(),
    }
}
