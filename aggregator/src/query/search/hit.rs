//! Converts rows to hits: rows of documents, and rows of a view.

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray as _, RecordBatch},
    datatypes::{DataType, Int64Type, SchemaRef},
};
use plan::Column;
use proto::{Address, Catalog, Code, Problem, SourceName, record::Format};

use crate::{answer::Hit, render};

/// The columns that a document's hit is made from.
pub(super) const HIT_COLUMNS: [&str; 6] = ["_id", "_doc", "_source", "_partition", "_offset", "_item"];

/// Finds a column among the rows that a leaf sent.
fn column(rows: &RecordBatch, column: &Column) -> Result<ArrayRef, Problem> {
    let missing = || {
        Problem::new(
            Code::Internal,
            format!("a leaf did not send the column {}", column.name()),
        )
    };
    rows.column_by_name(&column.name()).cloned().ok_or_else(missing)
}

/// Whether the documents of a source are plain text, whatever they look like.
pub(super) fn is_text_source(catalog: &Catalog, source: &SourceName) -> bool {
    let source = catalog.sources.get(source);
    source.is_some_and(|source| source.settings.rules.format == Format::Text)
}

/// Rows of documents, with the columns of [`HIT_COLUMNS`].
pub(super) struct DocumentRows {
    schema: SchemaRef,
    rows: RecordBatch,
}

impl DocumentRows {
    /// Checks that the columns are present and have the right types.
    pub(super) fn new(rows: &RecordBatch) -> Result<Self, Problem> {
        for name in HIT_COLUMNS {
            let expected = Column::system(name)
                .ok_or_else(|| Problem::new(Code::Internal, format!("{name} is not a system column")))?;
            let array = column(rows, &expected)?;
            if *array.data_type() != expected.read_as.to.arrow() {
                return Err(Problem::new(
                    Code::Internal,
                    format!("a leaf sent the column {name} as {}", array.data_type()),
                ));
            }
        }
        Ok(Self {
            schema: rows.schema(),
            rows: rows.clone(),
        })
    }

    fn array(&self, name: &str) -> &ArrayRef {
        let (index, _) = self.schema.column_with_name(name).expect("checked in `new`");
        self.rows.column(index)
    }

    fn text(&self, name: &str, row: usize) -> &str {
        let array = self.array(name).as_string_view();
        if array.is_null(row) { "" } else { array.value(row) }
    }

    fn int(&self, name: &str, row: usize) -> i64 {
        self.array(name).as_primitive::<Int64Type>().value(row)
    }

    /// The address of a row's document, always with an item number: 0 is both the first item of many and the only item
    /// of a record, and addresses with it sort correctly in both cases.
    pub(super) fn address(&self, row: usize) -> Result<Address, Problem> {
        let source: SourceName = self
            .text("_source", row)
            .parse()
            .map_err(|e: proto::address::Malformed| Problem::new(Code::Internal, e.to_string()))?;
        let partition = i32::try_from(self.int("_partition", row)).unwrap_or_default();
        let item = u32::try_from(self.int("_item", row)).unwrap_or_default();
        Ok(Address {
            source,
            partition,
            offset: self.int("_offset", row),
            item: Some(item),
        })
    }

    /// Converts a row to a hit.
    pub(super) fn hit(&self, row: usize, address: &Address, catalog: &Catalog) -> Hit {
        let (id, document) = (self.text("_id", row).to_owned(), self.text("_doc", row).to_owned());
        let json = !is_text_source(catalog, &address.source)
            && (address.source.is_push() || proto::json::parse(document.as_bytes()).is_ok());
        Hit {
            address: shown_address(&id, address),
            id,
            document,
            json,
            score: None,
            highlights: Vec::new(),
        }
    }
}

/// The address of a document as users see it. If the document has no key, its id already is its address, spelled
/// right. Otherwise the item number is shown only if it is not 0.
fn shown_address(id: &str, address: &Address) -> String {
    let same_record =
        |id: &Address| (&id.source, id.partition, id.offset) == (&address.source, address.partition, address.offset);
    match id.parse::<Address>() {
        Ok(id_address) if same_record(&id_address) => id.to_owned(),
        _ => Address {
            item: address.item.filter(|item| *item > 0),
            ..address.clone()
        }
        .to_string(),
    }
}

/// Converts a row of a view to a hit: an object of its first `columns` columns, with its id and address if they are
/// among these.
pub(super) fn view_row_hit(rows: &RecordBatch, columns: usize, row: usize) -> Hit {
    let column = |name: &str| {
        let (index, _) = rows
            .schema_ref()
            .column_with_name(name)
            .filter(|(index, _)| *index < columns)?;
        Some(rows.column(index)).filter(|array| array.is_valid(row))
    };
    let text = |name: &str| {
        let array = column(name).filter(|array| *array.data_type() == DataType::Utf8View)?;
        Some(array.as_string_view().value(row).to_owned())
    };
    let int = |name: &str| {
        column(name)?
            .as_primitive_opt::<Int64Type>()
            .map(|array| array.value(row))
    };
    let address = || {
        let (source, partition) = (text("_source")?.parse().ok()?, int("_partition")?.try_into().ok()?);
        let item = int("_item")
            .and_then(|item| item.try_into().ok())
            .filter(|item: &u32| *item > 0);
        Some(
            Address {
                source,
                partition,
                offset: int("_offset")?,
                item,
            }
            .to_string(),
        )
    };
    let (id, address) = (text("_id").unwrap_or_default(), address().unwrap_or_default());
    Hit {
        id,
        address,
        document: render::row(rows, columns, row),
        json: true,
        score: None,
        highlights: Vec::new(),
    }
}
