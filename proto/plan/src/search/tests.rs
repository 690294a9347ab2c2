//! Tests of `search`.

use super::*;

/// A search in a notation that shows its structure.
fn spelled(query: &SearchExpr) -> String {
    let all = |parts: &[SearchExpr], op: &str| format!("({})", parts.iter().map(spelled).collect::<Vec<_>>().join(op));
    match query {
        SearchExpr::All => "all".into(),
        SearchExpr::And(parts) => all(parts, " & "),
        SearchExpr::Or(parts) => all(parts, " | "),
        SearchExpr::Not(part) => format!("!{}", spelled(part)),
        SearchExpr::Weighted(part, weight) => format!("{}^{weight}", spelled(part)),
        SearchExpr::Clause { name, matches } => {
            let name = name.as_ref().map_or(String::new(), |name| format!("{name}="));
            match matches {
                Match::Words(text) => format!("{name}{text:?}"),
                Match::Prefix(text) => format!("{name}{text}.."),
                Match::Near { text, slop } => format!("{name}{text:?}~{slop}"),
                Match::Wildcard(pattern) => format!("{name}?{pattern}?"),
                Match::Regex(pattern) => format!("{name}/{pattern}/"),
                Match::Fuzzy { token, changes } => format!("{name}{token}~{changes}"),
                Match::Network(network) => format!("{name}network {network}"),
                Match::Times { from, to } => {
                    let bound = |time: &Option<i64>| {
                        let time = time.and_then(DateTime::from_timestamp_micros);
                        time.map_or("*".into(), |time| time.format("%FT%T%.6f").to_string())
                    };
                    format!("{name}times {} {}", bound(from), bound(to))
                }
                Match::Exists => format!("{name}exists"),
                Match::Range { from, to } => {
                    let bound = |limit: &Option<RangeBound>| {
                        limit.as_ref().map_or("*".into(), |l| {
                            format!("{}{}", l.value, if l.inclusive { "=" } else { "" })
                        })
                    };
                    format!("{name}[{} {}]", bound(from), bound(to))
                }
            }
        }
    }
}

fn parsed(text: &str) -> String {
    let parsed = parse(text, now());
    parsed.map_or_else(
        |problem| format!("error: {}", problem.detail),
        |search| spelled(&search.expr),
    )
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(crate::value::time_of_text("2026-01-31T12:30:00Z").expect("a time"))
        .expect("a time")
}

#[test]
fn searches_parse_as_intended() {
    let table = [
        ("", "all"),
        ("msg:(disk -full)", "(msg=\"disk\" & !msg=\"full\")"),
        ("msg:(+disk !full)", "(msg=\"disk\" & !msg=\"full\")"),
        ("ms:(-5 OR -.5)", "(ms=\"-5\" | ms=\"-.5\")"),
        ("  *  ", "all"),
        ("disk", "\"disk\""),
        ("disk full", "(\"disk\" & \"full\")"),
        ("\"disk full\"", "\"disk full\""),
        ("level:error AND \"disk full\"", "(level=\"error\" & \"disk full\")"),
        ("a OR b c", "(\"a\" | (\"b\" & \"c\"))"),
        ("(a OR b) c", "((\"a\" | \"b\") & \"c\")"),
        ("NOT a", "!\"a\""),
        ("a && !b || c", "((\"a\" & !\"b\") | \"c\")"),
        ("*:*", "all"),
        ("_exists_:user.name a", "(user.name=exists & \"a\")"),
        ("NOT _exists_:t", "!t=exists"),
        ("-a +b", "(!\"a\" & \"b\")"),
        ("a -level:debug", "(\"a\" & !level=\"debug\")"),
        ("level:(error OR warn*)", "(level=\"error\" | level=warn..)"),
        ("ms:>3 ms:<=9.5", "(ms=[3 *] & ms=[* 9.5=])"),
        ("ms:[1 TO 9]", "ms=[1= 9=]"),
        ("ms:{1 TO 9]", "ms=[1 9=]"),
        ("ms:[* TO 9}", "ms=[* 9]"),
        ("t:[\"2026-01-01 08:00\" TO *]", "t=times 2026-01-01T08:00:00.000000 *"),
        ("ms:-5", "ms=\"-5\""),
        ("user.name:*", "user.name=exists"),
        ("\"odd key\".x:1", "\"odd key\".x=\"1\""),
        ("items[0].sku:abc", "items[0].sku=\"abc\""),
        ("http://example.org", "\"http://example.org\""),
        ("12:30", "\"12:30\""),
        ("http://example.org/?a=b", "\"http://example.org/?a=b\""),
        ("\"what?\" di\\?k", "(\"what?\" & \"di?k\")"),
        ("and or not", "(\"and\" & \"or\" & \"not\")"),
        ("ORDER ANDROID", "(\"ORDER\" & \"ANDROID\")"),
        ("Disk*", "disk.."),
        ("a\\:b", "\"a:b\""),
        ("größe:5 😀a", "(größe=\"5\" & \"😀a\")"),
        ("*isk di?k d*k", "(?*isk? & ?di?k? & ?d*k?)"),
        ("mail:*@Example.org a-b* ?", "(mail=?*@Example.org? & ?a-b*? & ???)"),
        (r"a\*b c\?d* e\\*", r#"("a*b" & ?c\?d*? & ?e\\*?)"#),
        ("msg:/er.*/ /a\\/b/ (/x y+/)", "(msg=/er.*/ & /a/b/ & /x y+/)"),
        (
            "url:/api/v1 /api/v1/ /ab// /wp-admin/ url:/v1.0/",
            "(url=\"/api/v1\" & \"/api/v1/\" & \"/ab//\" & \"/wp-admin/\" & url=\"/v1.0/\")",
        ),
        (
            "disk~ or~ id~ filesystem~ disk~2 disk~0",
            "(disk~1 & \"or\" & \"id\" & filesystem~2 & disk~2 & \"disk\")",
        ),
        ("msg:\"disk full\"~2 \"a b\"~0", "(msg=\"disk full\"~2 & \"a b\")"),
        (
            "disk^2 \"a b\"^0.5 a:b~1^3 (c OR d)^2 a:(b)^2 *^3 n:[1 TO 2]^4",
            "(\"disk\"^2 & \"a b\"^0.5 & a=b~1^3 & (\"c\" | \"d\")^2 & a=\"b\"^2 & all^3 & n=[1= 2=]^4)",
        ),
        (
            "at:[now-1h TO now]",
            "at=times 2026-01-31T11:30:00.000000 2026-01-31T12:30:00.000000",
        ),
        (
            "at:{now/d TO now/d}",
            "at=times 2026-02-01T00:00:00.000000 2026-01-30T23:59:59.999999",
        ),
        (
            "at:[now/d TO now/d]",
            "at=times 2026-01-31T00:00:00.000000 2026-01-31T23:59:59.999999",
        ),
        (
            "at:[2026-01-01 TO now/h]",
            "at=times 2026-01-01T00:00:00.000000 2026-01-31T12:59:59.999999",
        ),
        ("at:[* TO now}", "at=times * 2026-01-31T12:29:59.999999"),
        (
            "at:>=now-1d/d at:<now",
            "(at=times 2026-01-30T00:00:00.000000 * & at=times * 2026-01-31T12:29:59.999999)",
        ),
        ("at:>now-1d/d", "at=times 2026-01-31T00:00:00.000000 *"),
        (
            "at:(a OR now/M)",
            "(at=\"a\" | at=times 2026-01-01T00:00:00.000000 2026-01-31T23:59:59.999999)",
        ),
        ("at:{2025-12-31||+1M/d TO *}", "at=times 2026-02-01T00:00:00.000000 *"),
        (
            "ip:10.0.0.0/16 NOT ip:2001:db8::/32",
            "(ip=network 10.0.0.0/16 & !ip=network 2001:db8::/32)",
        ),
        // Dates and times are times, quoted or not; a date is its whole day.
        (
            "at:>=2026-01-31T08:00:00+02:00",
            "at=times 2026-01-31T06:00:00.000000 *",
        ),
        (
            "at:>2026-01-30 at:<2026-01-30",
            "(at=times 2026-01-31T00:00:00.000000 * & at=times * 2026-01-29T23:59:59.999999)",
        ),
        (
            "at:[\"2026-01-30\" TO \"2026-01-31 08:00:00\"}",
            "at=times 2026-01-30T00:00:00.000000 2026-01-31T07:59:59.999999",
        ),
        // One bound that is no time makes both texts.
        ("v:[2026-01-30 TO beta]", "v=[2026-01-30= beta=]"),
        ("v:[2026 TO 2026-01-30]", "v=[2026= 2026-01-30=]"),
        // Quoted, they are texts; without a path, they are words; alone, `now` is one.
        ("at:\"now-1h\" at:>\"now\"", "(at=\"now-1h\" & at=[now *])"),
        ("at:[\"now-1h\" TO \"now\"]", "at=[now-1h= now=]"),
        (
            "ip:\"10.0.0.0/16\" 10.0.0.0/16",
            "((ip=\"10.0.0.0/16\" | ip=network 10.0.0.0/16) & \"10.0.0.0/16\")",
        ),
        // A date or a time at a path also is that time; a network in quotes also has its addresses.
        (
            "at:2026-01-30 -at:\"2026-01-30 08:00\"^2 2026-01-30",
            "((at=\"2026-01-30\" | at=times 2026-01-30T00:00:00.000000 2026-01-30T23:59:59.999999) & \
             !(at=\"2026-01-30 08:00\" | at=times 2026-01-30T08:00:00.000000 2026-01-30T08:00:00.000000)^2 & \
             \"2026-01-30\")",
        ),
        (
            "ip:\"2001:db8::/32\"",
            "(ip=\"2001:db8::/32\" | ip=network 2001:db8::/32)",
        ),
        (
            "ip:\"10.0.0.0/33\" v:>\"2026-13-45\"",
            "(ip=\"10.0.0.0/33\" & v=[2026-13-45 *])",
        ),
        (
            "t:now t:nowhere t:now-x d:31/12 t:10.0.0.0/x",
            "(t=\"now\" & t=\"nowhere\" & t=\"now-x\" & d=\"31/12\" & t=\"10.0.0.0/x\")",
        ),
    ];
    for (text, expected) in table {
        assert_eq!(parsed(text), expected, "{text}");
    }
}

/// The same search with these tests in their places.
fn filled(query: SearchExpr, tests: &[Match]) -> SearchExpr {
    let all = |parts: Vec<SearchExpr>| parts.into_iter().map(|part| filled(part, tests)).collect();
    match query {
        SearchExpr::All => SearchExpr::All,
        SearchExpr::And(parts) => SearchExpr::And(all(parts)),
        SearchExpr::Or(parts) => SearchExpr::Or(all(parts)),
        SearchExpr::Not(part) => SearchExpr::Not(Box::new(filled(*part, tests))),
        SearchExpr::Weighted(part, weight) => SearchExpr::Weighted(Box::new(filled(*part, tests)), weight),
        SearchExpr::Clause { name, matches } => {
            let test = matches.place().and_then(|place| tests.get(place)).cloned();
            SearchExpr::Clause {
                name,
                matches: test.unwrap_or(matches),
            }
        }
    }
}

#[test]
fn the_template_of_the_longest_search_is_not_too_long() {
    for search in [
        "a".to_owned() + &" ".repeat(SEARCH_BYTES_MAX - 1),
        "a ".repeat(CLAUSES_MAX),
        "a:2026-01-31 ".repeat(CLAUSES_MAX / 2),
        "a:2026-01-31 ".repeat(CLAUSES_MAX),
    ] {
        let template = SearchTemplate::of(&search, now()).expect("a search");
        parse(&template.text, now()).expect("its template");
    }
}

#[test]
fn a_template_with_its_tests_is_the_search() {
    let table = [
        ("", 0),
        ("*", 0),
        ("*:* a", 1),
        ("disk \"disk full\" di*", 3),
        ("(a OR -level:(error OR \"warn \\\" x\" OR i*)) c", 5),
        ("_exists_:user.name \"odd key:\".x:[1 TO 9] ms:>3 ms:<=\"9.5\" t:*", 4),
        ("wi?d* a~1^2 \"b c\"~3 /d.e/ at:[now-1h TO now] ip:10.0.0.0/8 (f^2)", 7),
        ("-at:2026-01-31 at:(\"2026-01-31 08:00\"^2 OR x) ip:\"10.0.0.0/8\"", 7),
        ("NOT a\\:b AND +12:30||http://example.org/?a=b größe:😀a", 3),
        ("x:\"\u{1}test0\" y", 0),
    ];
    for (text, tests) in table {
        let template = SearchTemplate::of(text, now()).expect(text);
        assert_eq!(template.tests.len(), tests, "{text}");
        let expr = |text: &str| parse(text, now()).expect(text).expr;
        assert_eq!(expr(text), filled(expr(&template.text), &template.tests), "{text}");
    }
    let of = |text| SearchTemplate::of(text, now()).expect(text).text;
    assert_eq!(of("a:x b:\"y z\""), of("a:>7 b:*"));
    assert_ne!(of("a:x b:y"), of("a:x c:y"));
    assert_eq!(
        SearchTemplate::of("a AND", now()).map(|template| template.text),
        parse("a AND", now()).map(|_| String::new())
    );
}

#[test]
fn syntax_errors_have_a_position_and_a_hint() {
    let table = [
        ("a AND", "a search term is missing here", 6),
        ("OR a", "a search term is missing here", 1),
        ("(a", "a parenthesis is not closed", 1),
        ("a)", "this closing parenthesis has no opening one", 2),
        ("x \"a", "a quote is not closed", 3),
        ("[1 TO 2]", "a range needs a path", 1),
        ("x:[1 2]", "a range has no TO", 3),
        ("x:[1 TO 2", "a range is not closed", 3),
        ("x:>", "there is nothing to compare with", 3),
        ("a --- b", "there is nothing to search for here", 5),
        ("! a", "unexpected !", 1),
        ("a::b", "unexpected :", 3),
        ("disk~3", "~ takes a number of changes up to 2", 5),
        ("disk~0.8", "~ takes a number of changes up to 2", 5),
        ("a-b~", "a-b~ is more than one word", 4),
        ("di*~1", "~ needs a word or a phrase", 4),
        ("\"a b\"~", "after a phrase, ~ needs a number of places up to 1000", 6),
        (
            "\"a b\"~9999",
            "after a phrase, ~ needs a number of places up to 1000",
            6,
        ),
        ("a^", "^ needs a number", 2),
        ("a^b", "^ needs a number", 2),
        ("a^2b", "a space is missing here", 4),
        ("a^1000001", "a weight is at most 1000000", 2),
        ("x /(/", "this is not a regular expression: unclosed group", 3),
        ("at:[x TO now]", "x is not a time", 5),
        ("[now-1h TO now]", "a range needs a path", 1),
        (">now-1h", "a range needs a path", 1),
        ("v:>1.?", "a comparison has no wildcards", 4),
        ("at:>now-99999999999999999y", "now-99999999999999999y is not a time", 5),
        ("ip:10.0.0.0/33", "10.0.0.0/33 is not a network", 4),
        ("level:", "a value is missing behind the colon", 7),
        ("level: error", "a value is missing behind the colon", 7),
        ("level = error", "there is nothing to search for here", 7),
        ("at:>-1h", "-1h is not a time", 5),
        ("_time:[* TO *] _time:>foo", "_time can only be compared with times", 22),
        ("_ingested:[5 TO *]", "_ingested can only be compared with times", 11),
        ("at:>now-5min", "now-5min is not a time", 5),
        ("at:[2026-13-45 TO *]", "2026-13-45 is not a time", 5),
    ];
    for (text, detail, column) in table {
        let problem = parse(text, now()).expect_err(text);
        assert_eq!(
            (problem.detail.as_str(), problem.at),
            (detail, Some((1, column))),
            "{text}"
        );
        assert!(problem.hint.is_some(), "{text}");
    }
}

#[test]
fn hostile_searches_fail_quickly() {
    let hostile = [
        "(".repeat(60_000),
        "NOT ".repeat(10_000) + "a",
        "-".repeat(60_000) + "a",
        "a ".repeat(20_000),
        "x".repeat(100_000),
        "\"".repeat(60_001),
    ];
    for text in hostile {
        let started = std::time::Instant::now();
        let parsed = parse(&text, now());
        assert!(parsed.is_err(), "{}…", &text[..20]);
        assert!(
            started.elapsed() < std::time::Duration::from_secs(2),
            "{}… took {:?}",
            &text[..20],
            started.elapsed()
        );
    }
}

#[test]
fn words_that_may_mean_something_else_are_noted() {
    for (text, expected) in [
        ("a and b or not c", vec!["AND", "OR", "NOT"]),
        ("C++", vec!["the word `c`"]),
        ("/er.or/ /wp-admin/ url:/v1.0/", vec!["as words"]),
        ("C# .NET c.d \"C++\" lang:C++ ORDER and:x", vec!["the word `c`"]),
        ("android a AND NOT b", vec![]),
        (format!("n>{}", "1".repeat(500)).as_str(), vec![]),
        (
            "ms>10 level=error level!=x",
            vec!["write ms:>10 ", "write level:error ", "write -level:x "],
        ),
        ("a=b&c=d http://x?a=b a=> =b x== 2=2 \"a=b\"", vec![]),
        (
            "user.*:ada *:ada a*b",
            vec!["write ada to search", "write ada to search"],
        ),
        ("`level`:error", vec!["in double quotes"]),
        ("10.0.0.0/8 1/2", vec!["write path:10.0.0.0/8"]),
        ("ms:1..20 v:1.2 v:a..b", vec!["write ms:[1 TO 20]"]),
        ("at:now-1x at:now-playing", vec!["now-30m"]),
        ("city:\"New Y*\" \"New Y*\"", vec!["write city:New\\ Y*"]),
        ("n:>1,000 n:[1,000.5 TO *] n:>a,b", vec!["write 1000 ", "write 1000.5 "]),
    ] {
        let notes = parse(text, now()).expect(text).notes;
        assert_eq!(notes.len(), expected.len(), "{text}: {notes:?}");
        for (note, part) in notes.iter().zip(expected) {
            assert!(note.contains(part), "{text}: {note}");
        }
    }
}

#[test]
fn a_date_is_a_group_of_two_tests() {
    let nested = |depth: usize, value: &str| format!("{}at:{value}{}", "(".repeat(depth), ")".repeat(depth));
    let fits = |text: String| parse(&text, now()).is_ok();
    assert!(fits(nested(SEARCH_DEPTH_MAX, "x")) && !fits(nested(SEARCH_DEPTH_MAX, "2026-01-31")));
    let deepest = nested(SEARCH_DEPTH_MAX - 1, "2026-01-31");
    let template = SearchTemplate::of(&deepest, now()).expect("a search");
    assert!(fits(deepest) && fits(template.text));
}

#[test]
fn the_patterns_of_a_search_have_limits() {
    let fits = |text: String| parse(&text, now()).map(|_| ()).map_err(|problem| problem.code);
    assert_eq!(fits("a?b ".repeat(PATTERNS_MAX)), Ok(()));
    for text in [
        "a?b ".repeat(PATTERNS_MAX + 1),
        "x:/(a|b){1200}/".to_owned(),
        "x:/a{900}/ y:/b{200}/".to_owned(),
        format!("{}~1", "x".repeat(FUZZY_CHARS_MAX + 1)),
        format!("{}*a", "x".repeat(PATTERN_BYTES_MAX)),
        format!("\"{}\"~1", "a ".repeat(NEAR_TOKENS_MAX + 1)),
    ] {
        let code = fits(text.clone()).expect_err(&text);
        assert!(matches!(code, Code::TooComplex | Code::BadRequest), "{text}: {code:?}");
    }
}

/// The searches of `tests/habits.md`, and some of each kind of clause.
fn corpus() -> Vec<String> {
    let habits = include_str!("../../../../tests/habits.md").lines();
    let of_habits = habits.filter_map(|line| Some(line.strip_prefix("    search ")?.split_once(": ")?.1.to_owned()));
    let more = [
        "level:(error OR warn*) -msg:\"disk full\"~2^3 AND NOT ip:10.0.0.0/8",
        "a:[1 TO 9} b:{now-1d/d TO *] c:>=2026-01-31 d:/er+.*/ e:dis? f~1 _exists_:g",
        "(msg:(+disk -full) && !x) || *isk mail:*@example.org user.name[0].\"odd key\":1.5e3",
    ];
    of_habits.chain(more.map(str::to_owned)).collect()
}

/// The path at which the test of a clause marks words: in lower case, as the documents have it, and without positions in
/// lists. None stands for the whole document.
fn marked_path(path: &crate::Path) -> Option<crate::Path> {
    let keys = path.steps().iter().filter_map(|step| step.key());
    let keys: Vec<String> = keys.skip_while(|key| *key == "_doc").map(str::to_lowercase).collect();
    (!keys.is_empty()).then(|| crate::Path::of_keys(keys.iter().map(String::as_str)))
}

#[test]
fn fuzzed_searches_are_evaluated_or_refused() {
    let documents = [
        r#"{"level":"error","msg":"Disk full: 10.0.0.1","ms":[1,2.5,"x"],"at":"2026-01-31T08:00:00Z","user":{"name":"ada"}}"#,
        r#"["disk",[{"a":null,"b":true}],1e300,""]"#,
        r#""a plain text of ten words, one of them error/full""#,
    ];
    let documents = documents.map(|json| proto::json::parse(json.as_bytes()).expect("JSON"));
    fuzz::fuzz("searches", corpus(), |input| {
        let text = String::from_utf8_lossy(input);
        let Ok(search) = parse(&text, now()) else { return };
        for (name, matches) in crate::matcher::positive_clauses(&search.expr) {
            let path = name.and_then(|name| crate::Path::parse(name).ok());
            let highlighter = crate::matcher::Highlighter::new([(path.clone(), matches)]);
            let clause = Clause {
                path: path.and_then(|path| marked_path(&path)),
                matches: matches.clone(),
            };
            let matcher = crate::matcher::Matcher::new(&clause);
            for document in &documents {
                let is_found = matcher.matches(document);
                let marks = highlighter.document(document, None);
                assert!(is_found || marks.is_empty(), "{text}: marks {marks:?} without a match");
            }
        }
        let _ = SearchTemplate::of(&text, now());
    });
}
