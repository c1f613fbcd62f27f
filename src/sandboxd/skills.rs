//! Skills: folders below the tools volume that hold a `SKILL.md`, and may hold an installer for their dependencies.
//!
//! Every sandbox of a session can write to the tools volume. So nothing here follows a symbolic link, and every search is bounded.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use self::document::Document;
use super::folder::{Blocked, Folder, Kind, LOST_AND_FOUND};
use crate::protocol::init::{ALL_SKILLS, InitFailure, Skills};

mod document;
pub mod marker;

/// The file that makes a folder a skill.
const DOCUMENT: &str = "SKILL.md";

/// How many names are examined. A tools volume has a few hundred; an agent may have put a whole repository there.
const MOST_NAMES: usize = 100_000;

/// The maximum depth of a skill below the tools volume.
const DEEPEST: usize = 16;

/// The maximum size of a `SKILL.md`.
const LONGEST: u64 = 1024 * 1024;

/// How many skills a message names.
const NAMED: usize = 10;

/// A skill that has something to install.
#[derive(Debug, PartialEq, Eq)]
pub struct Skill {
    /// The folder of the skill, below the tools volume.
    pub path: String,
    /// The installer of its dependencies, below the skill's folder.
    pub installer: PathBuf,
    /// Whether the installer is a program; otherwise a shell runs it.
    pub is_program: bool,
}

/// The result of a search.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The folders with a `SKILL.md`, sorted.
    pub paths: Vec<String>,
    /// Whether the search ended early because there was too much to examine.
    pub is_cut_off: bool,
}

/// Looks for skills in the folders that `wanted` selects. A folder that cannot be read, or whose name is not valid Unicode, has
/// none.
pub fn scan(tools: &Folder, wanted: impl Fn(&str) -> bool) -> Found {
    let mut found = Found::default();
    let mut names_left = MOST_NAMES;
    let mut pending = VecDeque::from([(String::new(), 0)]);
    while let Some((path, depth)) = pending.pop_front() {
        let Ok(folder) = tools.descend(Path::new(&path)) else { continue };
        for name in folder.names().unwrap_or_default() {
            let Some(left) = names_left.checked_sub(1) else {
                found.is_cut_off = true;
                found.paths.sort_unstable();
                return found;
            };
            names_left = left;
            let Some(name) = name.to_str().filter(|name| !name.starts_with('.') && *name != LOST_AND_FOUND) else {
                continue;
            };
            match folder.kind(OsStr::new(name)) {
                Ok(Some(Kind::File { .. })) if name == DOCUMENT && depth > 0 => found.paths.push(path.clone()),
                Ok(Some(Kind::Folder)) if depth < DEEPEST => {
                    let inner = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
                    if wanted(&inner) {
                        pending.push_back((inner, depth + 1));
                    }
                }
                _ => {}
            }
        }
    }
    found.paths.sort_unstable();
    found
}

/// The enabled skills of this type of sandbox that have something to install, in the order of installation.
///
/// # Errors
/// When an enabled skill does not exist, or cannot be read.
pub fn chosen(tools: &Path, skills: &Skills) -> Result<Vec<Skill>, InitFailure> {
    let failure = |how| InitFailure { how, ..InitFailure::default() };
    let folder = match Folder::open(tools) {
        Ok(folder) => Some(folder),
        Err(Blocked::Absent { .. }) => None,
        Err(blocked) => {
            return Err(failure(format!("cannot look for skills: {}", super::sentence(&blocked))));
        }
    };
    let enabled = Enabled::of(skills);
    let found = folder.as_ref().map(|tools| scan(tools, |path| enabled.leads_through(path))).unwrap_or_default();
    if found.is_cut_off {
        return Err(failure(format!("cannot look for skills: {} holds more than {MOST_NAMES} files", tools.display())));
    }
    if let Some(missing) = enabled.missing(&found.paths) {
        let all = folder.as_ref().map(|tools| scan(tools, |_| true)).unwrap_or_default();
        let (tools, there) = (tools.display(), list(&all.paths));
        return Err(failure(format!("cannot enable the skill {missing}, which is not in {tools}; {there}")));
    }
    let Some(folder) = folder else { return Ok(vec![]) };
    let mut chosen = vec![];
    for path in found.paths.into_iter().filter(|path| enabled.has(path)) {
        let document = read(&folder, &path).map_err(|error| {
            let place = tools.join(&path).join(DOCUMENT);
            InitFailure {
                step: Some(format!("skill {path}")),
                ..failure(format!("cannot be read: {}: {error}", place.display()))
            }
        })?;
        if document.sandbox.as_deref() != Some(&skills.sandbox_type) {
            continue;
        }
        if let Some(skill) = with_installer(&folder, &path, &skills.sandbox_type) {
            chosen.push((document.priority, skill));
        }
    }
    // The skills are already sorted by path.
    chosen.sort_by_key(|(priority, _)| *priority);
    Ok(chosen.into_iter().map(|(_, skill)| skill).collect())
}

/// Which skills are enabled.
struct Enabled<'a> {
    all: bool,
    paths: Vec<&'a str>,
}

impl<'a> Enabled<'a> {
    fn of(skills: &'a Skills) -> Self {
        let paths = skills.enabled.iter().map(|path| path.trim_matches('/'));
        let (all, paths): (Vec<_>, Vec<_>) = paths.partition(|path| *path == ALL_SKILLS);
        Self { all: !all.is_empty(), paths }
    }

    fn has(&self, path: &str) -> bool {
        self.all || self.paths.iter().any(|enabled| is_at_or_below(path, enabled))
    }

    /// Whether a folder may contain an enabled skill.
    fn leads_through(&self, folder: &str) -> bool {
        self.has(folder) || self.paths.iter().any(|enabled| is_at_or_below(enabled, folder))
    }

    /// The first enabled skill that does not exist.
    fn missing(&self, there: &[String]) -> Option<&'a str> {
        self.paths.iter().copied().find(|enabled| !there.iter().any(|path| is_at_or_below(path, enabled)))
    }
}

fn is_at_or_below(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

fn list(paths: &[String]) -> String {
    if paths.is_empty() {
        return "there are none".into();
    }
    let (named, rest) = paths.split_at(paths.len().min(NAMED));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("there are: {}{more}", named.join(", "))
}

fn read(tools: &Folder, path: &str) -> io::Result<Document> {
    let folder = tools.descend(Path::new(path)).map_err(|blocked| io::Error::other(super::sentence(&blocked)))?;
    let mut text = String::new();
    folder.read(OsStr::new(DOCUMENT))?.take(LONGEST + 1).read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        return Err(io::Error::other(format!("it is longer than {LONGEST} bytes")));
    }
    Document::parse(&text).map_err(io::Error::other)
}

/// The skill with its installer for a type of sandbox, if it has an installer.
fn with_installer(tools: &Folder, path: &str, sandbox_type: &str) -> Option<Skill> {
    ["deps".into(), Path::new("deps").join(sandbox_type)].into_iter().rev().find_map(|folder: PathBuf| {
        let name = OsStr::new("install.sh");
        let there = tools.descend(&Path::new(path).join(&folder)).ok()?;
        let Some(Kind::File { executable }) = there.kind(name).ok()? else { return None };
        let is_program = executable && there.read(name).is_ok_and(names_its_interpreter);
        Some(Skill { path: path.into(), installer: folder.join(name), is_program })
    })
}

/// Whether the kernel can execute a file: a script without `#!` needs a shell, whatever its mode.
fn names_its_interpreter(mut file: impl Read) -> bool {
    let mut first = [0; 2];
    file.read_exact(&mut first).is_ok() && [*b"#!", *b"\x7fE"].contains(&first)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    /// A tools volume; each file is given by its path and content.
    fn tools(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        folder
    }

    fn document(sandbox: &str, priority: &str) -> String {
        format!("---\nname: x\nshould_run_in_sandbox: {sandbox}\n---\n# X\n\n## Priority\n\n{priority}\n")
    }

    fn enabled(paths: &[&str]) -> Skills {
        Skills { sandbox_type: "fuzz".into(), enabled: paths.iter().map(ToString::to_string).collect() }
    }

    fn names(tools: &TempDir, paths: &[&str]) -> Vec<String> {
        chosen(tools.path(), &enabled(paths)).unwrap().into_iter().map(|skill| skill.path).collect()
    }

    fn scanned(tools: &TempDir) -> Vec<String> {
        scan(&Folder::open(tools.path()).unwrap(), |_| true).paths
    }

    #[test]
    fn skills_lie_at_any_depth_and_links_and_hidden_folders_hold_none() {
        let outside = tools(&[("skill/SKILL.md", "")]);
        let deep = format!("{}SKILL.md", "d/".repeat(DEEPEST));
        let too_deep = format!("{}SKILL.md", "e/".repeat(DEEPEST + 1));
        let tools = tools(&[
            ("SKILL.md", ""),
            ("fuzz/afl/SKILL.md", ""),
            ("fuzz/afl/nested/SKILL.md", ""),
            ("fuzz/SKILL.md", ""),
            ("fuzz.x/SKILL.md", ""),
            (".git/SKILL.md", ""),
            ("lost+found/SKILL.md", ""),
            ("none/skill.md", ""),
            ("folder/SKILL.md/x", ""),
            (&deep, ""),
            (&too_deep, ""),
        ]);
        symlink("..", tools.path().join("fuzz/loop")).unwrap();
        symlink(outside.path().join("skill"), tools.path().join("outside")).unwrap();
        fs::create_dir(tools.path().join("link")).unwrap();
        symlink("../fuzz/SKILL.md", tools.path().join("link/SKILL.md")).unwrap();
        let deep = deep.trim_end_matches("/SKILL.md");
        assert_eq!(scanned(&tools), [deep, "fuzz", "fuzz.x", "fuzz/afl", "fuzz/afl/nested"]);
    }

    #[test]
    fn a_prefix_enables_all_that_is_below_and_nothing_beside_it() {
        let text = document("fuzz", "none");
        let paths = ["a/one", "a/one/more", "a/one-more", "b"];
        let files: Vec<_> = paths
            .iter()
            .flat_map(|path| [(format!("{path}/SKILL.md"), text.as_str()), (format!("{path}/deps/install.sh"), "")])
            .collect();
        let tools = tools(&files.iter().map(|(path, text)| (path.as_str(), *text)).collect::<Vec<_>>());
        assert_eq!(names(&tools, &[]), [""; 0]);
        assert_eq!(names(&tools, &["a/one"]), ["a/one", "a/one/more"]);
        assert_eq!(names(&tools, &["/a/one/more/", "b"]), ["a/one/more", "b"]);
        assert_eq!(names(&tools, &["a"]), ["a/one", "a/one-more", "a/one/more"]);
        assert_eq!(names(&tools, &["b", "all"]).len(), 4);
    }

    #[test]
    fn the_order_is_by_priority_then_path_and_other_types_are_left_out() {
        let tools = tools(&[
            ("a/SKILL.md", &document("fuzz", "later")),
            ("a/deps/install.sh", ""),
            ("b/SKILL.md", &document("fuzz", "10")),
            ("b/deps/install.sh", ""),
            ("c/SKILL.md", &document("fuzz", "-1")),
            ("c/deps/install.sh", ""),
            ("d/SKILL.md", &document("fuzz", "10")),
            ("d/deps/install.sh", ""),
            ("e/SKILL.md", &document("main", "1")),
            ("e/deps/install.sh", ""),
            ("f/SKILL.md", &document("fuzz", "1")),
            ("f/deps/main/install.sh", ""),
            ("g/SKILL.md", "no front matter"),
            ("g/deps/install.sh", ""),
        ]);
        assert_eq!(names(&tools, &["all"]), ["c", "b", "d", "a"]);
    }

    #[test]
    fn the_installer_of_the_type_comes_before_the_common_one() {
        let tools = tools(&[
            ("a/SKILL.md", &document("fuzz", "1")),
            ("a/deps/install.sh", "echo"),
            ("a/deps/fuzz/install.sh", "#!/bin/sh\n"),
            ("b/SKILL.md", &document("fuzz", "2")),
            ("b/deps/install.sh", "echo no interpreter"),
        ]);
        for path in ["a/deps/fuzz/install.sh", "b/deps/install.sh"] {
            fs::set_permissions(tools.path().join(path), fs::Permissions::from_mode(0o755)).unwrap();
        }
        let skill = |path: &str, installer: &str, is_program| Skill {
            path: path.into(),
            installer: installer.into(),
            is_program,
        };
        let chosen = chosen(tools.path(), &enabled(&["all"])).unwrap();
        assert_eq!(chosen, [skill("a", "deps/fuzz/install.sh", true), skill("b", "deps/install.sh", false)]);
    }

    #[test]
    fn a_skill_that_is_enabled_has_to_be_there_and_to_be_understood() {
        let broken = "---\nshould_run_in_sandbox: [fuzz]\n---\n";
        let tools = tools(&[("a/SKILL.md", &document("fuzz", "1")), ("broken/SKILL.md", broken)]);
        let failure = |paths: &[&str]| chosen(tools.path(), &enabled(paths)).unwrap_err();
        assert!(names(&tools, &["a"]).is_empty(), "a skill that is not enabled may be broken");
        for paths in [&["broken"][..], &["all"]] {
            let failure = failure(paths);
            assert_eq!(failure.step.as_deref(), Some("skill broken"));
            let expected = format!("cannot be read: {}/broken/SKILL.md: should_run_in_sandbox", tools.path().display());
            assert!(failure.how.starts_with(&expected), "{}", failure.how);
        }
        let missing = failure(&["a", "fuzz/x"]);
        let place = tools.path().display();
        let expected = format!("cannot enable the skill fuzz/x, which is not in {place}; there are: a, broken");
        assert_eq!((missing.step, missing.how), (None, expected));
        let nowhere = chosen(Path::new("/no/such"), &enabled(&["x"])).unwrap_err();
        assert!(nowhere.how.ends_with("which is not in /no/such; there are none"), "{}", nowhere.how);
        assert_eq!(chosen(Path::new("/no/such"), &enabled(&["all"])), Ok(vec![]));
    }

    #[test]
    fn a_message_names_some_and_counts_the_rest() {
        let paths: Vec<_> = (0..25).map(|n| format!("s{n}")).collect();
        assert!(list(&paths).ends_with("s9 and 15 more"), "{}", list(&paths));
    }
}
