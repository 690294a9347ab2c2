//! Bluesky-like events: what JSONBench measures with, made up, the same for the same seed.
//!
//! Shares of the collections, of creates among their events and of distinct users per collection follow the published
//! counts of JSONBench's file of a million documents; field order and record shapes follow public Jetstream events.
//! Text is words by Zipf's law with a long tail, so searches have frequent and rare terms; identifiers are as random as
//! real ones. Document `i` depends on the seed and on `i` alone.

use std::fmt::Write as _;

/// Microseconds since 1970 of the first event, and between two events.
const FIRST_US: u64 = 1_732_206_349_000_167;
const STEP_US: u64 = 813;
/// Users there are at all.
const USERS: u64 = 4_000_000;

/// A collection: its name, events and creates among a million documents, and how many users its creates are drawn from.
struct Share {
    name: &'static str,
    events: u64,
    creates: u64,
    users: u64,
}

const fn share(name: &'static str, events: u64, creates: u64, users: u64) -> Share {
    Share {
        name,
        events,
        creates,
        users,
    }
}

const SHARES: [Share; 13] = [
    share("app.bsky.feed.like", 448_944, 444_523, 240_000),
    share("app.bsky.graph.follow", 360_374, 337_978, 110_000),
    share("app.bsky.feed.post", 90_816, 86_812, 160_000),
    share("app.bsky.feed.repost", 58_540, 56_993, 60_000),
    share("app.bsky.graph.block", 14_040, 13_838, 11_000),
    share("app.bsky.actor.profile", 11_762, 5_337, USERS),
    share("app.bsky.graph.listitem", 8_103, 7_568, 1_600),
    share("", 5_328, 0, USERS),
    share("app.bsky.graph.listblock", 895, 860, 800),
    share("app.bsky.graph.starterpack", 405, 104, 2_000),
    share("app.bsky.graph.list", 356, 259, 800),
    share("app.bsky.feed.threadgate", 255, 228, 1_000),
    share("app.bsky.feed.postgate", 182, 101, 500),
];

const WORDS: &str = "the to a and of in i is it that for you this on my with be have was so are not but just me at they all what like if we out \
    people your about from can or one up do get time as no how more good when will now love know think because see new day thanks please look \
    feel again most world last post friends follow art news music book photo morning night vote government climate data science coffee cat dog \
    weather football team player school health energy free support community history project code server open source design color paint comic \
    stream live watch movie show episode story writing read podcast album song band tour market price economy law city street house garden food \
    dinner recipe bread wine train bike car road airport travel summer winter snow rain storm sun moon space rocket planet ocean river forest \
    bird fish tree flower não você muito hoje gracias siempre nicht heute danke merci aujourd'hui ありがとう おはよう かわいい 今日 오늘 고양이";

/// SplitMix64 (Steele, Lea, Flood 2014): enough for made-up data, and the same for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// Below `n`, evenly.
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.roll()) * u128::from(n.max(1))) >> 64) as u64
    }
    /// In `[0, 1)`.
    fn unit(&mut self) -> f64 {
        (self.roll() >> 11) as f64 / (1u64 << 53) as f64
    }
    /// Below `n`, by Zipf's law with exponent 1.
    fn zipf(&mut self, n: u64) -> u64 {
        ((n as f64).powf(self.unit()) as u64).saturating_sub(1)
    }
    fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }
}

const BASE32: &[u8; 32] = b"234567abcdefghijklmnopqrstuvwxyz";

/// `count` characters of base 32 that follow from `seed`.
fn letters(out: &mut String, seed: u64, count: usize) {
    let mut dice = Dice(seed);
    let mut bits = 0;
    for i in 0..count {
        if i % 12 == 0 {
            bits = dice.roll();
        }
        out.push(char::from(BASE32[(bits & 31) as usize]));
        bits >>= 5;
    }
}

fn did(out: &mut String, user: u64) {
    out.push_str("did:plc:");
    letters(out, user ^ 0xD1D0, 24);
}

fn cid(out: &mut String, seed: u64) {
    out.push_str("bafyrei");
    letters(out, seed, 52);
}

/// A sortable identifier of 13 characters, as revisions and record keys are.
fn tid(out: &mut String, us: u64, clock: u64) {
    let bits = (us << 10 | (clock & 1023)) & (u64::MAX >> 1);
    for i in (0..13).rev() {
        out.push(char::from(BASE32[(bits >> (5 * i) & 31) as usize]));
    }
}

fn time(out: &mut String, us: u64) {
    // Civil from days (Howard Hinnant, "chrono-compatible low-level date algorithms").
    let (days, rest) = (us / 86_400_000_000, us % 86_400_000_000);
    let z = days + 719_468;
    let (era, doe) = (z / 146_097, z % 146_097);
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let (day, month) = (doy - (153 * mp + 2) / 5 + 1, if mp < 10 { mp + 3 } else { mp - 9 });
    let year = yoe + era * 400 + u64::from(month <= 2);
    let (ms, s) = (rest / 1000 % 1000, rest / 1_000_000);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z",
        s / 3600,
        s / 60 % 60,
        s % 60
    );
}

/// A word of the tail.
fn rare(dice: &mut Dice) -> String {
    const SYLLABLES: [&str; 24] = [
        "ba", "ce", "di", "fo", "gu", "hai", "jou", "ka", "le", "mi", "no", "pu", "rai", "sou", "ta", "ve", "wi", "zo",
        "chu", "sta", "tri", "lo", "ne", "ri",
    ];
    let rank = dice.zipf(60_000).wrapping_mul(2_654_435_761);
    (0..2 + rank % 2)
        .map(|i| SYLLABLES[(rank >> (5 * i) & 0xFFFF) as usize % SYLLABLES.len()])
        .collect()
}

fn text(out: &mut String, dice: &mut Dice, words: &[&str]) {
    let count = 1 + (-15.0 * (1.0 - dice.unit()).ln()).min(40.0) as usize;
    for i in 0..count {
        out.push_str(if i == 0 { "" } else { " " });
        if dice.chance(0.2) {
            out.push_str(&rare(dice))
        } else {
            out.push_str(words[dice.zipf(words.len() as u64) as usize])
        }
    }
    out.push_str([".", "!", "?", "", "\\n\\n🦋"][dice.below(5) as usize]);
}

/// A post that others like, repost or answer: few are popular.
fn popular(out: &mut String, dice: &mut Dice) {
    let post = dice.zipf(6_000_000);
    out.push_str("\"cid\":\"");
    cid(out, post ^ 0xB057);
    out.push_str("\",\"uri\":\"at://");
    did(out, post.wrapping_mul(7919) % USERS);
    out.push_str("/app.bsky.feed.post/");
    tid(out, FIRST_US - post * 28_000, post);
    out.push('"');
}

fn blob(out: &mut String, dice: &mut Dice) {
    out.push_str("{\"$type\":\"blob\",\"ref\":{\"$link\":\"");
    cid(out, dice.roll());
    let _ = write!(
        out,
        "\"}},\"mimeType\":\"image/jpeg\",\"size\":{}}}",
        20_000 + dice.below(900_000)
    );
}

fn post(out: &mut String, dice: &mut Dice, words: &[&str]) {
    if dice.chance(0.21) {
        out.push_str("\"embed\":{\"$type\":\"app.bsky.embed.images\",\"images\":[{\"alt\":\"");
        if dice.chance(0.25) {
            text(out, dice, words);
        }
        let _ = write!(
            out,
            "\",\"aspectRatio\":{{\"height\":{},\"width\":{}}},\"image\":",
            300 + dice.below(1700),
            300 + dice.below(1700)
        );
        blob(out, dice);
        out.push_str("}]},");
    } else if dice.chance(0.13) {
        out.push_str("\"embed\":{\"$type\":\"app.bsky.embed.external\",\"external\":{\"description\":\"");
        text(out, dice, words);
        out.push_str("\",\"thumb\":");
        blob(out, dice);
        let _ = write!(
            out,
            ",\"uri\":\"https://{}.example/{}\"}}}},",
            rare(dice),
            dice.below(10_000_000)
        );
    }
    out.push_str("\"langs\":[\"en\"],");
    if dice.chance(0.42) {
        out.push_str("\"reply\":{\"parent\":{");
        popular(out, dice);
        out.push_str("},\"root\":{");
        popular(out, dice);
        out.push_str("}},");
    }
    out.push_str("\"text\":\"");
    text(out, dice, words);
    out.push('"');
}

fn record(out: &mut String, dice: &mut Dice, collection: &str, us: u64, words: &[&str]) {
    let _ = write!(out, "{{\"$type\":\"{collection}\",\"createdAt\":\"");
    time(out, us - 300_000 - dice.below(1_400_000));
    out.push_str("\",");
    match collection {
        "app.bsky.feed.like" | "app.bsky.feed.repost" => {
            out.push_str("\"subject\":{");
            popular(out, dice);
            out.push('}');
        }
        "app.bsky.feed.post" => post(out, dice, words),
        "app.bsky.actor.profile" => {
            out.push_str("\"avatar\":");
            blob(out, dice);
            out.push_str(",\"description\":\"");
            text(out, dice, words);
            let _ = write!(out, "\",\"displayName\":\"{} {}\"", rare(dice), rare(dice));
        }
        _ => {
            out.push_str("\"subject\":\"");
            did(out, dice.zipf(USERS));
            out.push('"');
        }
    }
    out.push('}');
}

/// Makes documents of one seed.
pub struct Bluesky {
    seed: u64,
    words: Vec<&'static str>,
}

impl Bluesky {
    /// The documents of this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            words: WORDS.split_whitespace().collect(),
        }
    }

    /// Appends document `i`, without a line end.
    pub fn document(&self, i: u64, out: &mut String) {
        let mut dice = Dice(self.seed.wrapping_mul(0xA076_1D64_78BD_642F) ^ i.wrapping_mul(0xE703_7ED1_A0B4_28DB));
        let us = FIRST_US + i * STEP_US + dice.below(3000);
        let total: u64 = SHARES.iter().map(|share| share.events).sum();
        let mut at = dice.below(total);
        let share = SHARES
            .iter()
            .find(|share| at.checked_sub(share.events).map(|rest| at = rest).is_none())
            .unwrap_or(&SHARES[0]);
        // Most users do little, some do much: the square of an even draw.
        let user = ((dice.unit().powi(2) * share.users as f64) as u64 + share.name.len() as u64 * 977) % USERS;
        out.push_str("{\"did\":\"");
        did(out, user);
        let _ = write!(out, "\",\"time_us\":{us},");
        if share.name.is_empty() {
            out.push_str("\"kind\":\"identity\",\"identity\":{\"did\":\"");
            did(out, user);
            let _ = write!(
                out,
                "\",\"handle\":\"{}.bsky.social\",\"seq\":{},\"time\":\"",
                rare(&mut dice),
                4_000_000_000 + i
            );
            time(out, us - 200_000);
            out.push_str("\"}}");
            return;
        }
        let create = dice.below(share.events) < share.creates;
        let operation = if create {
            "create"
        } else {
            ["delete", "update"][usize::from(share.name.ends_with("profile"))]
        };
        out.push_str("\"kind\":\"commit\",\"commit\":{\"rev\":\"");
        tid(out, us - 400_000, dice.roll());
        let _ = write!(
            out,
            "\",\"operation\":\"{operation}\",\"collection\":\"{}\",\"rkey\":\"",
            share.name
        );
        tid(out, us - 900_000, dice.roll());
        out.push('"');
        if operation != "delete" {
            out.push_str(",\"record\":");
            record(out, &mut dice, share.name, us, &self.words);
            out.push_str(",\"cid\":\"");
            cid(out, dice.roll());
            out.push('"');
        }
        out.push_str("}}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn documents(seed: u64, count: u64) -> Vec<String> {
        let bluesky = Bluesky::new(seed);
        let document = |i| {
            let mut out = String::new();
            bluesky.document(i, &mut out);
            out
        };
        (0..count).map(document).collect()
    }

    #[test]
    fn the_same_seed_gives_the_same_documents_and_every_one_is_json() {
        let made = documents(1, 20_000);
        assert_eq!(made, documents(1, 20_000));
        assert_ne!(made[0], documents(2, 1)[0]);
        assert!(
            made.iter()
                .all(|document| serde_json::from_str::<serde_json::Value>(document).is_ok())
        );
        let mean = made.iter().map(String::len).sum::<usize>() / made.len();
        assert!((400..560).contains(&mean), "{mean} bytes a document");
    }

    #[test]
    fn shares_and_users_are_those_of_the_published_file() {
        let made: Vec<serde_json::Value> = documents(1, 100_000)
            .iter()
            .filter_map(|document| serde_json::from_str(document).ok())
            .collect();
        let of = |name: &str| {
            made.iter()
                .filter(|d| d["commit"]["collection"] == name)
                .collect::<Vec<_>>()
        };
        let likes = of("app.bsky.feed.like");
        assert!((43_500..46_500).contains(&likes.len()), "{} likes", likes.len());
        let creates = of("app.bsky.feed.post")
            .iter()
            .filter(|d| d["commit"]["operation"] == "create")
            .count();
        assert!((8_200..9_200).contains(&creates), "{creates} posts created");
        let users: std::collections::HashSet<&str> = likes.iter().filter_map(|d| d["did"].as_str()).collect();
        assert!(
            (25_000..43_000).contains(&users.len()),
            "{} users who like",
            users.len()
        );
    }
}
