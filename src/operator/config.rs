//! `aigise-operator config`: prints a configuration file as the operator understands it, without a cluster. The output depends only on
//! the file and the command line.

use std::{io::Read, path::Path};

use super::args::{ConfigArgs, ConfigOutput};
use crate::{
    config::{self, Configuration, Input, Origin, VariableValue, manifest::manifest, write},
    plan::{effective::configuration::in_full, name},
};

/// Why the command failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("reading {file} failed")]
    Read {
        /// The file.
        file: String,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// The file has an error.
    #[error("{file}: {error}")]
    Mistake {
        /// The file.
        file: String,
        /// The error in the file.
        error: config::Error,
    },
    /// The name is not valid for a session.
    #[error(transparent)]
    Name(#[from] name::NameError),
    /// The configuration cannot be written as TOML.
    #[error("the configuration cannot be written as TOML")]
    WriteToml(#[source] toml::ser::Error),
}

/// Returns the output of the command.
///
/// # Errors
/// When the file cannot be read, or is not a valid configuration.
pub fn run(args: &ConfigArgs) -> Result<String, Error> {
    name::check_session(&args.name)?;
    let file = args.file.display().to_string();
    let bytes = read(&args.file).map_err(|source| Error::Read { file: file.clone(), source })?;
    let text = config::text(bytes).map_err(|error| Error::Mistake { file: file.clone(), error })?;
    let variables =
        args.variables.iter().map(|(name, value)| (name.clone(), VariableValue::Plain(value.clone()))).collect();
    let secret_name = name::child(&args.name, "config");
    let input = Input { file: &text, origin: Origin::Plain, variables: &variables, secret_name: &secret_name };
    let configuration = config::read(input).map_err(|error| Error::Mistake { file, error })?;
    let body = match args.output {
        ConfigOutput::Toml => write::toml(&configuration, write::Secrets::AsVariables).map_err(Error::WriteToml)?,
        ConfigOutput::Manifest => manifest(&args.name, &in_full(&args.name, &configuration.spec)),
    };
    Ok(notes(&configuration) + &body)
}

fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    if file == Path::new("-") {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        return Ok(bytes);
    }
    std::fs::read(file)
}

/// The keys without effect, as comments. Both formats have the same syntax for comments.
fn notes(configuration: &Configuration) -> String {
    let lines = configuration.ignored.iter().map(|ignored| format!("# {}: {}\n", ignored.key, ignored.reason));
    lines.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(text: impl AsRef<[u8]>, set: &[(&str, &str)], output: ConfigOutput) -> Result<String, Error> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config.toml");
        std::fs::write(&file, text).unwrap();
        let variables = set.iter().map(|(name, value)| ((*name).to_string(), (*value).to_string())).collect();
        run(&ConfigArgs { file, variables, output, name: "demo".into() })
    }

    #[test]
    fn a_file_is_printed_as_a_session_or_as_a_file() {
        let text = "task_name = '${TASK}'\n[sandbox.sandboxes.main]\nimage = 'a'\ndocker_args = ['-x']\n";
        let manifest = printed(text, &[("TASK", "0123")], ConfigOutput::Manifest).unwrap();
        assert!(
            manifest.starts_with("# sandbox.sandboxes.main.docker_args: there is no Docker command line"),
            "{manifest}"
        );
        assert!(manifest.contains("metadata:\n  name: demo\nspec:\n"), "{manifest}");
        assert!(manifest.contains("taskName: \"0123\""), "{manifest}");
        let toml = printed(text, &[("TASK", "0123")], ConfigOutput::Toml).unwrap();
        assert!(toml.contains("task_name = \"0123\""), "{toml}");
    }

    #[test]
    fn a_mistake_is_reported_with_the_file_and_the_place() {
        let error = printed("task_name = '${TASK}'", &[], ConfigOutput::Toml).unwrap_err().to_string();
        assert!(
            error.ends_with("config.toml: line 1, column 13, task_name: nobody defines the variable TASK"),
            "{error}"
        );
        let error = printed(b"# caf\xe9\n", &[], ConfigOutput::Toml).unwrap_err().to_string();
        assert!(error.contains("config.toml: line 1, column 6: this is not UTF-8 text"), "{error}");
    }

    #[test]
    fn a_sandbox_that_offers_its_services_keeps_the_entrypoint_of_its_image() {
        let text = "[sandbox.sandboxes.main]\nimage = 'a'\nmcp_services = ['gdb']\nports = {'8002/tcp' = 1112}\n\
                    [sandbox.sandboxes.other]\nimage = 'a'\nmcp_services = ['gdb']\n[mcp.services.gdb]\nsse_port = 1112\n";
        let manifest = printed(text, &[], ConfigOutput::Manifest).unwrap();
        assert_eq!(manifest.matches("entrypoint").count(), 1, "{manifest}");
        assert!(manifest.contains("    main:\n      entrypoint: ImageThenIdle\n"), "{manifest}");
    }
}
