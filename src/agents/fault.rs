//! What is wrong with an agent's file, while its places are still numbers of nodes.

use std::cell::RefCell;

use caxton_events::agent::ConfigProblem;

use crate::config::Place;
use crate::config::document::{Document, NodeId};

/// Faults of one file that are kept; more help nobody, and each place costs a reading.
pub(super) const PROBLEMS_MAX: usize = 50;

/// The order in which a file is judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    /// Is it a file of ours at all?
    Syntax,
    /// Is everything there that must be?
    Required,
    /// Are its capabilities such?
    Capabilities,
    /// Does it name tools that exist?
    Tools,
    /// Are the values of the right kind?
    Values,
    /// Who sees its memory?
    Memory,
    /// Are its templates whole?
    Templates,
}

/// Where a fault stands.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Spot {
    /// The file as a whole.
    File,
    /// A node of the front matter.
    Node(NodeId),
    /// A byte of the text that a node holds.
    InText(NodeId, usize),
    /// A line and a column.
    At(Place),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Fault {
    pub(super) phase: Phase,
    pub(super) spot: Spot,
    /// The key, dotted.
    pub(super) field: String,
    pub(super) reason: String,
    pub(super) remedy: String,
    /// It does no harm: the file may be used.
    pub(super) harmless: bool,
}

/// The faults found so far. Shared by all parts of one reading.
#[derive(Debug, Default)]
pub(super) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    /// Notes a fault.
    pub(super) fn add(&self, phase: Phase, spot: Spot, field: &str, reason: impl Into<String>, remedy: &str) {
        self.push(phase, spot, field, reason.into(), remedy, false);
    }

    /// Notes something that does no harm.
    pub(super) fn warn(&self, spot: Spot, field: &str, reason: impl Into<String>, remedy: &str) {
        self.push(Phase::Values, spot, field, reason.into(), remedy, true);
    }

    fn push(&self, phase: Phase, spot: Spot, field: &str, reason: String, remedy: &str, harmless: bool) {
        let (field, remedy) = (field.to_owned(), remedy.to_owned());
        let fault = Fault { phase, spot, field, reason, remedy, harmless };
        let mut faults = self.0.borrow_mut();
        // A section that is read twice, for two purposes, finds the same fault twice.
        if faults.len() < PROBLEMS_MAX && !faults.contains(&fault) {
            faults.push(fault);
        }
    }

    /// The faults with their places, in the order of the phases and then of the file: harmful ones, harmless ones.
    pub(super) fn placed(self, document: Option<&Document>) -> (Vec<ConfigProblem>, Vec<ConfigProblem>) {
        let mut placed: Vec<(Phase, bool, ConfigProblem)> = self
            .0
            .into_inner()
            .into_iter()
            .map(|fault| (fault.phase, fault.harmless, placed(fault, document)))
            .collect();
        placed.sort_by_key(|(phase, _, problem)| (*phase, problem.line, problem.column));
        let (harmless, harmful): (Vec<_>, Vec<_>) =
            placed.into_iter().partition(|(_, harmless, _)| *harmless);
        let problems = |rows: Vec<(Phase, bool, ConfigProblem)>| rows.into_iter().map(|row| row.2).collect();
        (problems(harmful), problems(harmless))
    }
}

fn placed(fault: Fault, document: Option<&Document>) -> ConfigProblem {
    let place = match fault.spot {
        Spot::File => None,
        Spot::At(place) => Some(place),
        Spot::Node(node) => document.and_then(|document| document.place(node)),
        Spot::InText(node, byte) => document.and_then(|document| in_text(document, node, byte)),
    };
    let Fault { field, reason, remedy, .. } = fault;
    let number = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let (line, column) = place.map_or((0, 0), |place| (number(place.line), number(place.column)));
    ConfigProblem { line, column, field, reason, remedy }
}

/// Where byte `byte` of the text in `node` stands: exact in block scalars with `|` and in texts of one line; elsewhere
/// the place where the text begins.
fn in_text(document: &Document, node: NodeId, byte: usize) -> Option<Place> {
    let start = document.place(node)?;
    let text = document.text_of(node)?;
    let before = text.get(..byte)?;
    let row = before.matches('\n').count();
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count();
    let line = document.line(start.line)?;
    let source: String = line.chars().skip(start.column - 1).collect();
    if source.starts_with('|') {
        let indent = (start.line + 1..)
            .map_while(|line| document.line(line))
            .find(|line| !line.trim().is_empty())
            .map_or(0, |line| line.chars().take_while(|sign| *sign == ' ').count());
        return Some(Place { line: start.line + 1 + row, column: indent + column + 1 });
    }
    if row == 0 && !text.trim_end().contains('\n') && !source.starts_with('>') {
        let quote = usize::from(source.starts_with(['"', '\'']));
        return Some(Place { line: start.line, column: start.column + quote + column });
    }
    Some(start)
}

/// A problem of a file as a whole.
pub(super) fn whole_file(reason: impl Into<String>, remedy: impl Into<String>) -> ConfigProblem {
    let (reason, remedy) = (reason.into(), remedy.into());
    ConfigProblem { line: 0, column: 0, field: String::new(), reason, remedy }
}
