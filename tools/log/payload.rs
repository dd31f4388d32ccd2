//! Events as JSON: for people, audit and other programs. The bytes on disk are another matter (`events/codec.rs`).

use caxton_events::memory::Validity;
use caxton_events::{AgentEvent, Event, MemoryEvent, SystemEvent};
use serde_json::{Map, Value, json};

/// The event's own fields. Open ends of a validity and absent metadata are left out.
pub(super) fn payload(event: &Event) -> Value {
    match event {
        Event::Memory(event) => memory(event),
        Event::Agent(AgentEvent::ExternalRegistered { agent, workspace }) => {
            json!({ "agent": agent, "workspace": workspace })
        }
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
    }
}

fn memory(event: &MemoryEvent) -> Value {
    match event {
        MemoryEvent::EntityCreated { id, scope, name, entity_type, metadata, confidence, validity } => with(
            json!({
                "id": id, "scope": scope.to_string(), "name": name, "entity_type": entity_type,
                "confidence": confidence,
            }),
            metadata.as_deref(),
            validity,
        ),
        MemoryEvent::EntityUpdated { id, name, entity_type, metadata, confidence, validity } => with(
            json!({ "id": id, "name": name, "entity_type": entity_type, "confidence": confidence }),
            metadata.as_deref(),
            validity,
        ),
        MemoryEvent::EntityRemoved { id } | MemoryEvent::RelationRemoved { id } => json!({ "id": id }),
        MemoryEvent::ObservationAdded { id, entity, content, validity }
        | MemoryEvent::ObservationUpdated { id, entity, content, validity } => {
            with(json!({ "id": id, "entity": entity, "content": content }), None, validity)
        }
        MemoryEvent::ObservationRemoved { id, entity } => json!({ "id": id, "entity": entity }),
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
            json!({
                "id": id, "scope": scope.to_string(), "from": from, "to": to, "relation_type": relation_type,
                "strength": strength, "confidence": confidence,
            }),
            metadata.as_deref(),
            validity,
        ),
        MemoryEvent::RelationUpdated { id, strength, confidence, metadata, validity } => with(
            json!({ "id": id, "strength": strength, "confidence": confidence }),
            metadata.as_deref(),
            validity,
        ),
    }
}

/// `fields` with what many events share.
fn with(mut fields: Value, metadata: Option<&str>, validity: &Validity) -> Value {
    let mut more = Map::new();
    if let Some(metadata) = metadata {
        // Metadata was checked to be JSON when it was written; a text that is none is shown as it is.
        let value = serde_json::from_str(metadata).unwrap_or_else(|_| Value::from(metadata));
        more.insert("metadata".to_owned(), value);
    }
    for (name, at) in [("valid_from", validity.from), ("valid_to", validity.to)] {
        if let Some(at) = at {
            more.insert(name.to_owned(), Value::from(at.to_string()));
        }
    }
    if let Some(fields) = fields.as_object_mut() {
        fields.append(&mut more);
    }
    fields
}
