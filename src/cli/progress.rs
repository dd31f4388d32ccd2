//! Progress bars on standard error, for whatever takes longer than a second.

use std::borrow::Cow;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// What finishes sooner shows no bar.
const PATIENCE: Duration = Duration::from_secs(1);

/// A bar that appears once its work has taken a second, and never where standard error is no terminal.
pub(super) struct Progress {
    bar: ProgressBar,
    started: Instant,
    allowed: bool,
}

impl Progress {
    /// A bar for work of `unit`, such as `lines` or `bytes`.
    pub(super) fn new(what: impl Into<Cow<'static, str>>, unit: &str, wanted: bool) -> Self {
        let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
        let template = if unit == "bytes" {
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}".to_owned()
        } else {
            format!("{{msg}} {{wide_bar}} {{human_pos}}/{{human_len}} {unit} {{per_sec}} {{eta}}")
        };
        // A template that indicatif does not take would only change the looks.
        if let Ok(style) = ProgressStyle::with_template(&template) {
            bar.set_style(style);
        }
        bar.set_message(what);
        Self { bar, started: Instant::now(), allowed: wanted && std::io::stderr().is_terminal() }
    }

    /// Moves the bar to `done` of `all`.
    pub(super) fn set(&mut self, done: u64, all: u64) {
        if self.allowed && self.started.elapsed() > PATIENCE {
            self.allowed = false;
            self.bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
        }
        self.bar.set_length(all.max(done));
        self.bar.set_position(done);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
