//! States made of several, each written on its own.

use crate::state::FlushSink;

/// Declares a state made of several, each written on its own.
#[macro_export]
macro_rules! composite_state {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$fmeta:meta])* $fvis:vis $field:ident : $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Default)]
        $vis struct $name { $($(#[$fmeta])* $fvis $field: $type),* }

        impl $crate::State for $name {
            fn shape(out: &mut $crate::Shape) {
                out.push('{');
                $(
                    out.push_str(concat!(stringify!($field), ":"));
                    <$type as $crate::State>::shape(out);
                    out.push(',');
                )*
                out.push('}');
            }
            fn flush(&mut self, sink: &mut dyn $crate::FlushSink) {
                let mut place = 0_u8;
                $(
                    $crate::State::flush(&mut self.$field, &mut $crate::PartSink::new(place, sink));
                    place += 1;
                )*
                let _ = place;
            }
            fn restore(&mut self, sub: &[u8], value: &[u8], hash: u64) -> Result<(), $crate::PersistError> {
                let Some((part, sub)) = sub.split_first() else {
                    return Err($crate::PersistError("a part without number"));
                };
                let mut place = 0_u8;
                $(
                    if *part == place {
                        return $crate::State::restore(&mut self.$field, sub, value, hash);
                    }
                    place += 1;
                )*
                let _ = (place, sub);
                Err($crate::PersistError("a part that this state does not have"))
            }
            fn list(&self, visit: &mut dyn FnMut(&[u8], &[u8])) {
                let mut part = 0_u8;
                let mut place = Vec::new();
                $(
                    $crate::State::list(&self.$field, &mut |sub, value| {
                        place.clear();
                        place.push(part);
                        place.extend_from_slice(sub);
                        visit(&place, value);
                    });
                    part += 1;
                )*
                let _ = (part, place);
            }
            fn clear(&mut self) {
                $( $crate::State::clear(&mut self.$field); )*
            }
            fn entries(&self) -> usize {
                0 $( + $crate::State::entries(&self.$field) )*
            }
            fn bytes(&self) -> usize {
                0 $( + $crate::State::bytes(&self.$field) )*
            }
        }
    };
}

/// Puts the number of a part before each entry's place; made by [`composite_state!`](crate::composite_state).
pub struct PartSink<'a> {
    part: u8,
    inner: &'a mut dyn FlushSink,
}

impl<'a> PartSink<'a> {
    /// A sink for part `part`.
    pub fn new(part: u8, inner: &'a mut dyn FlushSink) -> Self {
        Self { part, inner }
    }
    fn place(&self, sub: &[u8]) -> Vec<u8> {
        let mut place = Vec::with_capacity(sub.len() + 1);
        place.push(self.part);
        place.extend_from_slice(sub);
        place
    }
}

impl FlushSink for PartSink<'_> {
    fn put(&mut self, sub: &[u8], value: &[u8], old_hash: u64) -> u64 {
        self.inner.put(&self.place(sub), value, old_hash)
    }
    fn remove(&mut self, sub: &[u8], old_hash: u64) {
        self.inner.remove(&self.place(sub), old_hash);
    }
}
