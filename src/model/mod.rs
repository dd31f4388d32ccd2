//! Getting the embedding model onto this machine.
