//! A tonic service behind Tollgate.
fn main() {}
