//! A file as a tree: each value has its position in the file, and a mark if it comes from a Secret.

use std::fmt;

/// A value of the file.
#[derive(Clone, PartialEq)]
pub struct Node {
    /// The value itself.
    pub value: Value,
    /// Where the value begins, in bytes. Lines and columns are only counted when they are needed: a file may be one long line.
    pub at: usize,
    /// Whether the value comes from a Secret.
    pub taint: Taint,
}

/// A value of one of TOML's types.
#[derive(Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Any other number, also `nan` and `inf`.
    Float(f64),
    /// A boolean.
    Bool(bool),
    /// A date, a time or both. The framework does not use them, but plugins may.
    Datetime(toml::value::Datetime),
    /// Values in order.
    List(Vec<Node>),
    /// Values by key.
    Table(Table),
}

/// Whether a value comes from a Secret.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Taint {
    /// The value does not come from a Secret.
    #[default]
    Clean,
    /// The file comes from a Secret. Most of its values are not secret.
    File,
    /// The value contains a secret variable. Its parts allow writing the value again without the secret.
    Variable(Vec<Part>),
}

/// A part of a text that contains a secret variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Text that is not secret.
    Plain(String),
    /// The name of a secret variable.
    Secret(String),
}

/// Values by key, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Table {
    /// Each key once.
    pub entries: Vec<(String, Node)>,
}

impl Node {
    /// A value that does not come from a file.
    pub fn new(value: Value) -> Self {
        Self { value, at: 0, taint: Taint::Clean }
    }

    /// The text, if it is one.
    pub fn as_text(&self) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { None }
    }

    /// The whole number, if it is one.
    pub fn as_integer(&self) -> Option<i64> {
        if let Value::Integer(number) = self.value { Some(number) } else { None }
    }

    /// The boolean, if it is one.
    pub fn as_bool(&self) -> Option<bool> {
        if let Value::Bool(is) = self.value { Some(is) } else { None }
    }

    /// The list, if it is one.
    pub fn as_list(&self) -> Option<&[Node]> {
        if let Value::List(list) = &self.value { Some(list) } else { None }
    }

    /// The table, if it is one.
    pub fn as_table(&self) -> Option<&Table> {
        if let Value::Table(table) = &self.value { Some(table) } else { None }
    }

    /// Whether the value, or anything that it holds, contains a secret variable.
    pub fn holds_secret_variable(&self) -> bool {
        let within = match &self.value {
            Value::List(list) => list.iter().any(Node::holds_secret_variable),
            Value::Table(table) => table.entries.iter().any(|(_, node)| node.holds_secret_variable()),
            Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Datetime(_) => false,
        };
        within || matches!(self.taint, Taint::Variable(_))
    }

    /// Whether the value sets nothing: an empty value, or `false`, counts as absent.
    pub fn is_blank(&self) -> bool {
        match &self.value {
            Value::Text(text) => text.is_empty(),
            Value::Bool(is) => !is,
            Value::List(list) => list.is_empty(),
            Value::Table(table) => table.entries.is_empty(),
            Value::Integer(_) | Value::Float(_) | Value::Datetime(_) => false,
        }
    }
}

impl Value {
    /// A scalar as the text that the framework makes of it where text is required: like Python's `str`.
    pub fn to_text(&self) -> Option<String> {
        match self {
            Value::Text(text) => Some(text.clone()),
            Value::Integer(number) => Some(number.to_string()),
            Value::Float(number) => Some(python_float(*number)),
            Value::Bool(true) => Some("True".into()),
            Value::Bool(false) => Some("False".into()),
            Value::Datetime(_) | Value::List(_) | Value::Table(_) => None,
        }
    }
}

/// Python and Rust print the same digits, but use an exponent in different cases.
fn python_float(number: f64) -> String {
    if !number.is_finite() {
        return if number.is_nan() { "nan".into() } else { format!("{number}") };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    match exponent.parse::<i32>() {
        Ok(exponent) if number != 0.0 && !(-4..16).contains(&exponent) => {
            let sign = if exponent < 0 { '-' } else { '+' };
            format!("{digits}e{sign}{:02}", exponent.unsigned_abs())
        }
        _ => format!("{number:?}"),
    }
}

impl Table {
    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&Node> {
        self.entries.iter().find_map(|(name, node)| (name == key).then_some(node))
    }

    /// The value of a key, for changing it.
    pub fn get_mut(&mut self, key: &str) -> Option<&mut Node> {
        self.entries.iter_mut().find_map(|(name, node)| (name == key).then_some(node))
    }

    /// The table of a key; empty if there is none.
    pub fn table(&self, key: &str) -> &Table {
        static EMPTY: Table = Table { entries: vec![] };
        self.get(key).and_then(Node::as_table).unwrap_or(&EMPTY)
    }

    /// The text of a key, if it is not empty.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.get(key).and_then(Node::as_text).filter(|text| !text.is_empty())
    }

    /// Sets the value of a key; replaces an existing value.
    pub fn put(&mut self, key: &str, value: Value) {
        match self.get_mut(key) {
            Some(node) => *node = Node::new(value),
            None => self.entries.push((key.to_string(), Node::new(value))),
        }
    }

    /// Removes a key.
    pub fn remove(&mut self, key: &str) {
        self.entries.retain(|(name, _)| name != key);
    }

    /// Changes the table of a key; creates the table if there is none.
    pub fn change(&mut self, key: &str, change: impl FnOnce(&mut Table)) {
        let mut table = match self.get_mut(key) {
            Some(Node { value: Value::Table(table), .. }) => std::mem::take(table),
            _ => Table::default(), // not a table
        };
        change(&mut table);
        self.put(key, Value::Table(table));
    }
}

/// Values that come from a Secret are not shown.
impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.taint, &self.value) {
            (Taint::Clean, value) | (Taint::File, value @ (Value::List(_) | Value::Table(_))) => value.fmt(f),
            (Taint::File | Taint::Variable(_), _) => f.write_str("(of a Secret)"),
        }
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Text(text) => text.fmt(f),
            Value::Integer(number) => number.fmt(f),
            Value::Float(number) => number.fmt(f),
            Value::Bool(is) => is.fmt(f),
            Value::Datetime(time) => write!(f, "{time}"),
            Value::List(list) => list.fmt(f),
            Value::Table(table) => f.debug_map().entries(table.entries.iter().map(|(key, node)| (key, node))).finish(),
        }
    }
}

/// The path to a value, for a person: `sandbox.sandboxes.main.ports."8081/tcp"`.
#[derive(Clone, Copy, Debug)]
pub enum Path<'a> {
    /// The file.
    Root,
    /// A key of a table.
    Key(&'a Path<'a>, &'a str),
    /// An entry of a list.
    Entry(&'a Path<'a>, usize),
}

/// The maximum length of a path, and of a key in it, that is shown.
const LONGEST_PATH: usize = 256;
const LONGEST_KEY: usize = 64;

impl<'a> Path<'a> {
    /// The path of a key below this path.
    pub fn key(&'a self, key: &'a str) -> Path<'a> {
        Path::Key(self, key)
    }

    /// The path of an entry below this path.
    pub fn entry(&'a self, position: usize) -> Path<'a> {
        Path::Entry(self, position)
    }

    /// The whole path, cut off if it is too long to read.
    pub fn text(&self) -> String {
        let mut text = String::new();
        self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) {
        match self {
            Path::Root => {}
            Path::Key(parent, key) => {
                parent.write(text);
                if text.len() > LONGEST_PATH {
                    return;
                }
                if !text.is_empty() {
                    text.push('.');
                }
                write_key(text, key);
            }
            Path::Entry(parent, position) => {
                parent.write(text);
                if text.len() <= LONGEST_PATH {
                    text.extend(["[", &position.to_string(), "]"]);
                }
            }
        }
    }
}

/// A key as it is written in a file. Control characters are replaced: the text may end up on a terminal.
fn write_key(text: &mut String, key: &str) {
    let mut beginning = key.chars().take(LONGEST_KEY + 1);
    let is_bare = !key.is_empty() && beginning.all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_');
    // Characters that break a line or change the direction of text are replaced as well.
    let is_odd =
        |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let shown: String = key.chars().take(LONGEST_KEY).map(|c| if is_odd(c) { '\u{fffd}' } else { c }).collect();
    let rest = if key.chars().nth(LONGEST_KEY).is_some() { "…" } else { "" };
    if is_bare {
        text.extend([&shown, rest]);
    } else {
        text.extend(["\"", &shown, rest, "\""]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scalars_are_said_as_the_framework_says_them() {
        for (number, text) in [
            (1.0, "1.0"),
            (0.0, "0.0"),
            (-0.0, "-0.0"),
            (0.1, "0.1"),
            (1e5, "100000.0"),
            (1e15, "1000000000000000.0"),
            (1e16, "1e+16"),
            (1.5e300, "1.5e+300"),
            (0.0001, "0.0001"),
            (0.00001, "1e-05"),
            (f64::INFINITY, "inf"),
            (f64::NEG_INFINITY, "-inf"),
            (f64::NAN, "nan"),
        ] {
            assert_eq!(Value::Float(number).to_text().as_deref(), Some(text));
        }
        assert_eq!(Value::Bool(true).to_text().as_deref(), Some("True"));
        assert_eq!(Value::List(vec![]).to_text(), None);
    }

    #[test]
    fn a_path_is_readable_whatever_the_keys_are() {
        let sandbox = Path::Root.key("sandbox");
        let ports = sandbox.key("8081/tcp");
        assert_eq!(ports.entry(3).text(), "sandbox.\"8081/tcp\"[3]");
        assert_eq!(Path::Root.key("\u{1b}[31m").text(), "\"\u{fffd}[31m\"");
        let long = "x".repeat(100_000);
        let (a, b, c);
        a = Path::Root.key(&long);
        b = a.key(&long);
        c = b.key(&long);
        assert!(c.text().len() < 400);
        assert!(c.text().ends_with('…'));
    }
}
