//! One request: addresses in turn, credentials, time-outs, and what an answer means.

use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::DeserializeOwned;
use serde_json::Value;
use ureq::Agent;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, TlsProvider, parse_pem};

use crate::registry::{Credentials, RegistryError, RestOptions, Tls};

/// Longest answer.
const MAX_ANSWER_BYTES: u64 = 16 << 20;
/// The wait after the first round in which no address answered; it doubles with each.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Most of these waits are this long.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Most of an answer that is shown in an error.
const MAX_SHOWN: usize = 300;

const CONTENT_TYPE: &str = "application/vnd.schemaregistry.v1+json";
const ACCEPT: &str = "application/vnd.schemaregistry.v1+json, application/json";

/// What a registry answered.
pub(super) struct Reply {
    /// HTTP status.
    pub status: u16,
    /// The body as JSON; null if it is none.
    pub value: Value,
    text: String,
    request: String,
}

pub(super) struct Client {
    agent: Agent,
    /// Without a slash at the end.
    urls: Vec<String>,
    place: String,
    credentials: Credentials,
    rounds: usize,
    /// The address that answered last.
    current: AtomicUsize,
}

impl Client {
    pub fn new(options: &RestOptions) -> Result<Self, RegistryError> {
        let urls: Vec<String> =
            options.urls.iter().map(|url| url.trim().trim_end_matches('/').into()).collect();
        if urls.is_empty() {
            return Err(RegistryError::Settings("url: there is no address".to_owned()));
        }
        urls.iter().try_for_each(|url| check_url(url))?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(options.timeout))
            .max_redirects(3)
            .user_agent(concat!("tidewire/", env!("CARGO_PKG_VERSION")))
            .tls_config(tls(&options.tls)?)
            .build()
            .new_agent();
        Ok(Self {
            agent,
            place: urls.join(", "),
            urls,
            credentials: options.credentials.clone(),
            rounds: options.rounds.max(1),
            current: AtomicUsize::new(0),
        })
    }

    pub fn place(&self) -> &str {
        &self.place
    }

    pub fn get(&self, path: &str) -> Result<Reply, RegistryError> {
        self.ask(path, None)
    }

    pub fn post(&self, path: &str, body: &Value) -> Result<Reply, RegistryError> {
        self.ask(path, Some(body))
    }

    /// Asks one address after the other, until one answers. Every request here may be sent twice: to register what is
    /// registered changes nothing.
    fn ask(&self, path: &str, body: Option<&Value>) -> Result<Reply, RegistryError> {
        let first = self.current.load(Ordering::Relaxed);
        let mut pause = FIRST_PAUSE;
        let mut last = String::new();
        for round in 0..self.rounds {
            if round > 0 {
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            for step in 0..self.urls.len() {
                let place = (first + step) % self.urls.len();
                match self.ask_one(&self.urls[place], path, body) {
                    Ok(reply) if reply.status < 500 && reply.status != 429 => {
                        self.current.store(place, Ordering::Relaxed);
                        return self.judge(&self.urls[place], reply);
                    }
                    Ok(reply) => {
                        last = format!("{}: status {}: {}", self.urls[place], reply.status, reply.message())
                    }
                    Err(Failed::Settings(problem)) => return Err(RegistryError::Settings(problem)),
                    Err(Failed::Transport(error)) => last = format!("{}: {error}", self.urls[place]),
                }
            }
        }
        Err(RegistryError::Unreachable { tries: self.rounds * self.urls.len(), error: last })
    }

    fn judge(&self, url: &str, reply: Reply) -> Result<Reply, RegistryError> {
        match reply.status {
            401 | 403 => Err(RegistryError::Denied { place: url.to_owned(), status: reply.status }),
            _ => Ok(reply),
        }
    }

    fn ask_one(&self, url: &str, path: &str, body: Option<&Value>) -> Result<Reply, Failed> {
        let target = format!("{url}{path}");
        let authorization = self.authorization().map_err(Failed::Settings)?;
        let answer = match body {
            None => {
                let mut request = self.agent.get(&target).header("Accept", ACCEPT);
                if let Some(authorization) = authorization {
                    request = request.header("Authorization", authorization);
                }
                request.call()
            }
            Some(body) => {
                let mut request = self.agent.post(&target).header("Accept", ACCEPT);
                if let Some(authorization) = authorization {
                    request = request.header("Authorization", authorization);
                }
                request.header("Content-Type", CONTENT_TYPE).send(body.to_string())
            }
        };
        let mut answer = answer.map_err(|error| Failed::Transport(error.to_string()))?;
        let status = answer.status().as_u16();
        let bytes = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_vec();
        let bytes = bytes.map_err(|error| Failed::Transport(error.to_string()))?;
        let method = if body.is_some() { "POST" } else { "GET" };
        Ok(Reply {
            status,
            value: serde_json::from_slice(&bytes).unwrap_or(Value::Null),
            text: String::from_utf8_lossy(&bytes).into_owned(),
            request: format!("{method} {target}"),
        })
    }

    fn authorization(&self) -> Result<Option<String>, String> {
        match &self.credentials {
            Credentials::None => Ok(None),
            Credentials::Basic { username, password } => {
                let (username, password) = (username.get()?, password.get()?);
                Ok(Some(format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))))
            }
            Credentials::Bearer(token) => Ok(Some(format!("Bearer {}", token.get()?))),
        }
    }
}

enum Failed {
    Transport(String),
    Settings(String),
}

impl Reply {
    /// Reads the answer, which must be a good one.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, RegistryError> {
        if !(200..300).contains(&self.status) {
            return Err(self.wrong(format!("status {}: {}", self.status, self.message())));
        }
        T::deserialize(&self.value).map_err(|error| {
            let shown: String = self.text.chars().take(MAX_SHOWN).collect();
            self.wrong(format!("{error}; is this the address of a schema registry? It said {shown:?}"))
        })
    }

    /// What the registry says is wrong.
    pub fn message(&self) -> String {
        match self.value.get("message").and_then(Value::as_str) {
            Some(message) => message.chars().take(16 * MAX_SHOWN).collect(),
            None => self.text.chars().take(MAX_SHOWN).collect(),
        }
    }

    /// An error about this answer.
    pub fn wrong(&self, problem: String) -> RegistryError {
        RegistryError::Answer { request: self.request.clone(), problem }
    }
}

/// Addresses are shown in errors, so they must not hold a password.
fn check_url(url: &str) -> Result<(), RegistryError> {
    let settings = |problem: String| Err(RegistryError::Settings(problem));
    let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
    let Some(rest) = rest else {
        // It is not shown: whatever it is, it may hold a password.
        return settings("url: an address begins with http:// or https://".to_owned());
    };
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if host.contains('@') {
        return settings(
            "url: an address holds a user or password: use `username_env`, `password_env` instead".to_owned(),
        );
    }
    if host.is_empty() || rest.contains(['?', '#']) {
        return settings("url: not the address of a registry, as in http://localhost:8081".to_owned());
    }
    Ok(())
}

fn tls(tls: &Tls) -> Result<TlsConfig, RegistryError> {
    let mut config = TlsConfig::builder().provider(TlsProvider::NativeTls);
    config = config.root_certs(match &tls.ca_file {
        None => RootCerts::PlatformVerifier,
        Some(file) => RootCerts::new_with_certs(&pem(file)?.0),
    });
    match (&tls.certificate_file, &tls.key_file) {
        (None, None) => {}
        (Some(certificate), Some(key)) => {
            let (chain, _) = pem(certificate)?;
            let (_, Some(key)) = pem(key)? else {
                return Err(RegistryError::Settings(format!("key_file: {} holds no key", key.display())));
            };
            config = config.client_cert(Some(ClientCert::new_with_certs(&chain, key)));
        }
        _ => {
            let problem = "certificate_file and key_file go together".to_owned();
            return Err(RegistryError::Settings(problem));
        }
    }
    Ok(config.build())
}

/// Certificates and key of a PEM file.
fn pem(file: &Path) -> Result<(Vec<Certificate<'static>>, Option<PrivateKey<'static>>), RegistryError> {
    let settings = |problem: String| RegistryError::Settings(format!("{}: {problem}", file.display()));
    let bytes = std::fs::read(file).map_err(|error| settings(error.to_string()))?;
    let (mut certificates, mut key) = (Vec::new(), None);
    for item in parse_pem(&bytes) {
        match item.map_err(|error| settings(error.to_string()))? {
            PemItem::Certificate(certificate) => certificates.push(certificate),
            PemItem::PrivateKey(found) => key = Some(found),
            _ => {}
        }
    }
    if certificates.is_empty() && key.is_none() {
        return Err(settings("it holds neither a certificate nor a key in PEM".to_owned()));
    }
    Ok((certificates, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_holds_no_secret() {
        for (url, why) in [
            ("http://user:hunter2@host:1", "password"),
            ("ftp://hunter2", "begins with"),
            ("http://", "begins with"),
            ("http:///x", "not the address"),
            ("http://host/?token=hunter2", "not the address"),
        ] {
            let problem = RestOptions::new([url]);
            let problem = Client::new(&problem).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(problem.contains(why) && !problem.contains("hunter2"), "{url}: {problem}");
        }
        assert!(Client::new(&RestOptions::new(["https://host:8081/base/", "http://other"])).is_ok());
    }
}
