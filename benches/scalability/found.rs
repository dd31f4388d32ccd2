//! What was found, as a table for people and as results that `caxton benchmark compare` reads.

use std::path::Path;

use caxton::engine::SystemClock;
use caxton_events::Clock as _;
use caxton_tools::benchmark::results::{FORMAT, PROFILE};
use caxton_tools::benchmark::{Figure, Machine, Results, Setting};

/// Figures by what they are of.
#[derive(Default)]
pub(crate) struct Found {
    rows: Vec<(String, Vec<Figure>)>,
    settings: Vec<Setting>,
}

impl Found {
    /// A flag that was given.
    pub(crate) fn setting(&mut self, flag: &str, value: &impl ToString) {
        self.settings.push(Setting { flag: flag.to_owned(), value: value.to_string() });
    }

    /// Adds a row.
    pub(crate) fn figures(&mut self, what: &str, figures: impl IntoIterator<Item = Figure>) {
        self.rows.push((what.to_owned(), figures.into_iter().collect()));
    }

    /// Prints a table for all rows that begin with the same figure.
    pub(crate) fn print(&self) {
        for rows in self.rows.chunk_by(|(_, one), (_, other)| one[0].name == other[0].name) {
            let widest = rows.iter().map(|(_, figures)| figures).max_by_key(|figures| figures.len()).unwrap();
            let names: Vec<String> =
                widest.iter().map(|figure| format!("{}, {}", figure.name, figure.unit)).collect();
            println!("\n| | {} |\n|---|{}", names.join(" | "), "--:|".repeat(names.len()));
            for (what, figures) in rows {
                let value = |at| {
                    figures.get(at).map_or_else(String::new, |figure: &Figure| format!("{:.2}", figure.value))
                };
                let values: Vec<String> = (0..names.len()).map(value).collect();
                println!("| {what} | {} |", values.join(" | "));
            }
        }
    }

    /// Writes a results file.
    pub(crate) fn write(self, file: &Path) {
        let named = |(what, figures): (String, Vec<Figure>)| {
            figures
                .into_iter()
                .map(move |figure| Figure { name: format!("{what}: {}", figure.name), ..figure })
        };
        let results = Results {
            format: FORMAT,
            benchmark: "scalability".to_owned(),
            settings: self.settings,
            target: None,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            profile: Some(PROFILE.to_owned()),
            started_at: SystemClock.now(),
            machine: Machine::here(),
            parts: Vec::new(),
            figures: self.rows.into_iter().flat_map(named).collect(),
            remarks: Vec::new(),
        };
        std::fs::write(file, serde_json::to_string_pretty(&results).unwrap() + "\n").unwrap();
    }
}
