//! Tests of `matcher`.

use super::*;

fn matches(document: &str, path: &str, matches: Match) -> bool {
    let path = (!path.is_empty()).then(|| Path::parse(path).expect("a path"));
    let value = proto::json::parse(document.as_bytes()).expect("JSON");
    Matcher::new(&Clause { path, matches }).matches(&value)
}

fn range(from: Option<(&str, bool)>, to: Option<(&str, bool)>) -> Match {
    let limit = |bound: Option<(&str, bool)>| {
        bound.map(|(value, inclusive)| RangeBound {
            value: value.into(),
            inclusive,
        })
    };
    Match::Range {
        from: limit(from),
        to: limit(to),
    }
}

#[test]
fn words_match_if_their_tokens_are_adjacent() {
    let document = r#"{"msg":"Disk FULL on /dev/sda1","n":12,"f":1.5,"ok":true,"tags":["Änderung",{"deep":["x-y z"]}],"nul":null}"#;
    let words = |path: &str, text: &str| matches(document, path, Match::Words(text.into()));
    assert!(words("msg", "disk full") && words("msg", "full") && words("", "sda1") && words("msg", "on dev"));
    assert!(!words("msg", "disk on") && !words("msg", "ful") && !words("tags", "disk"));
    assert!(words("n", "12") && words("n", "12.0") && words("", "1.5") && !words("n", "1"));
    assert!(words("ok", "true") && !words("ok", "false") && words("", "true"));
    assert!(
        words("tags", "änderung")
            && words("tags.deep", "x y")
            && words("tags[1].deep", "z")
            && !words("tags[0].deep", "z")
    );
    assert!(!words("", "--") && !words("nul", "null"));
}

#[test]
fn prefixes_ranges_and_existence_match_only_values_of_their_kind() {
    let document =
        r#"{"msg":"Timeout after 30s","n":9007199254740993,"s":"b","a":[1,5],"e":[],"nul":null,"o":{"x":null}}"#;
    let matching = |path: &str, test: Match| matches(document, path, test);
    assert!(
        matching("msg", Match::Prefix("time".into()))
            && matching("", Match::Prefix("30".into()))
            && !matching("msg", Match::Prefix("out".into()))
    );
    assert!(
        matching("n", range(Some(("9007199254740992", false)), None))
            && !matching("n", range(Some(("9007199254740993", false)), None))
    );
    assert!(
        matching("a", range(Some(("4.5", true)), Some(("5", true))))
            && !matching("a", range(Some(("2", true)), Some(("4", true))))
    );
    assert!(
        matching("s", range(Some(("a", true)), Some(("b", true))))
            && !matching("s", range(Some(("a", true)), Some(("b", false))))
    );
    assert!(
        !matching("s", range(Some(("1", true)), None)),
        "a string is not within a range of numbers"
    );
    assert!(
        matching("e", Match::Exists)
            && matching("o", Match::Exists)
            && !matching("nul", Match::Exists)
            && !matching("o.x", Match::Exists)
            && !matching("zzz", Match::Exists)
    );
}

#[test]
fn ints_and_doubles_are_compared_without_rounding() {
    let compare = |int, double| Number::Int(int).compare(Number::Double(double));
    assert_eq!(
        compare(9_007_199_254_740_993, 9_007_199_254_740_992.0),
        Ordering::Greater
    );
    assert_eq!(compare(i64::MAX, 9_223_372_036_854_775_808.0), Ordering::Less);
    assert_eq!(compare(i64::MIN, -9_223_372_036_854_775_808.0), Ordering::Equal);
    assert_eq!(compare(-1, -1.5), Ordering::Greater);
    assert_eq!(compare(1, 1.5), Ordering::Less);
}
