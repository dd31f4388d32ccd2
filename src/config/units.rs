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

/// Units of time in nanoseconds, the largest first. Months and years are none: they have no length of their own, and with them
/// 365 days would read `11months 30days 3h 50m 24s`.
const UNITS: [(u128, &str); 7] = [
    (86_400_000_000_000, "d"),
    (3_600_000_000_000, "h"),
    (60_000_000_000, "m"),
    (1_000_000_000, "s"),
    (1_000_000, "ms"),
    (1_000, "us"),
    (1, "ns"),
];
/// From here on a number says less than several with units: `3661s` is an hour, a minute and a second.
const COUNT_MAX: u128 = 1_000;

/// A duration in the form that [`parse_duration`] reads, and people write: `90s`, `24h`, `30d`, and in several units only where
/// one would take a long number.
pub fn format_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    if nanos == 0 {
        return "0s".to_owned();
    }
    // Nobody writes a single day otherwise than as 24h.
    let units = UNITS.into_iter().filter(|(size, unit)| *unit != "d" || nanos != *size);
    let whole =
        units.clone().find(|(size, _)| nanos.is_multiple_of(*size)).map(|(size, unit)| (nanos / size, unit));
    if let Some((count, unit)) = whole.filter(|(count, unit)| *unit == "d" || *count < COUNT_MAX) {
        return format!("{count}{unit}");
    }
    let mut rest = nanos;
    let parts = units.filter_map(|(size, unit)| {
        let count = rest / size;
        rest %= size;
        (count > 0).then(|| format!("{count}{unit}"))
    });
    parts.collect::<Vec<_>>().join(" ")
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
    fn durations_print_as_people_write_them() {
        let (second, hour) = (Duration::from_secs(1), Duration::from_hours(1));
        for (duration, text) in [
            (Duration::ZERO, "0s"),
            (Duration::from_nanos(1), "1ns"),
            (Duration::from_micros(250), "250us"),
            (Duration::from_millis(100), "100ms"),
            (Duration::from_millis(1_500), "1s 500ms"),
            (second * 90, "90s"),
            (second * 300, "5m"),
            (hour, "1h"),
            (hour * 3 / 2, "90m"),
            (hour + second * 61, "1h 1m 1s"),
            (hour * 24, "24h"),
            (hour * 24 + second, "1d 1s"),
            (hour * 48, "2d"),
            (hour * 24 * 365, "365d"),
            (hour * 24 * 3_650, "3650d"),
            (hour * 24 * 100 + hour, "100d 1h"),
        ] {
            assert_eq!(format_duration(duration), text);
            assert_eq!(parse_duration(text), Some(duration), "{text}");
        }
        for duration in [Duration::MAX, Duration::from_nanos(u64::MAX)] {
            assert!(!format_duration(duration).contains("year"), "{duration:?}");
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
