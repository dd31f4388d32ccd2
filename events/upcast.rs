//! Old bytes as today's events.
