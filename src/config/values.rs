//! The kinds of values: numbers, texts, paths, durations, sizes, addresses, lists of texts, and what may be left out.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::json;

use super::document::{Node, Yaml};
use super::setting::{Fill, Limits, Setting, Slot, Wrong, keys};
use super::units::{Bytes, format_duration, parse_bytes, parse_duration};

keys!(bool, u16, u32, u64, usize, f64, String, PathBuf, Duration, Bytes, SocketAddr, Vec<String>);

/// What is said of a size or a time that is one, and too small or too large.
const OUT_OF_BOUNDS: &str = "is not within its bounds";

impl<T: Setting + Default> Fill for Option<T> {
    fn slot(&mut self) -> Slot<'_> {
        Slot::Key(self)
    }
}

impl Setting for bool {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let Yaml::Bool(value) = node.value else { return Err(Wrong::kind(node, &self.takes(limits))) };
        *self = value;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        json!(self)
    }

    fn takes(&self, _: Limits) -> String {
        "true or false".to_owned()
    }
}

/// The bounds of a whole number of a type that holds up to `type_max`.
fn whole_bounds(limits: Limits, type_max: u64) -> (u64, u64, bool) {
    match limits {
        Limits::Whole { min, max } => (min, max.min(type_max), false),
        Limits::PowerOfTwo { min, max } => (min, max.min(type_max), true),
        Limits::Any | Limits::Real { .. } | Limits::Time { .. } | Limits::NotEmpty => (0, type_max, false),
    }
}

fn check_whole(node: &Node, value: i128, limits: Limits, type_max: u64) -> Result<u64, Wrong> {
    let (min, max, power) = whole_bounds(limits, type_max);
    let found = u64::try_from(value).ok().filter(|found| (min..=max).contains(found));
    match found {
        Some(found) if !power || found.is_power_of_two() => Ok(found),
        _ => Err(Wrong::kind(node, &takes_whole(limits, type_max))),
    }
}

fn takes_whole(limits: Limits, type_max: u64) -> String {
    let (min, max, power) = whole_bounds(limits, type_max);
    let what = if power { "a power of two" } else { "a whole number" };
    match (min, max) {
        (min, max) if max > 1 << 40 => format!("{what} of at least {min}"),
        (min, max) => format!("{what} from {min} to {max}"),
    }
}

/// The largest value of a type, as far as 64 bits go.
fn type_max<T: TryInto<u64>>(max: T) -> u64 {
    max.try_into().unwrap_or(u64::MAX)
}

macro_rules! whole_settings {
    ($($type:ty),+) => {
        $(impl Setting for $type {
            fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
                let Yaml::Whole(value) = node.value else {
                    return Err(Wrong::kind(node, &self.takes(limits)));
                };
                let value = check_whole(node, value, limits, type_max(<$type>::MAX))?;
                *self = value as $type;
                Ok(())
            }

            fn show(&self) -> serde_json::Value {
                json!(self)
            }

            fn takes(&self, limits: Limits) -> String {
                takes_whole(limits, type_max(<$type>::MAX))
            }
        })+
    };
}
whole_settings!(u16, u32, u64, usize);

fn real_bounds(limits: Limits) -> (f64, f64) {
    if let Limits::Real { min, max } = limits { (min, max) } else { (f64::MIN, f64::MAX) }
}

fn time_bounds(limits: Limits) -> (Duration, Duration) {
    if let Limits::Time { min, max } = limits { (min, max) } else { (Duration::ZERO, Duration::MAX) }
}

impl Setting for f64 {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let value = match node.value {
            Yaml::Real(value) => value,
            Yaml::Whole(value) => value as Self,
            Yaml::Null | Yaml::Bool(_) | Yaml::Text(_) | Yaml::List(_) | Yaml::Map(_) => Self::NAN,
        };
        let (min, max) = real_bounds(limits);
        if !(min..=max).contains(&value) {
            return Err(Wrong::kind(node, &self.takes(limits)));
        }
        *self = value;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        json!(self)
    }

    fn takes(&self, limits: Limits) -> String {
        let (min, max) = real_bounds(limits);
        format!("a number from {min} to {max}")
    }
}

impl Setting for String {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        if let Yaml::Text(value) = &node.value
            && !(limits == Limits::NotEmpty && value.trim().is_empty())
        {
            self.clone_from(value);
            return Ok(());
        }
        Err(Wrong::kind(node, &self.takes(limits)))
    }

    fn show(&self) -> serde_json::Value {
        json!(self)
    }

    fn takes(&self, limits: Limits) -> String {
        if limits == Limits::NotEmpty { "a text that is not empty".to_owned() } else { "a text".to_owned() }
    }
}

impl Setting for PathBuf {
    fn set(&mut self, node: &Node, _: Limits) -> Result<(), Wrong> {
        if let Yaml::Text(value) = &node.value
            && !value.is_empty()
            && !value.contains('\0')
        {
            *self = Self::from(value);
            return Ok(());
        }
        Err(Wrong::kind(node, "a path"))
    }

    fn show(&self) -> serde_json::Value {
        json!(self.to_string_lossy())
    }

    fn takes(&self, _: Limits) -> String {
        "a path, from the working directory unless it is absolute".to_owned()
    }
}

impl Setting for Duration {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        if let Yaml::Whole(number @ 0..) = node.value {
            let remedy = format!("write a unit, as in {number}s (ms, s, m, h or d)");
            return Err(Wrong::new(node, format!("{number} is a duration without a unit"), remedy));
        }
        let wrong = |what: &str| Wrong::measure(node, what, &self.takes(limits));
        let found = node.value.text().and_then(parse_duration).ok_or_else(|| wrong("is not a duration"))?;
        let (min, max) = time_bounds(limits);
        if !(min..=max).contains(&found) {
            return Err(wrong(OUT_OF_BOUNDS));
        }
        *self = found;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        json!(format_duration(*self))
    }

    fn takes(&self, limits: Limits) -> String {
        let (min, max) = time_bounds(limits);
        if max == Self::MAX {
            return "a duration such as 30s".to_owned();
        }
        format!("a duration from {} to {}, such as 30s", format_duration(min), format_duration(max))
    }
}

impl Setting for Bytes {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let wrong = |what: &str| Wrong::measure(node, what, &self.takes(limits));
        let written = if let Yaml::Whole(number) = node.value { Some(number) } else { None };
        let found = written.or_else(|| node.value.text().and_then(parse_bytes));
        let found = found.ok_or_else(|| wrong("is not a size"))?;
        let bytes = check_whole(node, found, limits, u64::MAX).map_err(|_| wrong(OUT_OF_BOUNDS))?;
        *self = Self(bytes as usize);
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        json!(self.0)
    }

    fn takes(&self, limits: Limits) -> String {
        if let Limits::Whole { min, max } = limits {
            return format!("a size from {min} to {max} bytes, such as 8192 or 8KB");
        }
        "a size in bytes, such as 8192 or 8KB".to_owned()
    }
}

impl Setting for SocketAddr {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let found = node.value.text().and_then(|text| text.replace("localhost:", "127.0.0.1:").parse().ok());
        *self = found.ok_or_else(|| Wrong::kind(node, &self.takes(limits)))?;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        json!(self.to_string())
    }

    fn takes(&self, _: Limits) -> String {
        "an IP address with a port, such as 127.0.0.1:8080".to_owned()
    }
}

impl Setting for Vec<String> {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        let Yaml::List(items) = &node.value else { return Err(Wrong::kind(node, &self.takes(limits))) };
        let mut list = Self::with_capacity(items.len());
        for (index, item) in items.iter().enumerate() {
            let mut text = String::new();
            text.set(item, Limits::NotEmpty).map_err(|wrong| wrong.below(&format!("[{index}]")))?;
            list.push(text);
        }
        *self = list;
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        json!(self)
    }

    fn takes(&self, _: Limits) -> String {
        "a list of texts".to_owned()
    }
}

/// A value that may be left out: `null` (or nothing) clears it.
impl<T: Setting + Default> Setting for Option<T> {
    fn set(&mut self, node: &Node, limits: Limits) -> Result<(), Wrong> {
        *self = if node.value == Yaml::Null {
            None
        } else {
            let mut value = T::default();
            value.set(node, limits)?;
            Some(value)
        };
        Ok(())
    }

    fn show(&self) -> serde_json::Value {
        self.as_ref().map_or(serde_json::Value::Null, Setting::show)
    }

    fn takes(&self, limits: Limits) -> String {
        T::default().takes(limits)
    }
}
