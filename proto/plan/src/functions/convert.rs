//! `lenient_cast(value, NULL::type, 'TYPE')`: a value that cannot be converted is NULL, and counted under the type's
//! name.

use std::sync::Arc;

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef},
        compute::{CastOptions, cast_with_options},
        datatypes::Field,
    },
    common::{Result, exec_err},
    logical_expr::{ReturnFieldArgs, ScalarUDF},
};

use super::function::{Call, Function, Returns};

/// The name of the function.
pub const CAST: &str = "lenient_cast";

/// The function, for registration with a session.
pub fn functions() -> Vec<Arc<ScalarUDF>> {
    vec![Function::new(CAST, Some(3), Returns::Of(field), convert).into()]
}

fn field(name: &'static str, args: &ReturnFieldArgs) -> Result<Field> {
    let [_, to, _] = args.arg_fields else {
        return exec_err!("{name} takes a value, a type and its name");
    };
    Ok(Field::new(name, to.data_type().clone(), true))
}

fn convert(call: &Call) -> Result<ArrayRef> {
    let [_, to, _] = call.args() else {
        return exec_err!("{CAST} takes a value, a type and its name");
    };
    let values = call.column(0)?;
    let converted = cast_with_options(
        &values,
        &to.data_type(),
        &CastOptions {
            safe: true,
            ..Default::default()
        },
    )?;
    let failed = converted.null_count() - values.logical_null_count();
    call.count(
        &format!("as {}", call.text(2)?),
        failed,
        call.rows - values.logical_null_count(),
    );
    Ok(converted)
}
