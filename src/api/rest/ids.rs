//! Numbers and places as clients see them: `ent_12`, `obs_13`, `rel_14`, and cursors that only this server reads.

use axum::http::StatusCode;
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use caxton_events::MemoryId;

use super::problem::Problem;

/// What a number is the number of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Row {
    Entity,
    Observation,
    Relation,
}

impl Row {
    const fn prefix(self) -> &'static str {
        match self {
            Self::Entity => "ent_",
            Self::Observation => "obs_",
            Self::Relation => "rel_",
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Entity => "entity",
            Self::Observation => "observation",
            Self::Relation => "relation",
        }
    }

    /// The code of a problem that says that there is none.
    pub(super) const fn not_found(self) -> &'static str {
        match self {
            Self::Entity => "ENTITY_NOT_FOUND",
            Self::Observation => "OBSERVATION_NOT_FOUND",
            Self::Relation => "RELATION_NOT_FOUND",
        }
    }

    /// The id as text, as in `ent_12`.
    pub(super) fn show(self, id: MemoryId) -> String {
        format!("{}{id}", self.prefix())
    }

    /// The number in an id of this kind; `None` when the text is something else, such as a name.
    pub(super) fn parse(self, text: &str) -> Option<MemoryId> {
        let digits = text.strip_prefix(self.prefix())?;
        let canonical = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
        digits.parse().ok().filter(|_| canonical).map(MemoryId)
    }

    /// The number in a path, where nothing but an id of this kind will do.
    ///
    /// # Errors
    ///
    /// A [`Problem`] when it is no such id.
    pub(super) fn in_path(self, text: &str) -> Result<MemoryId, Problem> {
        self.parse(text).ok_or_else(|| {
            let detail = format!("the path does not name an {} by its id", self.name());
            Problem::new(StatusCode::BAD_REQUEST, "INVALID_ID", detail)
                .field("id")
                .value(text)
                .remedy(format!("write {}NUMBER, as answers give it", self.prefix()))
        })
    }

    /// There is no such row in the scopes that the caller sees.
    pub(super) fn missing(self, text: &str) -> Problem {
        let detail = format!(
            "there is no {} {:?} in the scopes looked at",
            self.name(),
            super::problem::shortened(text)
        );
        Problem::new(StatusCode::NOT_FOUND, self.not_found(), detail)
            .field(self.name())
            .value(text)
            .remedy("check the id or name, agent_id, workspace and memory_scope")
    }
}

/// `| version: u8 | last id: u64 LE | tag: first 6 bytes of BLAKE3(query ‖ last id) |`, in base64url.
const CURSOR_BYTES: usize = 15;
const CURSOR_VERSION: u8 = 1;

/// The place after `last` in the pages of `query`: everything that selects and orders them.
pub(super) fn cursor_after(last: u64, query: &str) -> String {
    let mut bytes = [0; CURSOR_BYTES];
    bytes[0] = CURSOR_VERSION;
    bytes[1..9].copy_from_slice(&last.to_le_bytes());
    bytes[9..].copy_from_slice(&tag(last, query));
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

/// The id that a page starts after.
///
/// # Errors
///
/// A [`Problem`] when the cursor is broken or belongs to another query.
pub(super) fn cursor_place(cursor: &str, query: &str) -> Result<u64, Problem> {
    let broken = |detail: &str| {
        Problem::new(StatusCode::BAD_REQUEST, "INVALID_CURSOR", detail).field("cursor").value(cursor).remedy(
            "start again without a cursor, and pass next_cursor on unchanged with the same parameters",
        )
    };
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(cursor).map_err(|_| broken("the cursor is not base64url"))?;
    let bytes: [u8; CURSOR_BYTES] = bytes.try_into().map_err(|_| broken("the cursor has another length"))?;
    if bytes[0] != CURSOR_VERSION {
        return Err(broken("the cursor is of another version"));
    }
    let mut last = [0; 8];
    last.copy_from_slice(&bytes[1..9]);
    let last = u64::from_le_bytes(last);
    if bytes[9..] != tag(last, query) {
        return Err(broken("the cursor is damaged or belongs to a request with other parameters"));
    }
    Ok(last)
}

fn tag(last: u64, query: &str) -> [u8; 6] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(query.as_bytes());
    hasher.update(&last.to_le_bytes());
    let mut tag = [0; 6];
    tag.copy_from_slice(&hasher.finalize().as_bytes()[..6]);
    tag
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test stops at the first surprise")]

    use caxton_events::MemoryId;

    use super::{Row, cursor_after, cursor_place};

    #[test]
    fn an_id_reads_back_and_nothing_else_is_one() {
        assert_eq!(Row::Entity.parse(&Row::Entity.show(MemoryId(12))), Some(MemoryId(12)));
        for text in
            ["ent_", "ent_0", "ent_012", "ent_-1", "ent_1x", "obs_1", "12", "ent_99999999999999999999"]
        {
            assert_eq!(Row::Entity.parse(text), None, "{text}");
        }
        assert_eq!(Row::Relation.in_path("nine").unwrap_err().code(), "INVALID_ID");
    }

    #[test]
    fn a_cursor_reads_back_for_its_own_query_only() {
        for last in [0, 1, 77, u64::MAX] {
            let cursor = cursor_after(last, "entities type=Tool");
            assert_eq!(cursor_place(&cursor, "entities type=Tool").unwrap(), last);
            assert_eq!(cursor_place(&cursor, "entities").unwrap_err().code(), "INVALID_CURSOR");
        }
    }

    #[test]
    fn a_cursor_with_any_flipped_bit_is_refused() {
        let cursor = cursor_after(77, "q").into_bytes();
        for index in 0..cursor.len() {
            for bit in 0..7 {
                let mut bytes = cursor.clone();
                bytes[index] ^= 1 << bit;
                let text = String::from_utf8(bytes).unwrap();
                assert!(cursor_place(&text, "q").is_err(), "{text}");
            }
        }
    }
}
