//! The tidewire binary.
fn main() {}
