//! Agents that run inside the server: what they are told, how they answer, and when.
//!
//! Reading order: [`spec`] (what an agent is made of), [`turn`] and [`reply`] (one message, as a state machine
//! without input and output), [`prompt`] and [`context`] (what the model reads), [`ports`] (what a turn needs from
//! the rest of the server), [`runner`] (one message, with the world attached), [`queues`], [`batching`] and
//! [`circuit`] (who is next), [`scheduler`] (all of it together).

pub mod batching;
pub mod circuit;
pub mod context;
pub mod ports;
pub mod prompt;
pub mod queues;
pub mod reply;
pub mod runner;
pub mod scheduler;
pub mod spec;
pub mod turn;

#[cfg(test)]
mod scripted;
