//! Lookups that need no query: a document by its id, and the paths of a collection.

use std::time::Instant;

use futures::future::join_all;
use plan::{
    scan::{Document, Lookup},
    views::WantedShards,
};
use proto::{Address, Code, CollectionName, Position, PositionVector, Problem, ingest::ShardId};

use super::{
    CollectionFields, Engine, QueryOptions,
    context::{QueryContext, timed_out},
    find_collection::find_collection,
    system,
};

/// A document in a shard, from a replica with this boot id.
struct Found {
    shard: ShardId,
    document: Document,
    boot: u64,
}

impl Engine {
    /// Returns a document by its id, which is its key or its address. A key that occurs in two partitions is two
    /// documents; the one in the lower shard is returned.
    pub async fn document(&self, collection: &CollectionName, id: &str) -> Result<Option<Document>, Problem> {
        let catalog = self.catalog();
        let found = find_collection(&catalog, collection)?;
        let numbers = match id.parse::<Address>() {
            Ok(address) => {
                let of = found.shard_at(&address.source, address.partition, address.offset);
                of.number..of.number + 1
            }
            Err(_) => 0..found.settings.shards,
        };
        let shard = |number| ShardId {
            collection: found.uid,
            number,
        };
        let any: Vec<_> = numbers
            .map(|number| (shard(number), PositionVector::default()))
            .collect();
        let started = Instant::now();
        let context = self.context_until(&QueryOptions::default(), started, self.options.timeout);
        let lookup = async {
            // A document must not be older than in earlier answers.
            let known = context.watermarks.of_all(&any);
            let seen = any
                .iter()
                .zip(&known)
                .map(|((shard, _), known)| (*shard, known.awaited()));
            let found = self
                .document_in(&context, collection, &seen.collect::<Vec<_>>(), id)
                .await;
            let again = match found {
                Ok(Some(found)) => {
                    let at = any.iter().position(|(shard, _)| *shard == found.shard);
                    if at.is_some_and(|at| known[at].is_complete_at(found.boot)) {
                        return Ok(Some(found.document));
                    }
                    vec![(found.shard, PositionVector::default())]
                }
                _ => any,
            };
            // These replicas may lack pushes that other aggregators acknowledged: one with the document, or one that
            // replaces it. The lookup waits for them as a query would.
            let (opened, behind) = context.watermarks.open(&context, &again, None).await;
            let views = again.iter().zip(opened.outcomes);
            let covered = views.map(|((shard, _), view)| match view {
                Ok(view) => Ok((*shard, view.positions)),
                Err(problem) => Err(incomplete(collection, *shard, &problem)),
            });
            let covered = covered.collect::<Result<Vec<_>, Problem>>()?;
            let found = self.document_in(&context, collection, &covered, id).await?;
            let lacking = behind.iter().find(|(shard, _)| match &found {
                // At its address, nothing replaces it.
                Some(found) => found.shard == *shard && id.parse::<Address>().is_err(),
                None => true,
            });
            match lacking {
                Some((_, warning)) => Err(Problem::new(
                    Code::Incomplete,
                    format!("document {id} may be missing in what {collection} has now, or be replaced: {warning}"),
                )
                .hint("retry once the shard has caught up: see rachis.sources; SQL answers from what there is")),
                None => Ok(found.map(|found| found.document)),
            }
        };
        let deadline = started + self.options.timeout;
        let answer = tokio::time::timeout_at(deadline.into(), lookup).await;
        answer.unwrap_or_else(|_| Err(timed_out()))
    }

    /// A document by its id, in one of these shards at these positions. No later answer lacks it.
    async fn document_in(
        &self,
        context: &QueryContext,
        collection: &CollectionName,
        shards: &WantedShards,
        id: &str,
    ) -> Result<Option<Found>, Problem> {
        let requests = shards
            .iter()
            .map(|(shard, at_least)| self.roles.leaf.document(*shard, id, at_least));
        let mut failed = None;
        for ((shard, _), answer) in shards.iter().zip(join_all(requests).await) {
            let Lookup { document, boot } = match answer {
                Ok(answer) => answer,
                Err(problem) => {
                    failed = Some(incomplete(collection, *shard, &problem));
                    continue;
                }
            };
            if let Some(document) = document {
                let address = &document.address;
                let position = Position {
                    source: address.source.clone(),
                    partition: address.partition,
                    offset: address.offset,
                };
                context
                    .watermarks
                    .advance(*shard, &PositionVector::from_iter([position]));
                let shard = *shard;
                return Ok(Some(Found { shard, document, boot }));
            }
        }
        // The document may be in a shard that did not answer, so "not found" could be wrong.
        failed.map_or(Ok(None), Err)
    }

    /// Returns all paths that occur in a collection's documents.
    pub async fn fields(&self, collection: &CollectionName) -> Result<CollectionFields, Problem> {
        system::merged_fields(self, collection).await
    }
}

fn incomplete(collection: &CollectionName, shard: ShardId, problem: &Problem) -> Problem {
    let number = shard.number;
    let detail = format!("shard {number} of {collection} is unavailable: {}", problem.detail);
    Problem::new(Code::Incomplete, detail).hint("retry")
}
