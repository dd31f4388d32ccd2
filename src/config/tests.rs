//! What files, variables and flags make of each other.
