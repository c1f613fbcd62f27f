//! The output of the steps: a log that never becomes longer than twice [`LIMIT`], and the end of the output in memory, which is the
//! evidence when a step fails.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};

use super::state::State;
use crate::sandboxd::http;

/// The length at which the log is started again; the previous log is kept.
const LIMIT: u64 = 4 * 1024 * 1024;

/// How many bytes of the end are kept in memory.
const TAIL: usize = 16 * 1024;

/// The log, and its end.
pub struct Log {
    pages: Arc<Mutex<Pages>>,
    followers: Mutex<Vec<JoinHandle<()>>>,
}

struct Pages {
    /// Where the log is written; `None` if it is only kept in memory.
    state: Option<State>,
    file: Option<File>,
    length: u64,
    tail: Vec<u8>,
}

impl Log {
    pub fn new(state: &State) -> Self {
        Self::of(Some(state.clone()))
    }

    /// A log that is not written to a file and only keeps its end.
    pub fn in_memory() -> Self {
        Self::of(None)
    }

    fn of(state: Option<State>) -> Self {
        let pages = Pages { state, file: None, length: 0, tail: vec![] };
        Self { pages: Arc::new(Mutex::new(pages)), followers: Mutex::default() }
    }

    /// Begins a step: its tail does not contain output of the previous step.
    pub fn begin(&self, heading: &str) {
        if let Ok(mut pages) = self.pages.lock() {
            pages.write(format!("==> {}\n", http::one_line(heading)).as_bytes());
            pages.tail.clear();
        }
    }

    /// Reads all output, in a thread of its own, until no process has the other end open any more.
    pub fn follow(&self, from: impl Read + Send + 'static, at_the_end: impl FnOnce() + Send + 'static) {
        let pages = self.pages.clone();
        let follower = thread::spawn(move || {
            pump(from, &pages);
            at_the_end();
        });
        if let Ok(mut followers) = self.followers.lock() {
            followers.push(follower);
        }
    }

    /// Waits until every output that is followed has ended.
    pub fn wait(self) {
        for follower in self.followers.into_inner().into_iter().flatten() {
            let _ = follower.join();
        }
    }

    /// The end of the current step's output.
    pub fn tail(&self) -> String {
        self.pages.lock().map(|pages| String::from_utf8_lossy(&pages.tail).into_owned()).unwrap_or_default()
    }
}

fn pump(mut from: impl Read, pages: &Mutex<Pages>) {
    let mut buffer = [0; 16 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return,
            Ok(length) => {
                if let Ok(mut pages) = pages.lock() {
                    pages.take(&buffer[..length]);
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

impl Pages {
    fn take(&mut self, bytes: &[u8]) {
        self.tail.extend_from_slice(bytes);
        let excess = self.tail.len().saturating_sub(TAIL);
        self.tail.drain(..excess);
        self.write(bytes);
    }

    /// Appends to the log. A full disk does not stop the work: output that cannot be written is dropped.
    fn write(&mut self, bytes: &[u8]) {
        let Some(state) = &self.state else { return };
        if self.length >= LIMIT {
            let _ = fs::rename(state.log(), state.old_log());
            self.file = None;
        }
        if self.file.is_none() {
            self.length = 0;
            self.file = File::create(state.log()).ok();
        }
        if let Some(file) = &mut self.file {
            let _ = file.write_all(bytes);
        }
        self.length += bytes.len() as u64;
    }
}
