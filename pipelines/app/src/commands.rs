//! The commands, one file each.

pub mod backtest;
pub mod bundle;
pub mod check;
pub mod dead_letters;
pub mod demo;
pub mod diff;
pub mod doctor;
pub mod explain;
pub mod health;
pub mod import;
pub mod operators;
pub mod promote;
pub mod reprocess;
pub mod run;
pub mod schemas;
pub mod sink;
pub mod status;
pub mod step;
pub mod tail;
mod taking;
pub mod topics;
pub mod verify;
