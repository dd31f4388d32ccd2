//! The server: what it decides, and how it is reached.

pub mod model;
