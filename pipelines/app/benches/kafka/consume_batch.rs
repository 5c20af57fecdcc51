//! Batches from the queues of partitions, for which rdkafka has no safe call.

#![allow(unsafe_code, reason = "calls librdkafka, whose wrapper lacks this call")]

use std::ffi::CString;
use std::sync::Arc;

use rdkafka::bindings as sys;
use rdkafka::consumer::{BaseConsumer, Consumer as _};

/// Most messages taken at once.
const BATCH: usize = 1024;

/// The queues of a topic's partitions.
pub struct Batches {
    queues: Vec<*mut sys::rd_kafka_queue_t>,
    messages: Vec<*mut sys::rd_kafka_message_t>,
    /// Keeps the client alive.
    _consumer: Arc<BaseConsumer>,
}

impl Batches {
    pub fn split(consumer: &Arc<BaseConsumer>, topic: &str, partitions: u32) -> Self {
        let topic = CString::new(topic).unwrap();
        let client = consumer.client().native_ptr();
        let queue = |partition: u32| {
            let partition = i32::try_from(partition).unwrap();
            // SAFETY: the client lives as long as the consumer, which this value keeps.
            let queue = unsafe { sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition) };
            assert!(!queue.is_null(), "no queue for partition {partition}");
            // SAFETY: both are valid; a queue that forwards to none keeps its messages for us.
            unsafe { sys::rd_kafka_queue_forward(queue, std::ptr::null_mut()) };
            queue
        };
        let queues = (0..partitions).map(queue).collect();
        Self { queues, messages: vec![std::ptr::null_mut(); BATCH], _consumer: Arc::clone(consumer) }
    }

    /// Hands over the values of what is at hand in a partition. Does not wait: where nothing was at hand in any, the caller
    /// does, or a partition that ended early would slow the others down.
    pub fn take(&mut self, partition: u32, mut each: impl FnMut(&[u8])) {
        let queue = self.queues[usize::try_from(partition).unwrap()];
        // SAFETY: the queue is valid, and there is room for as many messages as are asked for.
        let count = unsafe { sys::rd_kafka_consume_batch_queue(queue, 0, self.messages.as_mut_ptr(), BATCH) };
        for message in self.messages.iter().take(usize::try_from(count).unwrap_or(0)) {
            // SAFETY: the library gave this message to us, and it is given back right below.
            let (error, value) = unsafe {
                let message = &**message;
                let value = match message.payload.is_null() {
                    true => &[][..],
                    false => std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len),
                };
                (message.err, value)
            };
            if error == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                each(value);
            }
            // SAFETY: ours, and not used after.
            unsafe { sys::rd_kafka_message_destroy(*message) };
        }
    }
}

impl Drop for Batches {
    fn drop(&mut self) {
        for queue in &self.queues {
            // SAFETY: taken in `split`, given back once.
            unsafe { sys::rd_kafka_queue_destroy(*queue) };
        }
    }
}
