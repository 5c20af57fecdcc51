//! Stores that take what the topics hold.
