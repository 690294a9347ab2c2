//! Request body -> bytes: within a limit that holds before and after decompression, and within patience for a client
//! that stalls.

use std::{io::Read, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use proto::{Code, Problem};
use tokio::time::Instant;

use super::room::Held;

/// How fast a body has to come: one that trickles in keeps room that others wait for.
#[derive(Clone, Copy)]
struct Pace {
    /// How long a client may be silent in the middle of a body. As long at its beginning the rate does not count.
    silence_max: Duration,
    bytes_per_second_min: usize,
}

const PACE: Pace = Pace {
    silence_max: Duration::from_secs(30),
    bytes_per_second_min: 32 << 10,
};
/// Decompressed bytes for each compressed one that room is taken for ahead.
const EXPANSION_GUESS: usize = 8;
/// Bodies under this are decompressed where they are read.
const INLINE_BYTES_MAX: usize = 16 << 10;

/// How a body is packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
    Zstd,
}

impl Packing {
    /// What the request says.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let words: Vec<String> = headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .flat_map(|value| {
                String::from_utf8_lossy(value.as_bytes())
                    .split(',')
                    .map(|word| word.trim().to_ascii_lowercase())
                    .collect::<Vec<_>>()
            })
            .filter(|word| !word.is_empty() && word != "identity")
            .collect();
        match words.as_slice() {
            [] => Ok(Self::None),
            [word] if word == "gzip" || word == "x-gzip" => Ok(Self::Gzip),
            [word] if word == "zstd" => Ok(Self::Zstd),
            other => Err(Problem::new(
                Code::UnsupportedMedia,
                format!("the content encoding {:?} is not supported", other.join(", ")),
            )
            .hint("send the body as it is, or with gzip or zstd")),
        }
    }
}

/// The bytes of a body, unpacked, at most `bytes_max` of them. What they take is held in `held`, if given.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    held: Option<&mut Held>,
) -> Result<Bytes, Problem> {
    read_at(PACE, headers, body, bytes_max, held).await
}

async fn read_at(
    pace: Pace,
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    mut held: Option<&mut Held>,
) -> Result<Bytes, Problem> {
    let packing = Packing::of(headers)?;
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| v.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large(bytes_max));
    }
    // What it unpacks to is held from the beginning, so that it is not refused when all of it has come.
    let expansion = if packing == Packing::None {
        1
    } else {
        1 + EXPANSION_GUESS
    };
    // Room for twice as much as has come: who announces much and sends little takes little. Once an eighth has come,
    // room for the whole body, so that those who wait in the middle of theirs hold little, too.
    let room = |bytes: usize| match announced {
        Some(announced) if bytes >= announced / 8 => announced.max(bytes),
        _ => bytes.saturating_mul(2),
    };
    let mut stream = body.into_data_stream();
    let mut packed = BytesMut::new();
    let mut begun = Instant::now();
    while let Some(frame) = next_frame(&mut stream, pace, begun, packed.len()).await? {
        let bytes = packed.len() + frame.len();
        if bytes > bytes_max {
            return Err(too_large(bytes_max));
        }
        if let Some(held) = held.as_deref_mut() {
            let waits = Instant::now();
            held.grow_to(room(bytes).saturating_mul(expansion).min(bytes_max))
                .await?;
            // The client is not slow while the server has no room.
            begun += waits.elapsed();
        }
        if bytes > packed.capacity() {
            packed.reserve(room(bytes) - packed.len());
        }
        packed.extend_from_slice(&frame);
    }
    let packed = packed.freeze();
    if packing == Packing::None {
        return Ok(packed);
    }
    let unpacked = match packed.len() {
        0..INLINE_BYTES_MAX => unpack(&packed, packing, bytes_max)?,
        _ => tokio::task::spawn_blocking(move || unpack(&packed, packing, bytes_max))
            .await
            .map_err(|e| Problem::new(Code::Internal, e.to_string()))??,
    };
    if let Some(held) = held {
        held.grow_to(unpacked.len()).await?;
        held.shrink_to(unpacked.len());
    }
    Ok(unpacked)
}

async fn next_frame(
    stream: &mut axum::body::BodyDataStream,
    pace: Pace,
    begun: Instant,
    received: usize,
) -> Result<Option<Bytes>, Problem> {
    let Pace {
        silence_max,
        bytes_per_second_min,
    } = pace;
    let late = begun + silence_max + Duration::from_secs_f64(received as f64 / bytes_per_second_min as f64);
    let silent = Instant::now() + silence_max;
    match tokio::time::timeout_at(silent.min(late), stream.next()).await {
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(None) => Ok(None),
        Ok(Some(Err(error))) => Err(Problem::new(Code::BadRequest, format!("the body broke off: {error}"))),
        Err(_) if silent <= late => Err(Problem::new(
            Code::BadRequest,
            format!("the body stopped for {} seconds", silence_max.as_secs()),
        )),
        Err(_) => {
            let detail = format!(
                "the body came too slowly: {received} bytes in {} seconds",
                begun.elapsed().as_secs()
            );
            Err(Problem::new(Code::BadRequest, detail).hint(format!(
                "send at least {bytes_per_second_min} bytes a second, or smaller bodies"
            )))
        }
    }
}

fn unpack(packed: &[u8], packing: Packing, bytes_max: usize) -> Result<Bytes, Problem> {
    let broken = |error: std::io::Error| {
        let word = if packing == Packing::Gzip { "gzip" } else { "zstd" };
        Problem::new(Code::BadRequest, format!("the body is not {word}: {error}"))
            .hint("the Content-Encoding header must say how the body is packed")
    };
    let mut all = Vec::with_capacity(packed.len().saturating_mul(4).min(bytes_max));
    let over = bytes_max as u64 + 1;
    match packing {
        Packing::None => return Ok(Bytes::copy_from_slice(packed)),
        Packing::Gzip => flate2::read::MultiGzDecoder::new(packed)
            .take(over)
            .read_to_end(&mut all)
            .map_err(broken)?,
        Packing::Zstd => zstd::stream::read::Decoder::with_buffer(packed)
            .map_err(broken)?
            .take(over)
            .read_to_end(&mut all)
            .map_err(broken)?,
    };
    if all.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    Ok(all.into())
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Code::TooLarge, format!("the body has more than {bytes_max} bytes"))
        .hint("send it in several requests")
}

/// A JSON body as what it should be; unknown keys are refused and named. An empty body is `{}`.
pub(super) async fn json<T: serde::de::DeserializeOwned>(headers: &HeaderMap, body: Body) -> Result<T, Problem> {
    let bytes = read(headers, body, SETTINGS_BYTES_MAX, None).await?;
    let bytes: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
    serde_json::from_slice(bytes).map_err(|e| not_understood(&e))
}

/// Bytes of a body that is neither a push nor a statement.
const SETTINGS_BYTES_MAX: usize = 1 << 20;

/// What is wrong with a JSON body.
pub(super) fn not_understood(error: &serde_json::Error) -> Problem {
    Problem::new(
        Code::BadRequest,
        format!("the body is not what is expected here: {error}"),
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(bytes).expect("memory takes it");
        encoder.finish().expect("memory takes it")
    }

    fn headers(encoding: &str) -> HeaderMap {
        [(header::CONTENT_ENCODING, encoding.parse().expect("a header"))]
            .into_iter()
            .collect()
    }

    async fn code(encoding: &str, packed: Vec<u8>, bytes_max: usize) -> Result<Vec<u8>, Code> {
        read(&headers(encoding), Body::from(packed), bytes_max, None)
            .await
            .map(|bytes| bytes.to_vec())
            .map_err(|p| p.code)
    }

    #[tokio::test]
    async fn a_packed_body_comes_out_as_it_went_in() {
        let text = b"{\"a\":1}\n".repeat(10_000);
        assert_eq!(code("gzip", gzip(&text), 1 << 20).await.as_deref(), Ok(text.as_slice()));
        assert_eq!(
            code(
                "zstd",
                zstd::encode_all(text.as_slice(), 3).expect("memory takes it"),
                1 << 20
            )
            .await
            .as_deref(),
            Ok(text.as_slice())
        );
        let members = [gzip(b"one\n"), gzip(b"two\n")].concat();
        assert_eq!(
            code("x-gzip", members, 100).await.as_deref(),
            Ok(b"one\ntwo\n".as_slice()),
            "gzip files may be joined"
        );
        assert_eq!(
            code("identity", text.clone(), 1 << 20).await.as_deref(),
            Ok(text.as_slice())
        );
    }

    /// So many pieces of so many bytes, one each 50 milliseconds.
    fn trickle(pieces: usize, bytes: usize) -> Body {
        let pace = tokio::time::interval(Duration::from_millis(50));
        let sent = futures::stream::unfold((0, pace), move |(sent, mut pace)| async move {
            pace.tick().await;
            (sent < pieces).then(|| {
                (
                    Ok::<_, std::io::Error>(Bytes::from(vec![b' '; bytes])),
                    (sent + 1, pace),
                )
            })
        });
        Body::from_stream(sent)
    }

    #[tokio::test]
    async fn a_body_that_trickles_in_is_given_up_and_takes_little_room_meanwhile() {
        let room = super::super::room::Room::new(1 << 20);
        let headers: HeaderMap = [(header::CONTENT_LENGTH, (1 << 20).into())].into_iter().collect();
        let pace = Pace {
            silence_max: Duration::from_millis(300),
            bytes_per_second_min: 1 << 10,
        };
        let mut held = room.hold(0, Instant::now()).await.expect("nothing is held");
        let slow = async {
            let slow = read_at(pace, &headers, trickle(usize::MAX, 10), 1 << 20, Some(&mut held))
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
                    room.hold((1 << 20) - 1_000, Instant::now()).await.is_ok(),
                    "others have the rest of the room"
                );
            }
        };
        tokio::join!(slow, others);
        let steady = read_at(pace, &headers, trickle(30, 16 << 10), 1 << 20, Some(&mut held)).await;
        assert_eq!(
            steady.map(|bytes| bytes.len()),
            Ok(30 * (16 << 10)),
            "it takes longer than anybody may be silent, and comes fast enough"
        );
    }

    #[tokio::test]
    async fn a_small_body_that_unpacks_to_a_huge_one_is_refused() {
        let zeros = vec![b' '; 10 << 20];
        assert_eq!(code("gzip", gzip(&zeros), 1 << 20).await, Err(Code::TooLarge));
        assert_eq!(
            code(
                "zstd",
                zstd::encode_all(zeros.as_slice(), 3).expect("memory takes it"),
                1 << 20
            )
            .await,
            Err(Code::TooLarge)
        );
        assert_eq!(code("identity", zeros, 1 << 20).await, Err(Code::TooLarge));
        let exact = vec![b' '; 1 << 20];
        assert_eq!(
            code("gzip", gzip(&exact), 1 << 20).await.map(|b| b.len()),
            Ok(1 << 20),
            "the limit itself is allowed"
        );
    }

    #[tokio::test]
    async fn what_is_not_packed_as_it_says_is_refused() {
        assert_eq!(code("gzip", b"{}".to_vec(), 100).await, Err(Code::BadRequest));
        assert_eq!(code("zstd", b"{}".to_vec(), 100).await, Err(Code::BadRequest));
        let mut torn = gzip(&b"abc".repeat(1_000));
        torn.truncate(torn.len() - 8);
        assert_eq!(code("gzip", torn, 10_000).await, Err(Code::BadRequest));
        assert_eq!(code("br", b"{}".to_vec(), 100).await, Err(Code::UnsupportedMedia));
        assert_eq!(
            code("gzip, zstd", b"{}".to_vec(), 100).await,
            Err(Code::UnsupportedMedia)
        );
    }
}
