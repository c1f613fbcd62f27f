//! `sandboxd status` and `sandboxd log`: show the init work of a sandbox.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use jiff::Timestamp;

use super::{Places, now, sentence, services, supervise::work_of};
use crate::protocol::cache::RootReport;
use crate::protocol::init::{InitProgress, Outcome, Run, Work};
use crate::sandboxd::http;

const LOOK_EVERY: Duration = Duration::from_millis(200);

/// How many lines of the log `status` shows.
const LINES: usize = 10;

/// How many bytes at the end of the log are searched for these lines.
const END: u64 = 16 * 1024;

/// Prints the parts of the work, how long each part took, how the work ended, and the last lines of the log.
///
/// # Errors
/// When stdout cannot be written.
pub fn status(places: &Places) -> io::Result<ExitCode> {
    let Ok(work) = work_of(&places.folder) else {
        writeln!(io::stdout(), "This sandbox has no initialiser.")?;
        return Ok(ExitCode::SUCCESS);
    };
    let state = places.state();
    let progress = state.read();
    let mut text = table(&work, progress.as_ref(), now());
    let log = end_of(&state.log()).unwrap_or_default();
    let lines: Vec<_> = log.lines().collect();
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        let _ = writeln!(text, "  {}", http::one_line(line));
    }
    io::stdout().write_all(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}

fn table(work: &Work, progress: Option<&InitProgress>, now: Timestamp) -> String {
    let released = progress.and_then(|progress| progress.released);
    let mut text = match (progress.and_then(|progress| progress.outcome.as_ref()), released) {
        (Some(Outcome::Succeeded), _) => "The initialiser has succeeded.\n".to_string(),
        (Some(Outcome::Failed(failure)), _) => format!("The initialiser has failed: {}.\n", sentence(failure)),
        (None, Some(released)) => format!("The initialiser has been running since {released}.\n"),
        (None, None) => "The initialiser waits for its release.\n".to_string(),
    };
    for (index, (name, run)) in parts(work, progress).into_iter().enumerate() {
        let said = match run {
            None => "pending".to_string(),
            Some(run) => {
                let seconds = run.ended.unwrap_or(now).duration_since(run.began).as_secs();
                let so_far = if run.ended.is_none() { " so far" } else { "" };
                let error = run.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default();
                format!("{seconds} s{so_far}{error}")
            }
        };
        let _ = writeln!(text, "{:>3}. {:<24} {}", index + 1, http::one_line(&name), http::one_line(&said));
    }
    match progress.and_then(|progress| progress.root.as_ref()) {
        Some(RootReport::Restored) => text.push_str("The root file system is restored from the cache.\n"),
        Some(RootReport::Saved(_)) => text.push_str("The root file system is packed for the cache.\n"),
        Some(RootReport::NotSaved { message, .. }) => {
            let _ = writeln!(text, "The root file system is not packed for the cache: {}.", http::one_line(message));
        }
        None => {}
    }
    text
}

/// The parts of the work, each with its run if the part has begun. It is unknown which skills have something to install until it is
/// their turn.
fn parts<'a>(work: &'a Work, progress: Option<&'a InitProgress>) -> Vec<(String, Option<&'a Run>)> {
    let runs = progress.map(|progress| progress.steps.as_slice()).unwrap_or_default();
    // The name of a step contains no space.
    let (rest, steps): (Vec<_>, Vec<_>) = runs.iter().partition(|run| run.name.contains(' '));
    let mut parts: Vec<_> =
        work.steps.iter().enumerate().map(|(index, step)| (step.name.clone(), steps.get(index).copied())).collect();
    let skills = rest.iter().filter(|run| run.name.starts_with("skill "));
    parts.extend(skills.map(|run| (run.name.clone(), Some(*run))));
    let is_over = progress.is_some_and(|progress| progress.outcome.is_some());
    if work.skills.is_some() && rest.is_empty() && !is_over {
        parts.push(("skills".into(), None));
    }
    parts.extend(work.services.iter().map(|service| {
        let title = services::title(service);
        let run = rest.iter().find(|run| run.name == title).copied();
        (title, run)
    }));
    parts
}

/// The end of a log, which may hold arbitrary bytes.
fn end_of(log: &Path) -> io::Result<String> {
    let mut file = File::open(log)?;
    let start = file.metadata()?.len().saturating_sub(END);
    file.seek(SeekFrom::Start(start))?;
    let mut end = vec![];
    file.take(END).read_to_end(&mut end)?;
    Ok(String::from_utf8_lossy(&end).into_owned())
}

/// Prints the log; with `follow`, continues until the work is over.
///
/// # Errors
/// When stdout cannot be written.
pub fn log(places: &Places, follow: bool) -> io::Result<ExitCode> {
    let state = places.state();
    let mut out = io::stdout();
    if let Ok(mut old) = File::open(state.old_log()) {
        io::copy(&mut old, &mut out)?;
    }
    let mut file: Option<(u64, File)> = None;
    loop {
        // Checked before the log is read: the log then holds everything that was printed until the end.
        let is_over = state.read().is_some_and(|progress| progress.outcome.is_some());
        if let Ok(opened) = File::open(state.log()) {
            let inode = opened.metadata()?.ino();
            if let Some((known, open)) = &mut file
                && *known != inode
            {
                copy_rest(open, &mut out)?;
                file = None;
            }
            let (_, open) = file.get_or_insert((inode, opened));
            copy_rest(open, &mut out)?;
        }
        if is_over || !follow {
            return Ok(ExitCode::SUCCESS);
        }
        thread::sleep(LOOK_EVERY);
    }
}

fn copy_rest(from: &mut File, to: &mut impl Write) -> io::Result<()> {
    let mut bytes = vec![];
    from.read_to_end(&mut bytes)?;
    // The log was started again in the same file.
    if bytes.is_empty() && from.stream_position()? > from.metadata()?.len() {
        from.seek(SeekFrom::Start(0))?;
        from.read_to_end(&mut bytes)?;
    }
    to.write_all(&bytes)?;
    to.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::init::{InitFailure, Service, Skills, Step};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + second).unwrap()
    }

    fn run(name: &str, began: i64, ended: Option<i64>) -> Run {
        Run { name: name.into(), began: at(began), ended: ended.map(at), error: None }
    }

    fn step(name: &str) -> Step {
        Step { name: name.into(), ..Step::default() }
    }

    fn progress(steps: Vec<Run>) -> InitProgress {
        InitProgress { released: Some(at(0)), steps, ..InitProgress::default() }
    }

    #[test]
    fn the_steps_are_reported_in_their_order_with_their_times() {
        let work = Work { steps: vec![step("fetch"), step("compile"), step("index")], ..Work::default() };
        assert!(table(&work, None, at(0)).starts_with("The initialiser waits for its release.\n  1. fetch"));
        let mut progress = progress(vec![run("fetch", 0, Some(3)), run("compile", 3, None)]);
        let text = table(&work, Some(&progress), at(10));
        assert_eq!(
            text,
            "The initialiser has been running since 2026-01-01T00:00:00Z.\n  1. fetch                    3 s\n  2. compile                  7 s so far\n  3. index                    pending\n"
        );
        let failure = InitFailure {
            step: Some("compile".into()),
            how: "ended with exit code 2".into(),
            ..InitFailure::default()
        };
        progress.outcome = Some(Outcome::Failed(failure));
        assert!(
            table(&work, Some(&progress), at(10))
                .starts_with("The initialiser has failed: the step compile ended with exit code 2.")
        );
    }

    #[test]
    fn skills_and_services_follow_the_steps() {
        let service = |name: &str| Service { name: name.into(), ..Service::default() };
        let work = Work {
            steps: vec![step("one")],
            skills: Some(Skills::default()),
            services: vec![service("gdb"), service("pdb")],
            ..Work::default()
        };
        let rows = |progress: &InitProgress| {
            let text = table(&work, Some(progress), at(10));
            let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
            rows.collect::<Vec<_>>()
        };
        let before = ["1. one 10 s so far", "2. skills pending", "3. service gdb pending", "4. service pdb pending"];
        assert_eq!(rows(&progress(vec![run("one", 0, None)])), before);
        let waits = Run { error: Some("connection refused".into()), ..run("service pdb", 5, None) };
        let runs = vec![run("one", 0, Some(1)), run("skill a/b", 1, Some(4)), run("service gdb", 5, Some(6)), waits];
        let after =
            ["1. one 1 s", "2. skill a/b 3 s", "3. service gdb 1 s", "4. service pdb 5 s so far: connection refused"];
        assert_eq!(rows(&progress(runs)), after);
    }
}
