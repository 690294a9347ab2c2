//! Tests of the SQL that statements resolve to, and of the results and errors that users get.

mod test_schema;

mod answers;
mod compat;
mod errors;
mod limits;
mod lists;
mod regressions;
mod resolved_sql;
