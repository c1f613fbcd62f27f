//! Durations as users write them: `90s`, `30m`, `1h30m`.

use jiff::SignedDuration;

/// The duration of a text; `None` if it is none, or lasts no time.
#[must_use]
pub fn parse(text: &str) -> Option<SignedDuration> {
    text.parse::<SignedDuration>().ok().filter(SignedDuration::is_positive)
}

/// Likewise.
///
/// # Errors
/// A sentence that names the field.
pub fn parse_field(field: &str, text: &str) -> Result<SignedDuration, String> {
    parse(text).ok_or_else(|| format!("{field}: `{text}` is no duration; write it as 90s, 30m or 1h30m."))
}
