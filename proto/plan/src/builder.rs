//! Builds an Arrow array of a type from one [`CastResult`] after another. Shared by: leaf (raw documents),
//! functions over JSON text.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, LargeStringBuilder, StringViewBuilder,
    TimestampMicrosecondBuilder,
};

use crate::{
    column::Type,
    value::{CastResult, Scalar},
};

/// An Arrow array under construction, with a count of the values that did not fit.
pub struct Builder {
    array: TypedBuilder,
    /// Values that were present and not `null`.
    pub present: u64,
    /// Values that did not fit the type, so they are NULL.
    pub cast_failures: u64,
}

enum TypedBuilder {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Double(Float64Builder),
    Text(StringViewBuilder),
    Json(LargeStringBuilder),
    Time(TimestampMicrosecondBuilder),
}

impl Builder {
    /// A builder with room for `values` values of this type.
    pub fn new(to: Type, values: usize) -> Self {
        let array = match to {
            Type::Bool => TypedBuilder::Bool(BooleanBuilder::with_capacity(values)),
            Type::Int => TypedBuilder::Int(Int64Builder::with_capacity(values)),
            Type::Double => TypedBuilder::Double(Float64Builder::with_capacity(values)),
            Type::Text | Type::Rank => TypedBuilder::Text(StringViewBuilder::with_capacity(values)),
            Type::Json | Type::Canonical => TypedBuilder::Json(LargeStringBuilder::with_capacity(values, 0)),
            Type::Time => {
                TypedBuilder::Time(TimestampMicrosecondBuilder::with_capacity(values).with_data_type(to.arrow()))
            }
        };
        Self {
            array,
            present: 0,
            cast_failures: 0,
        }
    }

    /// Appends the next value; anything that does not fit becomes NULL.
    pub fn push(&mut self, result: CastResult<'_>) {
        self.present += u64::from(result != CastResult::Absent);
        self.cast_failures += u64::from(result == CastResult::Failed);
        match (&mut self.array, result) {
            (TypedBuilder::Bool(array), CastResult::Fits(Scalar::Bool(bool))) => array.append_value(bool),
            (TypedBuilder::Int(array), CastResult::Fits(Scalar::Int(int))) => array.append_value(int),
            (TypedBuilder::Double(array), CastResult::Fits(Scalar::Double(double))) => array.append_value(double),
            (TypedBuilder::Text(array), CastResult::Fits(Scalar::Text(text))) => array.append_value(text),
            (TypedBuilder::Json(array), CastResult::Fits(Scalar::Text(text))) => array.append_value(text),
            (TypedBuilder::Time(array), CastResult::Fits(Scalar::Time(time))) => array.append_value(time),
            (array, _) => array.push_null(),
        }
    }

    /// The finished array.
    pub fn finish(self) -> ArrayRef {
        match self.array {
            TypedBuilder::Bool(mut array) => Arc::new(array.finish()),
            TypedBuilder::Int(mut array) => Arc::new(array.finish()),
            TypedBuilder::Double(mut array) => Arc::new(array.finish()),
            TypedBuilder::Text(mut array) => Arc::new(array.finish()),
            TypedBuilder::Json(mut array) => Arc::new(array.finish()),
            TypedBuilder::Time(mut array) => Arc::new(array.finish()),
        }
    }
}

impl TypedBuilder {
    fn push_null(&mut self) {
        match self {
            Self::Bool(array) => array.append_null(),
            Self::Int(array) => array.append_null(),
            Self::Double(array) => array.append_null(),
            Self::Text(array) => array.append_null(),
            Self::Json(array) => array.append_null(),
            Self::Time(array) => array.append_null(),
        }
    }
}
