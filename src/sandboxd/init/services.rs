//! Waits for services: all at the same time, each until it has answered one handshake, and not again after that.

use std::collections::BTreeSet;
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use crate::protocol::init::Service;
use crate::sandboxd::mcp;

/// The first pause before a service that did not answer is asked again. Most services open a moment after the step that starts
/// them.
const SOON: Duration = Duration::from_millis(250);

/// The longest pause.
const LATER: Duration = Duration::from_secs(1);

/// The name of a service in messages and in the progress.
pub fn title(service: &Service) -> String {
    format!("service {}", service.name)
}

/// Waits until all services have answered. `report` gets each answer: the index of the service, and the problem, if there is one.
///
/// # Errors
/// The index of the first service that still has a problem at the deadline.
pub fn wait(services: &[Service], deadline: Instant, mut report: impl FnMut(usize, Option<&str>)) -> Result<(), usize> {
    let (sender, answers) = channel();
    for (index, service) in services.iter().cloned().enumerate() {
        let sender = sender.clone();
        // A thread that is still asking at the deadline ends on its own a little later.
        thread::spawn(move || ask(index, &service, deadline, &sender));
    }
    let mut waiting: BTreeSet<_> = (0..services.len()).collect();
    while let Some(&first) = waiting.first() {
        let left = deadline.saturating_duration_since(Instant::now());
        let (index, answer) = answers.recv_timeout(left).map_err(|_| first)?;
        report(index, answer.as_ref().err().map(String::as_str));
        if answer.is_ok() {
            waiting.remove(&index);
        }
    }
    Ok(())
}

fn ask(index: usize, service: &Service, deadline: Instant, answers: &Sender<(usize, Result<(), String>)>) {
    let mut pause = SOON;
    loop {
        let answer = mcp::connect(service).map_err(|absence| absence.to_string());
        let is_there = answer.is_ok();
        if answers.send((index, answer)).is_err() || is_there || Instant::now() >= deadline {
            return;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(LATER);
    }
}
