//! The one table of functions: which are offered, and as what each takes its arguments. What a function gives, it says
//! itself.

use std::{collections::BTreeSet, sync::LazyLock};

use proto::{Code, Problem};

/// How a function takes its arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Takes {
    /// All as numbers.
    Numbers,
    /// All as integers.
    Integers,
    /// The first as a double, the others as numbers: what would otherwise be cut to an integer.
    Doubles,
    /// As texts, but integers at these places.
    Texts(&'static [usize]),
    /// As points in time at these places, as texts elsewhere.
    Times(&'static [usize]),
    /// As conditions.
    Conditions,
    /// All as one type, which it gives back.
    Alike,
    /// As they are.
    AsTheyAre,
}

/// Rows of functions that take their arguments alike; what is in no row takes texts.
const TAKES: [(Takes, &str); 22] = [
    (
        Takes::Integers,
        "factorial gcd lcm chr to_hex from_unixtime make_date make_time bit_and bit_or bit_xor ntile",
    ),
    (
        Takes::Numbers,
        "abs acos acosh asin asinh atan atan2 atanh cbrt ceil cos cosh cot degrees exp floor isnan iszero ln log log10 log2 nanvl pi radians \
         round signum sin sinh sqrt tan tanh trunc sum avg mean",
    ),
    (
        Takes::Doubles,
        "pow power stddev stddev_pop stddev_samp var var_pop var_samp variance var_population var_sample covar covar_pop covar_samp corr median \
         approx_median approx_percentile_cont approx_percentile_cont_with_weight percentile_cont quantile_cont regr_slope regr_intercept \
         regr_count regr_r2 regr_avgx regr_avgy regr_sxx regr_syy regr_sxy",
    ),
    (Takes::Texts(&[1]), "left right"),
    (Takes::Texts(&[1, 2]), "substr substring"),
    (Takes::Texts(&[1]), "lpad rpad"),
    (Takes::Texts(&[2]), "split_part substr_index substring_index"),
    (Takes::Texts(&[2, 3]), "regexp_instr overlay"),
    (Takes::Texts(&[2]), "regexp_count"),
    (Takes::Times(&[1]), "date_trunc datetrunc date_part datepart"),
    (Takes::Times(&[0]), "to_char date_format to_unixtime to_local_time"),
    (Takes::Times(&[1, 2]), "date_bin"),
    (Takes::Conditions, "bool_and bool_or every"),
    (
        Takes::Alike,
        "coalesce ifnull nvl greatest least make_array make_list array",
    ),
    (
        Takes::AsTheyAre,
        "count approx_distinct array_agg grouping min max first_value last_value nth_value lag lead any_value mode nvl2 nullif",
    ),
    (
        Takes::AsTheyAre,
        "arrow_typeof now current_date current_time current_timestamp today random uuid row_number rank dense_rank percent_rank cume_dist",
    ),
    (
        Takes::AsTheyAre,
        "array_length cardinality array_has list_has array_contains array_to_string list_to_string array_position list_position",
    ),
    (
        Takes::AsTheyAre,
        "array_sort list_sort array_distinct list_distinct array_slice list_slice array_element list_element array_extract flatten",
    ),
    (
        Takes::AsTheyAre,
        "array_append list_append array_prepend list_prepend array_concat list_concat array_cat list_cat array_remove list_remove",
    ),
    (
        Takes::AsTheyAre,
        "array_has_all list_has_all array_has_any list_has_any array_union list_union array_intersect list_intersect array_except",
    ),
    (
        Takes::AsTheyAre,
        "to_timestamp to_timestamp_seconds to_timestamp_millis to_timestamp_micros to_timestamp_nanos to_date to_json",
    ),
    (
        Takes::AsTheyAre,
        "array_reverse list_reverse array_max list_max array_min list_min array_ndims array_dims list_ndims list_dims empty array_empty list_empty array_positions list_positions array_pop_back array_pop_front list_pop_back list_pop_front array_any_value list_any_value array_join list_join array_replace array_replace_all array_replace_n array_remove_all array_remove_n list_remove_all list_remove_n list_replace list_replace_all list_replace_n array_distance list_distance array_zip list_zip arrays_zip string_to_array string_to_list map_keys map_values map_entries map_extract element_at array_push_back array_push_front list_push_back list_push_front",
    ),
];

/// What the library has and we do not offer: it makes a lot of memory out of nothing, or tells about the machine.
const REFUSED: [&str; 21] = [
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

/// Names that a statement may use beside those of the library.
const OURS: [&str; 2] = ["search", "unnest"];

/// Characters that a padding function may make of one value.
pub const PADDED_CHARS_MAX: u64 = 10_000;

/// How a function takes its arguments.
pub fn takes(name: &str) -> Takes {
    TAKES
        .iter()
        .find(|(_, names)| names.split_whitespace().any(|n| n == name))
        .map_or(Takes::Texts(&[]), |(takes, _)| *takes)
}

/// The name of every function that a statement may call.
static OFFERED: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
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
    names.extend(OURS.map(str::to_owned));
    names.retain(|name| !REFUSED.contains(&name.as_str()));
    names
});

/// Aggregate functions, by name.
static AGGREGATES: LazyLock<BTreeSet<String>> = LazyLock::new(|| {
    let all = datafusion::functions_aggregate::all_default_aggregate_functions();
    all.iter()
        .flat_map(|f| [f.name().to_owned()].into_iter().chain(f.aliases().iter().cloned()))
        .collect()
});

/// Whether a function of this name aggregates.
pub fn is_aggregate(name: &str) -> bool {
    AGGREGATES.contains(&name.to_lowercase())
}

/// An error unless a statement may call this function.
pub fn offered(name: &str) -> Result<(), Problem> {
    if REFUSED.contains(&name) {
        return Err(
            Problem::new(Code::NotSupported, format!("the function {name} is not offered"))
                .hint("it can make more than a query may hold, or is not part of this SQL"),
        );
    }
    if OFFERED.contains(name) {
        return Ok(());
    }
    let problem = Problem::new(Code::BadSql, format!("there is no function {name}"));
    Err(match crate::sql::nearest(name, OFFERED.iter().map(String::as_str)) {
        Some(near) => problem.hint(format!("perhaps {near} was meant")),
        None => problem,
    })
}
