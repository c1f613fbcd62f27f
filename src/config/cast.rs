//! Converts each value to the type that its key requires, and reports the keys without effect. No value is guessed: text becomes a
//! number only where a number is required.

use super::{
    ErrorKind, Ignored,
    error::SpannedError,
    expand::is_variable,
    keys::{self, Handling, Key, Shape},
    tree::{Node, Path, Table, Value},
};

/// The reason that is reported for an unknown key.
const UNKNOWN: &str = "the key is unknown; it is kept in the effective configuration";

/// Converts the values of a file to the types of their keys. Keys without effect are added to `ignored`.
///
/// # Errors
/// When a used key cannot have its value, or would expose a secret.
pub fn cast(file: &mut Table, ignored: &mut Vec<Ignored>) -> Result<(), SpannedError> {
    cast_table(file, keys::FILE, &Path::Root, ignored)
}

fn cast_table(
    table: &mut Table,
    keys: &'static [Key],
    path: &Path<'_>,
    ignored: &mut Vec<Ignored>,
) -> Result<(), SpannedError> {
    for (name, node) in &mut table.entries {
        let path = path.key(name);
        match keys::find(keys, name) {
            Some(key) => cast_key(node, key, &path, ignored)?,
            None if matches!(path, Path::Key(Path::Root, name) if is_variable(name)) => {}
            None => ignored.push(Ignored { key: path.text(), reason: UNKNOWN.into() }),
        }
    }
    Ok(())
}

fn cast_key(node: &mut Node, key: &Key, path: &Path<'_>, ignored: &mut Vec<Ignored>) -> Result<(), SpannedError> {
    let refuse =
        |node: &Node, mistake, message: &str| Err(SpannedError::new(mistake, node.at, &path.text(), message.into()));
    if let Shape::Table(keys) = key.shape {
        return match &mut node.value {
            Value::Table(table) => cast_table(table, keys, path, ignored),
            _ => refuse(node, ErrorKind::BadValue, "this must be a table"), // any other type
        };
    }
    match key.fate {
        Handling::Used(_) if node.holds_secret_variable() => refuse(
            node,
            ErrorKind::SecretInPlainField,
            "everybody could read the secret here; put secrets into `environment`",
        ),
        Handling::Used(_) | Handling::UsedWithSecrets(_) => match to_shape(&node.value, key.shape) {
            Ok(value) => {
                node.value = value;
                Ok(())
            }
            Err(wanted) => refuse(node, ErrorKind::BadValue, wanted),
        },
        // The agents' keys may be from a newer version of the framework: the agents judge values that do not fit.
        Handling::Carried | Handling::Section => {
            if let Ok(value) = to_shape(&node.value, key.shape) {
                node.value = value;
            }
            Ok(())
        }
        Handling::Ignored(reason) => {
            if !node.is_blank() {
                ignored.push(Ignored { key: path.text(), reason: reason.into() });
            }
            Ok(())
        }
    }
}

/// The value converted to the shape, or the message that says what is required.
fn to_shape(value: &Value, shape: Shape) -> Result<Value, &'static str> {
    match shape {
        Shape::Text => value.to_text().map(Value::Text).ok_or("this must be text"),
        Shape::Integer => to_integer(value).map(Value::Integer).ok_or("this must be a whole number"),
        Shape::Number => to_number(value).ok_or("this must be a number"),
        Shape::Bool => to_bool(value).map(Value::Bool).ok_or("this must be true or false"),
        Shape::Texts => to_texts(value),
        Shape::TextOrTexts => match value {
            Value::List(_) => to_texts(value),
            _ => to_shape(value, Shape::Text).map_err(|_| "this must be text or a list of texts"), // not a list
        },
        Shape::Any | Shape::Table(_) => Ok(value.clone()),
    }
}

/// The whole number that a value, or its text, represents.
pub fn to_integer(value: &Value) -> Option<i64> {
    /// A larger float cannot represent every whole number.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    match value {
        Value::Integer(number) => Some(*number),
        #[expect(clippy::cast_possible_truncation, reason = "it is whole, and small enough to be exact")]
        Value::Float(number) => (number.fract() == 0.0 && number.abs() <= EXACT).then_some(*number as i64),
        Value::Text(text) => text.trim().parse().ok(),
        Value::Bool(_) | Value::Datetime(_) | Value::List(_) | Value::Table(_) => None,
    }
}

fn to_number(value: &Value) -> Option<Value> {
    match value {
        Value::Integer(_) => Some(value.clone()),
        Value::Float(number) => number.is_finite().then(|| value.clone()),
        Value::Text(text) => to_integer(value).map(Value::Integer).or_else(|| {
            let number: f64 = text.trim().parse().ok()?;
            number.is_finite().then_some(Value::Float(number))
        }),
        Value::Bool(_) | Value::Datetime(_) | Value::List(_) | Value::Table(_) => None,
    }
}

fn to_bool(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(is) => Some(*is),
        Value::Integer(0) => Some(false),
        Value::Integer(1) => Some(true),
        Value::Text(text) if text.trim().eq_ignore_ascii_case("true") => Some(true),
        Value::Text(text) if text.trim().eq_ignore_ascii_case("false") => Some(false),
        Value::Text(_)
        | Value::Integer(_)
        | Value::Float(_)
        | Value::Datetime(_)
        | Value::List(_)
        | Value::Table(_) => None,
    }
}

fn to_texts(value: &Value) -> Result<Value, &'static str> {
    const WANTED: &str = "this must be a list of texts";
    let Value::List(list) = value else { return Err(WANTED) };
    let texts = list.iter().map(|node| {
        let text = node.value.to_text().ok_or(WANTED)?;
        Ok(Node { value: Value::Text(text), at: node.at, taint: node.taint.clone() })
    });
    Ok(Value::List(texts.collect::<Result<_, &str>>()?))
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;
    use crate::config::{
        Origin,
        expand::{VariableValue, Variables, expand},
        toml::parse,
    };

    fn with(file: &str, given: &[(&str, VariableValue)]) -> Result<(Table, Vec<String>), SpannedError> {
        let given: Variables = given.iter().map(|(name, value)| ((*name).to_string(), value.clone())).collect();
        let (mut table, mut ignored) = (parse(file).unwrap(), vec![]);
        expand(&mut table, &given, Origin::Plain)?;
        cast(&mut table, &mut ignored)?;
        Ok((table, ignored.into_iter().map(|ignored| ignored.key).collect()))
    }

    fn plain(file: &str) -> (Table, Vec<String>) {
        with(file, &[]).unwrap()
    }

    fn complaint(file: &str) -> String {
        let fault = with(file, &[]).unwrap_err();
        format!("{} {} {}", fault.mistake, fault.path, fault.message)
    }

    #[test]
    fn a_bool_is_a_bool_however_it_is_written() {
        for (written, is) in
            [("false", false), ("'false'", false), ("'False'", false), ("'true'", true), ("1", true), ("0", false)]
        {
            let (table, _) = plain(&format!("auto_cleanup = {written}"));
            assert_eq!(table.get("auto_cleanup").unwrap().as_bool(), Some(is), "{written}");
        }
        assert_eq!(complaint("auto_cleanup = 'no'"), "BadValue auto_cleanup this must be true or false");
        let (table, _) = plain("OFF = 'false'\n[agent_ensemble]\nenforce_thread_safe_tools = '${OFF}'");
        let kept = table.table("agent_ensemble").get("enforce_thread_safe_tools").unwrap().as_bool();
        assert_eq!(kept, Some(false), "this also holds for the agents' keys");
    }

    #[test]
    fn text_that_looks_like_a_number_stays_text() {
        for text in ["0123", "1_000", "1e5", "nan", "true"] {
            let (table, _) = plain(&format!("T = '{text}'\ntask_name = '${{T}}'"));
            assert_eq!(table.text("task_name"), Some(text));
        }
        let (table, _) = plain("task_name = 7");
        assert_eq!(table.text("task_name"), Some("7"));
    }

    #[test]
    fn a_number_may_come_from_text_where_a_number_is_wanted() {
        let given = [("N", VariableValue::Plain("4096".into())), ("T", VariableValue::Plain("0.5".into()))];
        let file = "[llm.model_configs.main]\nmodel_name = 'm'\nmax_tokens = '${N}'\ntemperature = '${T}'\nrpm = 6.0";
        let (table, _) = with(file, &given).unwrap();
        let main = table.table("llm").table("model_configs").table("main");
        assert_eq!(main.get("max_tokens").unwrap().as_integer(), Some(4096));
        assert_eq!(main.get("temperature").unwrap().value, Value::Float(0.5));
        assert_eq!(main.get("rpm").unwrap().as_integer(), Some(6));
        assert!(complaint("[llm.model_configs.main]\nrpm = 1.5").contains("llm.model_configs.main.rpm"));
    }

    #[test]
    fn what_has_no_effect_is_reported_unless_it_says_nothing() {
        let (_, ignored) = plain(
            "foo = 1\nBAR = 1\n[sandbox]\nunknown_key = 3\nabsolute_shared_data_path = ''\n[sandbox.sandboxes.main]\ndocker_args = ['-x']\nmounts = []\ngpus = 'all'\nusing_cached = false\n",
        );
        assert_eq!(
            ignored,
            ["foo", "sandbox.unknown_key", "sandbox.sandboxes.main.docker_args", "sandbox.sandboxes.main.gpus"]
        );
    }

    #[test]
    fn what_the_agents_make_of_their_keys_is_theirs() {
        let (table, ignored) = plain("[history]\nmax_tool_response_length = 'many'\n[memory]\nenabled = []\n");
        assert_eq!(table.table("history").text("max_tool_response_length"), Some("many"));
        assert!(ignored.is_empty());
        assert_eq!(complaint("memory = 1"), "BadValue memory this must be a table");
    }

    #[test]
    fn a_secret_stays_out_of_what_everybody_can_read() {
        let secret = [("S", VariableValue::Secret(SecretString::from("hunter2")))];
        for file in [
            "task_name = '${S}'",
            "[sandbox.sandboxes.main]\ncommand = ['a', '${S}']",
            "[sandbox.sandboxes.main.ports]\n'1/tcp' = '${S}'",
            "[[sandbox.tolerations]]\nkey = 'a${S}'",
            "[sandbox.sandboxes.main.extra]\ninitializer_timeout_sec = '${S}'",
        ] {
            let fault = with(file, &secret).unwrap_err();
            assert_eq!(fault.mistake, ErrorKind::SecretInPlainField, "{file}");
            assert!(!fault.message.contains("hunter2"));
        }
        for file in [
            "[sandbox.sandboxes.main.environment]\nA = '${S}'",
            "[neo4j]\npassword = '${S}'",
            "[plugins.params]\nkey = '${S}'",
            "foo = '${S}'",
        ] {
            assert!(with(file, &secret).is_ok(), "{file}");
        }
    }
}
