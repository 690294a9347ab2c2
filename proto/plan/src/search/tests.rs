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
        SearchExpr::Clause { name, matches } => {
            let name = name.as_ref().map_or(String::new(), |name| format!("{name}="));
            match matches {
                Match::Words(text) => format!("{name}{text:?}"),
                Match::Prefix(text) => format!("{name}{text}.."),
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
    parse(text).map_or_else(|problem| format!("error: {}", problem.detail), |query| spelled(&query))
}

#[test]
fn searches_parse_as_intended() {
    let table = [
        ("", "all"),
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
        ("t:[\"2026-01-01 08:00\" TO *]", "t=[2026-01-01 08:00= *]"),
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
        // Quoted, they are texts; without a path, they are words; alone, `now` is one.
        ("at:\"now-1h\" at:>\"now\"", "(at=\"now-1h\" & at=[now *])"),
        ("at:[\"now-1h\" TO \"now\"]", "at=[now-1h= now=]"),
        (
            "ip:\"10.0.0.0/16\" 10.0.0.0/16",
            "(ip=\"10.0.0.0/16\" & \"10.0.0.0/16\")",
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
    ] {
        let template = SearchTemplate::of(&search).expect("a search");
        parse(&template.text).expect("its template");
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
        ("NOT a\\:b AND +12:30||http://example.org/?a=b größe:😀a", 3),
        ("x:\"\u{1}test0\" y", 0),
    ];
    for (text, tests) in table {
        let template = SearchTemplate::of(text).expect(text);
        assert_eq!(template.tests.len(), tests, "{text}");
        let query = parse(&template.text).expect(text);
        assert_eq!(parse(text), Ok(filled(query, &template.tests)), "{text}");
    }
    let of = |text| SearchTemplate::of(text).expect(text).text;
    assert_eq!(of("a:x b:\"y z\""), of("a:>7 b:*"));
    assert_ne!(of("a:x b:y"), of("a:x c:y"));
    assert_eq!(
        SearchTemplate::of("a AND").map(|template| template.text),
        parse("a AND").map(|_| String::new())
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
        ("di*sk", "* is only allowed at the end of a word", 1),
        ("a-b*", "a-b* is more than one word", 1),
        ("[1 TO 2]", "a range needs a path", 1),
        ("x:[1 2]", "a range has no TO", 3),
        ("x:[1 TO 2", "a range is not closed", 3),
        ("x:>", "there is nothing to compare with", 3),
        ("a --- b", "there is nothing to search for here", 5),
        ("! a", "unexpected !", 1),
        ("a::b", "unexpected :", 3),
        ("di?k", "? is not supported in a word", 3),
        ("disk~1", "~ is not supported in a word", 5),
        ("\"a b\"~2", "fuzzy matching (~) and boosting (^) are not supported", 6),
        ("level:", "there is nothing to search for here", 7),
        (
            "at:[now-1h TO now]",
            "relative times such as now-1h are not supported in a search",
            5,
        ),
        (
            "at:[* TO now]",
            "relative times such as now are not supported in a search",
            10,
        ),
        (
            "at:>=now-1d/d",
            "relative times such as now-1d/d are not supported in a search",
            4,
        ),
        (
            "at:(a OR now/M)",
            "relative times such as now/M are not supported in a search",
            10,
        ),
        (
            "x at:{2026-01-31||+1M/d TO *}",
            "relative times such as 2026-01-31||+1M/d are not supported in a search",
            7,
        ),
        (
            "ip:10.0.0.0/16",
            "ip:10.0.0.0/16: networks of IP addresses are not supported",
            4,
        ),
        (
            "NOT ip:2001:db8::/32",
            "ip:2001:db8::/32: networks of IP addresses are not supported",
            8,
        ),
    ];
    for (text, detail, column) in table {
        let problem = parse(text).expect_err(text);
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
        let parsed = parse(&text);
        assert!(parsed.is_err(), "{}…", &text[..20]);
        assert!(
            started.elapsed() < std::time::Duration::from_secs(2),
            "{}… took {:?}",
            &text[..20],
            started.elapsed()
        );
    }
}
