//! What goes wrong, on demand or by chance.

use std::time::Duration;

use super::{refusal::Refusal, request::Verb, store::Key};

/// A request that came in, and how it was answered.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which client asked.
    pub client: String,
    pub verb: Verb,
    pub key: Key,
    pub subresource: Option<&'static str>,
    /// Only metadata was asked for.
    pub metadata_only: bool,
    /// The code of the answer; none while it is not answered.
    pub code: Option<u16>,
}

impl Seen {
    /// In one line: `patch sandboxes/demo--main/status`.
    pub fn line(&self) -> String {
        let subresource = self.subresource.map(|name| format!("/{name}")).unwrap_or_default();
        let of = if self.metadata_only { "-metadata" } else { "" };
        format!("{}{of} {}/{}{subresource}", self.verb, self.key.plural, self.key.name)
    }
}

/// What goes wrong with a request.
#[derive(Clone, Debug)]
pub enum Effect {
    /// It is refused, and nothing happens.
    Refuse(Refusal),
    /// Nothing happens, and the client waits until it gives up.
    Hang,
    /// It is carried out, and the answer is lost.
    LoseAnswer,
    /// It is answered late.
    Delay(Duration),
    /// A read sees the world as it was so many versions ago.
    Stale(u64),
}

impl Effect {
    /// A refusal of this code, as servers word it.
    pub fn code(code: u16) -> Self {
        let reason = match code {
            403 => "Forbidden",
            409 => "Conflict",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "Unknown",
        };
        let mut refusal = Refusal::new(code, reason, format!("{reason}, on demand"));
        refusal.retry_after = (code == 429).then_some(1);
        Effect::Refuse(refusal)
    }
}

/// Requests and how they were answered, a line for each.
pub fn lines<'a>(seen: impl IntoIterator<Item = &'a Seen>) -> String {
    let lines: Vec<_> = seen.into_iter().map(|seen| format!("{} -> {:?}", seen.line(), seen.code)).collect();
    lines.join("\n")
}

/// A fault that waits for its requests.
pub struct Fault {
    pub matches: Box<dyn Fn(&Seen) -> bool + Send>,
    pub effect: Effect,
    /// How many requests are still to be hit.
    pub times: usize,
}

/// Faults by chance, the same for the same seed and requests.
pub struct Chaos {
    random: Random,
    /// One request in so many goes wrong.
    one_in: u64,
}

impl Chaos {
    pub fn new(seed: u64, one_in: u64) -> Self {
        Self { random: Random(seed), one_in }
    }

    fn strikes(&mut self) -> bool {
        self.random.below(self.one_in) == 0
    }

    /// What goes wrong with a request, if anything does.
    pub fn effect(&mut self, seen: &Seen) -> Option<Effect> {
        if !self.strikes() {
            return None;
        }
        let codes: &[u16] = if seen.verb.writes() { &[409, 422, 429, 500, 503, 403] } else { &[429, 500, 503] };
        Some(match self.random.below(10) {
            0..=4 => Effect::code(codes[usize::try_from(self.random.below(codes.len() as u64)).expect("an index")]),
            5 => Effect::Hang,
            6 | 7 if seen.verb.writes() => Effect::LoseAnswer,
            8 if seen.verb == Verb::List => Effect::Stale(self.random.below(20)),
            _ => Effect::Delay(Duration::from_millis(self.random.below(3000))),
        })
    }

    /// What goes wrong with a watch before its next events: it is late, or it ends.
    pub fn watch_effect(&mut self) -> Option<WatchEffect> {
        self.strikes().then(|| match self.random.below(3) {
            0 => WatchEffect::Ends,
            1 => WatchEffect::IsGone,
            _ => WatchEffect::IsLate(Duration::from_millis(self.random.below(5000))),
        })
    }
}

/// What goes wrong with a watch.
#[derive(Clone, Copy, Debug)]
pub enum WatchEffect {
    Ends,
    IsGone,
    IsLate(Duration),
}

/// A small generator of numbers (SplitMix64): the same seed, the same numbers.
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub fn below(&mut self, end: u64) -> u64 {
        self.next() % end.max(1)
    }
}

/// The process that a client belongs to ends at one of its writes.
#[derive(Clone, Debug)]
pub struct Crash {
    pub client: String,
    /// How many writes it still makes.
    pub after: usize,
    /// What becomes of the write at which it ends.
    pub last: LastWrite,
}

/// What becomes of the write at which a process ends. Nobody hears its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastWrite {
    Lands,
    IsLost,
    /// It waits somewhere, and lands when the test says so.
    LandsLater,
}
