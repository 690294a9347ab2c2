//! Tests of `matcher`.

use std::cmp::Ordering;

use proptest::prelude::*;

use super::*;
use crate::search::{Match, RangeBound};

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
    assert!(
        words("ok", "true")
            && words("ok", "TRUE")
            && words("ok", " True ")
            && !words("ok", "false")
            && words("", "true")
    );
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

/// The changes that make one text another, counted by plain dynamic programming: adding, leaving out or replacing a
/// character, exchanging two neighbours.
fn changes(one: &[char], other: &[char]) -> usize {
    let mut table = vec![vec![0; other.len() + 1]; one.len() + 1];
    for i in 0..=one.len() {
        for j in 0..=other.len() {
            table[i][j] = match (i, j) {
                (0, far) | (far, 0) => far,
                _ => {
                    let replaced = table[i - 1][j - 1] + usize::from(one[i - 1] != other[j - 1]);
                    let moved = table[i - 1][j].min(table[i][j - 1]) + 1;
                    let is_exchange = i > 1 && j > 1 && one[i - 1] == other[j - 2] && one[i - 2] == other[j - 1];
                    let exchanged = if is_exchange {
                        table[i - 2][j - 2] + 1
                    } else {
                        usize::MAX
                    };
                    replaced.min(moved).min(exchanged)
                }
            };
        }
    }
    table[one.len()][other.len()]
}

/// Whether some choice of a different token of the text for each token of the phrase keeps all shifts within the slop.
fn is_near_by_trying(text: &[String], phrase: &[String], slop: u32, chosen: &mut Vec<usize>) -> bool {
    let place = chosen.len();
    if place == phrase.len() {
        let shifts = chosen.iter().zip(0..).map(|(at, place)| *at as i64 - place);
        let (least, most) = (shifts.clone().min(), shifts.max());
        return least
            .zip(most)
            .is_some_and(|(least, most)| most - least <= i64::from(slop));
    }
    (0..text.len()).any(|at| {
        if text[at] != phrase[place] || chosen.contains(&at) {
            return false;
        }
        chosen.push(at);
        let found = is_near_by_trying(text, phrase, slop, chosen);
        chosen.pop();
        found
    })
}

proptest! {
    #[test]
    fn similar_words_are_those_a_few_changes_away(one in "[abcé]{1,6}", other in "[abcé]{1,6}", allowed in 1u8..=2) {
        let chars = |text: &str| text.chars().collect::<Vec<char>>();
        let expected = changes(&chars(&one), &chars(&other)) <= usize::from(allowed);
        let text = serde_json::json!({ "t": format!("x {other}, y") }).to_string();
        // The other words are similar to short ones.
        let others = ["x", "y"].iter().any(|word| changes(&chars(&one), &chars(word)) <= usize::from(allowed));
        let test = Match::Fuzzy { token: one, changes: allowed };
        prop_assert_eq!(matches(&text, "t", test), expected || others);
    }

    #[test]
    fn words_are_near_if_moving_them_brings_them_together(
        text in prop::collection::vec("[abc]", 0..9),
        phrase in prop::collection::vec("[abc]", 1..4),
        slop in 0u32..5,
    ) {
        let document = serde_json::json!({ "t": text.join("-") }).to_string();
        let expected = is_near_by_trying(&text, &phrase, slop, &mut Vec::new());
        prop_assert_eq!(matches(&document, "t", Match::Near { text: phrase.join(" "), slop }), expected);
    }

    #[test]
    fn wildcards_stand_for_any_characters(pattern in "[ab?*]{1,6}", token in "[abc]{1,6}") {
        fn fits(pattern: &[u8], token: &[u8]) -> bool {
            match (pattern, token) {
                ([], []) => true,
                ([b'*', rest @ ..], token) => (0..=token.len()).any(|end| fits(rest, &token[end..])),
                ([b'?', rest @ ..], [_, after @ ..]) => fits(rest, after),
                ([one, rest @ ..], [other, after @ ..]) => one == other && fits(rest, after),
                _ => false,
            }
        }
        let document = serde_json::json!({ "t": format!("{}!", token.to_uppercase()) }).to_string();
        let expected = fits(pattern.as_bytes(), token.as_bytes());
        prop_assert_eq!(matches(&document, "t", Match::Wildcard(pattern)), expected);
    }
}

#[test]
fn patterns_match_a_word_or_a_whole_text() {
    let document = r#"{"mail":"Ann@Example.org","msg":"disk FULL","url":"/api/v1","n":12}"#;
    let matching = |path: &str, test: Match| matches(document, path, test);
    let wildcard = |pattern: &str| Match::Wildcard(pattern.into());
    let regex = |pattern: &str| Match::Regex(pattern.into());
    assert!(matching("mail", wildcard("*@example.org")) && matching("", wildcard("*@*.o?g")));
    let turkish = |pattern: &str| matches(r#"{"t":"İstanbul'da"}"#, "t", wildcard(pattern));
    assert!(turkish("İst*bul") && turkish("İSTANBUL'*") && !turkish("st*"));
    assert!(!matching("mail", wildcard("*@example")) && !matching("msg", wildcard("disk*l")));
    assert!(matching("url", wildcard("/api/*")) && !matching("n", wildcard("1?")));
    assert!(matching("msg", regex("f.*l")) && matching("msg", regex("disk f.*")) && matching("msg", regex("full|x")));
    assert!(!matching("msg", regex("isk")) && !matching("msg", regex("disk f")) && !matching("n", regex("12")));
}

#[test]
fn networks_find_addresses_within_texts() {
    let document = r#"{"a":"10.0.3.4","b":"from 10.0.3.4:8080, refused","c":"[2001:db8::1]:443","d":"10.0.3.4.5","e":"1.2",
        "f":"src:10.0.3.4:443 addr:10.1.0.1","g":"::ffff:10.0.3.4","h":"fe80:: is up."}"#;
    let inside = |path: &str, network: &str| matches(document, path, Match::Network(network.into()));
    assert!(inside("a", "10.0.0.0/16") && inside("b", "10.0.3.4/32") && inside("c", "2001:db8::/32"));
    assert!(inside("f", "10.0.0.0/16") && inside("f", "10.1.0.1/32") && inside("g", "10.0.0.0/16"));
    assert!(inside("g", "::ffff:0:0/96") && inside("h", "fe80::/10"));
    assert!(!inside("a", "10.1.0.0/16") && !inside("d", "10.0.0.0/8") && !inside("e", "0.0.0.0/0"));
}
