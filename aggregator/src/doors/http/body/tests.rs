//! Tests of `body`.

use std::io::Write;

use super::*;
use crate::doors::byte_budget::ByteBudget;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).expect("writing to memory");
    encoder.finish().expect("writing to memory")
}

fn headers(encoding: &str) -> HeaderMap {
    [(header::CONTENT_ENCODING, encoding.parse().expect("a header"))]
        .into_iter()
        .collect()
}

async fn read_encoded(encoding: &str, sent: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, Code> {
    read(&headers(encoding), Body::from(sent), bytes_max, None)
        .await
        .map(|bytes| bytes.to_vec())
        .map_err(|p| p.code)
}

#[tokio::test]
async fn a_compressed_body_is_decompressed() {
    let text = b"{\"a\":1}\n".repeat(10_000);
    assert_eq!(
        read_encoded("gzip", gzip(&text), 1 << 20).await.as_deref(),
        Ok(text.as_slice())
    );
    assert_eq!(
        read_encoded(
            "zstd",
            zstd::encode_all(text.as_slice(), 3).expect("writing to memory"),
            1 << 20
        )
        .await
        .as_deref(),
        Ok(text.as_slice())
    );
    let members = [gzip(b"one\n"), gzip(b"two\n")].concat();
    assert_eq!(
        read_encoded("x-gzip", members, 100).await.as_deref(),
        Ok(b"one\ntwo\n".as_slice()),
        "gzip members may be concatenated"
    );
    assert_eq!(
        read_encoded("identity", text.clone(), 1 << 20).await.as_deref(),
        Ok(text.as_slice())
    );
}

/// A body of `frames` frames of `bytes` bytes each, one every 50 milliseconds.
fn trickle(frames: usize, bytes: usize) -> Body {
    let pace = tokio::time::interval(Duration::from_millis(50));
    let sent = futures::stream::unfold((0, pace), move |(sent, mut pace)| async move {
        pace.tick().await;
        (sent < frames).then(|| {
            (
                Ok::<_, std::io::Error>(Bytes::from(vec![b' '; bytes])),
                (sent + 1, pace),
            )
        })
    });
    Body::from_stream(sent)
}

#[tokio::test]
async fn a_body_that_trickles_in_is_cut_off_and_holds_little_budget_meanwhile() {
    let budget = ByteBudget::new(1 << 20);
    let headers: HeaderMap = [(header::CONTENT_LENGTH, (1 << 20).into())].into_iter().collect();
    let rate = MinimumRate {
        silence_max: Duration::from_millis(300),
        bytes_per_second_min: 1 << 10,
    };
    let mut reserved = budget.reserve(0, Instant::now()).await.expect("nothing is reserved");
    let slow = async {
        let slow = read_at(rate, &headers, trickle(usize::MAX, 10), 1 << 20, Some(&mut reserved))
            .await
            .expect_err("it is too slow");
        assert!(
            slow.code == Code::BadRequest && slow.detail.contains("too slowly"),
            "{slow}"
        );
    };
    let others = async {
        let mut pace = tokio::time::interval(Duration::from_millis(20));
        for _ in 0..10 {
            pace.tick().await;
            assert!(
                budget.reserve((1 << 20) - 1_000, Instant::now()).await.is_ok(),
                "others can have the rest of the budget"
            );
        }
    };
    tokio::join!(slow, others);
    let steady = read_at(rate, &headers, trickle(30, 16 << 10), 1 << 20, Some(&mut reserved)).await;
    assert_eq!(
        steady.map(|bytes| bytes.len()),
        Ok(30 * (16 << 10)),
        "it takes longer than a client may be silent, but arrives fast enough"
    );
}

#[tokio::test]
async fn a_small_body_that_decompresses_to_a_huge_one_is_rejected() {
    let zeros = vec![b' '; 10 << 20];
    assert_eq!(read_encoded("gzip", gzip(&zeros), 1 << 20).await, Err(Code::TooLarge));
    assert_eq!(
        read_encoded(
            "zstd",
            zstd::encode_all(zeros.as_slice(), 3).expect("writing to memory"),
            1 << 20
        )
        .await,
        Err(Code::TooLarge)
    );
    assert_eq!(read_encoded("identity", zeros, 1 << 20).await, Err(Code::TooLarge));
    let exact = vec![b' '; 1 << 20];
    assert_eq!(
        read_encoded("gzip", gzip(&exact), 1 << 20).await.map(|b| b.len()),
        Ok(1 << 20),
        "the limit itself is allowed"
    );
}

#[tokio::test]
async fn a_body_that_does_not_match_its_content_encoding_is_rejected() {
    assert_eq!(read_encoded("gzip", b"{}".to_vec(), 100).await, Err(Code::BadRequest));
    assert_eq!(read_encoded("zstd", b"{}".to_vec(), 100).await, Err(Code::BadRequest));
    let mut truncated = gzip(&b"abc".repeat(1_000));
    truncated.truncate(truncated.len() - 8);
    assert_eq!(read_encoded("gzip", truncated, 10_000).await, Err(Code::BadRequest));
    assert_eq!(
        read_encoded("br", b"{}".to_vec(), 100).await,
        Err(Code::UnsupportedMedia)
    );
    assert_eq!(
        read_encoded("gzip, zstd", b"{}".to_vec(), 100).await,
        Err(Code::UnsupportedMedia)
    );
}
