//! Durations as users write them: `90s`, `30m`, `1h30m`.

use jiff::SignedDuration;

/// Parses a duration; `None` if the text is not a duration, or the duration is not positive.
pub fn parse(text: &str) -> Option<SignedDuration> {
    text.parse::<SignedDuration>().ok().filter(SignedDuration::is_positive)
}

/// Parses the duration in a field.
///
/// # Errors
/// A sentence that names the field.
pub fn parse_field(field: &str, text: &str) -> Result<SignedDuration, String> {
    parse(text).ok_or_else(|| format!("{field}: `{text}` is not a valid duration; write it as 90s, 30m or 1h30m."))
}
