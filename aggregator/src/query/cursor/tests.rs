//! Tests of `cursor`.

use super::*;

fn order(by: &str) -> OrderIdentity {
    OrderIdentity {
        search: Some(7),
        by: by.to_owned(),
        data_type: "Int64".to_owned(),
        definitions_hash: 0,
    }
}

#[test]
fn a_cursor_reads_back_in_every_type() {
    let values = [
        ScalarValue::Boolean(Some(false)),
        ScalarValue::Boolean(Some(true)),
        ScalarValue::Int64(Some(i64::MIN)),
        ScalarValue::UInt64(Some(u64::MAX)),
        ScalarValue::Float64(Some(0.1 + 0.2)),
        ScalarValue::Float64(Some(-0.0)),
        ScalarValue::Float64(Some(5e-324)),
        ScalarValue::Float64(Some(f64::MAX)),
        ScalarValue::Float64(None),
        ScalarValue::Null,
        ScalarValue::Decimal128(Some(-123_456), 38, 4),
        ScalarValue::Utf8View(Some("a\"\0😀".into())),
        ScalarValue::Utf8View(Some(String::new())),
        ScalarValue::LargeUtf8(None),
        ScalarValue::Null,
        ScalarValue::TimestampMicrosecond(Some(-5), Some("UTC".into())),
        // The years 10000 and -1.
        ScalarValue::TimestampMicrosecond(Some(253_402_318_799_000_000), Some("UTC".into())),
        ScalarValue::TimestampMicrosecond(Some(-62_198_755_200_000_000), Some("UTC".into())),
        ScalarValue::TimestampNanosecond(Some(1_769_853_600_000_000_001), None),
        ScalarValue::Date32(Some(20_000)),
    ];
    let after = RowsPageStart {
        values: values.to_vec(),
        rows: 3,
        statistics: None,
    };
    let types: Vec<DataType> = values.iter().map(ScalarValue::data_type).collect();
    let written = write(&order("price"), &after).expect("a cursor");
    assert_eq!(read(&written, &order("price"), &types), Ok(after));
}

#[test]
fn a_cursor_of_another_order_and_garbage_are_refused() {
    let after = RowsPageStart {
        values: vec![ScalarValue::Int64(Some(1))],
        rows: 1,
        statistics: None,
    };
    let written = write(&order("price asc"), &after).expect("a cursor");
    let (int, text) = ([DataType::Int64], [DataType::Int64, DataType::Utf8View]);
    for (by, types) in [("price desc", &int[..]), ("cost asc", &int), ("price asc", &text)] {
        assert_eq!(
            read(&written, &order(by), types).map_err(|p| p.code),
            Err(Code::BadRequest),
            "{by}"
        );
    }
    let of_another = OrderIdentity {
        search: Some(8),
        ..order("price asc")
    };
    let problem = read(&written, &of_another, &int).expect_err("a cursor of another search");
    assert_eq!(problem.detail, "`after` belongs to another search");
    // A cursor of an older release names no search: it is used if its order is the same.
    let of_older = |by| OrderIdentity {
        search: None,
        ..order(by)
    };
    let older = |by| write(&of_older(by), &after).expect("a cursor");
    assert_eq!(read(&older("price asc"), &order("price asc"), &int), Ok(after.clone()));
    let problem = read(&older("_score of 7 desc"), &order("_score desc"), &int).expect_err("another name");
    assert!(problem.detail.contains("an older release"), "{problem}");
    for garbage in [
        "",
        "x",
        "!!",
        "e30",
        &URL_SAFE_NO_PAD.encode("{\"by\":\"price asc\",\"data_type\":\"Int64\",\"keys\":[],\"rows\":1}"),
        &URL_SAFE_NO_PAD.encode("{\"by\":\"price asc\",\"data_type\":\"Int64\",\"keys\":[\"x\"],\"rows\":1}"),
    ] {
        assert_eq!(
            read(garbage, &order("price asc"), &int).map_err(|p| p.code),
            Err(Code::BadRequest),
            "{garbage}"
        );
    }
}
