//! How often a key was used, and when last.
