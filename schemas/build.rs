//! Makes the record types and their codecs from `avro/*.avsc`, the only source of truth.

#![allow(clippy::disallowed_methods, clippy::disallowed_macros, reason = "reads files, talks to cargo")]

#[path = "build/model.rs"]
mod model;
#[path = "build/record_enum.rs"]
mod record_enum;
#[path = "build/schema_text.rs"]
mod schema_text;
#[path = "build/type_code.rs"]
mod type_code;
#[path = "build/types.rs"]
mod types;

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=avro");
    println!("cargo::rerun-if-changed=build");
    println!("cargo::rerun-if-changed=build.rs");
    let root = PathBuf::from(std::env::var("CARGO_MANIFEST_DIR")?);
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let model = model::Model::read(&root.join("avro"))?;
    let mut code = String::new();
    types::write(&model, &mut code);
    record_enum::write(&model, &mut code)?;
    std::fs::write(out.join("generated.rs"), code)?;
    Ok(())
}
