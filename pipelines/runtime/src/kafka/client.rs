//! Clients of the library, all made in one way.

use rdkafka::ClientConfig;
use rdkafka::client::{Client, ClientContext};
use rdkafka::config::FromClientConfigAndContext;
use tidewire_engine::log::LogError;

use super::convert::log_error;
use super::options::KafkaOptions;
use super::token;

/// Makes a client and gives it its first token, which the library asks for by an event that nobody takes before the
/// client is polled. `below` tells where in a `T` the library's client is; `doing` is for errors.
pub fn make<T, C>(
    config: &ClientConfig,
    context: C,
    options: &KafkaOptions,
    doing: &str,
    below: impl FnOnce(&T) -> &Client<C>,
) -> Result<T, LogError>
where
    T: FromClientConfigAndContext<C>,
    C: ClientContext,
{
    let made: T = config.create_with_context(context).map_err(|error| log_error(doing, &error))?;
    token::give(below(&made), options)?;
    Ok(made)
}
