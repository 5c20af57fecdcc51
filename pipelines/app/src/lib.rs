//! What the tidewire binary is made of: pipeline files, the commands, and what the commands share.

pub mod build;
mod bundle;
pub mod cli;
mod commands;
mod diff;
pub mod doctor;
mod explain;
mod feed;
pub mod files;
pub mod http;
mod interrupt;
mod journal;
mod logging;
mod notes;
pub mod open;
pub mod pipeline;
mod placements;
mod promote;
mod recorded;
pub mod records;
pub mod reprocess;
mod span;
pub mod start;
mod table;
mod topic_check;
pub mod verify;
