//! Digests of values: the same value has the same digest in every process and version.

use serde::Serialize;
use sha2::{Digest, Sha256};

/// A short digest that distinguishes versions of a value.
pub fn short(value: &impl Serialize) -> String {
    hex(value, 8)
}

/// The whole SHA-256, as `sha256:…`.
pub fn whole(value: &impl Serialize) -> String {
    format!("sha256:{}", hex(value, 32))
}

fn hex(value: &impl Serialize, bytes: usize) -> String {
    use std::fmt::Write as _;

    let json = serde_json::to_vec(value).unwrap_or_default();
    Sha256::digest(json).iter().take(bytes).fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
