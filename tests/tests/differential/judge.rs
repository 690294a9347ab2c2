//! Judges one statement: asks the server twice and DuckDB once, compares the answers, and shrinks a failing statement.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::Value;
use tests::{
    Client,
    sql_response::{self, ErrorWording, SqlResponse},
    statements::{Dialect, DuckDb, Family, GeneratedStatement, Query, difference, shrink_candidates},
};

/// Failures that are shrunk in one run.
const SHRUNK_MAX: usize = 120;
/// Smaller statements that are tried for one failure.
const SHRINK_TRIES_MAX: usize = 80;

/// Features that the server refuses as not supported: a part of the error, and the feature.
const UNSUPPORTED: [(&str, &str); 3] = [
    (
        "over a constant column of DISTINCT",
        "a window, EXCEPT ALL or INTERSECT ALL over a constant column",
    ),
    (
        "a subquery in this place",
        "a subquery inside an aggregate, or one that is correlated otherwise than by =",
    ),
    ("a subquery in GROUP BY", "a subquery in GROUP BY"),
];

/// How an answer failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FailureKind {
    ServerError,
    LeaksPlannerWords,
    Refused,
    RawDiffers,
    OracleDiffers,
    PartitionsDiffer,
}

#[derive(Debug)]
pub(super) enum Verdict {
    /// All answers are equal; `found` is false if they have nothing but NULLs and zeros.
    Correct {
        found: bool,
    },
    /// DuckDB failed, with this error.
    NoOracleAnswer(String),
    /// The answer has more rows than the row limit, so it cannot be compared.
    Truncated,
    /// Refused as not supported: the feature.
    Unsupported(&'static str),
    /// The statement is invalid and was refused with a plain error.
    Invalid,
    Failed(FailureKind, String),
}

pub(super) struct JudgedStatement {
    pub(super) family: Family,
    pub(super) text: String,
    pub(super) verdict: Verdict,
    pub(super) failure: Option<Failure>,
}

/// A statement that failed, as far as it could be shrunk.
pub(super) struct Failure {
    pub(super) kind: FailureKind,
    detail: String,
    statement: GeneratedStatement,
    /// The text before shrinking.
    original: String,
}

pub(super) struct Judge<'a> {
    server: &'a Client,
    duck: Arc<DuckDb>,
    shrunk: AtomicUsize,
}

impl<'a> Judge<'a> {
    pub(super) fn new(server: &'a Client, duck: Arc<DuckDb>) -> Self {
        Self {
            server,
            duck,
            shrunk: AtomicUsize::new(0),
        }
    }

    pub(super) async fn judge(&self, statement: GeneratedStatement) -> JudgedStatement {
        let (family, text) = (statement.family, statement.text(Dialect::Server));
        let verdict = self.verdict(&statement).await;
        let Verdict::Failed(kind, detail) = &verdict else {
            return JudgedStatement {
                family,
                text,
                verdict,
                failure: None,
            };
        };
        let mut failure = Failure {
            kind: *kind,
            detail: detail.clone(),
            original: text.clone(),
            statement,
        };
        if self.shrunk.fetch_add(1, Ordering::Relaxed) < SHRUNK_MAX {
            self.shrink(&mut failure).await;
        }
        JudgedStatement {
            family,
            text,
            verdict,
            failure: Some(failure),
        }
    }

    /// Replaces the statement by smaller ones while they fail in the same way.
    async fn shrink(&self, failure: &mut Failure) {
        let mut tries = 0;
        let class = failure.error_class();
        'smaller: loop {
            for query in shrink_candidates(&failure.statement.query) {
                if tries >= SHRINK_TRIES_MAX {
                    return;
                }
                if failure.statement.family == Family::Partitioned && query.filter.is_none() {
                    continue;
                }
                tries += 1;
                let statement = GeneratedStatement {
                    query,
                    ..failure.statement.clone()
                };
                if let Verdict::Failed(kind, detail) = self.verdict(&statement).await
                    && kind == failure.kind
                {
                    let smaller = Failure {
                        kind,
                        detail,
                        statement,
                        original: failure.original.clone(),
                    };
                    if smaller.error_class() == class {
                        *failure = smaller;
                        continue 'smaller;
                    }
                }
            }
            return;
        }
    }

    async fn verdict(&self, statement: &GeneratedStatement) -> Verdict {
        match statement.family {
            Family::Partitioned => self.compare_partitions(statement).await,
            family => self.compare(&statement.query, family == Family::Untyped).await,
        }
    }

    /// Compares the answers by columns, from raw documents and, unless the query is `untyped`, from DuckDB.
    async fn compare(&self, query: &Query, untyped: bool) -> Verdict {
        let sql = query.text(Dialect::Server);
        let auto = self.fetch(&sql, "auto").await;
        let raw = self.fetch(&sql, "raw").await;
        let rows = match (auto, raw) {
            (SqlResponse::Rows { rows: auto, .. }, SqlResponse::Rows { rows: raw, .. }) => {
                if let Some(different) = difference(&auto, &raw, query.is_totally_ordered()) {
                    return raw_differs(format!(
                        "by columns, expected the answer from raw documents: {different}"
                    ));
                }
                auto
            }
            (SqlResponse::Truncated, SqlResponse::Truncated) => return Verdict::Truncated,
            (SqlResponse::Truncated, other) | (other, SqlResponse::Truncated) => {
                return raw_differs(format!(
                    "one of columns and raw is over the row limit, the other is {other:?}"
                ));
            }
            (SqlResponse::Error { status, detail }, SqlResponse::Error { .. }) => {
                return match error_verdict(status, &detail) {
                    // DuckDB refuses the statement, too, so the statement is invalid.
                    Verdict::Failed(FailureKind::Refused, _) if untyped || self.oracle_answer(query).await.is_err() => {
                        Verdict::Invalid
                    }
                    verdict => verdict,
                };
            }
            (SqlResponse::Error { status, detail }, SqlResponse::Rows { .. })
            | (SqlResponse::Rows { .. }, SqlResponse::Error { status, detail }) => {
                return match error_verdict(status, &detail) {
                    Verdict::Failed(FailureKind::Refused, _) => {
                        raw_differs(format!("one of columns and raw is refused: {status} {detail}"))
                    }
                    verdict => verdict,
                };
            }
        };
        let found = rows.iter().flatten().any(|value| !value.is_null() && *value != 0);
        if untyped {
            return Verdict::Correct { found };
        }
        match self.oracle_answer(query).await {
            Err(error) => Verdict::NoOracleAnswer(error),
            Ok(expected) => match difference(&rows, &expected, query.is_totally_ordered()) {
                Some(different) => Verdict::Failed(FailureKind::OracleDiffers, different),
                None => Verdict::Correct { found },
            },
        }
    }

    /// DuckDB's rows, or its error.
    async fn oracle_answer(&self, query: &Query) -> Result<Vec<Vec<Value>>, String> {
        let (duck, sql) = (self.duck.clone(), query.text(Dialect::DuckDb));
        tokio::task::spawn_blocking(move || duck.query(&sql))
            .await
            .expect("the query of DuckDB does not panic")
            .expect("DuckDB runs")
    }

    /// Checks that each row is in exactly one partition: where the predicate is true, false, or NULL.
    async fn compare_partitions(&self, statement: &GeneratedStatement) -> Verdict {
        let mut all = Vec::new();
        for part in statement.partitions() {
            match self.fetch(&part.text(Dialect::Server), "auto").await {
                SqlResponse::Rows { rows, .. } => all.extend(rows),
                SqlResponse::Truncated => return Verdict::Truncated,
                SqlResponse::Error { status, detail } => return error_verdict(status, &detail),
            }
            match self.compare(&part, false).await {
                Verdict::Correct { .. } => {}
                Verdict::Failed(kind, detail) => {
                    return Verdict::Failed(kind, format!("{}: {detail}", part.text(Dialect::Server)));
                }
                verdict => return verdict,
            }
        }
        let unfiltered = Query {
            filter: None,
            ..statement.query.clone()
        };
        match self.fetch(&unfiltered.text(Dialect::Server), "auto").await {
            SqlResponse::Rows { rows, .. } => match difference(&all, &rows, false) {
                Some(different) => Verdict::Failed(
                    FailureKind::PartitionsDiffer,
                    format!("rows where the predicate is true, false and NULL: {different}"),
                ),
                None => Verdict::Correct { found: true },
            },
            SqlResponse::Truncated => Verdict::Truncated,
            SqlResponse::Error { status, detail } => error_verdict(status, &detail),
        }
    }

    async fn fetch(&self, sql: &str, scan: &str) -> SqlResponse {
        sql_response::fetch(self.server, sql, scan).await
    }
}

fn raw_differs(detail: String) -> Verdict {
    Verdict::Failed(FailureKind::RawDiffers, detail)
}

/// The verdict on an error: a failure, unless the feature is known as not supported.
fn error_verdict(status: u16, detail: &str) -> Verdict {
    match sql_response::error_wording(status, detail) {
        ErrorWording::ServerError => Verdict::Failed(FailureKind::ServerError, format!("{status} {detail}")),
        ErrorWording::Internal(word) => Verdict::Failed(
            FailureKind::LeaksPlannerWords,
            format!("{word:?} in: {status} {detail}"),
        ),
        ErrorWording::Plain => match UNSUPPORTED.iter().find(|(part, _)| detail.contains(part)) {
            Some((_, feature)) => Verdict::Unsupported(feature),
            None => Verdict::Failed(FailureKind::Refused, format!("{status} {detail}")),
        },
    }
}

impl Failure {
    /// What failures of one class share: the words of the error, or else the shape of the statement.
    pub(super) fn class(&self) -> String {
        let words = self.error_class();
        if words.is_empty() {
            self.statement.text(Dialect::Shape)
        } else {
            words
        }
    }

    /// The words of an error without names and values; empty if the failure is not an error.
    fn error_class(&self) -> String {
        if !matches!(
            self.kind,
            FailureKind::ServerError | FailureKind::LeaksPlannerWords | FailureKind::Refused
        ) {
            return String::new();
        }
        let error = self
            .detail
            .split_once(" in: ")
            .map_or(self.detail.as_str(), |(_, error)| error);
        sql_response::error_class(error)
    }

    pub(super) fn text(&self, seed: u64) -> String {
        let number = self.statement.number;
        format!(
            "RACHIS_SEED={seed} RACHIS_STATEMENT={number}: {:?} in {:?}\n    ours:   {}\n    DuckDB: {}\n    {}\n    \
             before shrinking: {}\n",
            self.kind,
            self.statement.family,
            self.statement.text(Dialect::Server),
            self.statement.text(Dialect::DuckDb),
            self.detail,
            self.original
        )
    }
}
