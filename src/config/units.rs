//! Durations and sizes as people write them: `30s`, `5m`, `8192`, `16KB`.

use std::time::Duration;

/// A size in bytes. Written as a number of bytes or with a unit; `KB` and `KiB` are both 1,024 bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Bytes(pub usize);

/// The duration that `text` names, as in `100ms`, `30s`, `1h 30m`, `7d`; `None` when it names none.
pub fn parse_duration(text: &str) -> Option<Duration> {
    match text.trim() {
        "0" => Some(Duration::ZERO),
        text => humantime::parse_duration(text).ok(),
    }
}

/// A duration in the form that [`parse_duration`] reads.
pub fn format_duration(duration: Duration) -> String {
    humantime::format_duration(duration).to_string()
}

/// The size that `text` names, in bytes; `None` when it names none or more than fits.
pub(crate) fn parse_bytes(text: &str) -> Option<i128> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    Some(i128::from(number) << shift)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use super::*;

    #[test]
    fn durations_need_a_unit_and_read_back_as_they_print() {
        for (text, millis) in [("100ms", 100), ("30s", 30_000), ("5m", 300_000), ("1h 30m", 5_400_000)] {
            let duration = parse_duration(text).unwrap();
            assert_eq!(duration, Duration::from_millis(millis), "{text}");
            assert_eq!(parse_duration(&format_duration(duration)), Some(duration), "{text}");
        }
        for text in ["", "30", "s", "-5s", "1.5 weeks and a bit", "NaN"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn sizes_are_bytes_or_powers_of_1024() {
        for (text, bytes) in [("8192", 8192), ("16KB", 16_384), ("1 MiB", 1 << 20), ("2g", 2 << 30), ("0", 0)]
        {
            assert_eq!(parse_bytes(text), Some(bytes), "{text}");
        }
        for text in ["", "KB", "-1", "1.5MB", "1TB", "99999999999999999999"] {
            assert_eq!(parse_bytes(text), None, "{text}");
        }
    }
}
