//! Stretches carried away from a log that goes on, and put together again: nothing changes, and nothing goes unseen.

use std::path::Path;
use std::sync::Arc;

use super::{Random, append, batch, clock, contents, draft, keyed, options};
use crate::log::{Batch, BuildError, End, Filter, Log, LogBuild, Reader, StoredBlock};
use crate::{Draft, Seq, Timestamp};

/// Carries what lies behind `end` away and checks it on the way; where it ends then.
#[track_caller]
fn carry(reader: &Reader, end: &End, until: Seq, blocks: &mut Vec<StoredBlock>) -> End {
    let mut checked = end.clone();
    for block in reader.stretch(end.clone(), until) {
        let block = block.unwrap();
        assert_eq!(block.first, checked.seq().next());
        checked.take(&block).unwrap();
        blocks.push(block);
    }
    assert_eq!(checked.seq(), until);
    assert_eq!(checked.head(), reader.head_at(until.0).unwrap());
    checked
}

fn build(dir: &Path, blocks: &[StoredBlock], until: Seq) -> Result<Reader, BuildError> {
    let mut build = LogBuild::begin(dir, [7; 16])?;
    for block in blocks {
        build.block(block.clone(), until)?;
    }
    build.finish()?;
    Ok(Log::open_read_only(dir).unwrap())
}

#[test]
fn stretches_taken_while_blocks_are_merged_make_the_same_log() {
    for seed in 0..4 {
        let mut random = Random::new(seed);
        let dir = tempfile::tempdir().unwrap();
        let log = Log::open(dir.path(), options(), clock()).unwrap();
        let (mut blocks, mut end) = (Vec::new(), End::default());
        for round in 0..6 {
            for number in 0..40 {
                let long = "x".repeat(random.below(3_000) as usize);
                let many = 1 + random.below(4) as usize;
                let drafts: Vec<Draft> =
                    (0..many).map(|at| draft("a", &format!("{round}/{number}/{at} {long}"))).collect();
                append(&log, Batch::of(drafts));
            }
            let head = log.head().seq;
            // Sometimes not to the end: the next stretch begins within a block.
            let until = Seq(head.0 - random.below(30));
            assert_eq!(log.reader().end_at(end.seq().0).unwrap().head(), end.head());
            end = carry(&log.reader(), &end, until, &mut blocks);
        }
        end = carry(&log.reader(), &end, log.head().seq, &mut blocks);
        assert!(log.reader().stretch(end, log.head().seq).next().is_none());
        let other = tempfile::tempdir().unwrap();
        let built = build(other.path(), &blocks, log.head().seq).unwrap();
        assert_eq!(built.head(), log.head());
        assert_eq!(contents(&built), contents(&log.reader()));
        built.verify(&mut |_| ()).unwrap();
        // The filters of blocks that were cut know what is in them.
        let found = built.scan(Seq::FIRST, &Filter { stream: Some("a".to_owned()), ..Filter::default() });
        assert_eq!(found.count(), contents(&built).len());
    }
}

#[test]
fn a_log_is_built_up_to_every_position() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options(), clock()).unwrap();
    for round in ["a", "b", "c", "d"] {
        append(&log, keyed(batch(round, &["1", "2", "3"]), round, 1));
    }
    let mut blocks = Vec::new();
    carry(&log.reader(), &End::default(), log.head().seq, &mut blocks);
    for until in 0..=12 {
        let other = tempfile::tempdir().unwrap();
        let mut build = LogBuild::begin(other.path(), [9; 16]).unwrap();
        for block in &blocks {
            if !build.block(block.clone(), Seq(until)).unwrap() {
                break;
            }
        }
        let mut keys = |key: &str, row: &[u8]| build.key(key, row, Seq(until));
        log.reader()
            .keys_of::<BuildFailure>(Seq::ZERO, log.head().seq, &mut |key, row| {
                keys(key, row).map_err(BuildFailure::Build)
            })
            .unwrap();
        assert_eq!(build.finish().unwrap(), log.reader().head_at(until).unwrap(), "{until}");
        let built = Log::open(other.path(), options(), clock()).unwrap();
        let verified = built.reader().verify(&mut |_| ()).unwrap();
        assert_eq!((verified.events, verified.keys), (until, until / 3), "{until}");
        // It goes on as any log does.
        append(&built, batch("e", &["4"]));
        assert_eq!(built.head().seq, Seq(until + 1));
    }
}

#[derive(Debug)]
enum BuildFailure {
    #[expect(dead_code, reason = "shown when the test fails")]
    Read(crate::log::ReadError),
    #[expect(dead_code, reason = "shown when the test fails")]
    Build(BuildError),
}

impl From<crate::log::ReadError> for BuildFailure {
    fn from(error: crate::log::ReadError) -> Self {
        Self::Read(error)
    }
}

#[test]
fn a_block_knows_what_was_recorded_until_a_moment() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options(), clock()).unwrap();
    for number in 0..5 {
        append(&log, batch("a", &[&number.to_string()]));
    }
    let times: Vec<Timestamp> =
        super::records(&log.reader()).iter().map(|record| record.recorded_at).collect();
    let mut blocks = Vec::new();
    carry(&log.reader(), &End::default(), log.head().seq, &mut blocks);
    for moment in times.iter().flat_map(|at| [at.unix_micros(), at.unix_micros() + 1]) {
        let expected = times.iter().filter(|at| at.unix_micros() <= moment).count() as u64;
        let found = blocks.iter().rev().find_map(|block| {
            let last = block.last_until(Timestamp::from_unix_micros(moment)).unwrap();
            (last >= block.first).then_some(last.0)
        });
        assert_eq!(found.unwrap_or(0), expected);
    }
}

#[test]
fn a_flipped_bit_a_missing_block_and_a_wrong_order_are_found_and_leave_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), options(), clock()).unwrap();
    for number in 0..3 {
        append(&log, batch("a", &[&number.to_string()]));
    }
    let mut blocks = Vec::new();
    carry(&log.reader(), &End::default(), log.head().seq, &mut blocks);
    let check = |blocks: &[StoredBlock], what: &str| {
        let other = tempfile::tempdir().unwrap();
        let built = build(other.path(), blocks, log.head().seq);
        assert!(matches!(built, Err(BuildError::Block { .. })), "{what}");
        assert_eq!(std::fs::read_dir(other.path()).unwrap().count(), 0, "{what}");
    };
    for (at, block) in blocks.iter().enumerate() {
        for bit in (0..block.header.len() * 8)
            .chain(block.header.len() * 8..(block.header.len() + block.body.len()) * 8)
        {
            let mut flipped = blocks.clone();
            let (byte, mask) = (bit / 8, 1 << (bit % 8));
            match byte.checked_sub(block.header.len()) {
                None => flipped[at].header[byte] ^= mask,
                Some(byte) => flipped[at].body[byte] ^= mask,
            }
            let mut end = End::default();
            let wrong = flipped.iter().try_for_each(|block| end.take(block));
            assert!(wrong.is_err(), "bit {bit} of block {at}");
        }
    }
    let mut flipped = blocks.clone();
    flipped[0].body[0] ^= 1;
    check(&flipped, "a flipped bit");
    if blocks.len() > 1 {
        check(&blocks[1..], "the first block is missing");
        check(&[&blocks[..1], &blocks[..1]].concat(), "a block twice");
    }
}

#[test]
fn a_log_that_is_not_finished_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    drop(LogBuild::begin(dir.path(), [1; 16]).unwrap());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    let log = Log::open(dir.path(), options(), Arc::clone(&clock())).unwrap();
    drop(log);
}
