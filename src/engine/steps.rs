//! How many records the graph folds in one transaction: bounds by kind of row, and smaller steps when one took too long.

use std::time::{Duration, Instant};

use caxton_events::{Event, Kind, MemoryEvent, Record, Seq};
use caxton_projections::projection::{ApplyError, Projection};

use crate::telemetry;

/// Bounds of one step of the graph. Each is at least 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Records of any kind. Default: 1000.
    pub records_max: usize,
    /// Records about entities. Default: 1000.
    pub entities_max: usize,
    /// Records about relations. Default: 1000.
    pub relations_max: usize,
    /// Records about observations. Default: 1000.
    pub observations_max: usize,
    /// Time of a step above which the next ones are smaller. Default: 5 s.
    pub time_max: Duration,
}

impl Default for StepLimits {
    fn default() -> Self {
        let max = 1_000;
        let time_max = Duration::from_secs(5);
        Self { records_max: max, entities_max: max, relations_max: max, observations_max: max, time_max }
    }
}

/// Deals records out to steps.
#[derive(Debug)]
pub(super) struct Steps {
    limits: StepLimits,
    /// How often the bounds are halved now.
    halvings: u32,
}

/// What a step made of the bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pace {
    /// They stay.
    Kept,
    /// They are half of what they were; the records that a step holds at most from now on.
    Halved(usize),
    /// They are twice what they were.
    Doubled(usize),
}

/// Kinds of rows that have a bound of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Row {
    Entity,
    Relation,
    Observation,
}

impl Steps {
    pub(super) const fn new(limits: StepLimits) -> Self {
        Self { limits, halvings: 0 }
    }

    /// How many of `records`, of which there is at least one, the next step takes.
    pub(super) fn next(&self, records: &[Record]) -> usize {
        let (mut entities, mut relations, mut observations) = (0, 0, 0);
        let within = |count: &mut usize, max: usize| {
            *count += 1;
            *count <= self.bound(max)
        };
        let fits = records.iter().take_while(|record| match row(&record.event) {
            Some(Row::Entity) => within(&mut entities, self.limits.entities_max),
            Some(Row::Relation) => within(&mut relations, self.limits.relations_max),
            Some(Row::Observation) => within(&mut observations, self.limits.observations_max),
            None => true,
        });
        fits.take(self.records_max()).count().max(1)
    }

    /// Notes how long a step took. A slow one halves the bounds; one that took a quarter of the time doubles them again,
    /// up to what they were.
    pub(super) fn took(&mut self, time: Duration) -> Pace {
        if time > self.limits.time_max && self.records_max() > 1 {
            self.halvings += 1;
            Pace::Halved(self.records_max())
        } else if self.halvings > 0 && time < self.limits.time_max / 4 {
            self.halvings -= 1;
            Pace::Doubled(self.records_max())
        } else {
            Pace::Kept
        }
    }

    fn records_max(&self) -> usize {
        self.bound(self.limits.records_max)
    }

    fn bound(&self, max: usize) -> usize {
        max.checked_shr(self.halvings).unwrap_or(0).max(1)
    }
}

/// A projection that folds in steps what it is given, however much that is. Where a step fails, those before it stay.
pub(super) struct Stepwise<'a> {
    projection: &'a mut dyn Projection,
    steps: &'a mut Steps,
    has_folded: bool,
}

impl<'a> Stepwise<'a> {
    pub(super) fn new(projection: &'a mut dyn Projection, steps: &'a mut Steps) -> Self {
        Self { projection, steps, has_folded: false }
    }

    /// Whether it was given records, of which some may be folded also where that failed.
    pub(super) const fn has_folded(&self) -> bool {
        self.has_folded
    }
}

// Words of a whole batch are not counted ahead: a step holds a part of it.
impl Projection for Stepwise<'_> {
    fn name(&self) -> &'static str {
        self.projection.name()
    }

    fn version(&self) -> u32 {
        self.projection.version()
    }

    fn checkpoint(&self) -> Seq {
        self.projection.checkpoint()
    }

    fn kinds(&self) -> Vec<Kind> {
        self.projection.kinds()
    }

    fn expect_gaps(&mut self) {
        self.projection.expect_gaps();
    }

    fn fold(&mut self, records: &[Record], through: Seq) -> Result<(), ApplyError> {
        let mut rest = records;
        self.has_folded |= !records.is_empty();
        while !rest.is_empty() {
            let (step, behind) = rest.split_at(self.steps.next(rest));
            let last = step.last().filter(|_| !behind.is_empty());
            let started = Instant::now();
            self.projection.fold(step, last.map_or(through, |record| record.seq))?;
            let took = started.elapsed();
            telemetry::graph_step_finished(step.len(), took);
            if let Pace::Halved(records_max) = self.steps.took(took) {
                tracing::warn!(
                    ?took,
                    records = step.len(),
                    records_max,
                    "steps of the graph are made smaller"
                );
            }
            rest = behind;
        }
        // The checkpoint moves alone.
        if records.is_empty() { self.projection.fold(records, through) } else { Ok(()) }
    }

    fn reset(&mut self) -> Result<(), ApplyError> {
        self.projection.reset()
    }
}

fn row(event: &Event) -> Option<Row> {
    let Event::Memory(event) = event else { return None };
    match event {
        MemoryEvent::EntityCreated { .. }
        | MemoryEvent::EntityUpdated { .. }
        | MemoryEvent::EntityRemoved { .. }
        | MemoryEvent::EntityRestored { .. } => Some(Row::Entity),
        MemoryEvent::RelationCreated { .. }
        | MemoryEvent::RelationUpdated { .. }
        | MemoryEvent::RelationRemoved { .. }
        | MemoryEvent::RelationRestored { .. } => Some(Row::Relation),
        MemoryEvent::ObservationAdded { .. }
        | MemoryEvent::ObservationUpdated { .. }
        | MemoryEvent::ObservationRemoved { .. }
        | MemoryEvent::ObservationRestored { .. } => Some(Row::Observation),
        MemoryEvent::Undone { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use caxton_events::{MemoryId, SystemEvent, Timestamp};

    use super::*;

    fn records(kinds: &str) -> Vec<Record> {
        let id = MemoryId(1);
        let event = |kind: char| -> Event {
            match kind {
                'e' => MemoryEvent::EntityRemoved { id }.into(),
                'o' => MemoryEvent::ObservationRemoved { id, entity: id }.into(),
                'r' => MemoryEvent::RelationRemoved { id }.into(),
                _ => SystemEvent::ServerStopped.into(),
            }
        };
        let record = |(seq, kind): (u64, char)| Record {
            seq: Seq(seq),
            recorded_at: Timestamp::from_unix_micros(0),
            stream: String::new(),
            actor: String::new(),
            correlation: None,
            causation: None,
            event: event(kind),
        };
        (1..).zip(kinds.chars()).map(record).collect()
    }

    /// The records of each step, when none takes long.
    #[track_caller]
    fn check(limits: StepLimits, kinds: &str, then: &[usize]) {
        let (steps, records) = (Steps::new(limits), records(kinds));
        let (mut rest, mut taken) = (records.as_slice(), Vec::new());
        while !rest.is_empty() {
            let step = steps.next(rest);
            taken.push(step);
            rest = &rest[step..];
        }
        assert_eq!(taken, then, "{limits:?} {kinds}");
    }

    #[test]
    fn a_step_holds_as_many_records_as_it_may() {
        let all = StepLimits::default();
        check(all, "eoooorrs", &[8]);
        check(StepLimits { records_max: 3, ..all }, "eoooorrs", &[3, 3, 2]);
        check(StepLimits { entities_max: 1, ..all }, "eoeoros", &[2, 5]);
        check(StepLimits { relations_max: 2, ..all }, "rrrrre", &[2, 2, 2]);
        check(StepLimits { observations_max: 2, ..all }, "oseoro", &[5, 1]);
        check(StepLimits { records_max: 0, ..all }, "ss", &[1, 1]);
    }

    /// Remembers how many records each step had, and where it ended.
    #[derive(Default)]
    struct Folded(Vec<(usize, u64)>);

    impl Projection for Folded {
        fn name(&self) -> &'static str {
            "folded"
        }

        fn version(&self) -> u32 {
            1
        }

        fn checkpoint(&self) -> Seq {
            Seq(self.0.last().map_or(0, |(_, through)| *through))
        }

        fn kinds(&self) -> Vec<Kind> {
            Kind::ALL.to_vec()
        }

        fn fold(&mut self, records: &[Record], through: Seq) -> Result<(), ApplyError> {
            self.0.push((records.len(), through.0));
            Ok(())
        }

        fn reset(&mut self) -> Result<(), ApplyError> {
            self.0.clear();
            Ok(())
        }
    }

    #[test]
    fn whatever_a_projection_is_given_it_folds_in_steps() {
        let limits = StepLimits { records_max: 3, ..StepLimits::default() };
        let (mut folded, mut steps) = (Folded::default(), Steps::new(limits));
        let mut stepwise = Stepwise::new(&mut folded, &mut steps);
        // Behind the last of its records lie some of other kinds.
        stepwise.fold(&records("oosoooe"), Seq(9)).unwrap();
        stepwise.fold(&[], Seq(12)).unwrap();
        assert_eq!(stepwise.checkpoint(), Seq(12));
        assert_eq!(folded.0, [(3, 3), (3, 6), (1, 9), (0, 12)]);
    }

    #[test]
    fn a_checkpoint_that_moves_alone_is_told_from_records() {
        let (mut folded, mut steps) = (Folded::default(), Steps::new(StepLimits::default()));
        let mut stepwise = Stepwise::new(&mut folded, &mut steps);
        stepwise.fold(&[], Seq(3)).unwrap();
        assert!(!stepwise.has_folded());
        stepwise.fold(&records("ss"), Seq(9)).unwrap();
        assert!(stepwise.has_folded());
    }

    #[test]
    fn a_step_that_takes_too_long_makes_the_next_ones_smaller_until_they_are_quick() {
        let limits = StepLimits { records_max: 8, time_max: Duration::from_secs(4), ..StepLimits::default() };
        let (mut steps, records) = (Steps::new(limits), records(&"s".repeat(20)));
        let slow = Duration::from_secs(5);
        for left in [4, 2, 1] {
            assert_eq!(steps.took(slow), Pace::Halved(left));
            assert_eq!(steps.next(&records), left);
        }
        assert_eq!(steps.took(slow), Pace::Kept, "a step holds one record at least");
        assert_eq!(steps.took(Duration::from_secs(3)), Pace::Kept, "it keeps the time, but barely");
        for back in [2, 4, 8] {
            assert_eq!(steps.took(Duration::from_millis(900)), Pace::Doubled(back));
        }
        assert_eq!(steps.took(Duration::ZERO), Pace::Kept);
        assert_eq!(steps.next(&records), 8);
    }
}
