//! The keys of the configuration: each is explained, and each does what it says.

mod explain;
