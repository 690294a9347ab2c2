//! Values: columns of a part as Arrow arrays, given only where they are what the raw documents would say.

use std::{io, sync::Arc};

use datafusion::arrow::{
    array::{
        Array, ArrayRef, BooleanArray, Float64Array, Int64Array, LargeStringArray, StringViewArray, StringViewBuilder,
        TimestampMicrosecondArray, new_null_array,
    },
    compute::cast,
};
use plan::{
    Column, Path, Type, View, What,
    value::{canonical, rank},
};
use proto::json::Value;
use roaring::RoaringBitmap;
use tantivy::columnar::ColumnIndex;

use super::{
    Values,
    columns::firsts,
    header::Headers,
    part::{Part, index_error},
    shape::{Node, Side},
};
use crate::error::Error;

type Given = Result<Option<Values>, Error>;

/// Documents asked of a part, ascending.
#[derive(Clone, Copy)]
struct Asked<'a> {
    documents: &'a [u32],
    /// Whether these are all there are.
    all: bool,
}

impl Asked<'_> {
    /// How many of them are in a set.
    fn among(&self, set: &RoaringBitmap) -> u64 {
        match (set.is_empty(), self.all) {
            (true, _) => 0,
            (false, true) => set.len(),
            (false, false) => self
                .documents
                .iter()
                .filter(|document| set.contains(**document))
                .count() as u64,
        }
    }

    /// How many of them have a value; `count` of all have one.
    fn having(&self, index: &ColumnIndex, count: u32) -> u64 {
        match index {
            _ if self.all => u64::from(count),
            ColumnIndex::Empty { .. } => 0,
            ColumnIndex::Full => self.documents.len() as u64,
            index => self
                .documents
                .iter()
                .filter(|document| index.has_value(**document))
                .count() as u64,
        }
    }
}

/// How many of the documents asked have a value of each kind at a path, outside of arrays.
#[derive(Debug, Clone, Copy, Default)]
struct Counts {
    bools: u64,
    ints: u64,
    floats: u64,
    texts: u64,
    longs: u64,
    bigs: u64,
    nested: u64,
}

impl Counts {
    fn present(&self) -> u64 {
        self.bools + self.ints + self.floats + self.texts + self.longs + self.bigs + self.nested
    }
}

impl Part {
    /// The values of a column for these documents (ascending), or None where they must be read from the raw documents.
    pub fn values(&self, column: &Column, time_path: Option<&Path>, documents: &[u32]) -> Given {
        let asked = Asked {
            documents,
            all: documents.len() == self.shape.documents as usize,
        };
        match (&column.what, time_path) {
            (What::Doc | What::Key, _) => Ok(None),
            (What::Path(path), _) => self.path_values(path, column.view, asked),
            (What::Search(clause), _) => self.search_values(clause, asked),
            (What::Time, Some(path)) => self.event_times(path, asked),
            (what, _) => self.header_values(what, asked),
        }
    }

    fn header_values(&self, what: &What, asked: Asked) -> Given {
        let headers = &self.headers;
        let ints = |values: Vec<Option<i64>>| Arc::new(Int64Array::from(values)) as ArrayRef;
        let array = match what {
            What::Offset => ints(firsts(&headers.offset, asked.documents)),
            What::Item => ints(
                firsts(&headers.item, asked.documents)
                    .into_iter()
                    .map(|item| item.or(Some(0)))
                    .collect(),
            ),
            What::Partition => ints(self.of_runs(asked, |run| i64::from(run.partition))),
            What::Ingested => times(ingested(headers, asked.documents).map_err(index_error)?),
            What::Time => times(record_times(headers, asked.documents).map_err(index_error)?),
            What::Source => self.sources(asked),
            What::Id => self.ids(asked)?,
            _ => return Ok(None),
        };
        Ok(Some(complete(array)))
    }

    fn of_runs<T>(&self, asked: Asked, value: impl Fn(&super::header::Run) -> T) -> Vec<Option<T>> {
        asked
            .documents
            .iter()
            .map(|document| self.headers.run(*document).map(&value))
            .collect()
    }

    fn sources(&self, asked: Asked) -> ArrayRef {
        let mut values = StringViewBuilder::with_capacity(asked.documents.len()).with_deduplicate_strings();
        asked
            .documents
            .iter()
            .for_each(|document| values.append_option(self.headers.run(*document).map(|run| run.source.as_str())));
        Arc::new(values.finish())
    }

    fn ids(&self, asked: Asked) -> Result<ArrayRef, Error> {
        let id = self.headers.id().map_err(index_error)?;
        let own = firsts(id.column.ords(), asked.documents);
        if own.iter().all(Option::is_some) && !own.is_empty() {
            return id.values(&own);
        }
        let named = id.values(&own)?;
        let named = datafusion::arrow::array::AsArray::as_string_view(&named);
        let mut values = StringViewBuilder::with_capacity(asked.documents.len());
        for (document, own) in asked.documents.iter().zip(named) {
            match (own, self.headers.address(*document)) {
                (Some(own), _) => values.append_value(own),
                (None, Some(address)) => values.append_value(address.to_string()),
                (None, None) => values.append_null(),
            }
        }
        Ok(Arc::new(values.finish()))
    }

    /// A search clause is never NULL; where it is in doubt only the raw documents know.
    fn search_values(&self, clause: &plan::search::Clause, asked: Asked) -> Given {
        let Some(found) = self.search(clause)? else {
            return Ok(None);
        };
        if asked.among(&found.doubtful) > 0 {
            return Ok(None);
        }
        let matches: BooleanArray = asked
            .documents
            .iter()
            .map(|document| Some(found.sure.contains(*document)))
            .collect();
        Ok(Some(complete(Arc::new(matches))))
    }

    /// Where a path of keys has no value at all, or none below an array, an index into it finds nothing either.
    fn path_values(&self, path: &Path, view: View, asked: Asked) -> Given {
        let Some(keys) = path.keys() else {
            return self.indexed_path_values(path, view, asked);
        };
        match self.shape.find(keys) {
            Some(id) => self.node_values(id, view, asked),
            None => Ok(self.nothing(view, asked)),
        }
    }

    fn indexed_path_values(&self, path: &Path, view: View, asked: Asked) -> Given {
        let prefix = Path::new(
            path.steps()
                .iter()
                .take_while(|step| matches!(step, plan::path::Step::Key(_)))
                .cloned()
                .collect(),
        );
        let arrays = prefix
            .keys()
            .and_then(|keys| self.shape.find(keys))
            .map_or(0, |id| asked.among(&self.node(id).outside.arrays));
        Ok(if arrays == 0 { self.nothing(view, asked) } else { None })
    }

    /// NULL for all, if no document asked may have a value that the shape does not tell of.
    fn nothing(&self, view: View, asked: Asked) -> Option<Values> {
        let unknown = asked.among(&self.shape.failed) + asked.among(&self.shape.untracked);
        (unknown == 0).then(|| Values {
            array: new_null_array(&view.to.arrow(), asked.documents.len()),
            misfits: 0,
            present: 0,
        })
    }

    fn counts(&self, id: u32, asked: Asked) -> Result<Counts, Error> {
        let Side {
            bools,
            ints,
            floats,
            texts,
            longs,
            bigs,
            arrays,
            objects,
            ..
        } = &self.node(id).outside;
        let having = |count: u32, index: &dyn Fn() -> std::io::Result<ColumnIndex>| match count {
            0 => Ok(0),
            _ if asked.all => Ok(u64::from(count)),
            _ => index().map(|index| asked.having(&index, count)).map_err(index_error),
        };
        Ok(Counts {
            bools: having(*bools, &|| Ok(self.columns.bools(id, false)?.index))?,
            ints: having(*ints, &|| Ok(self.columns.ints(id, false)?.index))?,
            floats: having(*floats, &|| Ok(self.columns.floats(id, false)?.index))?,
            texts: having(*texts, &|| {
                Ok(self.columns.texts(id, false)?.column.ords().index.clone())
            })?,
            longs: asked.among(longs),
            bigs: asked.among(bigs),
            nested: asked.among(arrays) + asked.among(objects),
        })
    }

    fn node_values(&self, id: u32, view: View, asked: Asked) -> Given {
        let Node { outside, column, .. } = self.node(id);
        if outside.present() == 0 {
            return Ok(if asked.among(&self.shape.failed) == 0 {
                self.null(view, asked, 0)
            } else {
                None
            });
        }
        if !column || asked.among(&self.shape.failed) > 0 {
            return Ok(None);
        }
        let counts = self.counts(id, asked)?;
        if counts.present() == 0 {
            return Ok(self.null(view, asked, 0));
        }
        let array = match view.to {
            Type::Bool => self.bools(id, view.cast, &counts, asked)?,
            Type::Int => self.ints(id, view.cast, &counts, asked)?,
            Type::Double => self.doubles(id, view.cast, &counts, asked)?,
            Type::Time => self.times(id, view.cast, &counts, asked)?,
            Type::Text => self.texts(id, view, &counts, asked)?,
            Type::Json if counts.texts > 0 => None,
            Type::Json => self
                .texts(
                    id,
                    View {
                        to: Type::Text,
                        cast: true,
                    },
                    &counts,
                    asked,
                )?
                .map(|texts| cast(&texts, &view.to.arrow()))
                .transpose()?,
            Type::Canonical => {
                let texts = self.encoded(id, &counts, asked, canonical)?;
                texts.map(|texts| Arc::new(LargeStringArray::from(texts)) as ArrayRef)
            }
            Type::Rank => {
                let ranks = self.encoded(id, &counts, asked, rank)?;
                ranks.map(|ranks| Arc::new(StringViewArray::from_iter(ranks)) as ArrayRef)
            }
        };
        let fits = |array: &ArrayRef| (array.len() - array.null_count()) as u64;
        Ok(array.map(|array| Values {
            misfits: counts.present() - fits(&array),
            present: counts.present(),
            array,
        }))
    }

    fn null(&self, view: View, asked: Asked, present: u64) -> Option<Values> {
        Some(Values {
            array: new_null_array(&view.to.arrow(), asked.documents.len()),
            misfits: present,
            present,
        })
    }

    fn bools(&self, id: u32, cast: bool, counts: &Counts, asked: Asked) -> Result<Option<ArrayRef>, Error> {
        if cast && counts.longs > 0 {
            return Ok(None);
        }
        let mut values = vec![None; asked.documents.len()];
        if counts.bools > 0 {
            self.columns
                .bools(id, false)
                .map_err(index_error)?
                .first_vals(asked.documents, &mut values);
        }
        if cast && counts.ints > 0 {
            overlay(&mut values, self.int_values(id, asked)?, |int| Some(int != 0));
        }
        if cast && counts.texts > 0 {
            self.overlay_texts(id, asked, &mut values, crate::raw::bool_of_text)?;
        }
        Ok(Some(Arc::new(BooleanArray::from(values))))
    }

    fn ints(&self, id: u32, cast: bool, counts: &Counts, asked: Asked) -> Result<Option<ArrayRef>, Error> {
        if cast && counts.longs > 0 {
            return Ok(None);
        }
        let mut values = if counts.ints > 0 {
            self.int_values(id, asked)?
        } else {
            vec![None; asked.documents.len()]
        };
        if cast && counts.floats > 0 {
            overlay(&mut values, self.float_values(id, asked)?, crate::raw::int_of_double);
        }
        if cast && counts.bools > 0 {
            overlay(&mut values, self.bool_values(id, asked)?, |bool| Some(i64::from(bool)));
        }
        if cast && counts.texts > 0 {
            self.overlay_texts(id, asked, &mut values, crate::raw::int_of_text)?;
        }
        Ok(Some(Arc::new(Int64Array::from(values))))
    }

    fn doubles(&self, id: u32, cast: bool, counts: &Counts, asked: Asked) -> Result<Option<ArrayRef>, Error> {
        if cast && counts.longs > 0 {
            return Ok(None);
        }
        let mut values = if counts.floats > 0 {
            self.float_values(id, asked)?
        } else {
            vec![None; asked.documents.len()]
        };
        if counts.ints > 0 {
            overlay(&mut values, self.int_values(id, asked)?, |int| Some(int as f64));
        }
        if cast && counts.bools > 0 {
            overlay(&mut values, self.bool_values(id, asked)?, |bool| {
                Some(f64::from(u8::from(bool)))
            });
        }
        if cast && counts.texts > 0 {
            self.overlay_texts(id, asked, &mut values, crate::raw::double_of_text)?;
        }
        Ok(Some(Arc::new(Float64Array::from(values))))
    }

    fn times(&self, id: u32, cast: bool, counts: &Counts, asked: Asked) -> Result<Option<ArrayRef>, Error> {
        Ok(self.time_values(id, cast, counts, asked)?.map(times))
    }

    fn time_values(
        &self,
        id: u32,
        cast: bool,
        counts: &Counts,
        asked: Asked,
    ) -> Result<Option<Vec<Option<i64>>>, Error> {
        if counts.longs > 0 {
            return Ok(None);
        }
        let mut values = vec![None; asked.documents.len()];
        if counts.texts > 0 {
            let column = self.columns.texts(id, false).map_err(index_error)?;
            let times = column.times().map_err(index_error)?;
            let time = |ordinal: u64| times.get(ordinal as usize).copied().flatten();
            overlay(&mut values, firsts(column.column.ords(), asked.documents), time);
        }
        if cast && counts.ints > 0 {
            overlay(&mut values, self.int_values(id, asked)?, crate::raw::time_of_int);
        }
        if cast && counts.floats > 0 {
            overlay(&mut values, self.float_values(id, asked)?, crate::raw::time_of_double);
        }
        Ok(Some(values))
    }

    /// Every value in an encoding that does not depend on how it is spelled.
    fn encoded<T: Clone>(
        &self,
        id: u32,
        counts: &Counts,
        asked: Asked,
        encode: impl Fn(&Value<'_>) -> T,
    ) -> Result<Option<Vec<Option<T>>>, Error> {
        if counts.longs + counts.bigs + counts.nested > 0 {
            return Ok(None);
        }
        let mut values = vec![None; asked.documents.len()];
        if counts.ints > 0 {
            overlay(&mut values, self.int_values(id, asked)?, |int| {
                Some(encode(&Value::Int(int)))
            });
        }
        if counts.floats > 0 {
            overlay(&mut values, self.float_values(id, asked)?, |float| {
                Some(encode(&Value::Float(float)))
            });
        }
        if counts.bools > 0 {
            overlay(&mut values, self.bool_values(id, asked)?, |bool| {
                Some(encode(&Value::Bool(bool)))
            });
        }
        if counts.texts > 0 {
            self.overlay_texts(id, asked, &mut values, |text| Some(encode(&Value::Text(text.into()))))?;
        }
        Ok(Some(values))
    }

    /// Strings as they are; as a cast also what has one spelling only.
    fn texts(&self, id: u32, view: View, counts: &Counts, asked: Asked) -> Result<Option<ArrayRef>, Error> {
        let verbatim = view.cast;
        if counts.longs > 0 || (verbatim && counts.floats + counts.bigs + counts.nested > 0) {
            return Ok(None);
        }
        let texts = if counts.texts > 0 {
            let column = self.columns.texts(id, false).map_err(index_error)?;
            column.values(&firsts(column.column.ords(), asked.documents))?
        } else {
            new_null_array(&Type::Text.arrow(), asked.documents.len())
        };
        if !verbatim || counts.ints + counts.bools == 0 {
            return Ok(Some(texts));
        }
        let mut spelled: Vec<Option<String>> = vec![None; asked.documents.len()];
        if counts.ints > 0 {
            overlay(&mut spelled, self.int_values(id, asked)?, |int| Some(int.to_string()));
        }
        if counts.bools > 0 {
            overlay(&mut spelled, self.bool_values(id, asked)?, |bool| {
                Some(bool.to_string())
            });
        }
        let mut values = StringViewBuilder::with_capacity(asked.documents.len());
        for (text, spelled) in datafusion::arrow::array::AsArray::as_string_view(&texts)
            .iter()
            .zip(spelled)
        {
            values.append_option(spelled.as_deref().or(text));
        }
        Ok(Some(Arc::new(values.finish())))
    }

    fn int_values(&self, id: u32, asked: Asked) -> Result<Vec<Option<i64>>, Error> {
        Ok(firsts(
            &self.columns.ints(id, false).map_err(index_error)?,
            asked.documents,
        ))
    }

    fn float_values(&self, id: u32, asked: Asked) -> Result<Vec<Option<f64>>, Error> {
        Ok(firsts(
            &self.columns.floats(id, false).map_err(index_error)?,
            asked.documents,
        ))
    }

    fn bool_values(&self, id: u32, asked: Asked) -> Result<Vec<Option<bool>>, Error> {
        Ok(firsts(
            &self.columns.bools(id, false).map_err(index_error)?,
            asked.documents,
        ))
    }

    /// Puts converted strings where there are some; each distinct one is converted once.
    fn overlay_texts<T: Clone>(
        &self,
        id: u32,
        asked: Asked,
        onto: &mut [Option<T>],
        convert: impl Fn(&str) -> Option<T>,
    ) -> Result<(), Error> {
        let column = self.columns.texts(id, false).map_err(index_error)?;
        let ordinals = firsts(column.column.ords(), asked.documents);
        column
            .convert(&ordinals, convert, |place, value| onto[place] = value)
            .map_err(index_error)
    }

    /// `_time` by the collection's time path; where that has no time, by the header.
    fn event_times(&self, path: &Path, asked: Asked) -> Given {
        let none = || vec![None; asked.documents.len()];
        let view = View {
            to: Type::Time,
            cast: true,
        };
        let by_path = match path.keys().map(|keys| self.shape.find(keys)) {
            None => return Ok(None),
            Some(None) => self.nothing(view, asked).map(|_| none()),
            Some(Some(id)) if self.node(id).outside.present() == 0 => (asked.among(&self.shape.failed) == 0).then(none),
            Some(Some(id)) if !self.node(id).column || asked.among(&self.shape.failed) > 0 => None,
            Some(Some(id)) => self.time_values(id, true, &self.counts(id, asked)?, asked)?,
        };
        let Some(by_path) = by_path else { return Ok(None) };
        let by_header = record_times(&self.headers, asked.documents).map_err(index_error)?;
        Ok(Some(complete(times(
            by_path
                .into_iter()
                .zip(by_header)
                .map(|(path, header)| path.or(header))
                .collect(),
        ))))
    }
}

/// Takes over what the other has, converted.
fn overlay<A: Copy, T: Clone>(onto: &mut [Option<T>], from: Vec<Option<A>>, convert: impl Fn(A) -> Option<T>) {
    for (onto, from) in onto.iter_mut().zip(from) {
        if let Some(value) = from {
            *onto = convert(value);
        }
    }
}

/// Microseconds, as an array.
fn times(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
}

fn micros(ms: i64) -> i64 {
    ms.saturating_mul(1_000)
}

fn ingested(headers: &Headers, documents: &[u32]) -> io::Result<Vec<Option<i64>>> {
    Ok(firsts(headers.ingested()?, documents)
        .into_iter()
        .map(|ms| ms.map(micros))
        .collect())
}

/// The record's time, or when it was taken in.
fn record_times(headers: &Headers, documents: &[u32]) -> io::Result<Vec<Option<i64>>> {
    let stamped = firsts(headers.time()?, documents);
    Ok(stamped
        .into_iter()
        .zip(ingested(headers, documents)?)
        .map(|(stamped, ingested)| stamped.map(micros).or(ingested))
        .collect())
}

/// An array in which every document has its value.
pub(super) fn complete(array: ArrayRef) -> Values {
    let present = (array.len() - array.null_count()) as u64;
    Values {
        array,
        misfits: 0,
        present,
    }
}
