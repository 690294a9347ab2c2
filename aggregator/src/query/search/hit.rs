//! Rows of an answer -> hits: of documents, and of rows of a view.

use datafusion::arrow::{
    array::{Array, ArrayRef, AsArray as _, RecordBatch},
    datatypes::{DataType, Int64Type, SchemaRef},
};
use plan::Column;
use proto::{Address, Catalog, Code, Problem, SourceName, record::Format};

use crate::{answer::Hit, render};

/// What makes a hit of a document.
pub const SHOWN: [&str; 6] = ["_id", "_doc", "_source", "_partition", "_offset", "_item"];

/// A column of what was found.
pub fn column(found: &RecordBatch, column: &Column) -> Result<ArrayRef, Problem> {
    let missing = || Problem::new(Code::Internal, format!("a leaf did not send {}", column.name()));
    found.column_by_name(&column.name()).cloned().ok_or_else(missing)
}

/// Documents that were found, by what makes a hit of each.
pub struct Rows {
    schema: SchemaRef,
    found: RecordBatch,
}

impl Rows {
    /// Documents with the columns of [`SHOWN`].
    pub fn of(found: &RecordBatch) -> Result<Self, Problem> {
        for name in SHOWN {
            let always =
                Column::always(name).ok_or_else(|| Problem::new(Code::Internal, format!("{name} is no column")))?;
            let array = column(found, &always)?;
            if *array.data_type() != always.view.to.arrow() {
                return Err(Problem::new(
                    Code::Internal,
                    format!("a leaf sent {name} as {}", array.data_type()),
                ));
            }
        }
        Ok(Self {
            schema: found.schema(),
            found: found.clone(),
        })
    }

    fn array(&self, name: &str) -> &ArrayRef {
        let (index, _) = self.schema.column_with_name(name).expect("checked when it was made");
        self.found.column(index)
    }

    fn text(&self, name: &str, row: usize) -> &str {
        let array = self.array(name).as_string_view();
        if array.is_null(row) { "" } else { array.value(row) }
    }

    fn int(&self, name: &str, row: usize) -> i64 {
        self.array(name).as_primitive::<Int64Type>().value(row)
    }

    /// With the item always: it stands for the first of many and for the only one alike, and orders as both do.
    pub fn address(&self, row: usize) -> Result<Address, Problem> {
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

    /// The document as a hit.
    pub fn hit(&self, row: usize, address: &Address, catalog: &Catalog) -> Hit {
        let (id, document) = (self.text("_id", row).to_owned(), self.text("_doc", row).to_owned());
        let text_source = catalog
            .sources
            .get(&address.source)
            .is_some_and(|source| source.settings.rules.format == Format::Text);
        let own = |id: &Address| {
            (&id.source, id.partition, id.offset) == (&address.source, address.partition, address.offset)
        };
        // A document without a key is named by its address, spelled as it is; of one with a key only a later item
        // shows.
        let spelled = match id.parse::<Address>() {
            Ok(own_address) if own(&own_address) => id.clone(),
            _ => Address {
                item: address.item.filter(|item| *item > 0),
                ..address.clone()
            }
            .to_string(),
        };
        let json = !text_source && (address.source.is_push() || proto::json::parse(document.as_bytes()).is_ok());
        Hit {
            id,
            address: spelled,
            document,
            json,
        }
    }
}

/// A row of a view as a hit: an object of its first columns, with the id and the address that it shows.
pub fn of_row(found: &RecordBatch, columns: usize, row: usize) -> Hit {
    let shown = |name: &str| {
        let (place, _) = found
            .schema_ref()
            .column_with_name(name)
            .filter(|(place, _)| *place < columns)?;
        Some(found.column(place)).filter(|array| array.is_valid(row))
    };
    let text = |name: &str| {
        let array = shown(name).filter(|array| *array.data_type() == DataType::Utf8View)?;
        Some(array.as_string_view().value(row).to_owned())
    };
    let int = |name: &str| {
        shown(name)?
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
        document: render::row(found, columns, row),
        json: true,
    }
}
