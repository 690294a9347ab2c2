//! Concurrent writers on links that lose all traffic in one direction.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use reqwest::Method;
use serde_json::json;
use tests::{Client, Cluster, WAIT_MAX};
use tokio_util::sync::CancellationToken;

use super::support::{
    AGGREGATORS, AT_ONCE, FAR, HEALED_WITHIN, Layout, NEAR, assert_incomplete, count, eventually_within, query, start,
    wait_for_failed_write, wait_for_no_queries,
};

#[tokio::test]
async fn one_way_links_lose_and_duplicate_no_write_and_leave_nothing_hanging() {
    let (network, cluster, layout) = start().await;
    let stop = CancellationToken::new();
    let writers: Vec<_> = (0..16_usize)
        .map(|writer| {
            // Half of the writers give up soon, half wait as long as it takes. All retry by key.
            let timeout = if writer.is_multiple_of(2) {
                Duration::from_secs(2)
            } else {
                WAIT_MAX
            };
            let clients = AGGREGATORS.map(|aggregator| cluster.client_of(aggregator));
            tokio::spawn(write(clients, writer, timeout, stop.clone()))
        })
        .collect();
    wait_for_both_tailers(&cluster).await;
    wait_for_more_writes(&cluster, 0).await;

    // Each aggregator and each tailer loses one leaf, and each aggregator one tailer. The other leaf and tailer stay
    // reachable.
    for (to, from) in [("aggregator-1", FAR), ("tailer-1", FAR), ("aggregator-1", "tailer-1")] {
        network.cut_one_way(from, to);
    }
    for (from, to) in [("aggregator-2", NEAR), ("tailer-2", NEAR), ("aggregator-2", "tailer-2")] {
        network.cut_one_way(from, to);
    }
    let begun = Instant::now();
    check_queries_during_cut(&cluster, &layout).await;
    for tailer in ["tailer-1", "tailer-2"] {
        wait_for_failed_write(&cluster, tailer).await;
    }
    let cut = begun.elapsed();
    network.heal();
    wait_for_answers(&cluster).await;
    wait_for_more_writes(&cluster, written(&cluster).await.expect("an answer")).await;

    stop.cancel();
    let mut stats = WriterStats::default();
    for writer in writers {
        stats.add(writer.await.expect("every push ends"));
    }
    eprintln!("a cut of {cut:?}: {stats:?}");
    stats.check(cut);
    let stored = cluster
        .sql("select count(*), count(distinct writer * 1000000 + n) from written")
        .await;
    assert_eq!(stored.rows, [[json!(stats.acknowledged), json!(stats.acknowledged)]]);
    wait_for_no_queries(&cluster, HEALED_WITHIN).await;
}

async fn wait_for_both_tailers(cluster: &Cluster) {
    eventually_within("both tailers read", HEALED_WITHIN, || async {
        let uid = cluster
            .query("select uid from rachis.collections where name = 'written'", json!({}))
            .await?;
        let uid = uid
            .rows
            .first()
            .and_then(|row| row[0].as_str())
            .context("the collection does not exist yet")?
            .to_owned();
        ensure!(
            cluster.kafka.members(&format!("rachis-{uid}-push"))? == 2,
            "the group is not complete"
        );
        Ok(())
    })
    .await;
}

async fn written(cluster: &Cluster) -> anyhow::Result<u64> {
    let answer = cluster.query("select count(*) from written", json!({})).await?;
    Ok(answer.single_value().as_u64().unwrap_or_default())
}

async fn wait_for_more_writes(cluster: &Cluster, from: u64) {
    eventually_within("writes make progress", HEALED_WITHIN, || async {
        let now = written(cluster).await?;
        ensure!(now > from + 200, "{now} documents are stored");
        Ok(())
    })
    .await;
}

/// Queries that need a lost link fail in time, the others are answered at once.
async fn check_queries_during_cut(cluster: &Cluster, layout: &Layout) {
    let [first, second] = AGGREGATORS.map(|aggregator| cluster.client_of(aggregator));
    let (all, near, far) = (count("events"), count(&layout.near), count(&layout.far));
    let answers = tokio::join!(
        query(&first, &all, json!({})),
        query(&second, &all, json!({})),
        query(&first, &near, json!({})),
        query(&second, &far, json!({}))
    );
    for failed in [&answers.0, &answers.1] {
        assert_incomplete(failed);
    }
    for unaffected in [&answers.2, &answers.3] {
        assert!(unaffected.status == 200 && unaffected.took < AT_ONCE, "{unaffected:?}");
    }
}

async fn wait_for_answers(cluster: &Cluster) {
    for aggregator in AGGREGATORS {
        let client = cluster.client_of(aggregator);
        eventually_within("queries are answered", HEALED_WITHIN, || async {
            let answer = query(&client, &count("events"), json!({})).await;
            ensure!(answer.status == 200 && answer.body["rows"][0]["c"] == 200, "{answer:?}");
            Ok(())
        })
        .await;
    }
}

/// The outcome of a push whose client did not wait for an answer.
const GAVE_UP: &str = "the client gave up";

/// What happened to the pushes of writers.
#[derive(Debug, Default)]
struct WriterStats {
    acknowledged: usize,
    slowest: Duration,
    /// Status, or [`GAVE_UP`] -> number of pushes.
    outcomes: BTreeMap<String, usize>,
}

impl WriterStats {
    fn add(&mut self, other: Self) {
        self.acknowledged += other.acknowledged;
        self.slowest = self.slowest.max(other.slowest);
        for (outcome, count) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
    }

    /// During the cut pushes waited, but every one ended, and some were retried.
    fn check(&self, cut: Duration) {
        let Self { slowest, outcomes, .. } = self;
        assert!(
            outcomes
                .keys()
                .all(|outcome| ["200", "429", "503", "504", GAVE_UP].contains(&outcome.as_str())),
            "{outcomes:?}"
        );
        assert!(outcomes.contains_key(GAVE_UP), "no push was retried: {outcomes:?}");
        assert!(
            *slowest > AT_ONCE && *slowest < cut + HEALED_WITHIN,
            "pushes waited, and ended: {slowest:?}"
        );
    }
}

/// Writes one push after another, and retries each by its key, at the other aggregator, until it is acknowledged.
async fn write(clients: [Client; 2], writer: usize, timeout: Duration, stop: CancellationToken) -> WriterStats {
    let mut stats = WriterStats::default();
    while !stop.is_cancelled() {
        let body = format!("{{\"writer\":{writer},\"n\":{}}}", stats.acknowledged);
        for attempt in 0.. {
            let request = clients[(writer / 2 + stats.acknowledged + attempt) % 2]
                .request(Method::POST, "/v1/collections/written/documents");
            let begun = Instant::now();
            let response = request
                .header("idempotency-key", format!("{writer}-{}", stats.acknowledged))
                .body(body.clone())
                .timeout(timeout)
                .send()
                .await;
            let outcome = match response {
                Ok(response) => response.status().as_str().to_owned(),
                Err(error) if error.is_timeout() => GAVE_UP.to_owned(),
                Err(error) => panic!("an aggregator is down: {error:?}"),
            };
            stats.slowest = stats.slowest.max(begun.elapsed());
            let acknowledged = outcome == "200";
            *stats.outcomes.entry(outcome).or_default() += 1;
            if acknowledged {
                break;
            }
        }
        stats.acknowledged += 1;
    }
    stats
}
