//! Random walks against the simplest model there is: a list of records and a map of keys.

use std::collections::BTreeMap;

use super::disk::Disk;
use super::{Random, clock, content, content_of, draft, keyed, options};
use crate::Seq;
use crate::log::{AppendError, Appended, Batch, Expected, Filter, Log, LogOptions};

#[derive(Debug, Default)]
struct Model {
    /// Stream, actor, content; the index is the seq minus one.
    events: Vec<(String, String, String)>,
    keys: BTreeMap<String, (u8, u64)>,
}

impl Model {
    fn end_of(&self, stream: &str) -> Option<Seq> {
        self.events.iter().rposition(|event| event.0 == stream).map(|index| Seq(index as u64 + 1))
    }

    /// What the log must answer: the first position, or nothing for a refusal.
    fn admit(&mut self, batch: &Batch) -> Option<(u64, bool)> {
        if let Some(key) = &batch.key
            && let Some((fingerprint, first)) = self.keys.get(&key.key)
        {
            return (*fingerprint == key.fingerprint[0]).then_some((*first, true));
        }
        if let Some((stream, expected)) = &batch.expected {
            let wanted = match expected {
                Expected::Empty => None,
                Expected::LastSeq(seq) => Some(*seq),
            };
            if self.end_of(stream) != wanted {
                return None;
            }
        }
        let first = self.events.len() as u64 + 1;
        if let Some(key) = &batch.key {
            self.keys.insert(key.key.clone(), (key.fingerprint[0], first));
        }
        for draft in &batch.drafts {
            self.events.push((draft.stream.clone(), draft.actor.clone(), content_of(&draft.event)));
        }
        Some((first, false))
    }
}

fn random_batch(random: &mut Random, model: &Model) -> Batch {
    let drafts = (0..=random.below(6)).map(|_| {
        let mut draft = draft(&format!("s{}", random.below(9)), "");
        draft.actor = format!("a{}", random.below(3));
        let long = if random.below(20) == 0 { 90_000 } else { 60 };
        let content = "xyz".repeat(random.below(long) as usize);
        draft.event = super::draft("", &format!("{} {content}", random.below(1 << 32))).event;
        draft
    });
    let mut batch = Batch::of(drafts.collect());
    if random.below(3) == 0 {
        batch = keyed(batch, &format!("k{}", random.below(20)), random.below(2) as u8);
    }
    if random.below(3) == 0 {
        let stream = format!("s{}", random.below(12));
        let right = model.end_of(&stream).map_or(Expected::Empty, Expected::LastSeq);
        let expected = if random.below(3) == 0 { Expected::LastSeq(Seq(random.below(50))) } else { right };
        batch.expected = Some((stream, expected));
    }
    batch
}

#[track_caller]
fn check_scan(log: &Log, model: &Model, random: &mut Random) {
    let (from, until) =
        (random.below(model.events.len() as u64 + 3), random.below(model.events.len() as u64 + 3));
    let wanted = |random: &mut Random, name: &str, count: u64| {
        (random.below(2) == 0).then(|| format!("{name}{}", random.below(count)))
    };
    let (stream, actor) = (wanted(random, "s", 10), wanted(random, "a", 4));
    let back = random.below(2) == 0;
    let filter = Filter { until: Some(Seq(until)), stream, actor, ..Filter::default() };
    let scan =
        if back { log.reader().scan_back(Seq(from), &filter) } else { log.reader().scan(Seq(from), &filter) };
    let found: Vec<(u64, String)> =
        scan.map(Result::unwrap).map(|record| (record.seq.0, content(&record))).collect();
    let (low, high) = if back { (until, from) } else { (from, until) };
    let mut then: Vec<(u64, String)> = model
        .events
        .iter()
        .zip(1_u64..)
        .filter(|(event, seq)| {
            (low..=high).contains(seq)
                && filter.stream.as_ref().is_none_or(|stream| *stream == event.0)
                && filter.actor.as_ref().is_none_or(|actor| *actor == event.1)
        })
        .map(|(event, seq)| (seq, event.2.clone()))
        .collect();
    if back {
        then.reverse();
    }
    assert!(found == then, "from {from}, {filter:?}, back: {back}");
}

fn walk(seed: u64) {
    let mut random = Random::new(seed);
    let options = || LogOptions { group_events_max: 5, compress_above: Some(200), ..options() };
    let disk = Disk::default();
    let mut log = Log::open_on(disk.clone(), options(), clock()).unwrap();
    let mut model = Model::default();
    for _ in 0..200 {
        match random.below(12) {
            0 => {
                log.close().unwrap();
                log = Log::open_on(disk.clone(), options(), clock()).unwrap();
            }
            1..=3 => check_scan(&log, &model, &mut random),
            _ => {
                let batches: Vec<Batch> =
                    (0..=random.below(3)).map(|_| random_batch(&mut random, &model)).collect();
                let results = log.append(batches.clone()).unwrap();
                for (batch, result) in batches.iter().zip(results) {
                    match (model.admit(batch), result) {
                        (Some((first, known)), Ok(Appended { first: at, replayed, .. })) => {
                            assert_eq!((at.0, replayed.is_some()), (first, known), "seed {seed}");
                        }
                        (None, Err(AppendError::KeyConflict { .. } | AppendError::Unexpected { .. })) => (),
                        (then, found) => panic!("seed {seed}: {then:?}, found {found:?}"),
                    }
                }
            }
        }
    }
    let verified = log.reader().verify(&mut |_| ()).unwrap();
    assert_eq!((verified.events, verified.keys), (model.events.len() as u64, model.keys.len() as u64));
}

#[test]
fn the_log_behaves_as_a_list_and_a_map() {
    for seed in 0..20 {
        walk(seed);
    }
}
