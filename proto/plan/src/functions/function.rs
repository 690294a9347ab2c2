//! A scalar function of Rachis: its name, its arguments, the type of its result, and the code that computes it.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::ArrayRef,
        datatypes::{DataType, Field, FieldRef},
    },
    common::{Result, ScalarValue, exec_err, internal_err, tree_node::TreeNodeRecursion},
    logical_expr::{
        ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
        interval_arithmetic::Interval,
        simplify::{ExprSimplifyResult, SimplifyContext},
    },
};

use super::{bounded, context::FunctionContext, warnings::WarningCounts};
use crate::{Kinds, column::json_field, walk::Walk as _};

/// A function whose result depends only on its arguments and may be NULL. Functions of the same name are equal.
#[derive(Debug)]
pub(super) struct Function {
    pub name: &'static str,
    signature: Signature,
    is_strict: bool,
    returns: Returns,
    compute: ComputeFn,
    simplify: Option<RewriteFn>,
}

/// Rewrites a call with simplified arguments into a simpler expression, if it can.
type RewriteFn = fn(&[Expr]) -> Option<Expr>;

/// Computes the result of a call: one value per row.
type ComputeFn = fn(&Call<'_>) -> Result<ArrayRef>;

/// The type of a function's result.
#[derive(Debug)]
pub(super) enum Returns {
    /// Always this type.
    Type(DataType),
    /// JSON text.
    Json,
    /// Determined by the arguments.
    Of(fn(&'static str, &ReturnFieldArgs<'_>) -> Result<Field>),
}

impl Function {
    /// A function with this number of arguments; None means any number.
    pub(super) fn new(name: &'static str, arguments: Option<usize>, returns: Returns, compute: ComputeFn) -> Self {
        let signature = match arguments {
            Some(arguments) => Signature::any(arguments, Volatility::Immutable),
            None => Signature::variadic_any(Volatility::Immutable),
        };
        Self {
            name,
            signature,
            is_strict: false,
            returns,
            compute,
            simplify: None,
        }
    }

    /// Adds a rewrite into a simpler expression.
    pub(super) fn simplified(self, simplify: RewriteFn) -> Self {
        Self {
            simplify: Some(simplify),
            ..self
        }
    }

    /// Declares that no rule may compute a call elsewhere or beforehand.
    pub(super) fn volatile(self) -> Self {
        let signature = Signature {
            volatility: Volatility::Volatile,
            ..self.signature
        };
        Self { signature, ..self }
    }

    /// Declares that the result is NULL if an argument is.
    pub(super) fn strict(self) -> Self {
        Self {
            is_strict: true,
            ..self
        }
    }
}

impl From<Function> for Arc<ScalarUDF> {
    fn from(function: Function) -> Self {
        Self::new(ScalarUDF::from(function))
    }
}

impl PartialEq for Function {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Function {}

impl Hash for Function {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

impl ScalarUDFImpl for Function {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("{} determines its type as a field", self.name)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(match &self.returns {
            Returns::Type(data_type) => Field::new(self.name, data_type.clone(), true),
            Returns::Json => json_field(self.name, Kinds::default()),
            Returns::Of(field) => field(self.name, &args)?,
        }))
    }

    fn is_strict(&self) -> bool {
        self.is_strict
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        schema_name(self.name, args)
    }

    fn simplify(&self, args: Vec<Expr>, _: &SimplifyContext) -> Result<ExprSimplifyResult> {
        Ok(match self.simplify.and_then(|simplify| simplify(&args)) {
            Some(simple) => ExprSimplifyResult::Simplified(simple),
            None => ExprSimplifyResult::Original(args),
        })
    }

    fn evaluate_bounds(&self, inputs: &[&Interval]) -> Result<Interval> {
        unbounded_result(self, inputs)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        bounded::invoke(self.name, args, |args| {
            let scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
            let call = Call {
                name: self.name,
                rows: if scalar { 1 } else { args.number_rows },
                args: &args,
            };
            let computed = (self.compute)(&call)?;
            match scalar {
                true => Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&computed, 0)?)),
                false => Ok(ColumnarValue::Array(computed)),
            }
        })
    }
}

/// A call with more parts than this is named by its hash.
const SPELLED_PARTS_MAX: usize = 32;

/// The name of a call in a schema. DataFusion computes it at every level of an expression, and the spelled name of a
/// deep call is long: 400 terms took a minute. So a large call is named by its hash.
pub fn schema_name(function: &str, args: &[Expr]) -> Result<String> {
    let mut parts = 0;
    for arg in args {
        arg.apply(|_| {
            parts += 1;
            Ok(if parts > SPELLED_PARTS_MAX {
                TreeNodeRecursion::Stop
            } else {
                TreeNodeRecursion::Continue
            })
        })?;
    }
    if parts > SPELLED_PARTS_MAX {
        let mut hasher = DefaultHasher::new();
        args.hash(&mut hasher);
        return Ok(format!("{function}(#{:016x})", hasher.finish()));
    }
    let spelled: Vec<String> = args.iter().map(|arg| arg.schema_name().to_string()).collect();
    Ok(format!("{function}({})", spelled.join(",")))
}

/// Bounds that admit any value of a function's type. DataFusion's default has the null type, so a comparison of the
/// result has no bounds at all, and a window partitioned by such a comparison is refused.
pub(super) fn unbounded_result(function: &dyn ScalarUDFImpl, inputs: &[&Interval]) -> Result<Interval> {
    let fields: Vec<FieldRef> = inputs
        .iter()
        .map(|input| Arc::new(Field::new("", input.data_type(), true)))
        .collect();
    let scalars: Vec<Option<&ScalarValue>> = inputs
        .iter()
        .map(|input| Some(input.lower()).filter(|lower| *lower == input.upper()))
        .collect();
    let field = function.return_field_from_args(ReturnFieldArgs {
        arg_fields: &fields,
        scalar_arguments: &scalars,
    });
    Interval::make_unbounded(field.as_ref().map_or(&DataType::Null, |field| field.data_type()))
}

/// One call: the arguments of a batch of rows, or of one row if all are constants.
pub(super) struct Call<'a> {
    /// The function's name.
    pub name: &'static str,
    /// The number of rows of the result.
    pub rows: usize,
    args: &'a ScalarFunctionArgs,
}

impl Call<'_> {
    /// All arguments as passed by DataFusion.
    pub(super) fn args(&self) -> &[ColumnarValue] {
        &self.args.args
    }

    /// An argument, expanded to one value per row.
    pub(super) fn column(&self, index: usize) -> Result<ArrayRef> {
        match self.args().get(index) {
            Some(arg) => arg.to_array(self.rows),
            None => exec_err!("{} is missing argument {index}", self.name),
        }
    }

    /// The arguments from this index on, each expanded to one value per row.
    pub(super) fn columns(&self, from: usize) -> Result<Vec<ArrayRef>> {
        (from..self.args().len()).map(|index| self.column(index)).collect()
    }

    /// An argument that is a literal text; NULL is the empty text.
    pub(super) fn text(&self, index: usize) -> Result<&str> {
        match self.args().get(index) {
            Some(ColumnarValue::Scalar(scalar)) => Ok(scalar.try_as_str().flatten().unwrap_or_default()),
            _ => exec_err!("argument {index} of {} must be a text literal", self.name),
        }
    }

    /// Counts `failed` rows without a result, out of `total` rows with all arguments.
    pub(super) fn count(&self, operation: &str, failed: usize, total: usize) {
        if let Some(counts) = self.counts() {
            counts.count(operation, failed as u64, total as u64);
        }
    }

    /// Where it counts rows without a result.
    pub(super) fn counts(&self) -> Option<&WarningCounts> {
        FunctionContext::of(&self.args.config_options).map(|context| &context.warnings)
    }

    /// Fails if the query must end.
    pub(super) fn check(&self) -> Result<()> {
        FunctionContext::of(&self.args.config_options).map_or(Ok(()), FunctionContext::check)
    }
}
