//! `/schemas`: by id.

use axum::extract::{Path, State};
use axum::response::Response;
use serde_json::{Value, json};

use super::answer::{Answer, Refusal};
use super::{Registry, Shared, with_registry};
use crate::registry::SchemaRegistry as _;

pub(super) async fn types() -> Response {
    Answer::Json(json!(["AVRO"])).into()
}

pub(super) async fn schema(state: State<Shared>, Path(id): Path<String>) -> Response {
    with_registry(state, move |registry| Ok(Answer::Json(json!({ "schema": find(registry, &id)? })))).await
}

pub(super) async fn text(state: State<Shared>, Path(id): Path<String>) -> Response {
    with_registry(state, move |registry| Ok(Answer::Text(find(registry, &id)?))).await
}

pub(super) async fn versions(state: State<Shared>, Path(id): Path<String>) -> Response {
    with_registry(state, move |registry| {
        let places = places(registry, &id)?.into_iter();
        let shown = places.map(|(subject, version)| json!({ "subject": subject, "version": version }));
        Ok(Answer::Json(shown.collect()))
    })
    .await
}

pub(super) async fn subjects(state: State<Shared>, Path(id): Path<String>) -> Response {
    with_registry(state, move |registry| {
        let places = places(registry, &id)?.into_iter();
        Ok(Answer::Json(places.map(|(subject, _)| Value::from(subject)).collect()))
    })
    .await
}

fn find(registry: &Registry, id: &str) -> Result<String, Refusal> {
    let id: u32 = id.parse().map_err(|_| Refusal::no_schema())?;
    let schema = registry.schema(id)?.ok_or_else(Refusal::no_schema)?;
    Ok(schema.to_string())
}

/// Subjects and versions that have the id.
fn places(registry: &Registry, id: &str) -> Result<Vec<(String, u32)>, Refusal> {
    let id: u32 = id.parse().map_err(|_| Refusal::no_schema())?;
    let state = registry.read()?;
    if state.catalog.schema(id).is_none() {
        return Err(Refusal::no_schema());
    }
    let mut places = Vec::new();
    for (subject, versions) in state.catalog.subjects() {
        let with_id = versions.iter().filter(|version| version.id == id && !version.deleted);
        places.extend(with_id.map(|version| (subject.to_owned(), version.version)));
    }
    Ok(places)
}
