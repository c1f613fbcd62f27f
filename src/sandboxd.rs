//! `sandboxd`, the small static helper that is mounted into every Pod of a session at `/aigise`.
//!
//! It runs inside images of other people, so it has no runtime, no credentials and few dependencies, and uses the network only to
//! check whether the services of the session answer. Its verbs are parsed by hand: they are too few for a command-line library.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

pub mod cache;
mod folder;
mod http;
pub mod idle;
pub mod init;
pub mod install;
pub mod layer;
mod mcp;
mod skills;
pub mod stage;

const USAGE: &str = "\
usage: sandboxd idle                    keep a container running as its PID 1
       sandboxd exit                    end at once, with success
       sandboxd run -- PROGRAM...       start a program when the root file system is restored
       sandboxd install DIR             copy this program into DIR
       sandboxd stage [--report FILE]   fill the session's volumes
       sandboxd save [--report FILE]    pack the session's volumes into an entry of the cache
       sandboxd restore [--report FILE] unpack an entry of the cache into the session's volumes
       sandboxd gate                    run the init work of the sandbox
       sandboxd report                  wait for the success of the init work, and report it
       sandboxd awaited                 fail while the init work waits for services, and name them
       sandboxd ready                   report whether the sandbox is ready
       sandboxd status                  report the progress of the init work
       sandboxd log [-f]                print the output of the init work; -f: follow it to the end
The last six accept --folder DIR instead of /run/aigise.";

/// The file from which the kubelet reads a container's termination message.
pub const TERMINATION_LOG: &str = "/dev/termination-log";

/// What the program is asked to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Verb {
    /// Keep a container running as its PID 1.
    Idle,
    /// End at once, with success: the container is there only to have its image pulled.
    Exit,
    /// Start a program when the root file system is restored, or known not to be.
    Run(Vec<OsString>),
    /// Copy this program into a folder.
    Install {
        /// The folder, which exists.
        folder: PathBuf,
    },
    /// Fill the volumes of a session.
    Stage {
        /// The file that receives the [`StagingReport`](crate::protocol::staging::StagingReport).
        report: PathBuf,
    },
    /// Pack the volumes of a session.
    Save {
        /// The file that receives the [`SaveReport`](crate::protocol::cache::SaveReport).
        report: PathBuf,
    },
    /// Unpack volumes of a session.
    Restore {
        /// The file that receives the [`RestoreReport`](crate::protocol::cache::RestoreReport).
        report: PathBuf,
    },
    /// Run the init work, or wait for the supervisor that runs it.
    Init(init::Places),
    /// Run the init work, as its supervisor.
    Supervise(init::Places),
    /// Wait for the success of the init work, and report it.
    Report(init::Places),
    /// Fail as long as the init work waits for services, and say for which.
    Awaited(init::Places),
    /// Report whether the services answer and the sandbox's own probe succeeds.
    Ready(init::Places),
    /// Report the progress of the init work.
    Status(init::Places),
    /// Print the output of the init work.
    Log {
        /// Where the files of the init supervisor are.
        places: init::Places,
        /// Whether to follow the output until the work is over.
        follow: bool,
    },
}

impl Verb {
    /// Parses the arguments that follow the program's name; `None` if they are not valid.
    pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Option<Self> {
        let arguments: Vec<_> = arguments.into_iter().collect();
        let words: Vec<_> = arguments.iter().map(|argument| argument.to_str().unwrap_or_default()).collect();
        match *words.as_slice() {
            ["idle"] => Some(Self::Idle),
            ["exit"] => Some(Self::Exit),
            ["run", "--", _, ..] => Some(Self::Run(arguments[2..].to_vec())),
            ["install", _] => Some(Self::Install { folder: PathBuf::from(&arguments[1]) }),
            [verb @ ("stage" | "save" | "restore"), ref rest @ ..] => {
                let report = match rest {
                    [] => PathBuf::from(TERMINATION_LOG),
                    ["--report", _] => PathBuf::from(&arguments[2]),
                    _ => return None,
                };
                Some(match verb {
                    "stage" => Self::Stage { report },
                    "save" => Self::Save { report },
                    _ => Self::Restore { report },
                })
            }
            [verb, ref rest @ ..] => Self::of_init(verb, rest, &arguments),
            [] => None,
        }
    }

    /// The verbs about the init work.
    fn of_init(verb: &str, rest: &[&str], arguments: &[OsString]) -> Option<Self> {
        let (places, rest) = match rest {
            [rest @ .., "--folder", _] => (init::Places::below(arguments.last()?), rest),
            rest => (init::Places::default(), rest),
        };
        match (verb, rest) {
            ("gate", []) => Some(Self::Init(places)),
            ("supervise", []) => Some(Self::Supervise(places)),
            ("awaited", []) => Some(Self::Awaited(places)),
            ("report", []) => Some(Self::Report(places)),
            ("ready", []) => Some(Self::Ready(places)),
            ("status", []) => Some(Self::Status(places)),
            ("log", []) => Some(Self::Log { places, follow: false }),
            ("log", ["-f"]) => Some(Self::Log { places, follow: true }),
            _ => None,
        }
    }
}

/// Runs the verb that the arguments name, and returns the exit code of the process.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Verb::parse(arguments) {
        Some(Verb::Idle) => idle::run().unwrap_or_else(|error| fail(&error)),
        Some(Verb::Exit) => ExitCode::SUCCESS,
        Some(Verb::Run(program)) => {
            init::run_program(&init::Places::default(), &program).unwrap_or_else(|error| fail(&error))
        }
        Some(Verb::Install { folder }) => match install::install(&folder) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&error),
        },
        Some(Verb::Stage { report }) => stage::run(&report),
        Some(Verb::Save { report }) => cache::run_save(&report),
        Some(Verb::Restore { report }) => cache::run_restore(&report),
        Some(Verb::Init(places)) => init::run(&places),
        Some(Verb::Supervise(places)) => init::supervise(&places).unwrap_or_else(|error| fail(&error)),
        Some(Verb::Awaited(places)) => init::awaited(&places),
        Some(Verb::Report(places)) => init::report(&places).unwrap_or_else(|error| fail(&error)),
        Some(Verb::Ready(places)) => init::ready(&places),
        Some(Verb::Status(places)) => init::status(&places).unwrap_or_else(|error| fail(&error)),
        Some(Verb::Log { places, follow }) => init::log(&places, follow).unwrap_or_else(|error| fail(&error)),
        None => {
            say(USAGE);
            ExitCode::from(2)
        }
    }
}

fn fail(error: &dyn std::error::Error) -> ExitCode {
    say(&format!("sandboxd: {}", sentence(error)));
    ExitCode::FAILURE
}

/// An error and its causes, in one line.
fn sentence(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

/// Writes a line to stderr; a failed write is ignored.
fn say(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Verb> {
        Verb::parse(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn the_verbs_are_understood() {
        assert_eq!(parse("idle"), Some(Verb::Idle));
        assert_eq!(parse("exit"), Some(Verb::Exit));
        assert_eq!(parse("install /aigise"), Some(Verb::Install { folder: "/aigise".into() }));
        assert_eq!(parse("stage"), Some(Verb::Stage { report: "/dev/termination-log".into() }));
        assert_eq!(parse("stage --report /tmp/r"), Some(Verb::Stage { report: "/tmp/r".into() }));
        assert_eq!(parse("save"), Some(Verb::Save { report: "/dev/termination-log".into() }));
        assert_eq!(parse("restore --report /tmp/r"), Some(Verb::Restore { report: "/tmp/r".into() }));
        assert_eq!(parse("gate"), Some(Verb::Init(init::Places::default())));
        assert_eq!(parse("supervise --folder /f"), Some(Verb::Supervise(init::Places::below("/f".as_ref()))));
        assert_eq!(parse("ready"), Some(Verb::Ready(init::Places::default())));
        let places = init::Places::default();
        assert_eq!(parse("log -f"), Some(Verb::Log { places, follow: true }));
    }

    #[test]
    fn anything_else_is_not_guessed_at() {
        for line in [
            "",
            "idle now",
            "exit 1",
            "install",
            "install a b",
            "stage --report",
            "stage report",
            "save now",
            "restore --report",
            "run",
            "--help",
            "gate now",
            "gate --folder",
            "ready now",
            "log --follow",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }
}
