//! Untyped functions and operators: while a statement is planned, they accept arguments of any type and report the type
//! of the result that they will have. [`super::lower`] replaces them with the typed ones.

use std::{hash::Hash, sync::Arc};

use datafusion::{
    arrow::datatypes::{DataType, Field, FieldRef},
    common::{Column, DFSchema, Result, internal_err},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, ColumnarValue, Expr, ExprSchemable as _, Operator,
        ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, TypeSignature, Volatility,
        expr::AggregateFunction,
        function::AccumulatorArgs,
        planner::{ExprPlanner, PlannerResult, RawBinaryExpr, TypePlanner},
    },
    scalar::ScalarValue,
    sql::sqlparser::ast::{self, BinaryOperator},
};
use plan::{
    Type,
    functions::registry::{self, ArgumentTypes, FunctionKind},
};

use super::{
    aggregates::lower_aggregate,
    lower::{arguments::signature_error, lower_call},
    operand::Operand,
};

/// An untyped scalar function or operator.
#[derive(Debug)]
pub(super) struct UntypedFunction {
    name: String,
    operator: Option<Operator>,
    library_function: Option<Arc<ScalarUDF>>,
    signature: Signature,
}

impl PartialEq for UntypedFunction {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for UntypedFunction {}

impl Hash for UntypedFunction {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

/// A signature that accepts any arguments.
fn any_arguments(volatility: Volatility) -> Signature {
    Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], volatility)
}

impl UntypedFunction {
    /// A function of the library under one of its names.
    fn wrap(name: &str, library_function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
        let signature = any_arguments(library_function.signature().volatility);
        Arc::new(ScalarUDF::from(Self {
            name: name.to_owned(),
            operator: None,
            library_function: Some(library_function),
            signature,
        }))
    }

    /// An operator, or one of the internal functions, that is no function of the library.
    fn for_operator(name: &str, operator: Option<Operator>) -> Arc<ScalarUDF> {
        let signature = any_arguments(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Self {
            name: name.to_owned(),
            operator,
            library_function: None,
            signature,
        }))
    }

    /// The name in the statement.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The operator that this represents, if any.
    pub(super) fn operator(&self) -> Option<Operator> {
        self.operator
    }

    /// The typed function that replaces this one.
    pub(super) fn library_function(&self) -> Result<Arc<ScalarUDF>> {
        self.library_function.as_ref().map_or_else(
            || internal_err!("{} is not a library function", self.name),
            |function| Ok(Arc::clone(function)),
        )
    }
}

/// Operands of which only the types are known, with a schema of columns named by position. Literals have their values.
fn operands(fields: &[FieldRef], literals: &[Option<&ScalarValue>]) -> Result<(DFSchema, Vec<Operand>)> {
    let columns: Vec<Field> = fields
        .iter()
        .enumerate()
        .map(|(position, field)| field.as_ref().clone().with_name(position.to_string()))
        .collect();
    let schema = DFSchema::from_unqualified_fields(columns.into(), Default::default())?;
    let operand = |(position, field): (usize, &FieldRef)| {
        let expr = match literals.get(position).copied().flatten() {
            Some(value) => Expr::Literal(value.clone(), None),
            None => Expr::Column(Column::from_name(position.to_string())),
        };
        Operand::with_field(expr, Arc::clone(field))
    };
    let operands = fields.iter().enumerate().map(operand).collect();
    Ok((schema, operands))
}

impl ScalarUDFImpl for UntypedFunction {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the type of {} depends on its arguments", self.name)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
        if let Some(Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom) = self.operator {
            return Ok(Arc::new(Field::new(&self.name, DataType::Boolean, true)));
        }
        let (schema, operands) = operands(args.arg_fields, args.scalar_arguments)?;
        let (_, field) = lower_call(self, &operands)?
            .to_field(&schema)
            .map_err(|_| signature_error(&self.name, &operands))?;
        Ok(Arc::new(
            field.as_ref().clone().with_name(&self.name).with_nullable(true),
        ))
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        plan::functions::schema_name(&self.name, args)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{} was not replaced with a typed function", self.name)
    }
}

/// Untyped versions of all functions of the library, under each of their names, of those that other systems define, and
/// the internal functions. Other functions of Rachis are typed already and stay as they are.
pub(super) fn scalar_functions() -> Vec<Arc<ScalarUDF>> {
    let mut functions: Vec<Arc<ScalarUDF>> = registry::all()
        .filter(|known| known.kind == FunctionKind::Operator)
        .map(|known| UntypedFunction::for_operator(known.name(), None))
        .collect();
    for function in plan::functions::scalar() {
        functions.extend(
            function
                .aliases()
                .iter()
                .map(|alias| UntypedFunction::wrap(alias, Arc::clone(&function))),
        );
        let is_typed = registry::function(function.name()).is_some_and(|known| known.arguments == ArgumentTypes::Typed);
        functions.push(if is_typed {
            Arc::clone(&function)
        } else {
            UntypedFunction::wrap(function.name(), Arc::clone(&function))
        });
    }
    functions
}

/// An untyped aggregate function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct UntypedAggregate {
    name: String,
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

/// The library's aggregate that an untyped one represents; None if the function is not untyped.
pub(super) fn library_aggregate(function: &AggregateUDF) -> Option<Arc<AggregateUDF>> {
    function
        .inner()
        .downcast_ref::<UntypedAggregate>()
        .map(|untyped| Arc::clone(&untyped.inner))
}

/// Untyped versions of all aggregates of the library, under each of their names.
pub(super) fn aggregate_functions() -> Vec<Arc<AggregateUDF>> {
    let untyped = |name: &str, inner: &Arc<AggregateUDF>| {
        let (inner, signature) = (Arc::clone(inner), any_arguments(Volatility::Immutable));
        Arc::new(AggregateUDF::from(UntypedAggregate {
            name: name.to_owned(),
            inner,
            signature,
        }))
    };
    let all = plan::functions::aggregates();
    all.iter()
        .flat_map(|inner| {
            std::iter::once(inner.name())
                .chain(inner.aliases().iter().map(String::as_str))
                .map(move |name| untyped(name, inner))
        })
        .collect()
}

impl AggregateUDFImpl for UntypedAggregate {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the type of {} depends on its arguments", self.name)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        let (schema, operands) = operands(fields, &[])?;
        let (func, args) = lower_aggregate(&self.inner, operands.clone(), false)?;
        let call = Expr::AggregateFunction(AggregateFunction::new_udf(func, args, false, None, vec![], None));
        let (_, field) = call
            .to_field(&schema)
            .map_err(|_| signature_error(&self.name, &operands))?;
        Ok(Arc::new(field.as_ref().clone().with_name(&self.name)))
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        internal_err!("{} was not replaced with a typed function", self.name)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.inner.supports_within_group_clause()
    }
}

/// Plans the operators of a statement as untyped functions, and maps SQL types to ours.
#[derive(Debug)]
pub(super) struct UntypedPlanner;

impl ExprPlanner for UntypedPlanner {
    fn plan_binary_op(&self, raw: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let operator = match raw.op {
            BinaryOperator::Eq => Operator::Eq,
            BinaryOperator::NotEq => Operator::NotEq,
            BinaryOperator::Lt => Operator::Lt,
            BinaryOperator::LtEq => Operator::LtEq,
            BinaryOperator::Gt => Operator::Gt,
            BinaryOperator::GtEq => Operator::GtEq,
            BinaryOperator::Plus => Operator::Plus,
            BinaryOperator::Minus => Operator::Minus,
            BinaryOperator::Multiply => Operator::Multiply,
            BinaryOperator::Divide => Operator::Divide,
            BinaryOperator::Modulo => Operator::Modulo,
            BinaryOperator::StringConcat => Operator::StringConcat,
            BinaryOperator::BitwiseAnd => Operator::BitwiseAnd,
            BinaryOperator::BitwiseOr => Operator::BitwiseOr,
            BinaryOperator::BitwiseXor | BinaryOperator::PGBitwiseXor => Operator::BitwiseXor,
            BinaryOperator::PGBitwiseShiftLeft => Operator::BitwiseShiftLeft,
            BinaryOperator::PGBitwiseShiftRight => Operator::BitwiseShiftRight,
            BinaryOperator::PGRegexMatch => Operator::RegexMatch,
            BinaryOperator::PGRegexIMatch => Operator::RegexIMatch,
            BinaryOperator::PGRegexNotMatch => Operator::RegexNotMatch,
            BinaryOperator::PGRegexNotIMatch => Operator::RegexNotIMatch,
            BinaryOperator::PGLikeMatch => Operator::LikeMatch,
            BinaryOperator::PGILikeMatch => Operator::ILikeMatch,
            BinaryOperator::PGNotLikeMatch => Operator::NotLikeMatch,
            BinaryOperator::PGNotILikeMatch => Operator::NotILikeMatch,
            _ => return Ok(PlannerResult::Original(raw)),
        };
        let name = operator.to_string();
        Ok(PlannerResult::Planned(
            UntypedFunction::for_operator(&name, Some(operator)).call(vec![raw.left, raw.right]),
        ))
    }
}

impl TypePlanner for UntypedPlanner {
    fn plan_type_field(&self, sql_type: &ast::DataType) -> Result<Option<FieldRef>> {
        Ok(type_of(sql_type).map(|arrow| Arc::new(Field::new("", arrow, true))))
    }
}

/// The Arrow type for a type named in SQL; None if it is not supported.
pub(crate) fn type_of(sql_type: &ast::DataType) -> Option<DataType> {
    use ast::DataType as Named;
    use ast::ExactNumberInfo;
    let name = sql_type.to_string().to_uppercase();
    Some(match sql_type {
        Named::Bool | Named::Boolean => Type::Bool.arrow(),
        Named::TinyInt(_)
        | Named::SmallInt(_)
        | Named::MediumInt(_)
        | Named::Int(_)
        | Named::Int2(_)
        | Named::Int4(_)
        | Named::Int8(_)
        | Named::Int16
        | Named::Int32
        | Named::Int64
        | Named::Integer(_)
        | Named::BigInt(_) => Type::Int.arrow(),
        Named::Real
        | Named::Float(_)
        | Named::Float4
        | Named::Float8
        | Named::Float32
        | Named::Float64
        | Named::Double(_)
        | Named::DoublePrecision
        | Named::Numeric(ExactNumberInfo::None)
        | Named::Decimal(ExactNumberInfo::None)
        | Named::Dec(ExactNumberInfo::None) => Type::Double.arrow(),
        Named::Numeric(info) | Named::Decimal(info) | Named::Dec(info) => decimal(info)?,
        Named::Text
        | Named::Varchar(_)
        | Named::CharacterVarying(_)
        | Named::CharVarying(_)
        | Named::Char(None)
        | Named::Character(None)
        | Named::Nvarchar(_)
        | Named::String(_)
        | Named::Uuid => Type::Text.arrow(),
        Named::Timestamp(..) | Named::Datetime(_) | Named::TimestampNtz(_) => Type::Time.arrow(),
        Named::Date | Named::Date32 => DataType::Date32,
        Named::Time(..) => DataType::Time64(datafusion::arrow::datatypes::TimeUnit::Microsecond),
        Named::Interval { .. } => DataType::Interval(datafusion::arrow::datatypes::IntervalUnit::MonthDayNano),
        Named::JSON | Named::JSONB => Type::Json.arrow(),
        Named::Custom(..) if name == "TIMESTAMPTZ" => Type::Time.arrow(),
        Named::Custom(..) if name == "STRING" => Type::Text.arrow(),
        _ => return None,
    })
}

fn decimal(info: &ast::ExactNumberInfo) -> Option<DataType> {
    let (precision, scale) = match info {
        ast::ExactNumberInfo::PrecisionAndScale(precision, scale) => (*precision, *scale),
        ast::ExactNumberInfo::Precision(precision) => (*precision, 0),
        ast::ExactNumberInfo::None => return None,
    };
    let (precision, scale) = (u8::try_from(precision).ok()?, i8::try_from(scale).ok()?);
    (precision > 0 && precision <= 38 && scale <= precision as i8).then_some(DataType::Decimal128(precision, scale))
}
