//! `/subjects`: list, look up, register, delete.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal};
use super::{Params, Registry, Shared, with_registry};
use crate::registry::catalog::Version;
use crate::registry::{Registered, SchemaRegistry as _};

/// What a schema is sent as.
#[derive(Deserialize)]
struct Sent {
    #[serde(default)]
    schema: Option<String>,
    #[serde(default, rename = "schemaType")]
    schema_type: Option<String>,
    #[serde(default)]
    references: Option<Vec<Value>>,
    #[serde(default, rename = "ruleSet")]
    rule_set: Option<Value>,
}

pub(super) async fn list(state: State<Shared>, params: Params) -> Response {
    with_registry(state, move |registry| {
        let prefix = params.get("subjectPrefix").map_or("", String::as_str);
        let deleted = flag(&params, "deleted");
        let state = registry.read()?;
        let shown = state.catalog.subjects().filter(|(subject, versions)| {
            subject.starts_with(prefix) && versions.iter().any(|version| deleted || !version.deleted)
        });
        Ok(Answer::Json(shown.map(|(subject, _)| Value::from(subject)).collect()))
    })
    .await
}

pub(super) async fn versions(state: State<Shared>, Path(subject): Path<String>, params: Params) -> Response {
    with_registry(state, move |registry| {
        let deleted = flag(&params, "deleted");
        let state = registry.read()?;
        let shown: Vec<u32> = state
            .catalog
            .versions(&subject)
            .iter()
            .filter(|version| deleted || !version.deleted)
            .map(|version| version.version)
            .collect();
        if shown.is_empty() {
            return Err(Refusal::no_subject(&subject));
        }
        Ok(Answer::Json(json!(shown)))
    })
    .await
}

pub(super) async fn version(
    state: State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    params: Params,
) -> Response {
    with_registry(state, move |registry| {
        let entry = find_version(registry, &subject, &version, flag(&params, "deleted"))?;
        Ok(Answer::Json(shown(&entry)))
    })
    .await
}

pub(super) async fn schema(
    state: State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    params: Params,
) -> Response {
    with_registry(state, move |registry| {
        Ok(Answer::Text(find_version(registry, &subject, &version, flag(&params, "deleted"))?.schema))
    })
    .await
}

/// There are no references here, so nothing refers to anything.
pub(super) async fn referenced_by(
    state: State<Shared>,
    Path((subject, version)): Path<(String, String)>,
) -> Response {
    with_registry(state, move |registry| {
        find_version(registry, &subject, &version, false)?;
        Ok(Answer::Json(json!([])))
    })
    .await
}

pub(super) async fn lookup(
    state: State<Shared>,
    Path(subject): Path<String>,
    params: Params,
    body: Bytes,
) -> Response {
    with_registry(state, move |registry| {
        let schema = sent_schema(&body)?;
        let deleted = flag(&params, "deleted");
        if let Some(entry) = registry.find(&subject, &schema, deleted)? {
            return Ok(Answer::Json(shown(&entry)));
        }
        let state = registry.read()?;
        let there = state.catalog.versions(&subject).iter().any(|version| deleted || !version.deleted);
        Err(if there { Refusal::no_schema() } else { Refusal::no_subject(&subject) })
    })
    .await
}

pub(super) async fn register(state: State<Shared>, Path(subject): Path<String>, body: Bytes) -> Response {
    with_registry(state, move |registry| {
        let schema = sent_schema(&body)?;
        let id = registry.register(&subject, &schema)?;
        Ok(Answer::Json(json!({ "id": id })))
    })
    .await
}

pub(super) async fn delete_subject(
    state: State<Shared>,
    Path(subject): Path<String>,
    params: Params,
) -> Response {
    with_registry(state, move |registry| {
        refuse_permanent(&params)?;
        let versions: Vec<u32> = registry.versions(&subject)?.iter().map(|entry| entry.version).collect();
        if versions.is_empty() {
            return Err(Refusal::no_subject(&subject));
        }
        registry.delete(&subject, &versions)?;
        Ok(Answer::Json(json!(versions)))
    })
    .await
}

pub(super) async fn delete_version(
    state: State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    params: Params,
) -> Response {
    with_registry(state, move |registry| {
        refuse_permanent(&params)?;
        let entry = find_version(registry, &subject, &version, false)?;
        registry.delete(&subject, &[entry.version])?;
        Ok(Answer::Json(json!(entry.version)))
    })
    .await
}

/// Whether a parameter is set to true.
pub(super) fn flag(params: &Params, name: &str) -> bool {
    params.get(name).is_some_and(|value| value.eq_ignore_ascii_case("true"))
}

/// The schema of a body. What this registry can not keep is refused, not left out.
pub(super) fn sent_schema(body: &[u8]) -> Result<String, Refusal> {
    let sent: Sent = serde_json::from_slice(body)
        .map_err(|error| Refusal::new(422, 422, format!("the body is not as it should be: {error}")))?;
    if let Some(other) = sent.schema_type.filter(|name| !name.eq_ignore_ascii_case("AVRO")) {
        return Err(Refusal::invalid_schema(format!("this registry has Avro schemas only, not {other}")));
    }
    if sent.references.is_some_and(|references| !references.is_empty()) {
        return Err(Refusal::invalid_schema(
            "this registry has no references: put the types into the schema",
        ));
    }
    if sent.rule_set.is_some_and(|rules| !rules.is_null()) {
        return Err(Refusal::invalid_schema("this registry has no rules for data"));
    }
    match sent.schema {
        Some(schema) if !schema.trim().is_empty() => Ok(schema),
        _ => Err(Refusal::invalid_schema("the schema is empty")),
    }
}

/// A version by its number or as `latest`.
pub(super) fn find_version(
    registry: &Registry,
    subject: &str,
    version: &str,
    deleted: bool,
) -> Result<Registered, Refusal> {
    let number = version_number(version)?;
    let state = registry.read()?;
    let listed: Vec<&Version> =
        state.catalog.versions(subject).iter().filter(|version| deleted || !version.deleted).collect();
    let Some(last) = listed.last() else { return Err(Refusal::no_subject(subject)) };
    let found = match number {
        None => *last,
        Some(number) => listed
            .iter()
            .find(|listed| listed.version == number)
            .ok_or_else(|| Refusal::no_version(version))?,
    };
    Ok(state.catalog.entry(subject, found))
}

/// `None` is the last one.
fn version_number(version: &str) -> Result<Option<u32>, Refusal> {
    match version {
        "latest" | "-1" => Ok(None),
        _ => match version.parse::<u32>() {
            Ok(number) if (1..=i32::MAX.cast_unsigned()).contains(&number) => Ok(Some(number)),
            _ => Err(Refusal::new(
                422,
                42_202,
                format!(
                    "The specified version '{version}' is not a valid version id. Allowed values are between \
                     [1, 2^31-1] and the string \"latest\""
                ),
            )),
        },
    }
}

fn refuse_permanent(params: &Params) -> Result<(), Refusal> {
    if flag(params, "permanent") {
        let why = "this registry deletes nothing for good: records with the id may still be in a topic";
        return Err(Refusal::new(422, 422, why));
    }
    Ok(())
}

fn shown(entry: &Registered) -> Value {
    json!({ "subject": entry.subject, "id": entry.id, "version": entry.version, "schema": entry.schema })
}
