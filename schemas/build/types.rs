//! The struct of each record and the enum of each Avro enum, with their codecs.

use crate::model::{Enum, Model, Record};
use crate::type_code::{decode, encode_field, number, rust_type, serialize_with};
use std::fmt::Write;

/// Writes all types.
pub fn write(model: &Model, code: &mut String) {
    for (name, made) in &model.enums {
        write_enum(name, made, code);
    }
    for (name, record) in &model.records {
        write_struct(name, record, code);
        write_codec(name, record, code);
        write_number(name, record, model.kinds.contains(name), code);
    }
}

/// `PARTIALLY_FILLED` to `PartiallyFilled`.
pub fn variant(symbol: &str) -> String {
    let word = |w: &str| {
        let mut letters = w.chars();
        match letters.next() {
            Some(first) => {
                first.to_uppercase().chain(letters.flat_map(char::to_lowercase)).collect::<String>()
            }
            None => String::new(),
        }
    };
    symbol.split('_').map(word).collect()
}

// Writing to a String cannot fail, so results of `write!` are dropped here and below.

fn write_enum(name: &str, made: &Enum, code: &mut String) {
    _ = writeln!(
        code,
        "/// {}\n#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]\npub enum {name} {{",
        made.doc
    );
    for (symbol, doc) in &made.symbols {
        let default = if *symbol == made.default { "#[default]\n    " } else { "" };
        _ = writeln!(code, "    /// {doc}\n    {default}{},", variant(symbol));
    }
    let list = |f: &dyn Fn(usize, &str) -> String| {
        made.symbols.iter().enumerate().map(|(i, (s, _))| f(i, s)).collect::<Vec<_>>().join("\n            ")
    };
    let all = made.symbols.iter().map(|(s, _)| format!("{name}::{}", variant(s))).collect::<Vec<_>>();
    _ = write!(
        code,
        r#"}}

impl {name} {{
    /// Every symbol, in the order of the schema.
    pub const ALL: &'static [{name}] = &[{all}];

    /// The symbol, as the schema has it.
    pub const fn name(self) -> &'static str {{
        match self {{
            {names}
        }}
    }}

    /// The symbol of that name.
    pub fn from_name(name: &str) -> Option<{name}> {{
        match name {{
            {from_names}
            _ => None,
        }}
    }}

    /// Appends the Avro encoding.
    #[inline]
    pub fn encode(&self, out: &mut Vec<u8>) {{
        put::long(out, *self as i64);
    }}

    /// Reads the Avro encoding. An index without a symbol is an error.
    #[inline]
    pub fn decode(c: &mut Cursor<'_>) -> Result<{name}, Malformed> {{
        let at = c.position();
        match c.long()? {{
            {from_index}
            _ => Err(Malformed::new(at, "enum index without a symbol")),
        }}
    }}
}}

symbol_traits!({name});

"#,
        all = all.join(", "),
        names = list(&|_, s| format!("{name}::{} => \"{s}\",", variant(s))),
        from_names = list(&|_, s| format!("\"{s}\" => Some({name}::{}),", variant(s))),
        from_index = list(&|i, s| format!("{i} => Ok({name}::{}),", variant(s))),
    );
}

fn write_struct(name: &str, record: &Record, code: &mut String) {
    _ = writeln!(
        code,
        "/// {}\n#[derive(Clone, Debug, PartialEq, Default, Serialize)]\npub struct {name} {{",
        record.doc
    );
    for field in &record.fields {
        _ = writeln!(code, "    /// {}", field.doc);
        if let Some(path) = serialize_with(&field.ty) {
            _ = writeln!(code, "    #[serde(serialize_with = \"{path}\")]");
        }
        _ = writeln!(code, "    pub {}: {},", field.name, rust_type(&field.ty));
    }
    _ = writeln!(code, "}}\n");
}

fn write_codec(name: &str, record: &Record, code: &mut String) {
    _ = write!(
        code,
        "impl {name} {{\n    /// Appends the Avro encoding.\n    pub fn encode(&self, out: &mut Vec<u8>) {{\n"
    );
    for field in &record.fields {
        _ = writeln!(code, "        {};", encode_field(&field.ty, &field.name));
    }
    _ = write!(
        code,
        "    }}\n\n    /// Reads the Avro encoding. Any bytes are either a record or an error.\n    #[inline]\n    pub fn decode(c: &mut Cursor<'_>) -> Result<{name}, DecodeError> {{\n        Ok({name} {{\n"
    );
    for field in &record.fields {
        let reads = decode(&field.ty);
        _ = writeln!(
            code,
            "            {field}: match {reads} {{ Ok(x) => x, Err(e) => return Err(e.within(\"{name}.{field}\")) }},",
            field = field.name
        );
    }
    _ = writeln!(code, "        }})\n    }}\n}}\n");
}

fn write_number(name: &str, record: &Record, top_level: bool, code: &mut String) {
    if !top_level {
        return;
    }
    if !record.fields.iter().any(|field| number(&field.ty, "x").is_some()) {
        _ = writeln!(
            code,
            "impl {name} {{\n    fn number(&self, _index: u16) -> Option<f64> {{\n        None\n    }}\n}}\n"
        );
        return;
    }
    _ = writeln!(
        code,
        "impl {name} {{\n    fn number(&self, index: u16) -> Option<f64> {{\n        match index {{"
    );
    for (index, field) in record.fields.iter().enumerate() {
        if let Some(value) = number(&field.ty, &format!("self.{}", field.name)) {
            _ = writeln!(code, "            {index} => {value},");
        }
    }
    _ = writeln!(code, "            _ => None,\n        }}\n    }}\n}}\n");
}
