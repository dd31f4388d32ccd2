//! The rules every value must keep before anything is looked up.

use caxton_events::limits::{
    ENTITY_BYTES_MAX, ENTITY_NAME_BYTES_MAX, METADATA_BYTES_MAX, OBSERVATION_BYTES_MAX, TYPE_BYTES_MAX,
};
use caxton_events::memory::Validity;

use super::refusal::{Refusal, RefusalCode};
use super::write::NewObservation;

/// A refusal of one field. The index of the write is filled in by the caller of the whole decision.
pub(super) fn refuse(code: RefusalCode, field: &str, message: String, remedy: &str) -> Refusal {
    Refusal { code, index: 0, field: field.to_owned(), message, remedy: remedy.to_owned() }
}

/// The first characters of a value, for a message.
pub(super) fn excerpt(text: &str) -> String {
    const CHARS_MAX: usize = 60;
    if text.chars().nth(CHARS_MAX).is_none() {
        return format!("{text:?}");
    }
    let head: String = text.chars().take(CHARS_MAX).collect();
    format!("{head:?}…")
}

fn check_len(field: &str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.len() > bytes_max {
        let message = format!("takes {} bytes, the limit is {bytes_max}", text.len());
        return Err(refuse(RefusalCode::TooLarge, field, message, "shorten it or split it"));
    }
    Ok(())
}

/// A name or a type: not blank, no control characters, no blanks at its ends, not too long.
pub(super) fn check_label(field: &str, text: &str, bytes_max: usize) -> Result<(), Refusal> {
    if text.trim().is_empty() {
        let message = format!("{} is empty", excerpt(text));
        return Err(refuse(RefusalCode::Validation, field, message, "give at least one visible character"));
    }
    check_len(field, text, bytes_max)?;
    if let Some(found) = text.chars().find(|c| c.is_control()) {
        let message = format!("{} contains the control character {found:?}", excerpt(text));
        return Err(refuse(
            RefusalCode::Validation,
            field,
            message,
            "remove control characters and line breaks",
        ));
    }
    if text.trim() != text {
        let message = format!("{} starts or ends with a blank", excerpt(text));
        return Err(refuse(RefusalCode::Validation, field, message, "trim it"));
    }
    Ok(())
}

/// The name of an entity.
pub(super) fn check_name(field: &str, name: &str) -> Result<(), Refusal> {
    check_label(field, name, ENTITY_NAME_BYTES_MAX)
}

/// The type of an entity or a relation.
pub(super) fn check_type(field: &str, text: &str) -> Result<(), Refusal> {
    check_label(field, text, TYPE_BYTES_MAX)
}

/// The text of an observation: not blank, no control characters but tab and line breaks, not too long.
pub(super) fn check_content(field: &str, content: &str) -> Result<(), Refusal> {
    if content.trim().is_empty() {
        let message = "the observation is empty".to_owned();
        return Err(refuse(
            RefusalCode::Validation,
            field,
            message,
            "give a text, or leave the observation out",
        ));
    }
    check_len(field, content, OBSERVATION_BYTES_MAX)?;
    if let Some(found) = content.chars().find(|c| c.is_control() && !matches!(c, '\t' | '\n' | '\r')) {
        let message = format!("{} contains the control character {found:?}", excerpt(content));
        return Err(refuse(
            RefusalCode::Validation,
            field,
            message,
            "remove control characters; tab and line breaks may stay",
        ));
    }
    Ok(())
}

/// All observations of one write.
pub(super) fn check_observations(observations: &[NewObservation]) -> Result<(), Refusal> {
    let total: usize = observations.iter().map(|observation| observation.content.len()).sum();
    if total > ENTITY_BYTES_MAX {
        let message = format!("take {total} bytes together, the limit is {ENTITY_BYTES_MAX}");
        return Err(refuse(
            RefusalCode::TooLarge,
            "observations",
            message,
            "spread them over several requests",
        ));
    }
    for (index, observation) in observations.iter().enumerate() {
        check_content(&format!("observations[{index}]"), &observation.content)?;
        check_validity(observation.validity)?;
    }
    Ok(())
}

/// A share of one: strength, confidence.
pub(super) fn check_share(field: &str, value: f64) -> Result<(), Refusal> {
    if (0.0..=1.0).contains(&value) {
        return Ok(());
    }
    let message = format!("{value} is not between 0 and 1");
    Err(refuse(RefusalCode::Validation, field, message, "give a number from 0.0 to 1.0"))
}

/// Metadata: a JSON object, not too long.
pub(super) fn check_metadata(metadata: Option<&str>) -> Result<(), Refusal> {
    let Some(text) = metadata else {
        return Ok(());
    };
    check_len("metadata", text, METADATA_BYTES_MAX)?;
    if let Ok(serde_json::Value::Object(_)) = serde_json::from_str::<serde_json::Value>(text) {
        return Ok(());
    }
    let message = format!("{} is no JSON object", excerpt(text));
    Err(refuse(RefusalCode::Validation, "metadata", message, "give an object such as {\"source\": \"crm\"}"))
}

/// A span of time that is not empty.
pub(super) fn check_validity(validity: Validity) -> Result<(), Refusal> {
    match (validity.from, validity.to) {
        (Some(from), Some(to)) if from >= to => {
            let message = format!("valid_from {from} is not before valid_to {to}");
            Err(refuse(RefusalCode::Validation, "valid_to", message, "give an end after the start, or none"))
        }
        _ => Ok(()),
    }
}
