//! The table of functions: which functions statements may call, and as which types each takes its arguments. Result
//! types are not listed: each function derives its own.

use std::{collections::BTreeSet, sync::LazyLock};

use proto::{Code, Problem};

/// The types to which a function's arguments are coerced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ArgumentTypes {
    /// All as numbers.
    Numbers,
    /// All as integers.
    Integers,
    /// All as doubles, for functions that would otherwise truncate their arguments to integers.
    Doubles,
    /// As texts, except for integers at these positions.
    Texts(&'static [usize]),
    /// As timestamps at these positions, as texts elsewhere.
    Times(&'static [usize]),
    /// As JSON at these positions, as texts elsewhere.
    Json(&'static [usize]),
    /// As conditions.
    Conditions,
    /// All as one common type, which is also the type of the result.
    Common,
    /// Each in its native type.
    Native,
}

/// Functions grouped by the types of their arguments. A function that is not listed takes texts.
const ARGUMENT_TYPES: [(ArgumentTypes, &str); 27] = [
    (
        ArgumentTypes::Integers,
        "factorial gcd lcm chr to_hex from_unixtime make_date make_time bit_and bit_or bit_xor ntile",
    ),
    (
        ArgumentTypes::Numbers,
        "abs acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh cot degrees exp floor isnan iszero ln log \
         log10 log2 nanvl pi radians round signum sin sinh sqrt tan tanh trunc sum avg mean",
    ),
    (
        ArgumentTypes::Doubles,
        "pow power stddev stddev_pop stddev_samp var var_pop var_samp variance var_population var_sample covar \
         covar_pop covar_samp corr median approx_median approx_percentile_cont approx_percentile_cont_with_weight \
         percentile_cont quantile_cont regr_slope regr_intercept regr_count regr_r2 regr_avgx regr_avgy regr_sxx \
         regr_syy regr_sxy",
    ),
    (ArgumentTypes::Texts(&[1]), "left right"),
    (ArgumentTypes::Texts(&[1, 2]), "substr substring text_slice text_mid"),
    (ArgumentTypes::Texts(&[1]), "lpad rpad"),
    (ArgumentTypes::Texts(&[2]), "split_part substr_index substring_index"),
    (ArgumentTypes::Texts(&[2, 3]), "regexp_instr overlay"),
    (ArgumentTypes::Texts(&[2]), "regexp_count regexp_extract parse_time"),
    (ArgumentTypes::Times(&[1]), "date_trunc datetrunc date_part datepart"),
    (ArgumentTypes::Times(&[1, 2]), "date_diff time_bucket"),
    (
        ArgumentTypes::Times(&[0]),
        "start_of_interval epoch_millis epoch_millis_truncated",
    ),
    (ArgumentTypes::Json(&[0, 1]), "jsonb_contains"),
    (
        ArgumentTypes::Json(&[0]),
        "jsonb_exists json_has json_scalar json_size json_default wrapped_int int_or_null day_of",
    ),
    (ArgumentTypes::Numbers, "int_div"),
    (
        ArgumentTypes::Times(&[0]),
        "to_char date_format to_unixtime to_local_time",
    ),
    (ArgumentTypes::Times(&[1, 2]), "date_bin"),
    (ArgumentTypes::Conditions, "bool_and bool_or every"),
    (
        ArgumentTypes::Common,
        "coalesce ifnull nvl greatest least make_array make_list array",
    ),
    (
        ArgumentTypes::Native,
        "count approx_distinct array_agg grouping min max first_value last_value nth_value lag lead any_value mode \
         nvl2 nullif",
    ),
    (
        ArgumentTypes::Native,
        "arrow_typeof now current_date current_time current_timestamp today random uuid row_number rank dense_rank \
         percent_rank cume_dist",
    ),
    (
        ArgumentTypes::Native,
        "array_length cardinality array_has list_has array_contains array_to_string list_to_string array_position \
         list_position",
    ),
    (
        ArgumentTypes::Native,
        "array_sort list_sort array_distinct list_distinct array_slice list_slice array_element list_element \
         array_extract flatten",
    ),
    (
        ArgumentTypes::Native,
        "array_append list_append array_prepend list_prepend array_concat list_concat array_cat list_cat array_remove \
         list_remove",
    ),
    (
        ArgumentTypes::Native,
        "array_has_all list_has_all array_has_any list_has_any array_union list_union array_intersect list_intersect \
         array_except",
    ),
    (
        ArgumentTypes::Native,
        "to_timestamp to_timestamp_seconds to_timestamp_millis to_timestamp_micros to_timestamp_nanos to_date to_json",
    ),
    (
        ArgumentTypes::Native,
        "array_reverse list_reverse array_max list_max array_min list_min array_ndims array_dims list_ndims list_dims \
         empty array_empty list_empty array_positions list_positions array_pop_back array_pop_front list_pop_back \
         list_pop_front array_any_value list_any_value array_join list_join array_replace array_replace_all \
         array_replace_n array_remove_all array_remove_n list_remove_all list_remove_n list_replace list_replace_all \
         list_replace_n array_distance list_distance array_zip list_zip arrays_zip string_to_array string_to_list \
         map_keys map_values map_entries map_extract element_at array_push_back array_push_front list_push_back \
         list_push_front",
    ),
];

/// Functions of DataFusion that statements may not call: they allocate much memory from small inputs, or reveal
/// something about the machine.
const UNSUPPORTED: [&str; 21] = [
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
    "version",
];

/// Functions that statements may call in addition to those of DataFusion.
const ADDITIONAL: [&str; 4] = ["search", "unnest", "json_keys", "json_typeof"];

/// The length in characters to which a padding function may extend a value.
pub(super) const PADDED_CHARS_MAX: u64 = 10_000;

/// The types to which the arguments of the named function are coerced.
pub(super) fn argument_types(name: &str) -> ArgumentTypes {
    ARGUMENT_TYPES
        .iter()
        .find(|(_, names)| names.split_whitespace().any(|n| n == name))
        .map_or(ArgumentTypes::Texts(&[]), |(types, _)| *types)
}

/// The names of all functions that statements may call.
static SUPPORTED: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let mut names = BTreeSet::new();
    for function in datafusion::functions::all_default_functions()
        .iter()
        .chain(&datafusion::functions_nested::all_default_nested_functions())
    {
        names.insert(function.name().to_owned());
        names.extend(function.aliases().iter().cloned());
    }
    names.extend(AGGREGATES.iter().cloned());
    for function in datafusion::functions_window::all_default_window_functions() {
        names.insert(function.name().to_owned());
        names.extend(function.aliases().iter().cloned());
    }
    names.extend(ADDITIONAL.map(str::to_owned));
    names.extend(plan::functions::familiar::names().iter().cloned());
    names.retain(|name| !UNSUPPORTED.contains(&name.as_str()));
    names
});

/// The names and aliases of all aggregate functions.
static AGGREGATES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let all = datafusion::functions_aggregate::all_default_aggregate_functions();
    all.iter()
        .flat_map(|f| [f.name().to_owned()].into_iter().chain(f.aliases().iter().cloned()))
        .collect()
});

/// Whether an aggregate function has this name, in any case.
pub(crate) fn is_aggregate(name: &str) -> bool {
    AGGREGATES.contains(&name.to_lowercase())
}

/// Returns an error unless statements may call this function.
pub(crate) fn check_function(name: &str) -> Result<(), Problem> {
    if UNSUPPORTED.contains(&name) {
        return Err(
            Problem::new(Code::NotSupported, format!("the function {name} is not supported"))
                .hint("it can produce more data than a query may hold, or is not part of this SQL dialect"),
        );
    }
    if SUPPORTED.contains(name) {
        return Ok(());
    }
    let problem = Problem::new(Code::BadSql, format!("function {name} does not exist"));
    Err(
        match crate::nearest::nearest(name, SUPPORTED.iter().map(String::as_str)) {
            Some(near) => problem.hint(format!("did you mean {near}?")),
            None => problem,
        },
    )
}
