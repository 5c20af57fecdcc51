//! What rdkafka has no safe call for: batches from the queue of one partition, a member's generation, and a token for a
//! client that was only just made.
//!
//! This is the one module with unsafe code. Every pointer it gets is owned by a value here and given back when that
//! is dropped; nothing it hands out points into the library.

#![allow(unsafe_code, reason = "calls librdkafka, whose wrapper lacks these calls")]

use std::ffi::{CStr, CString, c_void};
use std::ptr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use rdkafka::bindings as sys;
use rdkafka::client::{Client, ClientContext, OAuthToken};
use rdkafka::consumer::{BaseConsumer, Consumer as _, ConsumerContext};
use rdkafka::types::RDKafkaErrorCode;
use smol_str::SmolStr;
use tidewire_engine::log::{Header, TopicPartition};
use tidewire_engine::memory::Signal;

/// Most messages taken from a queue at once.
const BATCH_MESSAGES: usize = 1024;

/// Bytes of records that are copied into one piece of memory, which lives until the last of them is dropped.
const ARENA_BYTES: usize = 64 << 10;

/// What a partition's queue held.
#[derive(Debug)]
pub enum Event {
    /// A record.
    Record(RawRecord),
    /// Everything before this offset was read; there is no more that may be read now.
    End(u64),
    /// The partition can not be read.
    Error(RDKafkaErrorCode, String),
}

/// A record as it came.
#[derive(Debug)]
pub struct RawRecord {
    /// Its offset.
    pub offset: u64,
    /// Its timestamp in milliseconds.
    pub timestamp_ms: i64,
    /// Whether the broker set the timestamp when it was appended.
    pub is_append_time: bool,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value.
    pub value: Option<Bytes>,
    /// Its headers; one without a value has an empty one.
    pub headers: Vec<Header>,
}

/// The queue of one partition of a consumer.
pub struct PartitionQueue {
    queue: *mut sys::rd_kafka_queue_t,
    batch: Vec<*mut sys::rd_kafka_message_t>,
    arena: Arena,
    /// What the callback points to: kept until the callback is off.
    _signal: Arc<Signal>,
    /// Keeps the client alive.
    _consumer: Arc<dyn std::any::Any + Send + Sync>,
}

// SAFETY: librdkafka's queues may be used from any thread; `batch` is only touched through `&mut self`.
unsafe impl Send for PartitionQueue {}

impl PartitionQueue {
    /// Parts the queue of `at` from the consumer's own. `signal` is told when it is no longer empty.
    /// `None` when the library does not give it.
    pub fn split<C: ConsumerContext + 'static>(
        consumer: &Arc<BaseConsumer<C>>,
        at: &TopicPartition,
        signal: &Arc<Signal>,
    ) -> Option<Self> {
        let topic = CString::new(at.topic.as_str()).ok()?;
        let partition = i32::try_from(at.partition).ok()?;
        let client = consumer.client().native_ptr();
        // SAFETY: the client lives as long as the consumer, which this value keeps.
        let queue = unsafe { sys::rd_kafka_queue_get_partition(client, topic.as_ptr(), partition) };
        if queue.is_null() {
            return None;
        }
        let signal = Arc::clone(signal);
        // SAFETY: the queue was just made; the signal outlives the callback, which drop takes off first.
        unsafe {
            sys::rd_kafka_queue_forward(queue, ptr::null_mut());
            let opaque = Arc::as_ptr(&signal).cast::<c_void>().cast_mut();
            sys::rd_kafka_queue_cb_event_enable(queue, Some(not_empty), opaque);
        }
        let batch = vec![ptr::null_mut(); BATCH_MESSAGES];
        let arena = Arena::default();
        Some(Self { queue, batch, arena, _signal: signal, _consumer: Arc::clone(consumer) as _ })
    }

    /// Takes what is there, a bounded number, without waiting. Returns false if there was nothing.
    pub fn take(&mut self, mut each: impl FnMut(Event)) -> bool {
        // SAFETY: `batch` has room for as many pointers as are asked for.
        let count = unsafe {
            sys::rd_kafka_consume_batch_queue(self.queue, 0, self.batch.as_mut_ptr(), self.batch.len())
        };
        let count = usize::try_from(count).unwrap_or(0).min(self.batch.len());
        for place in &mut self.batch[..count] {
            let message = std::mem::replace(place, ptr::null_mut());
            // SAFETY: the library gave this message to us, and it is destroyed once.
            unsafe {
                each(event_of(message, &mut self.arena));
                sys::rd_kafka_message_destroy(message);
            }
        }
        count > 0
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: the queue is ours; the callback goes before the signal it points to.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue, None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

/// Called by the library's threads when a queue is no longer empty.
unsafe extern "C" fn not_empty(_: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: `opaque` is the signal of `split`, alive until the callback was taken off.
    let signal = unsafe { &*opaque.cast::<Signal>() };
    signal.notify();
}

unsafe fn event_of(message: *mut sys::rd_kafka_message_t, arena: &mut Arena) -> Event {
    // SAFETY: the caller owns the message.
    let raw = unsafe { &*message };
    let offset = u64::try_from(raw.offset).unwrap_or(0);
    if raw.err == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__PARTITION_EOF {
        return Event::End(offset);
    }
    if raw.err != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        // SAFETY: the text belongs to the message and is copied.
        let words = unsafe { text(sys::rd_kafka_message_errstr(message)) };
        return Event::Error(raw.err.into(), words);
    }
    let mut kind = sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
    // SAFETY: the message is whole; key and payload have the lengths beside them.
    unsafe {
        let timestamp_ms = sys::rd_kafka_message_timestamp(message, &mut kind);
        Event::Record(RawRecord {
            offset,
            timestamp_ms,
            is_append_time: kind == sys::rd_kafka_timestamp_type_t::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME,
            key: arena.copied(raw.key, raw.key_len),
            value: arena.copied(raw.payload, raw.len),
            headers: headers_of(message, arena),
        })
    }
}

unsafe fn headers_of(message: *const sys::rd_kafka_message_t, arena: &mut Arena) -> Vec<Header> {
    let mut list = ptr::null_mut();
    let mut headers = Vec::new();
    // SAFETY: the list belongs to the message; names and values are copied.
    unsafe {
        if sys::rd_kafka_message_headers(message, &mut list)
            != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            return headers;
        }
        let (mut name, mut value, mut size) = (ptr::null(), ptr::null(), 0_usize);
        while sys::rd_kafka_header_get_all(list, headers.len(), &mut name, &mut value, &mut size)
            == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR
        {
            let name = CStr::from_ptr(name).to_string_lossy();
            headers.push((SmolStr::new(name), arena.copied(value, size).unwrap_or_default()));
        }
    }
    headers
}

/// Memory for the bytes of many records: one allocation for all that fit, in place of some for each.
#[derive(Default)]
struct Arena {
    free: BytesMut,
}

impl Arena {
    unsafe fn copied(&mut self, from: *const c_void, size: usize) -> Option<Bytes> {
        if from.is_null() {
            return None;
        }
        if self.free.capacity() < size {
            self.free = BytesMut::with_capacity(size.max(ARENA_BYTES));
        }
        // SAFETY: the caller says that `size` bytes are there.
        self.free.extend_from_slice(unsafe { std::slice::from_raw_parts(from.cast::<u8>(), size) });
        Some(self.free.split().freeze())
    }
}

unsafe fn text(from: *const std::ffi::c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: the caller says that this is a string of the library's.
    unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned()
}

/// Gives a client its token for OAUTHBEARER. The library asks for one by an event, which a client that nobody polls, or that
/// waits for its first answer, never gets.
pub fn set_token<C: ClientContext>(client: &Client<C>, token: &OAuthToken) -> Result<(), String> {
    let no_text = |_| "the token or its principal holds a zero byte".to_owned();
    let value = CString::new(token.token.as_str()).map_err(no_text)?;
    let principal = CString::new(token.principal_name.as_str()).map_err(no_text)?;
    let mut error = [0; 512];
    // SAFETY: the client lives as long as its reference; the texts are copied before the call returns, and the library
    // writes no further than the size it is told.
    let code = unsafe {
        sys::rd_kafka_oauthbearer_set_token(
            client.native_ptr(),
            value.as_ptr(),
            token.lifetime_ms,
            principal.as_ptr(),
            ptr::null_mut(),
            0,
            error.as_mut_ptr(),
            error.len(),
        )
    };
    if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
        return Ok(());
    }
    // SAFETY: the library ends what it writes with a zero byte, and the array began as zeros.
    Err(unsafe { text(error.as_ptr()) })
}

/// Under which name and in which generation a member is in its group now. `None` while it is in none.
pub fn membership<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<(String, u32)> {
    // SAFETY: the metadata is ours until it is destroyed; the name is copied before.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return None;
        }
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        let member = text(sys::rd_kafka_consumer_group_metadata_member_id(metadata));
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        let generation = u32::try_from(generation).ok()?;
        (!member.is_empty()).then_some((member, generation))
    }
}

/// Stands in for a function of librdkafka 2.12.1, by the linker's `--wrap`: it would take new leaders from what a broker
/// says beside an error. Where a broker says that a partition has none just now, as one does that comes up, that function
/// reads memory that was never written (the process dies), or the partition is never served again. Without it leaders are
/// learnt by asking for metadata, as with brokers that say nothing beside errors.
///
/// Upstream: confluentinc/librdkafka issues 5280 and 5430. To be taken out when both are mended.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
extern "C" fn __wrap_rd_kafka_metadata_update_op(_client: *mut sys::rd_kafka_t, _update: *mut c_void) -> i32 {
    // The update is handled, and its memory belongs to who called.
    const HANDLED: i32 = 1;
    HANDLED
}

/// Stands in for a function of librdkafka 2.12.1, by the linker's `--wrap`: it takes back that the client begins again from
/// `bootstrap.servers`. It does so too when the answer that it takes for a sign of life names no broker at all, as that of a
/// broker does that comes up: then the client has just forgotten the last one, and without this stays without any for ever.
/// Beginning again when it was not needed costs a connection.
///
/// To be taken out when it is mended upstream.
#[cfg(target_os = "linux")]
#[unsafe(no_mangle)]
extern "C" fn __wrap_rd_kafka_rebootstrap_tmr_stop(_client: *mut sys::rd_kafka_t) -> i32 {
    // It was not waiting.
    0
}
