//! What is wrong with a value that a user wrote.

use std::fmt::{self, Display};

/// A value of a user that cannot be used: where it is, and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Invalid {
    /// The steps to the value: `.field`, `[0]` or `[key]` each.
    path: String,
    message: String,
}

impl Invalid {
    /// A field that cannot be used; the path begins in the value that is checked.
    pub fn new(path: impl Display, message: impl Into<String>) -> Self {
        Self::whole(message).below(path)
    }

    /// The value that is checked cannot be used as a whole.
    pub fn whole(message: impl Into<String>) -> Self {
        Self { path: String::new(), message: message.into() }
    }
}

/// What cannot be written or parsed as JSON is wrong as a whole.
impl From<serde_json::Error> for Invalid {
    fn from(error: serde_json::Error) -> Self {
        Self::whole(error.to_string())
    }
}

/// The path and a sentence.
impl Display for Invalid {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.strip_prefix('.').unwrap_or(&self.path) {
            "" => formatter.write_str(&self.message),
            path => write!(formatter, "{path}: {}", self.message),
        }
    }
}

/// Puts what was checked into the value that contains it.
pub trait Below {
    /// The checked value is in this field.
    fn below(self, field: impl Display) -> Self;

    /// The checked value is at this index of a list, or at this key of a map.
    fn at(self, key: impl Display) -> Self;
}

impl Below for Invalid {
    fn below(self, field: impl Display) -> Self {
        Self { path: format!(".{field}{}", self.path), ..self }
    }

    fn at(self, key: impl Display) -> Self {
        Self { path: format!("[{key}]{}", self.path), ..self }
    }
}

impl<T> Below for Result<T, Invalid> {
    fn below(self, field: impl Display) -> Self {
        self.map_err(|invalid| invalid.below(field))
    }

    fn at(self, key: impl Display) -> Self {
        self.map_err(|invalid| invalid.at(key))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_written_as_users_write_it() {
        let invalid = |path: Invalid| path.to_string();
        assert_eq!(invalid(Invalid::whole("wrong.")), "wrong.");
        assert_eq!(invalid(Invalid::whole("wrong.").below("podTemplate")), "podTemplate: wrong.");
        assert_eq!(invalid(Invalid::whole("wrong.").at("a.b/c").below("labels")), "labels[a.b/c]: wrong.");
        let image = Invalid::new("image", "wrong.").at(0).below("spec.containers");
        let checked = Err::<(), _>(image).below("podTemplate").map_err(invalid);
        assert_eq!(checked, Err("podTemplate.spec.containers[0].image: wrong.".into()));
    }
}
