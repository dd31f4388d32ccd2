//! What a backup keeps that is not brought again, and what it cannot hold.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

use caxton_events::Seq;

use super::super::{
    Added, Extra, Extras, PartKind, Places, ReceiveError, Until, begin, extras, read_manifest, source,
};
use super::{Fixture, NOW, files, problems};

/// Adds to the backup what is new in the log, with these files: in the stream, and beside it.
fn add(fixture: &Fixture, sent: impl Into<Extras>, beside: Vec<Extra>) -> Added {
    try_to_add(fixture, sent, beside).unwrap()
}

fn try_to_add(fixture: &Fixture, sent: impl Into<Extras>, beside: Vec<Extra>) -> Result<Added, ReceiveError> {
    let receiver = begin(&fixture.backup()).unwrap();
    let frames = source(&fixture.log.reader(), &receiver.wanted(), sent.into(), None).unwrap();
    let stream: Vec<u8> = frames.flat_map(Result::unwrap).collect();
    receiver.receive(&mut stream.as_slice(), beside, (NOW, "0.0.0"), &mut |_, _| ())
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

#[test]
fn what_a_backup_cannot_name_is_told_and_all_else_is_taken() {
    let fixture = Fixture::new();
    fixture.append(1);
    let agents = fixture.dir.path().join("agents");
    let deep = (0..9).fold(agents.clone(), |dir, number| dir.join(number.to_string()));
    fs::create_dir_all(&deep).unwrap();
    let unreadable = OsStr::from_bytes(b"d\xff.md");
    for place in
        [deep.join("lost.md"), agents.join("ada.md"), agents.join("b\\c.md"), agents.join(unreadable)]
    {
        fs::write(place, "text").unwrap();
    }
    let data_dir = fixture.dir.path().join("data");
    let found = extras(&Places { data_dir, agents: Some(agents), config: Some("x\\y.yaml".into()) }).unwrap();
    let names: Vec<&str> = found.files.iter().map(|file| file.name.as_str()).collect();
    assert_eq!(names, ["ada.md"]);
    let begins = [
        r#""x\\y.yaml": "#,
        r#""0/1/2/3/4/5/6/7/8": it lies below 8"#,
        r#""b\\c.md": "#,
        "\"d\u{fffd}.md\": ",
    ];
    assert_eq!(found.left_out.len(), begins.len(), "{:?}", found.left_out);
    for (told, begin) in found.left_out.iter().zip(begins) {
        assert!(told.starts_with(begin), "{told} should begin with {begin}");
    }
    let added = add(&fixture, found.clone(), Vec::new());
    assert_eq!(added.left_out, found.left_out);
    assert!(added.to_string().contains("not in the backup: \"x"), "{added}");
    // From a server that sends them all the same.
    let refused =
        try_to_add(&fixture, vec![extra(PartKind::Agent, "b\\c.md", "text")], Vec::new()).unwrap_err();
    assert!(refused.to_string().contains("rename the file"), "{refused}");
}
