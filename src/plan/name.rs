//! Names of objects. They are deterministic: a retry finds the object that an earlier attempt created. They are injective: two different
//! objects never get the same name.
//!
//! A session's name has no `--` and a type's label begins with a letter, so the first `--` of a child's name separates the two:
//! `a--b-main` is the type `b-main` of session `a`, and `a-b--main` the type `main` of session `a-b`.

use std::fmt;

use crate::api::sandbox::dns_label;

/// The longest name of a session: with `--` and the longest label it makes a name of 63 characters.
pub const MAX_SESSION: usize = 40;
/// The longest type of a sandbox.
pub const MAX_TYPE: usize = 21;

/// A sandbox's type as a DNS label: lower case, `_` and `.` as `-`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// Why a name or a type is not valid.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// A session's name.
    #[error(
        "`{0}` is not a valid name for a session: use lower-case letters, digits and single hyphens, at most {MAX_SESSION} characters"
    )]
    Session(String),
    /// A sandbox's type.
    #[error(
        "`{0}` is not a valid sandbox type: use letters, digits, `-`, `_` and `.`, beginning with a letter and ending with a letter or digit, at most {MAX_TYPE} characters"
    )]
    Type(String),
    /// A type whose label is reserved for something else.
    #[error("the type `{0}` is reserved")]
    Reserved(String),
}

impl Label {
    /// The label of a type.
    ///
    /// # Errors
    /// When the type has characters that the contract does not allow, is too long, or is reserved.
    pub fn of(sandbox_type: &str) -> Result<Self, NameError> {
        let well_formed = sandbox_type.starts_with(|c: char| c.is_ascii_alphabetic())
            && sandbox_type.ends_with(|c: char| c.is_ascii_alphanumeric())
            && sandbox_type.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c))
            && sandbox_type.len() <= MAX_TYPE;
        if !well_formed {
            return Err(NameError::Type(sandbox_type.into()));
        }
        let label = dns_label(sandbox_type);
        match label.as_str() {
            "stage" | "config" | "data" | "scripts" | "tools" => Err(NameError::Reserved(sandbox_type.into())),
            agent if agent.starts_with("agent-") => Err(NameError::Reserved(sandbox_type.into())),
            _ => Ok(Self(label)),
        }
    }

    /// The label of the Sandbox that runs an agent.
    ///
    /// # Errors
    /// When the type does not belong to an agent's Sandbox.
    pub fn of_runner(sandbox_type: &str) -> Result<Self, NameError> {
        match sandbox_type.strip_prefix("agent-") {
            Some(hash) if !hash.is_empty() && hash.bytes().all(|byte| byte.is_ascii_hexdigit()) => {
                Ok(Self(sandbox_type.into()))
            }
            _ => Err(NameError::Type(sandbox_type.into())),
        }
    }

    /// The environment variable in which every sandbox of the session finds the host name of the sandbox with this label.
    pub fn host_variable(&self) -> String {
        format!("AIGISE_{}_HOST", self.0.to_ascii_uppercase().replace('-', "_"))
    }
}

impl fmt::Display for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Checks the name of a session.
///
/// # Errors
/// When the name is not valid. The API server refuses a session with this name at admission, unless the session is older than the rule.
pub fn check_session(name: &str) -> Result<(), NameError> {
    let well_formed = name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !is_derived(name)
        && name.len() <= MAX_SESSION;
    if well_formed { Ok(()) } else { Err(NameError::Session(name.into())) }
}

/// The name of a session's child. `part` is a label for a sandbox and its Pod, and a reserved word for other objects.
pub fn child(session: &str, part: impl fmt::Display) -> String {
    format!("{session}--{part}")
}

/// The DNS name of one of a session's sandboxes.
pub fn host(label: &Label, session: &str, namespace: &str) -> String {
    format!("{label}.{}", service(session, namespace))
}

/// The DNS name of a session's Service.
pub fn service(session: &str, namespace: &str) -> String {
    format!("{session}.{namespace}.svc")
}

/// Whether the operator derived the name from that of a session. No name that a user may choose has `--` in it.
pub fn is_derived(name: &str) -> bool {
    name.contains("--")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_type_becomes_a_dns_label() {
        assert_eq!(Label::of("gdb_mcp").unwrap().to_string(), "gdb-mcp");
        assert_eq!(Label::of("Main.x86").unwrap().to_string(), "main-x86");
        assert_eq!(Label::of("gdb_mcp").unwrap().host_variable(), "AIGISE_GDB_MCP_HOST");
    }

    #[test]
    fn reserved_and_ill_formed_types_are_refused_by_name() {
        for reserved in ["stage", "Config", "data", "scripts", "tools", "agent-1", "agent_x"] {
            assert_eq!(Label::of(reserved), Err(NameError::Reserved(reserved.into())), "{reserved}");
        }
        for bad in ["", "1main", "main_", "a b", "ä", "-x", "abcdefghijklmnopqrstuv"] {
            assert_eq!(Label::of(bad), Err(NameError::Type(bad.into())), "{bad}");
        }
        assert!(Label::of("agent").is_ok() && Label::of("staged").is_ok());
    }

    #[test]
    fn sessions_whose_names_nest_do_not_meet() {
        assert_ne!(child("a", Label::of("b-main").unwrap()), child("a-b", Label::of("main").unwrap()));
        assert!(check_session("a-b").is_ok() && check_session("a--b").is_err() && check_session("a-").is_err());
        assert!(check_session(&"a".repeat(40)).is_ok() && check_session(&"a".repeat(41)).is_err());
    }

    const SESSION: &str = "[a-z]([-a-z0-9]{0,38}[a-z0-9])?";
    const TYPE: &str = "[A-Za-z]([-A-Za-z0-9_.]{0,19}[A-Za-z0-9])?";

    proptest! {
        /// P6: names and types that pass validation give valid, distinct names of children.
        #[test]
        fn names_are_dns_labels_and_injective(a in SESSION, t in TYPE, b in SESSION, u in TYPE) {
            if let (Ok(()), Ok(()), Ok(t), Ok(u)) = (check_session(&a), check_session(&b), Label::of(&t), Label::of(&u)) {
                let (first, second) = (child(&a, &t), child(&b, &u));
                prop_assert!(first.len() <= 63);
                prop_assert!(first.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'));
                prop_assert!(first.starts_with(|c: char| c.is_ascii_lowercase()) && !first.ends_with('-'));
                prop_assert_eq!(first == second, (&a, &t) == (&b, &u));
            }
        }

        #[test]
        fn any_word_is_a_label_or_an_error(word in ".{0,64}") {
            let _ = Label::of(&word);
            let _ = check_session(&word);
        }
    }
}
