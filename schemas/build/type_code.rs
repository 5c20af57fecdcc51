//! Rust code for one type: its name, how it is read and how it is written.

use crate::model::{Model, Type};

/// The Rust type.
pub fn rust_type(ty: &Type) -> String {
    match ty {
        Type::Boolean => "bool".into(),
        Type::Int => "i32".into(),
        Type::Long => "i64".into(),
        Type::Double => "f64".into(),
        Type::String => "SmolStr".into(),
        Type::Bytes => "Bytes".into(),
        Type::EventTime => "EventTime".into(),
        Type::ReceivedTime => "ReceivedTime".into(),
        Type::Decimal(name) | Type::Named(name) => name.clone(),
        Type::Array(t) => format!("Vec<{}>", rust_type(t)),
        Type::Map(t) => format!("BTreeMap<SmolStr, {}>", rust_type(t)),
        Type::Optional(t) => format!("Option<{}>", rust_type(t)),
    }
}

/// An expression that reads the type from the cursor `c`; a `Result`.
pub fn decode(ty: &Type) -> String {
    match ty {
        Type::Boolean => "c.boolean()".into(),
        Type::Int => "c.int()".into(),
        Type::Long => "c.long()".into(),
        Type::Double => "c.double()".into(),
        Type::String => "c.string()".into(),
        Type::Bytes => "c.bytes()".into(),
        Type::EventTime => "c.long().map(EventTime::from_micros)".into(),
        Type::ReceivedTime => "c.long().map(ReceivedTime::from_nanos)".into(),
        Type::Decimal(name) => format!("c.decimal().map({name}::from_wire)"),
        Type::Named(name) => format!("{name}::decode(c)"),
        Type::Array(t) => format!("c.array(|c| {})", decode(t)),
        Type::Map(t) => format!("c.map(|c| {})", decode(t)),
        Type::Optional(t) => format!("c.optional(|c| {})", decode(t)),
    }
}

/// An expression that writes the field `self.<name>` to `out`.
pub fn encode_field(ty: &Type, name: &str) -> String {
    encode(ty, &format!("self.{name}"), &format!("&self.{name}"))
}

/// The same for the reference `x`, inside of a closure.
fn encode_x(ty: &Type) -> String {
    format!("|out, x| {}", encode(ty, "*x", "x"))
}

/// `value` is the place itself, `reference` borrows it.
fn encode(ty: &Type, value: &str, reference: &str) -> String {
    // A method finds its receiver through either; the shorter is the one without a sign before it.
    let receiver = reference.trim_start_matches('&');
    match ty {
        Type::Boolean => format!("put::boolean(out, {value})"),
        Type::Int => format!("put::long(out, i64::from({value}))"),
        Type::Long => format!("put::long(out, {value})"),
        Type::Double => format!("put::double(out, {value})"),
        Type::String => format!("put::bytes(out, {receiver}.as_bytes())"),
        Type::Bytes => format!("put::bytes(out, {reference})"),
        Type::EventTime => format!("put::long(out, {receiver}.as_micros())"),
        Type::ReceivedTime => format!("put::long(out, {receiver}.as_nanos())"),
        Type::Decimal(_) => format!("put::decimal(out, {receiver}.units())"),
        Type::Named(_) => format!("{receiver}.encode(out)"),
        Type::Array(t) => format!("put::array(out, {reference}, {})", encode_x(t)),
        Type::Map(t) => format!("put::map(out, {reference}, {})", encode_x(t)),
        Type::Optional(t) => format!("put::optional(out, {receiver}.as_ref(), {})", encode_x(t)),
    }
}

/// The attribute that makes bytes readable in JSON, where the type has any.
pub fn serialize_with(ty: &Type) -> Option<&'static str> {
    match ty {
        Type::Bytes => Some("crate::hex::bytes"),
        Type::Optional(t) if **t == Type::Bytes => Some("crate::hex::optional"),
        Type::Map(t) if **t == Type::Bytes => Some("crate::hex::map"),
        _ => None,
    }
}

/// An expression of type `Option<f64>` for the field at `place`, for numeric types.
pub fn number(ty: &Type, place: &str) -> Option<String> {
    match ty {
        Type::Int => Some(format!("Some(f64::from({place}))")),
        Type::Long => Some(format!("Some({place} as f64)")),
        Type::Double => Some(format!("Some({place})")),
        Type::Decimal(_) => Some(format!("Some({place}.to_f64())")),
        Type::Optional(t) => match **t {
            Type::Int => Some(format!("{place}.map(f64::from)")),
            Type::Long => Some(format!("{place}.map(|x| x as f64)")),
            Type::Double => Some(place.to_owned()),
            Type::Decimal(_) => Some(format!("{place}.map(|x| x.to_f64())")),
            _ => None,
        },
        _ => None,
    }
}

/// Size in memory, to decide which records are boxed; the generated code asserts it.
pub fn size_estimate(model: &Model, ty: &Type) -> usize {
    match ty {
        Type::Boolean => 1,
        Type::Int => 4,
        Type::Long | Type::Double | Type::EventTime | Type::ReceivedTime => 8,
        Type::String | Type::Array(_) | Type::Map(_) => 24,
        Type::Bytes => 32,
        Type::Decimal(_) => 16,
        Type::Named(name) => record_size(model, name),
        Type::Optional(t) => match **t {
            Type::String | Type::Bytes | Type::Array(_) | Type::Boolean => size_estimate(model, t),
            Type::Decimal(_) => 32,
            _ => size_estimate(model, t) + 8,
        },
    }
}

/// Size in memory of a record or an enum, by name.
pub fn record_size(model: &Model, name: &str) -> usize {
    match model.records.get(name) {
        Some(record) => {
            let sum: usize = record.fields.iter().map(|f| size_estimate(model, &f.ty)).sum();
            sum.div_ceil(16) * 16
        }
        None => 1,
    }
}
