//! Parses the text of a file into a [`Table`], within limits.
//!
//! The file is untrusted, so its size, the number of its tokens and its depth are checked before anything is built from it: the
//! parsed file then never takes more than a few megabytes and a few times the file's size, and no walk over it can exhaust the
//! stack.

use toml::de::{DeTable, DeValue};
use toml_parser::{Source, lexer::TokenKind};

use super::{
    ErrorKind,
    error::SpannedError,
    tree::{Node, Table, Taint, Value},
};

/// The maximum size of a file: as much as a ConfigMap or a Secret can hold.
pub const MAX_BYTES: usize = 1 << 20;

/// The maximum number of tokens. The framework's own file has about two thousand.
const MAX_TOKENS: usize = 1 << 16;

/// The maximum nesting depth of tables and lists. The framework needs six.
const MAX_DEPTH: usize = 32;

/// Parses a file.
///
/// # Errors
/// When the file is not valid TOML, or exceeds a limit.
pub fn parse(text: &str) -> Result<Table, SpannedError> {
    check_bounds(text)?;
    let (table, errors) = DeTable::parse_recoverable(text);
    let place = |error: &toml::de::Error| error.span().map_or(text.len(), |span| span.start);
    // One error may cause others after it. The Display of the error would repeat the line of the file.
    if let Some(error) = errors.iter().min_by_key(|error| place(error)) {
        let message = format!("this is not valid TOML: {}", error.message());
        return Err(SpannedError::new(ErrorKind::Unparsable, place(error), "", message));
    }
    table_of(table.into_inner())
}

fn check_bounds(text: &str) -> Result<(), SpannedError> {
    let refuse = |at, message: String| Err(SpannedError::new(ErrorKind::TooLarge, at, "", message));
    if text.len() > MAX_BYTES {
        return refuse(0, format!("the file has more than {MAX_BYTES} bytes"));
    }
    let (mut open, mut depth, mut dots) = (Vec::new(), 0, 0);
    for (count, token) in Source::new(text).lex().enumerate() {
        let at = token.span().start();
        match token.kind() {
            // A dotted key is as deep as it has parts, and so is the table that it opens.
            TokenKind::Dot => dots += 1,
            TokenKind::LeftSquareBracket | TokenKind::LeftCurlyBracket => {
                open.push(dots + 1);
                depth += dots + 1;
                dots = 0;
            }
            TokenKind::RightSquareBracket | TokenKind::RightCurlyBracket => {
                depth -= open.pop().unwrap_or_default();
                dots = 0;
            }
            TokenKind::Comma => dots = 0,
            TokenKind::Newline if open.is_empty() => dots = 0,
            _ => {} // values, and tokens that do not nest
        }
        if count > MAX_TOKENS {
            return refuse(at, format!("the file has more than {MAX_TOKENS} tokens"));
        }
        if depth + dots > MAX_DEPTH {
            return refuse(at, format!("tables and lists are nested more than {MAX_DEPTH} deep"));
        }
    }
    Ok(())
}

fn table_of(table: DeTable<'_>) -> Result<Table, SpannedError> {
    let entries = table.into_iter().map(|(key, value)| {
        let key = key.into_inner().into_owned();
        let node = node_of(value).map_err(|fault| fault.below(&key))?;
        Ok((key, node))
    });
    Ok(Table { entries: entries.collect::<Result<_, SpannedError>>()? })
}

fn node_of(value: toml::Spanned<DeValue<'_>>) -> Result<Node, SpannedError> {
    let at = value.span().start;
    let value = match value.into_inner() {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => match i64::from_str_radix(number.as_str(), number.radix()) {
            Ok(number) => Value::Integer(number),
            Err(_) => {
                return Err(SpannedError::new(
                    ErrorKind::BadValue,
                    at,
                    "",
                    "the number does not fit into 64 bits".into(),
                ));
            }
        },
        DeValue::Float(number) => match number.as_str().parse() {
            Ok(number) => Value::Float(number),
            Err(_) => return Err(SpannedError::new(ErrorKind::BadValue, at, "", "this is not a valid number".into())),
        },
        DeValue::Boolean(is) => Value::Bool(is),
        DeValue::Datetime(time) => Value::Datetime(time),
        DeValue::Array(list) => Value::List(list.into_iter().map(node_of).collect::<Result<_, _>>()?),
        DeValue::Table(table) => Value::Table(table_of(table)?),
    };
    Ok(Node { value, at, taint: Taint::Clean })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn mistake(text: &str) -> (ErrorKind, usize) {
        let fault = parse(text).unwrap_err();
        (fault.mistake, fault.at)
    }

    #[test]
    fn every_kind_of_value_is_read() {
        let table = parse(
            "text = 'a'\nwhole = 0x1f\nhuge = 1_000\nreal = 1e5\nnone = nan\nyes = true\nday = 1979-05-27\nlist = [1, [2]]\n[table]\nin.line = {}\n",
        )
        .unwrap();
        let shown = format!("{table:?}").replace("Table { entries: ", "").replace('}', "");
        for part in ["31", "1000", "100000.0", "NaN", "true", "1979-05-27", "[1, [2]]", "\"line\": {"] {
            assert!(shown.contains(part), "{part}: {shown}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_reported_with_its_place() {
        assert_eq!(mistake("a = 1\nb = \n"), (ErrorKind::Unparsable, 10));
        assert_eq!(mistake("a = 1\na = 2\n"), (ErrorKind::Unparsable, 6));
        assert_eq!(mistake("[a]\nb = 99999999999999999999\n"), (ErrorKind::BadValue, 8));
        assert_eq!(parse("[a]\nb = [1, 99999999999999999999]\n").unwrap_err().path, "a.b");
        for secret in ["password = hunter2\n", "hunter2\n", "a = \"hunter2\n", "hunter2 = = 1", "a = 12hunter2"] {
            let fault = parse(secret).unwrap_err();
            assert!(!fault.message.contains("hunter2"), "{}", fault.message);
        }
    }

    #[test]
    fn what_is_too_much_is_refused_before_it_is_built() {
        let dotted = vec!["a"; 100_000].join(".");
        for text in [
            "x".repeat(MAX_BYTES + 1),
            "a=1\n".repeat(MAX_TOKENS / 4 + 1),
            format!("a = {}", "[".repeat(50_000)),
            format!("a = {}", "{a=".repeat(16_000)),
            format!("a = {}", "{a.b.c.d.e.f=".repeat(4_000)),
            format!("a = {}", "{a.b.c.d.e.f=\n".repeat(4_000)),
            format!("{dotted} = 1"),
            format!("[{dotted}]"),
            format!("[[{dotted}]]"),
        ] {
            assert_eq!(mistake(&text).0, ErrorKind::TooLarge, "{}", &text[..40]);
        }
        let deep = format!("a = {}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
        assert!(parse(&deep).is_ok());
        let floats = format!("a = [\n{}]", "1.5,\n".repeat(5_000));
        assert!(parse(&floats).is_ok(), "the dots of numbers do not add up");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn any_mixture_of_signs_is_read_or_refused(parts in prop::collection::vec(
            prop::sample::select(vec!["[", "]", "[[", "]]", "{", "}", "=", ".", ",", "\n", "a", "b", "\"", "'", "1", "\"\"\"", " ", "#", "0x", "inf", "1979-05-27", "\\u", "\u{0}", "é"]), 0..64,
        )) {
            let text = parts.concat();
            if let Err(fault) = parse(&text) {
                prop_assert!(fault.at <= text.len());
            }
        }
    }
}
