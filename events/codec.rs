//! Events as bytes.
