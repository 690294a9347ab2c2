//! Paths below a parser: the fields that it finds in a text of a document.

use datafusion::sql::sqlparser::ast::Expr;
use plan::{
    Path,
    functions::parsed::{PARSED, PARSED_JSON, PARSED_PART},
    nearest::nearest,
    parser::ParsedField,
    path::Step,
};
use proto::{Problem, catalog::DefinitionId};

use super::{
    problem::bad,
    resolver::Resolver,
    value::{Value, call, text},
};
use crate::sql::parser_text::ParserText;

impl Resolver<'_> {
    /// The value at these steps below a parser; all its fields if there are none.
    pub(in crate::sql) fn parsed(
        &mut self,
        id: &DefinitionId,
        parser: &ParserText,
        steps: Vec<Step>,
    ) -> Result<Value, Problem> {
        let on = self.expression(&parser.on)?;
        self.charge_text(1, &parser.argument)?;
        let compiled = parser.compiled()?;
        if let (Some(fields), false) = (compiled.fields(), steps.is_empty()) {
            let (field, rest) = field_at(fields, &steps).ok_or_else(|| unknown_field(id, fields, &steps))?;
            let value = Value::Expr(part(parser.call(PARSED, on, id), &field.name));
            return match rest.is_empty() {
                true => Ok(value),
                false => self.descend(value, rest.to_vec()),
            };
        }
        let all = Value::Expr(parser.call(PARSED_JSON, on, id));
        match steps.is_empty() {
            true => Ok(all),
            false => self.descend(all, steps),
        }
    }
}

fn part(parsed: Expr, field: &str) -> Expr {
    call(PARSED_PART, vec![parsed, text(field)])
}

/// The field whose path begins these steps, and the steps behind it. A field is found in any case.
fn field_at<'f, 's>(fields: &'f [ParsedField], steps: &'s [Step]) -> Option<(&'f ParsedField, &'s [Step])> {
    let is_same = |field: &ParsedField, exactly: bool| {
        let mut keys = field.name.split('.');
        let count = field.name.split('.').count();
        let same = |step: &Step| match (step, keys.next()) {
            (Step::Key(key), Some(wanted)) if exactly => **key == *wanted,
            (Step::Key(key), Some(wanted)) => key.eq_ignore_ascii_case(wanted),
            _ => false,
        };
        steps.get(..count)?.iter().all(same).then_some(count)
    };
    [true, false].into_iter().find_map(|exactly| {
        fields
            .iter()
            .find_map(|field| Some((field, &steps[is_same(field, exactly)?..])))
    })
}

fn unknown_field(id: &DefinitionId, fields: &[ParsedField], steps: &[Step]) -> Problem {
    let wanted = Path::new(steps.to_vec()).to_string();
    let names = || fields.iter().map(|field| field.name.as_str());
    let hint = match nearest(&wanted, names()) {
        Some(near) => format!("did you mean {near}?"),
        None => format!("its fields are {}", names().take(20).collect::<Vec<_>>().join(", ")),
    };
    bad(format!("{id} has no field {wanted}")).hint(hint)
}
