//! JSON out of bytes, strictly: UTF-8, one whole document, no member given twice.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::Cursor;

use axum::http::StatusCode;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::problem::{Complaint, Problem, shortened};

/// A JSON value out of bytes.
///
/// # Errors
///
/// A [`Problem`] with the place where it ends being one.
pub(super) fn parse_json(bytes: &[u8]) -> Result<Value, Problem> {
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let detail = format!("the body is not UTF-8 from byte {} on", error.valid_up_to());
        Problem::new(StatusCode::BAD_REQUEST, "INVALID_UTF8", detail)
            .field("body")
            .remedy("encode the body as UTF-8")
    })?;
    let (doubled, huge) = (RefCell::new(None), Cell::new(false));
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = Document { doubled: &doubled, huge: &huge }.deserialize(&mut reader);
    let value =
        value.and_then(|value| reader.end().map(|()| value)).map_err(|error| match doubled.take() {
            Some(field) => given_twice(&field),
            None => malformed(text, &error),
        })?;
    match huge.get().then(|| rounded_integer(text)).flatten() {
        Some(digits) => Err(rounded(digits)),
        None => Ok(value),
    }
}

/// Levels of lists and maps in MessagePack, as many as JSON may have.
const DEPTH_MAX: usize = 128;

/// A JSON value out of MessagePack, by the same rules: one whole document, no member given twice, and nothing that JSON
/// has not.
///
/// # Errors
///
/// A [`Problem`] with what is wrong.
pub(super) fn parse_msgpack(bytes: &[u8]) -> Result<Value, Problem> {
    let (doubled, huge) = (RefCell::new(None), Cell::new(false));
    let mut reader = rmp_serde::Deserializer::new(Cursor::new(bytes));
    reader.set_max_depth(DEPTH_MAX);
    let value = Document { doubled: &doubled, huge: &huge }.deserialize(&mut reader);
    let read = reader.get_ref().position();
    let detail = match value {
        Ok(value) if read == bytes.len() as u64 => return Ok(value),
        Ok(_) => {
            format!("the body goes on behind its first value, which takes {read} of {} bytes", bytes.len())
        }
        Err(_) if doubled.borrow().is_some() => return Err(given_twice(&doubled.take().unwrap_or_default())),
        Err(_) if bytes.is_empty() => "the body is empty".to_owned(),
        Err(error) => format!("the body is no MessagePack of what JSON can say, near byte {read}: {error}"),
    };
    Err(Problem::new(StatusCode::BAD_REQUEST, "MALFORMED_MSGPACK", detail)
        .field("body")
        .remedy("send one map whose names are texts; binary, extensions and NaN have no place in it"))
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

fn malformed(text: &str, error: &serde_json::Error) -> Problem {
    let (detail, remedy) = if text.bytes().all(|byte| byte.is_ascii_whitespace()) {
        ("the body is empty".to_owned(), "send a JSON object")
    } else if error.is_eof() {
        (format!("the JSON ends too early: {error}"), "send the whole document")
    } else {
        (format!("the body is no JSON: {error}"), "correct it there; NaN and Infinity are no JSON numbers")
    };
    Problem::new(StatusCode::BAD_REQUEST, "MALFORMED_JSON", detail).field("body").remedy(remedy)
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

/// Reads a value and notes the path of a member that comes twice, which ends the reading, and whether there is a number
/// so large that it may be a rounded integer.
#[derive(Clone, Copy)]
struct Document<'place> {
    doubled: &'place RefCell<Option<String>>,
    huge: &'place Cell<bool>,
}

impl Document<'_> {
    /// Puts what leads to a doubled member before its path.
    fn within(self, place: impl FnOnce() -> String) {
        if let Some(path) = self.doubled.borrow_mut().as_mut() {
            let dot = if path.starts_with('[') { "" } else { "." };
            *path = format!("{}{dot}{path}", place());
        }
    }
}

impl<'de> DeserializeSeed<'de> for Document<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Document<'_> {
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

    use super::{parse_json, parse_msgpack};

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
