//! What a backup keeps that is not brought again.

use std::fs;

use caxton_events::Seq;

use super::super::{Added, Extra, PartKind, Until, begin, read_manifest, source};
use super::{Fixture, NOW, files, problems};

/// Adds to the backup what is new in the log, with these files: in the stream, and beside it.
fn add(fixture: &Fixture, sent: Vec<Extra>, beside: Vec<Extra>) -> Added {
    let receiver = begin(&fixture.backup()).unwrap();
    let frames = source(&fixture.log.reader(), &receiver.wanted(), sent, None).unwrap();
    let stream: Vec<u8> = frames.flat_map(Result::unwrap).collect();
    receiver.receive(&mut stream.as_slice(), beside, (NOW, "0.0.0"), &mut |_, _| ()).unwrap()
}

fn extra(kind: PartKind, name: &str, content: &str) -> Extra {
    Extra { kind, name: name.to_owned(), content: content.as_bytes().to_vec() }
}

#[test]
fn files_of_a_kind_that_is_not_brought_again_stay_and_others_are_replaced() {
    let fixture = Fixture::new();
    fixture.append(3);
    let key = extra(PartKind::Key, "signing.key", "secret");
    let first = add(&fixture, Fixture::extras(), vec![key]);
    assert_eq!((first.files, first.kept.clone()), (4, Vec::new()));
    assert!(!first.to_string().contains("kept from the time before"), "{first}");
    fixture.append(2);
    // No key was asked for, no configuration named, and agents are elsewhere.
    let second = add(&fixture, vec![extra(PartKind::Format, "FORMAT", "2\n")], Vec::new());
    let mut kept = second.kept.clone();
    kept.sort();
    assert_eq!(kept, ["caxton.yaml", "library/librarian.md", "signing.key"]);
    assert_eq!((second.files, second.head.seq), (4, Seq(5)));
    assert!(second.to_string().contains("kept from the time before, because this time brought none"));
    assert_eq!(problems(&fixture.backup()), []);
    let parts = read_manifest(&fixture.backup()).unwrap().parts;
    let runs = parts.iter().take_while(|part| part.kind == PartKind::Log).count();
    assert_eq!((parts.len(), runs), (6, 2), "runs come first");
    fixture.restore("other", Until::End).unwrap();
    let read = |name: &str| fs::read_to_string(fixture.dir.path().join("other").join(name)).unwrap();
    assert_eq!([read("signing.key"), read("FORMAT")], ["secret", "2\n"]);
    assert!(read("agents/library/librarian.md").contains("Librarian"));
    assert!(read("restored-config.yaml").contains("8080"));
    // Where agents come, those that are gone are gone here too.
    let third = add(&fixture, vec![extra(PartKind::Agent, "echo.md", "echo")], Vec::new());
    assert!(!third.kept.iter().any(|name| name.ends_with("librarian.md")), "{third}");
    let left = files(&fixture.backup());
    assert!(!left.iter().any(|path| path.ends_with("library/librarian.md")), "{left:?}");
    assert!(left.iter().any(|path| path.ends_with("agents/echo.md")), "{left:?}");
}
