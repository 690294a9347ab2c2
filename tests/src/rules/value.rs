//! A value of a document or of an answer: equality, order, grouping and text.

use std::cmp::Ordering;

use serde_json::Value;

/// Up to here, every integer is exactly a double.
const EXACT_MAX: i128 = 1 << 53;
/// The largest relative error between two computed numbers.
const RELATIVE_ERROR_MAX: f64 = 1e-9;
/// Decimal digits of a test number: more would not fit into an `i128` together with the integers.
const SCALE_MAX: u32 = 12;

/// The rules do not specify the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unspecified;

/// An exact number: `digits / 10^SCALE_MAX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    digits: i128,
    /// Its spelling in the document; `None` if it was computed.
    spelled: Option<String>,
}

/// A SQL value.
#[derive(Debug, Clone, PartialEq)]
pub enum SqlValue {
    /// NULL: a JSON null or an absent path.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A computed number, exact only up to `RELATIVE_ERROR_MAX`.
    Approximate(f64),
    /// A string.
    Text(String),
    /// A list or an object, with its text if that is specified.
    Json(Value, Option<String>),
}

impl Number {
    /// Parses its spelling in JSON.
    pub fn parse(text: &str) -> Option<Self> {
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let plain = |digits: &str| digits.bytes().all(|byte| byte.is_ascii_digit());
        if whole.trim_start_matches('-').is_empty()
            || !plain(whole.trim_start_matches('-'))
            || !plain(fraction)
            || mantissa.ends_with('.')
        {
            return None;
        }
        let shift = exponent.parse::<i32>().ok()? + SCALE_MAX as i32 - i32::try_from(fraction.len()).ok()?;
        let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
        let digits = if shift >= 0 {
            digits.checked_mul(10_i128.checked_pow(shift.unsigned_abs())?)?
        } else {
            digits / 10_i128.checked_pow(shift.unsigned_abs())?
        };
        Some(Self {
            digits,
            spelled: Some(text.to_owned()),
        })
    }

    /// A computed integer.
    pub fn integer(number: i128) -> Self {
        Self {
            digits: number * 10_i128.pow(SCALE_MAX),
            spelled: None,
        }
    }

    /// Its value, if it is an integer.
    pub fn as_integer(&self) -> Option<i128> {
        (self.digits % 10_i128.pow(SCALE_MAX) == 0).then(|| self.digits / 10_i128.pow(SCALE_MAX))
    }

    /// Whether a double can represent an integer of this size exactly.
    pub fn fits_double(&self) -> bool {
        self.digits.abs() <= EXACT_MAX * 10_i128.pow(SCALE_MAX)
    }

    /// The nearest double.
    pub fn to_double(&self) -> f64 {
        self.digits as f64 / 10_f64.powi(SCALE_MAX as i32)
    }

    /// Adds, subtracts or multiplies.
    pub fn compute(&self, sign: char, other: &Self) -> Result<Self, Unspecified> {
        let scale = 10_i128.pow(SCALE_MAX);
        let digits = match sign {
            '+' => self.digits + other.digits,
            '-' => self.digits - other.digits,
            _ => self.digits.checked_mul(other.digits).ok_or(Unspecified)? / scale,
        };
        let computed = Self { digits, spelled: None };
        if self.fits_double() && other.fits_double() && computed.fits_double() {
            Ok(computed)
        } else {
            Err(Unspecified)
        }
    }
}

impl SqlValue {
    /// Parses JSON and keeps its spelling.
    pub fn parse(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text} is not JSON: {error}"));
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(_) => Self::Number(Number::parse(text.trim()).expect("numbers of the tests are small")),
            Value::String(text) => Self::Text(text),
            value => {
                let compact = value.to_string();
                Self::Json(value, Some(compact).filter(|compact| compact == text))
            }
        }
    }

    /// A count.
    pub fn count(count: usize) -> Self {
        Self::Number(Number::integer(count as i128))
    }

    /// A truth value of three-valued logic; `None` is NULL.
    pub fn truth(truth: Option<bool>) -> Self {
        truth.map_or(Self::Null, Self::Bool)
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Its text, as `->>` returns it.
    pub fn text(&self) -> Result<Option<String>, Unspecified> {
        match self {
            Self::Null => Ok(None),
            Self::Bool(value) => Ok(Some(value.to_string())),
            Self::Number(number) => number.spelled.clone().map(Some).ok_or(Unspecified),
            Self::Approximate(_) => Err(Unspecified),
            Self::Text(text) => Ok(Some(text.clone())),
            Self::Json(_, text) => text.clone().map(Some).ok_or(Unspecified),
        }
    }

    /// `=`: NULL if either side is NULL, else whether the values are equal.
    pub fn equals(&self, other: &Self) -> Result<Option<bool>, Unspecified> {
        Ok(match (self, other) {
            (Self::Null, _) | (_, Self::Null) => None,
            (Self::Approximate(_), _) | (_, Self::Approximate(_)) => return Err(Unspecified),
            (Self::Number(a), Self::Number(b)) => Some(a.digits == b.digits),
            (Self::Bool(a), Self::Bool(b)) => Some(a == b),
            (Self::Text(a), Self::Text(b)) => Some(a == b),
            (Self::Json(a, _), Self::Json(b, _)) => Some(a == b),
            _ => Some(false),
        })
    }

    /// Whether GROUP BY puts two values into one group.
    pub fn same_group(&self, other: &Self) -> bool {
        self.is_null() && other.is_null() || self.equals(other) == Ok(Some(true))
    }

    /// The order behind `<`, `<=`, `>` and `>=`: NULL between kinds.
    pub fn order(&self, other: &Self) -> Result<Option<Ordering>, Unspecified> {
        Ok(match (self, other) {
            (Self::Null, _) | (_, Self::Null) => None,
            (Self::Approximate(_), _) | (_, Self::Approximate(_)) | (Self::Json(..), Self::Json(..)) => {
                return Err(Unspecified);
            }
            (Self::Number(a), Self::Number(b)) => Some(a.digits.cmp(&b.digits)),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            _ => None,
        })
    }

    /// Converts a quoted literal to the kind of the value that it is compared with; if it cannot, it stays a string.
    pub fn coerce_literal(literal: &str, value: &Self) -> Self {
        let text = || Self::Text(literal.to_owned());
        match value {
            Self::Number(_) | Self::Approximate(_) => Number::parse(literal).map_or_else(text, Self::Number),
            Self::Bool(_) if literal == "true" || literal == "false" => Self::Bool(literal == "true"),
            _ => text(),
        }
    }

    /// Its rank in ORDER BY: numbers, strings, booleans with lists and objects, NULL.
    pub fn sort_rank(&self) -> usize {
        match self {
            Self::Number(_) | Self::Approximate(_) => 0,
            Self::Text(_) => 1,
            Self::Bool(_) | Self::Json(..) => 2,
            Self::Null => 3,
        }
    }

    /// Whether a cell of an answer equals this value.
    pub fn matches_cell(&self, cell: &Value) -> bool {
        match (self, cell) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::Text(a), Value::String(b)) => a == b,
            (Self::Approximate(a), Value::Number(b)) => b.as_f64().is_some_and(|b| is_close(*a, b)),
            (Self::Number(a), Value::Number(b)) => match (a.as_integer(), b.as_i64()) {
                (Some(a), Some(b)) => a == i128::from(b),
                _ => a.fits_double() && b.as_f64().is_some_and(|b| is_close(a.to_double(), b)),
            },
            (Self::Json(a, _), b) => same_cell(a, b),
            _ => false,
        }
    }

    /// Parses a cell of an answer.
    pub fn from_cell(cell: &Value) -> Self {
        match cell {
            Value::Number(number) => Number::parse(&number.to_string())
                .map_or_else(|| Self::Approximate(number.as_f64().unwrap_or(f64::NAN)), Self::Number),
            cell => Self::parse(&cell.to_string()),
        }
    }
}

impl std::fmt::Display for SqlValue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => match &number.spelled {
                Some(spelled) => f.write_str(spelled),
                None => write!(f, "{}", number.to_double()),
            },
            Self::Approximate(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{}", Value::from(text.as_str())),
            Self::Json(value, _) => write!(f, "{value}"),
        }
    }
}

fn is_close(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= RELATIVE_ERROR_MAX * a.abs().max(b.abs())
}

/// Whether two cells of answers are equal; numbers are compared by value.
pub(super) fn same_cell(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| is_close(a, b))
        }
        (Value::Number(_), Value::Number(_)) => SqlValue::from_cell(a).same_group(&SqlValue::from_cell(b)),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_cell(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_cell(a, b)))
        }
        _ => a == b,
    }
}
