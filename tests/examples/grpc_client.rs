//! A gRPC client in Rust: pushes a stream of documents, queries them by SQL and by search, and prints a summary.
//!
//!     grpc_client http://HOST:PORT COLLECTION
//!
//! The messages are generated from `proto/wire/public.proto`, which works the same in any other language.

#![allow(clippy::print_stdout, reason = "a client prints its answers")]

use anyhow::{Context as _, Result, ensure};
use proto::wire::v1::{
    Form, How, PushRequest, SearchRequest, SqlRequest, ingest_client::IngestClient, query_client::QueryClient,
    sql_part::Part,
};
use tonic::transport::{Channel, Endpoint};

/// The number of pushes in the stream, and of documents in each.
const PUSHES: usize = 20;
const DOCUMENTS: usize = 50;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().context("no server; pass its URL: http://HOST:PORT")?;
    let collection = arguments.next().context("no collection; pass its name")?;
    let channel = Endpoint::from_shared(url)?.connect().await?;

    let (accepted, position) = push(channel.clone(), &collection).await?;
    let mut client = QueryClient::new(channel);
    check_sql(&mut client, &collection, position).await?;
    let found = search(&mut client, collection).await?;
    println!("pushed {accepted} documents, read {PUSHES} rows, found {found}");
    Ok(())
}

/// Pushes all documents; returns their number and the position from which a query sees them.
async fn push(channel: Channel, collection: &str) -> Result<(u64, String)> {
    let collection = collection.to_owned();
    let request = move |number: usize| PushRequest {
        collection: collection.clone(),
        documents: (0..DOCUMENTS)
            .map(|n| format!("{{\"push\":{number},\"n\":{n},\"word\":\"hello gRPC\"}}").into())
            .collect(),
        idempotency_key: format!("example {number}"),
    };
    let mut responses = IngestClient::new(channel)
        .push_many(futures::stream::iter((0..PUSHES).map(request)))
        .await?
        .into_inner();
    let (mut accepted, mut position) = (0, String::new());
    while let Some(response) = responses.message().await? {
        accepted += response.accepted;
        position = response.position;
    }
    ensure!(
        accepted == (PUSHES * DOCUMENTS) as u64,
        "{accepted} documents were accepted"
    );
    Ok((accepted, position))
}

/// Counts the documents of each push, as of this position at least.
async fn check_sql(client: &mut QueryClient<Channel>, collection: &str, position: String) -> Result<()> {
    let sql = format!("SELECT push, count(*) AS documents FROM {collection} WHERE n >= $1 GROUP BY push ORDER BY push");
    let how = How {
        at_least: position,
        ..How::default()
    };
    let request = SqlRequest {
        sql,
        parameters: vec!["10".to_owned()],
        how: Some(how),
        form: Form::Ndjson.into(),
        ..SqlRequest::default()
    };
    let mut parts = client.sql(request).await?.into_inner();
    let (mut lines, mut end) = (Vec::new(), None);
    while let Some(part) = parts.message().await? {
        match part.part {
            Some(Part::Rows(bytes)) => lines.extend_from_slice(&bytes),
            Some(Part::End(stats)) => end = Some(stats),
            Some(Part::Columns(_)) | None => {}
        }
    }
    let end = end.context("the answer has no end")?;
    let rows = String::from_utf8(lines)?;
    ensure!(
        rows.lines().count() == PUSHES && rows.starts_with("{\"push\":0,\"documents\":40}"),
        "{rows}"
    );
    ensure!(!end.partial && end.shards_answered == end.shards_total, "{end:?}");
    Ok(())
}

/// Searches for the documents of one push; returns how many match.
async fn search(client: &mut QueryClient<Channel>, collection: String) -> Result<u64> {
    let request = SearchRequest {
        collection,
        query: "\"hello gRPC\" AND push:7".to_owned(),
        limit: 3,
        ..SearchRequest::default()
    };
    let found = client.search(request).await?.into_inner();
    ensure!(found.total == DOCUMENTS as u64 && found.hits.len() == 3, "{found:?}");
    Ok(found.total)
}
