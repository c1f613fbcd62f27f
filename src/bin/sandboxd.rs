//! The helper program inside each sandbox; all of its code is in [`aigise_operator::sandboxd`].

use std::process::ExitCode;

fn main() -> ExitCode {
    aigise_operator::sandboxd::run(std::env::args_os().skip(1))
}
