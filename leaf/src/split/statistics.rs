//! Statistics: the lowest and the highest values of a part, by which a scan leaves parts out.
//!
//! They cover every document of which the part knows the values, so a scan trusts them only where the path tree says
//! that no other document can have a value. Nothing is ever removed from them: deleted documents make them wider than
//! they need to be, never wrong.

use std::cmp::Ordering;

use proto::record::TimeKind;

use crate::{
    codec::{DecodeResult, ValueReader, ValueWriter},
    document::Header,
};

/// Bytes of the lowest and of the highest text.
const TEXT_BYTES_MAX: usize = 32;

/// The lowest and the highest value, both inclusive; none without values.
pub(crate) type Bounds<T> = Option<(T, T)>;

/// One end of a range, and whether it is inclusive; none is unbounded.
pub(super) type Bound<T> = Option<(T, bool)>;

/// The times of documents, in milliseconds since 1970.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct TimeBounds {
    /// `_time` without a time path: the time of the record or, if it has none, when it was ingested.
    pub time_ms: Bounds<i64>,
    /// `_ingested`.
    pub ingested_ms: Bounds<i64>,
}

impl TimeBounds {
    /// Adds a document.
    pub(super) fn observe(&mut self, header: &Header) {
        let time_ms = match header.time_kind {
            TimeKind::None => header.ingested_ms,
            TimeKind::Create | TimeKind::Append => header.time_ms,
        };
        widen(&mut self.time_ms, time_ms, i64::lt);
        widen(&mut self.ingested_ms, header.ingested_ms, i64::lt);
    }

    /// Adds the documents of another part.
    pub(super) fn merge(&mut self, other: &Self) {
        for (own, other) in [
            (&mut self.time_ms, other.time_ms),
            (&mut self.ingested_ms, other.ingested_ms),
        ] {
            for value in other.iter().flat_map(|(low, high)| [*low, *high]) {
                widen(own, value, i64::lt);
            }
        }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let to = encode_bounds(ValueWriter::unversioned(), self.time_ms, ValueWriter::signed);
        encode_bounds(to, self.ingested_ms, ValueWriter::signed).finish()
    }

    /// Decodes the result of [`encode`](Self::encode).
    pub(crate) fn decode(bytes: &[u8]) -> DecodeResult<Self> {
        let mut from = ValueReader::unversioned(bytes);
        Ok(Self {
            time_ms: decode_bounds(&mut from, ValueReader::signed)?,
            ingested_ms: decode_bounds(&mut from, ValueReader::signed)?,
        })
    }
}

/// The numbers and texts at a path, either inside or outside of arrays.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct ValueBounds {
    pub ints: Bounds<i64>,
    /// In the total order of doubles.
    pub floats: Bounds<f64>,
    pub texts: Bounds<TextBound>,
}

/// The beginning of the lowest or the highest text.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TextBound {
    /// At most [`TEXT_BYTES_MAX`] bytes, which may end within a character.
    start: Box<[u8]>,
    /// Whether the text goes on. A text that goes on sorts after the same bytes alone.
    is_cut: bool,
}

impl TextBound {
    fn of(text: &str) -> (&[u8], bool) {
        let bytes = text.as_bytes();
        (&bytes[..bytes.len().min(TEXT_BYTES_MAX)], bytes.len() > TEXT_BYTES_MAX)
    }

    fn key(&self) -> (&[u8], bool) {
        (&self.start, self.is_cut)
    }

    /// Whether every text that this may be the beginning of sorts before `text`.
    fn is_before(&self, text: &str) -> bool {
        match self.is_cut {
            false => *self.start < *text.as_bytes(),
            true => *self.start < text.as_bytes()[..text.len().min(self.start.len())],
        }
    }

    /// Whether every text that this may be the beginning of sorts after `text`.
    fn is_after(&self, text: &str) -> bool {
        *self.start > *text.as_bytes()
    }
}

impl ValueBounds {
    pub(super) fn observe_int(&mut self, value: i64) {
        widen(&mut self.ints, value, i64::lt);
    }

    pub(super) fn observe_float(&mut self, value: f64) {
        widen(&mut self.floats, value, |a, b| a.total_cmp(b).is_lt());
    }

    pub(super) fn observe_text(&mut self, text: &str) {
        let (start, is_cut) = TextBound::of(text);
        let bound = || TextBound {
            start: start.into(),
            is_cut,
        };
        match &mut self.texts {
            None => self.texts = Some((bound(), bound())),
            Some((low, high)) => {
                if (start, is_cut) < low.key() {
                    *low = bound();
                } else if (start, is_cut) > high.key() {
                    *high = bound();
                }
            }
        }
    }

    /// Whether some int may lie in a range.
    pub(super) fn may_have_int(&self, from: Bound<i64>, until: Bound<i64>) -> bool {
        overlap(self.ints, from, until, i64::cmp)
    }

    /// Whether some number, as a double, may lie in a range. An int is compared as the double it converts to.
    pub(super) fn may_have_double(&self, from: Bound<f64>, until: Bound<f64>) -> bool {
        let ints = self.ints.map(|(low, high)| (low as f64, high as f64));
        overlap(ints, from, until, f64::total_cmp) || overlap(self.floats, from, until, f64::total_cmp)
    }

    /// Whether some text may be neither before `low` nor after `high`. Both are possible texts; none is unbounded.
    pub(super) fn may_have_text(&self, low: Option<&str>, high: Option<&str>) -> bool {
        self.texts.as_ref().is_some_and(|(lowest, highest)| {
            low.is_none_or(|low| !highest.is_before(low)) && high.is_none_or(|high| !lowest.is_after(high))
        })
    }

    /// Whether some text may begin with this prefix.
    pub(super) fn may_have_prefix(&self, prefix: &str) -> bool {
        self.texts.as_ref().is_some_and(|(lowest, highest)| {
            let length = lowest.start.len().min(prefix.len());
            !highest.is_before(prefix) && lowest.start[..length] <= prefix.as_bytes()[..length]
        })
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let to = encode_bounds(ValueWriter::unversioned(), self.ints, ValueWriter::signed);
        let to = encode_bounds(to, self.floats, |to, float| to.u64(float.to_bits()));
        let texts = self.texts.as_ref().map(|(low, high)| (low, high));
        let text = |to: ValueWriter, bound: &TextBound| to.bytes(&bound.start).byte(u8::from(bound.is_cut));
        encode_bounds(to, texts, text).finish()
    }

    pub(super) fn decode(bytes: &[u8]) -> DecodeResult<Self> {
        let mut from = ValueReader::unversioned(bytes);
        Ok(Self {
            ints: decode_bounds(&mut from, ValueReader::signed)?,
            floats: decode_bounds(&mut from, |from| from.u64().map(f64::from_bits))?,
            texts: decode_bounds(&mut from, |from| {
                Ok(TextBound {
                    start: from.bytes()?.into(),
                    is_cut: from.byte()? != 0,
                })
            })?,
        })
    }
}

/// Whether a value within bounds may lie in a range.
fn overlap<T>(bounds: Bounds<T>, from: Bound<T>, until: Bound<T>, order: impl Fn(&T, &T) -> Ordering) -> bool {
    let meets = |order: Ordering, inclusive: bool| order.is_gt() || (inclusive && order.is_eq());
    bounds.is_some_and(|(low, high)| {
        from.is_none_or(|(from, inclusive)| meets(order(&high, &from), inclusive))
            && until.is_none_or(|(until, inclusive)| meets(order(&until, &low), inclusive))
    })
}

/// Widens bounds to contain a value.
fn widen<T: Copy>(bounds: &mut Bounds<T>, value: T, is_less: impl Fn(&T, &T) -> bool) {
    match bounds {
        None => *bounds = Some((value, value)),
        Some((low, _)) if is_less(&value, low) => *low = value,
        Some((_, high)) if is_less(high, &value) => *high = value,
        Some(_) => {}
    }
}

fn encode_bounds<T>(to: ValueWriter, bounds: Bounds<T>, value: impl Fn(ValueWriter, T) -> ValueWriter) -> ValueWriter {
    match bounds {
        None => to.byte(0),
        Some((low, high)) => value(value(to.byte(1), low), high),
    }
}

fn decode_bounds<'a, T>(
    from: &mut ValueReader<'a>,
    value: impl Fn(&mut ValueReader<'a>) -> DecodeResult<T>,
) -> DecodeResult<Bounds<T>> {
    match from.byte()? {
        0 => Ok(None),
        _ => Ok(Some((value(from)?, value(from)?))),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts with long common beginnings.
    fn texts() -> impl Strategy<Value = Vec<String>> {
        let text = (0usize..40, "[a-cäö]{0,4}").prop_map(|(length, end)| "b".repeat(length) + &end);
        proptest::collection::vec(text, 0..6)
    }

    fn bounds_of(texts: &[String]) -> ValueBounds {
        let mut bounds = ValueBounds::default();
        texts.iter().for_each(|text| bounds.observe_text(text));
        bounds
    }

    proptest! {
        #[test]
        fn bounds_round_trip(ints: Vec<i64>, floats: Vec<f64>, texts in texts(), times: Vec<(i64, i64, bool)>) {
            let mut bounds = bounds_of(&texts);
            ints.iter().for_each(|int| bounds.observe_int(*int));
            floats.iter().filter(|float| !float.is_nan()).for_each(|float| bounds.observe_float(*float));
            prop_assert_eq!(bounds.ints, ints.iter().min().copied().zip(ints.iter().max().copied()));
            prop_assert_eq!(ValueBounds::decode(&bounds.encode())?, bounds);
            let mut all = TimeBounds::default();
            for (time_ms, ingested_ms, known) in times {
                let time_kind = if known { TimeKind::Create } else { TimeKind::None };
                all.observe(&Header { time_ms, ingested_ms, time_kind, ..Header::default() });
            }
            prop_assert_eq!(TimeBounds::decode(&all.encode())?, all);
        }

        #[test]
        fn no_text_is_outside_of_its_bounds(texts in texts(), others in texts(), cut in 0usize..40) {
            let bounds = bounds_of(&texts);
            for low in &others {
                for high in &others {
                    let any = texts.iter().any(|text| low <= text && text <= high);
                    prop_assert!(!any || bounds.may_have_text(Some(low), Some(high)), "{low:?} to {high:?}");
                }
                let prefix: String = low.chars().take(cut).collect();
                let any = texts.iter().any(|text| text.starts_with(&prefix));
                prop_assert!(!any || bounds.may_have_prefix(&prefix), "{prefix:?}");
            }
        }
    }

    #[test]
    fn texts_are_excluded_before_the_lowest_and_after_the_highest() {
        let bounds = bounds_of(&["b".repeat(50), "abc".to_owned(), "abd".to_owned()]);
        assert!(!bounds.may_have_text(None, Some("abb")) && bounds.may_have_text(None, Some("abc")));
        assert!(!bounds.may_have_text(Some("c"), None) && bounds.may_have_text(Some(&"b".repeat(60)), None));
        assert!(!bounds.may_have_prefix("abb") && bounds.may_have_prefix("ab") && !bounds.may_have_prefix("c"));
        assert!(!ValueBounds::default().may_have_text(None, None));
    }
}
