//! Durations as users write them: `90s`, `30m`, `1h30m`.

use jiff::SignedDuration;

use super::Invalid;

/// Parses a duration; `None` if the text is not a duration, or the duration is not positive.
pub fn parse(text: &str) -> Option<SignedDuration> {
    text.parse::<SignedDuration>().ok().filter(SignedDuration::is_positive)
}

/// Checks the duration in a field, if the field has one.
///
/// # Errors
/// When the text is not a duration.
pub fn check(text: Option<&str>) -> Result<(), Invalid> {
    match text.filter(|text| parse(text).is_none()) {
        Some(text) => Err(Invalid::whole(format!("`{text}` is not a valid duration; write it as 90s, 30m or 1h30m."))),
        None => Ok(()),
    }
}
