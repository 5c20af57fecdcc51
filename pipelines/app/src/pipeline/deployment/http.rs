//! `[http]`: where health and metrics are served.

use std::net::SocketAddr;
use std::time::Duration;

use super::super::fields::Fields;
use super::super::problem::Problems;
use super::super::tree::Table;

/// Longest time that a worker may be given to make a step: an hour.
const MAX_STALL_MS: i64 = 3_600_000;

/// What the table says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpTable {
    /// `listen`: the address; port 0 takes a free one.
    pub listen: Option<SocketAddr>,
    /// `stall_after_ms`: how long a worker may make no step before the process counts as stuck.
    pub stall_after: Option<Duration>,
}

impl HttpTable {
    pub(super) fn read(table: &Table, problems: &mut Problems) -> Self {
        let mut fields = Fields::new(table, "[http]");
        let listen = fields.text("listen", problems).and_then(|named| match named.name.parse() {
            Ok(listen) => Some(listen),
            Err(_) => {
                let text = format!("`listen` is {:?}; it must be an address with a port", named.name);
                problems.add_with_help(
                    &named.place,
                    text,
                    "such as \"127.0.0.1:9464\" or \"[::1]:0\"".to_owned(),
                );
                None
            }
        });
        let stall_ms = fields.integer("stall_after_ms", 1_000..=MAX_STALL_MS, problems);
        fields.finish(problems);
        let stall_after = stall_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
        Self { listen, stall_after }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::load_deployment;

    #[test]
    fn the_table_is_read_and_the_environment_goes_before_it() {
        let text = "[http]\nlisten = \"127.0.0.1:9464\"\nstall_after_ms = 5_000\n";
        let table = load_deployment("f.toml", text, Vec::new()).unwrap().http.unwrap();
        assert_eq!(table.listen.unwrap().to_string(), "127.0.0.1:9464");
        assert_eq!(table.stall_after.unwrap().as_secs(), 5);
        let variables = vec![("TIDEWIRE__HTTP__LISTEN".to_owned(), "[::1]:0".to_owned())];
        for text in [text, ""] {
            let table = load_deployment("f.toml", text, variables.clone()).unwrap().http.unwrap();
            assert_eq!(table.listen.unwrap().to_string(), "[::1]:0");
        }
    }

    #[test]
    fn what_is_wrong_is_said() {
        let problems = |text: &str| load_deployment("f.toml", text, Vec::new()).unwrap_err().to_string();
        assert!(problems("[http]\nlisten = \"9464\"").contains("must be an address with a port"));
        assert!(problems("[http]\nlistn = \"127.0.0.1:1\"").contains("the nearest name is `listen`"));
        assert!(problems("[http]\nstall_after_ms = 5").contains("from 1000 to"));
    }
}
