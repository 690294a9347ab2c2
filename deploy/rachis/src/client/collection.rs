//! `rachis collection` and `rachis fields`

use reqwest::Method;
use serde_json::{Value, json};

use super::{Failure, http::Client, output};
use crate::cli::{self, CollectionAction, ListOutput};

/// Lists, shows, makes, changes and drops collections.
pub async fn run(arguments: cli::Collection) -> Result<(), Failure> {
    match arguments.action {
        CollectionAction::List(list) => {
            let client = Client::new(&list.server.url)?;
            let all = client.json(client.request(Method::GET, &["collections"])).await?;
            let keys = [
                "name",
                "settings.shards",
                "settings.time_path",
                "sources",
                "statistics.documents",
                "statistics.bytes",
                "statistics.dead_letters",
            ];
            write_list(&all["collections"], &keys, list.output)
        }
        CollectionAction::Get(one) => {
            let client = Client::new(&one.server.url)?;
            output::pretty(
                &client
                    .json(client.request(Method::GET, &["collections", &one.name]))
                    .await?,
            )
        }
        CollectionAction::Put(settings) => {
            let client = Client::new(&settings.server.url)?;
            let mut body = json!({});
            if let Some(shards) = settings.shards {
                body["shards"] = shards.into();
            }
            if let Some(path) = settings.time_path {
                body["time_path"] = if path.is_empty() { Value::Null } else { path.into() };
            }
            output::pretty(
                &client
                    .json(
                        client
                            .request(Method::PUT, &["collections", &settings.name])
                            .json(&body),
                    )
                    .await?,
            )
        }
        CollectionAction::Skip(one) => super::source::skip("collections", one).await,
        CollectionAction::Delete(one) => {
            let client = Client::new(&one.server.url)?;
            client
                .send(client.request(Method::DELETE, &["collections", &one.name]))
                .await?;
            output::note(&format!("dropped {}", one.name));
            Ok(())
        }
    }
}

/// Shows the defined fields and the paths of a collection.
pub async fn fields(arguments: cli::Fields) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let all = client
        .json(client.request(Method::GET, &["collections", &arguments.collection, "fields"]))
        .await?;
    write_list(
        &all["fields"],
        &[
            "path",
            "kind",
            "type",
            "kinds",
            "documents",
            "indexed",
            "sample",
            "definition",
        ],
        arguments.output,
    )?;
    output::note_warnings(&all);
    Ok(())
}

/// Writes a list of objects; a table shows these keys only.
pub fn write_list(list: &Value, keys: &[&str], form: ListOutput) -> Result<(), Failure> {
    match form {
        ListOutput::Table => output::write(output::objects(list, keys).as_bytes()),
        ListOutput::Json => output::pretty(list),
        ListOutput::Ndjson => {
            let lines: String = list
                .as_array()
                .into_iter()
                .flatten()
                .map(|object| format!("{object}\n"))
                .collect();
            output::write(lines.as_bytes())
        }
    }
}
