//! Functions that stand for operators and other syntax. Statements cannot call them.

use super::entry::{ArgumentTypes::Texts, Property::IsGenerated, SqlFunction, internal, operator};
use crate::functions::growth;

/// One function a line.
#[rustfmt::skip]
pub(super) const FUNCTIONS: &[SqlFunction] = &[
    // Written by the resolver.
    operator("cast(value, type)", "CAST(value AS type).").with(&[IsGenerated]),
    operator("is_distinct(a, b)", "a IS DISTINCT FROM b.").with(&[IsGenerated]),
    operator("is_not_distinct(a, b)", "a IS NOT DISTINCT FROM b.").with(&[IsGenerated]),
    operator("as_text(value)", "The text of a value, as ->> returns it.").with(&[IsGenerated]),
    operator("truth(value)", "A value as a condition.").with(&[IsGenerated]),
    operator("negative(value)", "-value.").with(&[IsGenerated]),
    operator("positive(value)", "+value.").with(&[IsGenerated]),
    operator("items(value)", "The items of a list, or of a list in JSON.").with(&[IsGenerated]),
    operator("inside(value, path[, kinds])", "The value at a path.").with(&[IsGenerated]),
    operator("at_time_zone(time, zone)", "time AT TIME ZONE zone.").with(&[IsGenerated]),
    operator("search_statistics(input, search)", "How many rows have texts and each word of a search, and how many words.")
        .with(&[IsGenerated]),
    operator("asof_value(value, order)", "A value as ASOF JOIN orders it: as own, time or number.").with(&[IsGenerated]),
    operator("asof_kind(value, order)", "The kind of a value: ASOF JOIN orders those of each kind apart.")
        .with(&[IsGenerated]),
    operator("asof_key(left, right)", "TRUE if values of these types are equal as they are, without a conversion.")
        .with(&[IsGenerated]),
    operator("asof_bound(left, right, own, time, number)", "The next value, as left and right are compared.")
        .with(&[IsGenerated]),
    internal("json_get(json, path, type[, kinds])", "The value at a path of JSON, as a type.")
        .with(&[IsGenerated]).grows(growth::json),
    internal("search_match(json, condition)", "Whether JSON satisfies a condition of the search syntax.")
        .with(&[IsGenerated]),
    internal("interval_number(time, interval)", "Which interval of the calendar, such as '1h', a time is in.")
        .with(&[IsGenerated]),
    internal("list_positions(list, …)", "1, 2, … up to the length of the longest list.").with(&[IsGenerated])
        .grows(growth::parts),
    internal("list_or_null(list)", "The list, or one with a single NULL if it is empty or NULL.").with(&[IsGenerated]),
    internal("search_highlight(json, tests)", "A value with marks around what tests of a search find.")
        .with(&[IsGenerated]).grows(growth::marks),
    internal("search_score(search, lengths, frequencies, value, …)",
        "How well values fit a search. Without arguments, it stands for score().").with(&[IsGenerated]),
    internal("search_tokens(path, value, …)", "The number of tokens of the texts at a path of values.")
        .with(&[IsGenerated]),
    internal("parsed(text, format, argument, name)", "The fields of a text, as a parser reads it.")
        .takes(Texts(&[])).with(&[IsGenerated]),
    internal("parsed_part(parsed, field)", "A field of a text that was parsed.").with(&[IsGenerated]),
    internal("parsed_json(text, format, argument, name)", "The fields of a text, as a parser reads it, as JSON.")
        .takes(Texts(&[])).with(&[IsGenerated]),
    internal("failure_of(value)", "Why the computation of a value failed.").with(&[IsGenerated]),
    // Inserted when types are known.
    internal("json_items(json)", "The items of a list in JSON.").grows(growth::json),
    internal("json_texts(json)", "The items of a list in JSON, as texts."),
    internal("json_compare(a, b, …)", "The order of two values of JSON."),
    internal("json_least(value, …)", "The least value of JSON."),
    internal("json_greatest(value, …)", "The greatest value of JSON."),
    internal("json_min(value)", "The least value of JSON of a group."),
    internal("json_max(value)", "The greatest value of JSON of a group."),
    internal("text_join(text, …)", "a || b.").spelled("||"),
    internal("text_like(text, pattern)", "text LIKE pattern.").spelled("LIKE").grows(growth::compiled_pattern),
    internal("text_ilike(text, pattern)", "text ILIKE pattern.").spelled("ILIKE").grows(growth::compiled_pattern),
    internal("lenient_cast(value, type, name)", "A value as a type, or NULL."),
    internal("json_cast(value, type, name)", "A value as a type, as values of documents are cast, or NULL."),
    internal("add(a, b)", "a + b."),
    internal("subtract(a, b)", "a - b."),
    internal("multiply(a, b)", "a * b."),
    internal("divide(a, b)", "a / b."),
    internal("modulo(a, b)", "a % b."),
    internal("checked_sum(signs, a, …)", "a + b - c of integers."),
    internal("checked_mul(a, …)", "a * b of integers."),
    internal("checked_div(a, b)", "a / b of doubles."),
    internal("checked_mod(a, b)", "a % b of integers."),
    internal("double_sum(signs, a, …)", "a + b - c of doubles."),
    internal("double_mul(a, …)", "a * b of doubles."),
    internal("time_of_local(time, zone)", "The point in time of a local time in a zone."),
    internal("interval_micros(interval)", "The length of an interval."),
    internal("interval_scale(interval, factor)", "An interval times a factor."),
    internal("time_shift(sign, time, interval)", "A time, moved by an interval."),
    internal("sliding_sum(number)", "The sum of the doubles of a sliding frame."),
    internal("sliding_avg(number)", "The average of the doubles of a sliding frame."),
];
