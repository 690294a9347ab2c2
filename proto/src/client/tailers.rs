//! Client for all tailers of a cluster: the status of sources, and pushes through the push log.

mod pushes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::future::join_all;
pub use pushes::LoggedPushes;
use tonic::transport::Channel;

use super::{ASK_WAIT, Peer, peers::Peers};
use crate::{
    catalog::SourceSettings,
    cluster::Role,
    limits::{MESSAGE_BYTES_MAX, WRITE_MESSAGE_BYTES_MAX},
    problem::{Code, Problem},
    record::Record,
    status::{SourceState, TailStatus},
    tailer::SourceAdmin,
    wire::{ingest::require, leaf::Json, tailer::sources_client::SourcesClient},
};

/// All tailers of a cluster. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tailers {
    peers: Peers,
    next: Arc<AtomicUsize>,
}

impl Tailers {
    /// The tailers among the members.
    pub fn new(peers: Peers) -> Self {
        Self {
            peers,
            next: Arc::default(),
        }
    }

    /// All tailers; each call starts with the next one.
    fn round_robin(&self) -> Vec<Peer> {
        let mut peers = self.peers.of(Role::Tailer);
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let first = first % peers.len().max(1);
        peers.rotate_left(first);
        peers
    }

    /// Asks the tailers one after the other, until one is available.
    async fn ask_any<T, F>(&self, ask: impl Fn(Peer) -> F) -> Result<T, Problem>
    where
        F: Future<Output = Result<T, Problem>>,
    {
        let mut last = no_tailer();
        for peer in self.round_robin() {
            match ask(peer).await {
                Err(problem) if problem.code == Code::Unavailable => last = problem,
                answer => return answer,
            }
        }
        Err(last)
    }
}

/// The problem of a cluster without a tailer.
pub fn no_tailer() -> Problem {
    Problem::new(Code::Unavailable, "the cluster has no tailer")
        .hint("start one with `rachis tailer`; `rachis cluster status` lists the members")
}

fn sources(peer: &Peer) -> SourcesClient<Channel> {
    SourcesClient::new(peer.control.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

#[async_trait]
impl SourceAdmin for Tailers {
    async fn status(&self) -> Result<Vec<TailStatus>, Problem> {
        self.status_within(ASK_WAIT).await
    }

    async fn status_within(&self, wait: Duration) -> Result<Vec<TailStatus>, Problem> {
        let ask = |peer: Peer| async move {
            let asked = async {
                let request = peer.json(&(), wait)?;
                peer.value::<Vec<TailStatus>>(sources(&peer).status(request).await)
            };
            let silent = || Problem::new(Code::Unavailable, format!("{} does not respond", peer.name));
            tokio::time::timeout(wait, asked)
                .await
                .unwrap_or_else(|_| Err(silent()))
        };
        let answers = join_all(self.peers.of(Role::Tailer).into_iter().map(ask)).await;
        if let (false, Some(Err(problem))) = (answers.iter().any(Result::is_ok), answers.first()) {
            return Err(problem.clone());
        }
        Ok(merge_rows(answers.into_iter().flatten().flatten().collect()))
    }

    async fn ends(&self, settings: &SourceSettings) -> Result<Vec<i64>, Problem> {
        let settings = Json::of(settings)?;
        self.ask_any(|peer| {
            let request = peer.request(settings.clone(), ASK_WAIT * 2);
            async move { peer.value(sources(&peer).ends(request).await) }
        })
        .await
    }

    async fn preview(&self, settings: &SourceSettings, records: usize) -> Result<Vec<(i32, Record)>, Problem> {
        let message = Json::of(&(settings, records))?;
        self.ask_any(|peer| {
            let request = peer.request(message.clone(), ASK_WAIT * 3);
            async move {
                let mut client =
                    SourcesClient::new(peer.data.clone()).max_decoding_message_size(WRITE_MESSAGE_BYTES_MAX);
                let mut stream = peer.answer(client.preview(request).await)?;
                let mut found = Vec::new();
                while let Some(one) = stream.message().await.map_err(|status| peer.problem(status))? {
                    found.push((one.partition, require(one.record, "the record")?.try_into()?));
                }
                Ok(found)
            }
        })
        .await
    }
}

/// Merges the rows of several tailers. If a tailer reads a partition of a source, the rows for the whole source, from
/// tailers that read none of it, are left out. Two rows for one partition mean that it is moving between tailers: the
/// row with an error wins, then the row with a known end.
fn merge_rows(rows: Vec<TailStatus>) -> Vec<TailStatus> {
    let source_of = |row: &TailStatus| (row.collection.clone(), row.uid, row.source.clone());
    let mut by_partition: BTreeMap<(_, Option<i32>), TailStatus> = BTreeMap::new();
    for row in rows {
        let key = (source_of(&row), row.partition);
        let sent = row.sent.max(by_partition.get(&key).and_then(|known| known.sent));
        let preferred = match by_partition.remove(&key) {
            Some(known) if rank(&known) >= rank(&row) => known,
            _ => row,
        };
        by_partition.insert(key, TailStatus { sent, ..preferred });
    }
    let read = by_partition.values().filter(|row| row.partition.is_some());
    let read: BTreeSet<_> = read.map(source_of).collect();
    by_partition.retain(|(source, partition), _| partition.is_some() || !read.contains(source));
    by_partition.into_values().collect()
}

/// The row with the higher rank says more about its partition.
fn rank(row: &TailStatus) -> (bool, bool, bool, bool) {
    (
        row.error.is_some(),
        row.end.is_some() && row.state != SourceState::Starting,
        // A source is suspended once every tailer has stopped reading it.
        row.state == SourceState::Reading,
        row.state != SourceState::Suspended,
    )
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::{address::SourceName, catalog::CollectionUid};

    fn row(uid: u128, partition: Option<i32>, sent: i64) -> TailStatus {
        TailStatus {
            collection: "events".parse().expect("a name"),
            uid: Some(CollectionUid(Uuid::from_u128(uid))),
            source: SourceName::push(),
            partition,
            state: SourceState::Reading,
            end: None,
            lag: None,
            sent: Some(sent),
            error: None,
        }
    }

    #[test]
    fn a_source_is_suspended_once_every_tailer_says_so() {
        let [suspended, starting] = [SourceState::Suspended, SourceState::Starting].map(|state| TailStatus {
            state,
            ..row(1, None, -1)
        });
        for rows in [[&suspended, &starting], [&starting, &suspended]] {
            assert_eq!(
                merge_rows(rows.map(Clone::clone).into()),
                std::slice::from_ref(&starting)
            );
        }
        assert_eq!(merge_rows(vec![suspended.clone(); 2]), [suspended]);
    }

    #[test]
    fn rows_of_two_tailers_are_merged_but_not_those_of_two_collections_with_one_name() {
        let rows = vec![
            row(1, Some(0), 7),
            row(2, None, -1),
            row(1, None, -1),
            row(1, Some(0), 9),
            row(2, Some(0), 3),
        ];
        assert_eq!(merge_rows(rows), [row(1, Some(0), 9), row(2, Some(0), 3)]);
    }
}
