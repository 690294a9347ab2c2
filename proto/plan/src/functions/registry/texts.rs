//! Functions of texts, and what other systems call them. Positions count characters, from 1.

use super::entry::{
    ArgumentTypes::*,
    Meaning::Expressions,
    Property::{IsNotSimplified, PadsText, TakesRegex},
    SqlFunction, expression, refused, scalar,
};
use crate::functions::growth;

/// One function a line.
#[rustfmt::skip]
pub(super) const FUNCTIONS: &[SqlFunction] = &[
    scalar(Texts(&[]), "ascii(text)", "The code of the first character."),
    scalar(Integers, "chr(code)", "The character with this code."),
    scalar(Texts(&[]), "bit_length(text)", "The number of bits in UTF-8."),
    scalar(Texts(&[]), "octet_length(text)", "The number of bytes in UTF-8."),
    scalar(Texts(&[]), "length(text)", "The number of characters; of a list, the number of items.")
        .also("len"),
    scalar(Texts(&[]), "btrim(text[, characters])", "The text without spaces, or these characters, at both ends."),
    scalar(Texts(&[]), "ltrim(text[, characters])", "The text without spaces, or these characters, at its beginning."),
    scalar(Texts(&[]), "rtrim(text[, characters])", "The text without spaces, or these characters, at its end."),
    scalar(Texts(&[]), "concat(text, …)", "The texts, joined; NULLs are left out."),
    scalar(Texts(&[]), "concat_ws(separator, text, …)", "The texts, joined by a separator; NULLs are left out.")
        .grows(growth::separators),
    scalar(Texts(&[]), "contains(text, part)", "Whether a text contains another one."),
    scalar(Texts(&[]), "starts_with(text, beginning)", "Whether a text begins with another one.")
        .also("startswith prefix"),
    scalar(Texts(&[]), "ends_with(text, end)", "Whether a text ends with another one.").also("endswith suffix"),
    scalar(Texts(&[]), "strpos(text, part)", "The position of the first occurrence, or 0."),
    scalar(Texts(&[]), "find_in_set(text, list)", "The position of a text in a list like 'a,b,c', or 0."),
    scalar(Texts(&[]), "levenshtein(a, b)", "The number of edits that turn one text into the other.")
        .grows(growth::edit_distance),
    scalar(Texts(&[]), "lower(text)", "The text in lower case.").also("lcase lowerutf8").grows(growth::double),
    scalar(Texts(&[]), "upper(text)", "The text in upper case.").also("ucase upperutf8").grows(growth::double),
    scalar(Texts(&[]), "initcap(text)", "The text with each word in upper case at its first letter.")
        .grows(growth::double),
    scalar(Texts(&[]), "reverse(text)", "The characters in reverse order.").also("reverseutf8"),
    scalar(Texts(&[]), "replace(text, from, to)", "The text with each occurrence replaced.").grows(growth::replacement),
    scalar(Texts(&[]), "translate(text, from, to)",
        "The text with each of some characters replaced by that at the same place.")
        .grows(growth::translation),
    scalar(Texts(&[1]), "left(text, n)", "The first n characters; with a negative n, all but the last."),
    scalar(Texts(&[1]), "right(text, n)", "The last n characters; with a negative n, all but the first."),
    scalar(Texts(&[1]), "lpad(text, length[, padding])", "The text, padded at its beginning or cut to a length.")
        .with(&[PadsText]).grows(growth::padding),
    scalar(Texts(&[1]), "rpad(text, length[, padding])", "The text, padded at its end or cut to a length.")
        .with(&[PadsText]).grows(growth::padding),
    scalar(Texts(&[1, 2]), "substr(text, from[, length])", "The text from a position on, at most so long."),
    scalar(Texts(&[2]), "split_part(text, separator, n)", "The n-th part of a text, counted from 1."),
    scalar(Texts(&[2]), "substr_index(text, separator, n)", "The text before the n-th separator."),
    scalar(Texts(&[2, 3]), "overlay(text, other, from[, length])", "The text with another one put over a part of it."),
    scalar(Texts(&[]), "regexp_like(text, pattern[, flags])", "Whether a regular expression matches.")
        .with(&[TakesRegex, IsNotSimplified]),
    scalar(Texts(&[]), "regexp_match(text, pattern[, flags])", "A list of the groups of the first match.")
        .with(&[TakesRegex]).grows(growth::groups),
    scalar(Texts(&[]), "regexp_replace(text, pattern, to[, flags])",
        "The text with the first match replaced, or all with 'g'.")
        .with(&[TakesRegex]).grows(growth::regex_replacement),
    scalar(Texts(&[2]), "regexp_count(text, pattern[, from[, flags]])", "The number of matches.").with(&[TakesRegex]),
    scalar(Texts(&[2, 3]), "regexp_instr(text, pattern[, from[, n[, flags]]])", "The position of the n-th match, or 0.")
        .with(&[TakesRegex]),
    scalar(Texts(&[2]), "regexp_extract(text, pattern[, group])",
        "The first match, or one of its groups; an empty text if nothing matches.")
        .becomes(Expressions(&["regexp_extract($1, $2)", "regexp_extract($1, $2, $3)"]))
        .with(&[TakesRegex]),
    scalar(Texts(&[]), "text_split(text, separator)",
        "A list of the parts of a text; its characters if the separator is empty.")
        .grows(growth::parts),
    scalar(Texts(&[1, 2]), "text_slice(text, from[, length])",
        "ClickHouse's substring: a negative position counts from the end."),
    scalar(Texts(&[1, 2]), "text_mid(text, from[, length])", "MySQL's mid: a negative position counts from the end."),
    scalar(Texts(&[]), "text_hex(text)", "The bytes of a text in base 16, in upper case.").grows(growth::double),
    scalar(Texts(&[]), "encode(text, format)", "The bytes of a text as 'base64', 'base64pad' or 'hex'.")
        .grows(growth::double),
    scalar(Texts(&[]), "decode(text, format)", "The bytes that a text in 'base64', 'base64pad' or 'hex' encodes."),
    scalar(Texts(&[]), "md5(text)", "The MD5 hash, in base 16."),
    scalar(Texts(&[]), "sha224(text)", "The SHA-224 hash, as bytes."),
    scalar(Texts(&[]), "sha256(text)", "The SHA-256 hash, as bytes."),
    scalar(Texts(&[]), "sha384(text)", "The SHA-384 hash, as bytes."),
    scalar(Texts(&[]), "sha512(text)", "The SHA-512 hash, as bytes."),
    scalar(Texts(&[]), "digest(text, algorithm)", "The hash by an algorithm such as 'sha256' or 'blake3', as bytes."),
    // Of other systems.
    expression("position(text, part)", &["strpos($1, $2)"], "The position of the first occurrence, or 0."),
    expression("positionCaseInsensitive(text, part)", &["strpos(lower($1), lower($2))"],
        "The position of the first occurrence regardless of case, or 0."),
    expression("locate(part, text)", &["strpos($2, $1)"], "The position of the first occurrence, or 0.")
        .also("charindex"),
    expression("regexp_matches(text, pattern)", &["regexp_like($1, $2)"], "Whether a regular expression matches.")
        .also("rlike"),
    // In ClickHouse, a dot also matches the end of a line.
    expression("match(text, pattern)", &["regexp_like($1, '(?s)' || $2)"], "Whether a regular expression matches."),
    expression("regexp_full_match(text, pattern)", &["regexp_like($1, '^(?:' || $2 || ')$')"],
        "Whether it matches the whole text."),
    expression("regexp_substr(text, pattern)", &["array_element(regexp_match($1, '(?s)(' || $2 || ')'), 1)"],
        "The first match, or NULL."),
    expression("split(text, separator)", &["text_split($1, $2)"], "A list of the parts of a text.")
        .also("string_split str_split"),
    expression("splitByChar(separator, text)", &["text_split($2, $1)"], "A list of the parts of a text.")
        .also("splitbystring"),
    expression("mid(text, from[, length])", &["text_mid($1, $2)", "text_mid($1, $2, $3)"],
        "The text from a position on."),
    expression("substringUTF8(text, from[, length])", &["text_slice($1, $2)", "text_slice($1, $2, $3)"],
        "The text from a position on."),
    refused("concatWithSeparator", "a || '-' || b is NULL if a part is; concat_ws('-', a, b) leaves out NULLs"),
    expression("hex(text)", &["text_hex($1)"], "The bytes of a text in base 16, in upper case."),
    expression("base64(text)", &["encode($1, 'base64pad')"], "The bytes of a text in base 64.")
        .also("to_base64 base64encode"),
    expression("lengthUTF8(text)", &["character_length($1)"], "The number of characters."),
    expression("toString(value)", &["CAST($1 AS TEXT)"], "A value as text."),
];
