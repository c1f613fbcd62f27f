//! Reads the framework's own configuration file unchanged and turns it into a session. There is no client, clock, environment or
//! file access here: text goes in, values come out.
//!
//! | step | what it does |
//! |---|---|
//! | [`toml`] | text becomes a [`tree`], within bounds |
//! | [`expand`] | `${NAME}` becomes the value of a variable |
//! | [`cast`] | each value gets the type of its key; each of the [`keys`] is used, carried or ignored |
//! | [`session`], [`sandbox`], [`units`] | the used keys become parts of a specification, in JSON |
//! | [`merge`] | the session's own fields override it |
//! | [`mod@write`], [`manifest`] | the effective configuration as a file again, and as a manifest |
//!
//! A value that comes from a Secret is held as a [`SecretString`]: the specification only refers to it, and no error or debug output
//! contains it.

pub mod cast;
pub mod error;
pub mod expand;
pub mod keys;
pub mod manifest;
pub mod merge;
pub mod sandbox;
pub mod session;
pub mod toml;
pub mod tree;
pub mod units;
pub mod write;

use std::{borrow::Cow, collections::BTreeMap};

use secrecy::SecretString;

use self::{
    error::SpannedError,
    tree::{Path, Table},
};
pub use self::{
    error::{Error, ErrorKind, Position},
    expand::{VariableValue, Variables},
};
use crate::api::limits;

/// Where a configuration file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From a place that everybody can read.
    Plain,
    /// From a Secret: the environment variables and the credentials in the file are secrets.
    Secret,
}

/// What a configuration is read from.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The text of the file.
    pub file: &'a str,
    /// Where the file comes from.
    pub origin: Origin,
    /// The variables that override the file's own.
    pub variables: &'a Variables,
    /// The Secret that will hold the values that come from a Secret: `<session>--config`.
    pub secret_name: &'a str,
}

/// How many keys without effect are reported.
const MOST_IGNORED: usize = 100;

/// A configuration that was read.
#[derive(Clone, Debug)]
pub struct Configuration {
    /// The whole file, expanded.
    pub file: Table,
    /// What the file sets in a session: parts of a specification.
    pub spec: serde_json::Value,
    /// What the Secret of the session has to hold, by key.
    pub secrets: BTreeMap<String, SecretString>,
    /// The keys that have no effect, in the order of the file.
    pub ignored: Vec<Ignored>,
}

/// A key without an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The path of the key.
    pub key: String,
    /// Why the key has no effect.
    pub reason: Cow<'static, str>,
}

/// What is collected while a file is turned into a specification.
pub struct Reader<'a> {
    /// The name of the Secret that the specification refers to.
    secret_name: &'a str,
    secrets: BTreeMap<String, SecretString>,
    ignored: Vec<Ignored>,
}

impl Reader<'_> {
    fn ignore(&mut self, path: &Path<'_>, reason: &'static str) {
        self.ignored.push(Ignored { key: path.text(), reason: reason.into() });
    }
}

/// Reads a file.
///
/// # Errors
/// The first error, with its position.
///
/// # Example
/// ```
/// use aigise_operator::config::{Input, Origin, Variables, read};
///
/// let file = r#"
/// IMAGE = "registry.example/arvo:1"
/// [sandbox.sandboxes.main]
/// image = "${IMAGE}"
/// mem_limit = "512m"
/// "#;
/// let variables = Variables::new();
/// let input = Input { file, origin: Origin::Plain, variables: &variables, secret_name: "demo--config" };
/// let main = &read(input)?.spec["sandboxes"]["main"];
/// assert_eq!(main["image"], "registry.example/arvo:1");
/// assert_eq!(main["resources"]["limits"]["memory"], "512Mi");
/// # Ok::<(), aigise_operator::config::Error>(())
/// ```
pub fn read(input: Input<'_>) -> Result<Configuration, Error> {
    let file = &*normal(input.file);
    read_text(Input { file, ..input }).map_err(|fault| fault.in_text(file))
}

/// The text without what editors of other systems add: a byte order mark at the beginning, and carriage returns at the ends of lines,
/// which would be part of texts of several lines. The framework leaves out the latter as well.
fn normal(text: &str) -> Cow<'_, str> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.contains("\r\n") { text.replace("\r\n", "\n").into() } else { text.into() }
}

/// The text of a file.
///
/// # Errors
/// When the file is not UTF-8, with the position of the first byte that is not.
pub fn text(bytes: Vec<u8>) -> Result<String, Error> {
    String::from_utf8(bytes).map_err(|error| {
        let is_text = error.utf8_error().valid_up_to();
        let fault = SpannedError::new(
            ErrorKind::Unparsable,
            is_text,
            "",
            "this is not UTF-8 text; save it with the encoding UTF-8".to_string(),
        );
        fault.in_text(&String::from_utf8_lossy(&error.as_bytes()[..is_text]))
    })
}

/// The error that a sandbox of the file has no image.
pub fn lacks_image(text: &str, file: &Table, sandbox_type: &str) -> Error {
    let path = Path::Root.key("sandbox");
    let path = path.key("sandboxes");
    let path = path.key(sandbox_type);
    let at = file.table("sandbox").table("sandboxes").get(sandbox_type).map_or(0, |node| node.at);
    let message = "an image is required, here or in the session".to_string();
    SpannedError::new(ErrorKind::BadValue, at, &path.key("image").text(), message).in_text(&normal(text))
}

/// What a file adds is kept in the session's status and merged under the session's own fields at every reconcile, so it is limited.
fn check_size(spec: &serde_json::Value) -> Result<(), SpannedError> {
    let (bytes, values) = (spec.to_string().len(), limits::values(spec));
    if bytes > limits::CONFIGURATION_BYTES || values > limits::CONFIGURATION_VALUES {
        let message = format!(
            "the file adds {bytes} bytes and {values} values to the session; at most {} and {} are allowed",
            limits::CONFIGURATION_BYTES,
            limits::CONFIGURATION_VALUES
        );
        return Err(SpannedError::new(ErrorKind::TooLarge, 0, "", message));
    }
    Ok(())
}

fn read_text(input: Input<'_>) -> Result<Configuration, SpannedError> {
    let mut file = toml::parse(input.file)?;
    expand::expand(&mut file, input.variables, input.origin)?;
    let mut reader = Reader { secret_name: input.secret_name, secrets: BTreeMap::new(), ignored: vec![] };
    cast::cast(&mut file, &mut reader.ignored)?;
    let spec = session::specification(&file, &mut reader)?;
    check_size(&spec)?;
    let Reader { secrets, mut ignored, .. } = reader;
    if let Some(more) = ignored.len().checked_sub(MOST_IGNORED).filter(|more| *more > 0) {
        ignored.truncate(MOST_IGNORED);
        ignored.push(Ignored { key: format!("{more} more keys"), reason: "not listed here".into() });
    }
    Ok(Configuration { file, spec, secrets, ignored })
}
