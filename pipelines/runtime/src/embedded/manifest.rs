//! Checks the store's lists of its own files before it is opened.
//!
//! The store keeps, for each of its trees, a file `v<number>` with the files that belong to it, and in `current` which
//! number counts and the checksum of that file. It writes the checksum, but its version 3.1 does not look at it: one
//! wrong bit there, and the store opens with files missing. So it is looked at here.
//!
//! `current` is: number u64, checksum u128 (XXH3), kind of checksum u8 = 0; little-endian.

use std::fs;
use std::io;
use std::path::Path;

use tidewire_engine::log::LogError;
use twox_hash::XxHash3_128;

const XXH3: u8 = 0;

/// Refuses a store one of whose lists is damaged. A store that is not there yet is none.
pub(super) fn check(store: &Path) -> Result<(), LogError> {
    let trees = store.join("keyspaces");
    let failed = |at: &Path, error: String| LogError::Store {
        at: format!("checking {}", at.display()),
        error: format!("{error}; restore the log's folder from a copy"),
    };
    let entries = match fs::read_dir(&trees) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries.map_err(|e| failed(&trees, e.to_string()))?,
    };
    for entry in entries {
        let tree = entry.map_err(|e| failed(&trees, e.to_string()))?.path();
        check_tree(&tree).map_err(|error| failed(&tree, error))?;
    }
    Ok(())
}

fn check_tree(tree: &Path) -> Result<(), String> {
    let current = match fs::read(tree.join("current")) {
        // Its making was cut short: the store begins it again.
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        current => current.map_err(|e| format!("its file `current` can not be read: {e}"))?,
    };
    let (number, checksum) = match current.as_chunks::<8>() {
        ([number, low, high], [XXH3]) => (u64::from_le_bytes(*number), [*low, *high].concat()),
        _ => return Err("its file `current` is damaged".to_owned()),
    };
    let name = format!("v{number}");
    let list = fs::read(tree.join(&name)).map_err(|e| format!("its file `{name}` can not be read: {e}"))?;
    match XxHash3_128::oneshot(&list).to_le_bytes() == *checksum {
        true => Ok(()),
        false => Err(format!("its file `{name}` is damaged: the checksum does not match")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use tidewire_engine::log::{Log, TopicSpec};

    use super::super::{EmbeddedLog, EmbeddedOptions};
    use super::*;

    #[test]
    fn every_damaged_byte_of_a_list_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let log = EmbeddedLog::open(dir.path(), EmbeddedOptions::default()).unwrap();
        log.create_topic(&TopicSpec::new("t", 1)).unwrap();
        drop(log);
        let store = dir.path().join("store");
        check(&store).unwrap();
        let mut bytes = 0;
        for tree in fs::read_dir(store.join("keyspaces")).unwrap() {
            let tree = tree.unwrap().path();
            let current = fs::read(tree.join("current")).unwrap();
            let number = u64::from_le_bytes(*current.first_chunk().unwrap());
            for file in [tree.join("current"), tree.join(format!("v{number}"))] {
                let text = fs::read(&file).unwrap();
                for place in 0..text.len() {
                    let mut damaged = text.clone();
                    damaged[place] ^= 0x10;
                    fs::write(&file, damaged).unwrap();
                    let error = check(&store).unwrap_err().to_string();
                    assert!(error.contains("restore the log's folder"), "{error}");
                    bytes += 1;
                }
                fs::write(&file, &text[..text.len() - 1]).unwrap();
                check(&store).unwrap_err();
                fs::write(&file, text).unwrap();
            }
        }
        assert!(bytes > 100);
        fs::write(store.join("keyspaces/0/current"), "").unwrap();
        let error = EmbeddedLog::open(dir.path(), EmbeddedOptions::default()).unwrap_err().to_string();
        assert!(error.contains("`current` is damaged"), "{error}");
    }
}
