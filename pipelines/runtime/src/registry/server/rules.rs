//! `/config`, `/compatibility` and `/mode`: which schemas go with which.

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::Response;
use serde::Deserialize;
use serde_json::json;

use super::answer::{Answer, Refusal};
use super::subjects::{find_version, flag, sent_schema};
use super::{Params, Shared, with_registry};
use crate::registry::catalog::Version;
use crate::registry::log::parse;
use crate::registry::{Level, SchemaRegistry as _};

#[derive(Deserialize)]
struct Rule {
    compatibility: String,
}

pub(super) async fn common(state: State<Shared>) -> Response {
    with_registry(state, |registry| {
        let level = registry.read()?.catalog.common_level();
        Ok(Answer::Json(json!({ "compatibilityLevel": level.name() })))
    })
    .await
}

pub(super) async fn set_common(state: State<Shared>, body: Bytes) -> Response {
    with_registry(state, move |registry| {
        let level = sent_level(&body)?;
        registry.set_level(None, Some(level))?;
        Ok(Answer::Json(json!({ "compatibility": level.name() })))
    })
    .await
}

pub(super) async fn of(state: State<Shared>, Path(subject): Path<String>, params: Params) -> Response {
    with_registry(state, move |registry| {
        let (level, own) = registry.read()?.catalog.level(&subject);
        if !own && !flag(&params, "defaultToGlobal") {
            return Err(no_rule(&subject));
        }
        Ok(Answer::Json(json!({ "compatibilityLevel": level.name() })))
    })
    .await
}

pub(super) async fn set(state: State<Shared>, Path(subject): Path<String>, body: Bytes) -> Response {
    with_registry(state, move |registry| {
        let level = sent_level(&body)?;
        registry.set_level(Some(&subject), Some(level))?;
        Ok(Answer::Json(json!({ "compatibility": level.name() })))
    })
    .await
}

pub(super) async fn unset(state: State<Shared>, Path(subject): Path<String>) -> Response {
    with_registry(state, move |registry| {
        let (level, own) = registry.read()?.catalog.level(&subject);
        if !own {
            return Err(no_rule(&subject));
        }
        registry.set_level(Some(&subject), None)?;
        Ok(Answer::Json(json!({ "compatibilityLevel": level.name() })))
    })
    .await
}

/// Against all versions that the subject's rule names.
pub(super) async fn check_all(
    state: State<Shared>,
    Path(subject): Path<String>,
    params: Params,
    body: Bytes,
) -> Response {
    with_registry(state, move |registry| {
        let problems = registry.check(&subject, &sent_schema(&body)?)?;
        Ok(verdict(problems, &params))
    })
    .await
}

/// Against one version.
pub(super) async fn check_one(
    state: State<Shared>,
    Path((subject, version)): Path<(String, String)>,
    params: Params,
    body: Bytes,
) -> Response {
    with_registry(state, move |registry| {
        let new = parse(&subject, &sent_schema(&body)?)?;
        let old = find_version(registry, &subject, &version, false)?;
        let state = registry.read()?;
        let (level, _) = state.catalog.level(&subject);
        let old = Version { version: old.version, id: old.id, deleted: false };
        Ok(verdict(state.catalog.problems_with(level, &old, &new), &params))
    })
    .await
}

pub(super) async fn mode() -> Response {
    Answer::Json(json!({ "mode": "READWRITE" })).into()
}

pub(super) async fn set_mode() -> Response {
    Refusal::new(422, 42_205, "this registry has the mode READWRITE only").into()
}

fn verdict(problems: Vec<String>, params: &Params) -> Answer {
    let mut verdict = json!({ "is_compatible": problems.is_empty() });
    if flag(params, "verbose") {
        verdict["messages"] = json!(problems);
    }
    Answer::Json(verdict)
}

fn sent_level(body: &[u8]) -> Result<Level, Refusal> {
    let invalid = |why: String| Refusal::new(422, 42_203, format!("Invalid compatibility level: {why}"));
    let rule: Rule = serde_json::from_slice(body).map_err(|error| invalid(error.to_string()))?;
    Level::parse(&rule.compatibility).ok_or_else(|| {
        let names: Vec<&str> = Level::names().collect();
        invalid(format!("{}; there are {}", rule.compatibility, names.join(", ")))
    })
}

fn no_rule(subject: &str) -> Refusal {
    Refusal::new(
        404,
        40_408,
        format!("Subject '{subject}' does not have subject-level compatibility configured"),
    )
}
