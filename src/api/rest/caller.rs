//! Who asks, and which part of the memory is meant: agent, workspace, scope.

use std::str::FromStr;

use axum::http::HeaderMap;
use caxton_events::{AgentId, Scope, WorkspaceId};

use super::fields::Fields;

/// The agent and the workspace of a request that names none.
const DEFAULT_NAME: &str = "default";

/// Names of members and parameters that say who asks.
pub(super) const CALLER: &[&str] = &["agent_id", "workspace", "memory_scope"];

/// One of the three kinds of scope, as `memory_scope` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScopeKind {
    /// The agent's own.
    Agent,
    /// Its workspace's.
    Workspace,
    /// Everybody's.
    Global,
}

impl ScopeKind {
    /// Every spelling that is accepted.
    pub(super) const WORDS: &[(&str, Self)] = &[
        ("agent", Self::Agent),
        ("workspace", Self::Workspace),
        ("global", Self::Global),
        ("agent-only", Self::Agent),
    ];

    /// The first of its spellings.
    const fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Workspace => "workspace",
            Self::Global => "global",
        }
    }
}

/// Who asks, and the scope that was named.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    /// The agent.
    pub(super) agent: AgentId,
    /// The workspace it works in.
    pub(super) workspace: WorkspaceId,
    /// The scope that the request names.
    pub(super) named: Option<ScopeKind>,
}

impl Caller {
    /// Reads the caller from the parts of a request and its headers; every place that names it must agree.
    pub(super) fn take(parts: &mut [&mut Fields], headers: &HeaderMap) -> Self {
        let agent = agreed(parts, headers, "agent_id", "x-caxton-agent");
        let workspace = agreed(parts, headers, "workspace", "x-caxton-workspace");
        let named = agreed_scope(parts);
        // A name that is not valid has been noted as a complaint; the request ends before the default stands for it.
        Self { agent: agent.unwrap_or_else(default), workspace: workspace.unwrap_or_else(default), named }
    }

    /// The scope of this kind.
    pub(super) fn scope(&self, kind: ScopeKind) -> Scope {
        match kind {
            ScopeKind::Agent => Scope::Agent(self.agent.clone()),
            ScopeKind::Workspace => Scope::Workspace(self.workspace.clone()),
            ScopeKind::Global => Scope::Global,
        }
    }

    /// The scope that the request names.
    pub(super) fn named_scope(&self) -> Option<Scope> {
        self.named.map(|kind| self.scope(kind))
    }

    /// Every scope that the caller may see, most specific first.
    pub(super) fn visible(&self) -> Vec<Scope> {
        [ScopeKind::Agent, ScopeKind::Workspace, ScopeKind::Global].map(|kind| self.scope(kind)).to_vec()
    }

    /// The scopes that a read looks at: the named one, or all that the caller sees.
    pub(super) fn reads(&self) -> Vec<Scope> {
        self.named_scope().map_or_else(|| self.visible(), |scope| vec![scope])
    }

    /// The scope that a write goes to.
    pub(super) fn writes(&self, default: ScopeKind) -> Scope {
        self.scope(self.named.unwrap_or(default))
    }
}

/// `scope` and the ones above it: where the ends of a relation written to it may live. A wider scope never points
/// into a narrower one.
pub(super) fn from_upwards(scope: &Scope, visible: &[Scope]) -> Vec<Scope> {
    visible.iter().skip_while(|other| *other != scope).cloned().collect()
}

#[expect(clippy::expect_used, reason = "the default name is made of letters only")]
pub(super) fn default<T: FromStr<Err: std::fmt::Debug>>() -> T {
    DEFAULT_NAME.parse().expect("letters are a valid name")
}

/// The scope that the members and the parameters name; different ones are a complaint.
fn agreed_scope(parts: &mut [&mut Fields]) -> Option<ScopeKind> {
    let mut agreed: Option<ScopeKind> = None;
    for part in parts.iter_mut() {
        let Some(kind) = part.choice("memory_scope", ScopeKind::WORDS) else { continue };
        match agreed {
            Some(other) if other != kind => {
                let message =
                    format!("is {} here and {} elsewhere in the request", kind.as_str(), other.as_str());
                part.complain("memory_scope", Some(kind.as_str()), &message, "name it once");
            }
            Some(_) => (),
            None => agreed = Some(kind),
        }
    }
    agreed
}

/// The name that the members, the parameters and the header give; different ones are a complaint.
fn agreed<T>(parts: &mut [&mut Fields], headers: &HeaderMap, name: &str, header: &str) -> Option<T>
where
    T: FromStr<Err: std::fmt::Display> + PartialEq + std::fmt::Display,
{
    let mut agreed: Option<T> = None;
    if let Some(value) = headers.get(header) {
        let text = value.to_str().unwrap_or_default();
        match text.parse() {
            Ok(value) => agreed = Some(value),
            Err(error) => {
                if let Some(part) = parts.first_mut() {
                    part.complain(header, Some(text), &error.to_string(), "correct the header");
                }
            }
        }
    }
    for part in parts.iter_mut() {
        let Some(value) = part.parsed::<T>(name) else { continue };
        match &agreed {
            Some(other) if *other != value => {
                let message = format!("is {value} here and {other} elsewhere in the request");
                part.complain(name, Some(&value.to_string()), &message, "name it once");
            }
            Some(_) => (),
            None => agreed = Some(value),
        }
    }
    agreed
}
