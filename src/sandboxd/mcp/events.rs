//! Server-sent events from an untrusted stream: the length of a line and of the whole stream is limited.

use std::io::{self, Read};

/// The maximum length of a line. At the handshake a server may send a page of instructions in one line.
pub const LINE: usize = 256 * 1024;

/// How many bytes are read from one stream.
const ALL: usize = 1024 * 1024;

/// One event.
#[derive(Debug, PartialEq, Eq)]
pub struct Event {
    /// The name of the event.
    pub name: String,
    /// The data of the event: its lines, joined.
    pub data: String,
}

/// Why there is no further event.
#[derive(Debug)]
pub enum Ended {
    /// The stream ended.
    Over,
    /// A line, or the whole stream, is longer than a handshake needs.
    TooMuch,
    /// The stream could not be read.
    Read(io::Error),
}

/// The events of a stream, one after the other.
pub struct Events<R> {
    from: R,
    chunk: Box<[u8]>,
    /// The part of the chunk that has not been read yet.
    ahead: std::ops::Range<usize>,
    read: usize,
    /// Whether the last byte was CR: the line has ended, whether or not LF follows.
    after_return: bool,
}

impl<R: Read> Events<R> {
    pub fn new(from: R) -> Self {
        Self { from, chunk: vec![0; 8 * 1024].into(), ahead: 0..0, read: 0, after_return: false }
    }

    /// Waits for the next event.
    pub fn next(&mut self) -> Result<Event, Ended> {
        let mut name = String::new();
        let mut data: Option<String> = None;
        loop {
            let line = self.line()?;
            if line.is_empty() {
                if let Some(data) = data.take() {
                    let name = if name.is_empty() { "message".into() } else { name };
                    return Ok(Event { name, data });
                }
                name.clear();
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((&line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match (field.trim_start_matches('\u{feff}'), &mut data) {
                ("event", _) => name = value.to_string(),
                ("data", Some(data)) => {
                    data.push('\n');
                    data.push_str(value);
                }
                ("data", None) => data = Some(value.to_string()),
                // Comments, and fields that only matter for reconnecting to a stream.
                _ => {}
            }
        }
    }

    fn line(&mut self) -> Result<String, Ended> {
        let mut line = Vec::new();
        loop {
            let byte = self.byte()?;
            let after_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if after_return => {}
                b'\n' | b'\r' => return Ok(String::from_utf8_lossy(&line).into_owned()),
                _ if line.len() < LINE => line.push(byte),
                _ => return Err(Ended::TooMuch),
            }
        }
    }

    fn byte(&mut self) -> Result<u8, Ended> {
        if self.ahead.is_empty() {
            let length = self.from.read(&mut self.chunk).map_err(Ended::Read)?;
            if length == 0 {
                return Err(Ended::Over);
            }
            self.read += length;
            if self.read > ALL {
                return Err(Ended::TooMuch);
            }
            self.ahead = 0..length;
        }
        let byte = self.ahead.next().and_then(|at| self.chunk.get(at));
        byte.copied().ok_or(Ended::Over)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str) -> Vec<(String, String)> {
        // One byte at a time, as the network may deliver it.
        struct Drip<'a>(&'a [u8]);
        impl Read for Drip<'_> {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                let Some((first, rest)) = self.0.split_first() else { return Ok(0) };
                buffer[0] = *first;
                self.0 = rest;
                Ok(1)
            }
        }
        let mut events = Events::new(Drip(text.as_bytes()));
        std::iter::from_fn(|| events.next().ok()).map(|event| (event.name, event.data)).collect()
    }

    fn event(name: &str, data: &str) -> (String, String) {
        (name.into(), data.into())
    }

    #[test]
    fn events_are_read_whatever_ends_their_lines() {
        for end in ["\n", "\r\n", "\r"] {
            let lines =
                [": ping", "", "event: endpoint", "data: /messages", "", "retry: 5", "data:one", "data: two", ""];
            // The line after the last event shows that the event has ended.
            let text: String = lines.iter().chain(&["x", ""]).flat_map(|line| [*line, end]).collect();
            assert_eq!(all(&text), [event("endpoint", "/messages"), event("message", "one\ntwo")], "{end:?}");
        }
    }

    #[test]
    fn what_is_not_an_event_is_none() {
        for text in ["", "event: x\n\n", "data: cut off\n", "\u{feff}: hello\n\n", "nonsense\n\n\n"] {
            assert_eq!(all(text), [], "{text:?}");
        }
        assert_eq!(all("\u{feff}data: x\n\n"), [event("message", "x")]);
        assert_eq!(all("event: gone\n\ndata\n\n"), [event("message", "")]);
    }

    #[test]
    fn lines_and_streams_without_end_are_given_up() {
        let mut events = Events::new(io::repeat(b'x'));
        assert!(matches!(events.next(), Err(Ended::TooMuch)));
        let comments = ": x\n".repeat(ALL / 2);
        assert!(matches!(Events::new(comments.as_bytes()).next(), Err(Ended::TooMuch)));
        let data = format!("data: {}\n", "x".repeat(1000)).repeat(ALL / 500);
        assert!(matches!(Events::new(data.as_bytes()).next(), Err(Ended::TooMuch)));
    }
}
