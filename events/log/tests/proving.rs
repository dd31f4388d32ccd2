//! Proofs: those of the definition, wherever events lie; refused when anything about them changes.

use proptest::prelude::{any, prop, proptest};
use proptest::test_runner::TestCaseError;

use super::disk::Disk;
use super::{append, batch, clock, options, until_merged};
use crate::log::block::ENTRY_BYTES;
use crate::log::blocks::Value;
use crate::log::chain::tests::tree_head;
use crate::log::chain::{Tag, hash, leaf, node};
use crate::log::header::Header;
use crate::log::pack::ChainEnd;
use crate::log::sealing::KeyRing;
use crate::log::verify::{Findings, verify_block};
use crate::log::{
    Batch, ConsistencyProof, Found, Hash, Head, InclusionProof, Log, LogOptions, ProofError, Reader,
    StoredEvent, blocks,
};
use crate::{Seq, Timestamp};

/// PATH(m, D[n]) of RFC 6962 §2.1.1, word for word.
fn path(m: usize, d: &[Hash]) -> Vec<Hash> {
    if d.len() == 1 {
        return Vec::new();
    }
    let k = d.len().next_power_of_two() / 2;
    let (mut path, other) = if m < k {
        (path(m, &d[..k]), tree_head(&d[k..]))
    } else {
        (path(m - k, &d[k..]), tree_head(&d[..k]))
    };
    path.push(other);
    path
}

/// SUBPROOF(m, D[n], b) of RFC 6962 §2.1.2, word for word.
fn subproof(m: usize, d: &[Hash], b: bool) -> Vec<Hash> {
    if m == d.len() {
        return if b { Vec::new() } else { vec![tree_head(d)] };
    }
    let k = d.len().next_power_of_two() / 2;
    let (mut proof, other) = if m <= k {
        (subproof(m, &d[..k], b), tree_head(&d[k..]))
    } else {
        (subproof(m - k, &d[k..], false), tree_head(&d[..k]))
    };
    proof.push(other);
    proof
}

/// A log of `count` events in batches whose sizes go round, each a block of its own where nothing brings them together.
fn log_of(count: usize, sizes: &[usize], options: LogOptions) -> Log {
    let log = Log::open_on(Disk::default(), options, clock()).unwrap();
    let (mut written, mut sizes) = (0, sizes.iter().cycle());
    while written < count {
        let size = (*sizes.next().unwrap()).min(count - written);
        let texts: Vec<String> = (written..written + size).map(|n| format!("event {n}")).collect();
        append(&log, batch("s", &texts.iter().map(String::as_str).collect::<Vec<_>>()));
        written += size;
    }
    log
}

fn apart() -> LogOptions {
    LogOptions { merge_blocks: false, wal_group_bytes_max: 0, ..options() }
}

fn leaves_of(reader: &Reader) -> Vec<Hash> {
    (1..=reader.head().seq.0).map(|seq| reader.stored_event(Seq(seq)).unwrap().leaf()).collect()
}

/// Every proof over trees of these sizes is that of the definition, and holds.
#[track_caller]
fn check(log: &Log, sizes: impl Iterator<Item = usize>) {
    let reader = log.reader();
    let leaves = leaves_of(&reader);
    let heads: Vec<Head> = (0..=leaves.len()).map(|size| reader.head_at(size as u64).unwrap()).collect();
    assert_eq!(heads.last(), Some(&reader.head()));
    for size in sizes {
        let tree = &leaves[..size];
        assert_eq!(heads[size].root, tree_head(tree));
        for (index, leaf) in tree.iter().enumerate() {
            let (seq, what) = (Seq(index as u64 + 1), format!("#{} of {size}", index + 1));
            let proof = reader.prove_inclusion(seq, size as u64).unwrap();
            let then = InclusionProof { seq, size: size as u64, path: path(index, tree) };
            assert_eq!(proof, then, "{what}");
            assert_eq!(proof.check(leaf, &heads[size]), Ok(()), "{what}");
        }
        for (from, head) in heads[..=size].iter().enumerate() {
            let proof = reader.prove_consistency(from as u64, size as u64).unwrap();
            let path = if from == 0 { Vec::new() } else { subproof(from, tree, true) };
            assert_eq!(
                proof,
                ConsistencyProof { from: from as u64, to: size as u64, path },
                "{from} in {size}"
            );
            assert_eq!(proof.check(head, &heads[size]), Ok(()), "{from} in {size}");
        }
    }
}

#[test]
fn every_proof_of_small_trees_is_that_of_the_definition() {
    for sizes in [&[1][..], &[2, 1], &[3, 7, 1, 5], &[40], &[64, 1, 1]] {
        check(&log_of(66, sizes, apart()), 1..=66);
    }
}

#[test]
fn proofs_of_larger_trees_are_those_of_the_definition() {
    let log = log_of(300, &[1, 2, 3, 5, 8, 13, 64], apart());
    check(&log, [67, 100, 127, 128, 129, 192, 255, 256, 257, 299, 300].into_iter());
}

#[test]
fn events_in_the_write_ahead_log_are_proved_like_others() {
    // Some have gone into the store, the last ones not yet.
    let log = log_of(70, &[1, 4, 2], options());
    assert!(log.reader().stats().unwrap().blocks > 3);
    check(&log, [1, 2, 33, 64, 69, 70].into_iter());
}

#[test]
fn merging_blocks_changes_no_proof() {
    let log = log_of(150, &[1], LogOptions { wal_group_bytes_max: 0, ..options() });
    let reader = log.reader();
    let before: Vec<InclusionProof> =
        (1..=150).map(|seq| reader.prove_inclusion(Seq(seq), 150).unwrap()).collect();
    append(&log, batch("s", &["another"]));
    until_merged(&log, 150);
    for proof in before {
        assert_eq!(reader.prove_inclusion(proof.seq, 150).unwrap(), proof);
    }
}

#[test]
fn a_proof_reads_a_few_blocks_and_says_what_is_not_there() {
    let log = log_of(10, &[3], apart());
    let reader = log.reader();
    let said = |error: crate::log::ProveError| error.to_string();
    let beyond = |asked, size| {
        format!("#{asked} is not among the first {size} events; choose a position from 1 to {size}")
    };
    assert_eq!(reader.prove_inclusion(Seq(0), 10).map_err(said), Err(beyond(0, 10)));
    assert_eq!(reader.prove_inclusion(Seq(6), 5).map_err(said), Err(beyond(6, 5)));
    assert_eq!(reader.prove_inclusion(Seq(6), 11).map_err(said), Err(beyond(11, 10)));
    assert_eq!(reader.prove_consistency(6, 5).map_err(said), Err(beyond(6, 5)));
    assert_eq!(reader.prove_consistency(5, 11).map_err(said), Err(beyond(11, 10)));
    assert_eq!(reader.stored_event(Seq(11)).map_err(said), Err(beyond(11, 10)));
    assert_eq!(reader.head_at(11).map_err(said), Err(beyond(11, 10)));
    let empty = log_of(0, &[1], apart());
    assert_eq!(empty.reader().head_at(0).unwrap(), empty.reader().head());
    assert_eq!(empty.reader().prove_inclusion(Seq(1), 0).map_err(said), Err(beyond(0, 0)));
}

/// An event, its proof, the head it is under, and the head at 77 with the proof from there.
fn proved() -> (StoredEvent, InclusionProof, Head, Head, ConsistencyProof) {
    let log = log_of(211, &[1, 2, 30], apart());
    let reader = log.reader();
    let seq = Seq(100);
    (
        reader.stored_event(seq).unwrap(),
        reader.prove_inclusion(seq, 211).unwrap(),
        reader.head(),
        reader.head_at(77).unwrap(),
        reader.prove_consistency(77, 211).unwrap(),
    )
}

fn flip(hash: &mut Hash, bit: usize) {
    hash.0[bit / 8] ^= 1 << (bit % 8);
}

#[test]
fn a_flipped_bit_of_a_proof_an_event_or_a_head_is_refused() {
    let (event, proof, head, ..) = proved();
    let leaf = event.leaf();
    assert_eq!(proof.check(&leaf, &head), Ok(()));
    for index in 0..proof.path.len() {
        for bit in 0..256 {
            let mut flipped = proof.clone();
            flip(&mut flipped.path[index], bit);
            assert!(matches!(flipped.check(&leaf, &head), Err(ProofError::Root { .. })));
        }
    }
    for bit in 0..64 {
        for changed in [
            InclusionProof { seq: Seq(proof.seq.0 ^ 1 << bit), ..proof.clone() },
            InclusionProof { size: proof.size ^ 1 << bit, ..proof.clone() },
        ] {
            assert!(changed.check(&leaf, &head).is_err(), "{changed:?}");
        }
        let seq = Seq(event.seq.0 ^ 1 << bit);
        let at = Timestamp::from_unix_micros(event.recorded_at.unix_micros() ^ 1 << bit);
        let changed_head = Head { seq: Seq(head.seq.0 ^ 1 << bit), ..head };
        assert!(proof.check(&StoredEvent { seq, ..event.clone() }.leaf(), &head).is_err());
        assert!(proof.check(&StoredEvent { recorded_at: at, ..event.clone() }.leaf(), &head).is_err());
        assert!(proof.check(&leaf, &changed_head).is_err());
    }
    for bit in 0..256 {
        let mut changed = head;
        flip(&mut changed.root, bit);
        assert!(proof.check(&leaf, &changed).is_err());
    }
    for bit in 0..32 {
        let mut tag = event.tag.bytes();
        tag[bit / 8] ^= 1 << (bit % 8);
        let tag = Tag { kind: tag[0], version: tag[1], flags: u16::from_le_bytes([tag[2], tag[3]]) };
        assert!(proof.check(&StoredEvent { tag, ..event.clone() }.leaf(), &head).is_err());
    }
    for bit in 0..event.bytes.len() * 8 {
        let mut changed = event.clone();
        changed.bytes[bit / 8] ^= 1 << (bit % 8);
        assert!(proof.check(&changed.leaf(), &head).is_err());
    }
}

#[test]
fn a_flipped_bit_of_a_consistency_proof_or_its_heads_is_refused() {
    let (_, _, later, earlier, proof) = proved();
    assert_eq!(proof.check(&earlier, &later), Ok(()));
    for index in 0..proof.path.len() {
        for bit in 0..256 {
            let mut flipped = proof.clone();
            flip(&mut flipped.path[index], bit);
            assert!(flipped.check(&earlier, &later).is_err());
        }
    }
    for bit in 0..256 {
        let (mut changed_earlier, mut changed_later) = (earlier, later);
        flip(&mut changed_earlier.root, bit);
        flip(&mut changed_later.root, bit);
        assert!(matches!(proof.check(&changed_earlier, &later), Err(ProofError::EarlierRoot { .. })));
        assert!(matches!(proof.check(&earlier, &changed_later), Err(ProofError::LaterRoot { .. })));
    }
    for bit in 0..64 {
        let changed_from = ConsistencyProof { from: proof.from ^ 1 << bit, ..proof.clone() };
        let changed_to = ConsistencyProof { to: proof.to ^ 1 << bit, ..proof.clone() };
        assert!(changed_from.check(&earlier, &later).is_err() && changed_to.check(&earlier, &later).is_err());
    }
}

#[test]
fn a_path_of_another_length_is_refused() {
    let (event, proof, head, earlier, consistency) = proved();
    let (mut short, mut long) = (proof.clone(), proof);
    short.path.pop();
    long.path.push(Hash::default());
    let (found, expected) = (short.path.len(), short.path.len() + 1);
    assert_eq!(short.check(&event.leaf(), &head), Err(ProofError::Length { found, expected }));
    assert_eq!(long.check(&event.leaf(), &head), Err(ProofError::Length { found: expected + 1, expected }));
    let mut short = consistency.clone();
    short.path.pop();
    assert!(matches!(short.check(&earlier, &head), Err(ProofError::Length { .. })));
    // Nothing is all there is to say about the empty log and about a log and itself.
    let empty = Head { root: hash(&[]), ..Head::default() };
    let nothing = |from, to| ConsistencyProof { from, to, path: Vec::new() };
    assert_eq!(nothing(0, 211).check(&empty, &head), Ok(()));
    assert!(nothing(0, 211).check(&Head::default(), &head).is_err());
    assert_eq!(nothing(211, 211).check(&head, &head), Ok(()));
    assert!(nothing(211, 211).check(&head, &Head { root: earlier.root, ..head }).is_err());
    assert!(nothing(77, 211).check(&earlier, &head).is_err());
}

#[test]
fn a_log_without_with_another_or_with_reordered_events_has_another_root() {
    let events: Vec<StoredEvent> = {
        let log = log_of(20, &[7], apart());
        let reader = log.reader();
        (1..=20).map(|seq| reader.stored_event(Seq(seq)).unwrap()).collect()
    };
    let root = |events: &[StoredEvent]| {
        // Who writes a log anew numbers it without gaps.
        let placed =
            events.iter().zip(1..).map(|(event, seq)| StoredEvent { seq: Seq(seq), ..event.clone() });
        tree_head(&placed.map(|event| event.leaf()).collect::<Vec<_>>())
    };
    let truth = root(&events);
    for at in 0..20 {
        let mut removed = events.clone();
        removed.remove(at);
        let mut replaced = events.clone();
        replaced[at].bytes = b"another".to_vec();
        let mut reordered = events.clone();
        reordered.swap(at, (at + 1) % 20);
        for changed in [removed, replaced, reordered] {
            assert_ne!(root(&changed), truth, "{at}");
        }
    }
}

#[test]
fn an_event_whose_kind_was_rewritten_with_every_checksum_is_found() {
    let log = log_of(1, &[1], apart());
    let snapshot = log.reader().snapshot().unwrap();
    let mut headers = snapshot.headers_from(Seq::FIRST).unwrap();
    let (first, value) = blocks::next_header(&mut headers, false).unwrap().unwrap();
    let header = blocks::read_header(first, &value).unwrap();
    let body = snapshot.body(first).unwrap();
    let truth = body.value()[12];
    for kind in 0..=u8::MAX {
        let mut forged = body.value().to_vec();
        forged[12] = kind;
        let header = Header { entries_hash: hash(&forged[..ENTRY_BYTES]), ..header.clone() };
        let checked = verify_block(
            &header,
            &Value::Owned(forged.into()),
            &mut ChainEnd::default(),
            &KeyRing::default(),
            &mut Findings::default(),
        );
        assert_eq!(checked.is_ok(), kind == truth, "{kind}");
    }
}

#[test]
fn stored_events_read_back_compressed_or_not() {
    let log =
        Log::open_on(Disk::default(), LogOptions { compress_above: Some(50), ..apart() }, clock()).unwrap();
    append(&log, Batch::of(vec![super::draft("s", "x"), super::draft("s", &"long ".repeat(100))]));
    let reader = log.reader();
    let records = super::records(&reader);
    let stored: Vec<StoredEvent> = (1..=2).map(|seq| reader.stored_event(Seq(seq)).unwrap()).collect();
    assert_eq!(stored.iter().map(|event| event.tag.flags).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(
        stored.iter().map(|event| event.found().unwrap()).collect::<Vec<_>>(),
        records.into_iter().map(Found::Record).collect::<Vec<_>>()
    );
    let cut = StoredEvent { bytes: stored[1].bytes[..3].to_vec(), ..stored[1].clone() };
    assert_eq!(cut.found().unwrap_err().to_string(), "a compressed event is cut short");
}

proptest! {
    /// Whatever a proof says, checking it ends, and it holds for nothing but what it was made for.
    #[test]
    fn arbitrary_proofs_never_hold_nor_panic(
        seq in any::<u64>(),
        size in any::<u64>(),
        from in any::<u64>(),
        path in prop::collection::vec(any::<[u8; 32]>(), 0..70),
    ) {
        let path: Vec<Hash> = path.into_iter().map(Hash).collect();
        let head = |size| Head { seq: Seq(size), root: Hash([7; 32]), ..Head::default() };
        let inclusion = InclusionProof { seq: Seq(seq), size, path: path.clone() };
        let consistency = ConsistencyProof { from, to: size, path };
        if inclusion.check(&Hash([1; 32]), &head(size)).is_ok() {
            return Err(TestCaseError::fail("a path that leads nowhere holds"));
        }
        if from != size && consistency.check(&head(from), &head(size)).is_ok() {
            return Err(TestCaseError::fail("a path that leads nowhere holds"));
        }
    }

    /// A proof with the right number of hashes holds only if they are the right ones.
    #[test]
    fn a_proof_holds_for_its_leaf_and_its_place_alone(index in 0_usize..40, other in 0_usize..40, size in 1_usize..40) {
        let leaves: Vec<Hash> = (0..size as u64)
            .map(|n| leaf(Seq(n + 1), Timestamp::EPOCH, Tag::default(), &hash(&n.to_le_bytes())))
            .collect();
        let (index, other) = (index % size, other % size);
        let head = Head { seq: Seq(size as u64), root: tree_head(&leaves), ..Head::default() };
        let place = |at: usize| Seq(at as u64 + 1);
        let proof = InclusionProof { seq: place(index), size: size as u64, path: path(index, &leaves) };
        assert_eq!(proof.check(&leaves[other], &head).is_ok(), index == other);
        let moved = InclusionProof { seq: place(other), ..proof };
        assert_eq!(moved.check(&leaves[index], &head).is_ok(), index == other);
        // An inner node is no leaf.
        if size > 1 {
            let inner = node(&leaves[0], &leaves[1]);
            let above = InclusionProof { seq: Seq(1), size: size as u64, path: path(0, &leaves)[1..].to_vec() };
            assert!(above.check(&inner, &head).is_err());
        }
    }
}
