//! Placeholders in prompts: `{{name}}` and `{{name:default}}`, and what is wrong with others.

use std::collections::BTreeSet;

/// Names that every turn fills, so that no parameter may have them.
pub const RESERVED: &[&str] = &[
    "request",
    "context",
    "data",
    "user_id",
    "timestamp",
    "memory_context",
    "conversation_history",
    "message_content",
    "sender_agent",
    "capability",
];

/// A fault of a template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TemplateFault {
    /// Where it begins, in bytes of the template.
    pub byte: usize,
    /// What is wrong.
    pub reason: String,
    /// What to do.
    pub remedy: String,
}

/// The names that `template` fills in, in order of the alphabet.
///
/// ```
/// let names = caxton::agents::placeholders("{{greeting:Hello}} {{name}}, {\"json\": 1}")?;
/// assert_eq!(names.into_iter().collect::<Vec<_>>(), ["greeting", "name"]);
/// # Ok::<(), Vec<caxton::agents::TemplateFault>>(())
/// ```
///
/// # Errors
///
/// Every fault: braces that do not match, blocks such as `{{#if}}`, names that are none.
pub fn placeholders(template: &str) -> Result<BTreeSet<String>, Vec<TemplateFault>> {
    let mut names = BTreeSet::new();
    let mut faults = Vec::new();
    let mut single = 0_usize;
    let mut at = 0;
    while let Some(found) = template[at..].find(['{', '}']) {
        at += found;
        let rest = &template[at..];
        if let Some(inner) = rest.strip_prefix("{{") {
            match inner.find("}}") {
                Some(end) if !inner[..end].contains("{{") && !inner[..end].contains('\n') => {
                    match placeholder(&inner[..end]) {
                        Ok(name) => _ = names.insert(name.to_owned()),
                        Err((reason, remedy)) => faults.push(TemplateFault { byte: at, reason, remedy }),
                    }
                    at += 2 + end + 2;
                }
                _ => {
                    faults.push(unbalanced(at, "`{{` is not closed on its line", "write {{name}}"));
                    at += 2;
                }
            }
        } else if rest.starts_with("{%") {
            let reason = "blocks (`{% … %}`) have no meaning here".to_owned();
            let remedy = "write the text out, with {{name}} or {{name:default}} for what varies".to_owned();
            faults.push(TemplateFault { byte: at, reason, remedy });
            at += 2;
        } else if rest.starts_with('{') {
            single += 1;
            at += 1;
        } else if single > 0 {
            single -= 1;
            at += 1;
        } else if rest.starts_with("}}") {
            faults.push(unbalanced(at, "`}}` closes nothing", "put `{{` before the name, or remove it"));
            at += 2;
        } else {
            at += 1;
        }
    }
    if faults.is_empty() { Ok(names) } else { Err(faults) }
}

/// The placeholders of `template` that have no default: where each begins, in bytes, and its name. The template must be one
/// that [`placeholders`] accepts.
pub(super) fn without_default(template: &str) -> Vec<(usize, &str)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(start) = template[at..].find("{{") {
        let inner = &template[at + start + 2..];
        let Some(end) = inner.find("}}") else { break };
        if !inner[..end].contains(':') {
            found.push((at + start, inner[..end].trim()));
        }
        at += start + 2 + end + 2;
    }
    found
}

fn unbalanced(byte: usize, reason: &str, remedy: &str) -> TemplateFault {
    TemplateFault { byte, reason: format!("the braces are unbalanced: {reason}"), remedy: remedy.to_owned() }
}

/// The name in a placeholder.
fn placeholder(inner: &str) -> Result<&str, (String, String)> {
    let name = inner.split_once(':').map_or(inner, |(name, _)| name).trim();
    if name.starts_with(['#', '/', '^', '>', '!', '&']) {
        let reason = format!("blocks such as {{{{{inner}}}}} have no meaning here");
        let remedy = "write the text out, with {{name:default}} for what may be missing".to_owned();
        return Err((reason, remedy));
    }
    let letter = |sign: char| sign.is_ascii_alphabetic() || sign == '_';
    if !name.starts_with(letter) || !name.chars().all(|sign| letter(sign) || sign.is_ascii_digit()) {
        let reason = format!("{name:?} is no name of a value");
        let remedy = "use letters, digits and `_`, as in {{user_name}} or {{user_name:nobody}}".to_owned();
        return Err((reason, remedy));
    }
    Ok(name)
}

/// `template` with its placeholders filled by `value`; those it knows nothing for get their default. What is filled in
/// is not read again.
///
/// # Errors
///
/// The names for which there is neither a value nor a default. The template itself must be one that [`placeholders`]
/// accepts; what is not stays as it is.
pub fn fill(template: &str, value: impl Fn(&str) -> Option<String>) -> Result<String, BTreeSet<String>> {
    let mut filled = String::with_capacity(template.len());
    let mut missing = BTreeSet::new();
    let mut rest = template;
    while let Some(start) = rest.find("{{") {
        let Some(end) = rest[start..].find("}}") else { break };
        let inner = &rest[start + 2..start + end];
        filled.push_str(&rest[..start]);
        let (name, default) = match inner.split_once(':') {
            Some((name, default)) => (name.trim(), Some(default.trim())),
            None => (inner.trim(), None),
        };
        match value(name).or_else(|| default.map(str::to_owned)) {
            Some(value) => filled.push_str(&value),
            None => _ = missing.insert(name.to_owned()),
        }
        rest = &rest[start + end + 2..];
    }
    filled.push_str(rest);
    if missing.is_empty() { Ok(filled) } else { Err(missing) }
}

#[cfg(test)]
mod tests {
    use super::{fill, placeholders, without_default};

    #[track_caller]
    fn check(template: &str, then: Result<&[&str], &[(usize, &str)]>) {
        let found = placeholders(template);
        match then {
            Ok(names) => {
                assert_eq!(
                    found.map(|names| names.into_iter().collect::<Vec<_>>()),
                    Ok(names.iter().map(|name| (*name).to_owned()).collect()),
                    "{template}"
                );
            }
            Err(faults) => {
                let found = found.err().unwrap_or_default();
                assert_eq!(found.len(), faults.len(), "{template}: {found:?}");
                for (found, (byte, words)) in found.iter().zip(faults) {
                    assert_eq!(found.byte, *byte, "{template}");
                    assert!(found.reason.contains(words), "{template}: {}", found.reason);
                }
            }
        }
    }

    #[test]
    fn names_are_found_and_json_is_left_alone() {
        check("", Ok(&[]));
        check("Hello", Ok(&[]));
        check("{{ b }} and {{a:x: y}}{{b}}", Ok(&["a", "b"]));
        check(r#"{"a":{"b":{}}} {{n}}"#, Ok(&["n"]));
        check("set } and { alone", Ok(&[]));
    }

    #[test]
    fn each_fault_says_where_it_is() {
        check("Hi {{name", Err(&[(3, "not closed")]));
        check("Hi {{name\n}}", Err(&[(3, "not closed"), (10, "closes nothing")]));
        check("Hi name}}", Err(&[(7, "closes nothing")]));
        check("{{a {{b}}", Err(&[(0, "not closed")]));
        check("{{#if a}}x{{/if}}", Err(&[(0, "blocks"), (10, "blocks")]));
        check("{% if a %}", Err(&[(0, "blocks")]));
        check(
            "é {{}} {{1a}} {{a b}} {{a|upper}}",
            Err(&[(3, "no name"), (8, "no name"), (15, "no name"), (23, "no name")]),
        );
    }

    #[test]
    fn names_without_a_default_are_found_where_they_stand() {
        let found = without_default("é {{ a }} {{b:x}} {\"j\": {}} {{c}}{{a}}");
        assert_eq!(found, [(3, "a"), (29, "c"), (34, "a")]);
        assert!(without_default("{ } }}").is_empty());
    }

    #[test]
    fn what_is_filled_in_is_not_read_again() {
        let value = |name: &str| (name == "a").then(|| "{{b}}".to_owned());
        assert_eq!(fill("{{a}}, {{ c:see }}!", value), Ok("{{b}}, see!".to_owned()));
        let missing = fill("{{a}} {{b}} {{c}}", value).err().unwrap_or_default();
        assert_eq!(missing.into_iter().collect::<Vec<_>>(), ["b", "c"]);
    }
}
