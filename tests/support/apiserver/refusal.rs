//! What an API server says when it does not do what it was asked to.

use serde_json::{Value, json};

/// A refused request: the `Status` that a client gets.
#[derive(Clone, Debug)]
pub struct Refusal {
    pub code: u16,
    pub reason: &'static str,
    pub message: String,
    /// Reason, message and field of each cause.
    pub causes: Vec<(String, String, String)>,
    pub retry_after: Option<u64>,
}

impl Refusal {
    pub fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self { code, reason, message: message.into(), causes: vec![], retry_after: None }
    }

    pub fn because(mut self, reason: &str, message: &str, field: &str) -> Self {
        self.causes.push((reason.into(), message.into(), field.into()));
        self
    }

    pub fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    pub fn not_found(plural: &str, name: &str) -> Self {
        Self::new(404, "NotFound", format!("{plural} \"{name}\" not found"))
    }

    pub fn already_exists(plural: &str, name: &str) -> Self {
        Self::new(409, "AlreadyExists", format!("{plural} \"{name}\" already exists"))
    }

    pub fn conflict(plural: &str, name: &str, why: &str) -> Self {
        Self::new(409, "Conflict", format!("Operation cannot be fulfilled on {plural} \"{name}\": {why}"))
    }

    /// An object that is not valid, with each field that is not.
    pub fn invalid(kind: &str, name: &str, errors: &[FieldError]) -> Self {
        let words: Vec<_> = errors.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        let refusal = Self::new(422, "Invalid", format!("{kind} \"{name}\" is invalid: {}", words.join(", ")));
        errors.iter().fold(refusal, |refusal, error| refusal.because("FieldValueInvalid", &error.message, &error.field))
    }

    pub fn gone() -> Self {
        Self::new(410, "Expired", "The resourceVersion for the provided watch or list is too old.")
    }

    /// As a client reads it.
    pub fn status(&self) -> Value {
        let causes: Vec<_> = self
            .causes
            .iter()
            .map(|(reason, message, field)| json!({"reason": reason, "message": message, "field": field}))
            .collect();
        json!({
            "apiVersion": "v1",
            "kind": "Status",
            "metadata": {},
            "status": "Failure",
            "code": self.code,
            "reason": self.reason,
            "message": self.message,
            "details": {"causes": causes, "retryAfterSeconds": self.retry_after.unwrap_or_default()},
        })
    }
}

/// A field that is not as it has to be.
#[derive(Clone, Debug)]
pub struct FieldError {
    pub field: String,
    pub message: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}
