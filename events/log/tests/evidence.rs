//! What an auditor takes away: it is checked without the log, and whatever is changed in it is named.

use super::disk::Disk;
use super::{append, batch, clock, options};
use crate::log::{Evidence, EvidenceError, Found, Growth, Hash, Log, Signer};
use crate::{Seq, Timestamp};

fn signer() -> Signer {
    Signer::new([7; 16], &[1; 32])
}

fn log_of(count: u64) -> Log {
    let log = Log::open_on(Disk::default(), options(), clock()).unwrap();
    for n in 1..=count {
        append(&log, batch("s", &[&format!("event {n}")]));
    }
    log
}

fn evidence() -> Evidence {
    log_of(11).reader().evidence(Seq(7), 11, &signer()).unwrap()
}

fn growth() -> Growth {
    log_of(11).reader().growth(6, 11, &signer()).unwrap()
}

/// What the error and its source say.
fn said(error: &EvidenceError) -> String {
    let source = std::error::Error::source(error);
    source.map_or_else(|| error.to_string(), |source| format!("{error}: {source}"))
}

#[track_caller]
fn check(change: impl FnOnce(&mut Evidence), then: &str) {
    let mut changed = evidence();
    change(&mut changed);
    let error = said(&changed.check(Some(&signer().public_key())).unwrap_err());
    assert!(error.starts_with(then), "{error}");
}

#[test]
fn an_event_its_proof_and_a_signed_head_need_nothing_else() {
    let log = log_of(11);
    let evidence = log.reader().evidence(Seq(7), 9, &signer()).unwrap();
    let record = super::records(&log.reader()).remove(6);
    drop(log);
    let text = serde_json::to_string(&evidence).unwrap();
    let read: Evidence = serde_json::from_str(&text).unwrap();
    assert_eq!(read, evidence);
    assert_eq!(read.check(Some(&signer().public_key())).unwrap(), Found::Record(record.clone()));
    assert_eq!(read.check(None).unwrap(), Found::Record(record));
}

#[test]
fn what_was_changed_is_named() {
    let head = "the signed head is wrong: the signature does not match the checkpoint";
    check(|it| it.checkpoint.checkpoint.head.seq = Seq(12), head);
    check(|it| it.checkpoint.checkpoint.head.root = Hash([1; 32]), head);
    check(|it| it.checkpoint.checkpoint.head.recorded_at = Timestamp::EPOCH, head);
    let other = Signer::new([7; 16], &[2; 32]);
    check(
        |it| {
            it.checkpoint = other.sign(it.checkpoint.checkpoint.head);
            it.public_key = other.public_key();
        },
        "it names the key caxton/log/07070707070707070707070707070707+",
    );
    check(
        |it| it.checkpoint = other.sign(it.checkpoint.checkpoint.head),
        "the signed head is wrong: the checkpoint is not signed by the key",
    );
    let content = "the content of #7 is not what was recorded: its bytes have the hash ";
    check(|it| it.event.bytes[5] ^= 1, content);
    check(|it| it.event.bytes = b"another".to_vec(), content);
    check(|it| it.body_hash = Hash([1; 32]), content);
    let place = "the position, the time or the kind of #7 is not what was recorded";
    check(|it| it.event.recorded_at = Timestamp::EPOCH, place);
    check(|it| it.event.tag.kind += 1, place);
    check(|it| it.event.tag.version += 1, place);
    check(|it| it.event.tag.flags ^= 1, place);
    check(|it| it.leaf = Hash([1; 32]), place);
    check(|it| it.event.seq = Seq(8), "the position, the time or the kind of #8 is not what was recorded");
    let path = "the path is wrong, or it is that of another event: ";
    check(|it| it.path[0] = Hash([1; 32]), path);
    check(|it| it.path.swap(0, 1), path);
    check(|it| it.path.truncate(3), &format!("{path}the path has 3 hashes, in its place it has 4"));
    // An event that was never recorded, with everything that follows from it.
    check(
        |it| {
            it.event.bytes = b"another".to_vec();
            it.body_hash = it.event.body_hash();
            it.leaf = it.event.leaf();
        },
        path,
    );
}

#[test]
fn no_bit_of_a_proof_as_text_can_change_unseen() {
    let texts = [serde_json::to_string(&evidence()).unwrap(), serde_json::to_string(&growth()).unwrap()];
    let key = signer().public_key();
    for text in texts {
        for bit in 0..text.len() * 8 {
            let mut flipped = text.clone().into_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let refused = match serde_json::from_slice::<Evidence>(&flipped) {
                // A time may be written with a small t or z: it is the same time.
                Ok(read) => read == evidence() || read.check(Some(&key)).is_err(),
                Err(_) => serde_json::from_slice::<Growth>(&flipped)
                    .map_or(true, |read| read.check(Some(&key)).is_err()),
            };
            assert!(refused, "{}", String::from_utf8_lossy(&flipped));
        }
    }
}

#[test]
fn a_log_that_grew_is_shown_to_have_only_grown() {
    let growth = growth();
    let read: Growth = serde_json::from_str(&serde_json::to_string(&growth).unwrap()).unwrap();
    read.check(Some(&signer().public_key())).unwrap();
    assert_eq!((read.earlier.checkpoint.head.seq, read.later.checkpoint.head.seq), (Seq(6), Seq(11)));
    // The earlier head is of a log in which the third event was another.
    let forked = Log::open_on(Disk::default(), options(), clock()).unwrap();
    for n in 1..=6 {
        append(&forked, batch("s", &[if n == 3 { "another" } else { "event" }]));
    }
    let earlier = signer().sign(forked.reader().head());
    let error = said(&Growth { earlier, ..growth.clone() }.check(None).unwrap_err());
    assert!(
        error.contains("what was recorded before it was changed, removed or put in another order"),
        "{error}"
    );
    let swapped = Growth { earlier: growth.later.clone(), later: growth.earlier.clone(), ..growth };
    assert!(swapped.check(None).is_err());
}
