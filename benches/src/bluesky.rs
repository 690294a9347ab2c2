//! Generates synthetic Bluesky events like those of JSONBench, reproducibly from a seed.
//!
//! The shares of collections, of creates among their events and of distinct users per collection follow the published
//! counts of JSONBench's file of a million documents. Field order and record shapes follow public Jetstream events.
//! Words follow Zipf's law with a long tail, so searches have frequent and rare terms. Identifiers are as random as
//! real ones. Document `i` depends only on the seed and on `i`.

use std::fmt::Write as _;

/// The time of the first event in microseconds since 1970, and the time between two events.
const FIRST_US: u64 = 1_732_206_349_000_167;
const STEP_US: u64 = 813;
/// All users.
const USERS: u64 = 4_000_000;

/// A collection: its name, its events and creates per million documents, and the number of users to draw from.
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

const WORDS: &str = "\
    the to a and of in i is it that for you this on my with be have was so are not but just me at they all what like \
    if we out people your about from can or one up do get time as no how more good when will now love know think \
    because see new day thanks please look feel again most world last post friends follow art news music book photo \
    morning night vote government climate data science coffee cat dog weather football team player school health \
    energy free support community history project code server open source design color paint comic stream live watch \
    movie show episode story writing read podcast album song band tour market price economy law city street house \
    garden food dinner recipe bread wine train bike car road airport travel summer winter snow rain storm sun moon \
    space rocket planet ocean river forest bird fish tree flower não você muito hoje gracias siempre nicht heute \
    danke merci aujourd'hui ありがとう おはよう かわいい 今日 오늘 고양이";

/// SplitMix64 (Steele, Lea, Flood 2014): sufficient for synthetic data, and stable across library versions.
struct SplitMix64(u64);

impl SplitMix64 {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// Uniform, below `n`.
    fn below(&mut self, n: u64) -> u64 {
        ((u128::from(self.next_u64()) * u128::from(n.max(1))) >> 64) as u64
    }
    /// Uniform in `[0, 1)`.
    fn unit(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 / (1u64 << 53) as f64
    }
    /// Below `n`, Zipf-distributed with exponent 1.
    fn zipf(&mut self, n: u64) -> u64 {
        ((n as f64).powf(self.unit()) as u64).saturating_sub(1)
    }
    fn chance(&mut self, share: f64) -> bool {
        self.unit() < share
    }
}

const BASE32: &[u8; 32] = b"234567abcdefghijklmnopqrstuvwxyz";

/// Appends `count` base-32 characters derived from `seed`.
fn base32(out: &mut String, seed: u64, count: usize) {
    let mut rng = SplitMix64(seed);
    let mut bits = 0;
    for i in 0..count {
        if i % 12 == 0 {
            bits = rng.next_u64();
        }
        out.push(char::from(BASE32[(bits & 31) as usize]));
        bits >>= 5;
    }
}

fn did(out: &mut String, user: u64) {
    out.push_str("did:plc:");
    base32(out, user ^ 0xD1D0, 24);
}

fn cid(out: &mut String, seed: u64) {
    out.push_str("bafyrei");
    base32(out, seed, 52);
}

/// A sortable identifier (TID) of 13 characters, used for revisions and record keys.
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

/// A word from the long tail.
fn rare_word(rng: &mut SplitMix64) -> String {
    const SYLLABLES: [&str; 24] = [
        "ba", "ce", "di", "fo", "gu", "hai", "jou", "ka", "le", "mi", "no", "pu", "rai", "sou", "ta", "ve", "wi", "zo",
        "chu", "sta", "tri", "lo", "ne", "ri",
    ];
    let rank = rng.zipf(60_000).wrapping_mul(2_654_435_761);
    (0..2 + rank % 2)
        .map(|i| SYLLABLES[(rank >> (5 * i) & 0xFFFF) as usize % SYLLABLES.len()])
        .collect()
}

fn text(out: &mut String, rng: &mut SplitMix64, words: &[&str]) {
    let count = 1 + (-15.0 * (1.0 - rng.unit()).ln()).min(40.0) as usize;
    for i in 0..count {
        out.push_str(if i == 0 { "" } else { " " });
        if rng.chance(0.2) {
            out.push_str(&rare_word(rng))
        } else {
            out.push_str(words[rng.zipf(words.len() as u64) as usize])
        }
    }
    out.push_str([".", "!", "?", "", "\\n\\n🦋"][rng.below(5) as usize]);
}

/// A reference to a post; a few posts get most references.
fn post_reference(out: &mut String, rng: &mut SplitMix64) {
    let post = rng.zipf(6_000_000);
    out.push_str("\"cid\":\"");
    cid(out, post ^ 0xB057);
    out.push_str("\",\"uri\":\"at://");
    did(out, post.wrapping_mul(7919) % USERS);
    out.push_str("/app.bsky.feed.post/");
    tid(out, FIRST_US - post * 28_000, post);
    out.push('"');
}

fn blob(out: &mut String, rng: &mut SplitMix64) {
    out.push_str("{\"$type\":\"blob\",\"ref\":{\"$link\":\"");
    cid(out, rng.next_u64());
    let _ = write!(
        out,
        "\"}},\"mimeType\":\"image/jpeg\",\"size\":{}}}",
        20_000 + rng.below(900_000)
    );
}

fn post(out: &mut String, rng: &mut SplitMix64, words: &[&str]) {
    if rng.chance(0.21) {
        out.push_str("\"embed\":{\"$type\":\"app.bsky.embed.images\",\"images\":[{\"alt\":\"");
        if rng.chance(0.25) {
            text(out, rng, words);
        }
        let _ = write!(
            out,
            "\",\"aspectRatio\":{{\"height\":{},\"width\":{}}},\"image\":",
            300 + rng.below(1700),
            300 + rng.below(1700)
        );
        blob(out, rng);
        out.push_str("}]},");
    } else if rng.chance(0.13) {
        out.push_str("\"embed\":{\"$type\":\"app.bsky.embed.external\",\"external\":{\"description\":\"");
        text(out, rng, words);
        out.push_str("\",\"thumb\":");
        blob(out, rng);
        let _ = write!(
            out,
            ",\"uri\":\"https://{}.example/{}\"}}}},",
            rare_word(rng),
            rng.below(10_000_000)
        );
    }
    out.push_str("\"langs\":[\"en\"],");
    if rng.chance(0.42) {
        out.push_str("\"reply\":{\"parent\":{");
        post_reference(out, rng);
        out.push_str("},\"root\":{");
        post_reference(out, rng);
        out.push_str("}},");
    }
    out.push_str("\"text\":\"");
    text(out, rng, words);
    out.push('"');
}

fn record(out: &mut String, rng: &mut SplitMix64, collection: &str, us: u64, words: &[&str]) {
    let _ = write!(out, "{{\"$type\":\"{collection}\",\"createdAt\":\"");
    time(out, us - 300_000 - rng.below(1_400_000));
    out.push_str("\",");
    match collection {
        "app.bsky.feed.like" | "app.bsky.feed.repost" => {
            out.push_str("\"subject\":{");
            post_reference(out, rng);
            out.push('}');
        }
        "app.bsky.feed.post" => post(out, rng, words),
        "app.bsky.actor.profile" => {
            out.push_str("\"avatar\":");
            blob(out, rng);
            out.push_str(",\"description\":\"");
            text(out, rng, words);
            let _ = write!(out, "\",\"displayName\":\"{} {}\"", rare_word(rng), rare_word(rng));
        }
        _ => {
            out.push_str("\"subject\":\"");
            did(out, rng.zipf(USERS));
            out.push('"');
        }
    }
    out.push('}');
}

/// Generates the documents of one seed.
pub(crate) struct Bluesky {
    seed: u64,
    words: Vec<&'static str>,
}

impl Bluesky {
    /// A generator for this seed.
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            seed,
            words: WORDS.split_whitespace().collect(),
        }
    }

    /// Appends document `i`, without a line break.
    pub(crate) fn document(&self, i: u64, out: &mut String) {
        let mut rng = SplitMix64(self.seed.wrapping_mul(0xA076_1D64_78BD_642F) ^ i.wrapping_mul(0xE703_7ED1_A0B4_28DB));
        let us = FIRST_US + i * STEP_US + rng.below(3000);
        let total: u64 = SHARES.iter().map(|share| share.events).sum();
        let mut at = rng.below(total);
        let share = SHARES
            .iter()
            .find(|share| at.checked_sub(share.events).map(|rest| at = rest).is_none())
            .unwrap_or(&SHARES[0]);
        // The square of a uniform draw: most users do little, a few do a lot.
        let user = ((rng.unit().powi(2) * share.users as f64) as u64 + share.name.len() as u64 * 977) % USERS;
        out.push_str("{\"did\":\"");
        did(out, user);
        let _ = write!(out, "\",\"time_us\":{us},");
        if share.name.is_empty() {
            out.push_str("\"kind\":\"identity\",\"identity\":{\"did\":\"");
            did(out, user);
            let _ = write!(
                out,
                "\",\"handle\":\"{}.bsky.social\",\"seq\":{},\"time\":\"",
                rare_word(&mut rng),
                4_000_000_000 + i
            );
            time(out, us - 200_000);
            out.push_str("\"}}");
            return;
        }
        let create = rng.below(share.events) < share.creates;
        let operation = if create {
            "create"
        } else {
            ["delete", "update"][usize::from(share.name.ends_with("profile"))]
        };
        out.push_str("\"kind\":\"commit\",\"commit\":{\"rev\":\"");
        tid(out, us - 400_000, rng.next_u64());
        let _ = write!(
            out,
            "\",\"operation\":\"{operation}\",\"collection\":\"{}\",\"rkey\":\"",
            share.name
        );
        tid(out, us - 900_000, rng.next_u64());
        out.push('"');
        if operation != "delete" {
            out.push_str(",\"record\":");
            record(out, &mut rng, share.name, us, &self.words);
            out.push_str(",\"cid\":\"");
            cid(out, rng.next_u64());
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
    fn a_seed_always_generates_the_same_documents_and_each_is_json() {
        let made = documents(1, 20_000);
        assert_eq!(made, documents(1, 20_000));
        assert_ne!(made[0], documents(2, 1)[0]);
        assert!(
            made.iter()
                .all(|document| serde_json::from_str::<serde_json::Value>(document).is_ok())
        );
        let mean = made.iter().map(String::len).sum::<usize>() / made.len();
        assert!((400..560).contains(&mean), "{mean} bytes per document");
    }

    #[test]
    fn shares_and_users_match_the_published_file() {
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
        assert!((8_200..9_200).contains(&creates), "{creates} posts are created");
        let users: std::collections::HashSet<&str> = likes.iter().filter_map(|d| d["did"].as_str()).collect();
        assert!(
            (25_000..43_000).contains(&users.len()),
            "{} users who like",
            users.len()
        );
    }
}
