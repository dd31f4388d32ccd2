//! The journal alone: what is found after a loss of power at any operation, and what is refused.
#![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use redb::StorageBackend;

use super::layout::{PAGE, RING, SUPERBLOCK_BYTES, Superblock};
use super::{Backend, Journal, Sealed};
use crate::log::tests::Random;
use crate::log::tests::disk::{Disk, Fault, Survives};

/// A place for one large page or sixteen small ones.
const SLOT: usize = 64 << 10;
const SLOTS: usize = 12;
const SMALL: usize = 4_096;
/// Bytes whose content is known or not, together.
const GRAIN: usize = 64;
const RING_BYTES: u64 = 128 << 10;

/// What the file should hold, as far as that is defined.
#[derive(Clone)]
struct Model {
    bytes: Vec<u8>,
    known: Vec<bool>,
}

impl Model {
    fn write(&mut self, offset: usize, data: &[u8]) {
        self.bytes[offset..offset + data.len()].copy_from_slice(data);
        self.known[offset / GRAIN..(offset + data.len()).div_ceil(GRAIN)].fill(true);
    }

    fn forget(&mut self, slot: usize) {
        self.known[slot * SLOT / GRAIN..(slot + 1) * SLOT / GRAIN].fill(false);
    }

    fn is_held_by(&self, backend: &Backend) -> bool {
        let mut found = vec![0; self.bytes.len()];
        if backend.len().unwrap() < self.bytes.len() as u64 {
            return false;
        }
        backend.read(0, &mut found).unwrap();
        let grains = found.chunks(GRAIN).zip(self.bytes.chunks(GRAIN)).zip(&self.known);
        grains.filter(|(_, known)| **known).all(|((found, then), _)| found == then)
    }
}

/// Writes as redb does: never over what the last flushed state refers to, but for the first page.
struct Script {
    random: Random,
    model: Model,
    /// Slots in use now.
    used: [bool; SLOTS],
    /// Slots that the last flushed state refers to.
    flushed: [bool; SLOTS],
    /// Every state since the last flush that was acknowledged, that one first.
    states: Vec<Model>,
}

impl Script {
    fn new(seed: u64) -> Self {
        let model = Model { bytes: vec![0; SLOT * SLOTS], known: vec![false; SLOT * SLOTS / GRAIN] };
        Self {
            random: Random::new(seed),
            states: vec![model.clone()],
            model,
            used: [false; SLOTS],
            flushed: [false; SLOTS],
        }
    }

    fn write(&mut self, backend: &Backend, offset: usize, len: usize) -> io::Result<()> {
        let seed = self.random.below(251) as usize;
        let data: Vec<u8> = (0..len).map(|n| (n / 7 + seed) as u8).collect();
        self.model.write(offset, &data);
        // A write that fails may have been on its way to the medium with all before it.
        self.states.push(self.model.clone());
        backend.write(offset as u64, &data)
    }

    fn step(&mut self, journal: &Arc<Journal>, backend: &Backend) -> io::Result<()> {
        let slot = 1 + self.random.below(SLOTS as u64 - 1) as usize;
        match self.random.below(10) {
            0..=1 => {
                journal.flush()?;
                self.flushed = self.used;
                self.states = vec![self.model.clone()];
            }
            2 => self.write(backend, 0, 320)?,
            3 => {
                self.used[slot] = false;
                self.model.forget(slot);
            }
            4..=6 if !self.used[slot] && !self.flushed[slot] => {
                self.used[slot] = true;
                self.write(backend, slot * SLOT, SLOT)?;
            }
            _ if !self.flushed[slot] => {
                self.used[slot] = true;
                let page = self.random.below(15) as usize;
                let pages = 1 + self.random.below(2) as usize;
                self.write(backend, slot * SLOT + page * SMALL, pages * SMALL)?;
            }
            _ => backend.sync_data()?,
        }
        Ok(())
    }
}

fn new_journal(disk: &Disk) -> (Arc<Journal>, Backend) {
    let journal = Journal::create(Box::new(disk.clone()), RING_BYTES, 0).unwrap();
    let backend = journal.backend();
    backend.set_len((SLOT * SLOTS) as u64).unwrap();
    (journal, backend)
}

/// The cut comes after some thousand operations at most, so that it meets every part of the ring and every page.
#[test]
fn after_a_power_cut_the_last_flushed_state_is_found_or_one_after_it() {
    let mut cuts = 0;
    for seed in 0..250 {
        let disk = Disk::default();
        let (journal, backend) = new_journal(&disk);
        journal.flush().unwrap();
        let mut script = Script::new(seed);
        disk.fail_at(disk.operations() + Random::new(seed + 7).below(90), Fault::Dead);
        while script.step(&journal, &backend).is_ok() {
            assert!(
                script.model.is_held_by(&backend),
                "seed {seed}: the running system reads something else"
            );
        }
        for survives in [Survives::Nothing, Survives::Everything, Survives::Some(seed), Survives::Some(!seed)]
        {
            let left = disk.after_power_cut(survives);
            let found = Journal::open(Box::new(left), true)
                .unwrap_or_else(|error| panic!("seed {seed}, {survives:?}: {error}"))
                .backend();
            let held = script.states.iter().any(|state| state.is_held_by(&found));
            assert!(held, "seed {seed}, {survives:?}: none of {} states was found", script.states.len());
            cuts += 1;
        }
    }
    assert_eq!(cuts, 1_000);
}

#[test]
fn a_state_that_was_found_after_a_cut_is_found_again_after_the_next() {
    for seed in 0..60 {
        let disk = Disk::default();
        let (journal, backend) = new_journal(&disk);
        let mut script = Script::new(seed);
        for _ in 0..60 {
            script.step(&journal, &backend).unwrap();
        }
        journal.flush().unwrap();
        let mut left = disk.after_power_cut(Survives::Nothing);
        // Found, used for a while without a flush, and cut again: what is not flushed must not harm what was.
        for round in 0..3 {
            let journal = Journal::open(Box::new(left.clone()), true).unwrap();
            let backend = journal.backend();
            assert!(script.model.is_held_by(&backend), "seed {seed}, round {round}");
            for slot in (1..SLOTS).filter(|slot| !script.used[*slot]) {
                backend.write((slot * SLOT) as u64, &vec![round; SLOT]).unwrap();
            }
            left = left.after_power_cut(Survives::Some(seed));
        }
    }
}

#[test]
fn closing_brings_everything_home() {
    let disk = Disk::default();
    let (_, backend) = new_journal(&disk);
    backend.write(0, b"header").unwrap();
    backend.write(SLOT as u64, &vec![7; SLOT]).unwrap();
    backend.close().unwrap();
    let home = (RING + RING_BYTES) as usize;
    let bytes = disk.after_power_cut(Survives::Nothing).bytes();
    assert_eq!(&bytes[home..home + 6], b"header");
    assert_eq!(bytes[home + SLOT..home + 2 * SLOT], vec![7; SLOT]);
}

#[test]
fn what_was_cut_off_is_given_back_when_the_journal_is_empty() {
    let disk = Disk::default();
    let (journal, backend) = new_journal(&disk);
    backend.write(0, b"header").unwrap();
    journal.flush().unwrap();
    backend.set_len(SLOT as u64).unwrap();
    assert_eq!(backend.len().unwrap(), SLOT as u64);
    assert!(backend.read(SLOT as u64, &mut [0]).is_err());
    journal.checkpoint().unwrap();
    assert_eq!(disk.bytes().len() as u64, RING + RING_BYTES + SLOT as u64);
}

#[test]
fn after_a_failed_sync_nothing_is_promised_any_more() {
    let disk = Disk::default();
    let (journal, backend) = new_journal(&disk);
    backend.write(0, b"one").unwrap();
    journal.flush().unwrap();
    let syncs = disk.syncs();
    disk.fail_at(0, Fault::SyncFails);
    backend.write(0, b"two").unwrap();
    assert_eq!(journal.flush().unwrap_err().to_string(), "the sync failed");
    for refused in [journal.flush(), journal.checkpoint(), backend.write(0, b"three"), backend.sync_data()] {
        assert_eq!(refused.unwrap_err().to_string(), "an earlier write failed");
    }
    backend.close().unwrap();
    assert_eq!(disk.syncs(), syncs);
    let found = Journal::open(Box::new(disk.after_power_cut(Survives::Nothing)), true).unwrap().backend();
    let mut header = [0; 3];
    found.read(0, &mut header).unwrap();
    assert_eq!(&header, b"one");
}

/// The first bytes of the file and whether the slot is full of `byte`, after a loss of power.
fn found_after(disk: &Disk, survives: Survives, byte: u8) -> (Vec<u8>, bool) {
    let found = Journal::open(Box::new(disk.after_power_cut(survives)), true).unwrap().backend();
    let (mut header, mut slot) = (vec![0; 5], vec![0; SLOT]);
    found.read(0, &mut header).unwrap();
    found.read(SLOT as u64, &mut slot).unwrap();
    (header, slot.iter().all(|found| *found == byte))
}

/// Whatever survives a loss of power now, the file begins with `one..` and slot 1 is full of `byte`.
fn nothing_but_the_first_is_found(disk: &Disk, byte: u8) {
    for survives in [Survives::Nothing, Survives::Everything, Survives::Some(1), Survives::Some(2)] {
        assert_eq!(found_after(disk, survives, byte), (b"one..".to_vec(), true), "{survives:?}");
    }
}

/// Fills `slot` with threes on another thread and looks at what is there once that waits or is done; then `sealed`, which was
/// on its way, lands.
fn write_meanwhile(journal: &Arc<Journal>, mut sealed: Sealed, slot: usize, look: impl FnOnce()) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            journal.backend().write((slot * SLOT) as u64, &vec![3; SLOT]).unwrap();
            done.store(true, Ordering::SeqCst);
            journal.flight.nudge();
        });
        journal.flight.wait_for_waiter(|| done.load(Ordering::SeqCst));
        look();
        sealed.persist().unwrap();
        sealed.settle().unwrap();
        writer.join().unwrap();
    });
}

/// redb gives a page free in the commit that stops referring to it, and the next commit may write there. Until the first
/// of them is durable, the commit before both is the one that is found.
#[test]
fn what_the_record_on_its_way_gave_free_is_not_overwritten_before_it_is_durable() {
    let disk = Disk::default();
    let (journal, backend) = new_journal(&disk);
    backend.write(0, b"one..").unwrap();
    backend.write(SLOT as u64, &vec![1; SLOT]).unwrap();
    journal.checkpoint().unwrap();
    backend.write(0, b"two..").unwrap();
    let sealed = journal.seal().unwrap().unwrap();
    backend.write(0, b"three").unwrap();
    write_meanwhile(&journal, sealed, 1, || nothing_but_the_first_is_found(&disk, 1));
    assert_eq!(found_after(&disk, Survives::Nothing, 1), (b"two..".to_vec(), true));
    journal.flush().unwrap();
    assert_eq!(found_after(&disk, Survives::Nothing, 3), (b"three".to_vec(), true));
}

/// No commit refers to what was never written, so nothing has to land before it is.
#[test]
fn what_nothing_was_written_to_does_not_wait_for_the_record_on_its_way() {
    let disk = Disk::default();
    let (journal, backend) = new_journal(&disk);
    backend.write(0, b"one..").unwrap();
    backend.write(SLOT as u64, &vec![1; SLOT]).unwrap();
    journal.checkpoint().unwrap();
    backend.write(0, b"two..").unwrap();
    let mut sealed = journal.seal().unwrap().unwrap();
    // On this thread, which would wait for itself.
    backend.write(2 * SLOT as u64, &vec![3; SLOT]).unwrap();
    backend.write(0, b"three").unwrap();
    nothing_but_the_first_is_found(&disk, 1);
    sealed.persist().unwrap();
    sealed.settle().unwrap();
    assert_eq!(found_after(&disk, Survives::Nothing, 1), (b"two..".to_vec(), true));
    journal.flush().unwrap();
    assert_eq!(found_after(&disk, Survives::Nothing, 1), (b"three".to_vec(), true));
    let journal = Journal::open(Box::new(disk.after_power_cut(Survives::Nothing)), true).unwrap();
    let mut slot = vec![0; SLOT];
    journal.backend().read(2 * SLOT as u64, &mut slot).unwrap();
    assert_eq!(slot, vec![3; SLOT]);
    // What was written before the opening is not known: all of the file may be in use.
    assert_eq!(journal.state().reached, (SLOT * SLOTS) as u64);
}

/// A process that ended between a record and its sync leaves it to be found, though the medium may not have it.
#[test]
fn what_is_found_after_a_process_ended_survives_the_next_power_cut() {
    let disk = Disk::default();
    let (journal, backend) = new_journal(&disk);
    backend.write(0, b"one..").unwrap();
    journal.flush().unwrap();
    backend.write(0, b"two..").unwrap();
    disk.fail_at(0, Fault::SyncFails);
    journal.flush().unwrap_err();
    disk.fail_at(u64::MAX, Fault::SyncFails);
    assert_eq!(found_after(&disk, Survives::Nothing, 0).0, b"one..");
    let found = Journal::open(Box::new(disk.clone()), true).unwrap().backend();
    let mut header = [0; 5];
    found.read(0, &mut header).unwrap();
    assert_eq!(&header, b"two..");
    assert_eq!(found_after(&disk, Survives::Nothing, 0).0, b"two..");
}

/// The file became shorter in the commit that wrote there; its record counts after the cut only if the page is as it says.
#[test]
fn what_the_last_record_names_behind_the_end_waits_after_an_opening_too() {
    let disk = Disk::default();
    let (journal, backend) = new_journal(&disk);
    backend.write(0, b"one..").unwrap();
    backend.write(5 * SLOT as u64, &vec![5; SLOT]).unwrap();
    backend.set_len(3 * SLOT as u64).unwrap();
    journal.flush().unwrap();
    let disk = disk.after_power_cut(Survives::Nothing);
    let journal = Journal::open(Box::new(disk.clone()), true).unwrap();
    let backend = journal.backend();
    backend.set_len((SLOT * SLOTS) as u64).unwrap();
    backend.write(0, b"two..").unwrap();
    let sealed = journal.seal().unwrap().unwrap();
    write_meanwhile(&journal, sealed, 5, || nothing_but_the_first_is_found(&disk, 0));
    assert_eq!(found_after(&disk, Survives::Nothing, 0).0, b"two..");
}

#[test]
fn a_record_that_is_dropped_takes_the_journal_with_it_and_leaves_nobody_waiting() {
    let disk = Disk::default();
    let (journal, backend) = new_journal(&disk);
    backend.write(0, b"one..").unwrap();
    journal.flush().unwrap();
    backend.write(0, b"two..").unwrap();
    let lost = journal.seal().unwrap().unwrap();
    backend.write(0, b"three").unwrap();
    let mut after = journal.seal().unwrap().unwrap();
    drop(lost);
    assert_eq!(after.persist().unwrap_err().to_string(), "an earlier write failed");
    drop(after);
    for refused in [backend.write(SLOT as u64, &vec![3; SLOT]), journal.flush(), journal.checkpoint()] {
        assert_eq!(refused.unwrap_err().to_string(), "an earlier write failed");
    }
    assert_eq!(found_after(&disk, Survives::Everything, 0).0, b"one..");
}

/// A journal with nothing in it, and a file that begins with `one..`.
fn emptied(disk: &Disk) -> (Arc<Journal>, Backend) {
    let (journal, backend) = new_journal(disk);
    backend.write(0, b"one..").unwrap();
    backend.write(SLOT as u64, &vec![1; SLOT]).unwrap();
    journal.checkpoint().unwrap();
    (journal, backend)
}

#[test]
fn a_seed_is_kept_once_and_for_all_and_in_both_superblocks() {
    let disk = Disk::default();
    let (journal, backend) = emptied(&disk);
    assert_eq!(journal.kept_seed(), None);
    let generation = journal.state().generation;
    journal.keep_seed([7; 8]).unwrap();
    let operations = disk.operations();
    journal.keep_seed([7; 8]).unwrap();
    assert_eq!((journal.kept_seed(), disk.operations()), (Some([7; 8]), operations));
    assert_eq!(journal.state().generation, generation + 1);
    backend.write(0, b"two..").unwrap();
    journal.checkpoint().unwrap();
    let left = disk.after_power_cut(Survives::Nothing).bytes();
    for torn in [None, Some(0), Some(PAGE as usize)] {
        let mut bytes = left.clone();
        if let Some(place) = torn {
            bytes[place + 41] ^= 1;
        }
        let found = Journal::open_remains(Box::new(Disk::holding(bytes))).unwrap();
        assert_eq!(found.kept_seed(), Some([7; 8]), "{torn:?}");
    }
    // A program that does not know it writes superblocks without it.
    for lost in [&[generation + 2][..], &[generation + 1, generation + 2]] {
        let mut bytes = left.clone();
        for generation in lost {
            let place = (generation % 2 * PAGE) as usize;
            let mut superblock = [0; SUPERBLOCK_BYTES];
            superblock.copy_from_slice(&bytes[place..place + SUPERBLOCK_BYTES]);
            let superblock = Superblock::decode(&superblock).unwrap();
            assert_eq!(superblock.generation, *generation);
            let without = Superblock { seed: 0, ..superblock }.encode();
            bytes[place..place + SUPERBLOCK_BYTES].copy_from_slice(&without);
        }
        let found = Journal::open(Box::new(Disk::holding(bytes)), true).unwrap();
        assert_eq!(found.kept_seed(), (lost.len() == 1).then_some([7; 8]));
        found.keep_seed([7; 8]).unwrap();
        assert_eq!(found.kept_seed(), Some([7; 8]));
    }
}

#[test]
fn wherever_the_power_goes_while_a_seed_is_kept_the_file_is_as_before_and_the_seed_right() {
    for at in 0..4 {
        let disk = Disk::default();
        let (journal, _) = emptied(&disk);
        disk.fail_at(disk.operations() + at, Fault::Dead);
        let kept = journal.keep_seed([7; 8]).is_ok();
        // A sync, the superblock, a sync.
        assert_eq!(kept, at == 3);
        for survives in [Survives::Nothing, Survives::Everything, Survives::Some(1), Survives::Some(2)] {
            assert_eq!(found_after(&disk, survives, 1), (b"one..".to_vec(), true), "{at}, {survives:?}");
            let found = Journal::open(Box::new(disk.after_power_cut(survives)), true).unwrap();
            assert!(found.kept_seed().map_or(!kept, |seed| seed == [7; 8]), "{at}, {survives:?}");
        }
    }
}

/// Opens `bytes` after a change and says what is wrong with them.
#[track_caller]
fn refusal(mut bytes: Vec<u8>, change: impl FnOnce(&mut Vec<u8>)) -> String {
    change(&mut bytes);
    let error = Journal::open(Box::new(Disk::holding(bytes)), true).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    error.to_string()
}

#[test]
fn a_damaged_medium_is_refused() {
    let disk = Disk::default();
    let (journal, backend) = new_journal(&disk);
    backend.write(0, b"header").unwrap();
    journal.checkpoint().unwrap();
    backend.write(0, b"later").unwrap();
    journal.flush().unwrap();
    let bytes = disk.bytes();
    assert_eq!(refusal(bytes.clone(), |bytes| bytes[..RING as usize].fill(0)), "it has no superblock");
    assert_eq!(refusal(bytes.clone(), |bytes| bytes.truncate(9_000)), "it is cut short");
    assert_eq!(refusal(bytes.clone(), |bytes| bytes.truncate(bytes.len() - 1)), "it is cut short");
    // Without the second superblock, the first would have its own records count, which are gone.
    let place = Superblock { generation: 2, ring_bytes: 0, len: 0, wal_bytes: 0, seed: 0 }.place() as usize;
    let then = refusal(bytes, |bytes| bytes[place + 9] ^= 1);
    assert_eq!(then, "its newest superblock is damaged");
}

/// What is left of `bytes`: how many are missing, and the file as redb sees it.
fn remains(bytes: &[u8]) -> (u64, Backend) {
    let journal = Journal::open_remains(Box::new(Disk::holding(bytes.to_vec()))).unwrap();
    (journal.missing_bytes(), journal.backend())
}

#[test]
fn what_is_missing_at_the_end_reads_as_zeros_and_what_is_there_as_it_was() {
    let disk = Disk::default();
    let (journal, backend) = new_journal(&disk);
    backend.write(0, b"first.").unwrap();
    journal.checkpoint().unwrap();
    let last = [SLOTS - 2, SLOTS - 1].map(|slot| slot * SLOT);
    for offset in last {
        backend.write(offset as u64, &vec![7; SLOT]).unwrap();
    }
    backend.write(0, b"second").unwrap();
    journal.flush().unwrap();
    let bytes = disk.bytes();
    let read = |backend: &Backend, offset: usize, len: usize| {
        let mut found = vec![9; len];
        backend.read(offset as u64, &mut found).unwrap();
        found
    };
    for missing in [0, 1, 100, SLOT] {
        let (found, backend) = remains(&bytes[..bytes.len() - missing]);
        assert_eq!((found, backend.len().unwrap()), (missing as u64, (SLOT * SLOTS) as u64));
        // The record that names a page of which a part is missing counts: the part was there.
        assert_eq!(read(&backend, 0, 6), b"second", "{missing} bytes are missing");
        assert_eq!(read(&backend, last[0], SLOT), vec![7; SLOT]);
        let end = [vec![7; SLOT - missing], vec![0; missing]].concat();
        assert_eq!(read(&backend, last[1], SLOT), end, "{missing} bytes are missing");
    }
    // It does not count where a page that is there is another one.
    let mut torn = bytes.clone();
    torn[(RING + RING_BYTES) as usize + last[0] + 5] ^= 1;
    let (found, backend) = remains(&torn[..bytes.len() - 1]);
    assert_eq!((found, read(&backend, 0, 6).as_slice()), (1, &b"first."[..]));
    // Down to the superblocks something is found, and nothing that was never written.
    let (found, backend) = remains(&bytes[..RING as usize]);
    assert_eq!((found, read(&backend, 0, 6)), (bytes.len() as u64 - RING, vec![0; 6]));
}
