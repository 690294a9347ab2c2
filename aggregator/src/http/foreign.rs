//! Is a body surely something else than JSON? Then it is refused before anything of it is stored, with what to do: else
//! each of its lines would become a dead letter.
//!
//! Only what holds no line that could be a document is refused.

use proto::{Code, Problem};
use serde_json::value::RawValue;

/// How formats begin whose bytes are never JSON, what they are, and what to do with them.
const SIGNATURES: [(&[u8], &str, &str); 9] = [
    (b"\x1f\x8b", "packed with gzip", "say so: Content-Encoding: gzip"),
    (
        b"\x28\xb5\x2f\xfd",
        "packed with zstd",
        "say so: Content-Encoding: zstd",
    ),
    (b"\xfd7zXZ\0", "packed with xz", UNPACK),
    (b"BZh91AY&SY", "packed with bzip2", UNPACK),
    (b"\x04\x22\x4d\x18", "packed with lz4", UNPACK),
    (b"PK\x03\x04", "a ZIP archive", UNPACK),
    (b"PAR1\x15", "a Parquet file", CONVERT),
    (b"Obj\x01", "an Avro file", CONVERT),
    (b"ARROW1\0\0", "an Arrow file", CONVERT),
];
const UNPACK: &str = "unpack it first, or pack it with gzip or zstd and say so in Content-Encoding";
const CONVERT: &str = "convert it first, to one JSON document a line";

/// Refuses a body that is surely no JSON.
pub(super) fn refuse(body: &[u8]) -> Result<(), Problem> {
    let what = SIGNATURES
        .iter()
        .find(|(signature, ..)| body.starts_with(signature))
        .map(|(_, what, hint)| (*what, *hint));
    let what = what.or_else(|| is_table(body).then_some(("a table of text such as CSV", CONVERT_TABLE)));
    match what {
        Some((what, hint)) => Err(Problem::new(
            Code::UnsupportedMedia,
            format!("the body is {what}, not JSON; nothing was stored"),
        )
        .hint(hint)),
        None => Ok(()),
    }
}

const CONVERT_TABLE: &str = "convert it first, to one JSON document a line: for example with `mlr --icsv --ojsonl cat`";

fn is_table(body: &[u8]) -> bool {
    let could_be_document =
        |line: &[u8]| matches!(line.first(), Some(b'{' | b'[')) || serde_json::from_slice::<&RawValue>(line).is_ok();
    let mut lines = body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    !lines.any(could_be_document)
        && [b',', b';', b'\t']
            .into_iter()
            .any(|separator| are_records(body, separator))
}

/// Whether there are at least two records, all of as many fields, more than one.
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

    fn refused(body: &[u8]) -> Option<String> {
        refuse(body)
            .err()
            .map(|problem| format!("{} {problem}", problem.code.status()))
    }

    #[test]
    fn files_that_are_packed_or_binary_are_named() {
        for (body, named) in [
            (&b"\xfd7zXZ\0\0\x04"[..], "xz"),
            (b"\x1f\x8b\x08\0", "Content-Encoding: gzip"),
            (b"PK\x03\x04", "ZIP"),
            (b"PAR1\x15\x04", "Parquet"),
        ] {
            let why = refused(body).unwrap_or_else(|| panic!("{named} is refused"));
            assert!(
                why.starts_with("415 ") && why.contains(named) && why.contains("nothing was stored"),
                "{why}"
            );
        }
    }

    #[test]
    fn a_table_of_text_is_refused() {
        for table in [
            "a,b\n1,2\n",
            "name;n\r\n\"x;\ny\";1\r\n\n",
            "a\tb\nc\t\n",
            "1,2,3\n,,\n4,5,6",
            "a,b\n\"say \"\"hi\"\"\",2",
        ] {
            assert!(
                refused(table.as_bytes()).is_some_and(|why| why.contains("CSV")),
                "{table:?}"
            );
        }
    }

    #[test]
    fn whatever_holds_a_document_passes() {
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
            assert_eq!(refused(body.as_bytes()), None, "{body:?}");
        }
    }
}
