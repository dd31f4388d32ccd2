//! Events as JSON: for people, audit and other programs, with ids as the REST API shows them. The bytes on disk are
//! another matter (`events/codec.rs`).

use caxton_events::memory::{Chosen, Origin, Validity};
use caxton_events::{Event, MemoryEvent, MemoryId, SystemEvent};
use serde_json::{Value, json};

/// The event's own fields. Metadata is the object it is; open ends of a validity are null.
pub(super) fn payload(event: &Event) -> Value {
    match event {
        Event::Memory(event) => memory(event),
        Event::Agent(event) => super::talk::agent(event),
        Event::Conversation(event) => super::talk::conversation(event),
        Event::Turn(event) => super::talk::turn(event),
        Event::System(event) => system(event),
    }
}

fn system(event: &SystemEvent) -> Value {
    match event {
        SystemEvent::ServerStarted { version } => json!({ "version": version }),
        SystemEvent::ServerStopped => json!({}),
        SystemEvent::EmbeddingModelChanged { name, weights_sha256, dimensions } => {
            json!({ "name": name, "weights_sha256": weights_sha256, "dimensions": dimensions })
        }
        SystemEvent::LogTrimmed { through, root, by } => {
            json!({ "through": through, "root": root, "by": by })
        }
        SystemEvent::ErasureOrdered { subjects, asked, keys, events, next_memory_id: _, reason, by } => {
            json!({
                "subjects": subjects.iter().map(ToString::to_string).collect::<Vec<_>>(), "asked": asked,
                "key_ids": keys.iter().map(|key| format!("{key:016x}")).collect::<Vec<_>>(), "events": events,
                "reason": reason, "by": by,
            })
        }
        SystemEvent::Erased { order, keys, events } => {
            json!({ "order_seq": order, "keys": keys, "events": events })
        }
    }
}

fn memory(event: &MemoryEvent) -> Value {
    match event {
        MemoryEvent::EntityCreated { id, scope, name, entity_type, metadata, confidence, validity } => with(
            validity,
            json!({
                "entity_id": entity_id(*id), "scope": scope.to_string(), "entity_name": name,
                "entity_type": entity_type, "metadata": object(metadata.as_deref()), "confidence": confidence,
            }),
        ),
        MemoryEvent::EntityUpdated { id, name, entity_type, metadata, confidence, validity } => with(
            validity,
            json!({
                "entity_id": entity_id(*id), "entity_name": name, "entity_type": entity_type,
                "metadata": object(metadata.as_deref()), "confidence": confidence,
            }),
        ),
        MemoryEvent::EntityRemoved { id } => json!({ "entity_id": entity_id(*id) }),
        MemoryEvent::ObservationAdded { id, entity, content, validity }
        | MemoryEvent::ObservationUpdated { id, entity, content, validity } => with(
            validity,
            json!({
                "observation_id": observation_id(*id), "entity_id": entity_id(*entity), "content": content,
            }),
        ),
        MemoryEvent::ObservationRemoved { id, entity } => {
            json!({ "observation_id": observation_id(*id), "entity_id": entity_id(*entity) })
        }
        MemoryEvent::RelationCreated {
            id,
            scope,
            from,
            to,
            relation_type,
            strength,
            confidence,
            metadata,
            validity,
        } => with(
            validity,
            json!({
                "relation_id": relation_id(*id), "scope": scope.to_string(),
                "from_entity_id": entity_id(*from), "to_entity_id": entity_id(*to),
                "relation_type": relation_type, "strength": strength, "confidence": confidence,
                "metadata": object(metadata.as_deref()),
            }),
        ),
        MemoryEvent::RelationUpdated { id, strength, confidence, metadata, validity } => with(
            validity,
            json!({
                "relation_id": relation_id(*id), "strength": strength, "confidence": confidence,
                "metadata": object(metadata.as_deref()),
            }),
        ),
        MemoryEvent::RelationRemoved { id } => json!({ "relation_id": relation_id(*id) }),
        MemoryEvent::EntityRestored { .. }
        | MemoryEvent::ObservationRestored { .. }
        | MemoryEvent::RelationRestored { .. }
        | MemoryEvent::Undone { .. } => restored(event),
    }
}

#[expect(clippy::wildcard_enum_match_arm, reason = "`memory` sends what an undo writes only")]
fn restored(event: &MemoryEvent) -> Value {
    match event {
        MemoryEvent::EntityRestored {
            id,
            scope,
            name,
            entity_type,
            metadata,
            confidence,
            validity,
            owner,
            version,
            origin,
        } => from(
            origin,
            validity,
            json!({
                "entity_id": entity_id(*id), "scope": scope.to_string(), "entity_name": name,
                "entity_type": entity_type, "metadata": object(metadata.as_deref()), "confidence": confidence,
                "owner": owner, "version": version,
            }),
        ),
        MemoryEvent::ObservationRestored { id, entity, content, validity, origin } => from(
            origin,
            validity,
            json!({
                "observation_id": observation_id(*id), "entity_id": entity_id(*entity), "content": content,
            }),
        ),
        MemoryEvent::RelationRestored {
            id,
            scope,
            from: start,
            to,
            relation_type,
            strength,
            confidence,
            metadata,
            validity,
            origin,
        } => from(
            origin,
            validity,
            json!({
                "relation_id": relation_id(*id), "scope": scope.to_string(),
                "from_entity_id": entity_id(*start), "to_entity_id": entity_id(*to),
                "relation_type": relation_type, "strength": strength, "confidence": confidence,
                "metadata": object(metadata.as_deref()),
            }),
        ),
        MemoryEvent::Undone { chosen, later, through, undoes } => json!({
            "chosen": self::chosen(chosen), "later": later.as_str(), "through": through, "undoes": undoes,
        }),
        _ => Value::Null,
    }
}

/// The conditions that were given.
fn chosen(chosen: &Chosen) -> Value {
    let Chosen { agent, conversation, correlation, from, to, since, until } = chosen;
    let mut given = json!({
        "agent": agent, "conversation_id": conversation, "correlation_id": correlation,
        "from_seq": from, "to_seq": to, "since": since, "until": until,
    });
    if let Some(members) = given.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    given
}

fn from(origin: &Origin, validity: &Validity, mut data: Value) -> Value {
    data["author"] = json!(origin.author);
    data["first_seq"] = json!(origin.first);
    data["created_at"] = json!(origin.created_at);
    with(validity, data)
}

fn entity_id(id: MemoryId) -> String {
    format!("ent_{id}")
}

fn observation_id(id: MemoryId) -> String {
    format!("obs_{id}")
}

fn relation_id(id: MemoryId) -> String {
    format!("rel_{id}")
}

/// Metadata was checked to be JSON when it was written; a text that is none is shown as it is.
pub(super) fn object(metadata: Option<&str>) -> Value {
    metadata.map_or(Value::Null, |text| serde_json::from_str(text).unwrap_or_else(|_| Value::from(text)))
}

fn with(validity: &Validity, mut data: Value) -> Value {
    data["valid_from"] = json!(validity.from);
    data["valid_to"] = json!(validity.to);
    data
}
