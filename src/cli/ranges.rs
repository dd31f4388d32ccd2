//! From where to where, as it is typed: positions and moments, judged before a server is looked for.

use caxton_events::log::{ReadError, Reader};
use caxton_events::{Seq, Timestamp};

use super::failure::{Exit, Failure};

/// Refuses `--from-seq` and `--to-seq` the wrong way round.
pub(super) fn positions(from: Option<u64>, to: Option<u64>) -> Result<(), Failure> {
    match (from, to) {
        (Some(from), Some(to)) if to < from => {
            let message = format!(
                "--to-seq {to}: lies before --from-seq ({from}); give a later position, or leave it out"
            );
            Err(Failure::new(Exit::Usage, message))
        }
        _ => Ok(()),
    }
}

/// Refuses positions before the first event of the log, as a server does: what was there was dropped.
pub(super) fn not_dropped(log: &Reader, given: &[(&str, Option<u64>)]) -> Result<(), Failure> {
    let first = log.first().map_err(|error| Failure::of(Exit::Failed, &ReadError::from(error)))?;
    for (flag, seq) in given {
        if let Some(seq) = seq.filter(|seq| Seq((*seq).max(1)) < first) {
            let message = format!(
                "{flag} {seq}: the log begins at {first}, what lies before was dropped; ask for what lies there or behind it"
            );
            return Err(Failure::new(Exit::Refused, message));
        }
    }
    Ok(())
}

/// The moment that a flag names.
pub(super) fn moment(flag: &str, text: Option<&str>) -> Result<Option<Timestamp>, Failure> {
    // The error repeats what was given, and says how a moment is written.
    let parsed = text.map(str::parse::<Timestamp>).transpose();
    parsed.map_err(|error| Failure::new(Exit::Usage, format!("{flag}: {error}")))
}

/// The moments that `--since` and `--until` name; the wrong way round they are refused.
pub(super) fn stretch(
    since: Option<&str>,
    until: Option<&str>,
) -> Result<(Option<Timestamp>, Option<Timestamp>), Failure> {
    let (since, until) = (moment("--since", since)?, moment("--until", until)?);
    match (since, until) {
        (Some(since), Some(until)) if until <= since => {
            let message = format!(
                "--until {until}: is not after --since ({since}); give a later moment, or leave one of them out"
            );
            Err(Failure::new(Exit::Usage, message))
        }
        both => Ok(both),
    }
}

#[cfg(test)]
mod tests {
    use super::{moment, positions, stretch};

    #[test]
    fn a_moment_that_is_none_is_repeated_once_with_one_remedy() {
        let told = moment("--since", Some("yesterday")).map_err(|failure| failure.to_string());
        let told = told.err().unwrap_or_default();
        assert!(told.starts_with("--since: \"yesterday\" is no RFC 3339 time"), "{told}");
        assert_eq!((told.matches("yesterday").count(), told.matches("write").count()), (1, 1), "{told}");
    }

    #[test]
    fn ends_that_are_one_or_in_order_are_right() {
        assert!(positions(Some(5), Some(5)).is_ok() && positions(Some(5), None).is_ok());
        assert!(positions(Some(5), Some(4)).is_err());
        assert!(stretch(Some("2026-01-01"), None).is_ok());
        assert!(stretch(Some("2026-01-01"), Some("2026-01-01")).is_err());
    }
}
