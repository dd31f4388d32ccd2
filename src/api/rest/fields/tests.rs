//! Values by name: what is read, and what is told of what is not.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use serde_json::{Map, Value, json};

use super::{COMPLAINTS_MAX, Fields, TYPES_MAX};

/// The first complaint of `read` on the query string, as "field: message; remedy".
#[track_caller]
fn check_query(query: &str, read: fn(&mut Fields), then: Option<&str>) {
    let mut fields = Fields::query(Some(query), &[&["limit", "q", "min", "on"]]).unwrap();
    read(&mut fields);
    let complaint = fields.into_complaint().map(|c| format!("{}: {}; {}", c.field, c.message, c.remedy));
    assert_eq!(complaint.as_deref(), then, "{query}");
}

#[test]
fn numbers_out_of_range_are_refused_with_the_field() {
    let limit = |fields: &mut Fields| {
        fields.integer("limit", 1..=100);
    };
    let min = |fields: &mut Fields| {
        fields.number("min", -1.0..=1.0);
    };
    check_query("limit=7", limit, None);
    for bad in ["limit=-1", "limit=0", "limit=101", "limit=99999999999999999999"] {
        let then = "limit: must be a whole number from 1 to 100; give a whole number from 1 to 100";
        check_query(bad, limit, Some(then));
    }
    check_query("min=0.5", min, None);
    for bad in ["min=NaN", "min=inf", "min=1.01", "min=-1e9"] {
        check_query(bad, min, Some("min: must be from -1 to 1; give a number from -1 to 1"));
    }
}

#[test]
fn unknown_names_are_refused_with_the_nearest() {
    check_query("limti=3", |_| (), Some("limti: is no known parameter; did you mean \"limit\"?"));
    check_query("zzzzz=3", |_| (), Some("zzzzz: is no known parameter; known are: limit, q, min, on"));
    check_query("q=a&q=b", |_| (), Some("q: is given twice; give it once"));
}

#[test]
fn a_choice_is_suggested_by_what_is_meant_before_its_letters() {
    let order = |fields: &mut Fields| {
        fields.choice("q", &[("newest", true), ("oldest", false)]);
    };
    check_query("q=Newest", order, None);
    for (given, meant) in
        [("latest", "newest"), ("DESC", "newest"), ("earliest", "oldest"), ("newst", "newest")]
    {
        let then = format!("q: must be one of: newest, oldest; did you mean {meant:?}?");
        check_query(&format!("q={given}"), order, Some(&then));
    }
    check_query("q=zzz", order, Some("q: must be one of: newest, oldest; use one of: newest, oldest"));
    // A word that is no choice here is not suggested.
    let level = |fields: &mut Fields| {
        fields.choice("q", &[("info", 0), ("warn", 1)]);
    };
    check_query("q=recent", level, Some("q: must be one of: info, warn; use one of: info, warn"));
}

#[test]
fn a_query_string_is_percent_encoded_utf_8() {
    let mut fields = Fields::query(Some("q=caf%C3%A9+%26&on=true"), &[&["q", "on"]]).unwrap();
    assert_eq!(fields.text("q").as_deref(), Some("café &"));
    assert_eq!(fields.flag("on"), Some(true));
    for bad in ["q=%", "q=%4", "q=%zz", "q=%FF"] {
        assert_eq!(Fields::query(Some(bad), &[&["q"]]).err().unwrap().code(), "MALFORMED_QUERY", "{bad}");
    }
}

#[test]
fn json_values_keep_their_kind() {
    let value = json!({"limit": "7", "q": 3, "min": null, "on": "true"});
    let mut fields = Fields::object(value, "items[2].".to_owned(), &[&["limit", "q", "min", "on"]]);
    assert_eq!(fields.integer("limit", 1..=9), None);
    assert_eq!(fields.text("q"), None);
    assert_eq!(fields.number("min", 0.0..=1.0), None);
    assert_eq!(fields.flag("on"), None);
    let named: Vec<_> = fields.complaints.iter().map(|c| c.field.as_str()).collect();
    assert_eq!(named, ["items[2].limit", "items[2].q", "items[2].on"]);
}

#[test]
fn of_many_unknown_names_and_wrong_items_only_so_many_are_looked_at_as_are_told_of() {
    let many: Map<String, Value> = (0..10_000).map(|at| (format!("nmae{at}"), json!(at))).collect();
    let known: &[&[&str]] = &[&["name"], &["q"]];
    let mut fields = Fields::object(Value::Object(many), String::new(), known);
    assert_eq!(fields.unknown(known).len(), COMPLAINTS_MAX);
    assert_eq!(fields.complaints.len(), COMPLAINTS_MAX);
    assert_eq!(fields.complaints[0].field, "nmae0");

    // What is wrong with one item in front of many good ones is told, and all of them are read.
    let mut items = vec![json!("good"); 10_000];
    items[0] = json!(1);
    fields = Fields::object(json!({ "q": items }), String::new(), known);
    assert_eq!(fields.texts("q").len(), 9_999);
    assert_eq!(fields.complaints.len(), 1);

    // Types are counted before one is looked at.
    for (given, read, refused) in
        [(TYPES_MAX, TYPES_MAX, None), (TYPES_MAX + 1, 0, Some("has 101 items, the limit is 100"))]
    {
        let mut fields = Fields::object(json!({ "q": vec!["Tool"; given] }), String::new(), known);
        assert_eq!(fields.types("q").len(), read);
        let complaint = fields.into_complaint().map(|complaint| complaint.message);
        assert_eq!(complaint.as_deref(), refused);
    }

    let mut items = vec![json!(1); COMPLAINTS_MAX];
    items.extend(vec![json!("good"); 10_000]);
    fields = Fields::object(json!({ "q": items }), String::new(), known);
    assert_eq!(fields.texts("q").len(), 0, "the request is refused: nobody needs the rest");
    assert_eq!(fields.complaints.len(), COMPLAINTS_MAX);
}
