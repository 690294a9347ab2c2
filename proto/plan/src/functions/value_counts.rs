//! Aggregates that count how often each value occurs: `mode`, `approx_top_k`, `histogram`. All counts are exact. Of values
//! that occur equally often, the least one comes first.

use std::{
    cmp::Ordering,
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use datafusion::{
    arrow::{
        array::{Array as _, ArrayRef, AsArray as _},
        datatypes::{DataType, Field, FieldRef, Int64Type},
    },
    common::{DataFusionError, Result, ScalarValue, exec_err, plan_err},
    logical_expr::{
        Accumulator, AggregateUDF, AggregateUDFImpl, Signature, Volatility,
        function::{AccumulatorArgs, StateFieldsArgs},
        utils::format_state_name,
    },
    physical_expr::expressions::Literal,
};
use proto::{Code, Problem};

use super::json::to_json;
use crate::{Kinds, arrays, column::json_field};

/// `mode(value)`: the most frequent value.
pub const MODE: &str = "mode";
/// `approx_top_k(value, k)`: a list of the k most frequent values.
pub const TOP_K: &str = "approx_top_k";
/// `histogram(value)`: an object of all values with their counts.
pub const HISTOGRAM: &str = "histogram";

/// The values of [`TOP_K`], at most.
const VALUES_MAX: i64 = 10_000;

/// The aggregates, for registration with a session.
pub(super) fn aggregates() -> Vec<Arc<AggregateUDF>> {
    let function = |(name, arguments)| {
        Arc::new(AggregateUDF::from(ValueCountsUdaf {
            name,
            signature: Signature::any(arguments, Volatility::Immutable),
        }))
    };
    [(MODE, 1), (TOP_K, 2), (HISTOGRAM, 1)].map(function).into()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct ValueCountsUdaf {
    name: &'static str,
    signature: Signature,
}

impl AggregateUDFImpl for ValueCountsUdaf {
    fn name(&self) -> &str {
        self.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, types: &[DataType]) -> Result<DataType> {
        let [value, ..] = types else {
            return plan_err!("{} takes a value", self.name);
        };
        Ok(match self.name {
            TOP_K => DataType::new_list(value.clone(), true),
            HISTOGRAM => DataType::LargeUtf8,
            _ => value.clone(),
        })
    }

    fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef> {
        match (self.name, fields) {
            (HISTOGRAM, _) => Ok(Arc::new(json_field(self.name, Kinds::OBJECT))),
            (MODE, [value]) => Ok(Arc::new(
                value.as_ref().clone().with_name(self.name).with_nullable(true),
            )),
            _ => {
                let types: Vec<DataType> = fields.iter().map(|field| field.data_type().clone()).collect();
                Ok(Arc::new(Field::new(self.name, self.return_type(&types)?, true)))
            }
        }
    }

    fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>> {
        let [value, ..] = args.input_fields else {
            return plan_err!("{} takes a value", self.name);
        };
        let list = |name: &str, of: &DataType| {
            Arc::new(Field::new(
                format_state_name(args.name, name),
                DataType::new_list(of.clone(), true),
                true,
            ))
        };
        Ok(vec![
            list("values", value.data_type()),
            list("counts", &DataType::Int64),
        ])
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let Some(value) = args.expr_fields.first() else {
            return plan_err!("{} takes a value", self.name);
        };
        let size = match args.exprs.get(1) {
            None => 1,
            Some(size) => {
                let size = size.downcast_ref::<Literal>().map(|size| size.value().clone());
                let size = size.and_then(|size| size.cast_to(&DataType::Int64).ok());
                match size {
                    Some(ScalarValue::Int64(Some(size))) if (1..=VALUES_MAX).contains(&size) => size,
                    _ => {
                        let detail = format!("{} needs a number of values from 1 to {VALUES_MAX}", self.name);
                        let problem = Problem::new(Code::BadSql, detail).hint("write approx_top_k(kind, 10)");
                        return Err(DataFusionError::External(Box::new(problem)));
                    }
                }
            }
        };
        Ok(Box::new(ValueCounts {
            name: self.name,
            value_type: value.data_type().clone(),
            size: usize::try_from(size).unwrap_or_default(),
            counts: HashMap::new(),
            bytes: 0,
        }))
    }
}

/// How often each value of a group occurs. NULLs do not count.
#[derive(Debug)]
struct ValueCounts {
    name: &'static str,
    value_type: DataType,
    /// How many values [`TOP_K`] returns.
    size: usize,
    counts: HashMap<ScalarValue, i64>,
    /// Of the values outside the table.
    bytes: usize,
}

impl ValueCounts {
    fn add(&mut self, value: ScalarValue, count: i64) {
        // The buffers of the batch must not stay in memory for one value.
        let value = arrays::compact_value(value);
        let size = value.size().saturating_sub(size_of::<ScalarValue>());
        match self.counts.entry(value) {
            Entry::Occupied(mut known) => {
                *known.get_mut() += count;
                if *known.get() == 0 {
                    known.remove();
                    self.bytes = self.bytes.saturating_sub(size);
                }
            }
            Entry::Vacant(new) => {
                new.insert(count);
                self.bytes += size;
            }
        }
    }

    fn add_rows(&mut self, columns: &[ArrayRef], count: i64) -> Result<()> {
        let Some(values) = columns.first() else {
            return exec_err!("{} takes a value", self.name);
        };
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            self.add(ScalarValue::try_from_array(values, row)?, count);
        }
        Ok(())
    }

    /// The values with their counts, the most frequent first.
    fn ranked(&self) -> Vec<(&ScalarValue, i64)> {
        let mut ranked: Vec<_> = self.counts.iter().map(|(value, count)| (value, *count)).collect();
        ranked.sort_unstable_by(|(a, a_count), (b, b_count)| b_count.cmp(a_count).then_with(|| order(a, b)));
        ranked
    }

    /// `{"value":count,…}`, in the order of the values.
    fn object(&self) -> Result<ScalarValue> {
        if self.counts.is_empty() {
            return Ok(ScalarValue::LargeUtf8(None));
        }
        let mut values: Vec<(&ScalarValue, i64)> = self.counts.iter().map(|(value, count)| (value, *count)).collect();
        values.sort_unstable_by(|(a, _), (b, _)| order(a, b));
        let spelled = to_json(&ScalarValue::iter_to_array(
            values.iter().map(|(value, _)| (*value).clone()),
        )?)?;
        let spelled = spelled.as_string::<i64>();
        // A number and a text may be spelled alike.
        let mut members: Vec<(String, i64)> = Vec::with_capacity(values.len());
        let mut places = HashMap::new();
        for (row, (_, count)) in values.iter().enumerate() {
            let key = match spelled.is_valid(row) {
                true if spelled.value(row).starts_with('"') => spelled.value(row).to_owned(),
                true => serde_json::Value::from(spelled.value(row)).to_string(),
                false => "\"null\"".to_owned(),
            };
            match places.entry(key.clone()) {
                Entry::Vacant(new) => {
                    new.insert(members.len());
                    members.push((key, *count));
                }
                Entry::Occupied(known) => members[*known.get()].1 += count,
            }
        }
        let members: Vec<String> = members.iter().map(|(key, count)| format!("{key}:{count}")).collect();
        Ok(ScalarValue::LargeUtf8(Some(format!("{{{}}}", members.join(",")))))
    }
}

fn order(a: &ScalarValue, b: &ScalarValue) -> Ordering {
    a.partial_cmp(b).unwrap_or(Ordering::Equal)
}

impl Accumulator for ValueCounts {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_rows(values, 1)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.add_rows(values, -1)
    }

    fn supports_retract_batch(&self) -> bool {
        true
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        let [values, counts] = states else {
            return exec_err!("the state of {} is two lists", self.name);
        };
        let (values, counts) = (values.as_list::<i32>(), counts.as_list::<i32>());
        for row in (0..values.len()).filter(|row| values.is_valid(*row)) {
            let (values, counts) = (values.value(row), counts.value(row));
            for (item, count) in counts.as_primitive::<Int64Type>().values().iter().enumerate() {
                self.add(ScalarValue::try_from_array(&values, item)?, *count);
            }
        }
        Ok(())
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        let (values, counts): (Vec<_>, Vec<_>) = self
            .counts
            .iter()
            .map(|(value, count)| (value.clone(), ScalarValue::from(*count)))
            .unzip();
        let list = |items: &[ScalarValue], of: &DataType| ScalarValue::List(ScalarValue::new_list(items, of, true));
        Ok(vec![list(&values, &self.value_type), list(&counts, &DataType::Int64)])
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        match self.name {
            HISTOGRAM => self.object(),
            TOP_K if self.counts.is_empty() => {
                ScalarValue::try_from(&DataType::new_list(self.value_type.clone(), true))
            }
            TOP_K => {
                let top: Vec<ScalarValue> = self
                    .ranked()
                    .into_iter()
                    .take(self.size)
                    .map(|(value, _)| value.clone())
                    .collect();
                Ok(ScalarValue::List(ScalarValue::new_list(&top, &self.value_type, true)))
            }
            _ => {
                let most = |(a, a_count): &(&ScalarValue, &i64), (b, b_count): &(&ScalarValue, &i64)| {
                    a_count.cmp(b_count).then_with(|| order(b, a))
                };
                match self.counts.iter().max_by(most) {
                    Some((value, _)) => Ok(value.clone()),
                    None => ScalarValue::try_from(&self.value_type),
                }
            }
        }
    }

    fn size(&self) -> usize {
        size_of_val(self) + self.bytes + self.counts.capacity() * size_of::<(ScalarValue, i64)>()
    }
}
