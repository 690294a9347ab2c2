//! The kinds of values that a path has had. Types follow from them (`Kinds::native`), so planning needs no declared
//! schema.
//!
//! A shard's table of kinds never shrinks: types do not change because documents were replaced, deleted or merged.

use std::{
    collections::BTreeMap,
    fmt,
    ops::{BitOr, BitOrAssign},
};

use serde::{Deserialize, Serialize};

use crate::{
    column::Type,
    path::{Path, Step},
};

/// Up to this magnitude a double represents every integer exactly.
const EXACT_IN_DOUBLE_MAX: u64 = 1 << 53;

/// A set of kinds of JSON values.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Kinds(pub u16);

impl Kinds {
    /// `null`.
    pub const NULL: Self = Self(1);
    /// `true`, `false`.
    pub const BOOL: Self = Self(1 << 1);
    /// A number within int64 without fraction or exponent.
    pub const INT: Self = Self(1 << 2);
    /// Any other number within the range of a double.
    pub const FLOAT: Self = Self(1 << 3);
    /// A number outside the range of a double.
    pub const BIG: Self = Self(1 << 4);
    /// A string.
    pub const TEXT: Self = Self(1 << 5);
    /// An object.
    pub const OBJECT: Self = Self(1 << 6);
    /// An array.
    pub const ARRAY: Self = Self(1 << 7);
    /// Some value of the path is inside an array on the way: search finds it, a SQL path does not. Carries no
    /// information about its kind.
    pub const ELEMENT: Self = Self(1 << 8);
    /// An integer that a double cannot represent exactly; always together with `INT`.
    pub const WIDE: Self = Self(1 << 9);
    /// Values of any kind may be there: it is not known.
    pub const ANY: Self = Self((1 << 10) - 1);
    /// Every number.
    pub const NUMBER: Self = Self(Self::INT.0 | Self::WIDE.0 | Self::FLOAT.0 | Self::BIG.0);

    /// Whether it has any kind of `other`.
    pub fn any(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether it has no kind besides those of `other`.
    pub fn only(self, other: Self) -> bool {
        self.0 & !other.0 == 0
    }

    /// These kinds without those of `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The kinds of values, other than null, that were seen outside arrays.
    pub fn seen(self) -> Self {
        self.without(Self::NULL | Self::ELEMENT)
    }

    /// The type of the path when its use does not require another. A single kind has its own type, integers and
    /// fractions together are double if a double represents each of them exactly, anything else is JSON. None if only
    /// nulls were seen outside arrays.
    pub fn native(self) -> Option<Type> {
        let seen = self.seen();
        if seen == Self::default() {
            return None;
        }
        let types = [
            (Self::BOOL, Type::Bool),
            (Self::INT | Self::WIDE, Type::Int),
            (Self::INT | Self::FLOAT, Type::Double),
            (Self::TEXT, Type::Text),
        ];
        Some(
            types
                .into_iter()
                .find(|(kinds, _)| seen.only(*kinds))
                .map_or(Type::Json, |(_, native)| native),
        )
    }

    /// The type of the path when its use requires a number.
    pub fn numeric(self) -> Type {
        if self.any(Self::FLOAT | Self::BIG) || !self.any(Self::INT) {
            Type::Double
        } else {
            Type::Int
        }
    }

    /// The names of the kinds.
    pub fn names(self) -> Vec<&'static str> {
        let names = [
            (Self::NULL, "null"),
            (Self::BOOL, "boolean"),
            (Self::INT, "integer"),
            (Self::FLOAT, "float"),
            (Self::BIG, "number beyond double"),
            (Self::TEXT, "text"),
            (Self::OBJECT, "object"),
            (Self::ARRAY, "array"),
        ];
        names
            .into_iter()
            .filter(|(kind, _)| self.any(*kind))
            .map(|(_, name)| name)
            .collect()
    }

    /// The kind of a value.
    pub fn of(value: &proto::json::Value) -> Self {
        use proto::json::Value;
        match value {
            Value::Null => Self::NULL,
            Value::Bool(_) => Self::BOOL,
            Value::Int(int) if int.unsigned_abs() > EXACT_IN_DOUBLE_MAX => Self::INT | Self::WIDE,
            Value::Int(_) => Self::INT,
            Value::Float(_) => Self::FLOAT,
            Value::Big(_) => Self::BIG,
            Value::Text(_) => Self::TEXT,
            Value::Array(_) => Self::ARRAY,
            Value::Object(_) => Self::OBJECT,
        }
    }
}

impl BitOr for Kinds {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitOrAssign for Kinds {
    fn bitor_assign(&mut self, other: Self) {
        self.0 |= other.0;
    }
}

impl fmt::Display for Kinds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.names().join(", "))
    }
}

/// The kinds of all paths. Paths consist of keys only: values inside arrays count under the path without indexes,
/// marked `ELEMENT`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PathKinds {
    /// Kinds by path; at most `proto::limits::PATHS_MAX` entries.
    pub paths: BTreeMap<Path, Kinds>,
    /// Whether there were more paths than that. A path that is missing here may then still exist, and is JSON.
    pub overflow: bool,
}

impl PathKinds {
    /// Adds the paths and kinds of `other`, which was seen elsewhere. What one of them knows nothing of, because it had no
    /// room for it, may be of any kind there.
    pub fn merge(&mut self, other: &Self) {
        if other.overflow {
            self.forget_kinds_unless(|path| other.paths.contains_key(path));
        }
        let unknown = if self.overflow { Kinds::ANY } else { Kinds::default() };
        for (path, kinds) in &other.paths {
            *self.paths.entry(path.clone()).or_insert(unknown) |= *kinds;
        }
        self.overflow |= other.overflow;
    }

    /// Notes that the other paths may have values of any kind.
    pub fn forget_kinds_unless(&mut self, is_known: impl Fn(&Path) -> bool) {
        let others = self.paths.iter_mut().filter(|(path, _)| !is_known(path));
        others.for_each(|(_, kinds)| *kinds = Kinds::ANY);
    }

    /// About how many bytes the table takes in memory.
    pub fn bytes(&self) -> usize {
        let step_bytes = |step: &Step| match step {
            Step::Key(key) => size_of::<Step>() + key.len(),
            Step::Index(_) => size_of::<Step>(),
        };
        let path_bytes = |path: &Path| size_of::<(Path, Kinds)>() + path.steps().iter().map(step_bytes).sum::<usize>();
        size_of::<Self>() + self.paths.keys().map(path_bytes).sum::<usize>()
    }
}
