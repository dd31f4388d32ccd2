//! JSON out of bytes, strictly: UTF-8, one whole document, no member given twice.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::Cursor;

use axum::http::StatusCode;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::problem::{Complaint, Problem, shortened};

/// Values of one document, those within others counted, that are read in any case. Each takes tens of bytes in memory, an object
/// hundreds: `[0,0,…]` as large as a body may be would take many times its size.
const VALUES_MAX: usize = 4_000_000;
/// Bytes of a larger document for each value of it. Rows of an export have more.
const VALUE_BYTES: usize = 8;

/// A JSON value out of bytes.
///
/// # Errors
///
/// A [`Problem`] with the place where it ends being one, or with status 413 when it is made of too many values.
pub(super) fn parse_json(bytes: &[u8]) -> Result<Value, Problem> {
    parsed(bytes, Document::Body, values_max(bytes.len()))
}

/// The same out of one line of a body; places are told within it, for its number stands beside them.
///
/// # Errors
///
/// As [`parse_json`].
pub(super) fn parse_line(bytes: &[u8]) -> Result<Value, Problem> {
    parsed(bytes, Document::Line, values_max(bytes.len()))
}

/// Most values of a document of so many bytes.
fn values_max(bytes: usize) -> usize {
    VALUES_MAX.max(bytes / VALUE_BYTES)
}

/// What a JSON document is in the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Document {
    Body,
    Line,
}

impl Document {
    const fn name(self) -> &'static str {
        match self {
            Self::Body => "body",
            Self::Line => "line",
        }
    }
}

fn parsed(bytes: &[u8], document: Document, values_max: usize) -> Result<Value, Problem> {
    let name = document.name();
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let of_line = if document == Document::Line { " of it" } else { "" };
        let detail = format!("the {name} is not UTF-8 from byte {}{of_line} on", error.valid_up_to());
        Problem::new(StatusCode::BAD_REQUEST, "INVALID_UTF8", detail)
            .field("body")
            .remedy(format!("encode the {name} as UTF-8"))
    })?;
    let (doubled, huge, left) = (RefCell::new(None), Cell::new(false), Cell::new(Some(values_max)));
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Reading { doubled: &doubled, huge: &huge, left: &left }.deserialize(&mut reader);
    let value =
        value.and_then(|value| reader.end().map(|()| value)).map_err(|error| match doubled.take() {
            Some(field) => given_twice(&field),
            None if left.get().is_none() => too_many(name, values_max),
            None => malformed(text, &error, document),
        })?;
    match huge.get().then(|| rounded_integer(text)).flatten() {
        Some(digits) => Err(rounded(digits)),
        None => Ok(value),
    }
}

/// Levels of lists and objects in a document. It is `serde_json`'s, which refuses the 128th; MessagePack has the same.
const DEPTH_MAX: usize = 127;
/// What to do about more.
const FLATTEN: &str = "flatten it, or give what lies deeper as a text";

/// A JSON value out of MessagePack, by the same rules: one whole document, no member given twice, and nothing that JSON
/// has not.
///
/// # Errors
///
/// A [`Problem`] with what is wrong.
pub(super) fn parse_msgpack(bytes: &[u8]) -> Result<Value, Problem> {
    unpacked(bytes, values_max(bytes.len()))
}

fn unpacked(bytes: &[u8], values_max: usize) -> Result<Value, Problem> {
    let (doubled, huge, left) = (RefCell::new(None), Cell::new(false), Cell::new(Some(values_max)));
    let mut reader = rmp_serde::Deserializer::new(Cursor::new(bytes));
    // The level that this names is the first that is refused.
    reader.set_max_depth(DEPTH_MAX + 1);
    let value = Reading { doubled: &doubled, huge: &huge, left: &left }.deserialize(&mut reader);
    let read = reader.get_ref().position();
    let mut remedy = "send one map whose names are texts; binary, extensions and NaN have no place in it";
    let detail = match value {
        Ok(value) if read == bytes.len() as u64 => return Ok(value),
        Ok(_) => {
            format!("the body goes on behind its first value, which takes {read} of {} bytes", bytes.len())
        }
        Err(_) if doubled.borrow().is_some() => return Err(given_twice(&doubled.take().unwrap_or_default())),
        Err(_) if left.get().is_none() => return Err(too_many("body", values_max)),
        Err(_) if bytes.is_empty() => "the body is empty".to_owned(),
        Err(rmp_serde::decode::Error::DepthLimitExceeded) => {
            remedy = FLATTEN;
            format!("the body is nested deeper than {DEPTH_MAX} levels, near byte {read}")
        }
        Err(error) => format!("the body is no MessagePack of what JSON can say, near byte {read}: {error}"),
    };
    Err(Problem::new(StatusCode::BAD_REQUEST, "MALFORMED_MSGPACK", detail).field("body").remedy(remedy))
}

/// `name` is made of more values than are read.
fn too_many(name: &str, values_max: usize) -> Problem {
    let detail = format!("the {name} has more than {values_max} values");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "BODY_TOO_LARGE", detail)
        .field("body")
        .detail("limit_values", values_max)
        .remedy("send it in several requests, or as NDJSON in parts")
}

/// The first integer of a JSON document, written without fraction and exponent, that no 64 bits hold.
fn rounded_integer(text: &str) -> Option<&str> {
    let mut quoted = false;
    let mut escaped = false;
    let mut start = None;
    // A number of a document that is one ends at something else, or at the end.
    for (at, byte) in text.bytes().chain([b' ']).enumerate() {
        if quoted {
            quoted = escaped || byte != b'"';
            escaped = byte == b'\\' && !escaped;
            continue;
        }
        match byte {
            b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E' if start.is_some() => {}
            b'0'..=b'9' | b'-' => start = Some(at),
            _ => {
                let number = start.take().and_then(|start| text.get(start..at));
                let integer = number.filter(|number| !number.contains(['.', 'e', 'E']));
                if integer
                    .is_some_and(|digits| digits.parse::<i64>().is_err() && digits.parse::<u64>().is_err())
                {
                    return integer;
                }
                quoted = byte == b'"';
            }
        }
    }
    None
}

/// What is stored must be what was sent.
fn rounded(digits: &str) -> Problem {
    let complaint = Complaint {
        field: "body".to_owned(),
        code: "VALIDATION_ERROR",
        value: Some(shortened(digits)),
        message: "has an integer of more than 64 bits, which would be rounded".to_owned(),
        remedy: "send it as a text, or with an exponent where rounding does no harm".to_owned(),
    };
    Problem::complaints(StatusCode::UNPROCESSABLE_ENTITY, vec![complaint])
}

fn malformed(text: &str, error: &serde_json::Error, document: Document) -> Problem {
    let (name, said) = (document.name(), error.to_string());
    let place = format!(" at line {} column {}", error.line(), error.column());
    let said = said.strip_suffix(&place).unwrap_or(&said);
    let place = match document {
        Document::Body => place,
        Document::Line => format!(" at column {} of the line", error.column()),
    };
    let (detail, remedy) = if text.bytes().all(|byte| byte.is_ascii_whitespace()) {
        (format!("the {name} is empty"), "send a JSON object")
    } else if text.starts_with('\u{feff}') {
        (format!("the {name} begins with a byte order mark, which is no JSON"), "send it without the mark")
    } else if error.is_eof() {
        (format!("the JSON ends too early: {said}{place}"), "send the whole document")
    } else if said == "recursion limit exceeded" {
        (format!("the {name} is nested deeper than {DEPTH_MAX} levels{place}"), FLATTEN)
    } else {
        (format!("the {name} is no JSON: {said}{place}"), remedy(said, word_at(text, error)))
    };
    Problem::new(StatusCode::BAD_REQUEST, "MALFORMED_JSON", detail).field("body").remedy(remedy)
}

/// What to do about a fault, by what the parser says of it and the word where it stands.
fn remedy(said: &str, word: &str) -> &'static str {
    let unsigned = word.trim_start_matches(['-', '+']);
    if said == "trailing characters" {
        "send one JSON value and nothing behind it"
    } else if said.contains("hex escape") {
        "write a character beyond U+FFFF as it is, or as the pair of its escapes, as in \\ud83d\\ude00"
    } else if said == "number out of range" {
        "send a number below 1.8e308, or send it as a text"
    } else if ["nan", "inf", "infinity"].iter().any(|no_number| unsigned.eq_ignore_ascii_case(no_number)) {
        "NaN and Infinity are no JSON numbers: send null, or leave the member out"
    } else {
        "correct it there"
    }
}

/// The word that an error is in: letters, digits and signs.
fn word_at<'text>(text: &'text str, error: &serde_json::Error) -> &'text str {
    let line = text.split('\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let Some((front, back)) = line.split_at_checked(error.column().saturating_sub(1)) else { return "" };
    let is_end = |letter: char| !(letter.is_ascii_alphanumeric() || ['-', '+', '.'].contains(&letter));
    let (head, tail) = (front.rsplit(is_end).next(), back.split(is_end).next());
    let start = front.len() - head.map_or(0, str::len);
    line.get(start..front.len() + tail.map_or(0, str::len)).unwrap_or_default()
}

/// Of two values one would have to be dropped, and which one differs from reader to reader.
fn given_twice(field: &str) -> Problem {
    let complaint = Complaint {
        field: shortened(field),
        code: "VALIDATION_ERROR",
        value: None,
        message: "is given twice".to_owned(),
        remedy: "give it once".to_owned(),
    };
    Problem::complaints(StatusCode::UNPROCESSABLE_ENTITY, vec![complaint])
}

/// Reads a value and notes the path of a member that comes twice, which ends the reading, as do more values than are `left`
/// (`None` then), and whether there is a number so large that it may be a rounded integer.
#[derive(Clone, Copy)]
struct Reading<'place> {
    doubled: &'place RefCell<Option<String>>,
    huge: &'place Cell<bool>,
    left: &'place Cell<Option<usize>>,
}

impl Reading<'_> {
    /// Puts what leads to a doubled member before its path.
    fn within(self, place: impl FnOnce() -> String) {
        if let Some(path) = self.doubled.borrow_mut().as_mut() {
            let dot = if path.starts_with('[') { "" } else { "." };
            *path = format!("{}{dot}{path}", place());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Reading<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        self.left.set(self.left.get().and_then(|left| left.checked_sub(1)));
        if self.left.get().is_none() {
            return Err(D::Error::custom("there are too many values"));
        }
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reading<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        if !value.is_finite() {
            return Err(E::custom("a number is not finite"));
        }
        if value.abs() >= i64::MAX as f64 {
            self.huge.set(true);
        }
        Ok(Value::from(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            match items.next_element_seed(self) {
                Ok(Some(item)) => list.push(item),
                Ok(None) => return Ok(Value::Array(list)),
                Err(error) => {
                    self.within(|| format!("[{}]", list.len()));
                    return Err(error);
                }
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if object.contains_key(&name) {
                self.doubled.replace(Some(name));
                return Err(A::Error::custom("a member is given twice"));
            }
            match members.next_value_seed(self) {
                Ok(value) => object.insert(name, value),
                Err(error) => {
                    self.within(|| name);
                    return Err(error);
                }
            };
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use serde_json::{Value, json};

    use super::{Document, VALUES_MAX, parse_json, parse_line, parse_msgpack, parsed, unpacked, values_max};

    #[test]
    fn what_is_read_is_what_serde_json_reads() {
        for text in [
            "null",
            "[]",
            "{}",
            "[1, -2, 18446744073709551615, 0.5, 1e300, -0]",
            "{\"a\": {\"b\": [true, false, null, \"\\u00e9\\n\"]}, \"\": \"\"}",
            " {\"text\": \"plain\"} \n",
        ] {
            assert_eq!(parse_json(text.as_bytes()).unwrap(), serde_json::from_str::<Value>(text).unwrap());
        }
    }

    #[test]
    fn a_member_given_twice_is_named_with_its_place() {
        for (text, field) in [
            ("{\"a\": 1, \"a\": 1}", "a"),
            ("{\"m\": {\"a\": 1, \"b\": 2, \"a\": 3}}", "m.a"),
            ("{\"list\": [{}, {\"x\": [[], [{\"a\": 1, \"\\u0061\": 2}]]}]}", "list[1].x[1][0].a"),
            ("[{\"a\": 1, \"a\": 2}]", "[0].a"),
        ] {
            let problem = parse_json(text.as_bytes()).err().unwrap();
            assert_eq!(problem.code(), "VALIDATION_ERROR");
            let complaint = problem.as_complaint();
            assert_eq!((complaint.field.as_str(), complaint.message.as_str()), (field, "is given twice"));
        }
        assert_eq!(parse_json(b"{\"a\": {\"b\": 1}, \"b\": 2}").unwrap(), json!({"a": {"b": 1}, "b": 2}));
    }

    #[test]
    fn an_integer_that_would_be_rounded_is_refused_and_shown() {
        for (text, digits) in [
            ("18446744073709551616", "18446744073709551616"),
            ("{\"a\": [1, -9223372036854775809]}", "-9223372036854775809"),
            ("{\"1\\\"99999999999999999999\": 99999999999999999998}", "99999999999999999998"),
        ] {
            let complaint = parse_json(text.as_bytes()).err().unwrap().as_complaint();
            assert_eq!(complaint.value.as_deref(), Some(digits), "{text}");
        }
        for text in [
            "[18446744073709551615, -9223372036854775808]",
            "{\"99999999999999999999\": 1e30}",
            "[\"a\\\\\", 123456789012345678901234567890.0, \"99999999999999999999\"]",
        ] {
            assert!(parse_json(text.as_bytes()).is_ok(), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded_and_the_end_is_the_end() {
        for text in ["[".repeat(100_000), "{} {}".to_owned(), "{\"a\": 1e999}".to_owned(), "{\"a".to_owned()]
        {
            assert_eq!(parse_json(text.as_bytes()).err().unwrap().code(), "MALFORMED_JSON");
        }
    }

    #[test]
    fn what_is_nested_too_deep_is_told_as_that() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        let packed = |levels: usize| [vec![0x91_u8; levels - 1], vec![0x90]].concat();
        assert!(parse_json(nested(127).as_bytes()).is_ok());
        assert!(parse_msgpack(&packed(127)).is_ok());
        let (json, msgpack) = (parse_json(nested(128).as_bytes()), parse_msgpack(&packed(128)));
        for problem in [json.err().unwrap(), msgpack.err().unwrap()] {
            let complaint = problem.as_complaint();
            assert!(complaint.message.contains("is nested deeper than 127 levels"), "{complaint:?}");
            assert!(complaint.remedy.starts_with("flatten it"), "{complaint:?}");
        }
    }

    #[test]
    fn no_more_values_are_read_than_there_is_room_for() {
        let value = json!({"a": [1, null], "b": {"c": "d"}});
        let (text, packed) = (value.to_string(), rmp_serde::to_vec_named(&value).unwrap());
        for (values_max, then) in [(5, None), (6, Some(&value)), (7, Some(&value))] {
            let json = parsed(text.as_bytes(), Document::Body, values_max);
            for read in [json, unpacked(&packed, values_max)] {
                assert_eq!(read.as_ref().ok(), then, "{values_max}");
                if let Err(problem) = read {
                    assert_eq!((problem.status().as_u16(), problem.code()), (413, "BODY_TOO_LARGE"));
                }
            }
        }
        for (bytes, most) in [(0, VALUES_MAX), (8 * VALUES_MAX, VALUES_MAX), (256 << 20, 32 << 20)] {
            assert_eq!(values_max(bytes), most, "{bytes}");
        }
        // Where the last one is cut off, that is what is wrong.
        let cut = parsed(b"[1, 2", Document::Body, 3).err().unwrap();
        assert_eq!(cut.code(), "MALFORMED_JSON");
    }

    #[test]
    fn each_fault_has_the_remedy_for_it() {
        let (plain, no_number) = ("correct it there", "NaN and Infinity are no JSON numbers");
        for (text, remedy) in [
            ("{\"a\": NaN}", no_number),
            ("[1,\n nan]", no_number),
            ("{\"a\": -Infinity}", no_number),
            ("{\"a\": +inf}", no_number),
            ("{\"a\": none}", plain),
            ("{\"NaN\": 1,}", plain),
            ("{'a': 1}", plain),
            ("{\"a\": 1e999}", "send a number below"),
            ("{\"a\": 1} {}", "send one JSON value and nothing behind it"),
            ("\u{feff}{\"a\": 1}", "send it without the mark"),
            ("{\"a\": \"\\ud800\"}", "write a character beyond U+FFFF"),
            ("{\"a\": \"\\udc00\"}", "write a character beyond U+FFFF"),
            ("{\"a\": \"\\ud800\\n\"}", "write a character beyond U+FFFF"),
            ("{\"\u{e9}\": \"\u{e9}\" \u{e9}}", plain),
            ("{\"a\": ", "send the whole document"),
        ] {
            let complaint = parse_json(text.as_bytes()).err().unwrap().as_complaint();
            assert!(complaint.remedy.starts_with(remedy), "{text}: {complaint:?}");
        }
    }

    #[test]
    fn places_in_a_line_are_told_within_it() {
        for (bytes, message) in [
            (&b"{x}"[..], "the line is no JSON: key must be a string at column 2 of the line"),
            (b"{\"a\": ", "the JSON ends too early: EOF while parsing a value at column 6 of the line"),
            (b"{\"a\": \"\xff\"}", "the line is not UTF-8 from byte 7 of it on"),
        ] {
            let complaint = parse_line(bytes).err().unwrap().as_complaint();
            assert_eq!(complaint.message, message);
        }
        let complaint = parse_json(b"{\n\xff").err().unwrap().as_complaint();
        assert_eq!(complaint.message, "the body is not UTF-8 from byte 2 on");
        let complaint = parse_json(b"{\nx}").err().unwrap().as_complaint();
        assert_eq!(complaint.message, "the body is no JSON: key must be a string at line 2 column 1");
    }

    #[test]
    fn what_msgpack_says_is_what_json_would_say() {
        let value = json!({"a": [1, -2, u64::MAX, 0.5, true, null], "b": {"c": "é"}, "": ""});
        let packed = rmp_serde::to_vec_named(&value).unwrap();
        assert_eq!(parse_msgpack(&packed).unwrap(), value);
        for len in 0..packed.len() {
            let problem = parse_msgpack(&packed[..len]).err().unwrap();
            assert_eq!(problem.code(), "MALFORMED_MSGPACK", "{len}");
        }
    }

    #[test]
    fn msgpack_that_json_could_not_say_is_refused() {
        let deep = [vec![0x91; 100_000], vec![0xc0]].concat();
        for (bytes, what) in [
            (vec![0x81, 0xa1, b'a', 0xc4, 0x01, 0x00], "binary"),
            (vec![0x81, 0x01, 0x02], "a name that is a number"),
            (vec![0xd4, 0x01, 0x00], "an extension"),
            (vec![0xca, 0x7f, 0xc0, 0x00, 0x00], "NaN"),
            (vec![0xc0, 0xc0], "two values"),
            (vec![0x92, 0xc0], "a list that ends early"),
            (vec![0xa1, 0xff], "no UTF-8"),
            (vec![0xdd, 0xff, 0xff, 0xff, 0xff], "a list of four billion"),
            (deep, "too deep"),
        ] {
            assert_eq!(parse_msgpack(&bytes).err().unwrap().code(), "MALFORMED_MSGPACK", "{what}");
        }
        let doubled = vec![0x82, 0xa1, b'a', 0x01, 0xa1, b'a', 0x02];
        assert_eq!(parse_msgpack(&doubled).err().unwrap().as_complaint().field, "a");
    }
}
