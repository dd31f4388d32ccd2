//! Names of tools: `mcp:SERVER/TOOL` outside, letters, digits, `_` and `-` for models.

/// Longest name that models take, in bytes.
const MODEL_NAME_BYTES_MAX: usize = 64;
/// What the family of an MCP server's tools begins with outside.
const OUTSIDE: &str = "mcp:";
/// The same for models.
const INSIDE: &str = "mcp__";
/// Between server and tool for models. Servers have no `_` in their names, so the first one ends the server's.
const BETWEEN: &str = "__";
/// Hexadecimal digits that tell two names apart whose differences a model may not see.
const DIGEST_DIGITS: usize = 8;

/// The name under which models know the tool `name`: the same, but for `mcp:SERVER/TOOL`.
///
/// ```
/// use caxton::toolbox::model_name;
///
/// assert_eq!(model_name("memory"), "memory");
/// assert_eq!(model_name("mcp:files/read"), "mcp__files__read");
/// assert!(model_name("mcp:files/read.me").starts_with("mcp__files__read_me_"));
/// ```
pub fn model_name(name: &str) -> String {
    let parts = name.strip_prefix(OUTSIDE).and_then(|rest| rest.split_once('/'));
    parts.map_or_else(|| name.to_owned(), |(server, tool)| of_server(server, tool))
}

/// The name under which models know a tool of an MCP server.
pub(super) fn of_server(server: &str, tool: &str) -> String {
    let safe = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '_' | '-');
    let clean: String = tool.chars().map(|sign| if safe(sign) { sign } else { '_' }).collect();
    let start = format!("{INSIDE}{server}{BETWEEN}");
    if clean == tool && start.len() + clean.len() <= MODEL_NAME_BYTES_MAX {
        return start + tool;
    }
    let digest = blake3::hash(tool.as_bytes()).to_hex();
    let room = MODEL_NAME_BYTES_MAX.saturating_sub(start.len() + 1 + DIGEST_DIGITS);
    format!("{start}{}_{}", &clean[..clean.len().min(room)], &digest[..DIGEST_DIGITS])
}

/// The provider of the tool `name`, under either of its names.
pub(crate) fn family(name: &str) -> String {
    let inside = || name.strip_prefix(INSIDE)?.split_once(BETWEEN);
    let outside = || name.strip_prefix(OUTSIDE)?.split_once('/');
    match inside().or_else(outside) {
        Some((server, _)) => of(server),
        None => name.to_owned(),
    }
}

/// The family of all tools of an MCP server.
pub(super) fn of(server: &str) -> String {
    format!("{OUTSIDE}{server}")
}

/// Whether `entries` (of an agent's file) have the tool `name`, under either of its names, or its server.
pub(super) fn has(entries: &[String], name: &str) -> bool {
    let (family, asked) = (family(name), model_name(name));
    entries.iter().any(|entry| *entry == family || model_name(entry) == asked)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_fits_a_model_and_no_two_tools_share_one() {
        let long = "x".repeat(200);
        let tools = ["read", "read.me", "read me", "read/me", "lesen-ä", "lesen-ö", "", &long, &long[1..]];
        let mut seen = std::collections::BTreeSet::new();
        for server in ["files", "a-server-with-32-letters-in-name"] {
            for tool in tools {
                let name = model_name(&format!("mcp:{server}/{tool}"));
                let fits = name.len() <= 64
                    && name.bytes().all(|sign| sign.is_ascii_alphanumeric() || matches!(sign, b'_' | b'-'));
                assert!(fits && seen.insert(name.clone()), "{server}/{tool}: {name}");
                assert_eq!(family(&name), format!("mcp:{server}"));
            }
        }
    }

    #[test]
    fn a_server_or_one_of_its_tools_is_allowed_under_both_names() {
        let allowed = ["memory", "mcp:all", "mcp:one/read.me"].map(str::to_owned);
        for name in ["memory", "mcp:all/x", "mcp__all__x", "mcp:one/read.me", &model_name("mcp:one/read.me")]
        {
            assert!(has(&allowed, name), "{name}");
        }
        for name in ["", "message", "mcp:one/write", "mcp__one__write", "mcp:none/x", "mcp__al__x", "Memory"]
        {
            assert!(!has(&allowed, name), "{name}");
        }
        assert!(!has(&[], "memory"));
    }
}
