//! Looks for secrets in what is packed.

use memchr::memmem;

/// What is looked for, and the end of what was seen of the present file.
#[derive(Default)]
pub struct Search {
    wanted: Vec<Vec<u8>>,
    longest: usize,
    end: Vec<u8>,
}

impl Search {
    /// Looks for each of these.
    pub fn of(wanted: Vec<Vec<u8>>) -> Self {
        let longest = wanted.iter().map(Vec::len).max().unwrap_or_default();
        Self { wanted, longest, end: vec![] }
    }

    /// Begins another file.
    pub fn begin(&mut self) {
        self.end.clear();
    }

    /// Whether something that is looked for ends in these bytes, which follow those before.
    pub fn finds(&mut self, bytes: &[u8]) -> bool {
        if self.longest == 0 {
            return false;
        }
        let most = self.longest - 1;
        let is_in = |bytes: &[u8]| self.wanted.iter().any(|wanted| memmem::find(bytes, wanted).is_some());
        let mut across = std::mem::take(&mut self.end);
        across.extend_from_slice(&bytes[..most.min(bytes.len())]);
        let found = is_in(&across) || is_in(bytes);
        let recent = if bytes.len() >= most { bytes } else { &across };
        self.end = recent[recent.len().saturating_sub(most)..].to_vec();
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_found_wherever_the_pieces_end() {
        let text = b"a long line with hunter2-and-more in it";
        for size in 1..=text.len() {
            for (wanted, is_there) in [("hunter2-and-more", true), ("with", true), ("hunter3", false)] {
                let mut search = Search::of(vec![b"nothing of this".to_vec(), wanted.into()]);
                let found = text.chunks(size).filter(|piece| search.finds(piece)).count();
                assert_eq!(found > 0, is_there, "{wanted} in pieces of {size}");
                search.begin();
                assert!(!search.finds(b"e"));
            }
        }
        assert!(!Search::default().finds(text));
    }
}
