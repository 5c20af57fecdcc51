//! Answers and refusals as Confluent's registry gives them.

use axum::body::{Body, Bytes, to_bytes};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use serde_json::{Value, json};

use crate::registry::RegistryError;

const JSON: &str = "application/vnd.schemaregistry.v1+json";
/// Most of a refusal's text that another layer wrote.
const MAX_TEXT_BYTES: usize = 4096;

/// A good answer.
pub(super) enum Answer {
    Json(Value),
    /// A schema by itself.
    Text(String),
}

/// Why a request was refused: HTTP status, the registry's own code, and words.
#[derive(Debug)]
pub(super) struct Refusal {
    pub status: u16,
    pub code: u32,
    pub message: String,
}

impl Refusal {
    pub fn new(status: u16, code: u32, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub fn no_subject(subject: &str) -> Self {
        Self::new(404, 40_401, format!("Subject '{subject}' not found."))
    }

    pub fn no_version(version: &str) -> Self {
        Self::new(404, 40_402, format!("Version {version} not found."))
    }

    pub fn no_schema() -> Self {
        Self::new(404, 40_403, "Schema not found")
    }

    pub fn invalid_schema(why: impl std::fmt::Display) -> Self {
        Self::new(422, 42_201, format!("Invalid schema: {why}"))
    }

    pub fn busy() -> Self {
        Self::new(503, 50_301, "Too many requests at a time; try again")
    }

    pub fn store(why: String) -> Self {
        Self::new(500, 50_001, format!("Error in the backend data store: {why}"))
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::Incompatible { subject, why } => Self::new(
                409,
                409,
                format!(
                    "Schema being registered is incompatible with an earlier schema for subject \"{subject}\", \
                     details: [{why}]"
                ),
            ),
            RegistryError::Invalid { why, .. } => Self::invalid_schema(why),
            other => Self::store(other.to_string()),
        }
    }
}

impl From<Answer> for Response {
    fn from(answer: Answer) -> Self {
        match answer {
            Answer::Json(value) => response(StatusCode::OK, value.to_string()),
            Answer::Text(text) => response(StatusCode::OK, text),
        }
    }
}

impl From<Refusal> for Response {
    fn from(refusal: Refusal) -> Self {
        let status = StatusCode::from_u16(refusal.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response(status, json!({ "error_code": refusal.code, "message": refusal.message }).to_string())
    }
}

fn response(status: StatusCode, body: String) -> Response {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    response
}

/// What is at the root: nothing, but it shows that a registry is here.
pub(super) async fn empty() -> Response {
    Answer::Json(json!({})).into()
}

pub(super) async fn not_found() -> Response {
    Refusal::new(404, 404, "HTTP 404 Not Found").into()
}

pub(super) async fn not_allowed() -> Response {
    Refusal::new(405, 405, "HTTP 405 Method Not Allowed").into()
}

/// Refusals of the HTTP library are plain text; clients expect JSON.
pub(super) async fn as_json(response: Response) -> Response {
    let ours = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == JSON);
    if ours || !(response.status().is_client_error() || response.status().is_server_error()) {
        return response;
    }
    let status = response.status().as_u16();
    let text: Bytes = to_bytes(response.into_body(), MAX_TEXT_BYTES).await.unwrap_or_default();
    Refusal::new(status, u32::from(status), String::from_utf8_lossy(&text).into_owned()).into()
}
