//! Serializes an answer, batch by batch, in its format.

use bytes::Bytes;
use datafusion::arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::SchemaRef,
    error::ArrowError,
    ipc::writer::StreamWriter,
};
use proto::{Code, Problem};

use crate::{
    answer::{Stats, type_name},
    render::{self, LineBreaks, Separated},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerFormat {
    /// `{"columns":[…],"rows":[{…}],"stats":{…}}`
    Json,
    /// One row per line, then `{"end":{"columns":[…],"stats":{…}}}` or `{"error":{…}}`.
    Ndjson,
    /// A line with the column names, then one row per line.
    Csv,
    /// The same, separated by tabs.
    Tsv,
    /// The Arrow IPC stream.
    Arrow,
}

/// Writes an answer into a buffer.
pub(super) struct AnswerWriter {
    pub(super) format: AnswerFormat,
    schema: SchemaRef,
    out: Vec<u8>,
    rows: u64,
    arrow: Option<StreamWriter<Vec<u8>>>,
}

impl AnswerWriter {
    /// Writes what comes before the first row.
    pub(super) fn new(format: AnswerFormat, schema: SchemaRef) -> Result<Self, Problem> {
        let mut writer = Self {
            format,
            schema: schema.clone(),
            out: Vec::new(),
            rows: 0,
            arrow: None,
        };
        match format {
            AnswerFormat::Json => {
                writer.out.extend_from_slice(b"{\"columns\":");
                writer.columns();
                writer.out.extend_from_slice(b",\"rows\":[");
            }
            AnswerFormat::Ndjson => {}
            AnswerFormat::Csv => writer.header(Separated::Csv),
            AnswerFormat::Tsv => writer.header(Separated::Tsv),
            AnswerFormat::Arrow => {
                writer.arrow = Some(StreamWriter::try_new(Vec::new(), &schema).map_err(not_arrow)?);
            }
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
            render::string(&mut self.out, &type_name(field.data_type()));
            self.out.push(b'}');
        }
        self.out.push(b']');
    }

    pub(super) fn rows(&mut self, batch: &RecordBatch) -> Result<(), Problem> {
        if let Some(arrow) = &mut self.arrow {
            arrow.write(batch).map_err(not_arrow)?;
            self.out.append(arrow.get_mut());
            return Ok(());
        }
        let columns = render::plain_columns(batch);
        for row in 0..batch.num_rows() {
            match self.format {
                AnswerFormat::Json => {
                    if self.rows > 0 {
                        self.out.push(b',');
                    }
                    self.json_row(&columns, row, LineBreaks::Keep);
                }
                AnswerFormat::Ndjson => {
                    self.json_row(&columns, row, LineBreaks::ToSpaces);
                    self.out.push(b'\n');
                }
                AnswerFormat::Tsv => self.separated_row(&columns, row, Separated::Tsv),
                AnswerFormat::Csv | AnswerFormat::Arrow => self.separated_row(&columns, row, Separated::Csv),
            }
            self.rows += 1;
        }
        Ok(())
    }

    fn json_row(&mut self, columns: &[ArrayRef], row: usize, line_breaks: LineBreaks) {
        self.out.push(b'{');
        for (i, (field, column)) in self.schema.fields().iter().zip(columns).enumerate() {
            if i > 0 {
                self.out.push(b',');
            }
            render::string(&mut self.out, field.name());
            self.out.push(b':');
            render::json(&mut self.out, field, column, row, line_breaks);
        }
        self.out.push(b'}');
    }

    /// The names of the columns.
    fn header(&mut self, format: Separated) {
        for (i, field) in self.schema.fields().iter().enumerate() {
            if i > 0 {
                self.out.push(format.separator());
            }
            format.text(&mut self.out, field.name());
        }
        self.out.push(b'\n');
    }

    fn separated_row(&mut self, columns: &[ArrayRef], row: usize, format: Separated) {
        for (i, (field, column)) in self.schema.fields().iter().zip(columns).enumerate() {
            if i > 0 {
                self.out.push(format.separator());
            }
            format.value(&mut self.out, field, column, row);
        }
        self.out.push(b'\n');
    }

    /// Writes what comes after the last row.
    pub(super) fn end(&mut self, stats: &Stats) -> Result<(), Problem> {
        match self.format {
            AnswerFormat::Json => {
                self.out.extend_from_slice(b"],\"stats\":");
                self.out.extend_from_slice(stats.to_json().to_string().as_bytes());
                self.out.push(b'}');
            }
            AnswerFormat::Ndjson => {
                self.out.extend_from_slice(b"{\"end\":{\"columns\":");
                self.columns();
                self.out.extend_from_slice(b",\"stats\":");
                self.out.extend_from_slice(stats.to_json().to_string().as_bytes());
                self.out.extend_from_slice(b"}}\n");
            }
            AnswerFormat::Csv | AnswerFormat::Tsv => {}
            AnswerFormat::Arrow => {
                if let Some(arrow) = &mut self.arrow {
                    arrow.finish().map_err(not_arrow)?;
                    self.out.append(arrow.get_mut());
                }
            }
        }
        Ok(())
    }

    /// The last line of an answer that failed, if the format has one.
    pub(super) fn error(&self, problem: &Problem) -> Option<Bytes> {
        (self.format == AnswerFormat::Ndjson)
            .then(|| format!("{}\n", serde_json::json!({ "error": problem.to_json() })).into())
    }

    /// The number of bytes in the buffer.
    pub(super) fn buffered(&self) -> usize {
        self.out.len()
    }

    /// Takes the bytes out of the buffer.
    pub(super) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.out).into()
    }
}

fn not_arrow(error: ArrowError) -> Problem {
    Problem::new(
        Code::NotSupported,
        format!("the answer cannot be written as Arrow: {error}"),
    )
    .hint("request application/json")
}
