//! Convert: the values of a path as an array of the requested type.
//!
//! A result of None means that some value must be read from the raw documents: a string is too long for the dictionary,
//! or the index does not hold the value exactly.

use std::sync::Arc;

use datafusion::arrow::{
    array::{
        ArrayRef, AsArray as _, BooleanArray, Float64Array, Int64Array, LargeStringArray, StringViewArray,
        StringViewBuilder, TimestampMicrosecondArray, new_null_array,
    },
    compute::cast,
};
use plan::{
    PathType, Type,
    value::{canonical, rank},
};
use proto::json::Value;

use super::{KindCounts, RequestedDocuments};
use crate::{
    error::Error,
    raw,
    split::{
        part::{Part, index_error},
        stored_column::DocumentValues,
    },
};

impl Part {
    /// The values of a path with columns, converted to a type.
    pub(super) fn converted(
        &self,
        id: u32,
        target: PathType,
        kinds: &KindCounts,
        requested: RequestedDocuments,
    ) -> Result<Option<ArrayRef>, Error> {
        Ok(match target.to {
            Type::Bool => self.bool_array(id, target.cast, kinds, requested)?,
            Type::Int => self.int_array(id, target.cast, kinds, requested)?,
            Type::Double => self.double_array(id, target.cast, kinds, requested)?,
            Type::Time => self.time_array(id, target.cast, kinds, requested)?,
            Type::Text => self.text_array(id, target, kinds, requested)?,
            Type::Json if kinds.texts > 0 => None,
            Type::Json => self
                .text_array(
                    id,
                    PathType {
                        to: Type::Text,
                        cast: true,
                    },
                    kinds,
                    requested,
                )?
                .map(|texts| cast(&texts, &target.to.arrow()))
                .transpose()?,
            Type::Canonical => {
                let texts = self.encode_values(id, kinds, requested, canonical)?;
                texts.map(|texts| Arc::new(LargeStringArray::from(texts)) as ArrayRef)
            }
            Type::Rank => {
                let ranks = self.encode_values(id, kinds, requested, rank)?;
                ranks.map(|ranks| Arc::new(StringViewArray::from_iter(ranks)) as ArrayRef)
            }
        })
    }

    fn bool_array(
        &self,
        id: u32,
        cast: bool,
        kinds: &KindCounts,
        requested: RequestedDocuments,
    ) -> Result<Option<ArrayRef>, Error> {
        if cast && kinds.long_texts > 0 {
            return Ok(None);
        }
        let mut values = match kinds.bools {
            0 => vec![None; requested.documents.len()],
            _ => self.bool_values(id, requested)?,
        };
        if cast && kinds.ints > 0 {
            overlay(&mut values, self.int_values(id, requested)?, |int| Some(int != 0));
        }
        if cast && kinds.texts > 0 {
            self.overlay_texts(id, requested, &mut values, raw::bool_of_text)?;
        }
        Ok(Some(Arc::new(BooleanArray::from(values))))
    }

    fn int_array(
        &self,
        id: u32,
        cast: bool,
        kinds: &KindCounts,
        requested: RequestedDocuments,
    ) -> Result<Option<ArrayRef>, Error> {
        if cast && kinds.long_texts > 0 {
            return Ok(None);
        }
        if kinds.ints > 0 && !(cast && kinds.floats + kinds.bools + kinds.texts > 0) {
            let ints = self.columns.ints(id, false).map_err(index_error)?;
            let DocumentValues { values, present } = ints.values_of(requested.documents);
            return Ok(Some(Arc::new(Int64Array::new(values.into(), present))));
        }
        let mut values = if kinds.ints > 0 {
            self.int_values(id, requested)?
        } else {
            vec![None; requested.documents.len()]
        };
        if cast && kinds.floats > 0 {
            overlay(&mut values, self.float_values(id, requested)?, raw::int_of_double);
        }
        if cast && kinds.bools > 0 {
            overlay(&mut values, self.bool_values(id, requested)?, |bool| {
                Some(i64::from(bool))
            });
        }
        if cast && kinds.texts > 0 {
            self.overlay_texts(id, requested, &mut values, raw::int_of_text)?;
        }
        Ok(Some(Arc::new(Int64Array::from(values))))
    }

    fn double_array(
        &self,
        id: u32,
        cast: bool,
        kinds: &KindCounts,
        requested: RequestedDocuments,
    ) -> Result<Option<ArrayRef>, Error> {
        if cast && kinds.long_texts > 0 {
            return Ok(None);
        }
        let others = cast && kinds.bools + kinds.texts > 0;
        if kinds.floats > 0 && kinds.ints == 0 && !others {
            let floats = self.columns.floats(id, false).map_err(index_error)?;
            let DocumentValues { values, present } = floats.values_of(requested.documents);
            return Ok(Some(Arc::new(Float64Array::new(values.into(), present))));
        }
        if kinds.ints > 0 && kinds.floats == 0 && !others {
            let ints = self.columns.ints(id, false).map_err(index_error)?;
            let DocumentValues { values, present } = ints.values_of(requested.documents);
            let doubles: Vec<f64> = values.into_iter().map(|int| int as f64).collect();
            return Ok(Some(Arc::new(Float64Array::new(doubles.into(), present))));
        }
        let mut values = if kinds.floats > 0 {
            self.float_values(id, requested)?
        } else {
            vec![None; requested.documents.len()]
        };
        if kinds.ints > 0 {
            overlay(&mut values, self.int_values(id, requested)?, |int| Some(int as f64));
        }
        if cast && kinds.bools > 0 {
            overlay(&mut values, self.bool_values(id, requested)?, |bool| {
                Some(f64::from(u8::from(bool)))
            });
        }
        if cast && kinds.texts > 0 {
            self.overlay_texts(id, requested, &mut values, raw::double_of_text)?;
        }
        Ok(Some(Arc::new(Float64Array::from(values))))
    }

    fn time_array(
        &self,
        id: u32,
        cast: bool,
        kinds: &KindCounts,
        requested: RequestedDocuments,
    ) -> Result<Option<ArrayRef>, Error> {
        Ok(self.time_values(id, cast, kinds, requested)?.map(times))
    }

    /// The values as microseconds since 1970.
    pub(super) fn time_values(
        &self,
        id: u32,
        cast: bool,
        kinds: &KindCounts,
        requested: RequestedDocuments,
    ) -> Result<Option<Vec<Option<i64>>>, Error> {
        if kinds.long_texts > 0 {
            return Ok(None);
        }
        let mut values = vec![None; requested.documents.len()];
        if kinds.texts > 0 {
            let column = self.columns.texts(id, false).map_err(index_error)?;
            let times = column.times().map_err(index_error)?;
            let time = |ordinal: u64| times.get(ordinal as usize).copied().flatten();
            overlay(&mut values, column.ordinals.first_values(requested.documents), time);
        }
        if cast && kinds.ints > 0 {
            overlay(&mut values, self.int_values(id, requested)?, raw::time_of_int);
        }
        if cast && kinds.floats > 0 {
            overlay(&mut values, self.float_values(id, requested)?, raw::time_of_double);
        }
        Ok(Some(values))
    }

    /// Every value in an encoding that does not depend on its spelling.
    fn encode_values<T: Clone>(
        &self,
        id: u32,
        kinds: &KindCounts,
        requested: RequestedDocuments,
        encode: impl Fn(&Value<'_>) -> T,
    ) -> Result<Option<Vec<Option<T>>>, Error> {
        if kinds.long_texts + kinds.big_numbers + kinds.nested > 0 {
            return Ok(None);
        }
        let mut values = vec![None; requested.documents.len()];
        if kinds.ints > 0 {
            overlay(&mut values, self.int_values(id, requested)?, |int| {
                Some(encode(&Value::Int(int)))
            });
        }
        if kinds.floats > 0 {
            overlay(&mut values, self.float_values(id, requested)?, |float| {
                Some(encode(&Value::Float(float)))
            });
        }
        if kinds.bools > 0 {
            overlay(&mut values, self.bool_values(id, requested)?, |bool| {
                Some(encode(&Value::Bool(bool)))
            });
        }
        if kinds.texts > 0 {
            self.overlay_texts(id, requested, &mut values, |text| {
                Some(encode(&Value::Text(text.into())))
            })?;
        }
        Ok(Some(values))
    }

    /// Strings and, in a cast, also the values that have only one spelling: ints and booleans.
    fn text_array(
        &self,
        id: u32,
        target: PathType,
        kinds: &KindCounts,
        requested: RequestedDocuments,
    ) -> Result<Option<ArrayRef>, Error> {
        let verbatim = target.cast;
        if kinds.long_texts > 0 || (verbatim && kinds.floats + kinds.big_numbers + kinds.nested > 0) {
            return Ok(None);
        }
        let texts = if kinds.texts > 0 {
            let column = self.columns.texts(id, false).map_err(index_error)?;
            column.values_of(requested.documents)?
        } else {
            new_null_array(&Type::Text.arrow(), requested.documents.len())
        };
        if !verbatim || kinds.ints + kinds.bools == 0 {
            return Ok(Some(texts));
        }
        let mut spelled: Vec<Option<String>> = vec![None; requested.documents.len()];
        if kinds.ints > 0 {
            overlay(&mut spelled, self.int_values(id, requested)?, |int| {
                Some(int.to_string())
            });
        }
        if kinds.bools > 0 {
            overlay(&mut spelled, self.bool_values(id, requested)?, |bool| {
                Some(bool.to_string())
            });
        }
        let mut values = StringViewBuilder::with_capacity(requested.documents.len());
        for (text, spelled) in texts.as_string_view().iter().zip(spelled) {
            values.append_option(spelled.as_deref().or(text));
        }
        Ok(Some(Arc::new(values.finish())))
    }

    fn int_values(&self, id: u32, requested: RequestedDocuments) -> Result<Vec<Option<i64>>, Error> {
        let column = self.columns.ints(id, false).map_err(index_error)?;
        Ok(column.first_values(requested.documents))
    }

    fn float_values(&self, id: u32, requested: RequestedDocuments) -> Result<Vec<Option<f64>>, Error> {
        let column = self.columns.floats(id, false).map_err(index_error)?;
        Ok(column.first_values(requested.documents))
    }

    fn bool_values(&self, id: u32, requested: RequestedDocuments) -> Result<Vec<Option<bool>>, Error> {
        let column = self.columns.bools(id, false).map_err(index_error)?;
        Ok(column.first_values(requested.documents))
    }

    /// Overwrites the values of documents with a string by the converted string. Each distinct string is converted
    /// once.
    fn overlay_texts<T: Clone>(
        &self,
        id: u32,
        requested: RequestedDocuments,
        onto: &mut [Option<T>],
        convert: impl Fn(&str) -> Option<T>,
    ) -> Result<(), Error> {
        let column = self.columns.texts(id, false).map_err(index_error)?;
        let ordinals = column.ordinals.first_values(requested.documents);
        column
            .convert(&ordinals, convert, |row, value| onto[row] = value)
            .map_err(index_error)
    }
}

/// Overwrites values by the converted values of `from`, where it has any.
fn overlay<A: Copy, T: Clone>(onto: &mut [Option<T>], from: Vec<Option<A>>, convert: impl Fn(A) -> Option<T>) {
    for (onto, from) in onto.iter_mut().zip(from) {
        if let Some(value) = from {
            *onto = convert(value);
        }
    }
}

/// An array of times in microseconds since 1970.
pub(in crate::split) fn times(values: Vec<Option<i64>>) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC"))
}
