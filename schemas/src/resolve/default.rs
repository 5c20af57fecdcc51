//! The bytes of a field's default (Avro 1.12 specification, "Complex Types", table of default values).

use crate::shape::{Base, NodeId, Shape};
use crate::wire::put;
use serde_json::Value;

/// Appends the bytes of the JSON default `value` of node `id`.
pub(super) fn encode_default(
    shape: &Shape,
    id: NodeId,
    value: &Value,
    out: &mut Vec<u8>,
) -> Result<(), String> {
    match (&shape.node(id).base, value) {
        (Base::Null, Value::Null) => {}
        (Base::Boolean, Value::Bool(b)) => put::boolean(out, *b),
        (Base::Int, Value::Number(n)) => match n.as_i64().map(i32::try_from) {
            Some(Ok(int)) => put::long(out, i64::from(int)),
            _ => return Err(mismatch(value)),
        },
        (Base::Long, Value::Number(n)) => put::long(out, n.as_i64().ok_or_else(|| mismatch(value))?),
        (Base::Double, Value::Number(n)) => put::double(out, n.as_f64().ok_or_else(|| mismatch(value))?),
        (Base::Float, Value::Number(n)) => {
            let double = n.as_f64().ok_or_else(|| mismatch(value))?;
            out.extend_from_slice(&(double as f32).to_le_bytes());
        }
        (Base::String, Value::String(text)) => put::bytes(out, text.as_bytes()),
        (Base::Bytes, Value::String(text)) => put::bytes(out, &latin1(text)?),
        (Base::Fixed(_, size), Value::String(text)) => {
            let bytes = latin1(text)?;
            if bytes.len() != *size {
                return Err(mismatch(value));
            }
            out.extend_from_slice(&bytes);
        }
        (Base::Enum(_, symbols, _), Value::String(symbol)) => {
            match symbols.iter().position(|s| s == symbol) {
                Some(index) => put::length(out, index),
                None => return Err(mismatch(value)),
            }
        }
        (Base::Array(items), Value::Array(values)) => {
            if !values.is_empty() {
                put::length(out, values.len());
                for item in values {
                    encode_default(shape, *items, item, out)?;
                }
            }
            out.push(0);
        }
        (Base::Map(values), Value::Object(entries)) => {
            if !entries.is_empty() {
                put::length(out, entries.len());
                for (key, entry) in entries {
                    put::bytes(out, key.as_bytes());
                    encode_default(shape, *values, entry, out)?;
                }
            }
            out.push(0);
        }
        (Base::Union(branches), _) => return encode_union(shape, branches, value, out),
        (Base::Record(_, fields), Value::Object(entries)) => {
            for field in fields {
                let Some(entry) = entries.get(&field.name).or(field.default.as_ref()) else {
                    return Err(format!("the default has no value for `{}`", field.name));
                };
                encode_default(shape, field.node, entry, out)?;
            }
        }
        _ => return Err(mismatch(value)),
    }
    Ok(())
}

/// The first branch that the value fits.
fn encode_union(shape: &Shape, branches: &[NodeId], value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    let start = out.len();
    for (index, branch) in branches.iter().enumerate() {
        put::length(out, index);
        if encode_default(shape, *branch, value, out).is_ok() {
            return Ok(());
        }
        out.truncate(start);
    }
    Err(mismatch(value))
}

/// Bytes are written as code points 0 to 255.
fn latin1(text: &str) -> Result<Vec<u8>, String> {
    text.chars()
        .map(|c| u8::try_from(u32::from(c)).map_err(|_| format!("`{text}` is no text of bytes")))
        .collect()
}

fn mismatch(value: &Value) -> String {
    format!("the default {value} does not fit its type")
}
