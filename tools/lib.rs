//! Offline programs over a data directory, and makers of input for one: no server, no network, no clock.
//!
//! Every program is a function that returns a value. The value prints for people and serialises as JSON, so the
//! command line decides how it looks and nothing here prints.
//!
//! Reading order: [`log`] (what happened), [`audit`] (who did what and why), [`replay`] (all of it again), [`projection`] (is the
//! state what the log adds up to, and another one in its place), [`backup`] (all of it in another place), [`corpus`] (real
//! packages as memory), [`transfer`] (log, memory and conversations taken elsewhere).

pub mod audit;
pub mod backup;
pub mod benchmark;
pub mod corpus;
mod counted;
pub mod log;
pub mod projection;
pub mod replay;
pub mod transfer;
