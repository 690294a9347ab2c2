//! `rachis dead-letters`

use std::io::Read as _;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use reqwest::Method;
use serde_json::{Value, json};

use super::{Failure, http::Client, output};
use crate::cli::{DeadLetterAction, DeadLettersArgs, ListDeadLettersArgs, RedriveArgs};

/// Columns of the list.
const KEYS: [&str; 7] = [
    "collection",
    "address",
    "ingested",
    "code",
    "detail",
    "length",
    "beginning",
];
/// Columns of the list of rejected dead letters.
const REJECTED_KEYS: [&str; 3] = ["address", "code", "detail"];
/// Rejected dead letters that are listed.
const REJECTED_MAX: usize = 20;

/// Lists, shows, ingests again and deletes dead letters.
pub(crate) async fn run(arguments: DeadLettersArgs) -> Result<(), Failure> {
    match arguments.action {
        DeadLetterAction::List(list) => listed(list).await,
        DeadLetterAction::Show(one) => {
            let client = Client::new(&one.server.url)?;
            let segments = ["collections", &one.collection, "dead-letters", &one.address];
            let letter = client.json(client.request(Method::GET, &segments)).await?;
            match (one.value, letter["complete"] == true) {
                (true, true) => output::write(&value_of(&letter["value"])?),
                (true, false) => Err(Failure::new("only the beginning of the record is stored")),
                (false, _) => show(&letter),
            }
        }
        DeadLetterAction::Redrive(redrive) => redriven(redrive).await,
        DeadLetterAction::Clear(clear) => {
            let client = Client::new(&clear.server.url)?;
            let mut cleared = 0;
            loop {
                let request = client.request(Method::DELETE, &["collections", &clear.collection, "dead-letters"]);
                let source = clear.source.iter().map(|source| ("source", source));
                let answer = client.json(request.query(&source.collect::<Vec<_>>())).await?;
                cleared += answer["cleared"].as_u64().unwrap_or_default();
                if answer["complete"] == true {
                    break;
                }
                output::note(&format!("{cleared} dead letters cleared so far"));
            }
            output::note(&format!("cleared {cleared} dead letters of {}", clear.collection));
            Ok(())
        }
    }
}

async fn listed(list: ListDeadLettersArgs) -> Result<(), Failure> {
    let client = Client::new(&list.server.url)?;
    let of = list.collection.clone();
    if let Some(name) = &of {
        client.json(client.request(Method::GET, &["collections", name])).await?;
    }
    let wanted = [
        ("collection", list.collection),
        ("source", list.source),
        ("code", list.code),
    ];
    let (mut conditions, mut parameters) = (Vec::new(), Vec::new());
    for (column, value) in wanted {
        if let Some(value) = value {
            parameters.push(value);
            conditions.push(format!("{column} = ${}", parameters.len()));
        }
    }
    conditions.push("error IS NULL".into());
    let sql = format!(
        "SELECT collection, address, ingested, code, detail, length, left(bytes, 80) AS beginning FROM rachis.dead_letters \
         WHERE {} ORDER BY ingested DESC, address DESC LIMIT {}",
        conditions.join(" AND "),
        list.limit
    );
    let answer = client.sql(&json!({ "sql": sql, "parameters": parameters })).await?;
    output::note_warnings(&answer["stats"]);
    // What the list lacks is said of shards and collections.
    let sql = "SELECT DISTINCT collection, error FROM rachis.dead_letters \
               WHERE error IS NOT NULL AND ($1 IS NULL OR collection = $1) ORDER BY 1, 2 LIMIT 100";
    let lacks = client.sql(&json!({ "sql": sql, "parameters": [of] })).await?;
    for row in lacks["rows"].as_array().into_iter().flatten() {
        let text = |key: &str| row[key].as_str().unwrap_or_default();
        output::note(&format!("{}: {}", text("collection"), text("error")));
    }
    output::list(&answer["rows"], &KEYS, list.output)
}

/// Shows what is known about a dead letter, and then its value as it is.
fn show(letter: &Value) -> Result<(), Failure> {
    let mut text = String::new();
    for name in ["address", "ingested", "code", "detail", "time", "key", "length"] {
        let shown = match &letter[name] {
            Value::Null => continue,
            Value::String(text) => text.clone(),
            Value::Object(_) => String::from_utf8_lossy(&value_of(&letter[name])?).into_owned(),
            other => other.to_string(),
        };
        text.push_str(&format!("{name:<9} {shown}\n"));
    }
    for header in letter["headers"].as_array().into_iter().flatten() {
        let value = match &header["value"] {
            Value::Null => "null".to_owned(),
            value => String::from_utf8_lossy(&value_of(value)?).into_owned(),
        };
        text.push_str(&format!(
            "header    {}: {value}\n",
            header["name"].as_str().unwrap_or_default()
        ));
    }
    let value = value_of(&letter["value"])?;
    text.push_str(&format!("\n{}\n", String::from_utf8_lossy(&value)));
    output::write(output::harmless(&text).as_bytes())?;
    if letter["complete"] != true {
        output::note(
            "only the beginning of the record is stored; `rachis dead-letters redrive` needs a --value for it",
        );
    }
    Ok(())
}

/// The bytes of `{"text": …}` or `{"base64": …}`.
fn value_of(value: &Value) -> Result<Vec<u8>, Failure> {
    if let Some(text) = value["text"].as_str() {
        return Ok(text.as_bytes().to_vec());
    }
    let encoded = value["base64"].as_str().unwrap_or_default();
    BASE64_STANDARD
        .decode(encoded)
        .map_err(|e| Failure::with_cause("the answer has a value that is not base64", &e))
}

async fn redriven(arguments: RedriveArgs) -> Result<(), Failure> {
    let client = Client::new(&arguments.server.url)?;
    let mut body = json!({ "dry_run": arguments.dry_run });
    let texts = [
        ("source", &arguments.source),
        ("code", &arguments.code),
        ("format", &arguments.format),
        ("key", &arguments.key),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            body[name] = value.as_str().into();
        }
    }
    if !arguments.addresses.is_empty() {
        body["addresses"] = json!(arguments.addresses);
    }
    if let Some(file) = &arguments.value {
        body["value"] = read_text(file)?.into();
    }
    let segments = ["collections", &arguments.collection, "dead-letters", "redrive"];
    let (mut done, mut rejected, mut gone, mut errors) = (0, 0, 0, Vec::new());
    loop {
        let answer = client.json(client.request(Method::POST, &segments).json(&body)).await?;
        let count = |name: &str| answer[name].as_u64().unwrap_or_default();
        done += count(if arguments.dry_run { "dead_letters" } else { "redriven" });
        rejected += count("rejected");
        gone += count("gone");
        errors.extend(answer["errors"].as_array().into_iter().flatten().cloned());
        errors.truncate(REJECTED_MAX);
        if answer["next"].is_null() {
            break;
        }
        output::note(&format!("{done} dead letters so far"));
        body["from"] = answer["next"].clone();
    }
    if arguments.dry_run {
        output::note(&format!(
            "{done} dead letters of {} would become documents, {rejected} would stay",
            arguments.collection
        ));
        return Ok(());
    }
    output::note(&format!(
        "ingested {done} dead letters of {} again; {rejected} stay, {gone} were gone",
        arguments.collection
    ));
    if rejected == 0 {
        return Ok(());
    }
    output::list(&Value::Array(errors), &REJECTED_KEYS, crate::cli::ListOutput::Table)?;
    let failure = Failure::new(format!(
        "{rejected} dead letters still cannot become documents, and stay"
    ));
    Err(failure.hint(
        "edit one: rachis dead-letters show COLLECTION ADDRESS --value > FILE, then redrive with --address and --value",
    ))
}

fn read_text(file: &std::path::Path) -> Result<String, Failure> {
    let mut bytes = Vec::new();
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().read_to_end(&mut bytes).map(drop),
        false => std::fs::read(file).map(|read| bytes = read),
    };
    read.map_err(|e| Failure::new(format!("cannot read {}: {e}", file.display())))?;
    String::from_utf8(bytes).map_err(|_| Failure::new(format!("{} is not UTF-8", file.display())))
}
