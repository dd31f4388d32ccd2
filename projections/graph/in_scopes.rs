//! The scopes that rows may be of, as a condition of a statement.

use caxton_events::Scope;
use rusqlite::{Connection, ToSql};

use super::reader::scope_ids;

/// The scopes of a filter with a parameter for each, so that one statement serves as many scopes of any names.
pub(super) struct InScopes(Option<Vec<(String, i64)>>);

impl InScopes {
    /// These scopes; all when empty.
    pub(super) fn of(connection: &Connection, scopes: &[Scope]) -> rusqlite::Result<Self> {
        if scopes.is_empty() {
            return Ok(Self(None));
        }
        let ids = scope_ids(connection, scopes)?.into_iter().enumerate();
        Ok(Self(Some(ids.map(|(number, id)| (format!(":scope{number}"), id)).collect())))
    }

    /// Whether rows of the scope with this number count.
    pub(super) fn hold(&self, scope: i64) -> bool {
        self.0.as_ref().is_none_or(|scopes| scopes.iter().any(|(_, id)| *id == scope))
    }

    /// The condition on rows of `alias`, to stand behind another one. The sign before the column keeps SQLite from finding rows
    /// by it: a scope has more of them than an entity.
    pub(super) fn condition(&self, alias: &str) -> String {
        match self.0.as_deref() {
            None => String::new(),
            Some([]) => " AND 0".to_owned(),
            Some(scopes) => {
                let each: Vec<String> =
                    scopes.iter().map(|(name, _)| format!("+{alias}.scope_id = {name}")).collect();
                format!(" AND ({})", each.join(" OR "))
            }
        }
    }

    /// The parameters of the condition.
    pub(super) fn params(&self) -> impl Iterator<Item = (&str, &dyn ToSql)> {
        self.0.iter().flatten().map(|(name, id)| (name.as_str(), id as &dyn ToSql))
    }
}
