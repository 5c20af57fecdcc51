//! What the build makes from `avro/`.

use crate::decimal::{Amount, Price, Quantity};
use crate::error::{DecodeError, Malformed};
use crate::record::{Body, FieldId, WrongKind, symbol_traits};
use crate::time::{EventTime, ReceivedTime};
use crate::wire::{Cursor, put};
use bytes::Bytes;
use serde::{Serialize, Serializer};
use smol_str::SmolStr;
use std::collections::BTreeMap;

include!(concat!(env!("OUT_DIR"), "/generated.rs"));
