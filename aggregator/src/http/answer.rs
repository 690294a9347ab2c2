//! An answer as it comes -> the bytes of a response, in the form that was asked for.
//!
//! The first bytes are held back: while they are, a problem still gets its own status. Longer answers are streamed; a
//! problem in the middle is the last line of NDJSON and breaks off every other form, so that half an answer never looks
//! like a whole one. A client that goes drops the body, with it the answer, and that cancels the query.

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use datafusion::arrow::{array::RecordBatch, datatypes::SchemaRef, ipc::writer::StreamWriter};
use futures::{StreamExt, stream};
use http_body_util::StreamBody;
use hyper::body::Frame;
use proto::{Code, Problem};
use tracing::info;

use crate::{
    answer::{Answer, Part, Stats},
    render::{self, Lines},
};

/// Bytes of an answer that are held back before the response begins.
const HELD_BYTES_MAX: usize = 4 << 20;
/// The header, or trailer, that holds the statistics of an answer in a form that has no place for them.
const STATS_HEADER: &str = "rachis-stats";
/// Bytes of it.
const STATS_HEADER_BYTES_MAX: usize = 8 << 10;

/// A form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// `{"columns":[…],"rows":[{…}],"stats":{…}}`
    Json,
    /// A row a line, then `{"end":{"columns":[…],"stats":{…}}}` or `{"error":{…}}`.
    Ndjson,
    /// A line of names, then a row a line.
    Csv,
    /// The Arrow IPC stream.
    Arrow,
}

impl Form {
    const TABLE: [(Form, &'static str, &'static str); 4] = [
        (Form::Json, "application/json", "application/json"),
        (Form::Ndjson, "application/x-ndjson", "application/x-ndjson"),
        (Form::Csv, "text/csv", "text/csv; charset=utf-8; header=present"),
        (
            Form::Arrow,
            "application/vnd.apache.arrow.stream",
            "application/vnd.apache.arrow.stream",
        ),
    ];

    fn content_type(self) -> &'static str {
        Self::TABLE
            .iter()
            .find(|row| row.0 == self)
            .map_or("application/json", |row| row.2)
    }

    /// What `Accept` prefers of what there is; JSON where it does not say.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let accept: Vec<&str> = headers
            .get_all(header::ACCEPT)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .collect();
        let mut best: Option<(f32, Self)> = None;
        for wish in accept.iter().flat_map(|value| value.split(',')) {
            let mut parts = wish.split(';').map(str::trim);
            let range = parts.next().unwrap_or_default().to_ascii_lowercase();
            let weight = parts
                .find_map(|part| part.strip_prefix("q="))
                .map_or(1.0, |q| q.parse().unwrap_or(0.0));
            let form = Self::TABLE.iter().find(|row| matches(&range, row.1)).map(|row| row.0);
            if let Some(form) = form.filter(|_| weight > 0.0 && best.is_none_or(|(other, _)| weight > other)) {
                best = Some((weight, form));
            }
        }
        match best {
            Some((_, form)) => Ok(form),
            None if accept.iter().all(|value| value.trim().is_empty()) => Ok(Self::Json),
            None => {
                let known: Vec<&str> = Self::TABLE.iter().map(|row| row.1).collect();
                let problem = Problem::new(
                    Code::NotAcceptable,
                    format!("an answer cannot be {:?}", accept.join(", ")),
                );
                Err(problem.hint(format!("Accept can name {}", known.join(", "))))
            }
        }
    }
}

/// Whether a media range of `Accept` takes this type.
fn matches(range: &str, media: &str) -> bool {
    range == media
        || range == "*/*"
        || range
            .strip_suffix("/*")
            .is_some_and(|kind| media.split('/').next() == Some(kind))
        || (range == "application/ndjson" && media == "application/x-ndjson")
}

/// The response to a question: all of it where it is short, as a stream where it is long.
pub(super) async fn respond(mut answer: Answer, form: Form) -> Result<Response, Problem> {
    let mut writer = Writer::new(form, answer.schema.clone())?;
    while writer.out.len() < HELD_BYTES_MAX {
        match next(&mut answer).await? {
            Part::Rows(batch) => writer.rows(&batch)?,
            Part::End(stats) => {
                writer.end(&stats)?;
                return Ok(whole(writer.take(), form, &stats));
            }
        }
    }
    let mut response = with_content_type(
        Body::new(StreamBody::new(streamed(answer, writer))).into_response(),
        form,
    );
    if tells_beside(form) {
        response
            .headers_mut()
            .insert(header::TRAILER, HeaderValue::from_static(STATS_HEADER));
    }
    Ok(response)
}

async fn next(answer: &mut Answer) -> Result<Part, Problem> {
    answer
        .parts
        .next()
        .await
        .unwrap_or_else(|| Err(Problem::new(Code::Internal, "the answer stopped before its end")))
}

fn whole(bytes: Bytes, form: Form, stats: &Stats) -> Response {
    let mut response = with_content_type(bytes.into_response(), form);
    if tells_beside(form) {
        response.headers_mut().extend(stats_header(stats));
    }
    response
}

/// Whether a form has no place for statistics, so that they go beside it.
fn tells_beside(form: Form) -> bool {
    matches!(form, Form::Csv | Form::Arrow)
}

/// The statistics as a header, or as a trailer where the answer was begun before they were known. Warnings beyond its
/// size are left out.
fn stats_header(stats: &Stats) -> HeaderMap {
    let mut stats = stats.clone();
    loop {
        let text = in_ascii(&stats.to_json().to_string());
        if text.len() <= STATS_HEADER_BYTES_MAX || stats.warnings.pop().is_none() {
            return HeaderValue::from_str(&text)
                .map(|value| (HeaderName::from_static(STATS_HEADER), value))
                .into_iter()
                .collect();
        }
    }
}

/// JSON in the characters that a header may hold.
fn in_ascii(json: &str) -> String {
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

fn with_content_type(mut response: Response, form: Form) -> Response {
    response
        .headers_mut()
        .insert(header::CONTENT_TYPE, HeaderValue::from_static(form.content_type()));
    response
}

/// What of a long answer is still to be sent.
enum Rest {
    Rows(Box<(Answer, Writer)>),
    Trailers(HeaderMap),
    Nothing,
}

/// The rest of a long answer, piece by piece as the client takes it.
fn streamed(answer: Answer, writer: Writer) -> impl futures::Stream<Item = Result<Frame<Bytes>, std::io::Error>> {
    stream::unfold(Rest::Rows(Box::new((answer, writer))), |rest| async move {
        let mut rows = match rest {
            Rest::Rows(rows) => rows,
            Rest::Trailers(stats) => return Some((Ok(Frame::trailers(stats)), Rest::Nothing)),
            Rest::Nothing => return None,
        };
        let (answer, writer) = &mut *rows;
        let held = writer.take();
        if !held.is_empty() {
            return Some((Ok(Frame::data(held)), Rest::Rows(rows)));
        }
        let step = match next(answer).await {
            Ok(Part::Rows(batch)) => writer.rows(&batch).map(|()| None),
            Ok(Part::End(stats)) => writer.end(&stats).map(|()| Some(stats)),
            Err(problem) => Err(problem),
        };
        match step {
            Ok(None) => Some((Ok(Frame::data(writer.take())), Rest::Rows(rows))),
            Ok(Some(stats)) => {
                let rest = if tells_beside(writer.form) {
                    Rest::Trailers(stats_header(&stats))
                } else {
                    Rest::Nothing
                };
                Some((Ok(Frame::data(writer.take())), rest))
            }
            Err(problem) => {
                info!(%problem, "an answer broke off after its beginning was sent");
                let last = writer
                    .error(&problem)
                    .map(Frame::data)
                    .ok_or_else(|| std::io::Error::other(problem.to_string()));
                Some((last, Rest::Nothing))
            }
        }
    })
}

/// Writes an answer in its form.
pub(super) struct Writer {
    form: Form,
    schema: SchemaRef,
    out: Vec<u8>,
    rows: u64,
    arrow: Option<StreamWriter<Vec<u8>>>,
}

impl Writer {
    /// For rows of this schema.
    pub fn new(form: Form, schema: SchemaRef) -> Result<Self, Problem> {
        let mut writer = Self {
            form,
            schema: schema.clone(),
            out: Vec::new(),
            rows: 0,
            arrow: None,
        };
        match form {
            Form::Json => {
                writer.out.extend_from_slice(b"{\"columns\":");
                writer.columns();
                writer.out.extend_from_slice(b",\"rows\":[");
            }
            Form::Ndjson => {}
            Form::Csv => {
                for (i, field) in schema.fields().iter().enumerate() {
                    if i > 0 {
                        writer.out.push(b',');
                    }
                    render::csv_text(&mut writer.out, field.name());
                }
                writer.out.push(b'\n');
            }
            Form::Arrow => writer.arrow = Some(StreamWriter::try_new(Vec::new(), &schema).map_err(not_arrow)?),
        }
        Ok(writer)
    }

    fn columns(&mut self) {
        self.out.push(b'[');
        for (i, field) in self.schema.fields().iter().enumerate() {
            self.out
                .extend_from_slice(if i > 0 { b",{\"name\":" } else { b"{\"name\":" });
            render::string(&mut self.out, field.name());
            self.out.extend_from_slice(b",\"type\":");
            render::string(&mut self.out, &crate::answer::type_name(field.data_type()));
            self.out.push(b'}');
        }
        self.out.push(b']');
    }

    /// Writes a batch.
    pub fn rows(&mut self, batch: &RecordBatch) -> Result<(), Problem> {
        if let Some(arrow) = &mut self.arrow {
            arrow.write(batch).map_err(not_arrow)?;
            self.out.append(arrow.get_mut());
            return Ok(());
        }
        let columns = render::plain_columns(batch);
        for row in 0..batch.num_rows() {
            match self.form {
                Form::Json => {
                    if self.rows > 0 {
                        self.out.push(b',');
                    }
                    self.row(&columns, row, Lines::Any);
                }
                Form::Ndjson => {
                    self.row(&columns, row, Lines::One);
                    self.out.push(b'\n');
                }
                _ => self.csv_row(&columns, row),
            }
            self.rows += 1;
        }
        Ok(())
    }

    fn row(&mut self, columns: &[datafusion::arrow::array::ArrayRef], row: usize, lines: Lines) {
        self.out.push(b'{');
        for (i, (field, column)) in self.schema.fields().iter().zip(columns).enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            render::string(&mut self.out, field.name());
            self.out.push(b':');
            render::json(&mut self.out, field, column, row, lines);
        }
        self.out.push(b'}');
    }

    fn csv_row(&mut self, columns: &[datafusion::arrow::array::ArrayRef], row: usize) {
        for (i, (field, column)) in self.schema.fields().iter().zip(columns).enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            render::csv(&mut self.out, field, column, row);
        }
        self.out.push(b'\n');
    }

    fn end(&mut self, stats: &Stats) -> Result<(), Problem> {
        match self.form {
            Form::Json => {
                self.out.extend_from_slice(b"],\"stats\":");
                self.out.extend_from_slice(stats.to_json().to_string().as_bytes());
                self.out.push(b'}');
            }
            Form::Ndjson => {
                self.out.extend_from_slice(b"{\"end\":{\"columns\":");
                self.columns();
                self.out.extend_from_slice(b",\"stats\":");
                self.out.extend_from_slice(stats.to_json().to_string().as_bytes());
                self.out.extend_from_slice(b"}}\n");
            }
            Form::Csv => {}
            Form::Arrow => {
                if let Some(arrow) = &mut self.arrow {
                    arrow.finish().map_err(not_arrow)?;
                    self.out.append(arrow.get_mut());
                }
            }
        }
        Ok(())
    }

    /// The last piece of an answer that cannot go on, in the forms that have one.
    fn error(&mut self, problem: &Problem) -> Option<Bytes> {
        (self.form == Form::Ndjson).then(|| format!("{}\n", serde_json::json!({ "error": problem.to_json() })).into())
    }

    /// What was written since.
    pub fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.out).into()
    }
}

fn not_arrow(error: datafusion::arrow::error::ArrowError) -> Problem {
    Problem::new(
        Code::NotSupported,
        format!("the answer cannot be written as Arrow: {error}"),
    )
    .hint("ask for application/json")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use datafusion::arrow::{
        array::{Int64Array, StringArray},
        datatypes::{DataType, Field, Schema},
        ipc::reader::StreamReader,
    };

    use http_body_util::BodyExt as _;

    use super::*;

    fn schema() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("n", DataType::Int64, true),
            Field::new("t,x", DataType::Utf8, true),
        ]))
    }

    fn batch(from: i64, rows: i64) -> RecordBatch {
        let numbers = Int64Array::from_iter_values(from..from + rows);
        let texts = StringArray::from_iter((from..from + rows).map(|n| (n % 2 == 0).then(|| format!("row {n}"))));
        RecordBatch::try_new(schema(), vec![Arc::new(numbers), Arc::new(texts)]).expect("columns fit")
    }

    fn answer(parts: Vec<Result<Part, Problem>>) -> Answer {
        Answer {
            schema: schema(),
            parts: stream::iter(parts).boxed(),
        }
    }

    fn short() -> Answer {
        answer(vec![
            Ok(Part::Rows(batch(0, 2))),
            Ok(Part::Rows(batch(2, 1))),
            Ok(Part::End(Box::default())),
        ])
    }

    async fn body(response: Response) -> Result<Vec<u8>, axum::Error> {
        axum::body::to_bytes(response.into_body(), usize::MAX)
            .await
            .map(|bytes| bytes.to_vec())
    }

    async fn text(answer: Answer, form: Form) -> String {
        String::from_utf8(
            body(respond(answer, form).await.expect("an answer"))
                .await
                .expect("a body"),
        )
        .expect("UTF-8")
    }

    #[tokio::test]
    async fn an_answer_is_told_in_each_form() {
        let json: serde_json::Value = serde_json::from_str(&text(short(), Form::Json).await).expect("JSON");
        assert_eq!(
            json["columns"],
            serde_json::json!([{"name":"n","type":"BIGINT"},{"name":"t,x","type":"TEXT"}])
        );
        assert_eq!(
            json["rows"],
            serde_json::json!([{"n":0,"t,x":"row 0"},{"n":1,"t,x":null},{"n":2,"t,x":"row 2"}])
        );
        assert_eq!(json["stats"]["partial"], false);
        assert_eq!(text(short(), Form::Csv).await, "n,\"t,x\"\n0,row 0\n1,\n2,row 2\n");
        let lines = text(short(), Form::Ndjson).await;
        let lines: Vec<&str> = lines.lines().collect();
        assert_eq!(
            lines[..3],
            [
                "{\"n\":0,\"t,x\":\"row 0\"}",
                "{\"n\":1,\"t,x\":null}",
                "{\"n\":2,\"t,x\":\"row 2\"}"
            ]
        );
        assert!(lines.len() == 4 && lines[3].starts_with("{\"end\":{\"columns\":["));
        let arrow = body(respond(short(), Form::Arrow).await.expect("an answer"))
            .await
            .expect("a body");
        let batches: Vec<RecordBatch> = StreamReader::try_new(arrow.as_slice(), None)
            .expect("a stream")
            .map(|b| b.expect("a batch"))
            .collect();
        assert_eq!(batches, [batch(0, 2), batch(2, 1)]);
    }

    #[tokio::test]
    async fn a_form_without_room_for_statistics_has_them_in_a_header_or_after_the_rows() {
        let stats = || {
            Box::new(Stats {
                truncated: true,
                warnings: vec!["é".into(), "w".repeat(STATS_HEADER_BYTES_MAX)],
                ..Stats::default()
            })
        };
        let read = |headers: &HeaderMap| -> serde_json::Value {
            serde_json::from_slice(headers.get(STATS_HEADER).expect("the statistics").as_bytes()).expect("JSON")
        };
        let long = || {
            (0..60)
                .map(|i| Ok(Part::Rows(batch(i * 8_192, 8_192))))
                .chain([Ok(Part::End(stats()))])
                .collect()
        };
        for form in [Form::Csv, Form::Arrow] {
            let short = respond(answer(vec![Ok(Part::Rows(batch(0, 2))), Ok(Part::End(stats()))]), form)
                .await
                .expect("an answer");
            let told = read(short.headers());
            assert_eq!(
                (&told["truncated"], &told["warnings"]),
                (&serde_json::json!(true), &serde_json::json!(["é"])),
                "{form:?}"
            );
            let long = respond(answer(long()), form).await.expect("an answer");
            assert_eq!(
                long.headers().get("trailer").and_then(|value| value.to_str().ok()),
                Some(STATS_HEADER)
            );
            let long = long.into_body().collect().await.expect("a body");
            assert_eq!(read(long.trailers().expect("trailers"))["truncated"], true, "{form:?}");
        }
        let lines = respond(answer(long()), Form::Ndjson)
            .await
            .expect("an answer")
            .into_body()
            .collect()
            .await
            .expect("a body");
        assert!(lines.trailers().is_none(), "NDJSON says it in its last line");
    }

    #[tokio::test]
    async fn a_problem_before_much_was_sent_has_its_own_status() {
        let timeout = || Problem::new(Code::Timeout, "too slow");
        let result = respond(answer(vec![Ok(Part::Rows(batch(0, 2))), Err(timeout())]), Form::Json).await;
        assert_eq!(result.err(), Some(timeout()));
        let stopped = respond(answer(vec![Ok(Part::Rows(batch(0, 2)))]), Form::Json).await;
        assert_eq!(
            stopped.err().map(|p| p.code),
            Some(Code::Internal),
            "an answer without end is none"
        );
    }

    #[tokio::test]
    async fn half_an_answer_never_looks_like_a_whole_one() {
        let long = |last: Result<Part, Problem>| {
            let parts = (0..60).map(|i| Ok(Part::Rows(batch(i * 8_192, 8_192)))).chain([last]);
            answer(parts.collect())
        };
        let failed = || Err(Problem::new(Code::Timeout, "too slow"));
        for form in [Form::Json, Form::Csv, Form::Arrow] {
            let response = respond(long(failed()), form).await.expect("it begins");
            assert!(body(response).await.is_err(), "{form:?} breaks off");
        }
        let lines = text(long(failed()), Form::Ndjson).await;
        assert!(lines.lines().last().is_some_and(|line| line.starts_with("{\"error\":")));
        let whole: serde_json::Value =
            serde_json::from_str(&text(long(Ok(Part::End(Box::default()))), Form::Json).await).expect("JSON");
        assert_eq!(whole["rows"].as_array().map(Vec::len), Some(60 * 8_192));
    }

    #[test]
    fn the_preferred_form_is_taken() {
        let form = |accept: &str| {
            Form::of(
                &[(header::ACCEPT, accept.parse().expect("a header"))]
                    .into_iter()
                    .collect(),
            )
            .ok()
        };
        assert_eq!(Form::of(&HeaderMap::new()).ok(), Some(Form::Json));
        assert_eq!(form("*/*"), Some(Form::Json));
        assert_eq!(form("text/csv"), Some(Form::Csv));
        assert_eq!(form("text/*"), Some(Form::Csv));
        assert_eq!(
            form("text/html, application/x-ndjson;q=0.9, text/csv;q=0.8"),
            Some(Form::Ndjson)
        );
        assert_eq!(
            form("application/vnd.apache.arrow.stream, */*;q=0.1"),
            Some(Form::Arrow)
        );
        assert_eq!(form("text/html"), None);
        assert_eq!(form("text/csv;q=0"), None);
    }
}
