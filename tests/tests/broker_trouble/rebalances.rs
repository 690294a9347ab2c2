//! Rebalances of the consumer group while tailers leave and join.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use proto::{
    status::{SourceState, TailStatus},
    wire::{leaf::Json, tailer::sources_client::SourcesClient},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use serde_json::json;
use tests::{Cluster, eventually};
use tokio_util::sync::CancellationToken;

use super::support::{assert_all_ingested, produce_until_cancelled, source, start};

/// How a tailer leaves the consumer group.
#[derive(Debug, Clone, Copy)]
enum Departure {
    Kill,
    Stop,
    Freeze,
}

const STORM_ROUNDS: usize = 10;
const STORM_SETTLES_WITHIN: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_of_rebalances_ends_without_loss_or_duplicates_and_one_tailer_per_partition() {
    let mut cluster = start(3, &[]).await;
    let t = "storm";
    cluster.kafka.create_topic(t, 6, &[]).await;
    source(
        &cluster,
        t,
        t,
        json!({ "config": { "session.timeout.ms": 1_500, "heartbeat.interval.ms": 300 } }),
    )
    .await;
    let (stop, partitions) = (CancellationToken::new(), Arc::new(AtomicUsize::new(6)));
    let writing = tokio::spawn(produce_until_cancelled(
        stop.clone(),
        cluster.kafka.producer(),
        t,
        partitions.clone(),
    ));
    let mut rng = StdRng::seed_from_u64(tests::seed());
    let tailers = ["tailer-1", "tailer-2", "tailer-3"];
    let mut moves = 0;
    for round in 0..STORM_ROUNDS {
        let mut leaving = tailers;
        leaving.shuffle(&mut rng);
        // Two of three leave in every third round; a tailer may be back before the group notices that it left.
        let leaving = &leaving[..1 + usize::from(round % 3 == 2)];
        let departure = [Departure::Kill, Departure::Stop, Departure::Freeze][round % 3];
        leave(&mut cluster, leaving, departure);
        if round == STORM_ROUNDS / 2 {
            cluster.kafka.add_partitions(t, 9).await;
            partitions.store(9, Ordering::Relaxed);
        }
        let wait_for_rebalance = matches!(departure, Departure::Freeze) || rng.random_bool(0.5);
        if wait_for_rebalance {
            let others: Vec<&str> = tailers.into_iter().filter(|tailer| !leaving.contains(tailer)).collect();
            eventually_assigned(&cluster, t, partitions.load(Ordering::Relaxed), &others).await;
        }
        rejoin(&mut cluster, leaving, departure).await;
        moves += 2 * leaving.len();
    }
    let storm_end = Instant::now();
    stop.cancel();
    let written = writing.await.expect("all records are acknowledged");
    assert_all_ingested(&cluster, t, &written).await;
    let shares = eventually_assigned(&cluster, t, 9, &tailers).await;
    let settled_after = storm_end.elapsed();
    let total: usize = written.iter().sum();
    eprintln!(
        "{moves} leaves and joins, {total} records, settled after {settled_after:?}, \
         partitions of each tailer: {shares:?}"
    );
    assert!(settled_after < STORM_SETTLES_WITHIN, "{settled_after:?}");
    assert!(moves >= 20, "{moves} leaves and joins are no storm");
}

fn leave(cluster: &mut Cluster, tailers: &[&str], departure: Departure) {
    for tailer in tailers {
        match departure {
            Departure::Kill => cluster.kill(tailer),
            Departure::Stop => cluster.stop(tailer),
            Departure::Freeze => cluster.process(tailer).pause(),
        }
    }
}

async fn rejoin(cluster: &mut Cluster, tailers: &[&str], departure: Departure) {
    for tailer in tailers {
        match departure {
            Departure::Kill | Departure::Stop => cluster.restart(tailer).await,
            Departure::Freeze => cluster.process(tailer).resume(),
        }
    }
}

/// Waits until each partition is read by exactly one of these tailers. Returns how many each of them reads.
async fn eventually_assigned(cluster: &Cluster, source: &str, partitions: usize, tailers: &[&str]) -> Vec<usize> {
    eventually(
        &format!("each partition of {source} is read by one of {tailers:?}"),
        || async {
            let (mut read, mut shares) = (Vec::new(), Vec::new());
            for tailer in tailers {
                let url = cluster
                    .nodes()
                    .find(|node| node.name == *tailer)
                    .context("a node")?
                    .url
                    .clone();
                let channel = tonic::transport::Endpoint::from_shared(url)?.connect().await?;
                let status = SourcesClient::new(channel).status(Json::of(&())?).await?;
                let rows: Vec<TailStatus> = status.into_inner().decode()?;
                let assigned = rows
                    .iter()
                    .filter(|row| row.source.as_str() == source && row.state != SourceState::Starting)
                    .filter_map(|row| row.partition);
                let before = read.len();
                read.extend(assigned);
                shares.push(read.len() - before);
            }
            read.sort();
            ensure!(
                read.iter().copied().eq(0..partitions as i32),
                "{read:?}, shares {shares:?}"
            );
            Ok(shares)
        },
    )
    .await
}
