//! An error in a configuration file, with its position. Messages never repeat the content of the file: a file may hold secrets, and
//! many people can read a condition.

use std::fmt;

use super::tree::Path;

/// The kind of an error; its name is the reason of the condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumIter, strum::IntoStaticStr)]
pub enum ErrorKind {
    /// The file is not valid TOML.
    Unparsable,
    /// The file is larger or nested deeper than the limits allow, or its variables make it so.
    TooLarge,
    /// A `${NAME}` is not defined.
    UnknownVariable,
    /// `sandbox.backend` is not one of the framework's backends.
    UnknownBackend,
    /// A port is not valid.
    BadPort,
    /// Any other value is not valid for its key.
    BadValue,
    /// A secret is in a place that everybody could read.
    SecretInPlainField,
}

/// A position in a file. Lines and columns start at 1; a column is a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character of the line.
    pub column: usize,
}

impl Position {
    /// The position of a byte.
    pub fn of(text: &str, at: usize) -> Self {
        let mut at = at.min(text.len());
        while !text.is_char_boundary(at) {
            at -= 1;
        }
        let before = &text[..at];
        let line = before.matches('\n').count() + 1;
        let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
        Self { line, column }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}", self.line, self.column)
    }
}

/// An error in a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}{}{path}: {message}", if path.is_empty() { "" } else { ", " })]
pub struct Error {
    /// The kind of the error.
    pub mistake: ErrorKind,
    /// Where the error is.
    pub position: Position,
    /// The key that the error is about; empty if there is none.
    pub path: String,
    /// What is wrong with the key, as the rest of a sentence.
    pub message: String,
}

/// An error while the text of the file is not available.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpannedError {
    /// The kind of the error.
    pub mistake: ErrorKind,
    /// The byte offset of the error.
    pub at: usize,
    /// The key that the error is about.
    pub path: String,
    /// What is wrong with the key.
    pub message: String,
}

impl SpannedError {
    /// An error at a byte offset.
    pub fn new(mistake: ErrorKind, at: usize, path: &str, message: String) -> Self {
        Self { mistake, at, path: path.to_string(), message }
    }

    /// Puts the key of a table before the path.
    pub fn below(mut self, key: &str) -> Self {
        let key = Path::Root.key(key).text();
        self.path = if self.path.is_empty() { key } else { format!("{key}.{}", self.path) };
        self
    }

    /// The error with its position in the text.
    pub fn in_text(self, text: &str) -> Error {
        let Self { mistake, at, path, message } = self;
        Error { mistake, position: Position::of(text, at), path, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_a_line_and_a_character() {
        let place = |text, at| Position::of(text, at).to_string();
        assert_eq!(place("", 0), "line 1, column 1");
        assert_eq!(place("ab\ncd", 4), "line 2, column 2");
        assert_eq!(place("ää = x", 7), "line 1, column 6");
        assert_eq!(place("ää", 1), "line 1, column 1", "within a character");
        assert_eq!(place("a\n", 99), "line 2, column 1", "beyond the end");
    }

    #[test]
    fn an_error_is_a_sentence() {
        let fault = SpannedError::new(ErrorKind::BadPort, 3, "ports", "it is none".into());
        assert_eq!(
            fault.clone().below("a b").in_text("\n\nxyz").to_string(),
            "line 3, column 2, \"a b\".ports: it is none"
        );
        assert_eq!(
            SpannedError { path: String::new(), ..fault }.in_text("").to_string(),
            "line 1, column 1: it is none"
        );
    }
}
