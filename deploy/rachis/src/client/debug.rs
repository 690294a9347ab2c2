//! `rachis debug bundle`: one file for support with the health and metrics of each node and the system tables.
//!
//! It contains no documents, no dead letters and no secrets. What cannot be fetched is listed in the bundle; the rest
//! is still written.

use std::{fs::File, io, path::PathBuf, time::Duration};

use chrono::Utc;
use flate2::{Compression, write::GzEncoder};
use futures::future::join_all;
use proto::node::VERSION;
use reqwest::Method;
use serde_json::{Value, json};

use super::{Failure, http::Client, output};
use crate::{
    cli::{self, DebugAction},
    cluster, settings,
};

/// Timeout of one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// The system tables in the bundle: those without values of documents.
const TABLES: [&str; 14] = [
    "nodes",
    "controller",
    "collections",
    "sources",
    "shards",
    "replicas",
    "moves",
    "runs",
    "digests",
    "splits",
    "snapshots",
    "losses",
    "definitions",
    "queries",
];
/// The paths fetched from each node.
const NODE_PATHS: [&str; 3] = ["healthz", "readyz", "metrics"];

/// Writes the bundle and prints its path.
pub(crate) async fn run(arguments: cli::DebugArgs) -> Result<(), Failure> {
    let DebugAction::Bundle(arguments) = arguments.action;
    let mut bundle = Bundle::default();
    let mut nodes: Vec<(String, String)> = match &arguments.config {
        None => Vec::new(),
        Some(file) => {
            let kafka = settings::load(Some(file))?.cluster.kafka()?;
            match cluster::catalog_of(&kafka).await {
                Ok(catalog) => {
                    let members = catalog.members.into_iter();
                    members.map(|(name, member)| (name.to_string(), member.url)).collect()
                }
                // An aggregator may know the members.
                Err(failure) => {
                    bundle.missing.push(failure.to_string());
                    Vec::new()
                }
            }
        }
    };
    let urls: Vec<String> = std::iter::once(arguments.server.url.clone())
        .chain(nodes.iter().map(|(_, url)| url.clone()))
        .collect();
    let tables_from = bundle.add_tables(&urls).await;
    if nodes.is_empty() {
        nodes = bundle.nodes_from_table();
    }
    if nodes.is_empty() {
        nodes.push(("server".into(), arguments.server.url));
    }
    let answered = bundle.add_nodes(&nodes).await;
    if answered == 0 {
        let tried: Vec<&str> = nodes.iter().map(|(_, url)| url.as_str()).collect();
        return Err(Failure::new(format!("no node responds at {}", tried.join(", ")))
            .hint("select an aggregator with --url, or the settings of a cluster with --config"));
    }
    let now = Utc::now();
    let about = json!({
        "made": now.to_rfc3339(),
        "by": format!("rachis {VERSION}"),
        "tables_from": tables_from,
        "missing": bundle.missing,
    });
    bundle.add("about.json", pretty(&about));
    let name = format!("rachis-debug-{}", now.format("%Y%m%dT%H%M%SZ"));
    let file = arguments
        .output
        .unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    bundle
        .write(&name, &file)
        .map_err(|e| Failure::with_cause(&format!("cannot write {}", file.display()), &e))?;
    bundle
        .missing
        .iter()
        .for_each(|missing| output::note(&format!("missing: {missing}")));
    output::write(format!("{}\n", file.display()).as_bytes())
}

/// The files of a bundle.
#[derive(Default)]
struct Bundle {
    files: Vec<(String, Vec<u8>)>,
    /// What could not be fetched, and why.
    missing: Vec<String>,
}

impl Bundle {
    fn add(&mut self, path: &str, bytes: Vec<u8>) {
        self.files.push((path.to_owned(), bytes));
    }

    /// Adds the system tables and the settings of sources from the first of these servers that answers queries, and
    /// returns its URL.
    async fn add_tables(&mut self, urls: &[String]) -> Option<String> {
        for url in urls {
            let Ok(client) = Client::new(url) else { continue };
            let Ok(nodes) = table(&client, "nodes").await else {
                continue;
            };
            self.add("tables/nodes.json", nodes);
            for name in &TABLES[1..] {
                self.add_result(&format!("tables/{name}.json"), table(&client, name).await);
            }
            self.add_result(
                "settings/sources.json",
                with_timeout(async { Ok(pretty(&client.json(client.request(Method::GET, &["sources"])).await?)) })
                    .await,
            );
            return Some(url.clone());
        }
        self.missing.push("tables: no aggregator responds".into());
        None
    }

    /// Names and URLs of the nodes in the table `nodes`.
    fn nodes_from_table(&self) -> Vec<(String, String)> {
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

    /// Adds the health and metrics of each node and returns how many nodes answered.
    async fn add_nodes(&mut self, nodes: &[(String, String)]) -> usize {
        let fetch = |(name, url): &(String, String)| {
            let (name, client) = (name.clone(), Client::new(url));
            async move {
                let client = match client {
                    Ok(client) => client,
                    Err(failure) => return vec![(format!("nodes/{name}"), Err(failure))],
                };
                let requests = NODE_PATHS.map(|path| {
                    let (name, client) = (name.clone(), client.clone());
                    async move { (format!("nodes/{name}/{path}"), with_timeout(client.raw(path)).await) }
                });
                join_all(requests).await
            }
        };
        let mut answered = 0;
        for results in join_all(nodes.iter().map(fetch)).await {
            answered += usize::from(results.iter().any(|(_, result)| result.is_ok()));
            results
                .into_iter()
                .for_each(|(path, result)| self.add_result(&path, result));
        }
        answered
    }

    fn add_result(&mut self, path: &str, result: Result<Vec<u8>, Failure>) {
        match result {
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
    let body = json!({
        "sql": format!("SELECT * FROM rachis.{name}"),
        "all_rows": true,
        "timeout_ms": REQUEST_TIMEOUT.as_millis() as u64,
    });
    with_timeout(async { Ok(pretty(&client.sql(&body).await?)) }).await
}

async fn with_timeout(request: impl Future<Output = Result<Vec<u8>, Failure>>) -> Result<Vec<u8>, Failure> {
    let timed_out = |_| {
        Err(Failure::new(format!(
            "no response within {} s",
            REQUEST_TIMEOUT.as_secs()
        )))
    };
    tokio::time::timeout(REQUEST_TIMEOUT, request)
        .await
        .unwrap_or_else(timed_out)
}

fn pretty(value: &Value) -> Vec<u8> {
    let mut text = serde_json::to_vec_pretty(value).unwrap_or_default();
    text.push(b'\n');
    text
}
