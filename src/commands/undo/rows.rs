//! The facts about one row, and what is left of it without some of them.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use caxton_events::{MemoryId, Seq};
use caxton_projections::graph::{Fact, HistoryRow};

/// One row of the memory with its whole history.
pub(super) struct Row {
    /// Shared with what the undo comes to: each may have a long text.
    versions: Vec<Arc<HistoryRow>>,
    /// Each record about it, with the version it made; `None`: it removed the row.
    facts: Vec<(Seq, Option<usize>)>,
    /// The facts that were asked for.
    pub(super) chosen: BTreeSet<Seq>,
    /// The facts that are taken back: chosen ones, and with [`Later::Undo`](caxton_events::memory::Later::Undo) more.
    taken: BTreeSet<Seq>,
    left: Left,
    /// Whether what belongs to this entity was looked at.
    pub(super) with_belongings: bool,
}

/// What is left of a row.
#[derive(Default)]
struct Left {
    /// Facts that are taken back and had not been before.
    undone: Vec<Seq>,
    /// Facts that stay.
    stay: Vec<(Seq, Option<usize>)>,
    /// Records of earlier undoes that stay in force. They only bring back what earlier facts had made.
    restorers: Vec<Seq>,
}

impl Row {
    /// A row of these versions, the oldest first.
    pub(super) fn new(versions: Vec<HistoryRow>, undone: &BTreeMap<Seq, Vec<Seq>>) -> Self {
        let mut facts = Vec::with_capacity(versions.len());
        for (index, version) in versions.iter().enumerate() {
            facts.push((version.created_seq, Some(index)));
            let next = versions.get(index + 1).map(|next| next.created_seq);
            if let Some(removed) = version.removed_seq.filter(|removed| Some(*removed) != next) {
                facts.push((removed, None));
            }
        }
        let versions = versions.into_iter().map(Arc::new).collect();
        let (chosen, taken) = (BTreeSet::new(), BTreeSet::new());
        let mut row = Self { versions, facts, chosen, taken, left: Left::default(), with_belongings: false };
        row.look(undone);
        row
    }

    /// Asks for a fact; `false` when the row has no such fact.
    pub(super) fn choose(&mut self, seq: Seq, undone: &BTreeMap<Seq, Vec<Seq>>) -> bool {
        let known = self.facts.binary_search_by_key(&seq, |(seq, _)| *seq).is_ok();
        if known && self.chosen.insert(seq) {
            self.take([seq], undone);
        }
        known
    }

    /// Takes these facts back too; whether any of them was not taken back before.
    pub(super) fn take(
        &mut self,
        facts: impl IntoIterator<Item = Seq>,
        undone: &BTreeMap<Seq, Vec<Seq>>,
    ) -> bool {
        let before = self.taken.len();
        self.taken.extend(facts);
        let more = self.taken.len() > before;
        if more {
            self.look(undone);
        }
        more
    }

    /// Lets every fact up to `last` stay; whether any of them was to be taken back.
    pub(super) fn keep_through(&mut self, last: Seq, undone: &BTreeMap<Seq, Vec<Seq>>) -> bool {
        let before = self.taken.len();
        self.taken.retain(|seq| *seq > last);
        let fewer = self.taken.len() < before;
        if fewer {
            self.look(undone);
        }
        fewer
    }

    /// Finds out what is left.
    fn look(&mut self, undone: &BTreeMap<Seq, Vec<Seq>>) {
        // What an undo took back does not count while the undo itself stays; so the newest are looked at first.
        let mut void: HashSet<Seq> = HashSet::new();
        for (seq, _) in self.facts.iter().rev() {
            if let Some(facts) = undone.get(seq)
                && !void.contains(seq)
                && !self.taken.contains(seq)
            {
                void.extend(facts);
            }
        }
        let mut left = Left::default();
        for (seq, version) in self.facts.iter().filter(|(seq, _)| !void.contains(seq)) {
            if self.taken.contains(seq) {
                left.undone.push(*seq);
            } else if undone.contains_key(seq) {
                left.restorers.push(*seq);
            } else {
                left.stay.push((*seq, *version));
            }
        }
        self.left = left;
    }

    /// The facts that are taken back and had not been before, by position.
    pub(super) fn undone(&self) -> &[Seq] {
        &self.left.undone
    }

    /// What the row is now.
    pub(super) fn before(&self) -> Option<&Arc<HistoryRow>> {
        self.versions.last().filter(|version| version.removed_seq.is_none())
    }

    /// What it will be.
    pub(super) fn after(&self) -> Option<&Arc<HistoryRow>> {
        let (_, version) = self.left.stay.last()?;
        self.versions.get((*version)?)
    }

    /// Whether it will be something else than it is.
    pub(super) fn changes(&self) -> bool {
        differs(self.before(), self.after())
    }

    /// The highest version number that it ever had.
    pub(super) fn version_max(&self) -> u32 {
        let versions = self.versions.iter().map(|version| match &version.fact {
            Fact::Entity(entity) => entity.version,
            Fact::Observation(_) | Fact::Relation(_) => 0,
        });
        versions.max().unwrap_or(0)
    }

    /// Any version of it.
    pub(super) fn any(&self) -> Option<&Fact> {
        self.versions.last().map(|version| &version.fact)
    }

    /// Facts that stay and came after the first that does not.
    pub(super) fn built_upon(&self) -> Vec<Seq> {
        let Some(first) = self.undone().first() else { return Vec::new() };
        self.left.stay.iter().map(|(seq, _)| *seq).filter(|seq| seq > first).collect()
    }

    /// Facts that stay, and undoes that stay in force, from `from` on.
    pub(super) fn live_from(&self, from: Seq) -> Vec<Seq> {
        let mut live: Vec<Seq> = self.left.stay.iter().map(|(seq, _)| *seq).collect();
        live.extend(&self.left.restorers);
        live.retain(|seq| *seq >= from);
        live.sort_unstable();
        live
    }

    /// What removed the row and stays in force: a fact, or an earlier undo.
    pub(super) fn removal(&self) -> Option<Seq> {
        let last = *self.live_from(Seq::ZERO).last()?;
        let at = self.facts.binary_search_by_key(&last, |(seq, _)| *seq).ok()?;
        self.facts[at].1.is_none().then_some(last)
    }

    /// Facts that stay and that put the row in the place of `key`, if without them it stays what it is now.
    pub(super) fn may_stay_out_of(&self, key: &Place) -> Option<Vec<Seq>> {
        let version = |version: Option<usize>| version.and_then(|version| self.versions.get(version));
        let holds = |at: Option<usize>| version(at).is_some_and(|row| place(&row.fact) == *key);
        let stay = &self.left.stay;
        let from = stay.iter().rposition(|(_, at)| !holds(*at)).map_or(0, |before| before + 1);
        let without = from.checked_sub(1).and_then(|last| version(stay[last].1));
        let facts = || stay[from..].iter().map(|(seq, _)| *seq).collect();
        (!differs(self.before(), without)).then(facts)
    }

    /// Whether this record is that of an earlier undo that stays in force.
    pub(super) fn is_of_undo(&self, seq: Seq) -> bool {
        self.left.restorers.contains(&seq)
    }

    /// Since when the row has had the place of `key` without a break.
    pub(super) fn in_place_since(&self, key: &Place) -> Option<Seq> {
        let last = *self.live_from(Seq::ZERO).last()?;
        let before = self.facts.iter().rev().skip_while(|(seq, _)| *seq > last);
        let holds = |version: Option<usize>| {
            version.and_then(|version| self.versions.get(version)).is_some_and(|row| place(&row.fact) == *key)
        };
        before.take_while(|(_, version)| holds(*version)).last().map(|(seq, _)| *seq)
    }
}

/// What may be there only once.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    /// A name in a scope.
    Name(String, String),
    /// A text of an entity.
    Text(MemoryId, String),
    /// A relation in a scope.
    Triple(String, MemoryId, MemoryId, String),
}

/// The place that a row takes.
pub(super) fn place(fact: &Fact) -> Place {
    match fact {
        Fact::Entity(row) => Place::Name(row.scope.to_string(), row.name.clone()),
        Fact::Observation(row) => Place::Text(row.entity, row.content.clone()),
        Fact::Relation(row) => {
            Place::Triple(row.scope.to_string(), row.from, row.to, row.relation_type.clone())
        }
    }
}

/// The entities that a row is about.
pub(super) fn entities_of(fact: &Fact) -> Vec<MemoryId> {
    match fact {
        Fact::Entity(_) => Vec::new(),
        Fact::Observation(row) => vec![row.entity],
        Fact::Relation(row) => vec![row.from, row.to],
    }
}

/// Whether a row is something else once than another time.
fn differs(before: Option<&Arc<HistoryRow>>, after: Option<&Arc<HistoryRow>>) -> bool {
    match (before, after) {
        (Some(before), Some(after)) => !reads_like(before, after),
        (before, after) => before.is_some() != after.is_some(),
    }
}

/// Whether two versions of a row say the same, and say that the same wrote it.
fn reads_like(one: &HistoryRow, other: &HistoryRow) -> bool {
    let same = match (&one.fact, &other.fact) {
        (Fact::Entity(one), Fact::Entity(other)) => {
            (&one.name, &one.entity_type, &one.metadata, one.confidence, one.validity)
                == (&other.name, &other.entity_type, &other.metadata, other.confidence, other.validity)
        }
        (Fact::Observation(one), Fact::Observation(other)) => {
            (&one.content, one.validity) == (&other.content, other.validity)
        }
        (Fact::Relation(one), Fact::Relation(other)) => {
            (one.strength, one.confidence, &one.metadata, one.validity)
                == (other.strength, other.confidence, &other.metadata, other.validity)
        }
        (Fact::Entity(_) | Fact::Observation(_) | Fact::Relation(_), _) => false,
    };
    same && one.actor == other.actor
}
