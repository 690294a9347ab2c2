//! Functions of lists, and what other systems call them. Positions count from 1.

use super::entry::{ArgumentTypes::*, Meaning::Call, SqlFunction, compat, expression, refused, scalar, syntax};
use crate::functions::growth;

/// One function a line.
#[rustfmt::skip]
pub(super) const FUNCTIONS: &[SqlFunction] = &[
    syntax("unnest(list)", "A row for each item of a list.")
        .also("arrayjoin jsonb_array_elements json_array_elements jsonb_array_elements_text json_array_elements_text"),
    scalar(Native, "generate_series(start, stop[, step])",
        "A list of integers, or of times at an interval, both ends included; in FROM, a row for each.")
        .grows(growth::series),
    scalar(Native, "range(start, stop[, step])", "The same without the stop.").grows(growth::series),
    scalar(Common, "make_array(value, …)", "A list of these values; also written ARRAY[…]."),
    scalar(Native, "array_length(list[, dimension])", "The number of items."),
    scalar(Native, "cardinality(list)", "The number of items, with those of inner lists."),
    scalar(Native, "empty(list)", "Whether a list has no items."),
    scalar(Native, "array_has(list, value)", "Whether a list has this item.").also("has"),
    scalar(Native, "array_has_all(list, values)", "Whether a list has all items of another one.").also("hasall")
        .grows(growth::item_pairs),
    scalar(Native, "array_has_any(list, values)", "Whether a list has an item of another one.").also("hasany")
        .grows(growth::item_pairs),
    scalar(Native, "array_position(list, value[, from])", "The position of the first such item."),
    scalar(Native, "array_positions(list, value)", "The positions of all such items."),
    scalar(Native, "array_element(list, n)", "The n-th item; a negative n counts from the end."),
    scalar(Native, "array_slice(list, from, to[, step])", "The items between two positions."),
    scalar(Native, "array_any_value(list)", "The first item that is not NULL."),
    scalar(Native, "array_max(list)", "The greatest item."),
    scalar(Native, "array_min(list)", "The least item."),
    scalar(Native, "array_sort(list[, 'DESC'[, 'NULLS LAST']])", "The items in order."),
    scalar(Native, "array_reverse(list)", "The items in reverse order.").also("arrayreverse"),
    scalar(Native, "array_distinct(list)", "Each different item once.").also("arraydistinct"),
    scalar(Native, "array_append(list, value)", "The list with an item at its end."),
    scalar(Native, "array_prepend(value, list)", "The list with an item at its beginning."),
    scalar(Native, "array_concat(list, …)", "The items of all lists.").also("arrayconcat"),
    scalar(Native, "array_pop_back(list)", "The list without its last item."),
    scalar(Native, "array_pop_front(list)", "The list without its first item."),
    scalar(Native, "array_remove(list, value)", "The list without the first such item."),
    scalar(Native, "array_remove_n(list, value, n)", "The list without the first n such items."),
    scalar(Native, "array_remove_all(list, value)", "The list without all such items."),
    scalar(Native, "array_replace(list, from, to)", "The list with the first such item replaced.")
        .grows(growth::replaced_items),
    scalar(Native, "array_replace_n(list, from, to, n)", "The list with the first n such items replaced.")
        .grows(growth::replaced_items),
    scalar(Native, "array_replace_all(list, from, to)", "The list with all such items replaced.")
        .grows(growth::replaced_items),
    scalar(Native, "array_union(list, other)", "The different items of both lists."),
    scalar(Native, "array_intersect(list, other)", "The different items that both lists have."),
    scalar(Native, "array_except(list, other)", "The different items that the other list has not."),
    scalar(Native, "arrays_zip(list, …)", "A list of the first items, the second ones, and so on."),
    scalar(Native, "flatten(list)", "The items of all inner lists."),
    scalar(Native, "array_ndims(list)", "How deep lists are nested."),
    scalar(Native, "array_dims(list)", "The number of items at each depth."),
    scalar(Native, "array_distance(list, other)", "The Euclidean distance of two lists of numbers."),
    scalar(Native, "array_to_string(list, separator[, null])", "The items as text, joined by a separator.")
        .grows(growth::joined_items),
    scalar(Native, "string_to_array(text, separator[, null])", "A list of the parts of a text.").grows(growth::parts),
    scalar(Native, "map_keys(map)", "The keys of a map; of a document, write json_keys."),
    scalar(Native, "map_values(map)", "The values of a map."),
    scalar(Native, "map_entries(map)", "The keys and values of a map."),
    scalar(Native, "map_extract(map, key)", "A list of the value of a key."),
    // Other names of the above whose arguments become texts: they accept no list that is typed.
    scalar(Texts(&[]), "list_length(list[, dimension])", "The number of items."),
    scalar(Texts(&[]), "list_contains(list, value)", "Whether a list has this item."),
    scalar(Texts(&[]), "arrays_overlap(list, values)", "Whether a list has an item of another one."),
    scalar(Texts(&[]), "array_indexof(list, value[, from])", "The position of the first such item."),
    scalar(Texts(&[]), "list_indexof(list, value[, from])", "The position of the first such item."),
    scalar(Texts(&[]), "list_extract(list, n)", "The n-th item."),
    scalar(Texts(&[]), "list_except(list, other)", "The different items that the other list has not."),
    // Known to DataFusion. Their arguments become texts, so they accept no list that is typed.
    scalar(Texts(&[]), "array_compact(list)", "The items that are not NULL."),
    scalar(Texts(&[]), "array_sum(list)", "The sum of all items."),
    scalar(Texts(&[]), "array_avg(list)", "The average of all items."),
    scalar(Texts(&[]), "array_product(list)", "The product of all items."),
    scalar(Texts(&[]), "array_add(list, other)", "The sums of the items at the same positions."),
    scalar(Texts(&[]), "array_subtract(list, other)", "The differences of the items at the same positions."),
    scalar(Texts(&[]), "array_scale(list, factor)", "Each item times a factor."),
    scalar(Texts(&[]), "array_normalize(list)", "The items divided by the length of the vector."),
    scalar(Texts(&[]), "inner_product(list, other)", "The sum of the products of items at the same positions."),
    scalar(Texts(&[]), "cosine_distance(list, other)", "1 less the cosine of the angle between two vectors."),
    // Of other systems.
    compat("arrayStringConcat(list[, separator])", Call("array_to_string", ""), "The items as text, joined."),
    refused("arraySort", "sort the items: SELECT d._id, array_agg(t.item ORDER BY t.item) FROM events AS d, \
        unnest(d.list) AS t(item) GROUP BY 1"),
    expression("indexOf(list, value)", &["coalesce(array_position($1, $2), 0)"],
        "The position of the first such item, or 0."),
    refused("arraySum", "add the items: SELECT d._id, sum(t.item) FROM events AS d, unnest(d.list) AS t(item) GROUP BY 1; \
        if they are objects, sum(t.item.price)")
        .also("list_sum list_avg"),
];
