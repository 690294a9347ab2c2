//! `rachis debug bundle`: what somebody who is asked for help would ask for, as one file: how each node is, its
//! metrics, and the system tables.
//!
//! No document, no dead letter and no secret goes into it. What cannot be had is named in it, and does not keep the
//! rest out.

use std::{fs::File, io, path::PathBuf, time::Duration};

use chrono::Utc;
use flate2::{Compression, write::GzEncoder};
use futures::future::join_all;
use proto::node::VERSION;
use reqwest::{Method, header::ACCEPT};
use serde_json::{Value, json};

use super::{Failure, http::Client, output};
use crate::{
    cli::{self, DebugAction},
    settings,
};

/// How long a node may take for one of its pieces.
const PIECE_WAIT: Duration = Duration::from_secs(20);
/// The system tables in it: those that hold no values of documents.
const TABLES: [&str; 8] = [
    "nodes",
    "collections",
    "sources",
    "shards",
    "splits",
    "losses",
    "definitions",
    "queries",
];
/// What each node is asked.
const PIECES: [&str; 3] = ["healthz", "readyz", "metrics"];

/// Writes the bundle, and says where it is.
pub async fn run(arguments: cli::Debug) -> Result<(), Failure> {
    let DebugAction::Bundle(arguments) = arguments.action;
    let mut nodes: Vec<(String, String)> = match &arguments.config {
        None => Vec::new(),
        Some(file) => {
            let members = settings::load(Some(file))?.cluster.members()?;
            members
                .nodes
                .into_iter()
                .map(|((_, name), url)| (name.to_string(), url))
                .collect()
        }
    };
    let mut bundle = Bundle::default();
    let doors: Vec<String> = std::iter::once(arguments.server.url.clone())
        .chain(nodes.iter().map(|(_, url)| url.clone()))
        .collect();
    let door = bundle.tables(&doors).await;
    if nodes.is_empty() {
        nodes = bundle.nodes();
    }
    if nodes.is_empty() {
        nodes.push(("server".into(), arguments.server.url));
    }
    let answered = bundle.of_nodes(&nodes).await;
    if answered == 0 {
        let tried: Vec<&str> = nodes.iter().map(|(_, url)| url.as_str()).collect();
        return Err(Failure::new(format!("no node answers at {}", tried.join(", ")))
            .hint("--url names an aggregator, --config the settings of a cluster"));
    }
    let now = Utc::now();
    let about = json!({ "made": now.to_rfc3339(), "by": format!("rachis {VERSION}"), "tables_from": door, "missing": bundle.missing });
    bundle.add("about.json", pretty(&about));
    let name = format!("rachis-debug-{}", now.format("%Y%m%dT%H%M%SZ"));
    let file = arguments
        .output
        .unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    bundle
        .write(&name, &file)
        .map_err(|e| Failure::of(&format!("cannot write {}", file.display()), &e))?;
    bundle
        .missing
        .iter()
        .for_each(|missing| output::note(&format!("left out: {missing}")));
    output::write(format!("{}\n", file.display()).as_bytes())
}

/// The files of a bundle.
#[derive(Default)]
struct Bundle {
    files: Vec<(String, Vec<u8>)>,
    /// What could not be had, and why.
    missing: Vec<String>,
}

impl Bundle {
    fn add(&mut self, path: &str, bytes: Vec<u8>) {
        self.files.push((path.to_owned(), bytes));
    }

    /// The system tables and what was said of sources, from the first of these that answers questions; which one.
    async fn tables(&mut self, doors: &[String]) -> Option<String> {
        for door in doors {
            let Ok(client) = Client::new(door) else { continue };
            let Ok(nodes) = table(&client, "nodes").await else {
                continue;
            };
            self.add("tables/nodes.json", nodes);
            for name in &TABLES[1..] {
                self.piece(&format!("tables/{name}.json"), table(&client, name).await);
            }
            self.piece(
                "settings/sources.json",
                within(async { Ok(pretty(&client.json(client.request(Method::GET, &["sources"])).await?)) }).await,
            );
            return Some(door.clone());
        }
        self.missing.push("tables: no aggregator answers".into());
        None
    }

    /// Names and addresses of the nodes, as the table of them has them.
    fn nodes(&self) -> Vec<(String, String)> {
        let table = self.files.iter().find(|(path, _)| path == "tables/nodes.json");
        let answer: Value = table
            .and_then(|(_, bytes)| serde_json::from_slice(bytes).ok())
            .unwrap_or_default();
        let text = |row: &Value, key: &str| row[key].as_str().map(str::to_owned);
        answer["rows"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|row| Some((text(row, "name")?, text(row, "url")?)))
            .collect()
    }

    /// What each node says of itself; how many say anything.
    async fn of_nodes(&mut self, nodes: &[(String, String)]) -> usize {
        let ask = |(name, url): &(String, String)| {
            let (name, client) = (name.clone(), Client::new(url));
            async move {
                let client = match client {
                    Ok(client) => client,
                    Err(failure) => return vec![(format!("nodes/{name}"), Err(failure))],
                };
                let asked = PIECES.map(|piece| {
                    let (name, client) = (name.clone(), client.clone());
                    async move { (format!("nodes/{name}/{piece}"), within(client.text(piece)).await) }
                });
                join_all(asked).await
            }
        };
        let mut answered = 0;
        for pieces in join_all(nodes.iter().map(ask)).await {
            answered += usize::from(pieces.iter().any(|(_, piece)| piece.is_ok()));
            pieces.into_iter().for_each(|(path, piece)| self.piece(&path, piece));
        }
        answered
    }

    fn piece(&mut self, path: &str, piece: Result<Vec<u8>, Failure>) {
        match piece {
            Ok(bytes) => self.add(path, bytes),
            Err(failure) => self.missing.push(format!(
                "{path}: {}",
                failure.to_string().trim_start_matches("error: ").replace('\n', "; ")
            )),
        }
    }

    fn write(&self, folder: &str, file: &std::path::Path) -> io::Result<()> {
        let mut archive = tar::Builder::new(GzEncoder::new(File::create_new(file)?, Compression::default()));
        let now = u64::try_from(Utc::now().timestamp()).unwrap_or_default();
        for (path, bytes) in &self.files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o600);
            header.set_mtime(now);
            archive.append_data(&mut header, format!("{folder}/{path}"), bytes.as_slice())?;
        }
        archive.into_inner()?.finish()?.sync_all()
    }
}

async fn table(client: &Client, name: &str) -> Result<Vec<u8>, Failure> {
    let question =
        json!({ "sql": format!("SELECT * FROM rachis.{name}"), "timeout_ms": PIECE_WAIT.as_millis() as u64 });
    let request = client
        .request(Method::POST, &["sql"])
        .header(ACCEPT, "application/json")
        .json(&question);
    within(async { Ok(pretty(&client.json(request).await?)) }).await
}

async fn within(work: impl Future<Output = Result<Vec<u8>, Failure>>) -> Result<Vec<u8>, Failure> {
    let late = |_| Err(Failure::new(format!("no answer within {} s", PIECE_WAIT.as_secs())));
    tokio::time::timeout(PIECE_WAIT, work).await.unwrap_or_else(late)
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}
