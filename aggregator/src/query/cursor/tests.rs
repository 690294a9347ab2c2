//! Tests of `cursor`.

use plan::{Column, Path};

use super::*;

fn key(of: Type, descending: bool) -> SortKey {
    SortKey {
        column: Column::path(Path::of_keys(["a.b", "c\""]), of),
        descending,
        nulls_first: false,
    }
}

#[test]
fn a_cursor_reads_back_in_every_type() {
    let values = [
        (Type::Bool, ScalarValue::Boolean(Some(true))),
        (Type::Int, ScalarValue::Int64(Some(i64::MIN))),
        (Type::Double, ScalarValue::Float64(Some(-0.0))),
        (Type::Double, ScalarValue::Float64(None)),
        (Type::Text, ScalarValue::Utf8View(Some("a\"\0😀".into()))),
        (
            Type::Time,
            ScalarValue::TimestampMicrosecond(Some(-5), Some("UTC".into())),
        ),
        (Type::Json, ScalarValue::LargeUtf8(None)),
    ];
    for (of, value) in values {
        let (keys, after) = (
            [key(of, true)],
            PageStart {
                values: vec![value],
                address: "push/0@7.0".parse().expect("an address"),
            },
        );
        assert_eq!(read(&write(&keys, &after), &keys), Ok(after));
    }
}

#[test]
fn a_row_cursor_reads_back_in_every_type() {
    let values = [
        ScalarValue::Boolean(Some(false)),
        ScalarValue::Int64(Some(i64::MIN)),
        ScalarValue::UInt64(Some(u64::MAX)),
        ScalarValue::Float64(Some(0.1 + 0.2)),
        ScalarValue::Float64(Some(-0.0)),
        ScalarValue::Float64(None),
        ScalarValue::Null,
        ScalarValue::Decimal128(Some(-123_456), 38, 4),
        ScalarValue::Utf8View(Some("a\"\0😀".into())),
        ScalarValue::TimestampMicrosecond(Some(-5), Some("UTC".into())),
        ScalarValue::TimestampNanosecond(Some(1_769_853_600_000_000_001), None),
        ScalarValue::Date32(Some(20_000)),
    ];
    let after = RowsPageStart {
        values: values.to_vec(),
        rows: 3,
    };
    let types: Vec<DataType> = values.iter().map(ScalarValue::data_type).collect();
    let written = write_rows("price", &after).expect("a cursor");
    assert_eq!(read_rows(&written, "price", &types), Ok(after));
    assert_eq!(
        read_rows(&written, "cost", &types).map_err(|p| p.code),
        Err(Code::BadRequest)
    );
    assert_eq!(
        read_rows("e30", "price", &types).map_err(|p| p.code),
        Err(Code::BadRequest)
    );
}

#[test]
fn a_cursor_of_another_order_and_garbage_are_refused() {
    let after = PageStart {
        values: vec![ScalarValue::Int64(Some(1))],
        address: "push/0@7".parse().expect("an address"),
    };
    let written = write(&[key(Type::Int, true)], &after);
    assert_eq!(
        read(&written, &[key(Type::Int, false)]).map_err(|p| p.code),
        Err(Code::BadRequest)
    );
    for garbage in [
        "",
        "x",
        "!!",
        "e30",
        &URL_SAFE_NO_PAD.encode("{\"by\":\"\",\"values\":[],\"address\":\"\"}"),
    ] {
        assert_eq!(
            read(garbage, &[key(Type::Int, true)]).map_err(|p| p.code),
            Err(Code::BadRequest),
            "{garbage}"
        );
    }
}
