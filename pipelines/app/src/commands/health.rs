//! `tidewire health`: asks a running process how it is.

use std::io::{self, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::cli;

/// Most bytes of an answer.
const MAX_ANSWER_BYTES: u64 = 1 << 20;

/// Prints the reasons and exits with 1 when the process is not well, or does not answer.
///
/// Examples:
///   tidewire health --http 127.0.0.1:9464
///   tidewire health --ready
#[derive(Debug, clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Where the process listens: as `run --http`. Of an address for all interfaces, the loopback one is asked.
    #[arg(long, env = "TIDEWIRE_HTTP", value_name = "ADDR", default_value = "127.0.0.1:9464")]
    http: SocketAddr,
    /// Ask whether every task runs and the log answers (/readyz), not whether the process turns (/healthz).
    #[arg(long)]
    ready: bool,
    /// How many seconds the answer may take.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = clap::value_parser!(u32).range(1..=300))]
    timeout: u32,
}

pub fn run(args: &Args) -> anyhow::Result<u8> {
    let url = format!("http://{}/{}", reachable(args.http), if args.ready { "readyz" } else { "healthz" });
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(Duration::from_secs(args.timeout.into())))
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let mut answer = agent.get(&url).call().with_context(|| format!("{url} does not answer"))?;
    let text = answer.body_mut().with_config().limit(MAX_ANSWER_BYTES).read_to_string();
    let text = text.with_context(|| format!("{url} does not answer in text"))?;
    match answer.status().as_u16() {
        200 | 503 => write!(io::stdout(), "{text}")?,
        status => bail!("{url} answers {status}: is another program listening there?"),
    }
    Ok(if answer.status().is_success() { cli::OK } else { cli::FAILED })
}

/// What `0.0.0.0` listens on can not be asked by that name everywhere.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address.ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::LOCALHOST),
        });
    }
    address
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_address_for_all_interfaces_is_asked_on_loopback() {
        for (given, wanted) in
            [("0.0.0.0:9464", "127.0.0.1:9464"), ("[::]:9464", "[::1]:9464"), ("10.0.0.1:80", "10.0.0.1:80")]
        {
            assert_eq!(reachable(given.parse().unwrap()).to_string(), wanted);
        }
    }
}
