//! Builder: what a view sees of one value after another -> an Arrow array of the view's type. Shared by: leaf (raw
//! documents), functions over JSON text.

use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, BooleanBuilder, Float64Builder, Int64Builder, LargeStringBuilder, StringViewBuilder,
    TimestampMicrosecondBuilder,
};

use crate::{
    column::Type,
    value::{Scalar, Seen},
};

/// An array in the making, and how many of its values did not fit.
pub struct Builder {
    array: Arrays,
    /// Values that there were.
    pub present: u64,
    /// Values that did not fit the view and are NULL.
    pub misfits: u64,
}

enum Arrays {
    Bool(BooleanBuilder),
    Int(Int64Builder),
    Double(Float64Builder),
    Text(StringViewBuilder),
    Json(LargeStringBuilder),
    Time(TimestampMicrosecondBuilder),
}

impl Builder {
    /// For so many values of this type.
    pub fn new(to: Type, values: usize) -> Self {
        let array = match to {
            Type::Bool => Arrays::Bool(BooleanBuilder::with_capacity(values)),
            Type::Int => Arrays::Int(Int64Builder::with_capacity(values)),
            Type::Double => Arrays::Double(Float64Builder::with_capacity(values)),
            Type::Text | Type::Rank => Arrays::Text(StringViewBuilder::with_capacity(values)),
            Type::Json | Type::Canonical => Arrays::Json(LargeStringBuilder::with_capacity(values, 0)),
            Type::Time => Arrays::Time(TimestampMicrosecondBuilder::with_capacity(values).with_data_type(to.arrow())),
        };
        Self {
            array,
            present: 0,
            misfits: 0,
        }
    }

    /// Takes the next value.
    pub fn push(&mut self, seen: Seen<'_>) {
        self.present += u64::from(seen != Seen::Absent);
        self.misfits += u64::from(seen == Seen::Misfit);
        match (&mut self.array, seen) {
            (Arrays::Bool(array), Seen::Fits(Scalar::Bool(bool))) => array.append_value(bool),
            (Arrays::Int(array), Seen::Fits(Scalar::Int(int))) => array.append_value(int),
            (Arrays::Double(array), Seen::Fits(Scalar::Double(double))) => array.append_value(double),
            (Arrays::Text(array), Seen::Fits(Scalar::Text(text))) => array.append_value(text),
            (Arrays::Json(array), Seen::Fits(Scalar::Text(text))) => array.append_value(text),
            (Arrays::Time(array), Seen::Fits(Scalar::Time(time))) => array.append_value(time),
            (array, _) => array.push_null(),
        }
    }

    /// The array.
    pub fn finish(self) -> ArrayRef {
        match self.array {
            Arrays::Bool(mut array) => Arc::new(array.finish()),
            Arrays::Int(mut array) => Arc::new(array.finish()),
            Arrays::Double(mut array) => Arc::new(array.finish()),
            Arrays::Text(mut array) => Arc::new(array.finish()),
            Arrays::Json(mut array) => Arc::new(array.finish()),
            Arrays::Time(mut array) => Arc::new(array.finish()),
        }
    }
}

impl Arrays {
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
