//! Tests of the registry.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// The names of each function of a session: those of DataFusion and ours.
fn session_names() -> Vec<Vec<String>> {
    fn names(name: &str, aliases: &[String]) -> Vec<String> {
        std::iter::once(name.to_owned())
            .chain(aliases.iter().cloned())
            .collect()
    }
    let scalar = crate::functions::scalar().into_iter();
    let aggregates = crate::functions::aggregates().into_iter();
    scalar
        .map(|function| names(function.name(), function.aliases()))
        .chain(aggregates.map(|function| names(function.name(), function.aliases())))
        .chain(library_names())
        .collect()
}

/// The names under which a session has functions.
fn names_in_session() -> BTreeSet<String> {
    session_names().into_iter().flatten().collect()
}

#[test]
fn every_function_of_a_session_is_in_the_registry_or_refused() {
    let missing: Vec<Vec<String>> = session_names()
        .into_iter()
        .filter(|names| names.iter().any(|name| function(name).is_none() && !is_refused(name)))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_function_of_the_registry_exists() {
    let session = names_in_session();
    let without_code = [FunctionKind::Syntax, FunctionKind::Operator, FunctionKind::Compat];
    let missing: Vec<&str> = all()
        .filter(|function| !without_code.contains(&function.kind))
        .map(SqlFunction::name)
        .filter(|name| !session.contains(*name))
        .collect();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn every_function_has_the_kind_that_it_has_in_a_session() {
    for aggregate in crate::functions::aggregates() {
        let kind = function(aggregate.name()).map(|function| function.kind);
        assert!(
            matches!(kind, Some(FunctionKind::Aggregate | FunctionKind::Internal)),
            "{}: {kind:?}",
            aggregate.name()
        );
    }
    for scalar in crate::functions::scalar() {
        let kind = function(scalar.name()).map(|function| function.kind);
        assert!(
            matches!(kind, None | Some(FunctionKind::Scalar | FunctionKind::Internal)),
            "{}: {kind:?}",
            scalar.name()
        );
    }
}

#[test]
fn no_name_has_two_meanings() {
    let mut written: BTreeMap<String, &str> = BTreeMap::new();
    for function in all() {
        let own = function.name().to_lowercase();
        for name in std::iter::once(own.as_str()).chain(function.synonyms.split_whitespace()) {
            let other = written.insert(name.to_owned(), function.signature);
            assert_eq!(other, None, "{name} is also in {}", function.signature);
        }
    }
}

#[test]
fn every_name_is_in_lower_case_unless_it_is_that_of_another_system() {
    for function in all() {
        let lower = function.name().to_lowercase();
        assert!(
            function.kind == FunctionKind::Compat || function.name() == lower,
            "{}",
            function.name()
        );
        assert_eq!(function.synonyms, function.synonyms.to_lowercase());
    }
}

#[test]
fn every_function_is_described_in_a_line() {
    for function in all() {
        assert!(!function.summary.is_empty(), "{}", function.signature);
        assert!(!function.summary.contains('\n'), "{}", function.signature);
    }
}

#[test]
fn a_synonym_of_a_function_becomes_a_name_of_a_session() {
    for function in all() {
        let name = match function.meaning {
            Meaning::Itself => function.name(),
            Meaning::Call(name, _) => name,
            _ => continue,
        };
        assert!(super::function(name).is_some(), "{name}");
    }
}
