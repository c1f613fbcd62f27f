//! `sandboxd supervise`: runs the init work, in a process that outlives the probe that started it.

use std::env;
use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};

use super::{Places, log::Log, mask::Mask, now, read, root, run, services, state::State};
use crate::protocol::cache::RootReport;
use crate::protocol::init::{
    InitFailure, InitProgress, Outcome, RELEASE_FILE, Run, SERVICE_TIMEOUT, Service, Skills, Step, WORK_FILE, Work,
};
use crate::sandboxd::mcp;
use crate::sandboxd::skills::{self, Chosen, LeftOut, Skill, marker::Marker};

/// How often the supervisor checks whether the work is released.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long the installer of one skill may take, in seconds. This is the framework's own limit.
const INSTALLER: u64 = 1800;

/// How many bytes of a step's last output are reported.
const TAIL: usize = 2500;

/// Waits for the release, runs the work and records its outcome. The standard input is the lock.
///
/// # Errors
/// When the progress cannot be written.
pub fn supervise(places: &Places) -> io::Result<ExitCode> {
    // The end of the probe must not end this process.
    let _ = rustix::process::setsid();
    let state = places.state();
    let mut progress = InitProgress::default();
    state.write(&progress)?;
    let log = Log::new(&state);
    let outcome = work(places, &state, &mut progress, &log);
    progress.outcome = Some(outcome.map_or_else(Outcome::Failed, |()| Outcome::Succeeded));
    // The previous version of the file says that the work has begun: a process that finds no outcome in it reports that the
    // supervisor was killed.
    let written = state.write(&progress);
    flock(io::stdin(), FlockOperation::Unlock)?;
    // Processes that the steps left running keep printing, and this process has to read their output.
    log.wait();
    written.map(|()| ExitCode::SUCCESS)
}

fn work(places: &Places, state: &State, progress: &mut InitProgress, log: &Log) -> Result<(), InitFailure> {
    let work = work_of(&places.folder)?;
    let restored = work.root.as_ref().and_then(|root| Some((root, root.restore.as_ref()?)));
    if let Some((root, wanted)) = restored {
        root::restore(places, root, wanted)?;
        progress.root = Some(RootReport::Restored);
        let _ = state.write(progress);
    }
    let saved = work.root.as_ref().filter(|root| root.save).map(|root| (root, root::begin(places, root)));
    if work.root.is_some() {
        let failed = |error| InitFailure { how: format!("cannot begin: {error}"), ..InitFailure::default() };
        state.set_root_ready().map_err(failed)?;
    }
    while read(&places.folder.join(RELEASE_FILE)).is_none() {
        thread::sleep(LOOK_EVERY);
    }
    progress.released = Some(now());
    let deadline = Instant::now() + Duration::from_secs(work.timeout);
    let mut run = InitRun { state, progress, log, mask: Mask::of(&work.secrets), deadline };
    // The last steps may start servers, which would write to what is packed.
    let last = work.steps.iter().rposition(|step| !step.always).map_or(0, |last| last + 1);
    let (first, last) = work.steps.split_at(last);
    for step in first {
        if saved.is_some() && !step.always { run.run(&root::marked(step))? } else { run.run(step)? }
    }
    if let Some(skills) = &work.skills {
        run.install(places, skills)?;
    }
    if let Some((root, baseline)) = saved {
        let began = Instant::now();
        run.progress.root = Some(root::save(places, root, baseline, &work.secrets, &run.mask));
        run.deadline += began.elapsed();
    }
    for step in last {
        run.run(step)?;
    }
    run.wait(&work)
}

/// The init work after its release.
struct InitRun<'a> {
    state: &'a State,
    progress: &'a mut InitProgress,
    log: &'a Log,
    mask: Mask,
    deadline: Instant,
}

impl InitRun<'_> {
    fn run(&mut self, step: &Step) -> Result<(), InitFailure> {
        self.progress.steps.push(begun(step.name.clone()));
        self.write();
        let result = run::run(step, self.deadline, run::GRACE, self.log);
        if let Some(run) = self.progress.steps.last_mut() {
            run.ended = Some(now());
        }
        result.map_err(|failure| InitFailure { tail: end_of(&self.mask.apply(&self.log.tail()), TAIL), ..failure })
    }

    /// Installs the dependencies of the enabled skills.
    fn install(&mut self, places: &Places, skills: &Skills) -> Result<(), InitFailure> {
        let Chosen { skills, left_out, remarks } = skills::chosen(&places.tools, skills)?;
        for remark in remarks {
            self.log.begin(&remark);
        }
        for LeftOut { path, why } in left_out {
            let (name, why) = (format!("skill {path}"), format!("left out: {why}"));
            self.log.begin(&format!("{name} is {why}"));
            let now = now();
            self.progress.steps.push(Run { name, began: now, ended: Some(now), error: Some(why) });
        }
        self.write();
        for skill in skills {
            let name = format!("skill {}", skill.path);
            let failure = |how| InitFailure { step: Some(name.clone()), how, ..InitFailure::default() };
            let marker = Marker::of(&places.tools, &skill, [places.markers.clone(), self.state.markers()]);
            let marker = marker.map_err(|error| failure(format!("cannot be read: {error}")))?;
            if marker.is_set() {
                self.log.begin(&format!("{name} already has its dependencies"));
                continue;
            }
            if let Some(interpreter) = skill.interpreter.first().filter(|interpreter| is_absent(interpreter)) {
                return Err(failure(format!("needs the interpreter {interpreter}, which is not in the image")));
            }
            self.run(&Step { name, command: command(places, &skill), timeout: Some(INSTALLER), ..Step::default() })?;
            marker.set();
        }
        Ok(())
    }

    /// Waits until every service has answered a handshake.
    fn wait(&mut self, work: &Work) -> Result<(), InitFailure> {
        let first = self.progress.steps.len();
        self.progress.steps.extend(work.services.iter().map(|service| begun(services::title(service))));
        if !work.services.is_empty() {
            self.write();
        }
        let began = Instant::now();
        let limit = Duration::from_secs(work.service_timeout.unwrap_or(SERVICE_TIMEOUT));
        let result = services::wait(&work.services, self.deadline.min(began + limit), |index, error| {
            let Some(run) = self.progress.steps.get_mut(first + index) else { return };
            let error = error.map(|error| self.mask.apply(error));
            if error.is_some() && run.error == error {
                return;
            }
            run.ended = error.is_none().then(now);
            run.error = error;
            let _ = self.state.write(self.progress);
        });
        result.map_err(|index| {
            let error = self.progress.steps.get(first + index).and_then(|run| run.error.as_deref());
            unanswered(&work.services[index], error, began.elapsed())
        })
    }

    /// Records the progress. A full disk does not stop the work.
    fn write(&self) {
        let _ = self.state.write(self.progress);
    }
}

fn begun(name: String) -> Run {
    Run { name, began: now(), ended: None, error: None }
}

fn unanswered(service: &Service, error: Option<&str>, waited: Duration) -> InitFailure {
    let error = error.map(|error| format!(": {error}")).unwrap_or_default();
    let (seconds, url) = (waited.as_secs_f64().round(), mcp::url(service));
    let how = format!("did not answer for {seconds} s{error} ({url})");
    InitFailure { step: Some(services::title(service)), how, ..InitFailure::default() }
}

/// The command that runs an installer.
fn command(places: &Places, skill: &Skill) -> Vec<String> {
    let installer = places.tools.join(&skill.path).join(&skill.installer).to_string_lossy().into_owned();
    skill.interpreter.iter().cloned().chain([installer]).collect()
}

/// Whether there is no such program. A name without a folder is looked for in the folders of `PATH`.
fn is_absent(program: &str) -> bool {
    let is_there = |path: &Path| fs::exists(path).unwrap_or(true);
    if program.contains('/') {
        return !is_there(Path::new(program));
    }
    env::var_os("PATH").is_some_and(|path| !env::split_paths(&path).any(|folder| is_there(&folder.join(program))))
}

pub(super) fn work_of(folder: &Path) -> Result<Work, InitFailure> {
    let failure = |how: String| InitFailure { how, ..InitFailure::default() };
    let text = read(&folder.join(WORK_FILE)).ok_or_else(|| failure("found no work to do".into()))?;
    serde_json::from_str(&text).map_err(|error| failure(format!("cannot read its work: {error}")))
}

/// The last lines of a text: whole lines if there are several.
pub(super) fn end_of(text: &str, limit: usize) -> String {
    let text = text.trim_end();
    let cut = text.len().saturating_sub(limit);
    let cut = (cut..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
    let end = &text[cut..];
    let whole = end.split_once('\n').map(|(_, rest)| rest).filter(|_| cut > 0);
    whole.unwrap_or(end).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_long_text_the_last_whole_lines_are_reported() {
        assert_eq!(end_of("one\ntwo\n", TAIL), "one\ntwo");
        let many: Vec<_> = (0..1000).map(|n| format!("line {n}")).collect();
        let many = many.join("\n");
        let end = end_of(&many, TAIL);
        assert!(end.len() <= TAIL && end.ends_with("line 999") && end.starts_with("line "), "{end}");
        let long = "ü".repeat(TAIL);
        assert!(end_of(&long, TAIL).len() <= TAIL);
        assert_eq!(end_of("", TAIL), "");
    }
}
