//! Functions: which there are, as what each takes its arguments, what it gives.

use std::{collections::BTreeSet, sync::LazyLock};

use datafusion::sql::sqlparser::ast::{
    CastKind, DataType, ExactNumberInfo, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArgumentList,
    FunctionArguments, NamedWindowExpr, ObjectName, ObjectNamePart, OrderByExpr, WindowFrame, WindowFrameBound, WindowSpec, WindowType,
};
use plan::{Kinds, Type, View};
use proto::Problem;

use super::{
    Resolver, bad,
    cast::{cast_as, in_utc, time_literal},
    expression::refused,
    not_offered,
    value::{Ty, Value, Want, call},
};
use crate::sql::names::nearest;

/// Characters that a padding function may make of one value.
pub const PADDED_CHARS_MAX: u64 = 10_000;

/// What the library has and we do not offer: they make a lot of memory out of nothing, or tell about the machine.
const REFUSED: [&str; 20] = [
    "repeat",
    "array_repeat",
    "list_repeat",
    "generate_series",
    "gen_series",
    "range",
    "array_resize",
    "list_resize",
    "arrow_cast",
    "arrow_try_cast",
    "arrow_metadata",
    "arrow_field",
    "with_metadata",
    "input_file_name",
    "named_struct",
    "struct",
    "map",
    "make_map",
    "union_extract",
    "union_tag",
];

/// Functions over numbers.
const OF_NUMBERS: &str = " abs acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh cot degrees exp factorial floor gcd isnan iszero lcm ln log \
    log10 log2 nanvl pi pow power radians round signum sin sinh sqrt tan tanh trunc chr to_hex from_unixtime make_date make_time ";
/// Aggregates over numbers.
const NUMBER_AGGREGATES: &str = " sum avg mean stddev stddev_pop stddev_samp var var_pop var_samp variance var_population var_sample covar covar_pop \
    covar_samp corr median approx_median approx_percentile_cont approx_percentile_cont_with_weight percentile_cont quantile_cont regr_slope \
    regr_intercept regr_count regr_r2 regr_avgx regr_avgy regr_sxx regr_syy regr_sxy bit_and bit_or bit_xor ";
/// Functions that take a point in time at these places (the others as they are).
const OF_TIMES: [(&str, &[usize]); 9] = [
    ("date_trunc", &[1]),
    ("datetrunc", &[1]),
    ("date_part", &[1]),
    ("datepart", &[1]),
    ("date_bin", &[1, 2]),
    ("to_char", &[0]),
    ("date_format", &[0]),
    ("to_unixtime", &[0]),
    ("to_local_time", &[0]),
];
/// Functions over text that take numbers at these places.
const NUMBERS_OF_TEXT_FUNCTIONS: [(&str, &[usize]); 10] = [
    ("left", &[1]),
    ("right", &[1]),
    ("substr", &[1, 2]),
    ("substring", &[1, 2]),
    ("lpad", &[1]),
    ("rpad", &[1]),
    ("split_part", &[2]),
    ("substr_index", &[2]),
    ("substring_index", &[2]),
    ("regexp_instr", &[2, 3]),
];
/// Functions that give what they are given.
const ALIKE: [&str; 8] = ["coalesce", "nullif", "ifnull", "nvl", "nvl2", "greatest", "least", "arrow_typeof"];
/// Windows and aggregates that give a value of their argument back.
const SAME: &str = " first_value last_value nth_value lag lead any_value mode ";

/// The name of every function that a statement may call.
static OFFERED: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let mut names = BTreeSet::new();
    for function in datafusion::functions::all_default_functions().iter().chain(&datafusion::functions_nested::all_default_nested_functions()) {
        names.insert(function.name().to_owned());
        names.extend(function.aliases().iter().cloned());
    }
    for function in datafusion::functions_aggregate::all_default_aggregate_functions() {
        names.insert(function.name().to_owned());
        names.extend(function.aliases().iter().cloned());
    }
    for function in datafusion::functions_window::all_default_window_functions() {
        names.insert(function.name().to_owned());
        names.extend(function.aliases().iter().cloned());
    }
    names.insert("search".into());
    names.insert("unnest".into());
    REFUSED.iter().for_each(|name| {
        names.remove(*name);
    });
    names
});

/// Aggregate functions, by name.
static AGGREGATES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let all = datafusion::functions_aggregate::all_default_aggregate_functions();
    all.iter().flat_map(|f| [f.name().to_owned()].into_iter().chain(f.aliases().iter().cloned())).collect()
});

/// Whether a function of this name aggregates.
pub fn is_aggregate(name: &str) -> bool {
    AGGREGATES.contains(&name.to_lowercase())
}

fn among(names: &str, name: &str) -> bool {
    names.split_whitespace().any(|n| n == name)
}

/// The plain name of a function.
pub fn function_name(name: &ObjectName) -> Option<String> {
    match name.0.as_slice() {
        [ObjectNamePart::Identifier(ident)] => Some(ident.value.to_lowercase()),
        _ => None,
    }
}

impl Resolver<'_> {
    /// A call.
    pub fn function(&mut self, function: &Function) -> Result<Value, Problem> {
        let name = function_name(&function.name).ok_or_else(|| not_offered(format!("the function {}", function.name)))?;
        if REFUSED.contains(&name.as_str()) {
            return Err(refused(format!("the function {name} is not offered"), "it can make more than a query may hold, or is not part of this SQL"));
        }
        if !OFFERED.contains(&name) {
            let problem = bad(format!("there is no function {name}"));
            return Err(match nearest(&name, OFFERED.iter().map(String::as_str)) {
                Some(near) => problem.hint(format!("perhaps {near} was meant")),
                None => problem,
            });
        }
        if !matches!(function.parameters, FunctionArguments::None) {
            return Err(not_offered(format!("{name} with two lists of arguments")));
        }
        match name.as_str() {
            "search" => return self.search_call(function),
            "unnest" => return self.unnest_call(function),
            "now" | "current_timestamp" => return Ok(Value::new(in_utc(call("now", vec![])), Ty::Time)),
            "current_date" | "today" => return Ok(Value::new(call("current_date", vec![]), Ty::Date)),
            _ => {}
        }
        let aggregate = is_aggregate(&name) && function.over.is_none();
        self.aggregates += usize::from(aggregate);
        let resolved = self.call(&name, function);
        self.aggregates -= usize::from(aggregate);
        resolved
    }

    fn call(&mut self, name: &str, function: &Function) -> Result<Value, Problem> {
        let (args, ty) = match &function.args {
            FunctionArguments::None => (FunctionArguments::None, Ty::Other),
            FunctionArguments::Subquery(_) => {
                return Err(not_offered(format!("{name} of a sub-query")).hint("put the sub-query in parentheses of its own"));
            }
            FunctionArguments::List(list) => {
                let (list, ty) = self.arguments(name, list)?;
                (FunctionArguments::List(list), ty)
            }
        };
        let filter = function.filter.as_ref().map(|e| self.condition(e).map(Box::new)).transpose()?;
        let over = function.over.as_ref().map(|over| self.window(over)).transpose()?;
        let numbers = among(NUMBER_AGGREGATES, name);
        let within_group = function
            .within_group
            .iter()
            .map(|o| self.sort_expression(o, if numbers { Want::Number } else { Want::Native }))
            .collect::<Result<_, _>>()?;
        let name = match name {
            "mean" => "avg",
            other => other,
        };
        let resolved = Function {
            name: ObjectName::from(vec![datafusion::sql::sqlparser::ast::Ident::new(name)]),
            args,
            filter,
            over,
            within_group,
            parameters: FunctionArguments::None,
            uses_odbc_syntax: false,
            null_treatment: function.null_treatment,
        };
        Ok(Value::new(Expr::Function(resolved), ty))
    }

    fn arguments(&mut self, name: &str, list: &FunctionArgumentList) -> Result<(FunctionArgumentList, Ty), Problem> {
        let mut values = Vec::new();
        for arg in &list.args {
            match arg {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => values.push(self.value(expr)?),
                FunctionArg::Unnamed(FunctionArgExpr::Wildcard) if name == "count" && list.args.len() == 1 => {
                    return Ok((FunctionArgumentList { args: list.args.clone(), clauses: vec![], duplicate_treatment: None }, Ty::Int));
                }
                other => return Err(not_offered(format!("the argument {other} of {name}"))),
            }
        }
        let (arguments, ty) = self.taken(name, values)?;
        let mut clauses = Vec::new();
        for clause in &list.clauses {
            clauses.push(match clause {
                FunctionArgumentClause::OrderBy(order) => FunctionArgumentClause::OrderBy(self.sort_expressions(order)?),
                FunctionArgumentClause::IgnoreOrRespectNulls(nulls) => FunctionArgumentClause::IgnoreOrRespectNulls(*nulls),
                other => return Err(not_offered(format!("{other} in {name}"))),
            });
        }
        let args = arguments.into_iter().map(|e| FunctionArg::Unnamed(FunctionArgExpr::Expr(e))).collect();
        Ok((FunctionArgumentList { args, clauses, duplicate_treatment: list.duplicate_treatment }, ty))
    }

    /// Arguments as the function takes them, and the type it gives.
    fn taken(&mut self, name: &str, values: Vec<Value>) -> Result<(Vec<Expr>, Ty), Problem> {
        if name == "sum" {
            return self.summed(values);
        }
        if name == "min" || name == "max" {
            return self.extreme(values);
        }
        if name == "count" || name.starts_with("approx_distinct") || name == "array_agg" || name == "grouping" {
            let ty = if name == "array_agg" { Ty::Other } else { Ty::Int };
            return Ok((values.into_iter().map(|v| self.native(v).0).collect(), ty));
        }
        if among(NUMBER_AGGREGATES, name) || among(OF_NUMBERS, name) {
            let resolved: Vec<(Expr, Ty)> = values.into_iter().map(|v| self.fit(v, Want::Number)).collect();
            let first = resolved.first().map_or(Ty::Double, |(_, ty)| *ty);
            let ty = match name {
                "abs" | "gcd" | "lcm" | "factorial" | "median" | "bit_and" | "bit_or" | "bit_xor" => first,
                "isnan" | "iszero" => Ty::Bool,
                "chr" | "to_hex" => Ty::Text,
                "make_date" => Ty::Date,
                "from_unixtime" => Ty::Time,
                "regr_count" => Ty::Int,
                _ => Ty::Double,
            };
            return Ok((resolved.into_iter().map(|(e, _)| e).collect(), ty));
        }
        if ["bool_and", "bool_or", "every"].contains(&name) {
            return Ok((values.into_iter().map(|v| self.fit(v, Want::Bool).0).collect(), Ty::Bool));
        }
        if ALIKE.contains(&name) {
            let (resolved, ty) = self.unified(values)?;
            return Ok((resolved, if name == "arrow_typeof" { Ty::Text } else { ty }));
        }
        if among(SAME, name) {
            let resolved: Vec<(Expr, Ty)> = values.into_iter().map(|v| self.native(v)).collect();
            let ty = resolved.first().map_or(Ty::Other, |(_, ty)| *ty);
            return Ok((resolved.into_iter().map(|(e, _)| e).collect(), ty));
        }
        if name.starts_with("to_timestamp") || name == "to_date" {
            return self.as_time(name, values);
        }
        if let Some((_, places)) = OF_TIMES.iter().find(|row| row.0 == name) {
            return self.of_time(name, values, places);
        }
        if name == "concat" || name == "concat_ws" {
            return Ok((values.into_iter().map(|v| self.as_text(v)).collect(), Ty::Text));
        }
        self.of_text(name, values)
    }

    /// The sum of integers is a decimal: it cannot wrap.
    fn summed(&mut self, values: Vec<Value>) -> Result<(Vec<Expr>, Ty), Problem> {
        let resolved: Vec<(Expr, Ty)> = values.into_iter().map(|v| self.fit(v, Want::Number)).collect();
        let ty = match resolved.first().map(|(_, ty)| *ty) {
            Some(Ty::Int | Ty::Decimal) => Ty::Decimal,
            Some(Ty::Interval) => Ty::Interval,
            Some(Ty::Other) => Ty::Other,
            _ => Ty::Double,
        };
        let wide = |(expr, ty): (Expr, Ty)| match ty {
            Ty::Int => cast_as(CastKind::Cast, expr, DataType::Decimal(ExactNumberInfo::PrecisionAndScale(20, 0))),
            _ => expr,
        };
        Ok((resolved.into_iter().map(wide).collect(), ty))
    }

    /// The least or greatest of mixed values is that of its numbers, or of its texts where it has no numbers.
    fn extreme(&mut self, values: Vec<Value>) -> Result<(Vec<Expr>, Ty), Problem> {
        let mut ty = Ty::Other;
        let mut resolved = Vec::new();
        for value in values {
            let (kinds, mixed) = (value.kinds(), value.ty() == Ty::Json);
            let want = match mixed {
                true if kinds.any(Kinds::INT | Kinds::FLOAT | Kinds::BIG) => Want::Number,
                true if kinds.any(Kinds::TEXT) => Want::Text,
                _ => Want::Native,
            };
            let (expr, its) = self.fit(value, want);
            ty = its;
            resolved.push(expr);
        }
        Ok((resolved, ty))
    }

    /// `to_timestamp(path)` is a converting view, as a cast is.
    fn as_time(&mut self, name: &str, values: Vec<Value>) -> Result<(Vec<Expr>, Ty), Problem> {
        let ty = if name == "to_date" { Ty::Date } else { Ty::Time };
        let mut resolved = Vec::new();
        let only = values.len() == 1;
        for value in values {
            resolved.push(match &value {
                Value::Path(path) if only && !path.is_document() && matches!(name, "to_timestamp" | "to_date") => {
                    let path = path.clone();
                    self.emit(&path, View { to: Type::Time, cast: true })
                }
                // The others say what the number counts.
                Value::Path(path) if only && path.kinds.any(Kinds::INT | Kinds::FLOAT) => self.fit(value, Want::Number).0,
                _ => self.native(value).0,
            });
        }
        Ok((resolved, ty))
    }

    fn of_time(&mut self, name: &str, values: Vec<Value>, places: &[usize]) -> Result<(Vec<Expr>, Ty), Problem> {
        const UNITS: [&str; 10] = ["microsecond", "millisecond", "second", "minute", "hour", "day", "week", "month", "quarter", "year"];
        if matches!(name, "date_trunc" | "datetrunc")
            && let Some(unit) = values.first().and_then(Value::text_literal)
            && !UNITS.contains(&unit.to_lowercase().as_str())
        {
            return Err(bad(format!("{unit} is no unit of time")).hint(format!("there are {}", UNITS.join(", "))));
        }
        let mut resolved = Vec::new();
        for (i, value) in values.into_iter().enumerate() {
            resolved.push(match (places.contains(&i), value.text_literal()) {
                (true, Some(spelled)) => time_literal(spelled)?,
                (true, None) => self.time_operand(value)?,
                (false, _) => self.fit(value, Want::Text).0,
            });
        }
        let ty = match name {
            "date_trunc" | "datetrunc" | "date_bin" | "to_local_time" => Ty::Time,
            "date_part" | "datepart" => Ty::Double,
            "to_unixtime" => Ty::Int,
            _ => Ty::Text,
        };
        Ok((resolved, ty))
    }

    fn of_text(&mut self, name: &str, values: Vec<Value>) -> Result<(Vec<Expr>, Ty), Problem> {
        let numbers = NUMBERS_OF_TEXT_FUNCTIONS.iter().find(|row| row.0 == name).map_or(&[][..], |row| row.1);
        if (name == "lpad" || name == "rpad") && !values.get(1).is_some_and(is_small) {
            return Err(refused(format!("{name} to a length that is not a number up to {PADDED_CHARS_MAX}"), "write the length into the statement"));
        }
        let mut resolved = Vec::new();
        for (i, value) in values.into_iter().enumerate() {
            let want = if numbers.contains(&i) { Want::Number } else { Want::Text };
            // Lists and what else is not a text stay what they are.
            let want = if value.ty().is_number() && matches!(value, Value::Expr { .. }) { Want::Native } else { want };
            resolved.push(self.fit(value, want).0);
        }
        Ok((resolved, text_function_type(name)))
    }

    /// `unnest(list)` in a select list: a row for every element.
    fn unnest_call(&mut self, function: &Function) -> Result<Value, Problem> {
        let FunctionArguments::List(list) = &function.args else { return Err(bad("unnest takes a list")) };
        let [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] = list.args.as_slice() else { return Err(bad("unnest takes one list")) };
        let list = self.list(expr)?;
        Ok(Value::new(super::value::as_json(call("unnest", vec![list])), Ty::Json))
    }

    /// A list of JSON texts out of a path that holds lists.
    pub fn list(&mut self, expr: &Expr) -> Result<Expr, Problem> {
        match self.value(expr)? {
            Value::Expr { expr, ty: Ty::Other } => Ok(expr),
            value => {
                let (expr, _) = self.fit(value, Want::Json);
                Ok(call("json_items", vec![expr]))
            }
        }
    }

    /// An ORDER BY inside of a call or a window: several keys, where the values are mixed.
    fn sort_expressions(&mut self, order: &[OrderByExpr]) -> Result<Vec<OrderByExpr>, Problem> {
        let mut sorted = Vec::with_capacity(order.len());
        for item in order {
            let value = self.value(&item.expr)?;
            match self.mixed_keys(&value) {
                Some(keys) if item.with_fill.is_none() => {
                    let options = super::select::mirrored(item.options);
                    sorted.extend(keys.into_iter().map(|expr| OrderByExpr { expr, options, with_fill: None }));
                }
                _ => sorted.push(self.sort_expression(item, Want::Native)?),
            }
        }
        Ok(sorted)
    }

    /// An ORDER BY of one key.
    pub fn sort_expression(&mut self, order: &OrderByExpr, want: Want) -> Result<OrderByExpr, Problem> {
        if order.with_fill.is_some() {
            return Err(not_offered("WITH FILL"));
        }
        let value = self.value(&order.expr)?;
        let want = match (want, value.ty()) {
            // Among mixed values numbers are ordered as numbers.
            (Want::Native, Ty::Json) if value.kinds().any(Kinds::INT | Kinds::FLOAT) => Want::Number,
            (want, _) => want,
        };
        Ok(OrderByExpr { expr: self.fit(value, want).0, options: order.options, with_fill: None })
    }

    fn window(&mut self, over: &WindowType) -> Result<WindowType, Problem> {
        Ok(match over {
            WindowType::NamedWindow(name) => WindowType::NamedWindow(super::value::quoted(&name.value.to_lowercase())),
            WindowType::WindowSpec(spec) => WindowType::WindowSpec(self.window_spec(spec)?),
        })
    }

    /// `WINDOW w AS (…)`.
    pub fn named_window(&mut self, window: &NamedWindowExpr) -> Result<NamedWindowExpr, Problem> {
        Ok(match window {
            NamedWindowExpr::NamedWindow(name) => NamedWindowExpr::NamedWindow(super::value::quoted(&name.value.to_lowercase())),
            NamedWindowExpr::WindowSpec(spec) => NamedWindowExpr::WindowSpec(self.window_spec(spec)?),
        })
    }

    fn window_spec(&mut self, spec: &WindowSpec) -> Result<WindowSpec, Problem> {
        let frame = |frame: &WindowFrame| {
            let bound = |bound: &WindowFrameBound| match bound {
                WindowFrameBound::Preceding(Some(e)) | WindowFrameBound::Following(Some(e)) if !matches!(**e, Expr::Value(_) | Expr::Interval(_)) => {
                    Err(not_offered("a window frame that is not a literal"))
                }
                other => Ok(other.clone()),
            };
            Ok::<_, Problem>(WindowFrame {
                units: frame.units,
                start_bound: bound(&frame.start_bound)?,
                end_bound: frame.end_bound.as_ref().map(bound).transpose()?,
            })
        };
        Ok(WindowSpec {
            window_name: spec.window_name.as_ref().map(|name| super::value::quoted(&name.value.to_lowercase())),
            partition_by: spec.partition_by.iter().map(|e| Ok(self.expression(e)?.0)).collect::<Result<_, Problem>>()?,
            // A frame by distance has one key to measure it in.
            order_by: match &spec.window_frame {
                Some(_) => spec.order_by.iter().map(|o| self.sort_expression(o, Want::Native)).collect::<Result<_, _>>()?,
                None => self.sort_expressions(&spec.order_by)?,
            },
            window_frame: spec.window_frame.as_ref().map(frame).transpose()?,
        })
    }
}

fn is_small(value: &Value) -> bool {
    match value {
        Value::Expr { expr, .. } => expr.to_string().parse::<u64>().is_ok_and(|n| n <= PADDED_CHARS_MAX),
        Value::Path(_) => false,
    }
}

/// What functions over text give.
fn text_function_type(name: &str) -> Ty {
    const INTS: &str = " length char_length character_length octet_length bit_length strpos instr position ascii levenshtein find_in_set \
        regexp_count regexp_instr row_number rank dense_rank ntile array_length cardinality ";
    const BOOLS: &str = " starts_with ends_with contains regexp_like array_has list_has array_contains ";
    const TEXTS: &str = " lower upper trim btrim ltrim rtrim left right substr substring lpad rpad replace reverse split_part regexp_replace initcap \
        translate overlay md5 substr_index substring_index string_agg encode uuid version to_hex concat chr array_to_string list_to_string ";
    const DOUBLES: &str = " percent_rank cume_dist random ";
    match () {
        () if among(INTS, name) => Ty::Int,
        () if among(BOOLS, name) => Ty::Bool,
        () if among(TEXTS, name) => Ty::Text,
        () if among(DOUBLES, name) => Ty::Double,
        () => Ty::Other,
    }
}
