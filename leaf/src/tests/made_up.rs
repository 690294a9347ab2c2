//! Random documents with hostile keys, every kind of value at the same path, nested arrays, long strings, unusual
//! numbers, repeated keys and plain texts.

use std::sync::Arc;

use crate::{
    document::{Document, Header},
    split::Literal,
};
use bytes::Bytes;
use plan::Type;
use proptest::test_runner::Config;
use proto::{Address, record::TimeKind};

/// The seed of a random test: `SEED` from the environment or, without it, the current time. Printed, so that a failure
/// can be repeated.
pub(crate) fn seed() -> u64 {
    let from_environment = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = from_environment.unwrap_or_else(|| {
        std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map_or(1, |since| since.as_millis() as u64)
    });
    eprintln!("SEED={seed}");
    seed
}

/// The cases that a property is tried with: `PROPTEST_CASES` from the environment, else this many.
pub(super) fn cases(cases: u32) -> Config {
    let from_environment = std::env::var("PROPTEST_CASES")
        .ok()
        .and_then(|cases| cases.parse().ok());
    Config::with_cases(from_environment.unwrap_or(cases))
}

/// A seeded random number generator (SplitMix64).
pub(super) struct Dice {
    state: u64,
}

impl Dice {
    pub(super) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    fn roll(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        (self.roll() % end.max(1) as u64) as usize
    }

    /// A word of random letters and digits, longer than any prefix that is kept.
    pub(super) fn word(&mut self) -> String {
        (0..24)
            .map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789"[self.below(36)]))
            .collect()
    }

    pub(super) fn one_in(&mut self, times: usize) -> bool {
        self.below(times) == 0
    }

    pub(super) fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

const KEYS: [&str; 14] = [
    "a",
    "b",
    "n",
    "t",
    "a.b",
    "c\\u0000d",
    "",
    "\\\"q\\\"",
    "é",
    "\\u0001",
    "items",
    "ids",
    "msg",
    "\\ud800",
];

pub(super) const WORDS: [&str; 18] = [
    "disk",
    "FULL",
    "a-1",
    "b_2",
    "user=bob",
    "Äpfel",
    "ΣΊΣΥΦΟΣ",
    "東京",
    "x²",
    "i\u{0307}",
    "12",
    "1.50",
    "zz",
    "the",
    "disk full",
    "İstanbul",
    "10.1.2.3:80",
    "2026-01-31",
];

pub(super) const NUMBERS: [&str; 20] = [
    "0",
    "-0",
    "0.0",
    "-0.0",
    "1",
    "1.0",
    "12",
    "1.5",
    "-1.5",
    "1e2",
    "100",
    "9007199254740993",
    "9007199254740992.0",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "1e400",
    "5e-324",
    "1.7976931348623157e308",
    "1700000000123",
];

const TIMES: [&str; 6] = [
    "2024-01-02T03:04:05Z",
    "2024-01-02T03:04:05.678901234+01:00",
    "2024-01-02",
    "2024-01-02 03:04:05",
    "1969-12-31T23:59:59.9Z",
    "2024-13-01T00:00:00Z",
];

/// Literals of a type. Documents may or may not have these values.
pub(super) fn literals(to: Type) -> Vec<Literal> {
    match to {
        Type::Bool => vec![Literal::Bool(true), Literal::Bool(false)],
        Type::Int => [0, 1, 12, i64::MAX, i64::MIN, 9_007_199_254_740_993]
            .map(Literal::Int)
            .to_vec(),
        Type::Double => [
            0.0,
            -0.0,
            1.5,
            12.0,
            f64::MAX,
            f64::MIN,
            9_007_199_254_740_992.0,
            f64::INFINITY,
        ]
        .map(Literal::Double)
        .to_vec(),
        Type::Text | Type::Json | Type::Canonical | Type::Rank => ["", "a", "disk", "zzz", "\u{10ffff}"]
            .map(|text| Literal::Text(text.into()))
            .to_vec(),
        Type::Time => vec![
            Literal::Time(0),
            Literal::Time(1_704_164_645_000_000),
            Literal::Time(i64::MAX),
        ],
    }
}

fn string(dice: &mut Dice) -> String {
    let text = match dice.below(12) {
        0 => String::new(),
        1 => dice.pick(&TIMES).to_string(),
        2 => dice.pick(&NUMBERS).to_string(),
        3 => match dice.below(2) {
            0 => "long ".repeat(60) + dice.pick::<&str>(&WORDS),
            _ => format!("{}{}", dice.pick::<&str>(&WORDS), " long".repeat(60)),
        },
        4 => "x".repeat(255 + dice.below(3)),
        5 => "nul\\u0000and \\u0001 control".to_owned(),
        6 => "\\ud83d\\ude00 \\ud800".to_owned(),
        7 => ["true", " false ", "off", "1"][dice.below(4)].to_owned(),
        8 | 9 => dice.pick(&WORDS).to_string(),
        _ => (0..1 + dice.below(5))
            .map(|_| *dice.pick(&WORDS))
            .collect::<Vec<_>>()
            .join([" ", "-", ", "][dice.below(3)]),
    };
    format!("\"{text}\"")
}

fn value(dice: &mut Dice, depth: usize) -> String {
    match dice.below(if depth > 4 { 8 } else { 12 }) {
        0 => "null".into(),
        1 => ["true", "false"][dice.below(2)].into(),
        2 | 3 => dice.pick(&NUMBERS).to_string(),
        4..=7 => string(dice),
        8 | 9 => {
            let items: Vec<String> = (0..dice.below(4)).map(|_| value(dice, depth + 1)).collect();
            format!("[{}]", items.join(","))
        }
        _ => object(dice, depth + 1),
    }
}

fn object(dice: &mut Dice, depth: usize) -> String {
    let entries: Vec<String> = (0..dice.below(6))
        .map(|_| format!("\"{}\":{}", dice.pick(&KEYS), value(dice, depth)))
        .collect();
    format!("{{{}}}", entries.join(", "))
}

/// A document with the same kind at each path, so that some columns have no cast failures.
fn plain(dice: &mut Dice) -> String {
    let (n, b) = (dice.below(1_000), dice.one_in(2));
    format!(
        r#"{{"a":{{"b":{n}}},"n":{n},"f":{n}.25,"ok":{b},"t":"{}","id":"u-{}","msg":"{} {}","ids":[{n},{}],"items":[{{"sku":"s{n}","q":1}},{{"sku":"S-2"}}]}}"#,
        TIMES[dice.below(2)],
        dice.below(30),
        dice.pick(&WORDS),
        dice.pick(&WORDS),
        n + 1
    )
}

fn deep(dice: &mut Dice) -> String {
    let depth = 15 + dice.below(60);
    format!("{}{}{}", "{\"a\":".repeat(depth), value(dice, 5), "}".repeat(depth))
}

fn body(dice: &mut Dice, odd: bool) -> String {
    match dice.below(20) {
        0 if odd => value(dice, 0),
        1 if odd => deep(dice),
        2 | 3 => object(dice, 0),
        _ if odd && dice.one_in(2) => object(dice, 0),
        _ => plain(dice),
    }
}

/// About `count` documents in address order. Odd seeds produce stranger documents.
pub(crate) fn documents(seed: u64, count: usize) -> Vec<Arc<Document>> {
    let mut dice = Dice::new(seed);
    let odd = seed % 2 == 1;
    let mut documents: Vec<Document> = (0..count)
        .map(|number| document(&mut dice, number as i64, odd))
        .collect();
    documents.sort_by(|a, b| a.address.cmp(&b.address));
    documents.dedup_by(|a, b| a.address == b.address);
    documents.into_iter().map(Arc::new).collect()
}

fn document(dice: &mut Dice, number: i64, odd: bool) -> Document {
    let source = dice.pick(&["clicks", "push", "other.topic"]).parse().expect("a name");
    let item = dice.one_in(3).then(|| dice.below(4) as u32);
    let address = Address {
        source,
        partition: dice.below(3) as i32,
        offset: number * 3 / 2,
        item,
    };
    let json = !(odd && dice.one_in(15));
    let text = if json {
        body(dice, odd)
    } else {
        format!("plain {} text {}", dice.pick(&WORDS), dice.pick(&WORDS))
    };
    let header = Header {
        ingested_ms: 1_700_000_000_000 + number * 1_000,
        time_ms: 1_600_000_000_000 + dice.below(1_000_000) as i64,
        time_kind: [TimeKind::None, TimeKind::Create, TimeKind::Append][dice.below(3)],
        id: dice.one_in(2).then(|| format!("id {number}").into()),
        json,
        ..Header::default()
    };
    Document {
        address,
        header,
        bytes: Bytes::from(text),
    }
}
