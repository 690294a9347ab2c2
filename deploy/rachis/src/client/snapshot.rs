//! `rachis snapshot`: takes, lists, shows, checks, restores and removes snapshots.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::{Failure, http::Client, output};
use crate::cli::{self, SnapshotAction};

/// Columns of the table of snapshots.
const KEYS: [&str; 8] = [
    "id",
    "state",
    "began",
    "collections",
    "shards",
    "bytes",
    "bytes_written",
    "error",
];
/// How often one after the other it may not be said how far a snapshot is.
const FAILED_POLLS_MAX: u32 = 30;
/// How often it is asked how far something is, at first and later.
const POLL_EVERY: [Duration; 2] = [Duration::from_millis(50), Duration::from_secs(1)];
/// After so many polls in a row that find nothing on its way, a restored collection is not waited for any longer: a minute.
const IDLE_MAX: u32 = 60;

/// Runs `rachis snapshot`.
pub(crate) async fn run(arguments: cli::SnapshotArgs) -> Result<(), Failure> {
    match arguments.action {
        SnapshotAction::Take(arguments) => take(arguments).await,
        SnapshotAction::List(arguments) => list(arguments).await,
        SnapshotAction::Show(arguments) => {
            let client = Client::new(&arguments.server.url)?;
            output::pretty(
                &client
                    .json(client.request(Method::GET, &["snapshots", &arguments.id]))
                    .await?,
            )
        }
        SnapshotAction::Check(arguments) => check(arguments).await,
        SnapshotAction::Restore(arguments) => restore(arguments).await,
        SnapshotAction::Remove(arguments) => remove(arguments).await,
    }
}

async fn take(arguments: cli::TakeArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let body = match arguments.collections.is_empty() {
        true => json!({}),
        false => json!({ "collections": arguments.collections }),
    };
    let begun = client
        .json(client.request(Method::POST, &["snapshots"]).json(&body))
        .await?;
    let id = begun["id"].as_str().unwrap_or_default().to_owned();
    if arguments.no_wait {
        output::note("`rachis snapshot list` shows when it is complete");
        return output::write(format!("{id}\n").as_bytes());
    }
    let (mut polls, mut failed) = (Polls::default(), 0);
    loop {
        let path = ["snapshots", id.as_str()];
        let snapshot = match client.json(client.request(Method::GET, &path)).await {
            // The store, or the server, may be away for a moment.
            Err(failure) if failed == FAILED_POLLS_MAX => {
                return Err(failure.within(&format!("snapshot {id} was begun, and may still be going on")));
            }
            Err(_) => {
                failed += 1;
                polls.pause().await;
                continue;
            }
            Ok(snapshot) => snapshot,
        };
        failed = 0;
        match snapshot["state"].as_str() {
            Some("complete") => {
                output::note(&format!(
                    "snapshot {id} is complete: {} shards, {} bytes, of which {} were written",
                    snapshot["shards"], snapshot["bytes"], snapshot["bytes_written"]
                ));
                return output::write(format!("{id}\n").as_bytes());
            }
            Some("failed") => {
                let why = snapshot["error"].as_str().unwrap_or_default();
                return Err(Failure::new(format!("snapshot {id} was not taken: {why}")));
            }
            _ => polls.pause().await,
        }
    }
}

async fn list(arguments: cli::ListSnapshotsArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let answer = client.json(client.request(Method::GET, &["snapshots"])).await?;
    output::list(&answer["snapshots"], &KEYS, arguments.output)
}

async fn check(arguments: cli::CheckArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let request = client.request(Method::POST, &["snapshots", &arguments.id, "check"]);
    let found = client.json(request.query(&[("read", arguments.read)])).await?;
    let (id, damaged) = (&arguments.id, found["damaged"].as_u64().unwrap_or(0));
    if damaged == 0 {
        let compared = if arguments.read {
            "their bytes were compared"
        } else {
            "their sizes were compared"
        };
        output::note(&format!(
            "all {} files of snapshot {id} are there, {} bytes; {compared}",
            found["objects"], found["bytes"]
        ));
        return Ok(());
    }
    for example in found["examples"].as_array().into_iter().flatten() {
        output::note(example.as_str().unwrap_or_default());
    }
    Err(Failure::new(format!(
        "{damaged} of {} files of snapshot {id} are missing or damaged",
        found["objects"]
    ))
    .hint("take another snapshot, and remove this one"))
}

async fn restore(arguments: cli::RestoreArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let collections = (!arguments.collections.is_empty()).then_some(arguments.collections);
    if arguments.rename.is_some() && collections.is_none() {
        return Err(Failure::usage("--as NAME is for one collection, and none is named")
            .hint("rachis snapshot restore ID COLLECTION --as NAME"));
    }
    let body = json!({
        "collections": collections,
        "as": arguments.rename,
        "continue": arguments.continued,
    });
    let request = client.request(Method::POST, &["snapshots", &arguments.id, "restore"]);
    let answer = client.json(request.json(&body)).await?;
    let texts = |list: &Value| {
        let texts = list.as_array().into_iter().flatten().filter_map(Value::as_str);
        texts.map(str::to_owned).collect::<Vec<String>>()
    };
    let restored = texts(&answer["restored"]);
    for (source, why) in answer["sources_left_out"].as_object().into_iter().flatten() {
        let why = why.as_str().unwrap_or_default();
        output::note(&format!("source {source} was not created: {why}"));
    }
    if let Some(why) = answer["definitions_error"].as_str() {
        output::note(&format!(
            "the definitions were not applied: {why}; `rachis snapshot show {}` has them as a file for `rachis definition \
             apply`, in `definitions`",
            arguments.id
        ));
    }
    let sources = texts(&answer["sources"]);
    if !sources.is_empty() {
        output::note(&format!("sources go on: {}", sources.join(", ")));
    }
    if arguments.no_wait {
        output::note(&format!(
            "{} will be there; `select * from rachis.moves` shows the progress",
            restored.join(", ")
        ));
        return Ok(());
    }
    for name in &restored {
        wait_until_restored(&client, name).await?;
    }
    Ok(())
}

/// Waits until a collection answers: an answer needs all shards.
async fn wait_until_restored(client: &Client, name: &str) -> Result<(), Failure> {
    let count = json!({ "sql": format!("SELECT count(*) AS documents FROM \"{name}\"") });
    let moves = json!({
        "sql": "SELECT count(*) AS moves, max(error) AS error FROM rachis.moves WHERE collection = $1",
        "parameters": [name],
    });
    let (mut polls, mut told, mut idle) = (Polls::default(), String::new(), 0);
    loop {
        let Err(failure) = client.sql(&count).await.map(|answer| {
            output::note(&format!(
                "{name} is there: {} documents",
                answer["rows"][0]["documents"]
            ));
        }) else {
            return Ok(());
        };
        // A shard that is still being copied does not answer. If the server does not either, that says more.
        let answer = client.sql(&moves).await?;
        let row = &answer["rows"][0];
        match row["error"].as_str() {
            Some(why) if told != why => {
                output::note(&format!(
                    "{name} is not there yet: {why}; it is tried again, and `rachis collection delete {name}` gives it up"
                ));
                told = why.to_owned();
            }
            _ => {}
        }
        // If nothing of it is on its way, it does not answer for another reason; or a leaf was just restarted.
        idle = if row["moves"] == 0 { idle + 1 } else { 0 };
        if idle > IDLE_MAX {
            return Err(failure);
        }
        polls.pause().await;
    }
}

async fn remove(arguments: cli::SnapshotIdArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let removed = client
        .json(client.request(Method::DELETE, &["snapshots", &arguments.id]))
        .await?;
    output::note(&format!(
        "removed snapshot {}: {} files, {} bytes, that no other one has",
        arguments.id, removed["objects"], removed["bytes"]
    ));
    Ok(())
}

/// Pauses that get longer.
#[derive(Default)]
struct Polls(u32);

impl Polls {
    async fn pause(&mut self) {
        let [first, longest] = POLL_EVERY;
        tokio::time::sleep((first * (1 << self.0.min(10))).min(longest)).await;
        self.0 += 1;
    }
}
