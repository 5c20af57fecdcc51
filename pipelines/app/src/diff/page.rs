//! The page.

use super::report::Report;

/// The page.
pub fn page(_report: &Report) -> anyhow::Result<String> {
    Ok(String::new())
}
