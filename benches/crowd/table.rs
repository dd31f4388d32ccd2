//! One table for what was measured: what, figure, bar, whether it holds.

/// Rows as they will be printed.
#[derive(Default)]
pub(crate) struct Table(Vec<[String; 4]>);

impl Table {
    /// A figure with its bar.
    pub(crate) fn row(
        &mut self,
        what: impl Into<String>,
        figure: impl Into<String>,
        bar: impl Into<String>,
        holds: bool,
    ) {
        let verdict = if holds { "holds" } else { "MISSED" };
        self.push([what.into(), figure.into(), bar.into(), verdict.to_owned()]);
    }

    /// A figure that has none.
    pub(crate) fn note(&mut self, what: impl Into<String>, figure: impl Into<String>) {
        self.push([what.into(), figure.into(), String::new(), String::new()]);
    }

    fn push(&mut self, row: [String; 4]) {
        // Also at once: a run that is broken off has said what it knew.
        println!("{}", row.join(" | "));
        self.0.push(row);
    }

    /// Prints the whole.
    pub(crate) fn print(&self) {
        println!("\n| what | figure | bar | |\n|---|---|---|---|");
        for row in &self.0 {
            println!("| {} |", row.join(" | "));
        }
    }
}
