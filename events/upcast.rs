//! Old bytes as today's events: stored bytes are never rewritten, they are lifted when they are read.
//!
//! To change what a kind holds: raise its number in [`version`], keep the old struct beside its upcaster, add a row to
//! `UPCASTERS` and a golden file for the new version (`UPDATE_GOLDEN=1 cargo nextest run -p caxton-events golden`).

use crate::borrowed::EventRef;
use crate::codec::{self, DecodeError, decode_current};
use crate::event::{Event, Kind};

/// The version new events of this kind are written in, from 1.
#[inline]
pub const fn version(kind: Kind) -> u8 {
    match kind {
        Kind::EntityCreated
        | Kind::EntityUpdated
        | Kind::EntityRemoved
        | Kind::ObservationAdded
        | Kind::ObservationUpdated
        | Kind::ObservationRemoved
        | Kind::RelationCreated
        | Kind::RelationUpdated
        | Kind::RelationRemoved
        | Kind::EntityRestored
        | Kind::ObservationRestored
        | Kind::RelationRestored
        | Kind::MemoryUndone
        | Kind::ExternalAgentRegistered
        | Kind::ServerStarted
        | Kind::ServerStopped
        | Kind::EmbeddingModelChanged
        | Kind::LogTrimmed
        | Kind::ErasureOrdered
        | Kind::Erased
        | Kind::ConversationOpened
        | Kind::MessageSent
        | Kind::MessageExpired
        | Kind::ReplyOverdue
        | Kind::DeliveryRetried
        | Kind::MessageDeadLettered
        | Kind::DeadLetterReplayed
        | Kind::InboxAcknowledged
        | Kind::ConversationExtended
        | Kind::ConversationClosed
        | Kind::ConversationArchived
        | Kind::AgentConfigLoaded
        | Kind::AgentConfigRejected
        | Kind::AgentConfigRemoved
        | Kind::AgentStatusChanged
        | Kind::CapabilityRegistered
        | Kind::CapabilityUpdated
        | Kind::CapabilityRemoved
        | Kind::AgentHealthChanged
        | Kind::AgentCircuitChanged
        | Kind::TurnStarted
        | Kind::ContextPrepared
        | Kind::ModelAnswered
        | Kind::ModelFailed
        | Kind::ToolStarted
        | Kind::ToolAnswered
        | Kind::ToolRefused
        | Kind::TurnFinished
        | Kind::TurnFailed => 1,
    }
}

/// Reads the payload of one old version as today's event.
struct Upcaster {
    kind: Kind,
    version: u8,
    lift: fn(&[u8]) -> Result<Event, DecodeError>,
}

/// One row for each version that is no longer written.
const UPCASTERS: &[Upcaster] = &[];

/// Reads a payload tagged with these numbers, whatever version wrote it.
///
/// # Errors
///
/// [`DecodeError::Newer`] if kind or version are not known here; otherwise as the bytes are.
pub fn decode(tag: u8, version: u8, payload: &[u8]) -> Result<Event, DecodeError> {
    decode_with(UPCASTERS, self::version, tag, version, payload)
}

/// The same without a copy where the version is the newest.
///
/// # Errors
///
/// As [`decode`].
#[inline]
pub fn decode_borrowed(tag: u8, version: u8, payload: &[u8]) -> Result<EventRef<'_>, DecodeError> {
    match Kind::from_tag(tag) {
        Some(kind) if version == self::version(kind) => codec::decode_borrowed(kind, payload),
        Some(_) | None => decode(tag, version, payload).map(EventRef::Other),
    }
}

fn decode_with(
    upcasters: &[Upcaster],
    current: fn(Kind) -> u8,
    tag: u8,
    version: u8,
    payload: &[u8],
) -> Result<Event, DecodeError> {
    let newer = DecodeError::Newer { kind: tag, version };
    let Some(kind) = Kind::from_tag(tag) else {
        return Err(newer);
    };
    if version == current(kind) {
        return decode_current(kind, payload);
    }
    let old = upcasters.iter().find(|upcaster| upcaster.kind == kind && upcaster.version == version);
    old.map_or(Err(newer), |upcaster| (upcaster.lift)(payload))
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use std::collections::BTreeSet;
    use std::fs;
    use std::path::PathBuf;

    use super::{Upcaster, decode, decode_with, version};
    use crate::codec::{DecodeError, encode_payload, get};
    use crate::memory::Validity;
    use crate::{Event, Kind, MemoryEvent, MemoryId, Scope, SystemEvent, Timestamp};

    /// One event of every kind, with every optional part present where it has one.
    pub(crate) fn samples() -> Vec<Event> {
        let id = MemoryId(300);
        let entity = MemoryId(7);
        let validity = Validity {
            from: Some(Timestamp::from_unix_micros(1_700_000_000_000_000)),
            to: Some(Timestamp::from_unix_micros(1_800_000_000_000_000)),
        };
        let metadata = Some(r#"{"source":"letter"}"#.to_owned());
        let memory = [
            MemoryEvent::EntityCreated {
                id,
                scope: Scope::Agent("ada".parse().unwrap()),
                name: "Analytical Engine".to_owned(),
                entity_type: "machine".to_owned(),
                metadata: metadata.clone(),
                confidence: 0.75,
                validity,
            },
            MemoryEvent::EntityUpdated {
                id,
                name: "Engine".to_owned(),
                entity_type: "computer".to_owned(),
                metadata: None,
                confidence: 1.0,
                validity: Validity::default(),
            },
            MemoryEvent::EntityRemoved { id },
            MemoryEvent::ObservationAdded { id, entity, content: "weaves algebra".to_owned(), validity },
            MemoryEvent::ObservationUpdated { id, entity, content: "wébt 🧵".to_owned(), validity },
            MemoryEvent::ObservationRemoved { id, entity },
            MemoryEvent::RelationCreated {
                id,
                scope: Scope::Workspace("lab".parse().unwrap()),
                from: entity,
                to: MemoryId(8),
                relation_type: "designed_by".to_owned(),
                strength: 0.5,
                confidence: 0.25,
                metadata: metadata.clone(),
                validity,
            },
            MemoryEvent::RelationUpdated { id, strength: 0.0, confidence: 1.0, metadata, validity },
            MemoryEvent::RelationRemoved { id },
        ];
        let mut samples: Vec<Event> = memory.into_iter().map(Event::from).collect();
        samples.extend(crate::samples::undone().into_iter().map(Event::from));
        samples.extend(crate::samples::agents().into_iter().map(Event::from));
        samples.extend(crate::samples::conversations().into_iter().map(Event::from));
        samples.extend(crate::samples::turns().into_iter().map(Event::from));
        samples.extend(crate::samples::system().into_iter().map(Event::from));
        samples
    }

    fn golden(kind: Kind, version: u8, extension: &str) -> PathBuf {
        PathBuf::from(env!("CARGO_MANIFEST_DIR"))
            .join("golden")
            .join(format!("{}.v{version}.{extension}", kind.name()))
    }

    /// Writes the golden file of a new version. Files that exist are never rewritten: their bytes are in logs.
    fn write_golden(event: &Event, bytes: &[u8]) {
        let (kind, version) = (event.kind(), version(event.kind()));
        if !golden(kind, version, "bin").exists() {
            fs::write(golden(kind, version, "bin"), bytes).unwrap();
            fs::write(golden(kind, version, "txt"), format!("{event:#?}\n")).unwrap();
        }
    }

    #[test]
    fn every_kind_is_written_as_its_golden_file_says() {
        let kinds: BTreeSet<Kind> = samples().iter().map(Event::kind).collect();
        assert_eq!(kinds, Kind::ALL.iter().copied().collect(), "samples() needs one event of every kind");
        for event in samples() {
            let (kind, version) = (event.kind(), version(event.kind()));
            let mut bytes = Vec::new();
            encode_payload(&event, &mut bytes);
            #[expect(
                clippy::disallowed_methods,
                reason = "only this test's mode is chosen by the environment"
            )]
            let update = std::env::var_os("UPDATE_GOLDEN").is_some();
            if update {
                write_golden(&event, &bytes);
            }
            let path = golden(kind, version, "bin");
            let stored = fs::read(&path).unwrap_or_default();
            assert!(
                !stored.is_empty(),
                "{} is missing: run with UPDATE_GOLDEN=1 and commit it",
                path.display()
            );
            assert_eq!(
                bytes,
                stored,
                "{} changed its bytes: give it a new version and an upcaster",
                kind.name()
            );
        }
    }

    #[test]
    fn every_golden_file_of_every_version_still_reads_as_its_text_says() {
        for kind in Kind::ALL {
            for version in 1..=version(*kind) {
                let bytes = fs::read(golden(*kind, version, "bin")).unwrap();
                let text = fs::read_to_string(golden(*kind, version, "txt")).unwrap();
                let event = decode(kind.tag(), version, &bytes).unwrap();
                assert_eq!(format!("{event:#?}\n"), text, "{} v{version}", kind.name());
            }
        }
    }

    #[test]
    fn an_unknown_kind_or_version_says_that_a_newer_caxton_wrote_it() {
        for (tag, version) in
            [(127, 1), (0, 1), (Kind::EntityCreated.tag(), 2), (Kind::EntityCreated.tag(), 0)]
        {
            let error = decode(tag, version, &[]).unwrap_err();
            assert!(matches!(error, DecodeError::Newer { .. }));
            let then = format!(
                "written by a newer Caxton (kind {tag}, version {version}); use that version to read it"
            );
            assert_eq!(error.to_string(), then);
        }
    }

    #[test]
    fn an_old_version_is_lifted_to_todays_event() {
        /// As if version 1 of this kind had held the version's number alone.
        fn lift(bytes: &[u8]) -> Result<Event, DecodeError> {
            let minor: u32 = get(bytes)?;
            Ok(SystemEvent::ServerStarted { version: format!("0.{minor}.0") }.into())
        }
        let upcasters = [Upcaster { kind: Kind::ServerStarted, version: 1, lift }];
        let then = Event::from(SystemEvent::ServerStarted { version: "0.9.0".to_owned() });
        let mut today = Vec::new();
        encode_payload(&then, &mut today);
        let read =
            |version, bytes: &[u8]| decode_with(&upcasters, |_| 2, Kind::ServerStarted.tag(), version, bytes);
        assert_eq!(read(1, &[9]).unwrap(), then);
        assert_eq!(read(2, &today).unwrap(), then);
        assert!(matches!(read(3, &today), Err(DecodeError::Newer { version: 3, .. })));
    }
}
