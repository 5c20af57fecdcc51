//! Where a Redis is. The address may hold a password, so it is never shown as it is.

use std::fmt;

use redis::parse_redis_url;

/// The address of a Redis: `redis://` or `rediss://` (TLS). Shown without user and password.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisUrl {
    text: String,
    shown: String,
    secrets: Vec<String>,
}

impl RedisUrl {
    /// Reads an address. The error does not repeat it: it may hold a password.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const WRONG: &str =
            "is no address of a Redis: write redis://HOST:PORT/DATABASE, or rediss:// for TLS";
        let text = text.trim();
        if !text.starts_with("redis://") && !text.starts_with("rediss://") {
            return Err(WRONG);
        }
        let url = parse_redis_url(text).ok_or(WRONG)?;
        let host = url.host_str().filter(|host| !host.is_empty()).ok_or(WRONG)?;
        let port = url.port().unwrap_or(6379);
        let path = if url.path() == "/" { "" } else { url.path() };
        let shown = format!("{}://{host}:{port}{path}", url.scheme());
        // The password as it is written in the address, and as it is sent.
        let password = url.password().unwrap_or_default();
        let decoded = percent_decoded(password);
        let secrets = [password.to_owned(), decoded].into_iter().filter(|secret| !secret.is_empty());
        Ok(Self { text: text.to_owned(), shown, secrets: secrets.collect() })
    }

    /// Whether it holds a password.
    pub fn has_password(&self) -> bool {
        !self.secrets.is_empty()
    }

    /// The whole address, for the client alone.
    pub(super) fn secret(&self) -> &str {
        &self.text
    }

    /// A text of the client's or the store's, without what must not be shown.
    pub(super) fn redact(&self, text: &str) -> String {
        let whole = text.replace(&self.text, &self.shown);
        self.secrets.iter().fold(whole, |text, secret| text.replace(secret.as_str(), "***"))
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.shown)
    }
}

impl fmt::Debug for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisUrl({})", self.shown)
    }
}

fn percent_decoded(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let pair = text.get(at + 1..at + 3).and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match pair.filter(|_| bytes[at] == b'%') {
            Some(byte) => {
                out.push(byte);
                at += 3;
            }
            None => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

    use super::*;

    #[test]
    fn a_password_is_never_shown() {
        let url = RedisUrl::parse("redis://me:p%40ss-word@10.0.0.1:7000/3").unwrap();
        assert_eq!(url.to_string(), "redis://10.0.0.1:7000/3");
        assert_eq!(format!("{url:?}"), "RedisUrl(redis://10.0.0.1:7000/3)");
        assert!(url.has_password());
        let said = url.redact("no way to redis://me:p%40ss-word@10.0.0.1:7000/3 by p@ss-word or p%40ss-word");
        assert_eq!(said, "no way to redis://10.0.0.1:7000/3 by *** or ***");
        assert!(!RedisUrl::parse("redis://localhost").unwrap().has_password());
    }

    #[test]
    fn what_is_no_address_is_refused_without_repeating_it() {
        for wrong in
            ["", "localhost:6379", "http://u:hunter2@h", "redis://", "redis:// :hunter2@", "redis+unix:///x"]
        {
            let error = RedisUrl::parse(wrong).unwrap_err();
            assert!(error.contains("redis://HOST:PORT") && !error.contains("hunter2"), "{error}");
        }
    }
}
