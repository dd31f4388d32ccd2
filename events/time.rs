//! Time as the log knows it: microseconds since 1970, UTC, written down once and never asked for again.

use std::fmt;
use std::str::FromStr;

use bincode::{Decode, Encode};

/// A moment: microseconds since 1970-01-01T00:00:00Z, from then to the year 9999.
///
/// Its text form is RFC 3339 with six decimals and `Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode)]
pub struct Timestamp(u64);

const MICROS_PER_SECOND: u64 = 1_000_000;
const SECONDS_PER_DAY: u64 = 86_400;
/// 9999-12-31T23:59:59.999999Z.
const MICROS_MAX: u64 = 253_402_300_799_999_999;

impl Timestamp {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Self = Self(0);

    /// The moment `micros` microseconds after 1970, held at the end of the year 9999.
    pub const fn from_unix_micros(micros: u64) -> Self {
        Self(if micros > MICROS_MAX { MICROS_MAX } else { micros })
    }

    /// Microseconds since 1970.
    pub const fn unix_micros(self) -> u64 {
        self.0
    }
}

/// Where time comes from: the system in a server, a script in a test.
pub trait Clock: Send + Sync {
    /// The present.
    fn now(&self) -> Timestamp;
}

/// Days since 1970-01-01 to year, month, day (H. Hinnant, "chrono-compatible low-level date algorithms", 2013).
const fn civil_from_days(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let day_of_era = shifted % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + (month <= 2) as u64, month, day)
}

/// The inverse of [`civil_from_days`], for years from 1970 on.
const fn days_from_civil(year: u64, month: u64, day: u64) -> u64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year / 400;
    let year_of_era = year % 400;
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, micros) = (self.0 / MICROS_PER_SECOND, self.0 % MICROS_PER_SECOND);
        let (year, month, day) = civil_from_days(seconds / SECONDS_PER_DAY);
        let second = seconds % SECONDS_PER_DAY;
        let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{micros:06}Z")
    }
}

/// A text that is no moment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is no RFC 3339 time from 1970 on; write 2026-11-23T14:05:00Z, 2026-11-23T15:05:00+01:00 or 2026-11-23"
)]
pub struct TimestampError {
    /// What was given.
    pub text: String,
}

impl FromStr for Timestamp {
    type Err = TimestampError;

    fn from_str(text: &str) -> Result<Self, TimestampError> {
        parse(text).ok_or_else(|| TimestampError { text: text.chars().take(64).collect() })
    }
}

/// A number of exactly `len` digits at the front of `text`, and what follows it.
fn digits(text: &str, len: usize) -> Option<(u64, &str)> {
    let (head, tail) = text.split_at_checked(len)?;
    if !head.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    Some((head.parse().ok()?, tail))
}

fn parse(text: &str) -> Option<Timestamp> {
    let (year, rest) = digits(text, 4)?;
    let (month, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let (day, rest) = digits(rest.strip_prefix('-')?, 2)?;
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    let days_in_month = match month {
        2 => 28 + u64::from(leap),
        4 | 6 | 9 | 11 => 30,
        1..=12 => 31,
        _ => return None,
    };
    if year < 1970 || day == 0 || day > days_in_month {
        return None;
    }
    let midnight = days_from_civil(year, month, day) * SECONDS_PER_DAY;
    if rest.is_empty() {
        return Some(Timestamp::from_unix_micros(midnight * MICROS_PER_SECOND));
    }
    let (hour, rest) = digits(rest.strip_prefix(['T', 't', ' '])?, 2)?;
    let (minute, rest) = digits(rest.strip_prefix(':')?, 2)?;
    let (second, rest) = digits(rest.strip_prefix(':')?, 2)?;
    // 60 is a leap second; it is read as the last second of its minute, as POSIX time does.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (micros, rest) = fraction(rest)?;
    let local = midnight + hour * 3_600 + minute * 60 + second.min(59);
    let seconds = match rest {
        "Z" | "z" => local,
        _ => {
            let (sign, offset) = rest.split_at_checked(1)?;
            let (hours, offset) = digits(offset, 2)?;
            let (minutes, end) = digits(offset.strip_prefix(':')?, 2)?;
            if !end.is_empty() || hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3_600 + minutes * 60;
            match sign {
                "+" => local.checked_sub(offset)?,
                "-" => local + offset,
                _ => return None,
            }
        }
    };
    Some(Timestamp::from_unix_micros(seconds * MICROS_PER_SECOND + micros))
}

/// Microseconds of a fraction such as `.25` (1 to 9 digits, the rest cut off), 0 without one.
fn fraction(text: &str) -> Option<(u64, &str)> {
    let Some(rest) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let len = rest.bytes().take_while(u8::is_ascii_digit).count();
    if len == 0 || len > 9 {
        return None;
    }
    let (digits, rest) = rest.split_at(len);
    let micros = format!("{digits:0<6}").get(..6)?.parse().ok()?;
    Some((micros, rest))
}

impl serde::Serialize for Timestamp {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Timestamp {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::Timestamp;

    #[track_caller]
    fn check(text: &str, then: Option<&str>) {
        assert_eq!(text.parse::<Timestamp>().ok().map(|at| at.to_string()).as_deref(), then, "{text}");
    }

    #[test]
    fn times_are_read_in_every_form_of_rfc_3339() {
        check("1970-01-01T00:00:00Z", Some("1970-01-01T00:00:00.000000Z"));
        check("2026-11-23T14:05:06.25+01:00", Some("2026-11-23T13:05:06.250000Z"));
        check("2024-02-29", Some("2024-02-29T00:00:00.000000Z"));
        check("2024-02-29 23:59:60.123456789-00:30", Some("2024-03-01T00:29:59.123456Z"));
        check("9999-12-31T23:59:59.999999Z", Some("9999-12-31T23:59:59.999999Z"));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["", "2023-02-29", "1969-12-31", "2026-13-01", "2026-11-23T24:00:00Z", "2026-11-23T10:00:00"]
        {
            check(text, None);
        }
        for text in ["2026-11-23T10:00:00.Z", "1970-01-01T00:00:00+01:00", "now", "2026-11-23T10:00:00é1:00"]
        {
            check(text, None);
        }
    }

    #[test]
    fn every_day_of_four_centuries_reads_back() {
        for day in 0..146_097_u64 {
            let at = Timestamp::from_unix_micros(day * 86_400_000_000);
            assert_eq!(at.to_string().parse(), Ok(at));
        }
    }
}
