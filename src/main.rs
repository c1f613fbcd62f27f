//! The operator's command line.

use std::process::ExitCode;

use aigise_operator::{
    api::crds,
    operator::{
        self,
        args::{Cli, Command},
    },
};
use clap::Parser;

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(error.as_ref());
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Command::Run(args) => Ok(runtime()?.block_on(operator::run(args))?),
        Command::SelfTest(args) => Ok(runtime()?.block_on(operator::self_test::run(args))?),
        Command::Config(args) => {
            print(&operator::config::run(&args)?);
            Ok(())
        }
        Command::Crds { into: Some(folder) } => {
            for (file, content) in crds::rendered()? {
                std::fs::write(folder.join(file), content)?;
            }
            Ok(())
        }
        Command::Crds { into: None } => {
            for (_, content) in crds::rendered()? {
                print(&format!("---\n{content}"));
            }
            Ok(())
        }
    }
}

/// The runtime has one thread: handing small pieces of work to other threads costs more than the work itself
/// (docs/adr/0010-one-thread.md).
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

#[expect(clippy::print_stdout, reason = "the command prints its result")]
fn print(text: &str) {
    print!("{text}");
}

#[expect(clippy::print_stderr, reason = "this is the error that ends the program")]
fn complain(error: &dyn std::error::Error) {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let words = cause.to_string();
        // Some libraries already include the cause in their own message.
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        source = cause.source();
    }
    eprintln!("aigise-operator: {text}");
}
