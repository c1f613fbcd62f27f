//! Waiting for services: all at the same time, each asked again and again.

use std::collections::BTreeSet;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::protocol::init::Service;
use crate::sandboxd::mcp;

/// How soon a service that does not answer is asked again. Most open a moment after what starts them.
const SOON: Duration = Duration::from_millis(250);

/// How much later at most.
const LATER: Duration = Duration::from_secs(1);

/// What a service is called in what the gate tells.
pub fn title(service: &Service) -> String {
    format!("service {}", service.name)
}

/// Waits until all of them have answered, and tells of every answer what is wrong with it, if anything.
///
/// # Errors
/// The first of those of which something is wrong still at the deadline.
pub fn wait(services: &[Service], deadline: Instant, mut tell: impl FnMut(usize, Option<&str>)) -> Result<(), usize> {
    let (sender, answers) = channel();
    for (index, service) in services.iter().cloned().enumerate() {
        let sender = sender.clone();
        // One that asks while time runs out ends by itself a little later.
        thread::spawn(move || ask(index, &service, deadline, &sender));
    }
    let mut waiting: BTreeSet<_> = (0..services.len()).collect();
    while let Some(&first) = waiting.first() {
        let left = deadline.saturating_duration_since(Instant::now());
        let (index, answer) = answers.recv_timeout(left).map_err(|_| first)?;
        tell(index, answer.as_ref().err().map(String::as_str));
        if answer.is_ok() {
            waiting.remove(&index);
        }
    }
    Ok(())
}

fn ask(index: usize, service: &Service, deadline: Instant, answers: &Sender<(usize, Result<(), String>)>) {
    let mut pause = SOON;
    loop {
        let answer = mcp::connect(service, mcp::LIMIT).map_err(|absence| absence.to_string());
        let is_there = answer.is_ok();
        if answers.send((index, answer)).is_err() || is_there || Instant::now() >= deadline {
            return;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LATER);
    }
}
