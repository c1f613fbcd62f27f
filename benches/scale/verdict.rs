//! What is measured against what it may be.

use std::time::Duration;

use crate::{Result, milliseconds};

/// The lines of the report.
#[derive(Debug, Default)]
pub struct Verdicts {
    lines: Vec<String>,
    counts_over: Vec<String>,
}

impl Verdicts {
    /// A count: the same on every machine, so that too much of it fails the run.
    pub fn count(&mut self, what: &str, budget: f64, measured: f64) {
        let holds = measured <= budget;
        if !holds {
            self.counts_over.push(what.into());
        }
        self.line(what, &format!("≤ {budget}"), &format!("{measured:.2}"), Some(holds));
    }

    /// A ratio of times, which is as noisy as they are.
    pub fn ratio(&mut self, what: &str, budget: f64, measured: f64) {
        self.line(what, &format!("≤ {budget}"), &format!("{measured:.2}"), Some(measured <= budget));
    }

    /// A time.
    pub fn time(&mut self, what: &str, budget: Duration, measured: Duration) {
        self.line(
            what,
            &format!("≤ {} ms", budget.as_millis()),
            &milliseconds(measured),
            Some(measured <= budget && !measured.is_zero()),
        );
    }

    /// Memory, in millions of bytes.
    pub fn megabytes(&mut self, what: &str, budget: u64, measured: u64) {
        #[expect(clippy::cast_precision_loss, reason = "for people")]
        let millions = measured as f64 / 1e6;
        self.line(what, &format!("≤ {budget} MB"), &format!("{millions:.1} MB"), Some(measured <= budget * 1_000_000));
    }

    /// What has no budget.
    pub fn note(&mut self, what: &str, measured: impl AsRef<str>) {
        self.line(what, "", measured.as_ref(), None);
    }

    fn line(&mut self, what: &str, budget: &str, measured: &str, holds: Option<bool>) {
        let verdict = holds.map_or("", |holds| if holds { "yes" } else { "**no**" });
        self.lines.push(format!("| {what} | {budget} | {measured} | {verdict} |"));
    }

    /// Prints the table.
    pub fn print(&self) {
        println!("\n| what | budget | measured | kept |\n|---|---|---|---|");
        self.lines.iter().for_each(|line| println!("{line}"));
    }

    /// Times are told; counts have to be kept.
    pub fn outcome(&self) -> Result<()> {
        if self.counts_over.is_empty() { Ok(()) } else { Err(self.counts_over.join("; ").into()) }
    }
}

/// The time that so many percent of all do not exceed.
pub fn quantile(times: &[Duration], percent: usize) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}
