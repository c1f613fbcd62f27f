//! Kubernetes quantities as numbers that can be added: `500m`, `1.5Gi`, `2`, `1e3`. They have the precision that the API server has for
//! resource requests: thousandths, to which it rounds up, and a maximum of 2^63-1.
//!
//! Decided in docs/adr/0013-by-hand-although-a-library-is-near.md.

use std::fmt;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

/// The number 1, in thousandths.
const ONE: i128 = 1_000;

/// The largest quantity.
const MOST: i128 = i64::MAX as i128 * ONE;

const BINARY: [(&str, i128); 6] =
    [("Ei", ONE << 60), ("Pi", ONE << 50), ("Ti", ONE << 40), ("Gi", ONE << 30), ("Mi", ONE << 20), ("Ki", ONE << 10)];

const DECIMAL: [(&str, i128); 8] = [
    ("E", ONE * 1_000_000_000_000_000_000),
    ("P", ONE * 1_000_000_000_000_000),
    ("T", ONE * 1_000_000_000_000),
    ("G", ONE * 1_000_000_000),
    ("M", ONE * 1_000_000),
    ("k", ONE * 1_000),
    ("", ONE),
    ("m", 1),
];

/// Units below a thousandth, as powers of ten in thousandths.
const SMALLER: [(&str, i32); 2] = [("u", -3), ("n", -6)];

/// An amount of a resource. It is never negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amount {
    thousandths: i128,
    /// The quantity was written with a binary suffix (`Ki`, `Mi`, …), and is displayed with one.
    binary: bool,
}

impl Amount {
    /// Parses a quantity; `None` if the text is not a quantity, or the quantity is negative.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.strip_prefix('+').unwrap_or(text);
        let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '.').unwrap_or(text.len());
        let (number, suffix) = text.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let digits: i128 = format!("{whole}{}", fraction.trim_end_matches('0')).parse().ok().or_else(|| {
            // `0.` and `.0` are numbers; `.` is not.
            (number.len() > 1 && number.bytes().all(|byte| byte == b'0' || byte == b'.')).then_some(0)
        })?;
        let decimals = i32::try_from(fraction.trim_end_matches('0').len()).ok()?;
        let unit = BINARY.iter().chain(&DECIMAL).find(|(name, _)| *name == suffix);
        let smaller = SMALLER.iter().find(|(name, _)| *name == suffix);
        let (unit, exponent) = match (unit, smaller) {
            (Some(&(_, unit)), _) => (unit, 0),
            (None, Some(&(_, exponent))) => (1, exponent),
            (None, None) => (ONE, suffix.strip_prefix(['e', 'E'])?.parse().ok()?),
        };
        let thousandths = scaled(digits, unit, i32::checked_sub(exponent, decimals)?);
        Some(Self { thousandths: thousandths.min(MOST), binary: BINARY.iter().any(|(name, _)| *name == suffix) })
    }

    /// The whole number in it: without what is less than 1.
    pub fn whole(self) -> u64 {
        u64::try_from(self.thousandths / ONE).unwrap_or_default()
    }

    /// The sum of the two.
    pub fn plus(self, other: Self) -> Self {
        let thousandths = self.thousandths.saturating_add(other.thousandths).min(MOST);
        Self { thousandths, binary: self.binary || other.binary }
    }

    /// Whether this amount is larger than the other.
    pub fn exceeds(self, other: Self) -> bool {
        self.thousandths > other.thousandths
    }

    /// The larger of the two.
    pub fn max(self, other: Self) -> Self {
        let thousandths = self.thousandths.max(other.thousandths);
        Self { thousandths, binary: self.binary || other.binary }
    }
}

/// `digits × unit × 10^exponent`, rounded up; at most `i128::MAX`.
fn scaled(digits: i128, unit: i128, exponent: i32) -> i128 {
    let power = 10_i128.checked_pow(exponent.unsigned_abs());
    match (digits.checked_mul(unit), power) {
        (Some(0), _) => 0,
        (None, _) => i128::MAX,
        (Some(product), Some(power)) if exponent >= 0 => product.saturating_mul(power),
        (Some(_), None) if exponent >= 0 => i128::MAX,
        (Some(product), Some(power)) => product / power + i128::from(product % power != 0),
        (Some(_), None) => 1,
    }
}

/// The canonical form of the API server: no fraction, and the largest suffix for which that is possible.
impl fmt::Display for Amount {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = BINARY.iter().filter(|_| self.binary).chain(&DECIMAL[6..]);
        let units = units.chain(DECIMAL[..6].iter().filter(|_| !self.binary));
        let exact = units.filter(|(_, unit)| self.thousandths % unit == 0);
        match exact.max_by_key(|(_, unit)| *unit).filter(|_| self.thousandths != 0) {
            Some((suffix, unit)) => write!(formatter, "{}{suffix}", self.thousandths / unit),
            None => formatter.write_str("0"),
        }
    }
}

impl From<Amount> for Quantity {
    fn from(amount: Amount) -> Self {
        Quantity(amount.to_string())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn said(text: &str) -> Option<String> {
        Amount::parse(text).map(|amount| amount.to_string())
    }

    /// The right column is how `kubectl apply --dry-run=server` of 1.37 returns a memory request that is written as in the left column.
    /// Signs, exponents and quantities beyond the largest are exceptions: it returns them as they are written.
    #[test]
    fn every_form_is_read_and_said_as_the_api_server_says_it() {
        for (text, canonical) in [
            ("0", "0"),
            ("2", "2"),
            ("+2", "2"),
            ("0.5", "500m"),
            (".5", "500m"),
            ("5.", "5"),
            ("0.0", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("1500m", "1500m"),
            ("2000000u", "2"),
            ("100000000n", "100m"),
            ("1n", "1m"),
            ("0.1n", "1m"),
            ("1k", "1k"),
            ("1000", "1k"),
            ("1e3", "1k"),
            ("12E2", "1200"),
            ("1E", "1E"),
            ("1E-3", "1m"),
            ("1e-30", "1m"),
            ("1Ki", "1Ki"),
            ("1024Ki", "1Mi"),
            ("1.5Gi", "1536Mi"),
            ("0.5Ki", "512"),
            ("0.1Ki", "102400m"),
            ("1000Ki", "1000Ki"),
            ("3Ei", "3Ei"),
            ("9E", "9E"),
            ("10E", "9223372036854775807"),
            ("9999999999999999999999", "9223372036854775807"),
            ("1e99", "9223372036854775807"),
            ("8Ei", "9223372036854775807"),
        ] {
            assert_eq!(said(text).as_deref(), Some(canonical), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_quantity_is_not_read() {
        for text in
            ["", ".", "m", "Gi", "-1", "1 ", " 1", "1.2.3", "1g", "1gi", "1KiB", "2 cores", "1e", "1e1.5", "0x1", "١"]
        {
            assert_eq!(said(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_added_without_loss() {
        let sum = |texts: &[&str]| {
            let amounts = texts.iter().map(|text| Amount::parse(text).unwrap());
            amounts.fold(Amount::default(), Amount::plus).to_string()
        };
        assert_eq!(sum(&["0.1", "0.2"]), "300m");
        assert_eq!(sum(&["1Gi", "1G"]), "2073741824");
        assert_eq!(sum(&["512Mi", "512Mi"]), "1Gi");
        assert_eq!(sum(&["1Ki", "100m"]), "1024100m");
        assert_eq!(sum(&["1m", "9007199254740993"]), "9007199254740993001m");
        assert_eq!(sum(&["9E", "9E"]), "9223372036854775807");
        assert_eq!(sum(&[]), "0");
    }

    proptest! {
        #[test]
        fn what_is_said_is_read_as_the_same(thousandths in 0..MOST, binary: bool) {
            let amount = Amount { thousandths, binary };
            let again = Amount::parse(&amount.to_string()).unwrap();
            prop_assert_eq!(again.thousandths, thousandths);
        }

        #[test]
        fn whatever_stands_there_is_survived(text in "[-+]?[0-9.]{0,45}([numkMGTPEKi]{0,3}|[eE][-+]?[0-9]{0,12})") {
            let _ = said(&text);
        }
    }
}
