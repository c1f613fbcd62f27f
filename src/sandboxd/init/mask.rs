//! Removes secrets from text that is reported outside of the sandbox.

use std::collections::BTreeMap;
use std::env;

use crate::protocol::init::Secrets;

const MASK: &str = "***";

/// Shorter values are not secrets, and masking them would hide half of every text.
const SHORTEST: usize = 4;

/// Variables that every process has, and that are never secret.
const HARMLESS: [&str; 9] = ["PATH", "HOME", "HOSTNAME", "PWD", "OLDPWD", "SHLVL", "TERM", "LANG", "USER"];

/// The values that are masked.
pub struct Mask(Vec<String>);

impl Mask {
    /// The mask for the environment of this process.
    pub fn of(secrets: &Secrets) -> Self {
        let environment =
            env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self::of_values(secrets, &environment.collect())
    }

    fn of_values(secrets: &Secrets, environment: &BTreeMap<String, String>) -> Self {
        let is_secret = |name: &str| {
            let may_be = secrets.all_but.as_ref().is_some_and(|known| !known.contains(name));
            secrets.names.contains(name) || (may_be && !HARMLESS.contains(&name))
        };
        let values = environment.iter().filter(|(name, _)| is_secret(name)).map(|(_, value)| value.as_str());
        // A key with several lines is also printed line by line.
        let parts = values.flat_map(|value| value.lines().chain([value.trim()]));
        let mut parts: Vec<_> = parts.filter(|part| part.len() >= SHORTEST).map(String::from).collect();
        parts.sort_by_key(|part| std::cmp::Reverse(part.len()));
        parts.dedup();
        Self(parts)
    }

    /// The text without the secrets.
    pub fn apply(&self, text: &str) -> String {
        self.0.iter().fold(text.to_string(), |text, secret| text.replace(secret, MASK))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> BTreeMap<String, String> {
        let all = [
            ("PATH", "/usr/bin"),
            ("TOKEN", "s3cret"),
            ("LONG", "s3cret-and-more"),
            ("PLAIN", "visible"),
            ("KEY", "line one\nline two"),
            ("ONE", "1"),
        ];
        all.map(|(name, value)| (name.to_string(), value.to_string())).into()
    }

    fn masked(secrets: &Secrets, text: &str) -> String {
        Mask::of_values(secrets, &environment()).apply(text)
    }

    #[test]
    fn values_of_secrets_are_masked_the_longest_first() {
        let names = ["TOKEN", "LONG", "KEY", "ONE", "ABSENT"].map(String::from).into();
        let secrets = Secrets { names, all_but: None };
        assert_eq!(masked(&secrets, "a s3cret, s3cret-and-more; line two 1 visible"), "a ***, ***; *** 1 visible");
    }

    #[test]
    fn with_a_whole_secret_in_the_environment_everything_unknown_is_masked() {
        let secrets = Secrets { all_but: Some(["PLAIN".to_string()].into()), ..Secrets::default() };
        assert_eq!(masked(&secrets, "s3cret visible /usr/bin"), "*** visible /usr/bin");
        assert_eq!(masked(&Secrets::default(), "s3cret"), "s3cret");
    }
}
