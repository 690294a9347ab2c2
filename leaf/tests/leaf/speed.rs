//! How fast a shard takes documents: `RACHIS_SPEED_FILE=<ndjson> … -- --ignored --nocapture speed`.

use std::{
    io::BufRead as _,
    time::{Duration, Instant},
};

use bytes::Bytes;
use plan::scan::Scan as _;
use proto::{
    ingest::{Batch, Verdict},
    limits::{BATCH_BYTES_MAX, BATCH_RECORDS_MAX},
    record::{Record, Rules, Value},
};

use super::support::{Fixture, record};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a measurement"]
async fn speed_of_one_shard() {
    let file = std::env::var("RACHIS_SPEED_FILE").expect("RACHIS_SPEED_FILE names a file of JSON lines");
    let lines: Vec<Bytes> =
        std::io::BufReader::new(std::fs::File::open(file).expect("a file")).split(b'\n').map(|l| l.expect("a line").into()).collect();
    let bytes: usize = lines.iter().map(Bytes::len).sum();
    let fixture = Fixture::start(|_| ());
    let begun = Instant::now();
    let (mut after, mut records, mut weight) = (-1i64, Vec::new(), 0);
    let (mut busy, mut pause) = (0u64, Duration::ZERO);
    let total = lines.len() as i64;
    for (offset, line) in (0i64..).zip(lines) {
        weight += line.len();
        records.push(Record { value: Value::One(line), ..record(offset, None, None) });
        if records.len() < BATCH_RECORDS_MAX && weight < BATCH_BYTES_MAX && offset + 1 < total {
            continue;
        }
        let batch = Batch { rules: Rules::default(), ..fixture.batch(0, after, offset, std::mem::take(&mut records)) };
        while let Verdict::Busy { .. } = fixture.write(batch.clone()).await {
            busy += 1;
            let waiting = Instant::now();
            tokio::task::yield_now().await;
            pause += waiting.elapsed();
        }
        (after, weight) = (offset, 0);
    }
    let taken = begun.elapsed();
    let documents = fixture.view().await.documents();
    let visible = begun.elapsed();
    fixture
        .eventually("all is in splits", async |fixture| {
            let status = fixture.leaf.status(fixture.shard).await.expect("a status");
            status.tail == 0 && status.splits.iter().all(|split| split.place == "disk")
        })
        .await;
    let settled = begun.elapsed();
    let status = fixture.leaf.status(fixture.shard).await.expect("a status");
    let rate = |time: Duration| bytes as f64 / 1e6 / time.as_secs_f64();
    eprintln!(
        "{documents} documents, {bytes} bytes: taken in {taken:?} ({:.0} MB/s, busy {busy} times for {pause:?}), visible after {visible:?} ({:.0} MB/s), \
         in {} splits after {settled:?} ({:.0} MB/s), {} bytes on disk",
        rate(taken),
        rate(visible),
        status.splits.len(),
        rate(settled),
        status.bytes
    );
}
