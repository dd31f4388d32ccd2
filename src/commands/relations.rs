//! The rules for relations.

use caxton_events::{MemoryEvent, MemoryId, Scope};

use super::check::{self, refuse};
use super::decide::{DecideError, Ids, Verdict, resolve};
use super::entities::written;
use super::present::{Present, PresentEntity, PresentRelation};
use super::refusal::RefusalCode;
use super::write::{EntityRef, NewRelation, OnExisting, RelationChange, WriteStatus, WrittenKind};

pub(super) fn create(
    present: &dyn Present,
    wish: &NewRelation,
    ids: &mut Ids,
) -> Result<Verdict, DecideError> {
    check::check_type("relation_type", &wish.relation_type)?;
    check::check_share("strength", wish.strength)?;
    check::check_share("confidence", wish.confidence)?;
    check::check_metadata(wish.metadata.as_deref())?;
    check::check_validity(wish.validity)?;
    let from = end(present, "from_entity", &wish.from, &wish.scope)?.id;
    let to = end(present, "to_entity", &wish.to, &wish.scope)?.id;
    if from == to {
        let message = format!("both ends are ent_{from}");
        return Err(
            refuse(RefusalCode::Validation, "to_entity", message, "name two different entities").into()
        );
    }
    let mut verdict = connect(present, wish, from, to, ids)?;
    if wish.bidirectional {
        let back = connect(present, wish, to, from, ids)?;
        // The answer says what was done, whichever of the two ways it was done to.
        if matches!(verdict.written.status, WriteStatus::Unchanged | WriteStatus::Skipped) {
            verdict.written.status = back.written.status;
        }
        verdict.events.extend(back.events);
    }
    Ok(verdict)
}

/// An end of a relation in `scope`: whoever sees the relation must see it, so it lives there or in a wider scope.
fn end(
    present: &dyn Present,
    field: &str,
    reference: &EntityRef,
    scope: &Scope,
) -> Result<PresentEntity, DecideError> {
    let entity = resolve(present, field, reference)?;
    let seen_by_all = match (scope, &entity.scope) {
        (_, Scope::Global) | (Scope::Agent(_), Scope::Workspace(_)) => true,
        (scope, other) => scope == other,
    };
    if seen_by_all {
        return Ok(entity);
    }
    let message = format!("ent_{} lives in {}, which not all who see {scope} see", entity.id, entity.scope);
    let remedy = "write the relation to the scope of its narrower end";
    Err(refuse(RefusalCode::Validation, field, message, remedy).into())
}

/// One direction.
fn connect(
    present: &dyn Present,
    wish: &NewRelation,
    from: MemoryId,
    to: MemoryId,
    ids: &mut Ids,
) -> Result<Verdict, DecideError> {
    let Some(existing) = present.relation_between(&wish.scope, from, to, &wish.relation_type)? else {
        let id = ids.draw();
        let event = MemoryEvent::RelationCreated {
            id,
            scope: wish.scope.clone(),
            from,
            to,
            relation_type: wish.relation_type.clone(),
            strength: wish.strength,
            confidence: wish.confidence,
            metadata: wish.metadata.clone(),
            validity: wish.validity,
        };
        let written = written(WrittenKind::Relation, WriteStatus::Created, id, 0);
        return Ok(Verdict::of(wish.scope.clone(), vec![event], written));
    };
    let asked = PresentRelation {
        strength: wish.strength,
        confidence: wish.confidence,
        metadata: wish.metadata.clone(),
        validity: wish.validity,
        ..existing.clone()
    };
    let same = asked == existing;
    let status = match wish.on_existing {
        OnExisting::Skip => WriteStatus::Skipped,
        OnExisting::Update if !same => WriteStatus::Updated,
        OnExisting::Merge | OnExisting::Extend | OnExisting::Update if same => WriteStatus::Unchanged,
        OnExisting::Merge | OnExisting::Extend | OnExisting::Update | OnExisting::Refuse => {
            let message = format!(
                "rel_{} connects ent_{from} and ent_{to} as {} {}",
                existing.id,
                check::excerpt(&existing.relation_type),
                if same { "already" } else { "with other properties" }
            );
            let code = if same { RefusalCode::AlreadyExists } else { RefusalCode::RelationConflict };
            return Err(
                refuse(code, "relation_type", message, "update the relation, or use another type").into()
            );
        }
    };
    let written = written(WrittenKind::Relation, status, existing.id, 0);
    let scope = existing.scope;
    let events = if status == WriteStatus::Updated { vec![updated(asked)] } else { Vec::new() };
    Ok(Verdict::of(scope, events, written))
}

/// The event that gives a relation its new properties.
fn updated(relation: PresentRelation) -> MemoryEvent {
    MemoryEvent::RelationUpdated {
        id: relation.id,
        strength: relation.strength,
        confidence: relation.confidence,
        metadata: relation.metadata,
        validity: relation.validity,
    }
}

/// The relation with this number, or a refusal.
fn relation(present: &dyn Present, id: MemoryId) -> Result<PresentRelation, DecideError> {
    present.relation(id)?.ok_or_else(|| {
        let message = format!("there is no relation rel_{id}");
        refuse(RefusalCode::RelationNotFound, "relation_id", message, "list the relations of an entity")
            .into()
    })
}

pub(super) fn update(present: &dyn Present, wish: &RelationChange) -> Result<Verdict, DecideError> {
    let existing = relation(present, wish.id)?;
    let asked = PresentRelation {
        strength: wish.strength.unwrap_or(existing.strength),
        confidence: wish.confidence.unwrap_or(existing.confidence),
        metadata: wish.metadata.clone().unwrap_or_else(|| existing.metadata.clone()),
        validity: wish.validity.unwrap_or(existing.validity),
        ..existing.clone()
    };
    check::check_share("strength", asked.strength)?;
    check::check_share("confidence", asked.confidence)?;
    check::check_metadata(asked.metadata.as_deref())?;
    check::check_validity(asked.validity)?;
    let status = if asked == existing { WriteStatus::Unchanged } else { WriteStatus::Updated };
    let written = written(WrittenKind::Relation, status, wish.id, 0);
    let events = if asked == existing { Vec::new() } else { vec![updated(asked)] };
    Ok(Verdict::of(existing.scope, events, written))
}

pub(super) fn remove(present: &dyn Present, id: MemoryId) -> Result<Verdict, DecideError> {
    let scope = relation(present, id)?.scope;
    let mut written = written(WrittenKind::Relation, WriteStatus::Removed, id, 0);
    written.removed_relations = 1;
    Ok(Verdict::of(scope, vec![MemoryEvent::RelationRemoved { id }], written))
}
