//! Several runs of one benchmark as one, whose rounds they are.

use super::results::{Figure, Results, median};

/// Takes `runs` together, which were made with the same flags: each figure that all of them have is the median of its values, one
/// a round. The others are named in the remarks.
///
/// How far the stretches of one run lie apart says nothing of how far runs do, so a comparison goes by the rounds alone.
///
/// # Panics
///
/// Where there is no run.
pub fn of_rounds(runs: &[Results]) -> Results {
    let first = &runs[0];
    let (mut figures, mut alone) = (Vec::new(), Vec::new());
    for figure in runs.iter().flat_map(|run| &run.figures) {
        let is_same = |other: &&Figure| other.name == figure.name && other.unit == figure.unit;
        if figures.iter().any(|known| is_same(&known)) || alone.contains(&figure.name) {
            continue;
        }
        let values: Option<Vec<f64>> =
            runs.iter().map(|run| run.figures.iter().find(is_same).map(|figure| figure.value)).collect();
        match values {
            None => alone.push(figure.name.clone()),
            Some(values) => {
                let joined = Figure::new(&*figure.name, median(&values), &figure.unit, figure.better);
                let joined = joined.over_rounds(values.into_iter().map(|value| vec![value]).collect());
                figures.push(joined.by_median().counting_from(figure.least_change));
            }
        }
    }
    Results { parts: Vec::new(), figures, remarks: alone, ..first.clone() }
}

#[cfg(test)]
mod tests {
    use super::super::results::Better;
    use super::super::{Verdict, compare};
    use super::{Figure, Results, of_rounds};

    /// A run with a latency of so many milliseconds, and a figure of its own.
    fn run(latency: f64, other: &str) -> Results {
        // Stretches that lie close together, wherever the run as a whole does.
        let figure = Figure::new("read p50", latency, "ms", Better::Lower).over([latency; 30]);
        Results {
            figures: vec![figure, Figure::new(other, 1.0, "MB", Better::Lower)],
            remarks: vec!["of one run".to_owned()],
            ..Results::new("storage")
        }
    }

    fn runs(latencies: &[f64]) -> Results {
        of_rounds(&latencies.iter().map(|latency| run(*latency, "memory")).collect::<Vec<_>>())
    }

    #[test]
    fn runs_become_the_rounds_of_one() {
        let joined = runs(&[1.0, 9.0, 2.0]);
        let figure = &joined.figures[0];
        assert_eq!((figure.value, figure.samples.as_slice()), (2.0, &[1.0, 9.0, 2.0][..]));
        assert_eq!((figure.rounds.as_slice(), joined.figures.len()), (&[1, 1, 1][..], 2));
        assert!(joined.remarks.is_empty());
    }

    #[test]
    fn what_not_every_run_has_is_named() {
        let joined = of_rounds(&[run(1.0, "memory"), run(1.0, "disk")]);
        assert_eq!(joined.figures.len(), 1);
        assert_eq!(joined.remarks, ["memory", "disk"]);
    }

    #[test]
    fn a_change_counts_where_it_is_more_than_runs_differ() {
        let verdict = |now: &[f64]| {
            let found = compare(&runs(&[1.0, 1.1, 0.9, 1.05, 0.95]), &runs(now), 0.05);
            found.map(|found| found.changes[0].verdict)
        };
        assert_eq!(verdict(&[2.0, 2.1, 1.9, 2.05, 1.95]), Ok(Verdict::Regression));
        assert_eq!(verdict(&[0.5, 0.6, 0.4, 0.55, 0.45]), Ok(Verdict::Improvement));
        assert_eq!(
            verdict(&[1.0, 2.0, 0.8, 1.2, 1.1]),
            Ok(Verdict::Unsure),
            "more than the threshold, by chance"
        );
        assert_eq!(verdict(&[1.0, 1.1, 0.9, 1.06, 0.96]), Ok(Verdict::Same));
    }
}
