//! What the answers of a Redis mean.

use redis::{ErrorKind, RedisError, ServerErrorKind};

/// What is to be done about an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Try again later.
    Retry,
    /// Load the script again: the store was restarted, or its scripts were flushed.
    NoScript,
    /// This record can not be written.
    Refuse,
    /// Somebody must change something.
    Stop,
}

/// Codes of errors that pass: full, loading, a replica in a failover, a script of somebody else's, a disk that failed.
const PASSING: [&str; 10] = [
    "OOM",
    "LOADING",
    "BUSY",
    "READONLY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "NOREPLICAS",
    "MISCONF",
    "UNKILLABLE",
];

pub(super) fn verdict(error: &RedisError) -> Verdict {
    let code = error.code().unwrap_or_default();
    if error.kind() == ErrorKind::Server(ServerErrorKind::NoScript) {
        return Verdict::NoScript;
    }
    // Errors inside of a script keep their code from Redis 7 on, and are told in the text before.
    let text = || error.detail().unwrap_or_default();
    if PASSING.contains(&code) || (code == "ERR" && text().contains("OOM command not allowed")) {
        return Verdict::Retry;
    }
    if code == "ERR" && text().contains("max number of clients") {
        return Verdict::Retry;
    }
    if code == "WRONGTYPE" || text().contains("WRONGTYPE") {
        return Verdict::Refuse;
    }
    match error.kind() {
        ErrorKind::Io | ErrorKind::Parse => Verdict::Retry,
        _ => Verdict::Stop,
    }
}

/// What somebody could change, by the code of an error.
pub(super) fn advice(error: &RedisError) -> &'static str {
    let (code, text) = (error.code().unwrap_or_default(), error.to_string());
    if error.kind() == ErrorKind::AuthenticationFailed || code == "WRONGPASS" || text.contains("WRONGPASS") {
        return "; check the user and password of the sink's address";
    }
    match code {
        "NOAUTH" => {
            "; the store wants a password: give the sink an address with one (`url_env` or `url_file`)"
        }
        "NOPERM" => {
            "; the user needs +script|load, +evalsha, +ping, +hmget, +hset, +del, +pexpire and +persist on the sink's keys"
        }
        _ => "",
    }
}
