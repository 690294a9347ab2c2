//! `rachis rebalance`, `rachis cluster drain` and `rachis cluster hold`: move shards between the leaves of a cluster.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use crate::{
    cli,
    client::{Failure, http::Client, output},
};

/// Columns of the table of moves.
const MOVE_KEYS: [&str; 4] = ["collection", "shard", "to", "instead_of"];
/// Columns of the table of surplus replicas.
const RETIRED_KEYS: [&str; 3] = ["collection", "shard", "leaf"];
/// How often it is asked whether a leaf has shards left …
const POLL_EVERY: Duration = Duration::from_secs(1);
/// … and after how many times it is planned anew: a leaf may have joined, or another one died.
const POLLS_OF_A_PLAN: u32 = 30;
/// Shards that are named in a message.
const NAMED_MAX: usize = 5;
/// How long one question may take.
const POLL_WAIT: Duration = Duration::from_secs(10);
/// How many polls may fail in a row after an answer: an aggregator may be restarting.
const FAILED_POLLS_MAX: u32 = 60;
/// How many polls may fail before the first answer: a pod must stop soon if no aggregator runs.
const FIRST_POLLS_MAX: u32 = 5;

/// Runs `rachis rebalance`.
pub(crate) async fn rebalance(arguments: cli::RebalanceArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let request = client
        .request(Method::POST, &["rebalance"])
        .query(&[("dry_run", arguments.dry_run)]);
    let plan: Value = client.json(request).await?;
    show(&plan, arguments.dry_run, arguments.output)?;
    without_leaf(&plan).map_or(Ok(()), |what| {
        let hint = "start another leaf, or ask for fewer replicas (`rachis collection put NAME --replicas N`); then repeat \
                    the command";
        Err(Failure::new(what).hint(hint))
    })
}

/// Runs `rachis cluster drain`.
pub(crate) async fn drain(arguments: cli::DrainArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let path = ["nodes", &arguments.name, "drain"];
    if arguments.undo {
        client.send(client.request(Method::DELETE, &path)).await?;
        output::note(&format!(
            "{} takes shards again; `rachis rebalance` gives it some",
            arguments.name
        ));
        return Ok(());
    }
    if arguments.if_draining {
        return wait_until_empty(&client, &arguments.name, true).await;
    }
    let request = client
        .request(Method::POST, &path)
        .query(&[("dry_run", arguments.dry_run)]);
    let plan: Value = client.json(request).await?;
    show(&plan, arguments.dry_run, arguments.output)?;
    let name = &arguments.name;
    match (without_leaf(&plan), arguments.wait && !arguments.dry_run) {
        (None, false) => Ok(()),
        (None, true) => wait_until_empty(&client, name, false).await,
        (Some(what), true) => {
            // A replica that leaves another leaf may be in the way for some seconds.
            output::note(&format!("{what}: waiting for one"));
            wait_until_empty(&client, name, false).await
        }
        (Some(what), false) => {
            let repeat = "start another leaf, or ask for fewer replicas; then repeat the command";
            let hint = match arguments.dry_run {
                true => repeat.to_owned(),
                false => format!(
                    "{name} stays draining, and takes no new shards: {repeat}, or `rachis cluster drain {name} --undo`"
                ),
            };
            Err(Failure::new(what).hint(hint))
        }
    }
}

/// Runs `rachis cluster hold`.
pub(crate) async fn hold(arguments: cli::HoldArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let (method, said) = match arguments.release {
        false => (
            Method::POST,
            "replicas of leaves that are away are not replaced until `rachis cluster hold --release`",
        ),
        true => (Method::DELETE, "replicas of leaves that are away for long are replaced"),
    };
    client.send(client.request(method, &["replacements", "hold"])).await?;
    output::note(said);
    Ok(())
}

/// Waits until a leaf has no shards left. One that is not being drained is an error, unless that is the question.
async fn wait_until_empty(client: &Client, leaf: &str, if_draining: bool) -> Result<(), Failure> {
    let (mut failed, mut failed_max) = (0, FIRST_POLLS_MAX);
    for poll in 1_u32.. {
        if poll.is_multiple_of(POLLS_OF_A_PLAN) {
            // If it fails now, it is repeated.
            let _ = client.send(client.request(Method::POST, &["rebalance"])).await;
        }
        let left = tokio::time::timeout(POLL_WAIT, shards_left(client, leaf)).await;
        let left = left.unwrap_or_else(|_| Err(Failure::new(format!("no answer within {POLL_WAIT:?}"))));
        match left {
            Ok(Some(0)) => {
                output::note(&format!(
                    "{leaf} has no shards left; stop it, then `rachis cluster remove {leaf}`"
                ));
                return Ok(());
            }
            Ok(Some(_)) => (failed, failed_max) = (0, FAILED_POLLS_MAX),
            Ok(None) if if_draining => {
                output::note(&format!("{leaf} is not being drained"));
                return Ok(());
            }
            Ok(None) => {
                return Err(Failure::new(format!(
                    "{leaf} takes shards again: somebody gave the drain up"
                )));
            }
            Err(failure) if failed == failed_max => return Err(failure),
            Err(failure) => {
                if failed == 0 {
                    output::note(&format!(
                        "cannot see how many shards {leaf} has left, trying again: {failure}"
                    ));
                }
                failed += 1;
            }
        }
        tokio::time::sleep(POLL_EVERY).await;
    }
    Ok(())
}

/// How many shards a leaf that is being drained still has; none if it is not being drained.
async fn shards_left(client: &Client, leaf: &str) -> Result<Option<u64>, Failure> {
    if !is_draining(client, leaf).await? {
        return Ok(None);
    }
    let sql = "SELECT count(*) AS shards FROM rachis.replicas WHERE leaf = $1";
    Ok(first_row(client, sql, leaf).await?["shards"].as_u64())
}

async fn is_draining(client: &Client, leaf: &str) -> Result<bool, Failure> {
    let sql = "SELECT draining FROM rachis.nodes WHERE name = $1";
    Ok(first_row(client, sql, leaf).await?["draining"] == true)
}

async fn first_row(client: &Client, sql: &str, leaf: &str) -> Result<Value, Failure> {
    let answer = client.sql(&json!({ "sql": sql, "parameters": [leaf] })).await?;
    Ok(answer["rows"][0].clone())
}

fn show(plan: &Value, is_dry_run: bool, output: cli::ListOutput) -> Result<(), Failure> {
    if output != cli::ListOutput::Table {
        return output::pretty(plan);
    }
    let count = |key: &str| plan[key].as_array().map_or(0, Vec::len);
    let (moves, retired) = (count("moves"), count("retired"));
    if moves > 0 {
        output::list(&plan["moves"], &MOVE_KEYS, output)?;
    }
    if retired > 0 {
        output::list(&plan["retired"], &RETIRED_KEYS, output)?;
    }
    let (moved, removed) = match is_dry_run {
        true => ("to be moved", "to be removed"),
        false => ("on their way", "being removed"),
    };
    output::note(&match (moves + retired, plan["under_way"].as_u64().unwrap_or(0)) {
        (0, 0) if count("unplaced") > 0 => return Ok(()),
        (0, 0) => "nothing to move: every shard is where it should be".to_owned(),
        (0, under_way) => format!("nothing new to move: {under_way} replicas are on their way, see rachis.moves"),
        _ => format!(
            "{moves} replicas {moved}, {retired} surplus ones {removed}; `select * from rachis.moves` shows the progress"
        ),
    });
    Ok(())
}

/// The replicas of a plan for which there is no leaf, if there are any.
fn without_leaf(plan: &Value) -> Option<String> {
    let unplaced = plan["unplaced"].as_array().filter(|unplaced| !unplaced.is_empty())?;
    let shard = |of: &Value| {
        format!(
            "shard {} of {}",
            of["shard"],
            of["collection"].as_str().unwrap_or_default()
        )
    };
    let mut named: Vec<String> = unplaced.iter().take(NAMED_MAX).map(shard).collect();
    if unplaced.len() > NAMED_MAX {
        named.push(format!("{} more", unplaced.len() - NAMED_MAX));
    }
    let (count, named) = (unplaced.len(), named.join(", "));
    Some(format!("there is no leaf for {count} replicas: {named}"))
}
