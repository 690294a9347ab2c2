//! Reads a request body into memory. One size limit holds before and after decompression, and clients that stall or
//! trickle are cut off.

use std::{io::Read, time::Duration};

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, header},
};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use proto::{Code, Problem};
use tokio::time::Instant;

use super::shape;
use crate::doors::byte_budget::Reservation;

/// How fast a body has to arrive: a body that trickles in occupies budget that other pushes wait for.
#[derive(Clone, Copy)]
struct MinimumRate {
    /// How long a client may send nothing. For as long from the beginning of a body, the rate is not enforced.
    silence_max: Duration,
    bytes_per_second_min: usize,
}

const RATE: MinimumRate = MinimumRate {
    silence_max: Duration::from_secs(30),
    bytes_per_second_min: 32 << 10,
};
/// The expansion that is assumed while a compressed body arrives: decompressed bytes reserved for each compressed byte.
const EXPANSION_GUESS: usize = 8;
/// Compressed bodies from this size on are decompressed on a blocking thread.
const INLINE_BYTES_MAX: usize = 16 << 10;
/// Bytes of a body that is neither a push nor a statement.
const SETTINGS_BYTES_MAX: usize = 1 << 20;

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ContentEncoding {
    None,
    Gzip,
    Zstd,
}

impl ContentEncoding {
    /// By the `Content-Encoding` header.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let names: Vec<String> = headers
            .get_all(header::CONTENT_ENCODING)
            .iter()
            .flat_map(|value| {
                String::from_utf8_lossy(value.as_bytes())
                    .split(',')
                    .map(|name| name.trim().to_ascii_lowercase())
                    .collect::<Vec<_>>()
            })
            .filter(|name| !name.is_empty() && name != "identity")
            .collect();
        match names.as_slice() {
            [] => Ok(Self::None),
            [name] if name == "gzip" || name == "x-gzip" => Ok(Self::Gzip),
            [name] if name == "zstd" => Ok(Self::Zstd),
            other => Err(Problem::new(
                Code::UnsupportedMedia,
                format!("the content encoding {:?} is not supported", other.join(", ")),
            )
            .hint("send the body uncompressed, or compressed with gzip or zstd")),
        }
    }
}

/// The media type that a `Content-Type` header names, in lower case and without parameters.
pub(super) fn media_type(content_type: &str) -> String {
    content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// Reads a body and decompresses it. The result has at most `bytes_max` bytes. `reserved` grows to what the body needs.
pub(super) async fn read(
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    reserved: Option<&mut Reservation>,
) -> Result<Bytes, Problem> {
    read_at(RATE, headers, body, bytes_max, reserved).await
}

async fn read_at(
    rate: MinimumRate,
    headers: &HeaderMap,
    body: Body,
    bytes_max: usize,
    mut reserved: Option<&mut Reservation>,
) -> Result<Bytes, Problem> {
    let encoding = ContentEncoding::of(headers)?;
    let content_length = content_length(headers);
    if content_length.is_some_and(|bytes| bytes > bytes_max) {
        return Err(too_large(bytes_max));
    }
    // The decompressed bytes are reserved from the beginning, so that a body is not rejected after it has arrived.
    let expansion = if encoding == ContentEncoding::None {
        1
    } else {
        1 + EXPANSION_GUESS
    };
    // Twice what has arrived: a client that announces a large body and sends little of it occupies little. From an
    // eighth of the body on, the whole body, so that bodies that wait for budget in the middle hold little, too.
    let capacity_for = |bytes: usize| match content_length {
        Some(length) if bytes >= length / 8 => length.max(bytes),
        _ => bytes.saturating_mul(2),
    };
    let mut stream = body.into_data_stream();
    let mut received = BytesMut::new();
    let mut started = Instant::now();
    while let Some(frame) = next_frame(&mut stream, rate, started, received.len()).await? {
        let bytes = received.len() + frame.len();
        if bytes > bytes_max {
            return Err(too_large(bytes_max));
        }
        if let Some(reserved) = reserved.as_deref_mut() {
            let wait_begun = Instant::now();
            reserved
                .grow_to(capacity_for(bytes).saturating_mul(expansion).min(bytes_max))
                .await?;
            // The time in which the server waits for budget does not count against the client's rate.
            started += wait_begun.elapsed();
        }
        if bytes > received.capacity() {
            received.reserve(capacity_for(bytes) - received.len());
        }
        received.extend_from_slice(&frame);
    }
    let received = received.freeze();
    if encoding == ContentEncoding::None {
        return Ok(received);
    }
    let decompressed = decompress_off_core(received, encoding, bytes_max).await?;
    if let Some(reserved) = reserved {
        reserved.grow_to(decompressed.len()).await?;
        reserved.shrink_to(decompressed.len());
    }
    Ok(decompressed)
}

fn content_length(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

async fn next_frame(
    stream: &mut axum::body::BodyDataStream,
    rate: MinimumRate,
    started: Instant,
    received: usize,
) -> Result<Option<Bytes>, Problem> {
    let MinimumRate {
        silence_max,
        bytes_per_second_min,
    } = rate;
    let late = started + silence_max + Duration::from_secs_f64(received as f64 / bytes_per_second_min as f64);
    let silent = Instant::now() + silence_max;
    match tokio::time::timeout_at(silent.min(late), stream.next()).await {
        Ok(Some(Ok(frame))) => Ok(Some(frame)),
        Ok(None) => Ok(None),
        Ok(Some(Err(error))) => Err(Problem::new(
            Code::BadRequest,
            format!("reading the body failed: {error}"),
        )),
        Err(_) if silent <= late => Err(Problem::new(
            Code::BadRequest,
            format!("no bytes of the body arrived for {} seconds", silence_max.as_secs()),
        )),
        Err(_) => {
            let detail = format!(
                "the body arrived too slowly: {received} bytes in {} seconds",
                started.elapsed().as_secs()
            );
            Err(Problem::new(Code::BadRequest, detail).hint(format!(
                "send at least {bytes_per_second_min} bytes per second, or smaller bodies"
            )))
        }
    }
}

/// Decompresses a small body right here and a large one on a blocking thread.
async fn decompress_off_core(compressed: Bytes, encoding: ContentEncoding, bytes_max: usize) -> Result<Bytes, Problem> {
    if compressed.len() < INLINE_BYTES_MAX {
        return decompress(&compressed, encoding, bytes_max);
    }
    tokio::task::spawn_blocking(move || decompress(&compressed, encoding, bytes_max))
        .await
        .map_err(|e| Problem::new(Code::Internal, e.to_string()))?
}

fn decompress(compressed: &[u8], encoding: ContentEncoding, bytes_max: usize) -> Result<Bytes, Problem> {
    let corrupt = |error: std::io::Error| {
        let name = if encoding == ContentEncoding::Gzip {
            "gzip"
        } else {
            "zstd"
        };
        Problem::new(Code::BadRequest, format!("the body is not {name}: {error}"))
            .hint("the Content-Encoding header must match the compression of the body")
    };
    let mut decompressed = Vec::with_capacity(compressed.len().saturating_mul(4).min(bytes_max));
    let limit = bytes_max as u64 + 1;
    match encoding {
        ContentEncoding::None => return Ok(Bytes::copy_from_slice(compressed)),
        ContentEncoding::Gzip => flate2::read::MultiGzDecoder::new(compressed)
            .take(limit)
            .read_to_end(&mut decompressed)
            .map_err(corrupt)?,
        ContentEncoding::Zstd => zstd::stream::read::Decoder::with_buffer(compressed)
            .map_err(corrupt)?
            .take(limit)
            .read_to_end(&mut decompressed)
            .map_err(corrupt)?,
    };
    if decompressed.len() > bytes_max {
        return Err(too_large(bytes_max));
    }
    Ok(decompressed.into())
}

fn too_large(bytes_max: usize) -> Problem {
    Problem::new(Code::TooLarge, format!("the body has more than {bytes_max} bytes"))
        .hint("send it in several requests")
}

/// Reads a JSON body, which must be an object, into a type. The problem of a body that does not fit gets this hint. An
/// empty body is `{}`.
pub(super) async fn json<T: serde::de::DeserializeOwned>(request: Request, hint: &str) -> Result<T, Problem> {
    json_up_to(request, SETTINGS_BYTES_MAX, hint).await
}

/// The same, of at most so many bytes.
pub(super) async fn json_up_to<T: serde::de::DeserializeOwned>(
    request: Request,
    bytes_max: usize,
    hint: &str,
) -> Result<T, Problem> {
    let (parts, body) = request.into_parts();
    let bytes = read(&parts.headers, body, bytes_max, None).await?;
    let bytes: &[u8] = if bytes.trim_ascii().is_empty() { b"{}" } else { &bytes };
    shape::read(bytes).map_err(|problem| problem.hint(hint))
}

#[cfg(test)]
mod tests;
