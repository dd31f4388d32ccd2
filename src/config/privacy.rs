//! `privacy`: what of the log can be made unreadable.

use super::setting::{choice, section};

section! {
    /// `privacy`: what of the log can be made unreadable.
    pub struct Privacy {
        /// Which payloads are encrypted under keys of their own (`erasure.keys`), so that `caxton erase` can destroy them
        /// everywhere, backups included: `agents`: what agents remember for themselves and what is said in
        /// conversations; `all`: also what workspaces and everybody share. What was written before stays as it is.
        pub encrypt: Encrypt = Encrypt::None;
    }
}

choice! {
    /// Which payloads are encrypted.
    pub enum Encrypt {
        /// None.
        None = "none",
        /// Those of agents and conversations.
        Agents = "agents",
        /// All that concern a scope or a conversation.
        All = "all",
    }
}
