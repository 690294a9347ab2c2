//! `rachis definition`

use std::{io::Read as _, path::Path};

use reqwest::Method;

use super::{Failure, http::Client, output, sql};
use crate::cli::{self, DefinitionAction};

/// Columns of the table of changes.
const CHANGE_KEYS: [&str; 3] = ["definition", "action", "statement"];
/// The name under which a definition without one is tried.
const TRIED_NAME: &str = "tried";

/// Lists, exports, applies and tries definitions.
pub(crate) async fn run(arguments: cli::DefinitionArgs) -> Result<(), Failure> {
    match arguments.action {
        DefinitionAction::List(list) => {
            let output = match list.output {
                cli::ListOutput::Table => cli::Output::Table,
                cli::ListOutput::Json => cli::Output::Json,
                cli::ListOutput::Ndjson => cli::Output::Ndjson,
            };
            sql::run(statement("SHOW DEFINITIONS".to_owned(), output, list.server)).await
        }
        DefinitionAction::Export(export) => {
            let client = Client::new(&export.server.url)?;
            let response = client
                .send(client.request(Method::GET, &["definitions", "export"]))
                .await?;
            let file = response.text().await;
            output::write(file.map_err(|e| super::http::broke_off(&e))?.as_bytes())
        }
        DefinitionAction::Apply(apply) => apply_file(apply).await,
        DefinitionAction::Try(tried) => {
            let file = Path::new(&tried.definition);
            let text = if file.is_file() {
                read(file)?
            } else if file.extension().is_some_and(|extension| extension == "sql") {
                let hint = format!("if it is an expression, write ({})", tried.definition);
                return Err(Failure::usage(format!("there is no file {}", tried.definition)).hint(hint));
            } else {
                tried.definition.clone()
            };
            let create = create_statement(text.trim().trim_end_matches(';'), tried.collection.as_deref())?;
            let text = format!("TRY LIMIT {} {create}", tried.limit);
            sql::run(statement(text, tried.output, tried.server)).await
        }
    }
}

async fn apply_file(apply: cli::DefinitionApplyArgs) -> Result<(), Failure> {
    let client = Client::new(&apply.server.url)?;
    let mut request = client
        .request(Method::POST, &["definitions", "apply"])
        .query(&[("dry_run", apply.dry_run)])
        .body(read(&apply.file)?);
    if let Some(author) = &apply.author {
        request = request.header("rachis-author", author);
    }
    let applied = client.json(request).await?;
    let changes = applied["changes"].as_array().map_or(0, Vec::len);
    if changes > 0 {
        output::list(&applied["changes"], &CHANGE_KEYS, apply.output)?;
    }
    output::note(&match (changes, apply.dry_run) {
        (0, _) => "nothing to change".to_owned(),
        (1, true) => "1 change; nothing was changed yet".to_owned(),
        (changes, true) => format!("{changes} changes; nothing was changed yet"),
        (1, false) => "1 change was made".to_owned(),
        (changes, false) => format!("{changes} changes were made"),
    });
    Ok(())
}

/// A CREATE statement of a text that may be only a part of one.
fn create_statement(text: &str, collection: Option<&str>) -> Result<String, Failure> {
    let text = without_comments(text);
    let first = text.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    if first == "CREATE" {
        return Ok(text.to_owned());
    }
    let collection = collection.ok_or_else(|| {
        Failure::usage("the collection is missing").hint("add --collection NAME, or write a CREATE statement")
    })?;
    let collection = format!("\"{}\"", collection.replace('"', "\"\""));
    Ok(match first.as_str() {
        "ON" => format!("CREATE PARSER {collection}.{TRIED_NAME} {text}"),
        _ => format!("CREATE FIELD {collection}.{TRIED_NAME} AS {text}"),
    })
}

/// A text without the comment lines before it.
fn without_comments(text: &str) -> &str {
    let mut rest = text.trim_start();
    while let Some(comment) = rest.strip_prefix("--") {
        rest = comment.split_once('\n').map_or("", |(_, rest)| rest).trim_start();
    }
    rest
}

fn read(file: &Path) -> Result<String, Failure> {
    let failed = |e: std::io::Error| Failure::new(format!("cannot read {}: {e}", file.display()));
    if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    std::fs::read_to_string(file).map_err(failed)
}

fn statement(statement: String, output: cli::Output, server: cli::ServerArgs) -> cli::SqlArgs {
    cli::SqlArgs {
        statement: Some(statement),
        file: None,
        parameters: Vec::new(),
        author: None,
        output: cli::sql_output::SqlOutput::Shown(output),
        all_rows: false,
        options: cli::QueryArgs::default(),
        server,
    }
}
