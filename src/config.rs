//! The framework's own configuration file, read as it is: what it says becomes a session. No client, no clock, no environment, no
//! files: text in, values out.
//!
//! | step | what it does |
//! |---|---|
//! | [`toml`] | text becomes a [`tree`], within bounds |
//! | [`expand`] | `${NAME}` becomes the value of a variable |
//! | [`cast`] | each value gets the type of its key; each of the [`keys`] is used, carried or ignored |
//! | [`session`], [`sandbox`], [`units`] | what is used becomes a part of a specification, in JSON |
//! | [`merge`] | the session's own fields go over it |
//! | [`mod@write`], [`manifest`] | the effective configuration as a file again, and as a manifest |
//!
//! A value that a Secret touched is text in a [`Secret`]'s keeping: the specification has a reference to it, and no error or debug
//! output has the value.

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

use self::{
    error::SpannedError,
    tree::{Path, Table},
};
pub use self::{
    error::{Error, ErrorKind, Position},
    expand::{Secret, VariableValue, Variables},
};
use crate::api::limits;

/// Where a file comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From where everybody can read it.
    Plain,
    /// From a Secret: its variables of environments and its credentials are secrets.
    Secret,
}

/// What a configuration is read from.
#[derive(Clone, Copy)]
pub struct Input<'a> {
    /// The text of the file.
    pub file: &'a str,
    /// Where it comes from.
    pub origin: Origin,
    /// The variables that win over its own.
    pub variables: &'a Variables,
    /// The Secret that will hold the values that a Secret touched: `<session>--config`.
    pub secret_name: &'a str,
}

/// How many keys without an effect are told.
const MOST_IGNORED: usize = 100;

/// A configuration that was read.
#[derive(Clone, Debug, PartialEq)]
pub struct Configuration {
    /// The whole file, expanded.
    pub file: Table,
    /// What it says of a session: parts of a specification.
    pub spec: serde_json::Value,
    /// What the Secret of the session has to hold, by key.
    pub secrets: BTreeMap<String, Secret>,
    /// The keys that have no effect, in the order of the file.
    pub ignored: Vec<Ignored>,
}

/// A key without an effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ignored {
    /// The path of the key.
    pub key: String,
    /// Why it has none.
    pub reason: Cow<'static, str>,
}

/// What comes up while a file is made into a specification.
pub struct Reader<'a> {
    /// The Secret to refer to.
    secret_name: &'a str,
    secrets: BTreeMap<String, Secret>,
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
/// The first mistake, with its place.
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
    read_text(input).map_err(|fault| fault.in_text(input.file))
}

/// What a file adds is kept in the session's status, and laid under the session whenever it is looked at.
fn check_size(spec: &serde_json::Value) -> Result<(), SpannedError> {
    let (bytes, values) = (spec.to_string().len(), limits::values(spec));
    if bytes > limits::CONFIGURATION_BYTES || values > limits::CONFIGURATION_VALUES {
        let message = format!(
            "the file adds {bytes} bytes and {values} values to the session, and {} and {} are allowed",
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
