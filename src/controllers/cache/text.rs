//! The cached text of an object. Long texts are compressed: objects are long because of files and templates, which compress well, and
//! few objects are long.

use std::borrow::Cow;

/// Texts of at least this length are compressed. Usual objects take some kilobytes and are read often.
const LONG: usize = 16 * 1024;

/// A cached text.
pub(super) enum Text {
    Plain(Box<str>),
    Compressed { packed: Box<[u8]>, bytes: usize },
}

impl Text {
    pub(super) fn of(text: String) -> Self {
        if text.len() >= LONG {
            let packed = lz4_flex::compress(text.as_bytes());
            // A text that compresses badly is not worth the time of decompressing it.
            if packed.len() < text.len() / 2 {
                return Self::Compressed { packed: packed.into(), bytes: text.len() };
            }
        }
        Self::Plain(text.into())
    }

    /// The length of the uncompressed text in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Plain(text) => text.len(),
            Self::Compressed { packed: _, bytes } => *bytes,
        }
    }

    /// The uncompressed text. It is always there for a value that [`Self::of`] made.
    pub(super) fn read(&self) -> Option<Cow<'_, str>> {
        match self {
            Self::Plain(text) => Some(Cow::Borrowed(text)),
            Self::Compressed { packed, bytes } => {
                let text = lz4_flex::decompress(packed, *bytes).ok()?;
                String::from_utf8(text).ok().map(Cow::Owned)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &Text) -> usize {
        match text {
            Text::Plain(text) => text.len(),
            Text::Compressed { packed, bytes: _ } => packed.len(),
        }
    }

    #[test]
    fn what_is_read_is_what_was_kept() {
        let mut state = 1_u32;
        let mut letter = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from_u32(32 + (state >> 24) % 95).unwrap()
        };
        let noise: String = (0..40_000).map(|_| letter()).collect();
        let file = "error_rate = 0.5 # ü\n".repeat(10_000);
        for (text, most) in [("short".repeat(9), 45), (noise, 40_000), (file.clone(), file.len() / 50)] {
            let stored = Text::of(text.clone());
            assert_eq!((stored.bytes(), stored.read().unwrap().as_ref()), (text.len(), text.as_str()));
            assert!(kept(&stored) <= most, "{} of {}", kept(&stored), text.len());
        }
    }
}
