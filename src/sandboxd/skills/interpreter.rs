//! The program that runs an installer: the one that the file's first line names, as in the kernel.
//!
//! The kernel itself executes only files with the permission to be executed, and files from a `ConfigMap` do not have it. The
//! framework adds the permission; here the volume may be read-only or the file somebody else's. So the line is read here.

use std::io::{self, Read};

/// How many bytes the kernel reads at the beginning of a file.
const START: u64 = 256;

/// The program and arguments that a file has to be appended to so that it runs; empty if the file itself is a program.
pub fn of(file: impl Read) -> io::Result<Vec<String>> {
    let mut start = vec![];
    file.take(START).read_to_end(&mut start)?;
    if start.starts_with(b"\x7fELF") {
        return Ok(vec![]);
    }
    Ok(named(&start).unwrap_or_else(|| vec!["sh".into()]))
}

/// The interpreter that the first line names, with at most one argument, which may contain spaces.
fn named(start: &[u8]) -> Option<Vec<String>> {
    let is_blank = |byte: &u8| [b' ', b'\t'].contains(byte);
    let text = start.strip_prefix(b"#!")?;
    let end = text.iter().position(|byte| *byte == b'\n' || *byte == 0);
    let is_cut = end.is_none() && start.len() as u64 == START;
    // The return of a line that ends as on Windows is not a part of it: no file has that name.
    let line = text[..end.unwrap_or(text.len() - usize::from(is_cut))].trim_ascii();
    let split = line.iter().position(is_blank);
    if line.is_empty() || is_cut && split.is_none() {
        return None;
    }
    let (interpreter, argument) = line.split_at(split.unwrap_or(line.len()));
    let words = [interpreter, argument.trim_ascii()].into_iter().filter(|word| !word.is_empty());
    Some(words.map(|word| String::from_utf8_lossy(word).into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_read_as_the_kernel_reads_it() {
        for (text, expected) in [
            ("#!/bin/sh\necho", &["/bin/sh"][..]),
            ("#!/bin/sh -e\n", &["/bin/sh", "-e"]),
            ("#! \t/bin/bash  -e -u \t\n", &["/bin/bash", "-e -u"]),
            ("#!/usr/bin/env -S bash -eu\n", &["/usr/bin/env", "-S bash -eu"]),
            ("#!/bin/sh -e\r\necho", &["/bin/sh", "-e"]),
            ("#!/bin/sh", &["/bin/sh"]),
            ("#!/bin/sh\0 -e\n", &["/bin/sh"]),
            ("#!\n/bin/bash", &["sh"]),
            ("#! \t", &["sh"]),
            ("# !/bin/bash\n", &["sh"]),
            ("echo\n#!/bin/bash\n", &["sh"]),
            ("#", &["sh"]),
            ("", &["sh"]),
            ("\x7fELF\u{2}", &[]),
        ] {
            assert_eq!(of(text.as_bytes()).unwrap(), expected, "{text:?}");
        }
    }

    #[test]
    fn of_a_line_that_is_too_long_the_argument_is_cut_and_a_path_that_is_cut_names_nothing() {
        let argument = "a".repeat(300);
        let [interpreter, cut] = &of(format!("#!/bin/sh {argument}\n").as_bytes()).unwrap()[..] else { panic!() };
        assert_eq!((interpreter.as_str(), cut.len()), ("/bin/sh", 255 - "#!/bin/sh ".len()));
        assert_eq!(of(format!("#!/{argument}\n").as_bytes()).unwrap(), ["sh"]);
        let longest = format!("#!/{}", "a".repeat(252));
        assert_eq!(of(format!("{longest}\n").as_bytes()).unwrap(), [&longest[2..]]);
    }
}
