//! A value of a document or of an answer, and how it stands to another one.

use std::cmp::Ordering;

use serde_json::Value;

/// Integers up to here are the same as doubles.
const EXACT_MAX: i128 = 1 << 53;
/// How far two computed numbers may be apart, of the larger one.
const APART_MAX: f64 = 1e-9;
/// Digits behind the point that a number of the tests may have: more would not fit beside the others.
const SCALE_MAX: u32 = 12;

/// The rules do not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unsaid;

/// A number, exactly: `digits / 10^SCALE_MAX`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number {
    digits: i128,
    /// As it is spelled in its document; none where it was computed.
    spelled: Option<String>,
}

/// A value.
#[derive(Debug, Clone, PartialEq)]
pub enum V {
    /// NULL, null and what is not there.
    Null,
    /// A boolean.
    Bool(bool),
    /// A number.
    Number(Number),
    /// A number to some digits.
    About(f64),
    /// A text.
    Text(String),
    /// A list or an object, with its text where that is sure.
    Json(Value, Option<String>),
}

impl Number {
    /// Of its spelling in JSON.
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

    /// The integer that it is, if it is one.
    pub fn whole(&self) -> Option<i128> {
        (self.digits % 10_i128.pow(SCALE_MAX) == 0).then(|| self.digits / 10_i128.pow(SCALE_MAX))
    }

    /// Whether it is as good as a double.
    pub fn is_small(&self) -> bool {
        self.digits.abs() <= EXACT_MAX * 10_i128.pow(SCALE_MAX)
    }

    /// The nearest double.
    pub fn double(&self) -> f64 {
        self.digits as f64 / 10_f64.powi(SCALE_MAX as i32)
    }

    /// Sum, difference or product.
    pub fn computed(&self, sign: char, other: &Self) -> Result<Self, Unsaid> {
        let scale = 10_i128.pow(SCALE_MAX);
        let digits = match sign {
            '+' => self.digits + other.digits,
            '-' => self.digits - other.digits,
            _ => self.digits.checked_mul(other.digits).ok_or(Unsaid)? / scale,
        };
        let computed = Self { digits, spelled: None };
        if self.is_small() && other.is_small() && computed.is_small() {
            Ok(computed)
        } else {
            Err(Unsaid)
        }
    }
}

impl V {
    /// Of JSON as it is spelled.
    pub fn parse(text: &str) -> Self {
        let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{text} is no JSON: {error}"));
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

    /// A number that was counted.
    pub fn count(count: usize) -> Self {
        Self::Number(Number::integer(count as i128))
    }

    /// NULL or a boolean.
    pub fn truth(truth: Option<bool>) -> Self {
        truth.map_or(Self::Null, Self::Bool)
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// Its text as `->>` gives it.
    pub fn text(&self) -> Result<Option<String>, Unsaid> {
        match self {
            Self::Null => Ok(None),
            Self::Bool(value) => Ok(Some(value.to_string())),
            Self::Number(number) => number.spelled.clone().map(Some).ok_or(Unsaid),
            Self::About(_) => Err(Unsaid),
            Self::Text(text) => Ok(Some(text.clone())),
            Self::Json(_, text) => text.clone().map(Some).ok_or(Unsaid),
        }
    }

    /// `=`: NULL with NULL, else whether they are one value.
    pub fn equals(&self, other: &Self) -> Result<Option<bool>, Unsaid> {
        Ok(match (self, other) {
            (Self::Null, _) | (_, Self::Null) => None,
            (Self::About(_), _) | (_, Self::About(_)) => return Err(Unsaid),
            (Self::Number(a), Self::Number(b)) => Some(a.digits == b.digits),
            (Self::Bool(a), Self::Bool(b)) => Some(a == b),
            (Self::Text(a), Self::Text(b)) => Some(a == b),
            (Self::Json(a, _), Self::Json(b, _)) => Some(a == b),
            _ => Some(false),
        })
    }

    /// Whether two values are one group.
    pub fn is_one_with(&self, other: &Self) -> bool {
        self.is_null() && other.is_null() || self.equals(other) == Ok(Some(true))
    }

    /// `<` and its like: NULL between kinds.
    pub fn compared(&self, other: &Self) -> Result<Option<Ordering>, Unsaid> {
        Ok(match (self, other) {
            (Self::Null, _) | (_, Self::Null) => None,
            (Self::About(_), _) | (_, Self::About(_)) | (Self::Json(..), Self::Json(..)) => return Err(Unsaid),
            (Self::Number(a), Self::Number(b)) => Some(a.digits.cmp(&b.digits)),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
            _ => None,
        })
    }

    /// What a quoted literal is beside a value: what it spells of that kind, else the text that it is.
    pub fn quoted_beside(literal: &str, value: &Self) -> Self {
        let text = || Self::Text(literal.to_owned());
        match value {
            Self::Number(_) | Self::About(_) => Number::parse(literal).map_or_else(text, Self::Number),
            Self::Bool(_) if literal == "true" || literal == "false" => Self::Bool(literal == "true"),
            _ => text(),
        }
    }

    /// Where ORDER BY puts it: numbers, texts, the rest, what is not there.
    pub fn place(&self) -> usize {
        match self {
            Self::Number(_) | Self::About(_) => 0,
            Self::Text(_) => 1,
            Self::Bool(_) | Self::Json(..) => 2,
            Self::Null => 3,
        }
    }

    /// Whether a cell of an answer is this value.
    pub fn is(&self, cell: &Value) -> bool {
        match (self, cell) {
            (Self::Null, Value::Null) => true,
            (Self::Bool(a), Value::Bool(b)) => a == b,
            (Self::Text(a), Value::String(b)) => a == b,
            (Self::About(a), Value::Number(b)) => b.as_f64().is_some_and(|b| is_close(*a, b)),
            (Self::Number(a), Value::Number(b)) => match (a.whole(), b.as_i64()) {
                (Some(a), Some(b)) => a == i128::from(b),
                _ => a.is_small() && b.as_f64().is_some_and(|b| is_close(a.double(), b)),
            },
            (Self::Json(a, _), b) => same(a, b),
            _ => false,
        }
    }

    /// A cell of an answer as a value.
    pub fn of_cell(cell: &Value) -> Self {
        match cell {
            Value::Number(number) => Number::parse(&number.to_string())
                .map_or_else(|| Self::About(number.as_f64().unwrap_or(f64::NAN)), Self::Number),
            cell => Self::parse(&cell.to_string()),
        }
    }
}

impl std::fmt::Display for V {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => match &number.spelled {
                Some(spelled) => f.write_str(spelled),
                None => write!(f, "{}", number.double()),
            },
            Self::About(number) => write!(f, "{number}"),
            Self::Text(text) => write!(f, "{}", Value::from(text.as_str())),
            Self::Json(value, _) => write!(f, "{value}"),
        }
    }
}

fn is_close(a: f64, b: f64) -> bool {
    a == b || (a - b).abs() <= APART_MAX * a.abs().max(b.abs())
}

/// Two cells of answers are the same: numbers by what they are worth.
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) if a.is_f64() && b.is_f64() => {
            a.as_f64().zip(b.as_f64()).is_some_and(|(a, b)| is_close(a, b))
        }
        (Value::Number(_), Value::Number(_)) => V::of_cell(a).is_one_with(&V::of_cell(b)),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}
