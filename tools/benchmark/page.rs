//! Results as one HTML page that needs nothing else: figures, a histogram of latencies, throughput over time.

use std::fmt::Write as _;

use super::results::{Figure, HISTOGRAM_STEP, Interval, Part, Percentiles, Results, Setting};

/// Width and height of a plot.
const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 200.0;
/// Room for the axis on the left and below.
const LEFT: f64 = 64.0;
const BELOW: f64 = 24.0;
/// Ticks on an axis.
const TICKS: usize = 4;

const STYLE: &str = "\
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#1c1e21;background:#fff}\
h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}\
table{border-collapse:collapse;margin:.5rem 0}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}\
td:first-child,th:first-child{text-align:left}.pass{color:#1a7f37}.acceptable{color:#9a6700}.critical,.fail{color:#cf222e}\
svg{max-width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:#57606a}figcaption{color:#57606a}figure{margin:1rem 0}\
@media(prefers-color-scheme:dark){body{background:#111;color:#ddd}td,th{border-color:#333}}";

/// The page.
pub fn page(results: &Results) -> String {
    let mut html = String::new();
    let title = format!("caxton benchmark {}", results.benchmark);
    let settings: Vec<String> = results.settings.iter().filter_map(Setting::typed).collect();
    let place = results.target.clone().unwrap_or_else(|| "an engine in its own process".to_owned());
    // Writing to a String cannot fail.
    let _ = write!(
        html,
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" \
         content=\"width=device-width\"><title>{title}</title><style>{STYLE}</style></head><body>\n<h1>{title}</h1>\n\
         <p>{} · {} · caxton {} · {}, {} cores, {:.1} GB · {}</p>\n",
        escaped(&settings.join(" ")),
        escaped(&place),
        escaped(&results.version),
        escaped(&results.machine.processor),
        results.machine.cores,
        results.machine.memory_bytes as f64 / 1e9,
        results.started_at,
    );
    for remark in &results.remarks {
        let _ = writeln!(html, "<p>{}</p>", escaped(remark));
    }
    figures(&mut html, &results.figures);
    for part in &results.parts {
        shown(&mut html, part);
    }
    html.push_str("</body></html>\n");
    html
}

fn figures(html: &mut String, figures: &[Figure]) {
    html.push_str(
        "<table><tr><th>figure</th><th>value</th><th>target</th><th>acceptable</th><th>critical</th><th></th></tr>\n",
    );
    for Figure { name, value, unit, target, grade, .. } in figures {
        let bound = |bound: fn(&super::Target) -> f64| {
            target.as_ref().map_or_else(String::new, |target| format!("{} {unit}", number(bound(target))))
        };
        let grade = grade.map_or_else(String::new, |grade| grade.to_string());
        let _ = writeln!(
            html,
            "<tr><td>{}</td><td>{} {}</td><td>{}</td><td>{}</td><td>{}</td><td class=\"{grade}\">{grade}</td></tr>",
            escaped(name),
            number(*value),
            escaped(unit),
            escaped(&bound(|target| target.target)),
            escaped(&bound(|target| target.acceptable)),
            escaped(&bound(|target| target.critical)),
        );
    }
    html.push_str("</table>\n");
}

fn shown(html: &mut String, part: &Part) {
    let failed: u64 = part.failed.values().sum();
    let _ = write!(
        html,
        "<h2>{}</h2>\n<p>{} done in {:.1} s{}, {} a second{}{}; {failed} failed</p>\n",
        escaped(&part.name),
        part.done,
        part.seconds,
        part.planned_seconds.map_or_else(String::new, |ends| format!(" of {} planned", number(ends))),
        number(part.per_second),
        part.offered_per_second.map_or_else(String::new, |rate| format!(" of {} offered", number(rate))),
        if part.ramp_up_seconds > 0.0 {
            format!(", the full rate from {} s on", number(part.ramp_up_seconds))
        } else {
            String::new()
        },
    );
    for (why, count) in &part.failed {
        let _ = writeln!(html, "<p>{count} × {}</p>", escaped(why));
    }
    if let Some(Percentiles { p50, p90, p95, p99, p999, max }) = part.latency {
        html.push_str("<table><tr><th>latency</th><th>p50</th><th>p90</th><th>p95</th><th>p99</th><th>p99.9</th><th>max</th></tr><tr><td>ms</td>");
        for micros in [p50, p90, p95, p99, p999, max] {
            let _ = write!(html, "<td>{:.3}</td>", micros / 1e3);
        }
        html.push_str("</tr></table>\n");
    }
    histogram(html, part);
    over_time(html, "operations a second", &part.intervals, Interval::per_second);
    over_time(html, "p99 latency in ms", &part.intervals, |interval| interval.p99 / 1e3);
    stretches(html, &part.intervals);
}

/// Every stretch as a row, folded away.
fn stretches(html: &mut String, intervals: &[Interval]) {
    if intervals.is_empty() {
        return;
    }
    html.push_str(
        "<details><summary>each stretch, latencies in ms</summary><table><tr><th>from s</th><th>done</th><th>failed</th><th>a second</th>\
         <th>p50</th><th>p90</th><th>p95</th><th>p99</th><th>p99.9</th><th>max</th></tr>\n",
    );
    for interval in intervals {
        let Interval { at, done, failed, p50, p90, p95, p99, p999, max, .. } = *interval;
        let _ = write!(
            html,
            "<tr><td>{at:.0}</td><td>{done}</td><td>{failed}</td><td>{}</td>",
            number(interval.per_second())
        );
        for micros in [p50, p90, p95, p99, p999, max] {
            let _ = write!(html, "<td>{:.3}</td>", micros / 1e3);
        }
        html.push_str("</tr>\n");
    }
    html.push_str("</table></details>\n");
}

/// How many operations took how long: a bar for each step of what was counted, of equal width on a logarithmic axis.
fn histogram(html: &mut String, part: &Part) {
    let counts: Vec<(f64, u64)> =
        part.histogram.iter().copied().filter(|(micros, _)| *micros > 0.0).collect();
    // The bounds are rounded to nanoseconds, which is far less than a step.
    let bar = |micros: f64| (micros.ln() / HISTOGRAM_STEP.ln()).round() as i64;
    let (Some(low), Some(high)) = (
        counts.iter().map(|(micros, _)| bar(*micros)).min(),
        counts.iter().map(|(micros, _)| bar(*micros)).max(),
    ) else {
        return;
    };
    let mut bars = vec![0_u64; (high - low) as usize + 1];
    for (micros, count) in counts {
        bars[(bar(micros) - low) as usize] += count;
    }
    let most = bars.iter().copied().max().unwrap_or(1).max(1) as f64;
    let width = (WIDTH - LEFT) / bars.len() as f64;
    begin(html, "latency, how many operations took how long");
    axis(html, most);
    for (index, count) in bars.iter().enumerate() {
        let height = *count as f64 / most * (HEIGHT - BELOW);
        let (x, y) = (LEFT + index as f64 * width, HEIGHT - BELOW - height);
        let from = lower_bound_millis(low + index as i64);
        let _ = write!(
            html,
            "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{height:.1}\" fill=\"#0969da\"><title>from {from:.3} ms: {count}</title></rect>",
            (width - 1.0).max(0.5)
        );
        if index % (bars.len() / TICKS).max(1) == 0 {
            let _ = write!(html, "<text x=\"{x:.1}\" y=\"{:.1}\">{} ms</text>", HEIGHT - 8.0, number(from));
        }
    }
    html.push_str("</svg></figure>\n");
}

/// Where a bar begins: at the bound of the one before, and the first of all at nothing.
fn lower_bound_millis(bar: i64) -> f64 {
    if bar > 0 { HISTOGRAM_STEP.powi((bar - 1) as i32) / 1e3 } else { 0.0 }
}

/// A line over the stretches of a part.
fn over_time(html: &mut String, caption: &str, intervals: &[Interval], value: impl Fn(&Interval) -> f64) {
    let values: Vec<f64> = intervals.iter().map(value).collect();
    let most = values.iter().copied().fold(0.0, f64::max);
    let Some(end) = intervals.last().map(|last| last.at + last.seconds).filter(|end| *end > 0.0) else {
        return;
    };
    if values.len() < 2 || most <= 0.0 {
        return;
    }
    begin(html, caption);
    axis(html, most);
    let place =
        |at: f64, value: f64| (LEFT + at / end * (WIDTH - LEFT), (HEIGHT - BELOW) * (1.0 - value / most));
    html.push_str("<polyline fill=\"none\" stroke=\"#0969da\" stroke-width=\"1.5\" points=\"");
    for (interval, value) in intervals.iter().zip(&values) {
        let (x, y) = place(interval.at + interval.seconds / 2.0, *value);
        let _ = write!(html, "{x:.1},{y:.1} ");
    }
    html.push_str("\"/>");
    for tick in 0..=TICKS {
        let at = end * tick as f64 / TICKS as f64;
        let anchor = if tick == TICKS { "end" } else { "start" };
        let (x, _) = place(at, 0.0);
        let _ = write!(
            html,
            "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"{anchor}\">{} s</text>",
            HEIGHT - 8.0,
            number(at)
        );
    }
    html.push_str("</svg></figure>\n");
}

fn begin(html: &mut String, caption: &str) {
    let _ = write!(
        html,
        "<figure><figcaption>{caption}</figcaption><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" width=\"{WIDTH}\" \
         height=\"{HEIGHT}\" role=\"img\" aria-label=\"{caption}\">"
    );
}

/// Lines across, with their values, from nothing to the most.
fn axis(html: &mut String, most: f64) {
    for tick in 0..=TICKS {
        let share = tick as f64 / TICKS as f64;
        let y = (HEIGHT - BELOW) * (1.0 - share);
        let _ = write!(
            html,
            "<line x1=\"{LEFT}\" x2=\"{WIDTH}\" y1=\"{y:.1}\" y2=\"{y:.1}\" stroke=\"#8884\"/><text x=\"{:.1}\" \
             y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            LEFT - 6.0,
            (y + 4.0).max(10.0),
            number(most * share)
        );
    }
}

/// A number with as many digits as say something.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 1e6 => format!("{:.2} M", value / 1e6),
        size if size >= 1e4 => format!("{:.1} k", value / 1e3),
        size if size >= 100.0 || value.fract() == 0.0 => format!("{value:.0}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for sign in text.chars() {
        match sign {
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '&' => safe.push_str("&amp;"),
            '"' => safe.push_str("&quot;"),
            _ => safe.push(sign),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::{Better, Figure, Interval, Part, Percentiles, Results, Setting, Target};
    use super::{histogram, number, page};

    fn part(intervals: usize) -> Part {
        let interval = |n: usize| Interval {
            at: n as f64,
            seconds: 1.0,
            done: 100 + n as u64,
            failed: 0,
            p50: 200.0,
            p90: 500.0,
            p95: 700.0,
            p99: 900.0,
            p999: 1_500.0,
            max: 2_000.0,
        };
        Part {
            name: "search <now>".to_owned(),
            done: 100,
            failed: BTreeMap::from([("REFUSED & gone".to_owned(), 2)]),
            seconds: 3.0,
            ramp_up_seconds: 1.5,
            offered_per_second: Some(100.0),
            planned_seconds: Some(3.0),
            per_second: 33.0,
            latency: Some(Percentiles { p50: 1.0, p90: 2.0, p95: 3.0, p99: 4.0, p999: 5.0, max: 6.0 }),
            intervals: (0..intervals).map(interval).collect(),
            histogram: vec![(0.0, 1), (120.0, 40), (1_500.0, 60)],
        }
    }

    #[test]
    fn a_page_shows_figures_and_plots_and_nothing_that_was_not_escaped() {
        let results = Results {
            settings: [("duration", "3s"), ("keyword-only", "false"), ("find-limits", "true")]
                .map(|(flag, value)| Setting { flag: flag.to_owned(), value: value.to_owned() })
                .to_vec(),
            target: Some("http://h/?a=<b>".to_owned()),
            parts: vec![part(3), part(0)],
            figures: vec![
                Figure::new("search p99", 12.0, "ms", Better::Lower).against(Target::MESSAGE_P99_MS),
                Figure::new("other", 1.0, "u", Better::Higher),
            ],
            remarks: vec!["a < b".to_owned()],
            ..Results::new("memory")
        };
        let html = page(&results);
        assert!(results.to_string().starts_with("benchmark memory --duration 3s --find-limits\n"));
        for shown in [
            "<p>--duration 3s --find-limits · ",
            "<td class=\"acceptable\">acceptable</td>",
            "search &lt;now&gt;",
            "2 × REFUSED &amp; gone",
            "http://h/?a=&lt;b&gt;",
            "a &lt; b",
            "operations a second",
            "<polyline",
            "100 done in 3.0 s of 3 planned, 33 a second of 100 offered, the full rate from 1.50 s on",
            "<tr><td>2</td><td>102</td><td>0</td><td>102</td><td>0.200</td><td>0.500</td><td>0.700</td><td>0.900</td><td>1.500</td><td>2.000</td></tr>",
        ] {
            assert!(html.contains(shown), "{shown} in {html}");
        }
        assert_eq!(html.matches("<polyline").count(), 2, "a part without stretches has no lines");
        assert_eq!(html.matches("<details>").count(), 1, "and no rows");
        assert_eq!(html.matches("<svg").count(), html.matches("</svg>").count());
        assert!(!html.contains("NaN") && !html.contains("inf"), "{html}");
    }

    #[test]
    fn a_bar_is_a_step_of_the_histogram_and_none_is_always_empty() {
        // The bounds as they are counted, in nanoseconds, all of them with something in them.
        let bounds = std::iter::successors(Some(1_000_u64), |bound| Some(bound + bound / 4));
        let bounds: Vec<u64> = bounds.take_while(|bound| *bound <= 60_000_000_000).collect();
        let counted = bounds.iter().map(|bound| (*bound as f64 / 1e3, 7)).collect();
        let mut html = String::new();
        histogram(&mut html, &Part { histogram: counted, ..part(0) });
        assert_eq!(html.matches(": 7</title>").count(), bounds.len(), "{html}");
        assert_eq!(html.matches("<rect").count(), bounds.len(), "{html}");
        // A bar begins where the one before it ends: up to 1 µs, up to 1.25, up to 1.5625.
        for from in ["from 0.000 ms", "from 0.001 ms"] {
            assert!(html.contains(from), "{from} in {html}");
        }
        let mut one = String::new();
        histogram(&mut one, &Part { histogram: vec![(1_249.0, 3)], ..part(0) });
        let from = 1.25_f64.powi(31) / 1e3;
        assert!(one.contains(&format!("from {from:.3} ms: 3</title>")), "{one}");
    }

    #[test]
    fn numbers_are_short() {
        for (value, shown) in [
            (0.0, "0"),
            (0.1234, "0.123"),
            (1.5, "1.50"),
            (123.4, "123"),
            (12_345.0, "12.3 k"),
            (1_234_567.0, "1.23 M"),
        ] {
            assert_eq!(number(value), shown);
        }
    }
}
