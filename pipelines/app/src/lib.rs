//! What the tidewire binary is made of: pipeline files and the commands.

pub mod pipeline;
