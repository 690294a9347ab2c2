//! The demo streams: events of a small web shop, and the log lines of its servers, pushed over HTTP as any client would.
//!
//! Realistic rather than random: some products sell better than others, a session views products before it buys, and
//! some requests fail. As in real data, types vary: a price is sometimes text, a quantity sometimes missing, and errors
//! are free text.

mod logs;

use std::time::Duration;

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

/// The collection of the events.
const EVENTS: &str = "shop";
/// The collection of the log lines.
const LOGS: &str = "logs";
/// Twenty events and as many lines per second: every 250 ms a push of five to each collection.
const PUSH_INTERVAL: Duration = Duration::from_millis(250);
const PUSH_DOCUMENTS: usize = 5;
/// Concurrent sessions.
const SESSIONS: usize = 40;

struct Product {
    sku: &'static str,
    name: &'static str,
    category: &'static str,
    cents: u32,
    /// How often it is viewed, relative to the others.
    weight: u32,
}

const fn product(sku: &'static str, name: &'static str, category: &'static str, cents: u32, weight: u32) -> Product {
    Product {
        sku,
        name,
        category,
        cents,
        weight,
    }
}

const PRODUCTS: [Product; 12] = [
    product("KB-104", "Mechanical keyboard", "peripherals", 8_990, 9),
    product("MS-220", "Wireless mouse", "peripherals", 3_490, 10),
    product("MN-270", "27 inch monitor", "displays", 24_900, 6),
    product("MN-340", "34 inch curved monitor", "displays", 52_900, 2),
    product("LP-130", "Laptop stand, aluminium", "accessories", 4_250, 7),
    product("CB-002", "USB-C cable, 2 m", "accessories", 1_290, 14),
    product("HD-500", "External SSD, 1 TB", "storage", 9_900, 8),
    product("HP-310", "Noise cancelling headphones", "audio", 19_900, 8),
    product("SP-110", "Bluetooth speaker", "audio", 5_990, 5),
    product("CH-900", "Office chair", "furniture", 28_900, 3),
    product("DK-160", "Standing desk", "furniture", 44_900, 2),
    product("LM-040", "Desk lamp", "furniture", 3_990, 5),
];

const CITIES: [(&str, &str, f64, f64); 8] = [
    ("Berlin", "DE", 52.52, 13.40),
    ("München", "DE", 48.14, 11.58),
    ("Zürich", "CH", 47.38, 8.54),
    ("Wien", "AT", 48.21, 16.37),
    ("Paris", "FR", 48.86, 2.35),
    ("Amsterdam", "NL", 52.37, 4.90),
    ("København", "DK", 55.68, 12.57),
    ("Kraków", "PL", 50.06, 19.94),
];

const REVIEWS: [(u8, &str); 8] = [
    (5, "Exactly what I needed, arrived within two days"),
    (5, "Works out of the box, would buy again"),
    (4, "Good value, but the manual is hard to read"),
    (4, "Solid build quality. Slightly heavier than expected"),
    (3, "Does the job; packaging was damaged"),
    (2, "Stopped working after a week, support was helpful though"),
    (1, "Wrong item delivered and nobody answers my mails"),
    (1, "Cable too short, returned it"),
];

const ERRORS: [&str; 4] = [
    "payment provider timed out after 3000 ms, retrying",
    "out of stock while reserving item",
    "card declined: insufficient funds",
    "cannot render invoice: template variable customer.vat_id is missing",
];

const SEARCHES: [&str; 6] = [
    "usb c cable",
    "quiet keyboard",
    "4k monitor",
    "gift under 50",
    "headphones noise cancelling",
    "desk 160x80",
];

/// Pushes events and log lines until shutdown.
pub(crate) async fn run(url: String, shutdown: CancellationToken) {
    let mut shop = Shop::new(StdRng::from_rng(&mut rand::rng()));
    let mut rng = StdRng::from_rng(&mut rand::rng());
    tokio::join!(
        push(&url, EVENTS, &shutdown, || shop.event(now())),
        push(&url, LOGS, &shutdown, || logs::line(&mut rng, now()))
    );
}

/// Pushes documents to a collection until shutdown.
async fn push(url: &str, collection: &str, shutdown: &CancellationToken, mut document: impl FnMut() -> Value) {
    let client = reqwest::Client::new();
    let base = format!("{url}/v1/collections/{collection}");
    let settings = client.put(&base).json(&json!({ "time_path": "time" })).send();
    if let Some(Err(error)) = shutdown.run_until_cancelled(settings).await {
        warn!(collection, %error, "could not create the demo collection");
    }
    info!(collection, "demo stream started");
    let mut ticks = tokio::time::interval(PUSH_INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
        let lines: Vec<String> = (0..PUSH_DOCUMENTS).map(|_| document().to_string()).collect();
        let push = client
            .post(format!("{base}/documents"))
            .header("content-type", "application/x-ndjson")
            .body(lines.join("\n"))
            .send();
        match shutdown.run_until_cancelled(push).await {
            Some(Ok(answer)) if answer.status().is_success() => {}
            Some(Ok(answer)) => debug!(status = answer.status().as_u16(), "demo push refused"),
            Some(Err(error)) => debug!(%error, "demo push failed"),
            None => return,
        }
    }
}

/// The current time in RFC 3339 with milliseconds.
fn now() -> String {
    chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// A visit to the shop.
struct Session {
    id: String,
    customer: u32,
    city: usize,
    cart: Vec<(usize, u32)>,
    /// Remaining events.
    remaining: u32,
}

struct Shop<R> {
    rng: R,
    sessions: Vec<Session>,
    orders: u64,
}

impl<R: Rng> Shop<R> {
    fn new(mut rng: R) -> Self {
        let orders = u64::from(rng.random_range(100_000..200_000_u32));
        Self {
            rng,
            sessions: Vec::new(),
            orders,
        }
    }

    fn event(&mut self, time: String) -> Value {
        let at = self.next_session();
        let kind = self.rng.random_range(0..100_u32);
        let last = self.sessions[at].remaining == 0;
        let mut event = match kind {
            _ if last && !self.sessions[at].cart.is_empty() => self.order(at),
            0..55 => self.view(),
            55..70 => self.cart(at),
            70..82 => {
                json!({ "type": "search", "query": self.pick(&SEARCHES), "results": self.rng.random_range(0..60_u32) })
            }
            82..90 => self.review(),
            _ => self.error(),
        };
        let session = &self.sessions[at];
        let (city, country, lat, lon) = CITIES[session.city];
        event["time"] = time.into();
        event["session"] = session.id.clone().into();
        event["customer"] =
            json!({ "id": session.customer, "address": { "city": city, "country": country, "location": [lat, lon] } });
        if session.customer.is_multiple_of(5) {
            event["customer"]["tier"] = "gold".into();
        }
        if last {
            self.sessions.swap_remove(at);
        }
        event
    }

    /// The index of the session of the next event.
    fn next_session(&mut self) -> usize {
        if self.sessions.len() < SESSIONS {
            let id = format!("{:08x}", self.rng.random::<u32>());
            let (customer, city, remaining) = (
                self.rng.random_range(1_000..4_000),
                self.rng.random_range(0..CITIES.len()),
                self.rng.random_range(2..15),
            );
            self.sessions.push(Session {
                id,
                customer,
                city,
                cart: Vec::new(),
                remaining,
            });
        }
        let at = self.rng.random_range(0..self.sessions.len());
        self.sessions[at].remaining = self.sessions[at].remaining.saturating_sub(1);
        at
    }

    fn product(&mut self) -> usize {
        let all: u32 = PRODUCTS.iter().map(|product| product.weight).sum();
        let mut drawn = self.rng.random_range(0..all);
        for (at, product) in PRODUCTS.iter().enumerate() {
            if drawn < product.weight {
                return at;
            }
            drawn -= product.weight;
        }
        0
    }

    fn view(&mut self) -> Value {
        let product = &PRODUCTS[self.product()];
        // One of the shop's older pages sends prices as text.
        let price = if self.rng.random_bool(0.1) {
            json!(euros_text(product.cents))
        } else {
            json!(euros(product.cents))
        };
        let ms = (20.0 * (-self.rng.random::<f64>().max(1e-9).ln())).round() + 5.0;
        json!({
            "type": "view",
            "product": { "sku": product.sku, "name": product.name, "category": product.category, "price": price },
            "ms": ms as u64,
            "referrer": self.pick(&["search", "newsletter", "direct", "ad"]),
        })
    }

    fn cart(&mut self, at: usize) -> Value {
        let (product, quantity) = (self.product(), self.rng.random_range(1..4_u32));
        self.sessions[at].cart.push((product, quantity));
        let product = &PRODUCTS[product];
        json!({
            "type": "cart_add",
            "product": { "sku": product.sku, "name": product.name, "price": euros(product.cents) },
            "quantity": quantity,
        })
    }

    fn order(&mut self, at: usize) -> Value {
        self.orders += 1;
        let cart = std::mem::take(&mut self.sessions[at].cart);
        let cents: u32 = cart
            .iter()
            .map(|(product, quantity)| PRODUCTS[*product].cents * quantity)
            .sum();
        let items: Vec<Value> = cart
            .iter()
            .map(|(product, quantity)| {
                let product = &PRODUCTS[*product];
                json!({ "sku": product.sku, "name": product.name, "quantity": quantity, "price": euros(product.cents) })
            })
            .collect();
        let coupon = self
            .rng
            .random_bool(0.2)
            .then(|| self.pick(&["WELCOME10", "SPRING", "FRIENDS"]));
        json!({
            "type": "order",
            "order": {
                "id": format!("o-{}", self.orders),
                "total": euros(cents),
                "currency": "EUR",
                "coupon": coupon,
                "items": items,
            },
            "payment": { "method": self.pick(&["card", "paypal", "invoice"]), "ok": self.rng.random_bool(0.96) },
        })
    }

    fn review(&mut self) -> Value {
        let product = &PRODUCTS[self.product()];
        let (stars, text) = REVIEWS[self.rng.random_range(0..REVIEWS.len())];
        // Some apps send stars as text.
        let stars = if self.rng.random_bool(0.15) {
            json!(stars.to_string())
        } else {
            json!(stars)
        };
        json!({
            "type": "review",
            "product": { "sku": product.sku, "name": product.name },
            "stars": stars,
            "text": text,
            "tags": ["public"],
        })
    }

    fn error(&mut self) -> Value {
        let level = if self.rng.random_bool(0.3) { "error" } else { "warn" };
        json!({
            "type": "log",
            "level": level,
            "service": self.pick(&["checkout", "stock", "invoice"]),
            "message": self.pick(&ERRORS),
        })
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from.choose(&mut self.rng).copied().unwrap_or_default()
    }
}

fn euros(cents: u32) -> f64 {
    f64::from(cents) / 100.0
}

fn euros_text(cents: u32) -> String {
    format!("{},{:02} €", cents / 100, cents % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_has_every_kind_of_event_and_mixed_types() {
        let seed = rand::random::<u64>();
        print_seed(seed);
        let mut shop = Shop::new(StdRng::seed_from_u64(seed));
        let events: Vec<Value> = (0..5_000)
            .map(|_| shop.event("2026-01-01T00:00:00.000Z".into()))
            .collect();
        for kind in ["view", "cart_add", "order", "search", "review", "log"] {
            assert!(
                events.iter().filter(|event| event["type"] == kind).count() > 50,
                "{kind}"
            );
        }
        let prices = || events.iter().map(|event| &event["product"]["price"]);
        assert!(prices().any(Value::is_string) && prices().any(Value::is_number));
        let order = events.iter().find(|event| event["type"] == "order").expect("one");
        let sum: f64 = order["order"]["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|i| i["price"].as_f64().unwrap_or(0.0) * i["quantity"].as_f64().unwrap_or(0.0))
            .sum();
        assert!((sum - order["order"]["total"].as_f64().expect("a total")).abs() < 0.01);
        assert!(shop.sessions.len() <= SESSIONS);
    }

    fn print_seed(seed: u64) {
        use std::io::Write as _;
        let _ = writeln!(std::io::stderr(), "seed {seed}");
    }
}
