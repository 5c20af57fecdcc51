//! What the library calls back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use rdkafka::client::{ClientContext, OAuthToken};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;
use rdkafka::types::RDKafkaRespErr;
use rdkafka::{Message as _, Offset, TopicPartitionList};
use tidewire_engine::memory::Signal;

use super::convert::words;
use super::options::KafkaOptions;
use super::token::{self, TokenFile};

/// Logs, and the last word of the library on why the cluster can not be reached.
#[derive(Clone, Default)]
pub struct Quiet {
    token: Option<TokenFile>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Quiet {
    /// For clients with these options.
    pub fn of(options: &KafkaOptions) -> Self {
        Self { token: TokenFile::of(&options.security), trouble: Arc::default() }
    }

    /// A refusal says more than that a connection broke, which follows from it.
    fn keep_trouble(&self, reason: &str) {
        let refused = |text: &str| ["SASL", "SSL", "certificate"].iter().any(|word| text.contains(word));
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.as_deref().is_none_or(|kept| refused(reason) || !refused(kept)) {
            *trouble = Some(reason.to_owned());
        }
    }

    /// What the library said last of why it can not go on, if anything.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ClientContext for Quiet {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        use RDKafkaLogLevel as Level;
        if fac == LOST {
            // Told again with every attempt: who waits for the cluster gets it with the error.
            tracing::info!(target: "tidewire_kafka", fac, "{message}");
            self.keep_trouble(reason_of(message));
            return;
        }
        match level {
            Level::Emerg | Level::Alert | Level::Critical | Level::Error => {
                tracing::warn!(target: "tidewire_kafka", fac, "{message}");
            }
            Level::Warning | Level::Notice => tracing::info!(target: "tidewire_kafka", fac, "{message}"),
            Level::Info | Level::Debug => tracing::debug!(target: "tidewire_kafka", fac, "{message}"),
        }
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::info!(target: "tidewire_kafka", error = %words(&error), "{reason}");
        let kept = matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::Authentication
                    | RDKafkaErrorCode::SSL
                    | RDKafkaErrorCode::Resolve
                    | RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
            )
        );
        // That all brokers are down says less than why the last one was.
        if kept
            && (error.rdkafka_error_code() != Some(RDKafkaErrorCode::AllBrokersDown)
                || self.trouble().is_none())
        {
            self.keep_trouble(reason_of(reason));
        }
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        match &self.token {
            Some(file) => Ok(file.read()?),
            None => Ok(token::unsecured(config.unwrap_or_default())),
        }
    }
}

/// What the library marks connections by that could not be made or broke.
const LOST: &str = "FAIL";

/// The reason in a line of the library's log: without the thread before it and the counts behind it.
fn reason_of(message: &str) -> &str {
    let reason =
        message.strip_prefix("[thrd:").and_then(|rest| rest.split_once("]: ")).map_or(message, |it| it.1);
    reason.rfind(" (after ").map_or(reason, |end| &reason[..end])
}

impl ConsumerContext for Quiet {}

/// What an append waits for.
#[derive(Debug, Default)]
pub struct Delivered {
    state: Mutex<(usize, Option<i64>, Option<KafkaError>)>,
}

impl Delivered {
    /// How many came back, the least offset, and the first error.
    pub fn get(&self) -> (usize, Option<i64>, Option<KafkaError>) {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = Arc<Delivered>;

    fn delivery(&self, result: &DeliveryResult<'_>, delivered: Arc<Delivered>) {
        let mut state = delivered.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 += 1;
        match result {
            Ok(message) => {
                let offset = message.offset();
                state.1 = Some(state.1.map_or(offset, |least: i64| least.min(offset)));
            }
            Err((error, _)) => {
                state.2.get_or_insert_with(|| error.clone());
            }
        }
    }
}

/// What a member was told of its tasks.
#[derive(Debug, Default)]
pub struct Placement {
    /// Partitions held, those asked back among them.
    pub held: Vec<i32>,
    /// Partitions asked back, not yet given up.
    pub asked_back: Vec<i32>,
    /// Counts what changed.
    pub changes: u64,
}

/// The context of a member of a group.
pub struct Places {
    quiet: Quiet,
    /// What is held.
    pub placement: Mutex<Placement>,
    /// Set when the member leaves: then nothing is held back.
    pub leaves: AtomicBool,
    /// Told of every change.
    pub signal: Arc<Signal>,
}

impl Places {
    /// Nothing is held yet.
    pub fn new(options: &KafkaOptions, signal: &Arc<Signal>) -> Self {
        Self {
            quiet: Quiet::of(options),
            placement: Mutex::default(),
            leaves: AtomicBool::new(false),
            signal: Arc::clone(signal),
        }
    }
}

impl ClientContext for Places {
    const ENABLE_REFRESH_OAUTH_TOKEN: bool = true;

    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        self.quiet.log(level, fac, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.quiet.error(error, reason);
    }

    fn generate_oauth_token(&self, config: Option<&str>) -> Result<OAuthToken, Box<dyn std::error::Error>> {
        self.quiet.generate_oauth_token(config)
    }
}

impl ConsumerContext for Places {
    /// Takes what is given at once, paused: the data comes by other ways. What is asked back is only noted, so that
    /// its state is written first; [`super::member`] gives it up. What was lost is gone already.
    fn rebalance(&self, consumer: &BaseConsumer<Self>, error: RDKafkaRespErr, list: &mut TopicPartitionList) {
        let partitions: Vec<i32> = list.elements().iter().map(|element| element.partition()).collect();
        let mut placement = self.placement.lock().unwrap_or_else(PoisonError::into_inner);
        placement.changes += 1;
        let lost = consumer.assignment_lost() || self.leaves.load(Ordering::SeqCst);
        let done = match error {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS => {
                tracing::info!(?partitions, "tasks were given to this worker");
                placement.held.extend(&partitions);
                placement.held.sort_unstable();
                placement.held.dedup();
                let _ = list.set_all_offsets(Offset::End);
                consumer.incremental_assign(list).and_then(|()| consumer.pause(list))
            }
            _ if lost || partitions.is_empty() => {
                tracing::info!(?partitions, "tasks were lost");
                placement.held.retain(|partition| !partitions.contains(partition));
                placement.asked_back.retain(|partition| !partitions.contains(partition));
                consumer.incremental_unassign(list)
            }
            _ => {
                tracing::info!(?partitions, "tasks are asked back");
                placement.asked_back.extend(&partitions);
                Ok(())
            }
        };
        if let Err(error) = done {
            tracing::warn!(error = %words(&error), ?partitions, "a change of tasks was not taken by the library");
        }
        self.signal.notify();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_kept_without_what_is_around_it() {
        let line = "[thrd:ssl://a:1/bootstrap]: ssl://a:1/bootstrap: SSL handshake failed: bad (after 4ms in state X)";
        assert_eq!(reason_of(line), "ssl://a:1/bootstrap: SSL handshake failed: bad");
        assert_eq!(reason_of("plain words"), "plain words");
        let quiet = Quiet::default();
        quiet.keep_trouble("Connect to ipv4#127.0.0.1:1 failed");
        quiet.keep_trouble("SASL authentication error");
        quiet.keep_trouble("Disconnected");
        assert_eq!(quiet.trouble().as_deref(), Some("SASL authentication error"));
    }
}
