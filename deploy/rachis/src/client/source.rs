//! `rachis source`

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::{Failure, collection::write_list, http::Client, output};
use crate::cli::{self, SourceAction, SourceSettings};

/// Lists, shows, makes, changes and steers sources.
pub async fn run(arguments: cli::Source) -> Result<(), Failure> {
    match arguments.action {
        SourceAction::Put(settings) => {
            let client = Client::new(&settings.server.url)?;
            let mut body = body(&settings);
            body.entry("collection").or_insert(settings.name.clone().into());
            body.entry("topic").or_insert(settings.name.clone().into());
            body.entry("config").or_insert(json!({}));
            output::pretty(
                &client
                    .json(client.request(Method::PUT, &["sources", &settings.name]).json(&body))
                    .await?,
            )
        }
        SourceAction::Preview(preview) => self::preview(preview).await,
        SourceAction::List(list) => {
            let client = Client::new(&list.server.url)?;
            let all = client.json(client.request(Method::GET, &["sources"])).await?;
            let rows: Vec<Value> = all["sources"]
                .as_array()
                .into_iter()
                .flatten()
                .flat_map(by_partition)
                .collect();
            match list.output {
                cli::ListOutput::Table => write_list(
                    &rows.into(),
                    &[
                        "name",
                        "collection",
                        "topic",
                        "partition",
                        "state",
                        "end",
                        "lag",
                        "error",
                    ],
                    list.output,
                ),
                other => write_list(&all["sources"], &[], other),
            }
        }
        SourceAction::Get(one) => simple(&one, Method::GET, None).await,
        SourceAction::Suspend(one) => simple(&one, Method::POST, Some("suspend")).await,
        SourceAction::Resume(one) => simple(&one, Method::POST, Some("resume")).await,
        SourceAction::Delete(one) => {
            let client = Client::new(&one.server.url)?;
            client
                .send(client.request(Method::DELETE, &["sources", &one.name]))
                .await?;
            output::note(&format!("dropped source {}; its documents stay", one.name));
            Ok(())
        }
        SourceAction::Skip(one) => skip("sources", one).await,
    }
}

/// Goes on after a loss, in one of these.
pub async fn skip(of: &str, skip: cli::Skip) -> Result<(), Failure> {
    let client = Client::new(&skip.server.url)?;
    let to: Map<String, Value> = skip
        .to
        .into_iter()
        .map(|(partition, offset)| {
            (
                partition,
                serde_json::from_str(&offset).unwrap_or(Value::String(offset)),
            )
        })
        .collect();
    let request = client
        .request(Method::POST, &[of, &skip.name, "skip"])
        .json(&json!({ "to": to }));
    output::pretty(&client.json(request).await?)
}

async fn simple(one: &cli::SourceName, method: Method, action: Option<&str>) -> Result<(), Failure> {
    let client = Client::new(&one.server.url)?;
    let segments: Vec<&str> = ["sources", &one.name].into_iter().chain(action).collect();
    output::pretty(&client.json(client.request(method, &segments)).await?)
}

async fn preview(preview: cli::Preview) -> Result<(), Failure> {
    let settings = preview.settings;
    let client = Client::new(&settings.server.url)?;
    let mut body = body(&settings);
    if !body.is_empty() {
        body.entry("collection").or_insert("preview".into());
        body.entry("topic").or_insert(settings.name.clone().into());
        body.entry("config").or_insert(json!({}));
    }
    body.insert("limit".into(), preview.limit.into());
    output::pretty(
        &client
            .json(
                client
                    .request(Method::POST, &["sources", &settings.name, "preview"])
                    .json(&body),
            )
            .await?,
    )
}

/// What was said about a source, and nothing else.
fn body(settings: &SourceSettings) -> Map<String, Value> {
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

/// A row for each partition of a source, or one for the source.
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
