//! No statement harms the node. A server that may use 4 GiB of address space is given statements that ask for far more
//! memory or time: the ones that once ended it, and some that a program writes of the same kinds. Each is answered or
//! refused within its deadline, the server stays, and others are served meanwhile.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};
use reqwest::Method;
use serde_json::{Value, json};
use tests::{Server, Settings, eventually};

/// What the server may use of addresses, and what its queries may use of memory.
const ADDRESS_SPACE: u64 = 4 << 30;
const QUERY_BYTES: u64 = 256 << 20;
/// What a statement may take, and what may pass until its answer must be there: the deadline, the time in which a query
/// says so itself, and a slow machine.
const DEADLINE: Duration = Duration::from_secs(2);
const ANSWERED_WITHIN: Duration = Duration::from_secs(20);
/// Others push a document and ask a small question so often.
const OTHERS_EVERY: Duration = Duration::from_millis(200);
/// So much of a long answer is read.
const READ_BYTES_MAX: usize = 64 << 20;
/// How the ids of statements begin that are ended while they run.
const HOSTILE_IDS: &str = "0000000000004000";
/// How a hostile statement may end, besides with an answer.
const REFUSALS: [&str; 5] = ["limit_reached", "too_complex", "timeout", "not_supported", "bad_sql"];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_statement_ends_the_server_or_outlives_its_deadline() {
    let asked: Option<usize> = std::env::var("RACHIS_STATEMENTS").ok().and_then(|n| n.parse().ok());
    // A short run asks the same statements each time, a long one others.
    let mut rng = StdRng::seed_from_u64(tests::seed_or(|| if asked.is_some() { rand::random() } else { 1 }));
    let generated = asked.unwrap_or(40);
    let server = server().await;
    let at_first = server.process().resident_bytes().expect("its memory");
    let statements: Vec<String> = known()
        .into_iter()
        .chain((0..generated).map(|_| written(&mut rng)))
        .collect();
    let (ended, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let hostile = async {
        let mut failed = Vec::new();
        for sql in &statements {
            if let Err(error) = ask(&server, sql).await {
                failed.push(format!("{}: {error:#}", sql.chars().take(300).collect::<String>()));
            }
        }
        ended.store(true, Ordering::SeqCst);
        failed
    };
    let begun = Instant::now();
    let others = async {
        let mut pace = tokio::time::interval(OTHERS_EVERY);
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while !ended.load(Ordering::SeqCst) {
            pace.tick().await;
            let n = served.fetch_add(1, Ordering::SeqCst);
            server
                .push("others", format!("{{\"n\":{n}}}\n"))
                .await
                .expect("a push is acknowledged");
            let count = server
                .ask("SELECT count(*) FROM others", json!({ "timeout_ms": 30_000 }))
                .await
                .expect("a small question is answered");
            assert_eq!(count.one(), n + 1, "what was acknowledged is visible");
        }
    };
    let (failed, ()) = tokio::join!(hostile, others);
    assert!(
        failed.is_empty(),
        "{} of {} statements:\n{}\n{}",
        failed.len(),
        statements.len(),
        failed.join("\n"),
        server.log_end()
    );
    let (served, offered) = (
        served.load(Ordering::SeqCst),
        begun.elapsed().as_secs_f64() / OTHERS_EVERY.as_secs_f64(),
    );
    println!(
        "others: {:.0} % of {} pushes and questions a second",
        served as f64 / offered * 100.0,
        1.0 / OTHERS_EVERY.as_secs_f64()
    );
    assert!(served > statements.len() / 10, "others were hardly served");
    eventually("no query is left", || async {
        let running = server.ask("SELECT count(*) FROM rachis.queries", json!({})).await?;
        ensure!(running.one() == 1, "{:?}", running.rows);
        Ok(())
    })
    .await;
    eventually("its memory is free again", || async {
        // The allocator gives back what a thread has freed when the thread runs next.
        ensure!(running(&server).await? == 0, "a statement runs");
        let bytes = server.process().resident_bytes()?;
        ensure!(bytes < at_first + QUERY_BYTES, "{at_first} bytes at first, {bytes} now");
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_statement_holds_is_free_soon_after_its_end_however_it_ends() {
    let server = server().await;
    let at_first = server.process().resident_bytes().expect("its memory");
    let (mut ended_while_running, mut longest) = (0, Duration::ZERO);
    for (number, sql) in known().iter().enumerate() {
        let id = format!("{HOSTILE_IDS}{number:016}");
        let ending = ["the client leaves", "somebody cancels", "the deadline comes"][number % 3];
        let timeout_ms = if ending == "the deadline comes" { 300 } else { 60_000 };
        let body = json!({ "sql": sql, "timeout_ms": timeout_ms, "query_id": id });
        let request = server.request(Method::POST, "/v1/sql").json(&body);
        let mut asked = tokio::spawn(async move {
            let mut answer = request.send().await?;
            while answer.chunk().await?.is_some() {}
            Ok::<(), reqwest::Error>(())
        });
        let runs = || async {
            let running = running(&server).await?;
            ensure!(running == 1, "{running} run");
            Ok(())
        };
        let what = format!("{sql} runs");
        let was_running = tokio::select! {
            _ = &mut asked => false,
            () = eventually(&what, runs) => true,
        };
        match ending {
            "the client leaves" => asked.abort(),
            "somebody cancels" => {
                // It may have ended by itself meanwhile.
                let _cancelled = server
                    .request(Method::DELETE, &format!("/v1/queries/{id}"))
                    .send()
                    .await
                    .expect("an answer");
            }
            _ if was_running => drop((&mut asked).await),
            _ => {}
        }
        let over = Instant::now();
        eventually(&format!("{sql} left nothing after {ending}"), || async {
            let running = running(&server).await?;
            ensure!(running == 0, "{running} run");
            let held = held_bytes(&server).await?;
            ensure!(held == 0.0, "{held} bytes");
            Ok(())
        })
        .await;
        longest = longest.max(over.elapsed());
        assert!(
            longest < ANSWERED_WITHIN,
            "{sql} was free only {longest:?} after {ending}"
        );
        if std::env::var_os("RACHIS_VERBOSE").is_some() {
            eprintln!(
                "{:?} after {ending}: {}",
                over.elapsed(),
                sql.chars().take(100).collect::<String>()
            );
        }
        ended_while_running += usize::from(was_running);
    }
    println!(
        "{ended_while_running} of {} statements were ended; all was free again after at most {longest:?}",
        known().len()
    );
    assert!(
        ended_while_running > known().len() / 3,
        "only {ended_while_running} were ended while they ran"
    );
    eventually("its memory is free again", || async {
        // The allocator gives back what a thread has freed when the thread runs next.
        ensure!(running(&server).await? == 0, "a statement runs");
        let bytes = server.process().resident_bytes()?;
        ensure!(bytes < at_first + QUERY_BYTES, "{at_first} bytes at first, {bytes} now");
        Ok(())
    })
    .await;
}

/// How many hostile statements run.
async fn running(server: &Server) -> Result<u64> {
    let running = server
        .ask(
            &format!("SELECT count(*) FROM rachis.queries WHERE id LIKE '{HOSTILE_IDS}%'"),
            json!({}),
        )
        .await?;
    running.one().as_u64().context("a number")
}

/// What the server says that its queries hold.
async fn held_bytes(server: &Server) -> Result<f64> {
    let metrics = server.request(Method::GET, "/metrics").send().await?.text().await?;
    let line = metrics
        .lines()
        .find_map(|line| line.strip_prefix("rachis_queries_memory_bytes "))
        .context("no such metric")?;
    Ok(line.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_ends_in_order_while_a_hostile_statement_runs() {
    let mut server = server().await;
    let url = server.url().to_owned();
    let asked = tokio::spawn(async move {
        let body = json!({ "sql": "SELECT count(*) FROM e AS a, e AS b, e AS c, e AS d WHERE a.n + b.n + c.n + d.n = -1", "timeout_ms": 600_000 });
        reqwest::Client::new()
            .post(format!("{url}/v1/sql"))
            .json(&body)
            .send()
            .await
            .map(|answer| answer.status().as_u16())
    });
    eventually("the statement runs", || async {
        let running = server.ask("SELECT count(*) FROM rachis.queries", json!({})).await?;
        ensure!(running.one() == 2, "{:?}", running.rows);
        Ok(())
    })
    .await;
    server.stop();
    let status = asked.await.expect("no panic");
    assert!(
        !status.is_ok_and(|status| status == 200),
        "the statement was not answered"
    );
}

async fn server() -> Server {
    let settings = Settings {
        address_space: Some(ADDRESS_SPACE),
        ..Settings::default()
    };
    let settings = settings
        .with("RACHIS_AGGREGATOR__QUERY_BYTES_MAX", QUERY_BYTES)
        .with("RACHIS_AGGREGATOR__QUERIES_BYTES_MAX", 2 * QUERY_BYTES);
    let server = Server::start(settings).await;
    let words = ["alpha", "beta", "gamma", "delta"];
    let lines = |from: usize, to: usize, text: usize| -> String {
        let line = |n: usize| {
            let list: Vec<usize> = (0..n % 20).collect();
            let pattern = format!("(a{{{}}}){{10}}", n % 500);
            format!(
                "{}\n",
                json!({ "n": n, "w": words[n % 4], "t": "ab ".repeat(text), "l": list, "p": pattern, "o": { "k": n } })
            )
        };
        (from..to).map(line).collect()
    };
    for piece in 0..10 {
        server
            .push("e", lines(piece * 2_000, piece * 2_000 + 2_000, 20))
            .await
            .expect("pushed");
    }
    // Some large documents.
    server.push("e", lines(20_000, 20_020, 100_000)).await.expect("pushed");
    server
}

/// The statement is answered, or refused in words, in time.
async fn ask(server: &Server, sql: &str) -> Result<()> {
    let begun = Instant::now();
    let body = json!({ "sql": sql, "timeout_ms": DEADLINE.as_millis() as u64 });
    let verbose = std::env::var_os("RACHIS_VERBOSE").is_some();
    if verbose {
        eprintln!("{sql}");
    }
    let mut answer = server
        .request(Method::POST, "/v1/sql")
        .json(&body)
        .timeout(ANSWERED_WITHIN)
        .send()
        .await
        .context("no answer")?;
    let status = answer.status().as_u16();
    let mut read = Vec::new();
    // A long answer comes for as long as somebody reads it, however long that takes: this client has seen enough, and
    // goes.
    while read.len() < READ_BYTES_MAX {
        match answer.chunk().await {
            Ok(Some(chunk)) => read.extend_from_slice(&chunk),
            Ok(None) => break,
            // At its deadline, or at a limit, an answer breaks off whose beginning was sent: the client sees that its
            // end is missing.
            Err(_) if status == 200 && server.log_end().contains("broke off") => break,
            Err(error) => return Err(error).context("an answer that breaks off"),
        }
    }
    if verbose {
        let said: String = String::from_utf8_lossy(&read).chars().take(200).collect();
        eprintln!(
            "    {:?} {status} {} MB: {said}",
            begun.elapsed(),
            server.process().resident_bytes()? >> 20
        );
    }
    if status == 200 {
        return Ok(());
    }
    let problem: Value = serde_json::from_slice(&read).context("a problem is JSON")?;
    let code = problem["code"].as_str().unwrap_or_default();
    ensure!(REFUSALS.contains(&code), "{status} {problem}");
    Ok(())
}

/// Many of one thing, in one statement.
fn many(count: usize, of: impl Fn(usize) -> String) -> String {
    (0..count).map(of).collect::<Vec<_>>().join(", ")
}

/// Statements that once ended a server, or filled its machine.
fn known() -> Vec<String> {
    let nested =
        |depth: usize, wrap: &dyn Fn(String) -> String| (0..depth).fold("w".to_owned(), |inner, _| wrap(inner));
    let doubled = (0..26).fold("(SELECT 'xxxxxxxxxxxxxxxx' AS x)".to_owned(), |inner, _| {
        format!("(SELECT x || x AS x FROM {inner} AS t)")
    });
    let letters: Vec<String> = (0..22).map(|n| format!("o.k + {n}")).collect();
    let plus = (0..24).fold("n".to_owned(), |inner, _| format!("({inner}{})", " + n".repeat(900)));
    vec![
        format!("SELECT {} FROM e", many(100, |n| format!("lpad(w, {}) AS c{n}", 10_000 - n))),
        format!("SELECT {} FROM e", many(100, |n| format!("max(lpad(w, {})) AS c{n}", 10_000 - n))),
        format!("SELECT count(*) FROM e WHERE {} > 'a'", many(100, |n| format!("lpad(w, {})", 10_000 - n)).replace("), ", ") || ")),
        format!("SELECT replace(t, 'a', '{}') FROM e", "x".repeat(2_000)),
        format!("SELECT sum(length(replace(t, '', '{}'))) FROM e", "x".repeat(2_000)),
        format!("SELECT sum(length(regexp_replace(t, '.', '{}', 'g'))) FROM e", "x".repeat(2_000)),
        r"SELECT sum(length(regexp_replace(t, '(.)', '\1\1\1\1\1\1\1\1\1\1\1\1\1\1\1', 'g'))) FROM e".into(),
        "SELECT sum(length(translate(t, 'ab', 'ß€'))) FROM e".into(),
        format!("SELECT max(length({})) FROM e", nested(8, &|x| format!("replace({x}, 'a', 'aaaaaaaaaaaaaaaa')"))),
        format!("SELECT max(length({})) FROM e", nested(12, &|x| format!("({x} || {x})"))),
        "SELECT string_agg(t, ',') OVER (ORDER BY n) FROM e".into(),
        "SELECT array_agg(t) OVER (ORDER BY n) FROM e".into(),
        "SELECT array_agg(n) OVER () FROM e".into(),
        "SELECT string_agg(t, ',') OVER () FROM e".into(),
        "SELECT max(t) OVER (), min(t) OVER (), first_value(t) OVER (ORDER BY n) FROM e".into(),
        "SELECT count(*) FROM e WHERE array_has((SELECT array_agg(n) FROM e), n)".into(),
        "SELECT count(*) FROM e, (SELECT array_agg(t) AS all_of FROM e) AS x WHERE array_has(x.all_of, e.w)".into(),
        "SELECT max(length(array_to_string(x.all_of, ', '))) FROM e, (SELECT array_agg(n) AS all_of FROM e) AS x".into(),
        "SELECT array_join(x.all_of, '----------------------------') FROM e, (SELECT array_agg(n) AS all_of FROM e) AS x".into(),
        "SELECT e.n, x.s FROM e, (SELECT string_agg(t, '') AS s FROM e) AS x".into(),
        "SELECT e.n, (SELECT string_agg(t, '') FROM e) AS s FROM e".into(),
        "SELECT a.t, b.t, length(a.t || b.t) FROM e AS a, e AS b ORDER BY 3 DESC LIMIT 5".into(),
        "SELECT a.l, b.l FROM e AS a JOIN e AS b ON a.w = b.w ORDER BY a.n LIMIT 5".into(),
        "SELECT x.i, x.t FROM (SELECT unnest(a.all_of) AS i, e.t FROM e, (SELECT array_agg(n) AS all_of FROM e) AS a) AS x ORDER BY x.i LIMIT 5"
            .into(),
        format!("SELECT max(greatest({})) FROM e", many(900, |n| format!("t || '{n}'"))),
        format!("SELECT count(*) FROM e GROUP BY CUBE ({})", letters.join(", ")),
        "SELECT count(DISTINCT t) FROM e GROUP BY CUBE (n, w, p, o.k, l::text, length(t))".into(),
        "SELECT count(*), count(DISTINCT b.p), max(b.n) FROM e AS a JOIN e AS b ON a.w = b.w GROUP BY ROLLUP (a.n, b.n)".into(),
        "SELECT count(DISTINCT b.p) FROM e AS a JOIN e AS b ON a.w = b.w GROUP BY GROUPING SETS ((a.n, b.n), (a.n))".into(),
        "SELECT a.n, b.n, count(DISTINCT a.p), count(DISTINCT b.p) FROM e AS a JOIN e AS b ON a.w = b.w GROUP BY a.n, b.n".into(),
        "SELECT array_agg(DISTINCT t), string_agg(DISTINCT p, ','), nth_value(t, 2 ORDER BY n) FROM e GROUP BY CUBE (n, w, p, o.k, length(t))".into(),
        format!("SELECT {} FROM e", many(3_000, |n| format!("t AS c{n}"))),
        "SELECT count(*) FROM e WHERE regexp_like(t, p)".into(),
        "SELECT count(*) FROM e WHERE w ~ (p || p || p)".into(),
        format!("SELECT count(*) FROM e WHERE t LIKE '{}' || n", "a%_".repeat(5_000)),
        format!("SELECT count(*) FROM e WHERE t NOT ILIKE '%{}%' || n", "a%_é".repeat(1_000)),
        format!("SELECT count(*) FROM e WHERE t LIKE '%{}%'", "a%_".repeat(20_000)),
        format!("SELECT count(*) FROM e WHERE t LIKE '%{}z'", "a%_".repeat(2_000)),
        format!("SELECT count(*) FROM e WHERE t ~ '{}z'", "a.*_?".repeat(1_000)),
        format!("SELECT count(*) FROM e WHERE regexp_replace(t, '{}z', 'x', 'g') = w", "(a|b.*)".repeat(500)),
        "SELECT count(*) FROM e WHERE t ~ ('(a.*b.*c?){' || (n % 500) || '}z')".into(),
        "SELECT count(*) FROM e WHERE t LIKE substr(t, 1, 100000) || '%' || substr(t, 5, 100000) || '%'".into(),
        "SELECT count(*) FROM e AS a JOIN e AS b ON levenshtein(a.t, b.t) < 3".into(),
        "SELECT count(*) FROM e AS a JOIN e AS b ON a.t LIKE b.w || '%'".into(),
        format!("SELECT {} FROM e ORDER BY n LIMIT 9999", many(1_500, |n| format!("t AS c{n}"))),
        format!("SELECT sum({plus}) FROM e"),
        format!("SELECT length(x) FROM {doubled} AS t"),
        "SELECT levenshtein(a.t, b.t) FROM e AS a, e AS b WHERE a.n >= 20000 AND b.n >= 20000".into(),
        format!("SELECT n, '{}' AS c FROM e", "x".repeat(900_000)),
        format!("SELECT n, CASE WHEN n > 3 THEN '{}' ELSE w END AS c FROM e ORDER BY n DESC LIMIT 3", "x".repeat(900_000)),
        format!("SELECT count(*) FROM e WHERE CASE WHEN n > 3 THEN '{}' ELSE w END = 'a'", "x".repeat(900_000)),
        format!("SELECT strpos(w, '{}'), concat(w, '{}') FROM e", "x".repeat(400_000), "y".repeat(400_000)),
        "SELECT count(DISTINCT a.t || b.n::text) FROM e AS a JOIN e AS b ON a.w = b.w".into(),
        "SELECT count(lag(t, 3) OVER (ORDER BY n)) FROM e".into(),
        "SELECT ntile(4) OVER (ORDER BY t || w), percent_rank() OVER (ORDER BY t) FROM e".into(),
        "SELECT count(*) FROM e AS a, e AS b, e AS c WHERE a.n + b.n + c.n = -1".into(),
        "SELECT a.w, count(*) FROM e AS a JOIN e AS b ON a.w = b.w JOIN e AS c ON b.w = c.w GROUP BY a.w".into(),
        "SELECT * FROM e AS a JOIN e AS b ON a.w = b.w ORDER BY a.n + b.n, a.t LIMIT 100000".into(),
    ]
}

/// A statement of the same kinds: what grows a value, within what copies rows.
fn written(rng: &mut StdRng) -> String {
    let text = grown(rng, 3);
    let of = |rng: &mut StdRng, from: &str| grown(rng, 2).replace("e.", from);
    match rng.random_range(0..10) {
        0 => format!(
            "SELECT {} FROM e",
            many(rng.random_range(1..80), |n| format!("{text} || '{n}' AS c{n}"))
        ),
        1 => format!(
            "SELECT max({text}), min({}), count(DISTINCT {}) FROM e",
            grown(rng, 2),
            grown(rng, 2)
        ),
        2 => format!("SELECT {text} AS g, count(*) FROM e GROUP BY {text}"),
        3 => format!("SELECT string_agg({text}, ', ') OVER (PARTITION BY e.w ORDER BY e.n) FROM e"),
        4 => format!(
            "SELECT array_agg({text}) OVER (ORDER BY e.n ROWS BETWEEN {} PRECEDING AND CURRENT ROW) FROM e",
            rng.random_range(1..5_000)
        ),
        5 => format!(
            "SELECT {}, {} FROM e AS a, e AS b WHERE a.n <> b.n",
            of(rng, "a."),
            of(rng, "b.")
        ),
        6 => format!("SELECT {}, b.l FROM e AS a JOIN e AS b ON a.w = b.w", of(rng, "a.")),
        7 => format!("SELECT * FROM (SELECT unnest(e.l) AS i, {text} AS x FROM e) AS u ORDER BY u.x DESC"),
        8 => format!("SELECT e.n, x.all_of FROM e, (SELECT array_agg({text}) AS all_of FROM e) AS x"),
        _ => format!(
            "SELECT e.n FROM e WHERE {text} > 'a' ORDER BY {} LIMIT 10",
            grown(rng, 2)
        ),
    }
}

/// An expression whose text is longer than what it is made of.
fn grown(rng: &mut StdRng, depth: usize) -> String {
    if depth == 0 {
        return (*["e.w", "e.t", "e.p", "(e.w || e.t)", "e.l::text"]
            .choose(rng)
            .expect("some"))
        .to_owned();
    }
    let inner = grown(rng, depth - 1);
    let long = "xy".repeat(rng.random_range(1..1_000));
    match rng.random_range(0..9) {
        0 => format!("lpad({inner}, {})", rng.random_range(1..10_000)),
        1 => format!("replace({inner}, 'a', '{long}')"),
        2 => format!("regexp_replace({inner}, '[a-c]', '{long}', 'g')"),
        3 => format!("translate({inner}, 'abc', 'ß€x')"),
        4 => format!("({inner} || {})", grown(rng, depth - 1)),
        5 => format!("concat({inner}, {inner}, '{long}')"),
        6 => format!("array_to_string(string_to_array({inner}, 'a'), '{long}')"),
        7 => format!("greatest({inner}, {})", grown(rng, depth - 1)),
        _ => format!(
            "CASE WHEN e.n > {} THEN {inner} ELSE '{long}' END",
            rng.random_range(0..20_000)
        ),
    }
}
