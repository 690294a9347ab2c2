//! Makes all leaves of a cluster look like one: opens views and runs scans on a leaf that holds a replica of the shard.

mod leaf_scan;
mod lease;
mod path_tables;
mod views;

use std::sync::Arc;

use async_trait::async_trait;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use proto::{
    Address, PositionVector, Problem,
    client::{ASK_WAIT, Peer, ingest::RemoteIngest},
    ingest::ShardId,
    limits::OPENED_BYTES_MAX,
    wire::{
        ingest::positions,
        leaf::{DocumentLookup, Json, JsonWithBytes, RedrivesRequest, scan_client::ScanClient},
    },
};
use tonic::transport::Channel;

use self::{lease::ReleaseQueue, path_tables::PathTables, views::RemoteViews};
use crate::{
    scan::{
        DeadLetter, DeadRecord, Document, Lookup, PathStatus, RedrivePage, RedriveQuery, Scan, ScanStream, ShardStatus,
    },
    views::{OpenRequest, Opened},
};

/// All leaves of a cluster, as the client of queries. [`RemoteIngest`] is the client of writers. Cheap to clone.
#[derive(Clone)]
pub struct RemoteScan {
    leaves: RemoteIngest,
    paths: Arc<PathTables>,
    releases: ReleaseQueue,
}

impl RemoteScan {
    /// A client of these leaves. Must be called on the runtime that is to renew and release views: one whose threads
    /// queries do not keep busy.
    pub fn new(leaves: RemoteIngest) -> Self {
        Self {
            leaves,
            paths: Arc::default(),
            releases: ReleaseQueue::start(),
        }
    }
}

fn failed(problem: Problem) -> ScanStream {
    stream::iter([Err(problem)]).boxed()
}

fn control(peer: &Peer) -> ScanClient<Channel> {
    ScanClient::new(peer.control.clone()).max_decoding_message_size(OPENED_BYTES_MAX)
}

fn data(peer: &Peer) -> ScanClient<Channel> {
    ScanClient::new(peer.data.clone()).max_decoding_message_size(OPENED_BYTES_MAX)
}

#[async_trait]
impl Scan for RemoteScan {
    async fn open(&self, request: OpenRequest<'_>) -> Opened {
        RemoteViews::open(self.clone(), request).await
    }

    async fn document(&self, shard: ShardId, id: &str, at_least: &PositionVector) -> Result<Lookup, Problem> {
        let lookup = DocumentLookup {
            json: Json::of(&(shard, id))?.json,
            at_least: positions(at_least),
        };
        let ask = |peer: Peer| {
            let request = peer.request(lookup.clone(), ASK_WAIT);
            async move { peer.answer(data(&peer).document(request).await) }
        };
        let answer = self.leaves.ask(shard, ask).await?;
        let document = |document: JsonWithBytes| {
            let (document, bytes) = document.decode()?;
            Ok::<_, Problem>(Document { bytes, ..document })
        };
        Ok(Lookup {
            document: answer.document.map(document).transpose()?,
            boot: answer.boot,
        })
    }

    async fn fields(&self, shard: ShardId) -> Result<Vec<PathStatus>, Problem> {
        let ask = |peer: Peer| async move {
            let fields = peer.answer(data(&peer).fields(peer.json(&shard, ASK_WAIT)?).await)?;
            collect(&peer, fields, |field| field.decode()).await
        };
        self.leaves.ask(shard, ask).await
    }

    async fn status(&self, shard: ShardId) -> Result<ShardStatus, Problem> {
        let ask = |peer: Peer| async move { peer.value(control(&peer).status(peer.json(&shard, ASK_WAIT)?).await) };
        self.leaves.ask(shard, ask).await
    }

    async fn dead_letters(&self, shard: ShardId, limit: usize) -> Result<Vec<DeadLetter>, Problem> {
        let letter = |letter: JsonWithBytes| {
            let (letter, bytes) = letter.decode()?;
            Ok(DeadLetter { bytes, ..letter })
        };
        let ask = |peer: Peer| async move {
            let request = peer.json(&(shard, limit), ASK_WAIT * 3)?;
            let letters = peer.answer(data(&peer).dead_letters(request).await)?;
            collect(&peer, letters, letter).await
        };
        self.leaves.ask(shard, ask).await
    }

    async fn dead_record(&self, shard: ShardId, address: &Address) -> Result<Option<DeadRecord>, Problem> {
        let ask = |peer: Peer| async move {
            let request = peer.json(&(shard, address), ASK_WAIT * 3)?;
            peer.answer(data(&peer).dead_record(request).await)
        };
        DeadRecord::from_wire(self.leaves.ask(shard, ask).await?)
    }

    async fn redrives(&self, shard: ShardId, query: &RedriveQuery) -> Result<RedrivePage, Problem> {
        let message = RedrivesRequest {
            shard: Some(shard.into()),
            query: Some(Json::of(query)?),
            value: query.value.clone(),
        };
        let message = &message;
        let ask = |peer: Peer| async move {
            let request = peer.request(message.clone(), ASK_WAIT * 3);
            peer.answer(data(&peer).redrives(request).await)
        };
        RedrivePage::from_wire(self.leaves.ask(shard, ask).await?)
    }
}

/// Receives and decodes a whole answer.
async fn collect<M, T>(
    peer: &Peer,
    messages: tonic::Streaming<M>,
    decode: impl FnMut(M) -> Result<T, Problem>,
) -> Result<Vec<T>, Problem> {
    let messages: Vec<M> = messages.try_collect().await.map_err(|status| peer.problem(status))?;
    messages.into_iter().map(decode).collect()
}
