//! Functions and operators with their types open: while a statement is planned they take anything, and say the type
//! that they will have. [`super::lower`] puts the real ones in their place.

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
use plan::Type;

use super::{
    aggregates::aggregate as lowered_aggregate,
    lower::{call_of, refusal},
    operand::Operand,
};

/// Operators that are not spelled as functions in SQL.
const SPECIAL: [&str; 11] = [
    "cast",
    "is_distinct",
    "is_not_distinct",
    "as_text",
    "truth",
    "negative",
    "positive",
    "items",
    "inside",
    "json",
    "at_time_zone",
];

/// A function or an operator of rows.
#[derive(Debug)]
pub struct Open {
    name: String,
    operator: Option<Operator>,
    inner: Option<Arc<ScalarUDF>>,
    signature: Signature,
}

impl PartialEq for Open {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for Open {}

impl Hash for Open {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.name.hash(state);
    }
}

fn anything(volatility: Volatility) -> Signature {
    Signature::one_of(vec![TypeSignature::Nullary, TypeSignature::VariadicAny], volatility)
}

impl Open {
    fn of(name: &str, inner: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
        let signature = anything(inner.signature().volatility);
        Arc::new(ScalarUDF::from(Self {
            name: name.to_owned(),
            operator: None,
            inner: Some(inner),
            signature,
        }))
    }

    fn special(name: &str, operator: Option<Operator>) -> Arc<ScalarUDF> {
        let signature = anything(Volatility::Immutable);
        Arc::new(ScalarUDF::from(Self {
            name: name.to_owned(),
            operator,
            inner: None,
            signature,
        }))
    }

    /// Its name in the statement.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The operator that it is.
    pub fn operator(&self) -> Option<Operator> {
        self.operator
    }

    /// The function that it stands for.
    pub fn inner(&self) -> Result<Arc<ScalarUDF>> {
        self.inner.as_ref().map_or_else(
            || internal_err!("{} is no function", self.name),
            |inner| Ok(Arc::clone(inner)),
        )
    }
}

/// Operands that are known by their types only; literals are known.
fn operands(fields: &[FieldRef], literals: &[Option<&ScalarValue>]) -> Result<(DFSchema, Vec<Operand>)> {
    let columns: Vec<Field> = fields
        .iter()
        .enumerate()
        .map(|(place, field)| field.as_ref().clone().with_name(place.to_string()))
        .collect();
    let schema = DFSchema::from_unqualified_fields(columns.into(), Default::default())?;
    let one = |(place, field): (usize, &FieldRef)| {
        let expr = match literals.get(place).copied().flatten() {
            Some(value) => Expr::Literal(value.clone(), None),
            None => Expr::Column(Column::from_name(place.to_string())),
        };
        Operand::with_field(expr, Arc::clone(field))
    };
    let operands = fields.iter().enumerate().map(one).collect();
    Ok((schema, operands))
}

impl ScalarUDFImpl for Open {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the type of {} follows from its arguments", self.name)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
        if let Some(Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom) = self.operator {
            return Ok(Arc::new(Field::new(&self.name, DataType::Boolean, true)));
        }
        let (schema, operands) = operands(args.arg_fields, args.scalar_arguments)?;
        let (_, field) = call_of(self, operands.clone())?
            .to_field(&schema)
            .map_err(|_| refusal(&self.name, &operands))?;
        Ok(Arc::new(
            field.as_ref().clone().with_name(&self.name).with_nullable(true),
        ))
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        plan::functions::schema_name(&self.name, args)
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        internal_err!("{} was left without types", self.name)
    }
}

/// The library's functions with their types open, by every name they have, and the operators that are not spelled as
/// functions.
pub fn scalar() -> Vec<Arc<ScalarUDF>> {
    let mut open: Vec<Arc<ScalarUDF>> = SPECIAL.iter().map(|name| Open::special(name, None)).collect();
    for function in plan::functions::scalar() {
        open.extend(
            function
                .aliases()
                .iter()
                .map(|alias| Open::of(alias, Arc::clone(&function))),
        );
        let ours = plan::functions::own().iter().any(|own| own.name() == function.name());
        open.push(if ours {
            Arc::clone(&function)
        } else {
            Open::of(function.name(), Arc::clone(&function))
        });
    }
    open
}

/// An aggregate.
#[derive(Debug, PartialEq, Eq, Hash)]
struct OpenAggregate {
    name: String,
    inner: Arc<AggregateUDF>,
    signature: Signature,
}

/// The aggregate that an open one stands for.
pub fn aggregate(function: &AggregateUDF) -> Option<Arc<AggregateUDF>> {
    function
        .inner()
        .downcast_ref::<OpenAggregate>()
        .map(|open| Arc::clone(&open.inner))
}

/// The library's aggregates with their types open, by every name they have.
pub fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let open = |name: &str, inner: &Arc<AggregateUDF>| {
        let (inner, signature) = (Arc::clone(inner), anything(Volatility::Immutable));
        Arc::new(AggregateUDF::from(OpenAggregate {
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
                .map(move |name| open(name, inner))
        })
        .collect()
}

impl AggregateUDFImpl for OpenAggregate {
    fn name(&self) -> &str {
        &self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        internal_err!("the type of {} follows from its arguments", self.name)
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        let (schema, operands) = operands(fields, &[])?;
        let (func, args) = lowered_aggregate(&self.inner, operands.clone(), false)?;
        let call = Expr::AggregateFunction(AggregateFunction::new_udf(func, args, false, None, vec![], None));
        let (_, field) = call.to_field(&schema).map_err(|_| refusal(&self.name, &operands))?;
        Ok(Arc::new(field.as_ref().clone().with_name(&self.name)))
    }

    fn is_nullable(&self) -> bool {
        self.inner.is_nullable()
    }

    fn accumulator(&self, _: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        internal_err!("{} was left without types", self.name)
    }

    fn supports_null_handling_clause(&self) -> bool {
        self.inner.supports_null_handling_clause()
    }

    fn supports_within_group_clause(&self) -> bool {
        self.inner.supports_within_group_clause()
    }
}

/// Plans operators of a statement with their types open, and types as we name them.
#[derive(Debug)]
pub struct Planner;

impl ExprPlanner for Planner {
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
            Open::special(&name, Some(operator)).call(vec![raw.left, raw.right]),
        ))
    }
}

impl TypePlanner for Planner {
    fn plan_type_field(&self, of: &ast::DataType) -> Result<Option<FieldRef>> {
        Ok(type_of(of).map(|of| Arc::new(Field::new("", of, true))))
    }
}

/// A type that a statement names; None where we have none of that name.
pub fn type_of(of: &ast::DataType) -> Option<DataType> {
    use ast::DataType as Named;
    use ast::ExactNumberInfo;
    let word = of.to_string().to_uppercase();
    Some(match of {
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
        Named::Custom(..) if word == "TIMESTAMPTZ" => Type::Time.arrow(),
        Named::Custom(..) if word == "STRING" => Type::Text.arrow(),
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
