//! Tests of the vector store: what it keeps, what it cuts, what it refuses.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;

use tempfile::TempDir;

use super::{
    DIMENSIONS, EXTENT_ROWS, HEADER_BYTES, RECORD_BYTES, Slot, StoreError, VECTOR_BYTES, VectorStore,
};
use crate::embedding::{ModelIdentity, Precision};

fn model(digit: char) -> ModelIdentity {
    let weights_sha256 = std::iter::repeat_n(digit, 64).collect();
    ModelIdentity { name: "test".into(), weights_sha256, dimensions: DIMENSIONS, precision: Precision::Fp32 }
}

fn open(dir: &TempDir) -> VectorStore {
    VectorStore::open(dir.path(), &model('a')).unwrap()
}

fn file(dir: &TempDir, extension: &str) -> PathBuf {
    dir.path().join(format!("aaaaaaaaaaaaaaaa.{extension}"))
}

/// The unit vector along axis `axis`.
fn axis(axis: usize) -> Vec<f32> {
    (0..DIMENSIONS).map(|at| if at == axis % DIMENSIONS { 1.0 } else { 0.0 }).collect()
}

/// Puts `count` texts and gives the store back closed.
fn filled(count: usize, sync: bool) -> TempDir {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    for number in 0..count {
        assert_eq!(store.put(&format!("text {number}"), &axis(number)).unwrap(), Slot(number as u32));
    }
    if sync {
        store.sync().unwrap();
    }
    dir
}

#[track_caller]
fn holds(store: &VectorStore, number: usize) -> bool {
    let slot = store.get_slot(&format!("text {number}"));
    let vector = slot.and_then(|slot| store.vector(slot));
    if let Some(vector) = vector {
        assert_eq!(vector.to_vec(), axis(number));
    }
    vector.is_some()
}

#[test]
fn vectors_of_different_precisions_never_meet() {
    let dir = TempDir::new().unwrap();
    let precisions = [Precision::Fp32, Precision::Fp16, Precision::Int8];
    let stores = precisions
        .map(|precision| VectorStore::open(dir.path(), &ModelIdentity { precision, ..model('a') }).unwrap());
    for (number, store) in stores.iter().enumerate() {
        assert_eq!(store.get_slot("the same text"), None, "precision {number}");
        store.put("the same text", &axis(number)).unwrap();
    }
    for (number, store) in stores.iter().enumerate() {
        let slot = store.get_slot("the same text").unwrap();
        assert_eq!(store.vector(slot).unwrap().to_vec(), axis(number), "precision {number}");
    }
    assert!(file(&dir, "keys").exists(), "vectors of 32 bits lie where they always did");
}

#[test]
fn a_vector_is_found_by_its_text_now_and_after_reopening() {
    let dir = filled(5, false);
    let store = open(&dir);
    assert_eq!((store.len(), store.opened().vectors, store.opened().cut), (5, 5, 0));
    assert!((0..5).all(|number| holds(&store, number)));
    assert_eq!(store.get_slot("text 5"), None);
    assert_eq!(store.put("text 3", &axis(9)).unwrap(), Slot(3), "the first vector of a text stays");
    assert_eq!(store.put("text 5", &axis(5)).unwrap(), Slot(5));
}

#[test]
fn a_view_reads_across_the_end_of_a_mapping() {
    let dir = filled(EXTENT_ROWS + 3, false);
    let store = open(&dir);
    let view = store.view();
    for number in [0, EXTENT_ROWS - 1, EXTENT_ROWS, EXTENT_ROWS + 2] {
        assert_eq!(view.vector(Slot(number as u32)).unwrap().to_vec(), axis(number));
    }
    assert!(view.vector(Slot(2 * EXTENT_ROWS as u32)).is_none());
}

#[test]
fn a_torn_tail_is_cut_at_every_byte_of_the_last_record() {
    for lost in 1..=RECORD_BYTES {
        let dir = filled(3, false);
        let keys = fs::read(file(&dir, "keys")).unwrap();
        fs::write(file(&dir, "keys"), &keys[..keys.len() - lost]).unwrap();
        let store = open(&dir);
        assert_eq!(store.len(), 2, "{lost} bytes lost");
        assert!(holds(&store, 0) && holds(&store, 1) && !holds(&store, 2));
        assert_eq!(store.put("text 2", &axis(2)).unwrap(), Slot(2));
        drop(store);
        assert_eq!((open(&dir).len(), open(&dir).opened().cut), (3, 0));
    }
}

#[test]
fn vectors_that_never_reached_the_disk_are_cut() {
    for (kept, then) in [(3, 3), (2, 2), (0, 0)] {
        let dir = filled(3, false);
        let mut vectors = fs::read(file(&dir, "vecs")).unwrap();
        vectors[kept * VECTOR_BYTES..].fill(0);
        fs::write(file(&dir, "vecs"), vectors).unwrap();
        let store = open(&dir);
        assert_eq!((store.len(), store.opened().cut), (then, 3 - then));
    }
}

#[test]
fn a_missing_file_of_vectors_means_an_empty_store() {
    let dir = filled(3, true);
    fs::remove_file(file(&dir, "vecs")).unwrap();
    let store = open(&dir);
    assert_eq!((store.len(), store.opened().cut), (0, 3));
    assert_eq!(store.put("text 0", &axis(0)).unwrap(), Slot(0));
}

#[test]
fn any_flipped_bit_of_a_record_loses_that_text_and_no_other() {
    let start = HEADER_BYTES + RECORD_BYTES;
    for bit in 0..RECORD_BYTES * 8 {
        let dir = filled(3, true);
        let mut keys = fs::read(file(&dir, "keys")).unwrap();
        keys[start + bit / 8] ^= 1 << (bit % 8);
        fs::write(file(&dir, "keys"), keys).unwrap();
        let store = open(&dir);
        assert_eq!((store.len(), store.opened().damaged), (3, 1), "bit {bit}");
        assert!(holds(&store, 0) && !holds(&store, 1) && holds(&store, 2), "bit {bit}");
        store.put("text 1", &axis(1)).unwrap();
        drop(store);
        assert!(holds(&open(&dir), 1), "bit {bit}");
    }
}

#[test]
fn a_damaged_vector_is_not_handed_out_and_can_be_replaced() {
    let dir = filled(3, true);
    let mut vectors = fs::read(file(&dir, "vecs")).unwrap();
    vectors[VECTOR_BYTES + 7] ^= 1;
    fs::write(file(&dir, "vecs"), vectors).unwrap();
    let store = open(&dir);
    assert!(!holds(&store, 1));
    assert_eq!(store.put("text 1", &axis(1)).unwrap(), Slot(3));
    assert!(holds(&store, 1));
    drop(store);
    assert!(holds(&open(&dir), 1), "the later record counts");
}

#[test]
fn vectors_that_are_checked_together_are_those_that_are_checked_alone() {
    let dir = filled(70, true);
    let mut vectors = fs::read(file(&dir, "vecs")).unwrap();
    for damaged in [0, 17, 31, 69] {
        vectors[damaged * VECTOR_BYTES + damaged] ^= 4;
    }
    fs::write(file(&dir, "vecs"), vectors).unwrap();
    let store = open(&dir);
    let slots: Vec<Option<Slot>> =
        (0..100).rev().map(|slot| (slot % 7 != 3).then_some(Slot(slot))).chain([None]).collect();
    for count in [0, 1, 15, 16, 17, slots.len()] {
        let mut together = vec![None; count];
        store.each_vector(&slots[..count], |number, vector| {
            assert!(together[number].replace(*vector).is_none(), "given once");
        });
        let alone: Vec<_> = slots[..count].iter().map(|slot| store.vector((*slot)?)).collect();
        assert!(together == alone, "{count} slots");
    }
    assert!(store.vector(Slot(17)).is_none() && store.vector(Slot(18)).is_some());
}

#[test]
fn files_with_a_damaged_header_are_set_aside() {
    for byte in 0..HEADER_BYTES {
        let dir = filled(2, true);
        let mut keys = fs::read(file(&dir, "keys")).unwrap();
        keys[byte] ^= 1;
        fs::write(file(&dir, "keys"), &keys).unwrap();
        let store = open(&dir);
        assert_eq!(store.len(), 0, "byte {byte}");
        let aside = store.opened().set_aside.clone().unwrap();
        assert_eq!(fs::read(aside).unwrap(), keys);
        assert!(file(&dir, "vecs.damaged").exists(), "nobody would know what lies in it");
        store.put("text 0", &axis(0)).unwrap();
        drop(store);
        assert!(holds(&open(&dir), 0));
    }
}

#[test]
fn another_model_has_files_of_its_own() {
    let dir = filled(2, true);
    let other = VectorStore::open(dir.path(), &model('b')).unwrap();
    assert!(other.is_empty());
    other.put("text 0", &axis(7)).unwrap();
    assert!(holds(&open(&dir), 0));
}

#[test]
fn only_unit_vectors_are_stored() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    let mut nan = axis(0);
    nan[3] = f32::NAN;
    let mut infinite = axis(0);
    infinite[3] = f32::INFINITY;
    for vector in
        [vec![0.0; DIMENSIONS], vec![1.0; DIMENSIONS], nan, infinite, axis(0)[1..].to_vec(), Vec::new()]
    {
        assert!(matches!(store.put("text", &vector), Err(StoreError::Vector { .. })), "{vector:?}");
    }
    assert!(store.is_empty() && store.get_slot("text").is_none());
}

#[test]
fn a_model_this_build_cannot_store_is_refused() {
    let dir = TempDir::new().unwrap();
    let narrow = ModelIdentity { dimensions: 100, ..model('a') };
    assert!(matches!(
        VectorStore::open(dir.path(), &narrow),
        Err(StoreError::Dimensions { dimensions: 100, .. })
    ));
    for text in ["", "abc", &"g".repeat(64), &"é".repeat(32)] {
        let nameless = ModelIdentity { weights_sha256: text.into(), ..model('a') };
        assert!(
            matches!(VectorStore::open(dir.path(), &nameless), Err(StoreError::Identity { .. })),
            "{text:?}"
        );
    }
}

#[test]
fn the_digest_tells_whether_slots_still_mean_the_same() {
    let (dir, same) = (filled(3, true), filled(4, true));
    let (store, longer) = (open(&dir), open(&same));
    assert_eq!(store.digest(3), longer.digest(3));
    assert_ne!(store.digest(2), store.digest(3));
    assert_eq!(store.digest(4), None);
}

#[test]
fn vectors_behind_the_last_record_go_with_those_that_are_not_kept() {
    let dir = filled(4, true);
    let keys = fs::read(file(&dir, "keys")).unwrap();
    fs::write(file(&dir, "keys"), &keys[..keys.len() - 1]).unwrap();
    let store = open(&dir);
    assert_eq!(store.len(), 3);
    store.keep_only(&HashSet::from([Slot(1)])).unwrap();
    let vectors = fs::read(file(&dir, "vecs")).unwrap();
    let is_empty = |bytes: &[u8]| bytes.iter().all(|byte| *byte == 0);
    assert!(is_empty(&vectors[..VECTOR_BYTES]) && is_empty(&vectors[2 * VECTOR_BYTES..]));
    assert!(holds(&store, 1) && !holds(&store, 3));
    store.put("text 3", &axis(3)).unwrap();
    drop(store);
    assert!(holds(&open(&dir), 1) && holds(&open(&dir), 3));
}

#[test]
fn what_takes_the_place_of_lost_records_is_synced_and_verified_as_any_other() {
    let dir = filled(3, true);
    let synced = || fs::read(file(&dir, "keys")).unwrap()[48..52].to_vec();
    assert_eq!(synced(), 3_u32.to_le_bytes());
    let keys = fs::read(file(&dir, "keys")).unwrap();
    fs::write(file(&dir, "keys"), &keys[..keys.len() - RECORD_BYTES]).unwrap();
    let store = open(&dir);
    assert_eq!((store.len(), synced()), (2, 2_u32.to_le_bytes().to_vec()));
    store.put("text 2", &axis(2)).unwrap();
    drop(store);
    // Its vector never reached the disk.
    let mut vectors = fs::read(file(&dir, "vecs")).unwrap();
    vectors[2 * VECTOR_BYTES..].fill(0);
    fs::write(file(&dir, "vecs"), vectors).unwrap();
    let store = open(&dir);
    assert_eq!((store.len(), store.opened().cut), (2, 1));
    store.put("text 2", &axis(2)).unwrap();
    store.sync().unwrap();
    assert_eq!(synced(), 3_u32.to_le_bytes());
}

#[test]
fn what_is_taken_out_goes_in_runs_and_what_stays_stays() {
    let count = 1_500;
    let dir = filled(count, true);
    let stays = |number: usize| [0, 5, 1_400].contains(&number);
    let keep: HashSet<Slot> = (0..count).filter(|&n| stays(n)).map(|n| Slot(n as u32)).collect();
    let store = open(&dir);
    store.keep_only(&keep).unwrap();
    let digest = store.digest(count);
    let vectors = fs::read(file(&dir, "vecs")).unwrap();
    for (number, vector) in vectors.chunks(VECTOR_BYTES).take(count).enumerate() {
        assert_eq!(vector.iter().any(|byte| *byte != 0), stays(number), "{number}");
        assert_eq!(holds(&store, number), stays(number), "{number}");
        assert_eq!(store.get_slot(&format!("text {number}")).is_some(), stays(number), "{number}");
    }
    drop(store);
    let store = open(&dir);
    assert_eq!((store.len(), store.opened().damaged, store.opened().cut), (count, 0, 0));
    assert_eq!((store.opened().vectors, store.digest(count)), (keep.len(), digest));
}

#[test]
fn what_was_emptied_once_is_left_alone_and_what_is_damaged_is_emptied() {
    let dir = filled(4, true);
    let mut keys = fs::read(file(&dir, "keys")).unwrap();
    keys[HEADER_BYTES + RECORD_BYTES] ^= 1;
    fs::write(file(&dir, "keys"), keys).unwrap();
    // Nobody but this test writes to a slot that was emptied: what it wrote stays where the slot is left alone.
    let write = |slot: usize| {
        let vectors = fs::File::options().write(true).open(file(&dir, "vecs")).unwrap();
        vectors.write_all_at(&[7; VECTOR_BYTES], (slot * VECTOR_BYTES) as u64).unwrap();
    };
    let left = || {
        let vectors = fs::read(file(&dir, "vecs")).unwrap();
        [0, 1, 2].map(|slot| vectors[slot * VECTOR_BYTES..][..VECTOR_BYTES].iter().any(|byte| *byte != 0))
    };
    let store = open(&dir);
    assert_eq!(store.opened().damaged, 1);
    store.keep_only(&HashSet::from([Slot(2), Slot(3)])).unwrap();
    assert_eq!(left(), [false, false, true]);
    write(0);
    store.keep_only(&HashSet::from([Slot(3)])).unwrap();
    assert_eq!(left(), [true, false, false], "in the same process");
    drop(store);
    write(1);
    let store = open(&dir);
    store.keep_only(&HashSet::from([Slot(3)])).unwrap();
    assert_eq!(left(), [true, true, false], "and in the next one");
    assert!(holds(&store, 3));
}

#[test]
fn many_writers_and_readers_see_whole_vectors() {
    let dir = TempDir::new().unwrap();
    let store = open(&dir);
    std::thread::scope(|scope| {
        for worker in 0..4 {
            let store = store.clone();
            scope.spawn(move || {
                for number in 0..500 {
                    let number = (number * 7 + worker * 100) % 500;
                    store.put(&format!("text {number}"), &axis(number)).unwrap();
                    assert!(holds(&store, number));
                }
            });
        }
    });
    assert_eq!(store.len(), 500);
}
