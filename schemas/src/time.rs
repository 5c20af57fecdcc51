//! Times: whole microseconds (bodies) and nanoseconds (received) since 1970-01-01T00:00:00Z, leap seconds not counted.

mod text;

pub use text::TimeError;

/// Event time: microseconds since 1970 (UTC). What the body of a record is reckoned by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EventTime(i64);

impl EventTime {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: EventTime = EventTime(0);
    /// The least time there is.
    pub const MIN: EventTime = EventTime(i64::MIN);
    /// The greatest time there is.
    pub const MAX: EventTime = EventTime(i64::MAX);

    /// From microseconds since 1970.
    #[inline]
    pub const fn from_micros(micros: i64) -> EventTime {
        EventTime(micros)
    }

    /// From milliseconds since 1970; beyond the range it is the nearest end.
    #[inline]
    pub const fn from_ms(ms: i64) -> EventTime {
        EventTime(ms.saturating_mul(1_000))
    }

    /// Microseconds since 1970.
    #[inline]
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970, rounded down.
    #[inline]
    pub const fn as_ms(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// Later by that many microseconds; beyond the range it is the nearest end.
    #[inline]
    pub const fn plus_micros(self, micros: i64) -> EventTime {
        EventTime(self.0.saturating_add(micros))
    }

    /// Later by that many milliseconds; beyond the range it is the nearest end.
    #[inline]
    pub const fn plus_ms(self, ms: i64) -> EventTime {
        EventTime(self.0.saturating_add(ms.saturating_mul(1_000)))
    }

    /// Earlier by that many milliseconds; beyond the range it is the nearest end.
    #[inline]
    pub const fn minus_ms(self, ms: i64) -> EventTime {
        EventTime(self.0.saturating_sub(ms.saturating_mul(1_000)))
    }

    /// Microseconds from `earlier` to this time; negative when it is later. Beyond the range it is the nearest end.
    #[inline]
    pub const fn micros_since(self, earlier: EventTime) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// The greatest multiple of `step_micros` since 1970 that is not later; the time itself when the step is not
    /// positive or the multiple is out of range.
    #[inline]
    pub const fn floor_to(self, step_micros: i64) -> EventTime {
        if step_micros <= 0 {
            return self;
        }
        match self.0.checked_sub(self.0.rem_euclid(step_micros)) {
            Some(micros) => EventTime(micros),
            None => self,
        }
    }
}

/// When a record reached us: nanoseconds since 1970 (UTC), from 1677 to 2262.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ReceivedTime(i64);

impl ReceivedTime {
    /// From nanoseconds since 1970.
    #[inline]
    pub const fn from_nanos(nanos: i64) -> ReceivedTime {
        ReceivedTime(nanos)
    }

    /// From milliseconds since 1970; beyond the range it is the nearest end.
    #[inline]
    pub const fn from_ms(ms: i64) -> ReceivedTime {
        ReceivedTime(ms.saturating_mul(1_000_000))
    }

    /// Nanoseconds since 1970.
    #[inline]
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// Milliseconds since 1970, rounded down.
    #[inline]
    pub const fn as_ms(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// As an event time, rounded down to microseconds.
    #[inline]
    pub const fn as_event_time(self) -> EventTime {
        EventTime(self.0.div_euclid(1_000))
    }
}
