//! What the messages say: letters that no compression makes smaller, different in each message.

use std::sync::Arc;

/// Bytes of what one message says.
pub(crate) const BYTES: usize = 1_024;
/// Letters that messages are cut out of.
const POOL: usize = 4 << 20;
/// Agents that send and get messages.
pub(crate) const AGENTS: usize = 1_000;

/// Where messages are cut out of; each clone goes its own way.
#[derive(Clone)]
pub(crate) struct Payloads {
    pool: Arc<[u8]>,
    state: u64,
}

impl Payloads {
    pub(crate) fn new() -> Self {
        let mut state = 0x9e37_79b9_7f4a_7c15;
        let pool = (0..POOL).map(|_| b'a' + (step(&mut state) % 26) as u8).collect();
        Self { pool, state }
    }

    /// The same letters in an order of their own.
    pub(crate) fn of(&self, connection: usize) -> Self {
        let state = self.state ^ (connection as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95) | 1;
        Self { pool: Arc::clone(&self.pool), state }
    }

    /// What the next message says.
    pub(crate) fn text(&mut self) -> &[u8] {
        let at = step(&mut self.state) as usize % (POOL - BYTES);
        &self.pool[at..at + BYTES]
    }

    /// Who gets the next message.
    pub(crate) fn agent(&mut self) -> usize {
        step(&mut self.state) as usize % AGENTS
    }
}

fn step(state: &mut u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 11
}
