//! Tests of `value`.

use super::*;

/// The outcome of reading a JSON text, as text.
fn outcome(json: &str, to: Type, cast: bool) -> String {
    let value = proto::json::parse(json.as_bytes()).expect("JSON");
    match read_value(&value, || Some(json), PathType { to, cast }) {
        CastResult::Absent => "absent".into(),
        CastResult::Failed => "failed".into(),
        CastResult::Fits(scalar) => match scalar {
            Scalar::Bool(bool) => bool.to_string(),
            Scalar::Int(int) => int.to_string(),
            Scalar::Double(double) => format!("{double:?}"),
            Scalar::Text(text) => format!("'{text}'"),
            Scalar::Time(us) => format!("{us}us"),
        },
    }
}

/// JSON texts, one per column of [`STRICT_OUTCOMES`].
const JSON_VALUES: [&str; 9] = [
    "null",
    "true",
    "12",
    "1.50",
    "1e999",
    r#""12""#,
    r#""2024-01-02T03:04:05.6Z""#,
    "{\"a\":1}",
    "[1]",
];

/// The outcome of reading each of [`JSON_VALUES`] strictly, by type.
const STRICT_OUTCOMES: [(Type, [&str; 9]); 6] = [
    (
        Type::Bool,
        [
            "absent", "true", "failed", "failed", "failed", "failed", "failed", "failed", "failed",
        ],
    ),
    (
        Type::Int,
        [
            "absent", "failed", "12", "failed", "failed", "failed", "failed", "failed", "failed",
        ],
    ),
    (
        Type::Double,
        [
            "absent", "failed", "12.0", "1.5", "failed", "failed", "failed", "failed", "failed",
        ],
    ),
    (
        Type::Text,
        [
            "absent",
            "failed",
            "failed",
            "failed",
            "failed",
            "'12'",
            "'2024-01-02T03:04:05.6Z'",
            "failed",
            "failed",
        ],
    ),
    (
        Type::Time,
        [
            "absent",
            "failed",
            "failed",
            "failed",
            "failed",
            "failed",
            "1704164645600000us",
            "failed",
            "failed",
        ],
    ),
    (
        Type::Json,
        [
            "absent",
            "'true'",
            "'12'",
            "'1.50'",
            "'1e999'",
            "'\"12\"'",
            "'\"2024-01-02T03:04:05.6Z\"'",
            "'{\"a\":1}'",
            "'[1]'",
        ],
    ),
];

#[test]
fn a_strict_read_accepts_only_its_own_kind() {
    for (to, expected) in STRICT_OUTCOMES {
        let actual: Vec<String> = JSON_VALUES.iter().map(|json| outcome(json, to, false)).collect();
        assert_eq!(actual, expected, "strict reads as {to:?} of {JSON_VALUES:?}");
    }
}

#[test]
fn a_cast_converts_what_can_be_converted() {
    let cases = [
        (Type::Int, r#"" -12 ""#, "-12"),
        (Type::Int, r#""12x""#, "failed"),
        (Type::Int, r#""1.7""#, "failed"),
        (Type::Int, "1.7", "2"),
        (Type::Int, "2.5", "2"),
        (Type::Int, "1e30", "failed"),
        (Type::Int, "true", "1"),
        (Type::Int, "[1]", "failed"),
        (Type::Int, "null", "absent"),
        (Type::Double, r#"" 1.5e3""#, "1500.0"),
        (Type::Double, r#""NaN""#, "failed"),
        (Type::Double, r#""""#, "failed"),
        (Type::Bool, r#""TRUE""#, "true"),
        (Type::Bool, r#""off""#, "false"),
        (Type::Bool, "0", "false"),
        (Type::Bool, "0.5", "failed"),
        (Type::Text, "1.50", "'1.50'"),
        (Type::Text, r#""1.50""#, "'1.50'"),
        (Type::Text, r#"{"a": [1,  2]}"#, r#"'{"a": [1,  2]}'"#),
        (Type::Text, "true", "'true'"),
        (Type::Time, r#""2024-01-02""#, "1704153600000000us"),
        (Type::Time, r#""2024-01-02 03:04:05.678""#, "1704164645678000us"),
        (Type::Time, r#""2024-01-02T03:04:05+01:00""#, "1704161045000000us"),
        (Type::Time, r#""yesterday""#, "failed"),
        (Type::Time, "1704164645", "1704164645000000us"),
        (Type::Time, "1704164645.25", "1704164645250000us"),
        (Type::Time, "1704164645678", "1704164645678000us"),
        (Type::Time, "1704164645678901", "1704164645678901us"),
        (Type::Time, "1704164645678901999", "1704164645678901us"),
        (Type::Time, "-1", "-1000000us"),
    ];
    for (to, json, expected) in cases {
        assert_eq!(outcome(json, to, true), expected, "{json} cast to {to:?}");
    }
}
