//! The schemas as read: names, fields, types. Whatever this generator cannot map is refused with the file's name.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// All schemas of the folder.
pub struct Model {
    /// Names of the top-level records, sorted: files directly in `avro/`.
    pub kinds: Vec<String>,
    /// Every record by name, parts included.
    pub records: BTreeMap<String, Record>,
    /// Every enum by name.
    pub enums: BTreeMap<String, Enum>,
    /// The JSON as read, by name.
    pub sources: BTreeMap<String, Value>,
}

pub struct Record {
    pub doc: String,
    pub fields: Vec<Field>,
}

pub struct Field {
    pub name: String,
    pub doc: String,
    pub ty: Type,
}

pub struct Enum {
    pub doc: String,
    /// Symbol and what it means, in the order of the wire.
    pub symbols: Vec<(String, String)>,
    pub default: String,
}

#[derive(Clone, PartialEq)]
pub enum Type {
    Boolean,
    Int,
    Long,
    Double,
    String,
    Bytes,
    EventTime,
    ReceivedTime,
    /// `Price`, `Quantity` or `Amount`.
    Decimal(String),
    /// A record or an enum, by name.
    Named(String),
    Array(Box<Type>),
    Map(Box<Type>),
    Optional(Box<Type>),
}

impl Model {
    /// Reads `avro/*.avsc` (top-level records) and `avro/types/*.avsc` (what they are made of).
    pub fn read(folder: &Path) -> Result<Model, String> {
        let mut model = Model {
            kinds: Vec::new(),
            records: BTreeMap::new(),
            enums: BTreeMap::new(),
            sources: BTreeMap::new(),
        };
        for file in schema_files(folder)? {
            let name = model.read_file(&file)?;
            if !model.records.contains_key(&name) {
                return Err(format!("{}: a top-level schema must be a record", file.display()));
            }
            model.kinds.push(name);
        }
        for file in schema_files(&folder.join("types"))? {
            model.read_file(&file)?;
        }
        model.check_references()?;
        Ok(model)
    }

    fn read_file(&mut self, file: &Path) -> Result<String, String> {
        let at = |problem: String| format!("{}: {problem}", file.display());
        let text = fs::read_to_string(file).map_err(|e| at(e.to_string()))?;
        let json: Value = serde_json::from_str(&text).map_err(|e| at(e.to_string()))?;
        let name = text_of(&json, "name").map_err(at)?;
        if file.file_stem().and_then(|s| s.to_str()) != Some(name.as_str()) {
            return Err(at(format!("holds `{name}`; the file must be named after it")));
        }
        if text_of(&json, "namespace").map_err(at)? != "tidewire" {
            return Err(at("namespace must be `tidewire`".into()));
        }
        match text_of(&json, "type").map_err(at)?.as_str() {
            "record" => {
                let record = read_record(&json).map_err(at)?;
                self.records.insert(name.clone(), record);
            }
            "enum" => {
                let made = read_enum(&json).map_err(at)?;
                self.enums.insert(name.clone(), made);
            }
            other => return Err(at(format!("`{other}` is neither a record nor an enum"))),
        }
        self.sources.insert(name.clone(), json);
        Ok(name)
    }

    fn check_references(&self) -> Result<(), String> {
        for (name, record) in &self.records {
            for field in &record.fields {
                self.check_type(&field.ty).map_err(|e| format!("{name}.{}: {e}", field.name))?;
            }
        }
        Ok(())
    }

    fn check_type(&self, ty: &Type) -> Result<(), String> {
        match ty {
            Type::Named(n) if !self.records.contains_key(n) && !self.enums.contains_key(n) => {
                Err(format!("no schema is named `{n}`"))
            }
            Type::Array(t) | Type::Map(t) | Type::Optional(t) => self.check_type(t),
            _ => Ok(()),
        }
    }
}

fn schema_files(folder: &Path) -> Result<Vec<PathBuf>, String> {
    let at = |e: std::io::Error| format!("{}: {e}", folder.display());
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(at)? {
        let path = entry.map_err(at)?.path();
        if path.extension().is_some_and(|e| e == "avsc") {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read_record(json: &Value) -> Result<Record, String> {
    let fields = json.get("fields").and_then(Value::as_array).ok_or("no `fields`")?;
    let fields = fields.iter().map(read_field).collect::<Result<Vec<_>, _>>()?;
    Ok(Record { doc: text_of(json, "doc")?, fields })
}

fn read_field(json: &Value) -> Result<Field, String> {
    let name = text_of(json, "name")?;
    let at = |e: String| format!("field `{name}`: {e}");
    let ty = read_type(json.get("type").ok_or_else(|| at("no `type`".into()))?).map_err(at)?;
    if matches!(ty, Type::Optional(_)) && json.get("default") != Some(&Value::Null) {
        return Err(at("a union with null must default to null".into()));
    }
    Ok(Field { doc: text_of(json, "doc").map_err(at)?, name: name.clone(), ty })
}

fn read_enum(json: &Value) -> Result<Enum, String> {
    let symbols = json.get("symbols").and_then(Value::as_array).ok_or("no `symbols`")?;
    let docs = json.get("tidewire.symbols").ok_or("no `tidewire.symbols`")?;
    let mut named = Vec::new();
    for symbol in symbols {
        let symbol = symbol.as_str().ok_or("a symbol is no string")?;
        named.push((symbol.to_owned(), text_of(docs, symbol)?));
    }
    let default = text_of(json, "default")?;
    if !named.iter().any(|(s, _)| *s == default) {
        return Err(format!("default `{default}` is no symbol"));
    }
    Ok(Enum { doc: text_of(json, "doc")?, symbols: named, default })
}

fn read_type(json: &Value) -> Result<Type, String> {
    match json {
        Value::String(name) => Ok(match name.as_str() {
            "boolean" => Type::Boolean,
            "int" => Type::Int,
            "long" => Type::Long,
            "double" => Type::Double,
            "string" => Type::String,
            "bytes" => Type::Bytes,
            other => match other.strip_prefix("tidewire.") {
                Some(name) => Type::Named(name.to_owned()),
                None => return Err(format!("type `{other}` is not supported here")),
            },
        }),
        Value::Array(branches) => match branches.as_slice() {
            [Value::String(null), other] if null == "null" => Ok(Type::Optional(Box::new(read_type(other)?))),
            _ => Err("only unions of null and one type, null first, are supported here".into()),
        },
        Value::Object(_) => read_complex(json),
        _ => Err(format!("`{json}` is no type")),
    }
}

fn read_complex(json: &Value) -> Result<Type, String> {
    let kind = text_of(json, "type")?;
    let logical = json.get("logicalType").and_then(Value::as_str);
    match (kind.as_str(), logical) {
        ("array", _) => {
            Ok(Type::Array(Box::new(read_type(json.get("items").ok_or("an array without `items`")?)?)))
        }
        ("map", _) => {
            Ok(Type::Map(Box::new(read_type(json.get("values").ok_or("a map without `values`")?)?)))
        }
        ("long", Some("timestamp-micros")) => Ok(Type::EventTime),
        ("long", Some("timestamp-nanos")) => Ok(Type::ReceivedTime),
        ("bytes", Some("decimal")) => {
            let number = |key| json.get(key).and_then(Value::as_u64);
            if number("precision") != Some(28) || number("scale") != Some(12) {
                return Err("decimals here are (28, 12)".into());
            }
            let name = text_of(json, "tidewire.type")?;
            if !["Price", "Quantity", "Amount"].contains(&name.as_str()) {
                return Err(format!("tidewire.type `{name}` is none of Price, Quantity, Amount"));
            }
            Ok(Type::Decimal(name))
        }
        _ => Err(format!("type `{kind}` with logical type {logical:?} is not supported here")),
    }
}

fn text_of(json: &Value, key: &str) -> Result<String, String> {
    match json.get(key).and_then(Value::as_str) {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(format!("no `{key}`")),
    }
}
