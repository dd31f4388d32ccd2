//! The rules for entities and their observations.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};

use caxton_events::memory::Validity;
use caxton_events::{MemoryEvent, MemoryId, Scope};

use super::check::{self, refuse};
use super::decide::{DecideError, Ids, Verdict, resolve};
use super::present::{Present, PresentEntity, PresentObservation};
use super::refusal::RefusalCode;
use super::write::{
    EntityChange, ExpectedVersion, NewEntity, NewObservation, OnExisting, WriteStatus, Written, WrittenKind,
};

/// The answer to a write about one row.
pub(super) fn written(kind: WrittenKind, status: WriteStatus, id: MemoryId, version: u32) -> Written {
    Written {
        kind,
        status,
        id,
        observations: Vec::new(),
        version,
        removed_entities: 0,
        removed_relations: 0,
        not_taken: Vec::new(),
        entity_name: None,
        entity_type: None,
    }
}

pub(super) fn create(present: &dyn Present, wish: &NewEntity, ids: &mut Ids) -> Result<Verdict, DecideError> {
    check::check_name("entity_name", &wish.name)?;
    check::check_type("entity_type", &wish.entity_type)?;
    check::check_observations(&wish.observations)?;
    check::check_metadata(wish.metadata.as_deref())?;
    check::check_share("confidence", wish.confidence)?;
    check::check_validity(wish.validity)?;
    if let Some(existing) = present.entity_named(&wish.scope, &wish.name)? {
        return create_again(present, existing, wish, ids);
    }
    let id = ids.draw();
    let mut events = vec![MemoryEvent::EntityCreated {
        id,
        scope: wish.scope.clone(),
        name: wish.name.clone(),
        entity_type: wish.entity_type.clone(),
        metadata: wish.metadata.clone(),
        confidence: wish.confidence,
        validity: wish.validity,
    }];
    let mut written = written(WrittenKind::Entity, WriteStatus::Created, id, 1);
    let mut seen = HashMap::new();
    for (index, observation) in wish.observations.iter().enumerate() {
        if is_first(&mut seen, index, observation, &mut written) {
            events.push(added(id, observation, ids.draw(), &mut written));
        }
    }
    Ok(Verdict::of(wish.scope.clone(), events, written))
}

/// Whether an observation of a wish is the first one in it with its text. The times of a repetition are not taken.
fn is_first<'a>(
    seen: &mut HashMap<&'a str, Validity>,
    index: usize,
    observation: &'a NewObservation,
    written: &mut Written,
) -> bool {
    match seen.entry(&observation.content) {
        Entry::Vacant(free) => {
            free.insert(observation.validity);
            true
        }
        Entry::Occupied(first) => {
            times_kept(&place(index), observation.validity, *first.get(), &mut written.not_taken);
            false
        }
    }
}

/// What stands before the fields of an observation of a wish.
fn place(index: usize) -> String {
    format!("observations[{index}].")
}

/// Notes the ends of a time that were asked for and are not taken: the row at `place` keeps its own.
fn times_kept(place: &str, asked: Validity, kept: Validity, not_taken: &mut Vec<String>) {
    for (name, asked, kept) in [("valid_from", asked.from, kept.from), ("valid_to", asked.to, kept.to)] {
        if asked.is_some() && asked != kept {
            not_taken.push(format!("{place}{name}"));
        }
    }
}

/// The fields of a wish that a merge does not take, because the entity has others.
fn fields_kept(existing: &PresentEntity, wish: &NewEntity) -> Vec<String> {
    let mut not_taken = Vec::new();
    if wish.metadata.as_deref().is_some_and(|asked| !same_object(asked, existing.metadata.as_deref())) {
        not_taken.push("metadata".to_owned());
    }
    if wish.confidence.total_cmp(&existing.confidence).is_ne() {
        not_taken.push("confidence".to_owned());
    }
    times_kept("", wish.validity, existing.validity, &mut not_taken);
    not_taken
}

/// The type that the entity keeps, where the wish says another one.
fn type_kept(existing: &PresentEntity, wish: &NewEntity) -> Option<String> {
    (existing.entity_type != wish.entity_type).then(|| existing.entity_type.clone())
}

/// Whether two texts are the same JSON object, whatever the order of its members.
fn same_object(asked: &str, kept: Option<&str>) -> bool {
    let read = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
    kept.is_some_and(|kept| kept == asked || read(kept) == read(asked))
}

/// The rules for an entity whose name is taken in its scope.
fn create_again(
    present: &dyn Present,
    existing: PresentEntity,
    wish: &NewEntity,
    ids: &mut Ids,
) -> Result<Verdict, DecideError> {
    let (id, version) = (existing.id, existing.version);
    match wish.on_existing {
        OnExisting::Skip => {
            let mut written = written(WrittenKind::Entity, WriteStatus::Skipped, id, version);
            written.entity_type = type_kept(&existing, wish);
            return Ok(Verdict::of(existing.scope, Vec::new(), written));
        }
        OnExisting::Refuse => {
            let message = format!("{} exists in {} as ent_{id}", check::excerpt(&wish.name), wish.scope);
            let remedy = "use another name, or ask to merge, update or skip what exists";
            return Err(refuse(RefusalCode::AlreadyExists, "entity_name", message, remedy).into());
        }
        OnExisting::Merge if existing.entity_type != wish.entity_type => {
            let message = format!(
                "{} exists in {} with type {}, not {}",
                check::excerpt(&wish.name),
                wish.scope,
                check::excerpt(&existing.entity_type),
                check::excerpt(&wish.entity_type)
            );
            let remedy = "use its type, another name, or update the entity";
            return Err(refuse(RefusalCode::TypeConflict, "entity_type", message, remedy).into());
        }
        OnExisting::Merge | OnExisting::Extend | OnExisting::Update => {}
    }
    let (mut not_taken, entity_type) = match wish.on_existing {
        OnExisting::Merge | OnExisting::Extend => (fields_kept(&existing, wish), type_kept(&existing, wish)),
        OnExisting::Update | OnExisting::Skip | OnExisting::Refuse => (Vec::new(), None),
    };
    let mut events = Vec::new();
    let mut version = version;
    if wish.on_existing == OnExisting::Update {
        let described = PresentEntity {
            entity_type: wish.entity_type.clone(),
            metadata: wish.metadata.clone().or_else(|| existing.metadata.clone()),
            confidence: wish.confidence,
            validity: wish.validity,
            ..existing.clone()
        };
        if described != existing {
            events.push(updated(described));
            version += 1;
        }
    }
    let existing = PresentEntity { version, ..existing };
    let mut verdict = observe(present, existing, &wish.observations, ids)?;
    let changed = !events.is_empty() || !verdict.events.is_empty();
    events.append(&mut verdict.events);
    verdict.events = events;
    verdict.written.kind = WrittenKind::Entity;
    verdict.written.status = if changed { WriteStatus::Updated } else { WriteStatus::Unchanged };
    not_taken.append(&mut verdict.written.not_taken);
    verdict.written.not_taken = not_taken;
    verdict.written.entity_type = entity_type;
    Ok(verdict)
}

/// The event that adds `observation` to an entity, noted in the answer.
fn added(entity: MemoryId, observation: &NewObservation, id: MemoryId, written: &mut Written) -> MemoryEvent {
    written.observations.push(id);
    MemoryEvent::ObservationAdded {
        id,
        entity,
        content: observation.content.clone(),
        validity: observation.validity,
    }
}

/// The event that gives an entity its new description.
fn updated(entity: PresentEntity) -> MemoryEvent {
    MemoryEvent::EntityUpdated {
        id: entity.id,
        name: entity.name,
        entity_type: entity.entity_type,
        metadata: entity.metadata,
        confidence: entity.confidence,
        validity: entity.validity,
    }
}

pub(super) fn update(present: &dyn Present, wish: &EntityChange) -> Result<Verdict, DecideError> {
    let entity = resolve(present, "entity", &wish.entity)?;
    check_version(&entity, wish.expected_version)?;
    let mut described = entity.clone();
    if let Some(name) = &wish.name {
        check::check_name("entity_name", name)?;
        let taken = present.entity_named(&entity.scope, name)?.filter(|other| other.id != entity.id);
        if let Some(other) = taken {
            let message = format!("{} exists in {} as ent_{}", check::excerpt(name), entity.scope, other.id);
            return Err(refuse(RefusalCode::AlreadyExists, "entity_name", message, "use another name").into());
        }
        described.name.clone_from(name);
    }
    if let Some(entity_type) = &wish.entity_type {
        check::check_type("entity_type", entity_type)?;
        described.entity_type.clone_from(entity_type);
    }
    if let Some(metadata) = &wish.metadata {
        check::check_metadata(metadata.as_deref())?;
        described.metadata.clone_from(metadata);
    }
    if let Some(confidence) = wish.confidence {
        check::check_share("confidence", confidence)?;
        described.confidence = confidence;
    }
    if let Some(validity) = wish.validity {
        check::check_validity(validity)?;
        described.validity = validity;
    }
    let (status, version) =
        if described == entity { (WriteStatus::Unchanged, 0) } else { (WriteStatus::Updated, 1) };
    let mut written = written(WrittenKind::Entity, status, entity.id, entity.version + version);
    written.entity_name = wish.name.is_none().then(|| described.name.clone());
    written.entity_type = wish.entity_type.is_none().then(|| described.entity_type.clone());
    let events = if version == 0 { Vec::new() } else { vec![updated(described)] };
    Ok(Verdict::of(entity.scope, events, written))
}

/// Refuses when another version than the present one was expected, or a version of another entity.
pub(super) fn check_version(
    entity: &PresentEntity,
    expected: Option<ExpectedVersion>,
) -> Result<(), DecideError> {
    let Some(ExpectedVersion { version, id }) = expected else { return Ok(()) };
    let message = if let Some(other) = id.filter(|id| *id != entity.id) {
        format!("it is ent_{} now, not ent_{other}", entity.id)
    } else if version != entity.version {
        format!("ent_{} has version {}, not {version}", entity.id, entity.version)
    } else {
        return Ok(());
    };
    let remedy = "read it again and repeat the change on what it is now";
    Err(refuse(RefusalCode::VersionConflict, "version", message, remedy).into())
}

pub(super) fn remove(present: &dyn Present, entity: PresentEntity) -> Result<Verdict, DecideError> {
    let mut events = Vec::new();
    let mut gone = BTreeMap::new();
    remove_into(present, entity.id, &mut gone, &mut events)?;
    let mut written = written(WrittenKind::Entity, WriteStatus::Removed, entity.id, entity.version);
    written.removed_entities = 1;
    written.removed_relations = gone.len() as u64;
    Ok(Verdict { relations: gone, ..Verdict::of(entity.scope, events, written) })
}

/// Appends the events that take an entity out of the present, with its rows. `gone` holds the relations removed so
/// far with their scopes, so that one between two removed entities is removed once.
fn remove_into(
    present: &dyn Present,
    entity: MemoryId,
    gone: &mut BTreeMap<MemoryId, Scope>,
    events: &mut Vec<MemoryEvent>,
) -> Result<(), DecideError> {
    for (id, scope) in present.relations_of(entity)? {
        if gone.insert(id, scope).is_none() {
            events.push(MemoryEvent::RelationRemoved { id });
        }
    }
    for id in present.observations_of(entity)? {
        events.push(MemoryEvent::ObservationRemoved { id, entity });
    }
    events.push(MemoryEvent::EntityRemoved { id: entity });
    Ok(())
}

pub(super) fn clear(
    present: &dyn Present,
    scope: &Scope,
    entity_types: &[String],
) -> Result<Verdict, DecideError> {
    let mut events = Vec::new();
    let mut gone = BTreeMap::new();
    let entities = present.entities_of(scope, entity_types)?;
    for id in &entities {
        remove_into(present, *id, &mut gone, &mut events)?;
    }
    // A relation of this scope may connect entities of wider ones, which stay.
    for id in if entity_types.is_empty() { present.relations_in(scope)? } else { Vec::new() } {
        if gone.insert(id, scope.clone()).is_none() {
            events.push(MemoryEvent::RelationRemoved { id });
        }
    }
    let status = if events.is_empty() { WriteStatus::Unchanged } else { WriteStatus::Removed };
    let mut written = written(WrittenKind::Scope, status, MemoryId(0), 0);
    written.removed_entities = entities.len() as u64;
    written.removed_relations = gone.len() as u64;
    Ok(Verdict { relations: gone, ..Verdict::of(scope.clone(), events, written) })
}

/// Adds the observations that the entity does not have yet; the answer names every one, new or not. Those that are there
/// keep their times.
pub(super) fn observe(
    present: &dyn Present,
    entity: PresentEntity,
    observations: &[NewObservation],
    ids: &mut Ids,
) -> Result<Verdict, DecideError> {
    let mut events = Vec::new();
    let mut written = written(WrittenKind::Observations, WriteStatus::Created, entity.id, entity.version);
    let mut seen = HashMap::new();
    for (index, observation) in observations.iter().enumerate() {
        if !is_first(&mut seen, index, observation, &mut written) {
            continue;
        }
        let Some(id) = present.observation_reading(entity.id, &observation.content)? else {
            events.push(added(entity.id, observation, ids.draw(), &mut written));
            continue;
        };
        written.observations.push(id);
        if observation.validity != Validity::default()
            && let Some(there) = present.observation(id)?
        {
            times_kept(&place(index), observation.validity, there.validity, &mut written.not_taken);
        }
    }
    if events.is_empty() {
        written.status = WriteStatus::Unchanged;
    }
    Ok(Verdict::of(entity.scope, events, written))
}

/// The observation with this number and the scope of its entity, or a refusal.
fn observation(present: &dyn Present, id: MemoryId) -> Result<(PresentObservation, Scope), DecideError> {
    if let Some(row) = present.observation(id)?
        && let Some(entity) = present.entity(row.entity)?
    {
        return Ok((row, entity.scope));
    }
    let message = format!("there is no observation obs_{id}");
    let remedy = "list the observations of its entity";
    Err(refuse(RefusalCode::ObservationNotFound, "observation_id", message, remedy).into())
}

pub(super) fn update_observation(
    present: &dyn Present,
    id: MemoryId,
    content: Option<&str>,
    validity: Option<Validity>,
) -> Result<Verdict, DecideError> {
    let (row, scope) = observation(present, id)?;
    let content = content.unwrap_or(&row.content);
    let validity = validity.unwrap_or(row.validity);
    check::check_content("content", content)?;
    check::check_validity(validity)?;
    let mut written = written(WrittenKind::Observations, WriteStatus::Unchanged, row.entity, 0);
    written.observations.push(id);
    if content == row.content && validity == row.validity {
        return Ok(Verdict::of(scope, Vec::new(), written));
    }
    if content != row.content
        && let Some(other) = present.observation_reading(row.entity, content)?
    {
        let message = format!("obs_{other} of the same entity says this already");
        let remedy = "remove one of the two observations instead";
        return Err(refuse(RefusalCode::AlreadyExists, "content", message, remedy).into());
    }
    written.status = WriteStatus::Updated;
    let event =
        MemoryEvent::ObservationUpdated { id, entity: row.entity, content: content.to_owned(), validity };
    Ok(Verdict::of(scope, vec![event], written))
}

pub(super) fn remove_observation(present: &dyn Present, id: MemoryId) -> Result<Verdict, DecideError> {
    let (row, scope) = observation(present, id)?;
    let mut written = written(WrittenKind::Observations, WriteStatus::Removed, row.entity, 0);
    written.observations.push(id);
    Ok(Verdict::of(scope, vec![MemoryEvent::ObservationRemoved { id, entity: row.entity }], written))
}
