//! Log lines of the shop's web servers, as messy as real ones: two releases write the duration in different units, one
//! client sends what it likes, and the application writes stack traces and JSON between the lines.

use rand::{Rng, RngExt, seq::IndexedRandom};
use serde_json::{Value, json};

const HOSTS: [&str; 3] = ["web-1", "web-2", "web-3"];
const USERS: [&str; 5] = ["-", "-", "-", "ada", "bob"];
const PATHS: [&str; 6] = [
    "/",
    "/products/KB-104?ref=mail",
    "/products/CB-002",
    "/search?q=usb%20c&page=2",
    "/cart",
    "/checkout?step=pay",
];
const STATUSES: [u16; 10] = [200, 200, 200, 200, 200, 200, 304, 302, 404, 500];
const AGENTS: [&str; 4] = [
    "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/17.0 \
     Mobile/15E148 Safari/604.1",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "curl/8.9.1",
];
const OTHERS: [&str; 3] = [
    "panic: invoice 4711: template variable customer.vat_id is missing\n  at render (invoice.js:88)",
    "level=warn msg=\"payment provider is slow\" took=2900ms retries=1",
    r#"{"level":"error","msg":"card declined","order":"A-1009"}"#,
];

/// One line, as a document.
pub(super) fn line(rng: &mut impl Rng, time: String) -> Value {
    let host = pick(rng, &HOSTS);
    let line = match rng.random_range(0..100_u32) {
        0..4 => pick(rng, &OTHERS).to_owned(),
        _ => request(rng, host, &time),
    };
    json!({ "time": time, "host": host, "line": line })
}

fn pick<'a>(rng: &mut impl Rng, all: &[&'a str]) -> &'a str {
    all.choose(rng).copied().unwrap_or_default()
}

/// A line of the access log. The server `web-3` runs the release that writes seconds.
fn request(rng: &mut impl Rng, host: &str, time: &str) -> String {
    let client = format!("203.0.113.{}", rng.random_range(1..60_u32));
    let (user, path, agent) = (pick(rng, &USERS), pick(rng, &PATHS), pick(rng, &AGENTS));
    let method = if path.starts_with("/checkout") { "POST" } else { "GET" };
    let status = STATUSES.choose(rng).copied().unwrap_or(200);
    let bytes = if status == 304 {
        "-".to_owned()
    } else {
        rng.random_range(200..90_000_u32).to_string()
    };
    let ms = rng.random_range(2..40_u32) * if status == 500 { 50 } else { 1 };
    let took = match host {
        "web-3" => format!("{:.3}s", f64::from(ms) / 1_000.0),
        _ => format!("{ms}ms"),
    };
    format!("{client} {user} [{time}] \"{method} {path} HTTP/1.1\" {status} {bytes} \"{agent}\" {took}")
}
