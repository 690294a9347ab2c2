//! Recognizes bodies that cannot be JSON, so that they are rejected as a whole with a useful hint. Otherwise each of
//! their lines would become a dead letter.
//!
//! A body is rejected only if no line of it could be a document.

use proto::{Code, Problem};
use serde_json::value::RawValue;

/// Signatures of formats that are never JSON: the first bytes, what the body is, and the hint.
const SIGNATURES: [(&[u8], &str, &str); 9] = [
    (
        b"\x1f\x8b",
        "compressed with gzip",
        "send the header Content-Encoding: gzip",
    ),
    (
        b"\x28\xb5\x2f\xfd",
        "compressed with zstd",
        "send the header Content-Encoding: zstd",
    ),
    (b"\xfd7zXZ\0", "compressed with xz", DECOMPRESS),
    (b"BZh91AY&SY", "compressed with bzip2", DECOMPRESS),
    (b"\x04\x22\x4d\x18", "compressed with lz4", DECOMPRESS),
    (b"PK\x03\x04", "a ZIP archive", DECOMPRESS),
    (b"PAR1\x15", "a Parquet file", CONVERT),
    (b"Obj\x01", "an Avro file", CONVERT),
    (b"ARROW1\0\0", "an Arrow file", CONVERT),
];
const DECOMPRESS: &str =
    "decompress it first, or compress it with gzip or zstd and send the matching Content-Encoding header";
const CONVERT: &str = "convert it to one JSON document per line first";
const TABLE: &str = "send the content type text/csv or text/tab-separated-values; the first line must name the columns";

/// Fails if the body cannot be JSON.
pub(super) fn reject_non_json(body: &[u8]) -> Result<(), Problem> {
    reject_binary(body)?;
    match is_table(body) {
        true => Err(not_json("a text table such as CSV", TABLE)),
        false => Ok(()),
    }
}

/// Fails if the body is not even text.
pub(super) fn reject_binary(body: &[u8]) -> Result<(), Problem> {
    match SIGNATURES.iter().find(|(signature, ..)| body.starts_with(signature)) {
        Some((_, format, hint)) => Err(not_json(format, hint)),
        None => Ok(()),
    }
}

fn not_json(format: &str, hint: &str) -> Problem {
    let detail = format!("the body is {format}, not JSON; nothing was stored");
    Problem::new(Code::UnsupportedMedia, detail).hint(hint)
}

fn is_table(body: &[u8]) -> bool {
    let could_be_document =
        |line: &[u8]| matches!(line.first(), Some(b'{' | b'[')) || serde_json::from_slice::<&RawValue>(line).is_ok();
    let mut lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    !lines.any(could_be_document)
        && [b',', b';', b'\t']
            .into_iter()
            .any(|separator| are_records(body, separator))
}

/// Whether the body is at least two records with the same number of fields, and with more than one field.
fn are_records(body: &[u8], separator: u8) -> bool {
    let (mut records, mut separators_each) = (0, None);
    let (mut quoted, mut empty, mut separators) = (false, true, 0);
    for byte in body.iter().copied().chain([b'\n']) {
        match byte {
            b'"' => quoted = !quoted,
            _ if quoted => continue,
            b'\n' => {
                if !empty {
                    if separators == 0 || *separators_each.get_or_insert(separators) != separators {
                        return false;
                    }
                    records += 1;
                }
                (empty, separators) = (true, 0);
                continue;
            }
            byte if byte == separator => separators += 1,
            byte if byte.is_ascii_whitespace() => continue,
            _ => {}
        }
        empty = false;
    }
    records > 1 && !quoted
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejection(body: &[u8]) -> Option<String> {
        reject_non_json(body)
            .err()
            .map(|problem| format!("{} {problem}", problem.code.status()))
    }

    #[test]
    fn compressed_and_binary_files_are_named() {
        for (body, named) in [
            (&b"\xfd7zXZ\0\0\x04"[..], "xz"),
            (b"\x1f\x8b\x08\0", "Content-Encoding: gzip"),
            (b"PK\x03\x04", "ZIP"),
            (b"PAR1\x15\x04", "Parquet"),
        ] {
            let why = rejection(body).unwrap_or_else(|| panic!("{named} is rejected"));
            assert!(
                why.starts_with("415 ") && why.contains(named) && why.contains("nothing was stored"),
                "{why}"
            );
        }
    }

    #[test]
    fn a_text_table_is_rejected() {
        for table in [
            "a,b\n1,2\n",
            "name;n\r\n\"x;\ny\";1\r\n\n",
            "a\tb\nc\t\n",
            "1,2,3\n,,\n4,5,6",
            "a,b\n\"say \"\"hi\"\"\",2",
        ] {
            assert!(
                rejection(table.as_bytes()).is_some_and(|why| why.contains("CSV")),
                "{table:?}"
            );
        }
    }

    #[test]
    fn a_body_with_a_document_passes() {
        for body in [
            "{\"a\":1,\"b\":2}\n{\"a\":1,\"b\":2}",
            "[1,2]\n[3,4]",
            "\"a,b\"\n\"c,d\"",
            "1\n2\n",
            "oops, no\n{\"a\":1,\"b\":2}",
            "a,b\n1\n",
            "a,b",
            "{\n  \"a\": 1,\n  \"b\": 2\n}",
            "\t{\"a\":1}\n\t{\"a\":2}\n",
            "1\t\n2\t\n",
            "a,b\"\n{\"x\":1}\nc,d\"\ne,f",
            "",
        ] {
            assert_eq!(rejection(body.as_bytes()), None, "{body:?}");
        }
    }
}
