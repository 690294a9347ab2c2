//! `rachis collection` and `rachis fields`

use reqwest::Method;
use serde_json::{Value, json};

use super::{Failure, http::Client, output, source};
use crate::cli::{self, CollectionAction};

/// Columns of the table of collections.
const COLLECTION_KEYS: [&str; 8] = [
    "name",
    "settings.shards",
    "settings.time_path",
    "settings.retention",
    "sources",
    "statistics.documents",
    "statistics.bytes",
    "statistics.dead_letters",
];
/// Columns of the table of fields.
const FIELD_KEYS: [&str; 8] = [
    "path",
    "kind",
    "type",
    "kinds",
    "documents",
    "indexed",
    "sample",
    "definition",
];

/// Lists, shows, creates, changes and deletes collections.
pub(crate) async fn run(arguments: cli::CollectionArgs) -> Result<(), Failure> {
    match arguments.action {
        CollectionAction::List(list) => {
            let client = Client::new(&list.server.url)?;
            let all = client.json(client.request(Method::GET, &["collections"])).await?;
            output::list(&all["collections"], &COLLECTION_KEYS, list.output)
        }
        CollectionAction::Get(one) => {
            let client = Client::new(&one.server.url)?;
            let request = client.request(Method::GET, &["collections", &one.name]);
            output::pretty(&client.json(request).await?)
        }
        CollectionAction::Put(settings) => put(settings).await,
        CollectionAction::Skip(one) => source::skip("collections", one).await,
        CollectionAction::Delete(one) => {
            let client = Client::new(&one.server.url)?;
            let request = client.request(Method::DELETE, &["collections", &one.name]);
            client.send(request).await?;
            output::note(&format!("deleted collection {}", one.name));
            Ok(())
        }
    }
}

async fn put(settings: cli::CollectionSettingsArgs) -> Result<(), Failure> {
    let client = Client::new(&settings.server.url)?;
    let mut body = json!({});
    if let Some(shards) = settings.shards {
        body["shards"] = shards.into();
    }
    if let Some(replicas) = settings.replicas {
        body["replicas"] = replicas.into();
    }
    if let Some(path) = settings.time_path {
        body["time_path"] = if path.is_empty() { Value::Null } else { path.into() };
    }
    if let Some(kept) = settings.retention {
        body["retention"] = if kept.is_empty() { Value::Null } else { kept.into() };
    }
    let request = client
        .request(Method::PUT, &["collections", &settings.name])
        .json(&body);
    let answer = client.json(request).await?;
    output::pretty(&answer)?;
    output::note_warnings(&answer);
    Ok(())
}

/// Lists the defined fields and the paths of a collection.
pub(crate) async fn fields(arguments: cli::FieldsArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let request = client.request(Method::GET, &["collections", &arguments.collection, "fields"]);
    let all = client.json(request).await?;
    output::list(&all["fields"], &FIELD_KEYS, arguments.output)?;
    output::note_warnings(&all);
    let times = all["time_paths"].as_array().map_or(&[][..], Vec::as_slice);
    let times: Vec<&str> = times.iter().filter_map(Value::as_str).collect();
    if let (Some(first), true) = (times.first(), all["time_path"].is_null()) {
        output::note(&format!(
            "these look like times: {}; to take one as _time, for old and new documents: rachis collection put {} --time-path \
             '{first}'",
            times.join(", "),
            arguments.collection
        ));
    }
    Ok(())
}
