//! What is wrong with a file, and where. The words never repeat what stands in it: a file may hold secrets, and a condition is
//! read by many.

use std::fmt;

use super::tree::Path;

/// What kind of mistake it is: one word, as a condition has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::EnumIter, strum::IntoStaticStr)]
pub enum ErrorKind {
    /// The file is no TOML.
    Unparsable,
    /// The file is larger or deeper than any configuration, or its variables make it so.
    TooLarge,
    /// A `${NAME}` that nobody defines.
    UnknownVariable,
    /// `sandbox.backend` is none of the framework's.
    UnknownBackend,
    /// A port that is none.
    BadPort,
    /// Any other value that its key cannot have.
    BadValue,
    /// A secret where everybody could read it.
    SecretInPlainField,
}

/// Where something stands in a file. Both count from 1; a column is a character.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The character of the line.
    pub column: usize,
}

impl Position {
    /// The position of a byte.
    #[must_use]
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

/// What is wrong with a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{position}{}{path}: {message}", if path.is_empty() { "" } else { ", " })]
pub struct Error {
    /// What kind of mistake it is.
    pub mistake: ErrorKind,
    /// Where it stands.
    pub position: Position,
    /// The key that it concerns; empty if it concerns none.
    pub path: String,
    /// What is wrong with it, as the rest of a sentence.
    pub message: String,
}

/// The same while the text of the file is not at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpannedError {
    /// What kind of mistake it is.
    pub mistake: ErrorKind,
    /// The byte where it stands.
    pub at: usize,
    /// The key that it concerns.
    pub path: String,
    /// What is wrong with it.
    pub message: String,
}

impl SpannedError {
    /// A mistake at a byte.
    #[must_use]
    pub fn new(mistake: ErrorKind, at: usize, path: &str, message: String) -> Self {
        Self { mistake, at, path: path.to_string(), message }
    }

    /// Puts the key of a table before the path.
    #[must_use]
    pub fn below(mut self, key: &str) -> Self {
        let key = Path::Root.key(key).text();
        self.path = if self.path.is_empty() { key } else { format!("{key}.{}", self.path) };
        self
    }

    /// The same with its place in the text.
    #[must_use]
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
