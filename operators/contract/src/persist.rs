//! How state becomes bytes, and how a build knows that bytes are of the shape it expects.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use smol_str::SmolStr;
use tidewire_schemas::{Amount, EventTime, Price, Quantity, ReceivedTime};

/// Bytes that are not what the shape says.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("state bytes are malformed: {0}")]
pub struct PersistError(pub &'static str);

/// The text that describes a type's layout; its digest is kept beside the bytes.
pub type Shape = String;

/// A value that can be kept in a changelog.
///
/// Encoding is little-endian, without padding, and the same on every machine. Use [`persist!`](crate::persist)
/// for structs and [`persist_enum!`](crate::persist_enum) for plain enums.
pub trait Persist: Sized + 'static {
    /// Appends this type's layout: field names and types, so that another layout has another text.
    fn shape(out: &mut Shape);
    /// Appends the value.
    fn save(&self, out: &mut Vec<u8>);
    /// Takes a value from the front of `bytes`.
    fn load(bytes: &mut &[u8]) -> Result<Self, PersistError>;
}

/// Takes `count` bytes from the front.
fn take<'a>(bytes: &mut &'a [u8], count: usize) -> Result<&'a [u8], PersistError> {
    if bytes.len() < count {
        return Err(PersistError("cut short"));
    }
    let (head, tail) = bytes.split_at(count);
    *bytes = tail;
    Ok(head)
}

macro_rules! persist_number {
    ($($type:ty),*) => {$(
        impl Persist for $type {
            fn shape(out: &mut Shape) {
                out.push_str(stringify!($type));
            }
            fn save(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_le_bytes());
            }
            fn load(bytes: &mut &[u8]) -> Result<Self, PersistError> {
                let head = take(bytes, size_of::<$type>())?;
                head.try_into().map(<$type>::from_le_bytes).map_err(|_| PersistError("cut short"))
            }
        }
    )*};
}
persist_number!(u8, u16, u32, u64, u128, i8, i16, i32, i64, i128, f32, f64);

macro_rules! persist_newtype {
    ($($type:ty, $inner:ty, $get:ident, $make:expr);*) => {$(
        impl Persist for $type {
            fn shape(out: &mut Shape) {
                out.push_str(stringify!($type));
            }
            fn save(&self, out: &mut Vec<u8>) {
                self.$get().save(out);
            }
            fn load(bytes: &mut &[u8]) -> Result<Self, PersistError> {
                $make(<$inner>::load(bytes)?)
            }
        }
    )*};
}
const BEYOND: PersistError = PersistError("a decimal beyond its range");
persist_newtype!(
    EventTime, i64, as_micros, |us| Ok(EventTime::from_micros(us));
    ReceivedTime, i64, as_nanos, |ns| Ok(ReceivedTime::from_nanos(ns));
    Price, i128, units, |units| Price::from_units(units).map_err(|_| BEYOND);
    Quantity, i128, units, |units| Quantity::from_units(units).map_err(|_| BEYOND);
    Amount, i128, units, |units| Amount::from_units(units).map_err(|_| BEYOND)
);

impl Persist for bool {
    fn shape(out: &mut Shape) {
        out.push_str("bool");
    }
    fn save(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn load(bytes: &mut &[u8]) -> Result<Self, PersistError> {
        match u8::load(bytes)? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(PersistError("a flag that is neither 0 nor 1")),
        }
    }
}

impl Persist for () {
    fn shape(out: &mut Shape) {
        out.push_str("()");
    }
    fn save(&self, _: &mut Vec<u8>) {}
    fn load(_: &mut &[u8]) -> Result<Self, PersistError> {
        Ok(())
    }
}

fn save_len(len: usize, out: &mut Vec<u8>) {
    u32::try_from(len).unwrap_or(u32::MAX).save(out);
}

/// A length, never more than the bytes left could hold.
fn load_len(bytes: &mut &[u8], least_entry: usize) -> Result<usize, PersistError> {
    let len = u32::load(bytes)? as usize;
    if len.saturating_mul(least_entry) > bytes.len() {
        return Err(PersistError("a length beyond the bytes"));
    }
    Ok(len)
}

impl Persist for SmolStr {
    fn shape(out: &mut Shape) {
        out.push_str("string");
    }
    fn save(&self, out: &mut Vec<u8>) {
        save_len(self.len(), out);
        out.extend_from_slice(self.as_bytes());
    }
    fn load(bytes: &mut &[u8]) -> Result<Self, PersistError> {
        let len = load_len(bytes, 1)?;
        let head = take(bytes, len)?;
        std::str::from_utf8(head).map(SmolStr::new).map_err(|_| PersistError("text that is not UTF-8"))
    }
}

impl<T: Persist> Persist for Option<T> {
    fn shape(out: &mut Shape) {
        out.push_str("option<");
        T::shape(out);
        out.push('>');
    }
    fn save(&self, out: &mut Vec<u8>) {
        self.is_some().save(out);
        if let Some(value) = self {
            value.save(out);
        }
    }
    fn load(bytes: &mut &[u8]) -> Result<Self, PersistError> {
        Ok(if bool::load(bytes)? { Some(T::load(bytes)?) } else { None })
    }
}

macro_rules! persist_sequence {
    ($($type:ident),*) => {$(
        impl<T: Persist> Persist for $type<T> {
            fn shape(out: &mut Shape) {
                out.push_str("list<");
                T::shape(out);
                out.push('>');
            }
            fn save(&self, out: &mut Vec<u8>) {
                save_len(self.len(), out);
                self.iter().for_each(|value| value.save(out));
            }
            fn load(bytes: &mut &[u8]) -> Result<Self, PersistError> {
                let len = load_len(bytes, 0)?;
                // Grown as entries are read: a false length can not ask for memory.
                let mut list = $type::new();
                for _ in 0..len {
                    list.extend(std::iter::once(T::load(bytes)?));
                }
                Ok(list)
            }
        }
    )*};
}
persist_sequence!(Vec, VecDeque);

impl<T: Persist + Ord> Persist for BTreeSet<T> {
    fn shape(out: &mut Shape) {
        out.push_str("set<");
        T::shape(out);
        out.push('>');
    }
    fn save(&self, out: &mut Vec<u8>) {
        save_len(self.len(), out);
        self.iter().for_each(|value| value.save(out));
    }
    fn load(bytes: &mut &[u8]) -> Result<Self, PersistError> {
        let len = load_len(bytes, 0)?;
        (0..len).map(|_| T::load(bytes)).collect()
    }
}

impl<K: Persist + Ord, V: Persist> Persist for BTreeMap<K, V> {
    fn shape(out: &mut Shape) {
        out.push_str("map<");
        K::shape(out);
        out.push(',');
        V::shape(out);
        out.push('>');
    }
    fn save(&self, out: &mut Vec<u8>) {
        save_len(self.len(), out);
        for (key, value) in self {
            key.save(out);
            value.save(out);
        }
    }
    fn load(bytes: &mut &[u8]) -> Result<Self, PersistError> {
        let len = load_len(bytes, 0)?;
        (0..len).map(|_| Ok((K::load(bytes)?, V::load(bytes)?))).collect()
    }
}

macro_rules! persist_tuple {
    ($($name:ident . $index:tt),*) => {
        impl<$($name: Persist),*> Persist for ($($name,)*) {
            fn shape(out: &mut Shape) {
                out.push('(');
                $( $name::shape(out); out.push(','); )*
                out.push(')');
            }
            fn save(&self, out: &mut Vec<u8>) {
                $( self.$index.save(out); )*
            }
            fn load(bytes: &mut &[u8]) -> Result<Self, PersistError> {
                Ok(($( $name::load(bytes)?, )*))
            }
        }
    };
}
persist_tuple!(A.0, B.1);
persist_tuple!(A.0, B.1, C.2);

/// Declares a struct that can be kept as state. Fields may be anything that is [`Persist`].
#[macro_export]
macro_rules! persist {
    ($(#[$meta:meta])* $vis:vis struct $name:ident { $($(#[$fmeta:meta])* $fvis:vis $field:ident : $type:ty),* $(,)? }) => {
        $(#[$meta])*
        $vis struct $name { $($(#[$fmeta])* $fvis $field: $type),* }

        impl $crate::Persist for $name {
            fn shape(out: &mut $crate::Shape) {
                out.push_str(concat!(stringify!($name), "{"));
                $(
                    out.push_str(concat!(stringify!($field), ":"));
                    <$type as $crate::Persist>::shape(out);
                    out.push(',');
                )*
                out.push('}');
            }
            fn save(&self, out: &mut Vec<u8>) {
                $( $crate::Persist::save(&self.$field, out); )*
                let _ = out;
            }
            fn load(bytes: &mut &[u8]) -> Result<Self, $crate::PersistError> {
                let _ = &bytes;
                Ok(Self { $($field: $crate::Persist::load(bytes)?),* })
            }
        }
    };
}

/// Makes an enum without data [`Persist`]. Bytes stand for places in this list: add at its end only.
#[macro_export]
macro_rules! persist_enum {
    ($name:ty { $($variant:ident),* $(,)? }) => {
        impl $crate::Persist for $name {
            fn shape(out: &mut $crate::Shape) {
                out.push_str(concat!(stringify!($name), "[", $(stringify!($variant), ",",)* "]"));
            }
            fn save(&self, out: &mut Vec<u8>) {
                let all = [$(Self::$variant),*];
                let place = all.iter().position(|v| v == self).unwrap_or(all.len());
                out.push(u8::try_from(place).unwrap_or(u8::MAX));
            }
            fn load(bytes: &mut &[u8]) -> Result<Self, $crate::PersistError> {
                let all = [$(Self::$variant),*];
                let place = <u8 as $crate::Persist>::load(bytes)?;
                all.get(usize::from(place)).cloned().ok_or($crate::PersistError("an unknown variant"))
            }
        }
    };
}

/// Keeps a record of the schemas as its Avro bytes, in the layout of its schema.
#[macro_export]
macro_rules! persist_record {
    ($($name:ident),* $(,)?) => {$(
        impl $crate::Persist for tidewire_schemas::$name {
            fn shape(out: &mut $crate::Shape) {
                out.push_str(tidewire_schemas::Kind::$name.schema_json());
            }
            fn save(&self, out: &mut Vec<u8>) {
                let mut bytes = Vec::new();
                tidewire_schemas::Body::encode(self, &mut bytes);
                u32::try_from(bytes.len()).unwrap_or(u32::MAX).save(out);
                out.extend_from_slice(&bytes);
            }
            fn load(bytes: &mut &[u8]) -> Result<Self, $crate::PersistError> {
                let len = <u32 as $crate::Persist>::load(bytes)? as usize;
                if len > bytes.len() {
                    return Err($crate::PersistError("a record cut short"));
                }
                let (head, tail) = bytes.split_at(len);
                *bytes = tail;
                tidewire_schemas::Record::decode(tidewire_schemas::Kind::$name, head)
                    .ok()
                    .and_then(|record| Self::try_from(record).ok())
                    .ok_or($crate::PersistError("a record that does not decode"))
            }
        }
    )*};
}
