//! Replaces each `${NAME}` by the value of a variable: first a given variable, then the file's own. Environment variables are never
//! used. A variable has to be defined where the value of its key has an effect; elsewhere, the text of an undefined one stays.
//!
//! Expansion happens once: the value of a variable is not expanded again. Keys stay as they are, and so does text that is not a
//! valid name (`${name}`, `${}`). A value that is one `${NAME}` and nothing else takes the type of the file's variable; the value
//! of a given variable is text, which is converted to the type of its key. Text stays text: `"0123"` does not become a number.

use std::collections::BTreeMap;

use secrecy::{ExposeSecret, SecretString};

use super::{
    ErrorKind, Origin,
    error::SpannedError,
    keys::{self, Key, Shape},
    tree::{Node, Part, Path, Table, Taint, Value},
};

/// How many bytes variables may add to a file. Without a limit, a file could name a long variable a hundred thousand times.
const MAX_ADDED: usize = super::toml::MAX_BYTES;

/// The value of a given variable.
#[derive(Clone, Debug)]
pub enum VariableValue {
    /// A value that everybody may see.
    Plain(String),
    /// A value from a Secret.
    Secret(SecretString),
}

/// The given variables, by name.
pub type Variables = BTreeMap<String, VariableValue>;

/// The definition of a variable.
enum Known<'a> {
    VariableValue(&'a VariableValue),
    Own { value: Value, is_secret: bool },
}

/// Whether a word is a valid name of a variable.
pub fn is_name(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(is_name_byte)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_'
}

/// Whether a top-level key of the file is a variable: a valid name with at least one letter.
pub fn is_variable(key: &str) -> bool {
    is_name(key) && key.bytes().any(|byte| byte.is_ascii_uppercase())
}

/// Whether a key holds a credential, judged by its name.
pub fn is_credential(key: &str) -> bool {
    let key = key.to_ascii_lowercase();
    ["password", "passwd", "secret", "token", "api_key", "apikey", "credential", "private_key"]
        .iter()
        .any(|word| key.contains(word))
        // `max_tokens` counts tokens.
        && !key.contains("tokens")
}

/// A piece of a text.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    /// Literal text.
    Literal(&'a str),
    /// The name of a variable.
    Variable(&'a str),
}

/// Splits a text into its pieces.
pub fn pieces(text: &str) -> Vec<Piece<'_>> {
    let (mut pieces, mut literal, mut from) = (Vec::new(), 0, 0);
    while let Some(found) = text[from..].find("${") {
        let begin = from + found;
        let name = begin + 2;
        let end = text[name..].bytes().position(|byte| !is_name_byte(byte)).map_or(text.len(), |length| name + length);
        from = name;
        if end > name && text[end..].starts_with('}') {
            if literal < begin {
                pieces.push(Piece::Literal(&text[literal..begin]));
            }
            pieces.push(Piece::Variable(&text[name..end]));
            literal = end + 1;
            from = literal;
        }
    }
    if literal < text.len() {
        pieces.push(Piece::Literal(&text[literal..]));
    }
    pieces
}

/// Expands every value of a file, and marks the values that contain a secret.
///
/// # Errors
/// When a variable is not defined whose value has an effect, or the file becomes too large.
pub fn expand(file: &mut Table, given: &Variables, origin: Origin) -> Result<(), SpannedError> {
    // The file's own variables have their values as written: they are not expanded before they are used.
    let mut known = BTreeMap::new();
    for (key, node) in file.entries.iter().filter(|(key, node)| is_variable(key) && node.value.to_text().is_some()) {
        let is_secret = origin == Origin::Secret && is_credential(key);
        known.insert(key.clone(), Known::Own { value: node.value.clone(), is_secret });
    }
    known.extend(given.iter().map(|(name, value)| (name.clone(), Known::VariableValue(value))));
    let mut expansion = Expansion { known, origin, capacity: MAX_ADDED };
    file.entries
        .iter_mut()
        .try_for_each(|(name, node)| expansion.expand(node, &Path::Root.key(name), keys::find(keys::FILE, name)))
}

struct Expansion<'a> {
    known: BTreeMap<String, Known<'a>>,
    origin: Origin,
    /// How many bytes may still be added.
    capacity: usize,
}

impl Expansion<'_> {
    /// Expands the value of a known or unknown key, and all that it holds.
    fn expand(&mut self, node: &mut Node, path: &Path<'_>, key: Option<&'static Key>) -> Result<(), SpannedError> {
        if self.origin == Origin::Secret {
            node.taint = Taint::File;
        }
        match &mut node.value {
            Value::Text(text) if text.contains("${") => {
                let pieces = pieces(text);
                // What has no effect needs no values.
                if !key.is_some_and(Key::has_effect) && pieces.iter().any(|piece| self.is_undefined(piece)) {
                    return Ok(());
                }
                let (value, taint) = self.value_of(&pieces, node.at, path)?;
                node.value = value;
                if let Some(taint) = taint {
                    node.taint = taint;
                }
                Ok(())
            }
            Value::Text(_) | Value::Integer(_) | Value::Float(_) | Value::Bool(_) | Value::Datetime(_) => Ok(()),
            Value::List(list) => {
                let mut entries = list.iter_mut().enumerate();
                entries.try_for_each(|(position, node)| self.expand(node, &path.entry(position), key))
            }
            Value::Table(table) => table.entries.iter_mut().try_for_each(|(name, node)| {
                let key = match key.map(|key| key.shape) {
                    Some(Shape::Table(keys)) => keys::find(keys, name),
                    _ => key, // a table that is the value of a key, or of an unknown key
                };
                self.expand(node, &path.key(name), key)
            }),
        }
    }

    fn is_undefined(&self, piece: &Piece<'_>) -> bool {
        matches!(piece, Piece::Variable(name) if !self.known.contains_key(*name))
    }

    fn value_of(
        &mut self,
        pieces: &[Piece<'_>],
        at: usize,
        path: &Path<'_>,
    ) -> Result<(Value, Option<Taint>), SpannedError> {
        let (mut text, mut parts, mut is_secret) = (String::new(), Vec::new(), false);
        for piece in pieces {
            let name = match *piece {
                Piece::Literal(literal) => {
                    text.push_str(literal);
                    parts.push(Part::Plain(literal.to_string()));
                    continue;
                }
                Piece::Variable(name) => name,
            };
            let (value, secret) = self.look_up(name, at, path)?;
            if let [Piece::Variable(_)] = pieces
                && !secret
            {
                return Ok((value, None));
            }
            let added = value.to_text().unwrap_or_default();
            text.push_str(&added);
            parts.push(if secret { Part::Secret(name.to_string()) } else { Part::Plain(added) });
            is_secret |= secret;
        }
        Ok((Value::Text(text), is_secret.then_some(Taint::Variable(parts))))
    }

    /// The value of a variable, and whether it is a secret.
    fn look_up(&mut self, name: &str, at: usize, path: &Path<'_>) -> Result<(Value, bool), SpannedError> {
        let (value, secret) = match self.known.get(name) {
            Some(Known::VariableValue(VariableValue::Plain(text))) => (Value::Text(text.clone()), false),
            Some(Known::VariableValue(VariableValue::Secret(secret))) => {
                (Value::Text(secret.expose_secret().to_string()), true)
            }
            Some(Known::Own { value, is_secret }) => (value.clone(), *is_secret),
            None => {
                // In a file from a Secret, what looks like a variable may be part of a password.
                let which = match self.origin {
                    Origin::Plain => format!("nobody defines the variable {}", shortened(name)),
                    Origin::Secret => "it uses a variable that is not defined".to_string(),
                };
                return Err(SpannedError::new(ErrorKind::UnknownVariable, at, &path.text(), which));
            }
        };
        let added = if let Value::Text(text) = &value { text.len() } else { 32 };
        let Some(capacity) = self.capacity.checked_sub(added) else {
            let message = format!("variables add more than {MAX_ADDED} bytes to the file");
            return Err(SpannedError::new(ErrorKind::TooLarge, at, &path.text(), message));
        };
        self.capacity = capacity;
        Ok((value, secret))
    }
}

fn shortened(name: &str) -> String {
    const LONGEST: usize = 64;
    // A name is ASCII.
    if name.len() > LONGEST { format!("{}…", &name[..LONGEST]) } else { name.to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::toml::parse;

    fn variables(given: &[(&str, &str)]) -> Variables {
        given.iter().map(|(name, value)| ((*name).to_string(), VariableValue::Plain((*value).to_string()))).collect()
    }

    fn expanded(text: &str, given: &Variables, origin: Origin) -> Result<Table, SpannedError> {
        let mut table = parse(text).unwrap();
        expand(&mut table, given, origin).map(|()| table)
    }

    fn value(text: &str, given: &[(&str, &str)]) -> Value {
        let file = format!("{text}\n");
        expanded(&file, &variables(given), Origin::Plain).unwrap().get("x").unwrap().value.clone()
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    #[test]
    fn a_value_takes_the_type_of_the_files_variable_and_the_text_of_what_was_given() {
        assert_eq!(value("A = 1\nx = '${A}'", &[]), Value::Integer(1));
        assert_eq!(value("A = true\nx = '${A}'", &[]), Value::Bool(true));
        assert_eq!(value("A = 1.5\nx = '${A}'", &[]), Value::Float(1.5));
        assert_eq!(value("A = '0123'\nx = '${A}'", &[]), text("0123"));
        assert_eq!(value("A = 'false'\nx = '${A}'", &[]), text("false"));
        assert_eq!(value("A = 1\nx = '${A}'", &[("A", "2")]), text("2"));
        assert_eq!(value("x = '${A}'", &[("A", "")]), text(""), "an empty value counts too");
    }

    #[test]
    fn a_part_of_a_value_is_text() {
        assert_eq!(value("A = 1\nB = true\nx = '${A}${B}'", &[]), text("1True"));
        assert_eq!(value("A = 1\nx = ' ${A}'", &[]), text(" 1"));
        assert_eq!(value("A = 'b'\nx = 'a${A}c-${A}'", &[]), text("abc-b"));
        assert_eq!(value("A = 0.00001\nx = '${A}!'", &[]), text("1e-05!"));
    }

    #[test]
    fn what_a_variable_brings_is_not_expanded_again() {
        let table = expanded("A = '${B}'\nB = 1\nx = '${A}'\ny = '${A} '", &Variables::new(), Origin::Plain).unwrap();
        assert_eq!(table.get("x").unwrap().value, text("${B}"));
        assert_eq!(table.get("y").unwrap().value, text("${B} "));
        assert_eq!(table.get("A").unwrap().value, Value::Integer(1), "the variable itself is expanded like any value");
        assert_eq!(value("x = '${A}'", &[("A", "${A}${NOBODY}")]), text("${A}${NOBODY}"));
    }

    #[test]
    fn what_is_not_a_name_stays() {
        for stays in ["${x}", "${}", "${ A }", "$A", "${A", "$", "${A-B}", "${a}${b}", "${Ä}"] {
            assert_eq!(value(&format!("x = '{stays}'"), &[]), text(stays));
        }
        assert_eq!(value("A = 'b'\nx = '$${A}'", &[]), text("$b"), "nothing escapes");
        assert_eq!(value("A = 'b'\nx = '${${A}}'", &[]), text("${b}"), "only the innermost variable, and once");
        assert_eq!(value("A = 'b'\nx = '${A${A}'", &[]), text("${Ab"));
    }

    #[test]
    fn values_are_expanded_wherever_they_are_and_keys_nowhere() {
        let file = "A = 'b'\n[t]\n'${A}' = ['${A}', {k = '${A}'}]\n";
        let table = expanded(file, &Variables::new(), Origin::Plain).unwrap();
        assert_eq!(format!("{:?}", table.get("t").unwrap()), r#"{"${A}": ["b", {"k": "b"}]}"#);
    }

    #[test]
    fn only_scalars_of_the_top_level_in_upper_case_are_variables() {
        for file in ["a = 1\nX", "A = [1]\nX", "[A]\nA = 1\n[neo4j]\nuser = '${A}'", "1 = 2\ntask_name = '${1}'"] {
            let file = file.replace('X', "task_name = '${A}'");
            let fault = expanded(&file, &Variables::new(), Origin::Plain).unwrap_err();
            assert_eq!(fault.mistake, ErrorKind::UnknownVariable, "{file}");
        }
    }

    #[test]
    fn an_unknown_variable_is_named_with_its_place_unless_it_may_be_a_part_of_a_secret() {
        let file = "[plugins]\nenabled = ['a', 'hunter ${PASS}']";
        let fault = expanded(file, &Variables::new(), Origin::Plain).unwrap_err();
        assert_eq!((fault.path.as_str(), fault.at), ("plugins.enabled[1]", 26));
        assert_eq!(fault.message, "nobody defines the variable PASS");
        let fault = expanded(file, &Variables::new(), Origin::Secret).unwrap_err();
        assert!(!fault.message.contains("PASS"));
    }

    #[test]
    fn what_has_no_effect_needs_no_variables_and_is_expanded_where_all_are_defined() {
        let file = "A = 'a'\nALIAS = '${B}'\nunknown = ['${B}']\n[sandbox]\nmount_host_paths = ['${B}:/b', '${A}:/a']\n\
                    [sandbox.sandboxes.main]\nbuild_args = {X = '${A}', Y = '${A}${B}'}\n[sandbox.sandboxes.main.extra]\nfs = '${B}'\n";
        let table = expanded(file, &Variables::new(), Origin::Plain).unwrap();
        assert_eq!(table.text("ALIAS"), Some("${B}"));
        let shown = format!("{table:?}");
        for part in [r#"["${B}:/b", "a:/a"]"#, r#"{"X": "a", "Y": "${A}${B}"}"#, r#"{"fs": "${B}"}"#] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
        for (file, path) in [
            ("[sandbox.sandboxes.main]\nenvironment = {X = ['${B}']}", "sandbox.sandboxes.main.environment.X[0]"),
            ("[plugins.params]\nany.key = '${B}'", "plugins.params.any.key"),
            (
                "[sandbox.sandboxes.main.extra]\ninitializer_timeout_sec = '${B}'",
                "sandbox.sandboxes.main.extra.initializer_timeout_sec",
            ),
        ] {
            let fault = expanded(file, &Variables::new(), Origin::Plain).unwrap_err();
            assert_eq!((fault.mistake, fault.path.as_str()), (ErrorKind::UnknownVariable, path));
        }
    }

    #[test]
    fn a_secret_marks_all_that_it_touches_and_shows_nowhere() {
        let mut given = variables(&[("B", "plain")]);
        given.insert("A".into(), VariableValue::Secret(SecretString::from("hunter2")));
        let file = "x = 'a ${A} ${B}'\ny = '${A}'\nz = '${B}'\nl = [1, '${A}']\n";
        let table = expanded(file, &given, Origin::Plain).unwrap();
        let taint = |key: &str| table.get(key).unwrap().taint.clone();
        let secret = || Part::Secret("A".into());
        let plain = |text: &str| Part::Plain(text.into());
        assert_eq!(taint("x"), Taint::Variable(vec![plain("a "), secret(), plain(" "), plain("plain")]));
        assert_eq!(taint("y"), Taint::Variable(vec![secret()]));
        assert_eq!(taint("z"), Taint::Clean);
        assert!(table.get("l").unwrap().holds_secret_variable());
        assert!(!format!("{table:?} {given:?}").contains("hunter2"));
    }

    #[test]
    fn of_a_file_from_a_secret_everything_is_marked_and_its_credentials_are_secrets() {
        let file = "NEO4J_PASSWORD = 'hunter2'\nIMAGE = 'a'\nx = '${NEO4J_PASSWORD}'\ny = '${IMAGE}'\nz = 1\n";
        let table = expanded(file, &Variables::new(), Origin::Secret).unwrap();
        assert_eq!(table.get("x").unwrap().taint, Taint::Variable(vec![Part::Secret("NEO4J_PASSWORD".into())]));
        assert_eq!(table.get("y").unwrap().taint, Taint::File);
        assert_eq!(table.get("z").unwrap().taint, Taint::File);
        assert!(!format!("{table:?}").contains("hunter2"));
    }

    #[test]
    fn a_file_cannot_blow_itself_up() {
        let file = format!("A = '{}'\nx = '{}'\n", "a".repeat(1_000), "${A}".repeat(2_000));
        let fault = expanded(&file, &Variables::new(), Origin::Plain).unwrap_err();
        assert_eq!(fault.mistake, ErrorKind::TooLarge);
    }

    #[test]
    fn the_environment_is_not_asked() {
        let (name, _) = std::env::vars().find(|(name, _)| is_variable(name)).expect("PATH, at least");
        let fault = expanded(&format!("task_name = '${{{name}}}'"), &Variables::new(), Origin::Plain).unwrap_err();
        assert_eq!(fault.mistake, ErrorKind::UnknownVariable);
    }

    proptest! {
        /// Another implementation of the rules: a name and its braces are replaced, the rest stays.
        #[test]
        fn any_text_expands_as_the_rules_say(text in r"([$][{][AB][}]|[$]|[{]|[}]|[AB]|[ax ]){0,24}") {
            let given = variables(&[("A", "${B}"), ("B", "1"), ("AA", "2"), ("AB", "3"), ("BA", "4"), ("BB", "5")]);
            let mut known = given.clone();
            for length in 3..8 {
                for bits in 0..1 << length {
                    let name: String = (0..length).map(|bit| if bits >> bit & 1 == 0 { 'A' } else { 'B' }).collect();
                    known.insert(name.clone(), VariableValue::Plain(name.to_lowercase()));
                }
            }
            let regex = regex::Regex::new(r"\$\{([A-Z0-9_]+)\}").unwrap();
            let expected = regex.replace_all(&text, |found: &regex::Captures<'_>| match &known.get(&found[1]) {
                Some(VariableValue::Plain(value)) => value.clone(),
                _ => "?".to_string(),
            });
            let mut table = Table::default();
            table.put("task_name", Value::Text(text.clone()));
            if expand(&mut table, &known, Origin::Plain).is_ok() {
                prop_assert_eq!(&table.get("task_name").unwrap().value, &Value::Text(expected.into_owned()));
            } else {
                prop_assert!(expected.contains('?'));
            }
        }

        #[test]
        fn expanding_is_total(text in any::<String>(), value in any::<String>()) {
            let mut table = Table::default();
            table.put("A", Value::Text(value));
            table.put("x", Value::Text(text));
            let _ = expand(&mut table, &Variables::new(), Origin::Secret);
        }
    }
}
