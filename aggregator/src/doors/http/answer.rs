//! Turns an answer into an HTTP response in the format that the client accepts.
//!
//! The first bytes are buffered: until they are sent, a problem still gets its own status. Longer answers are streamed,
//! in NDJSON also those whose rows come slowly. A problem in the middle of a stream becomes the last line in NDJSON and
//! aborts the response in every other format, so that half an answer never looks complete. If the client disconnects,
//! the body is dropped and with it the answer, which cancels the query.

use std::time::Duration;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use proto::{Code, Problem};
use tokio::time::{Instant, timeout_at};
use tracing::info;

use crate::{
    answer::{Answer, AnswerChunk, Stats},
    doors::answer_writer::{AnswerFormat, AnswerWriter},
};

/// Bytes of an answer that are buffered before the response begins.
const BUFFERED_BYTES_MAX: usize = 4 << 20;
/// How long the first rows of an NDJSON answer wait for others before the response begins.
const FIRST_ROWS_HELD_MAX: Duration = Duration::from_millis(100);
/// The header or trailer with the statistics of an answer, for formats that have no place for them.
const STATS_HEADER: &str = "rachis-stats";
const STATS_HEADER_BYTES_MAX: usize = 8 << 10;

/// The response for an answer: complete if it is short, streamed if it is long.
pub(super) async fn respond(mut answer: Answer, format: AnswerFormat) -> Result<Response, Problem> {
    let mut writer = AnswerWriter::new(format, answer.schema.clone())?;
    // Only this format can report a problem behind rows.
    let begins_early = format == AnswerFormat::Ndjson;
    let mut begin_at = None;
    while writer.buffered() < BUFFERED_BYTES_MAX {
        let part = match begin_at {
            None => next(&mut answer).await,
            Some(time) => match timeout_at(time, next(&mut answer)).await {
                Ok(part) => part,
                Err(_) => break,
            },
        };
        match part? {
            AnswerChunk::Rows(batch) => {
                writer.rows(&batch)?;
                if begins_early && begin_at.is_none() {
                    begin_at = Some(Instant::now() + FIRST_ROWS_HELD_MAX);
                }
            }
            AnswerChunk::End(stats) => {
                writer.end(&stats)?;
                return Ok(complete(writer.take(), format, &stats));
            }
        }
    }
    let body = Body::new(StreamBody::new(streamed(answer, writer)));
    let mut response = with_content_type(body.into_response(), format);
    if format.has_stats_header() {
        response
            .headers_mut()
            .insert(header::TRAILER, HeaderValue::from_static(STATS_HEADER));
    }
    Ok(response)
}

async fn next(answer: &mut Answer) -> Result<AnswerChunk, Problem> {
    answer
        .chunks
        .next()
        .await
        .unwrap_or_else(|| Err(Problem::new(Code::Internal, "the answer ended early")))
}

fn complete(bytes: Bytes, format: AnswerFormat, stats: &Stats) -> Response {
    let mut response = with_content_type(bytes.into_response(), format);
    if format.has_stats_header() {
        response.headers_mut().extend(stats_header(stats));
    }
    response
}

fn with_content_type(mut response: Response, format: AnswerFormat) -> Response {
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(format.content_type()));
    response
}

/// The statistics as a header, or as a trailer if the response began before they were known. Leaves out warnings that
/// would exceed its size.
fn stats_header(stats: &Stats) -> HeaderMap {
    let mut stats = stats.clone();
    loop {
        let text = escape_non_ascii(&stats.to_json().to_string());
        if text.len() <= STATS_HEADER_BYTES_MAX || stats.warnings.pop().is_none() {
            return HeaderValue::from_str(&text)
                .map(|value| (HeaderName::from_static(STATS_HEADER), value))
                .into_iter()
                .collect();
        }
    }
}

/// JSON with escapes for the characters that a header cannot have.
fn escape_non_ascii(json: &str) -> String {
    let mut ascii = String::with_capacity(json.len());
    for c in json.chars() {
        match c.is_ascii() {
            true => ascii.push(c),
            false => c
                .encode_utf16(&mut [0; 2])
                .iter()
                .for_each(|unit| ascii.push_str(&format!("\\u{unit:04x}"))),
        }
    }
    ascii
}

/// The part of a streamed answer that is still to be sent.
enum BodyPart {
    Rows(Box<(Answer, AnswerWriter)>),
    Trailers(HeaderMap),
    Done,
}

/// The rest of a long answer, frame by frame at the client's pace.
fn streamed(answer: Answer, writer: AnswerWriter) -> impl futures::Stream<Item = Result<Frame<Bytes>, std::io::Error>> {
    stream::unfold(BodyPart::Rows(Box::new((answer, writer))), |part| async move {
        let mut rows = match part {
            BodyPart::Rows(rows) => rows,
            BodyPart::Trailers(stats) => return Some((Ok(Frame::trailers(stats)), BodyPart::Done)),
            BodyPart::Done => return None,
        };
        let (answer, writer) = &mut *rows;
        let buffered = writer.take();
        if !buffered.is_empty() {
            return Some((Ok(Frame::data(buffered)), BodyPart::Rows(rows)));
        }
        let step = match next(answer).await {
            Ok(AnswerChunk::Rows(batch)) => writer.rows(&batch).map(|()| None),
            Ok(AnswerChunk::End(stats)) => writer.end(&stats).map(|()| Some(stats)),
            Err(problem) => Err(problem),
        };
        match step {
            Ok(None) => Some((Ok(Frame::data(writer.take())), BodyPart::Rows(rows))),
            Ok(Some(stats)) => {
                let rest = if writer.format.has_stats_header() {
                    BodyPart::Trailers(stats_header(&stats))
                } else {
                    BodyPart::Done
                };
                Some((Ok(Frame::data(writer.take())), rest))
            }
            Err(problem) => {
                info!(%problem, "an answer ended early, after part of it was sent");
                let last = writer
                    .error(&problem)
                    .map(Frame::data)
                    .ok_or_else(|| std::io::Error::other(problem.to_string()));
                Some((last, BodyPart::Done))
            }
        }
    })
}

#[cfg(test)]
mod tests;
