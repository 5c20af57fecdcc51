//! `Kind` and `Record`: all top-level records under one roof.

use crate::model::{Model, Record, Type};
use crate::schema_text::self_contained;
use crate::type_code::{number, record_size};
use std::fmt::Write;

/// Records of at least this size are boxed in `Record`, so that moving one stays cheap.
const BOXED_ABOVE_BYTES: usize = 128;

/// Writes `Kind`, `Record` and the conversions between them and the structs.
pub fn write(model: &Model, code: &mut String) -> Result<(), String> {
    write_kind(model, code)?;
    write_record(model, code);
    for name in &model.kinds {
        write_conversions(model, name, code);
    }
    Ok(())
}

fn arms(model: &Model, arm: impl Fn(&str, &Record) -> String) -> String {
    let kinds = model.kinds.iter().map(|name| arm(name, &model.records[name]));
    kinds.collect::<Vec<_>>().join("\n            ")
}

fn boxed(model: &Model, name: &str) -> bool {
    record_size(model, name) > BOXED_ABOVE_BYTES
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for (i, letter) in name.chars().enumerate() {
        if letter.is_uppercase() && i > 0 {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

fn write_kind(model: &Model, code: &mut String) -> Result<(), String> {
    _ = writeln!(
        code,
        "/// Which top-level record; sorted by name.\n#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]\npub enum Kind {{"
    );
    for name in &model.kinds {
        _ = writeln!(code, "    /// {}\n    {name},", model.records[name].doc);
    }
    let mut schemas = String::new();
    for name in &model.kinds {
        _ = write!(schemas, "\n            Kind::{name} => {:?},", self_contained(model, name)?);
    }
    let all = model.kinds.iter().map(|n| format!("Kind::{n}")).collect::<Vec<_>>().join(", ");
    _ = write!(
        code,
        r#"}}

impl Kind {{
    /// Every kind, sorted by name.
    pub const ALL: &'static [Kind] = &[{all}];

    /// Name of the record, without the namespace.
    pub const fn name(self) -> &'static str {{
        match self {{
            {names}
        }}
    }}

    /// The kind of that name, without the namespace.
    pub fn from_name(name: &str) -> Option<Kind> {{
        match name {{
            {from_names}
            _ => None,
        }}
    }}

    /// The Avro schema as JSON, self-contained: named types are written out where they are first used.
    pub const fn schema_json(self) -> &'static str {{
        match self {{{schemas}
        }}
    }}

    /// Names of the fields, in the order of the schema.
    pub const fn fields(self) -> &'static [&'static str] {{
        match self {{
            {fields}
        }}
    }}

    /// Positions in `fields` of those that are numbers.
    pub(crate) const fn numeric_fields(self) -> &'static [u16] {{
        match self {{
            {numeric}
        }}
    }}
}}

symbol_traits!(Kind);

"#,
        names = arms(model, |n, _| format!("Kind::{n} => \"{n}\",")),
        from_names = arms(model, |n, _| format!("\"{n}\" => Some(Kind::{n}),")),
        fields = arms(model, |n, r| {
            let names = r.fields.iter().map(|f| format!("\"{}\"", f.name)).collect::<Vec<_>>().join(", ");
            format!("Kind::{n} => &[{names}],")
        }),
        numeric = arms(model, |n, r| {
            let numbers = r.fields.iter().enumerate().filter(|(_, f)| number(&f.ty, "x").is_some());
            let list = numbers.map(|(i, _)| i.to_string()).collect::<Vec<_>>().join(", ");
            format!("Kind::{n} => &[{list}],")
        }),
    );
    Ok(())
}

fn write_record(model: &Model, code: &mut String) {
    _ = writeln!(
        code,
        "/// Any top-level record. Large ones are boxed.\n#[derive(Clone, Debug, PartialEq)]\npub enum Record {{"
    );
    for name in &model.kinds {
        let held = if boxed(model, name) { format!("Box<{name}>") } else { name.clone() };
        _ = writeln!(code, "    /// {}\n    {name}({held}),", model.records[name].doc);
    }
    let event_time = |n: &str, r: &Record| match r.fields.iter().find(|f| f.name == "event_time") {
        Some(f) if f.ty == Type::EventTime => format!("Record::{n}(x) => Some(x.event_time),"),
        _ => format!("Record::{n}(_) => None,"),
    };
    let instrument = |n: &str, r: &Record| match r.fields.iter().find(|f| f.name == "instrument") {
        Some(f) if f.ty == Type::String => format!("Record::{n}(x) => Some(x.instrument.as_str()),"),
        _ => format!("Record::{n}(_) => None,"),
    };
    let text = |n: &str, r: &Record| {
        let arms: String = r
            .fields
            .iter()
            .filter_map(|f| match &f.ty {
                Type::String => Some(format!("\"{0}\" => Some(x.{0}.as_str()), ", f.name)),
                Type::Optional(inner) if **inner == Type::String => {
                    Some(format!("\"{0}\" => x.{0}.as_deref(), ", f.name))
                }
                _ => None,
            })
            .collect();
        if arms.is_empty() {
            format!("Record::{n}(_) => None,")
        } else {
            format!("Record::{n}(x) => match field {{ {arms}_ => None }},")
        }
    };
    _ = write!(
        code,
        r#"}}

impl Record {{
    /// Which record it is.
    pub const fn kind(&self) -> Kind {{
        match self {{
            {kinds}
        }}
    }}

    /// The body's `event_time`, where the record has one.
    pub fn event_time(&self) -> Option<EventTime> {{
        match self {{
            {event_times}
        }}
    }}

    /// The body's `instrument`, where the record has one.
    pub fn instrument(&self) -> Option<&str> {{
        match self {{
            {instruments}
        }}
    }}

    /// A text field by its name; `None` when the record has no such field, or it is null.
    pub fn text(&self, field: &str) -> Option<&str> {{
        match self {{
            {texts}
        }}
    }}

    /// Appends the Avro encoding, without the schema prefix.
    pub fn encode(&self, out: &mut Vec<u8>) {{
        match self {{
            {encodes}
        }}
    }}

    /// Reads one record from its Avro encoding, which must end where the bytes end.
    pub fn decode(kind: Kind, bytes: &[u8]) -> Result<Record, DecodeError> {{
        let mut cursor = Cursor::new(bytes);
        let c = &mut cursor;
        // Each arm ends for itself, so that a record is moved once.
        match kind {{
            {decodes}
        }}
    }}

    /// Value of a numeric field, for statistics. `None` when it is null or the field is another kind's.
    pub fn number(&self, field: FieldId) -> Option<f64> {{
        if field.kind() != self.kind() {{
            return None;
        }}
        match self {{
            {numbers}
        }}
    }}
}}

impl Serialize for Record {{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {{
        match self {{
            {serializes}
        }}
    }}
}}

"#,
        kinds = arms(model, |n, _| format!("Record::{n}(_) => Kind::{n},")),
        event_times = arms(model, event_time),
        instruments = arms(model, instrument),
        texts = arms(model, text),
        encodes = arms(model, |n, _| format!("Record::{n}(x) => x.encode(out),")),
        decodes = arms(model, |n, _| {
            format!(
                "Kind::{n} => {{
                let x = {n}::decode(c)?;
                c.finish()?;
                Ok(x.into())
            }}"
            )
        }),
        numbers = arms(model, |n, _| format!("Record::{n}(x) => x.number(field.index()),")),
        serializes = arms(model, |n, _| format!("Record::{n}(x) => x.serialize(serializer),")),
    );
}

fn write_conversions(model: &Model, name: &str, code: &mut String) {
    let boxed = boxed(model, name);
    let wrapped = if boxed { "Box::new(x)" } else { "x" };
    let unwrapped = if boxed { "*x" } else { "x" };
    if !boxed {
        _ = writeln!(code, "const _: () = assert!(size_of::<{name}>() <= {});", BOXED_ABOVE_BYTES + 8);
    }
    _ = write!(
        code,
        r#"
impl From<{name}> for Record {{
    fn from(x: {name}) -> Record {{
        Record::{name}({wrapped})
    }}
}}

impl TryFrom<Record> for {name} {{
    type Error = WrongKind;

    fn try_from(record: Record) -> Result<{name}, WrongKind> {{
        match record {{
            Record::{name}(x) => Ok({unwrapped}),
            other => Err(WrongKind {{ expected: Kind::{name}, found: other.kind() }}),
        }}
    }}
}}

impl Body for {name} {{
    const KIND: Kind = Kind::{name};

    fn of(record: &Record) -> Option<&{name}> {{
        record.as_{snake}()
    }}

    fn encode(&self, out: &mut Vec<u8>) {{
        {name}::encode(self, out);
    }}

    fn decode(c: &mut Cursor<'_>) -> Result<{name}, DecodeError> {{
        {name}::decode(c)
    }}
}}

impl Record {{
    /// The record, if it is this one.
    pub fn as_{snake}(&self) -> Option<&{name}> {{
        match self {{
            Record::{name}(x) => Some(x),
            _ => None,
        }}
    }}
}}

"#,
        snake = snake(name)
    );
}
