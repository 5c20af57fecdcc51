//! `[schema_registry]`: where the ids of schemas come from.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context as _;
use smol_str::SmolStr;
use tidewire_runtime::registry::{Credentials, RegistryOptions, RestOptions, SecretFrom, Source, Tls};

use super::super::fields::{Fields, Named};
use super::super::problem::Problems;
use super::super::tree::Table;
use super::SecretSource;

const SECTION: &str = "[schema_registry]";
const PROFILES: [&str; 2] = ["development", "production"];
/// Most milliseconds that one request may take.
const MAX_TIMEOUT_MS: i64 = 120_000;

/// What the table says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryTable {
    /// Addresses, parted by commas. May be missing: then the log's own registry is meant.
    url: Option<SmolStr>,
    production: bool,
    auto_register: Option<bool>,
    username: Option<SmolStr>,
    username_from: Option<SecretSource>,
    password: Option<SecretSource>,
    token: Option<SecretSource>,
    ca_file: Option<SmolStr>,
    certificate_file: Option<SmolStr>,
    key_file: Option<SmolStr>,
    timeout_ms: Option<u64>,
}

impl RegistryTable {
    pub(super) fn read(table: &Table, problems: &mut Problems) -> Self {
        let mut fields = Fields::new(table, SECTION);
        let mut text =
            |name: &'static str, problems: &mut Problems| fields.text(name, problems).map(|named| named.name);
        let (url, username) = (text("url", problems), text("username", problems));
        let ca_file = text("ca_file", problems);
        let (certificate_file, key_file) = (text("certificate_file", problems), text("key_file", problems));
        let said = Self {
            url,
            production: profile(&mut fields, problems),
            auto_register: fields.boolean("auto_register", problems).map(|(yes, _)| yes),
            username,
            username_from: SecretSource::read(&mut fields, "username_env", "username_file", problems),
            password: SecretSource::read(&mut fields, "password_env", "password_file", problems),
            token: SecretSource::read(&mut fields, "token_env", "token_file", problems),
            ca_file,
            certificate_file,
            key_file,
            timeout_ms: fields
                .integer("timeout_ms", 100..=MAX_TIMEOUT_MS, problems)
                .and_then(|ms| u64::try_from(ms).ok()),
        };
        said.check(table, problems);
        fields.finish(problems);
        said
    }

    fn check(&self, table: &Table, problems: &mut Problems) {
        if self.certificate_file.is_some() != self.key_file.is_some() {
            problems.add(&table.place, "`certificate_file` and `key_file` go together");
        }
        if self.username.is_some() && self.username_from.is_some() {
            problems
                .add(&table.place, "`username` and `username_env` or `username_file` are given; one will do");
        }
        let named = self.username.is_some() || self.username_from.is_some();
        if named != self.password.is_some() {
            problems.add(&table.place, "a user name and `password_env` or `password_file` go together");
        }
        if named && self.token.is_some() {
            problems.add(&table.place, "a user name and a token are given; one will do");
        }
    }

    /// The options for a registry, with secrets that are there. `url` of the command line goes before the file's.
    pub fn options(&self, url: Option<&str>) -> anyhow::Result<RegistryOptions> {
        let auto_register = self.auto_register.unwrap_or(!self.production);
        let Some(url) = url.or(self.url.as_deref()) else {
            return Ok(RegistryOptions { source: Source::Log, auto_register });
        };
        let mut rest = RestOptions::new(url.split(','));
        let path = |text: &Option<SmolStr>| text.as_deref().map(PathBuf::from);
        rest.tls = Tls {
            ca_file: path(&self.ca_file),
            certificate_file: path(&self.certificate_file),
            key_file: path(&self.key_file),
        };
        if let Some(ms) = self.timeout_ms {
            rest.timeout = Duration::from_millis(ms);
        }
        rest.credentials = self.credentials().context(SECTION)?;
        let open = rest.urls.iter().any(|url| url.trim_start().starts_with("http://"));
        if open && !matches!(rest.credentials, Credentials::None) {
            tracing::warn!(
                "{SECTION} sends its credentials over http, where anybody on the way can read them"
            );
        }
        Ok(RegistryOptions { source: Source::Rest(rest), auto_register })
    }

    fn credentials(&self) -> anyhow::Result<Credentials> {
        if let Some(token) = &self.token {
            return Ok(Credentials::Bearer(secret(token)?));
        }
        let username = match (&self.username, &self.username_from) {
            (Some(name), _) => Some(SecretFrom::value(name.as_str())),
            (None, Some(source)) => Some(secret(source)?),
            (None, None) => None,
        };
        match (username, &self.password) {
            (Some(username), Some(password)) => {
                Ok(Credentials::Basic { username, password: secret(password)? })
            }
            _ => Ok(Credentials::None),
        }
    }
}

/// A secret that is there now. A file is read again for each request: tokens are replaced while we run.
fn secret(source: &SecretSource) -> anyhow::Result<SecretFrom> {
    let now = source.get()?;
    Ok(match source {
        SecretSource::Variable(_) => SecretFrom::Value(now),
        SecretSource::File(path) => SecretFrom::File(PathBuf::from(path.as_str())),
    })
}

fn profile(fields: &mut Fields<'_>, problems: &mut Problems) -> bool {
    let Some(Named { name, place }) = fields.text("profile", problems) else { return false };
    if !PROFILES.contains(&name.as_str()) {
        problems.add_unknown(&place, "value of `profile`:", &name, PROFILES);
    }
    name == "production"
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::super::load_deployment;
    use super::*;

    fn table(text: &str) -> RegistryTable {
        let text = format!("{SECTION}\n{text}");
        load_deployment("f.toml", &text, Vec::new()).unwrap().schema_registry.unwrap()
    }

    fn problems(text: &str) -> String {
        let text = format!("{SECTION}\n{text}");
        load_deployment("f.toml", &text, Vec::new()).unwrap_err().to_string()
    }

    #[test]
    fn a_whole_table_is_read() {
        let table = table(
            "url = \"https://a:8081, https://b:8081\"\nprofile = \"production\"\nusername = \"u\"\n\
             password_env = \"PATH\"\ntimeout_ms = 500",
        );
        let options = table.options(None).unwrap();
        assert!(!options.auto_register);
        let Source::Rest(rest) = &options.source else { panic!("{options:?}") };
        assert_eq!(rest.urls.len(), 2);
        assert_eq!(rest.timeout, Duration::from_millis(500));
        // No secret is shown, whoever prints the options.
        let shown = format!("{options:?}");
        assert!(!shown.contains(&std::env::var("PATH").unwrap()), "{shown}");
        let other = table.options(Some("http://c:1")).unwrap();
        assert!(matches!(other.source, Source::Rest(rest) if rest.urls == ["http://c:1"]));
    }

    #[test]
    fn without_a_url_the_log_is_meant() {
        let options = table("auto_register = false").options(None).unwrap();
        assert!(matches!(options.source, Source::Log) && !options.auto_register);
        assert!(table("profile = \"development\"").options(None).unwrap().auto_register);
        assert!(table("profile = \"production\"\nauto_register = true").options(None).unwrap().auto_register);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, why) in [
            ("ulr = \"x\"", "the nearest name is `url`"),
            ("profile = \"prod\"", "production"),
            ("username = \"x\"", "go together"),
            ("password = \"x\"", "unknown key"),
            ("token_env = \"A\"\ntoken_file = \"B\"", "one will do"),
            ("username = \"a\"\npassword_env = \"A\"\ntoken_env = \"B\"", "one will do"),
            ("key_file = \"k\"", "go together"),
        ] {
            let said = problems(text);
            assert!(said.contains(why), "{text}: {said}");
        }
        let missing = table("token_env = \"TIDEWIRE_NO_SUCH_VARIABLE\"\nurl = \"https://a\"").options(None);
        let missing = format!("{:#}", missing.unwrap_err());
        assert!(missing.contains("TIDEWIRE_NO_SUCH_VARIABLE"), "{missing}");
    }
}
