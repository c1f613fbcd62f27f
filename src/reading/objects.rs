//! Reads the objects of a list or a watch one after the other, as the API server sends them. Whatever their number and size, only one
//! object is held at a time, and only the beginning of an object that is too large.

use futures::{AsyncBufRead, AsyncBufReadExt};
use memchr::memchr2;

use super::TEXT_BYTES;

/// The most bytes that are kept of the JSON around the objects: the metadata of a list, the type of an event.
const ENVELOPE_BYTES: usize = 64 * 1024;

/// How much memory is kept for the next object.
const CAPACITY_KEPT: usize = 64 * 1024;

/// The form of the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `{"items": [{…}, {…}], "metadata": …}`: the objects are the entries of a list in a map.
    List,
    /// `{"type": …, "object": {…}}`, repeated: the objects are fields of maps.
    Watch,
}

/// A part of the stream that has been read.
#[derive(Debug, PartialEq, Eq)]
pub enum Part {
    /// An object: [`Objects::object`].
    Object,
    /// The end of the list, or of the event of the last object: [`Objects::envelope`] has the JSON around the objects.
    End,
}

/// Reads objects from a stream.
pub struct Objects<R> {
    stream: R,
    splitter: Splitter,
}

impl<R: AsyncBufRead + Unpin> Objects<R> {
    /// Reads from this stream.
    pub fn new(stream: R, form: Form) -> Self {
        Self { stream, splitter: Splitter::new(form) }
    }

    /// The next part, or `None` at the end of the stream.
    ///
    /// # Errors
    /// When the stream breaks.
    pub async fn next(&mut self) -> std::io::Result<Option<Part>> {
        loop {
            let chunk = self.stream.fill_buf().await?;
            if chunk.is_empty() {
                return Ok(None);
            }
            let (used, part) = self.splitter.feed(chunk);
            self.stream.consume_unpin(used);
            if part.is_some() {
                return Ok(part);
            }
        }
    }

    /// The text of the object that was read last. A text that is longer than [`TEXT_BYTES`] is cut off.
    pub fn object(&self) -> &[u8] {
        &self.splitter.object
    }

    /// The JSON around the objects, with an empty list, or `null`, in their place.
    pub fn envelope(&self) -> &[u8] {
        &self.splitter.envelope
    }
}

/// Finds where objects begin and end, without parsing anything else of the JSON.
struct Splitter {
    form: Form,
    /// How many maps and lists are open.
    depth: usize,
    /// A list is open in the outermost map of a list of objects.
    in_list: bool,
    text: Text,
    in_object: bool,
    /// The end was returned: the next byte begins the next event.
    is_over: bool,
    object: Vec<u8>,
    envelope: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Text {
    Outside,
    Inside,
    Escaped,
}

impl Splitter {
    fn new(form: Form) -> Self {
        Self {
            form,
            depth: 0,
            in_list: false,
            text: Text::Outside,
            in_object: false,
            is_over: true,
            object: Vec::new(),
            envelope: Vec::new(),
        }
    }

    /// The nesting level of the objects.
    fn level(&self) -> usize {
        match self.form {
            Form::List => 2,
            Form::Watch => 1,
        }
    }

    fn begins_object(&self) -> bool {
        !self.in_object && self.depth == self.level() && (self.form == Form::Watch || self.in_list)
    }

    /// Processes a chunk of the stream, up to the end of an object or of its envelope. Returns the number of bytes that were processed,
    /// and the part that ended.
    fn feed(&mut self, chunk: &[u8]) -> (usize, Option<Part>) {
        if std::mem::take(&mut self.is_over) {
            self.envelope.clear();
            self.object.clear();
            // Few objects are so large that it is worth keeping their memory.
            self.object.shrink_to(CAPACITY_KEPT);
        }
        // The bytes from here on are not kept yet.
        let mut begin = 0;
        let mut next = 0;
        while next < chunk.len() {
            if self.text == Text::Inside {
                // Most of the stream is inside of strings, of which only the next quote or backslash matters.
                let Some(skipped) = memchr2(b'"', b'\\', &chunk[next..]) else { break };
                next += skipped;
            }
            let at = next;
            next += 1;
            match (self.text, chunk[at]) {
                (Text::Escaped, _) | (Text::Outside, b'"') => self.text = Text::Inside,
                (Text::Inside, b'\\') => self.text = Text::Escaped,
                (Text::Inside, b'"') => self.text = Text::Outside,
                (Text::Outside, b'{' | b'[') => {
                    if chunk[at] == b'{' && self.begins_object() {
                        self.keep(&chunk[begin..at]);
                        begin = at;
                        self.in_object = true;
                        self.object.clear();
                        self.object.shrink_to(CAPACITY_KEPT);
                    }
                    self.depth += 1;
                    self.in_list |= self.form == Form::List && self.depth == 2 && chunk[at] == b'[';
                }
                (Text::Outside, b'}' | b']') => {
                    self.depth = self.depth.saturating_sub(1);
                    if self.in_object && self.depth == self.level() {
                        self.keep(&chunk[begin..=at]);
                        self.in_object = false;
                        if self.form == Form::Watch {
                            self.keep(b"null");
                        }
                        return (next, Some(Part::Object));
                    }
                    self.in_list &= self.depth >= 2;
                    if self.depth == 0 {
                        self.keep(&chunk[begin..=at]);
                        self.is_over = true;
                        return (next, Some(Part::End));
                    }
                }
                // The commas between objects are dropped: what remains of the list is an empty list.
                (Text::Outside, b',') if !self.in_object && self.in_list => {
                    self.keep(&chunk[begin..at]);
                    begin = at + 1;
                }
                _ => {} // part of a value
            }
        }
        self.keep(&chunk[begin..]);
        (chunk.len(), None)
    }

    fn keep(&mut self, bytes: &[u8]) {
        let (kept, most) = if self.in_object {
            // One byte beyond the limit shows that the object is too large.
            (&mut self.object, TEXT_BYTES + 1)
        } else {
            (&mut self.envelope, ENVELOPE_BYTES)
        };
        let capacity = most.saturating_sub(kept.len());
        kept.extend_from_slice(&bytes[..bytes.len().min(capacity)]);
    }
}

#[cfg(test)]
mod tests {
    use futures::io::Cursor;

    use super::*;

    /// All parts of a text that arrives in chunks of this size.
    fn parts(text: &str, form: Form, size: usize) -> Vec<(Part, String)> {
        let mut splitter = Splitter::new(form);
        let mut parts = vec![];
        for chunk in text.as_bytes().chunks(size) {
            let mut rest = chunk;
            while !rest.is_empty() {
                let (used, part) = splitter.feed(rest);
                rest = &rest[used..];
                if let Some(part) = part {
                    let bytes = if part == Part::Object { &splitter.object } else { &splitter.envelope };
                    parts.push((part, String::from_utf8(bytes.clone()).unwrap()));
                }
            }
        }
        parts
    }

    #[test]
    fn a_list_is_its_objects_and_what_is_around_them_wherever_it_is_cut() {
        let objects = [r#"{"a":[{"b":"}]\"{"}]}"#, "{}", r#"{"c":"\\"}"#];
        for (text, envelope) in [
            (
                format!(r#"{{"apiVersion":"v1","items":[{}],"metadata":{{"continue":"x,y"}}}}"#, objects.join(",")),
                r#"{"apiVersion":"v1","items":[],"metadata":{"continue":"x,y"}}"#,
            ),
            (
                format!(r#"{{"metadata":{{"resourceVersion":"7"}},"items":[ {} ]}}"#, objects.join(" , ")),
                r#"{"metadata":{"resourceVersion":"7"},"items":[ ]}"#,
            ),
        ] {
            for size in 1..text.len() {
                let mut parts = parts(&text, Form::List, size);
                let (end, around) = parts.pop().unwrap();
                assert_eq!(end, Part::End);
                assert_eq!(around.replace(' ', ""), envelope.replace(' ', ""));
                let read: Vec<_> = parts.iter().map(|(_, text)| text.as_str()).collect();
                assert_eq!(read, objects, "in chunks of {size}");
            }
        }
        assert_eq!(parts(r#"{"items":[],"metadata":{}}"#, Form::List, 3).len(), 1);
    }

    #[test]
    fn a_watch_is_events_each_with_its_object() {
        let text = "{\"type\":\"ADDED\",\"object\":{\"a\":{\"b\":1}}}\n{\"object\":{},\"type\":\"DELETED\"}\n";
        for size in 1..text.len() {
            let parts = parts(text, Form::Watch, size);
            let expected = [
                (Part::Object, r#"{"a":{"b":1}}"#),
                (Part::End, r#"{"type":"ADDED","object":null}"#),
                (Part::Object, "{}"),
                (Part::End, "\n{\"object\":null,\"type\":\"DELETED\"}"),
            ];
            assert_eq!(parts, expected.map(|(part, text)| (part, text.to_string())), "in chunks of {size}");
        }
    }

    #[test]
    fn of_an_object_without_end_the_beginning_is_kept() {
        let text = format!(r#"{{"items":[{{"name":"a","b":"{}"}},{{}}]}}"#, "x".repeat(2 * TEXT_BYTES));
        let mut objects = Objects::new(Cursor::new(text), Form::List);
        let mut parts = vec![];
        while let Some(part) = futures::executor::block_on(objects.next()).unwrap() {
            if parts.is_empty() {
                assert_eq!(objects.object().len(), TEXT_BYTES + 1);
                assert!(objects.object().starts_with(br#"{"name":"a""#));
            }
            parts.push(part);
        }
        assert_eq!(parts, [Part::Object, Part::Object, Part::End]);
    }

    #[test]
    fn depth_costs_nothing() {
        let deep = 1_000_000;
        let text = format!(r#"{{"items":[{}{}]}}"#, r#"{"a":"#.repeat(deep), "}".repeat(deep));
        // This is not valid JSON, since a value is missing, but the object and the list end where they should.
        assert_eq!(parts(&text, Form::List, 4096).len(), 2);
    }
}
