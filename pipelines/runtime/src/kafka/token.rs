//! Tokens for OAUTHBEARER.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use tidewire_engine::log::LogError;

use super::foreign;
use super::options::{KafkaOptions, Security};

/// After how long a token that says nothing of its end is read again.
const LIFETIME: Duration = Duration::from_secs(300);

/// Gives a client that was just made its first token, where it needs one. Later ones it asks for itself.
pub fn give<C: ClientContext>(client: &Client<C>, options: &KafkaOptions) -> Result<(), LogError> {
    let security = &options.security;
    if security.mechanism.as_deref() != Some("OAUTHBEARER") {
        return Ok(());
    }
    let token = match TokenFile::of(security) {
        Some(file) => file.read().map_err(|error| LogError::Invalid(error.to_string()))?,
        None => unsecured(security.unsecured_token.as_deref().unwrap_or_default()),
    };
    let refused = |why| LogError::Invalid(format!("the token for OAUTHBEARER is refused: {why}"));
    foreign::set_token(client, &token).map_err(refused)
}

/// A file that something else keeps a fresh token in.
#[derive(Clone, Debug)]
pub struct TokenFile {
    path: String,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file can not be read.
    #[error("token file {path}: {error}")]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        error: std::io::Error,
    },
    /// What is in it is no token.
    #[error("token file {path}: {problem}; it must hold one JSON web token")]
    Malformed {
        /// The file.
        path: String,
        /// What is wrong.
        problem: &'static str,
    },
}

impl TokenFile {
    /// The file that was named, if one was.
    pub fn of(security: &Security) -> Option<Self> {
        security.token_file.clone().map(|path| Self { path })
    }

    /// Reads the token. Who it is for and when it ends stand in its middle part, which is not checked here: the broker
    /// does that.
    pub fn read(&self) -> Result<OAuthToken, TokenError> {
        let path = || self.path.clone();
        let text = std::fs::read_to_string(&self.path)
            .map_err(|error| TokenError::Unreadable { path: path(), error })?;
        let token = text.trim().to_owned();
        let malformed = |problem| TokenError::Malformed { path: path(), problem };
        let payload = token.split('.').nth(1).ok_or_else(|| malformed("there are no dots in it"))?;
        let payload = URL_SAFE_NO_PAD
            .decode(payload.trim_end_matches('='))
            .map_err(|_| malformed("its middle part is not base64url"))?;
        let claims: serde_json::Value =
            serde_json::from_slice(&payload).map_err(|_| malformed("its middle part is no JSON"))?;
        let principal = claims.get("sub").and_then(|sub| sub.as_str()).unwrap_or("tidewire").to_owned();
        let ends_ms = claims.get("exp").and_then(serde_json::Value::as_f64).map(|exp| exp * 1_000.0);
        let lifetime_ms = ends_ms.map_or_else(|| now_ms() + millis(LIFETIME), |ends_ms| ends_ms as i64);
        Ok(OAuthToken { token, principal_name: principal, lifetime_ms })
    }
}

/// A token that nobody signed, for test clusters that take such. `config` may say `principal=NAME`.
pub fn unsecured(config: &str) -> OAuthToken {
    let named = config.split_whitespace().find_map(|part| part.strip_prefix("principal="));
    let principal = named.unwrap_or("tidewire").to_owned();
    let (begins_ms, ends_ms) = (now_ms(), now_ms() + millis(LIFETIME));
    let claims = serde_json::json!({
        "sub": principal,
        "iat": begins_ms / 1_000,
        "exp": ends_ms / 1_000,
    });
    let head = URL_SAFE_NO_PAD.encode(br#"{"alg":"none"}"#);
    let token = format!("{head}.{}.", URL_SAFE_NO_PAD.encode(claims.to_string()));
    OAuthToken { token, principal_name: principal, lifetime_ms: ends_ms }
}

fn now_ms() -> i64 {
    millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_unsecured_token_names_its_principal() {
        let token = unsecured("principal=reader");
        let claims = URL_SAFE_NO_PAD.decode(token.token.split('.').nth(1).unwrap()).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
        assert_eq!(claims["sub"], "reader");
        assert!(token.lifetime_ms > now_ms());
    }
}
