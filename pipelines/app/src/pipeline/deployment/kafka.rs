//! `[kafka]`: the cluster that is the log.

use std::collections::BTreeMap;

use anyhow::Context as _;
use smol_str::SmolStr;
use tidewire_runtime::kafka::{KafkaOptions, LEAST_SESSION_TIMEOUT_MS, Security};

use super::super::fields::{Fields, Named};
use super::super::problem::Problems;
use super::super::tree::{Table, Value};
use super::SecretSource;

/// Most milliseconds of a time-out: what brokers allow by default for transactions.
const MAX_TIMEOUT_MS: i64 = 900_000;
const PROTOCOLS: [&str; 4] = ["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"];
const MECHANISMS: [&str; 4] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"];
const COMPRESSIONS: [&str; 5] = ["none", "lz4", "zstd", "snappy", "gzip"];

/// What the table says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KafkaTable {
    /// `bootstrap`: brokers to ask first. May be missing where the command line has them.
    pub bootstrap: Option<SmolStr>,
    client_id: Option<SmolStr>,
    session_timeout_ms: Option<u64>,
    transaction_timeout_ms: Option<u64>,
    replication_factor: Option<u32>,
    compression: Option<SmolStr>,
    security_protocol: Option<SmolStr>,
    ca_file: Option<SmolStr>,
    certificate_file: Option<SmolStr>,
    key_file: Option<SmolStr>,
    key_password: Option<SecretSource>,
    skip_host_check: bool,
    sasl_mechanism: Option<SmolStr>,
    username: Option<SmolStr>,
    password: Option<SecretSource>,
    token_file: Option<SmolStr>,
    unsecured_token: Option<SmolStr>,
    properties: BTreeMap<String, String>,
}

impl KafkaTable {
    pub(super) fn read(table: &Table, problems: &mut Problems) -> Self {
        let mut fields = Fields::new(table, "[kafka]");
        let fields = &mut fields;
        let said = Self {
            bootstrap: text(fields, "bootstrap", problems),
            client_id: text(fields, "client_id", problems),
            session_timeout_ms: millis(fields, "session_timeout_ms", problems),
            transaction_timeout_ms: millis(fields, "transaction_timeout_ms", problems),
            replication_factor: fields
                .integer("replication_factor", 1..=100, problems)
                .and_then(|number| u32::try_from(number).ok()),
            compression: one_of(fields, "compression", &COMPRESSIONS, problems),
            security_protocol: one_of(fields, "security_protocol", &PROTOCOLS, problems),
            ca_file: text(fields, "ca_file", problems),
            certificate_file: text(fields, "certificate_file", problems),
            key_file: text(fields, "key_file", problems),
            key_password: SecretSource::read(fields, "key_password_env", "key_password_file", problems),
            skip_host_check: fields.boolean("skip_host_check", problems).is_some_and(|(yes, _)| yes),
            sasl_mechanism: one_of(fields, "sasl_mechanism", &MECHANISMS, problems),
            username: text(fields, "username", problems),
            password: SecretSource::read(fields, "password_env", "password_file", problems),
            token_file: text(fields, "token_file", problems),
            unsecured_token: text(fields, "unsecured_token", problems),
            properties: properties(fields, problems),
        };
        said.check(table, problems);
        // `finish` takes the fields, which were borrowed.
        let known = std::mem::replace(fields, Fields::new(table, "[kafka]"));
        known.finish(problems);
        said
    }

    fn check(&self, table: &Table, problems: &mut Problems) {
        if let Some(ms) = self.session_timeout_ms
            && ms < LEAST_SESSION_TIMEOUT_MS
        {
            let text =
                format!("`session_timeout_ms` is {ms}; brokers take {LEAST_SESSION_TIMEOUT_MS} at least");
            problems.add(&table.place, text);
        }
        if self.certificate_file.is_some() != self.key_file.is_some() {
            problems.add(&table.place, "`certificate_file` and `key_file` go together");
        }
        let needs = |mechanism: &str| self.sasl_mechanism.as_deref() == Some(mechanism);
        if (needs("PLAIN") || needs("SCRAM-SHA-256") || needs("SCRAM-SHA-512"))
            && (self.username.is_none() || self.password.is_none())
        {
            let text = "this `sasl_mechanism` needs `username`, and `password_env` or `password_file`";
            problems.add(&table.place, text);
        }
        if needs("OAUTHBEARER") && self.token_file.is_none() && self.unsecured_token.is_none() {
            problems.add(&table.place, "OAUTHBEARER needs `token_file`");
        }
    }

    /// The options for a cluster, secrets read. `bootstrap` of the command line goes before the file's.
    pub fn options(&self, bootstrap: Option<&str>) -> anyhow::Result<Option<KafkaOptions>> {
        let Some(bootstrap) = bootstrap.or(self.bootstrap.as_deref()) else { return Ok(None) };
        self.check_files()?;
        let mut options = KafkaOptions::new(bootstrap);
        let owned = |text: &Option<SmolStr>| text.as_ref().map(SmolStr::to_string);
        if let Some(id) = &self.client_id {
            options.client_id = id.to_string();
        }
        if let Some(compression) = &self.compression {
            options.compression = compression.to_string();
        }
        options.session_timeout_ms = self.session_timeout_ms.unwrap_or(options.session_timeout_ms);
        options.transaction_timeout_ms =
            self.transaction_timeout_ms.unwrap_or(options.transaction_timeout_ms);
        options.replication_factor = self.replication_factor;
        options.properties.clone_from(&self.properties);
        options.security = Security {
            protocol: owned(&self.security_protocol),
            ca_file: owned(&self.ca_file),
            certificate_file: owned(&self.certificate_file),
            key_file: owned(&self.key_file),
            key_password: self.key_password.as_ref().map(SecretSource::get).transpose()?,
            skip_host_check: self.skip_host_check,
            mechanism: owned(&self.sasl_mechanism),
            username: owned(&self.username),
            password: self.password.as_ref().map(SecretSource::get).transpose()?,
            token_file: owned(&self.token_file),
            unsecured_token: owned(&self.unsecured_token),
        };
        Ok(Some(options))
    }
}

impl KafkaTable {
    /// The library would say what is wrong with a file, but not which one.
    fn check_files(&self) -> anyhow::Result<()> {
        for (key, path) in [
            ("ca_file", &self.ca_file),
            ("certificate_file", &self.certificate_file),
            ("key_file", &self.key_file),
            ("token_file", &self.token_file),
        ] {
            if let Some(path) = path {
                std::fs::File::open(path.as_str())
                    .with_context(|| format!("`{key}` of [kafka]: {path} can not be read"))?;
            }
        }
        Ok(())
    }
}

fn text(fields: &mut Fields<'_>, name: &'static str, problems: &mut Problems) -> Option<SmolStr> {
    fields.text(name, problems).map(|named| named.name)
}

fn millis(fields: &mut Fields<'_>, name: &'static str, problems: &mut Problems) -> Option<u64> {
    fields.integer(name, 1_000..=MAX_TIMEOUT_MS, problems).and_then(|ms| u64::try_from(ms).ok())
}

fn one_of(
    fields: &mut Fields<'_>,
    name: &'static str,
    known: &[&'static str],
    problems: &mut Problems,
) -> Option<SmolStr> {
    let Named { name: found, place } = fields.text(name, problems)?;
    if known.contains(&found.as_str()) {
        return Some(found);
    }
    problems.add_unknown(&place, &format!("value of `{name}`:"), &found, known.iter().copied());
    None
}

fn properties(fields: &mut Fields<'_>, problems: &mut Problems) -> BTreeMap<String, String> {
    let Some(table) = fields.table("properties", problems) else { return BTreeMap::new() };
    let mut properties = BTreeMap::new();
    for entry in &table.entries {
        if let Err(why) = KafkaOptions::check_property(&entry.name) {
            problems.add(&entry.name_place, why);
            continue;
        }
        let value = match &entry.node.value {
            Value::Text(text) => text.clone(),
            Value::Integer(number) => number.to_string(),
            Value::Float(number) => number.to_string(),
            Value::Boolean(yes) => yes.to_string(),
            other => {
                let text =
                    format!("`{}` must be text, a number, true or false, not {}", entry.name, other.what());
                problems.add(&entry.node.place, text);
                continue;
            }
        };
        properties.insert(entry.name.to_string(), value);
    }
    properties
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::super::load_deployment;

    fn problems(text: &str) -> String {
        load_deployment("f.toml", text, Vec::new()).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_table_is_read() {
        let text = "
            [pipeline]
            name = \"passed over\"
            [kafka]
            bootstrap = \"a:1,b:2\"
            session_timeout_ms = 6_000
            sasl_mechanism = \"SCRAM-SHA-512\"
            username = \"reader\"
            password_env = \"PATH\"
            ca_file = \"Cargo.toml\"
            [kafka.properties]
            \"socket.timeout.ms\" = 5_000
        ";
        let table = load_deployment("f.toml", text, Vec::new()).unwrap().kafka.unwrap();
        let options = table.options(None).unwrap().unwrap();
        assert_eq!(options.bootstrap, "a:1,b:2");
        assert_eq!(options.security.protocol(), "sasl_ssl");
        assert_eq!(options.properties["socket.timeout.ms"], "5000");
        assert_eq!(table.options(Some("c:3")).unwrap().unwrap().bootstrap, "c:3");
    }

    #[test]
    fn what_is_wrong_is_said() {
        assert!(problems("[kafka]\nbotstrap = \"a:1\"").contains("the nearest name is `bootstrap`"));
        assert!(problems("[kafka]\nsession_timeout_ms = 1_000").contains("brokers take 6000 at least"));
        assert!(problems("[kafka]\nsasl_mechanism = \"PLAIN\"").contains("needs `username`"));
        assert!(problems("[kafka]\npassword_env = \"A\"\npassword_file = \"B\"").contains("one will do"));
        assert!(
            problems("[kafka.properties]\n\"isolation.level\" = \"x\"").contains("set by Tidewire itself")
        );
        assert!(problems("[kafka]\npassword = \"x\"").contains("unknown key"));
    }
}
