//! Skills: folders below the tools volume that hold a `SKILL.md`, and may hold an installer for their dependencies.
//!
//! Every sandbox of a session can write to the tools volume. So nothing here follows a symbolic link, and every search is bounded.
//! One folder by somebody else must not stop a sandbox: what cannot be understood is left out and reported.
//!
//! Decided in docs/adr/0016-skills-as-the-framework-reads-them.md.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use self::document::Document;
use super::folder::{Blocked, Folder, Kind, LOST_AND_FOUND};
use crate::protocol::init::{ALL_SKILLS, InitFailure, Skills, is_at_or_below};

mod document;
mod interpreter;
pub mod marker;

/// The file that makes a folder a skill.
const DOCUMENT: &str = "SKILL.md";

/// Folders that are not searched: version control and the file system keep their own files there.
const HOUSEKEEPING: [&str; 6] = [".git", ".hg", ".svn", ".bzr", ".jj", LOST_AND_FOUND];

/// How many names are examined. A tools volume has a few hundred; an agent may have put a whole repository there.
const MOST_NAMES: usize = 100_000;

/// The maximum depth of a skill below the tools volume.
const DEEPEST: usize = 16;

/// How much of a `SKILL.md` is read, in bytes.
const LONGEST: u64 = 1024 * 1024;

/// How many skills a message names.
const NAMED: usize = 10;

/// How many characters of a type that a `SKILL.md` names are shown. The name of a type is shorter.
const SHOWN: usize = 40;

/// A skill that has something to install.
#[derive(Debug, PartialEq, Eq)]
pub struct Skill {
    /// The folder of the skill, below the tools volume.
    pub path: String,
    /// The installer of its dependencies, below the skill's folder.
    pub installer: PathBuf,
    /// The program that runs the installer, with its arguments; empty if the installer itself is a program.
    pub interpreter: Vec<String>,
}

/// A skill with an installer that is not run because it is unknown whether the sandbox should run it.
#[derive(Debug, PartialEq, Eq)]
pub struct LeftOut {
    /// The folder of the skill, below the tools volume.
    pub path: String,
    /// Why the skill is left out, as a sentence without its full stop.
    pub why: String,
}

/// What is to be done about the enabled skills.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Chosen {
    /// The skills that have something to install, in the order of installation.
    pub skills: Vec<Skill>,
    /// Skills that are left out, at most [`NAMED`].
    pub left_out: Vec<LeftOut>,
    /// Lines for the log about other skills that are not installed.
    pub remarks: Vec<String>,
}

/// The result of a search.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The folders with a `SKILL.md`, sorted. Those in hidden folders come last: a report that is too short for all has the others.
    pub paths: Vec<String>,
    /// The folder in which the search ended early because there was too much to examine.
    pub ended_in: Option<String>,
}

/// Looks for skills in the folders that `wanted` selects. A folder that cannot be read, or whose name is not valid Unicode, has
/// none. Hidden folders are searched after all others.
pub fn scan(tools: &Folder, wanted: impl Fn(&str) -> bool) -> Found {
    let mut found = Found::default();
    let mut names_left = MOST_NAMES;
    let (mut pending, mut hidden) = (VecDeque::from([(String::new(), 0)]), VecDeque::new());
    'search: while let Some((path, depth)) = pending.pop_front().or_else(|| hidden.pop_front()) {
        let Ok(folder) = tools.descend(Path::new(&path)) else { continue };
        for name in folder.names().unwrap_or_default() {
            let Some(left) = names_left.checked_sub(1) else {
                found.ended_in = Some(path);
                break 'search;
            };
            names_left = left;
            let Some(name) = name.to_str().filter(|name| is_searched(name)) else { continue };
            match folder.kind(OsStr::new(name)) {
                Ok(Some(Kind::File { .. })) if name == DOCUMENT && depth > 0 => found.paths.push(path.clone()),
                Ok(Some(Kind::Folder)) if depth < DEEPEST => {
                    let inner = if path.is_empty() { name.to_string() } else { format!("{path}/{name}") };
                    if wanted(&inner) {
                        let queue = if is_hidden(&inner) { &mut hidden } else { &mut pending };
                        queue.push_back((inner, depth + 1));
                    }
                }
                _ => {}
            }
        }
    }
    found.paths.sort_unstable_by(|one, other| (is_hidden(one), one).cmp(&(is_hidden(other), other)));
    found
}

/// Whether something of this name may be a skill's. The kubelet keeps the content of a `ConfigMap` in folders that begin with `..`.
fn is_searched(name: &str) -> bool {
    !name.starts_with("..") && !HOUSEKEEPING.contains(&name)
}

/// Whether a folder of the path has a name that begins with a dot.
fn is_hidden(path: &str) -> bool {
    path.starts_with('.') || path.contains("/.")
}

/// The enabled skills of this type of sandbox that have something to install, and those about which this is unknown.
///
/// # Errors
/// When an enabled skill does not exist, or there is too much to search.
pub fn chosen(tools: &Path, skills: &Skills) -> Result<Chosen, InitFailure> {
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
    let mut remarks = vec![];
    if let Some(last) = found.ended_in {
        let why = format!("{} holds more than {MOST_NAMES} files", tools.display());
        if !is_hidden(&last) {
            return Err(failure(format!("cannot look for skills: {why}")));
        }
        remarks.push(format!("the search for skills ended in the hidden folder {last}: {why}"));
    }
    if let Some(missing) = enabled.missing(&found.paths) {
        let all = folder.as_ref().map(|tools| scan(tools, |_| true)).unwrap_or_default();
        let tools = tools.display();
        let there =
            if all.paths.is_empty() { "there are none".into() } else { format!("there are: {}", list(&all.paths)) };
        return Err(failure(format!("cannot enable the skill {missing}, which is not in {tools}; {there}")));
    }
    let Some(folder) = folder else { return Ok(Chosen::default()) };
    let (mut chosen, mut left_out, mut of_others) = (vec![], vec![], vec![]);
    for path in found.paths.into_iter().filter(|path| enabled.has(path)) {
        // Without an installer it does not matter what the document says.
        let Some(skill) = with_installer(&folder, &path, &skills.sandbox_type) else { continue };
        match read(&folder, &path) {
            Ok(Document { sandbox: Some(sandbox), priority }) if sandbox.eq_ignore_ascii_case(&skills.sandbox_type) => {
                chosen.push((priority, skill));
            }
            Ok(Document { sandbox: Some(sandbox), .. }) => of_others.push(format!("{path} ({})", shown(&sandbox))),
            Ok(Document { sandbox: None, .. }) => {
                let why =
                    format!("the front matter of its {DOCUMENT} does not name a type of sandbox ({})", document::KEY);
                left_out.push(LeftOut { path, why });
            }
            Err(error) => left_out.push(LeftOut { path, why: format!("its {DOCUMENT} cannot be read: {error}") }),
        }
    }
    if !of_others.is_empty() {
        remarks.push(format!("these skills are for other types of sandbox: {}", list(&of_others)));
    }
    if left_out.len() > NAMED {
        remarks.push(format!("{} more skills are left out", left_out.len() - NAMED));
        left_out.truncate(NAMED);
    }
    chosen.sort_unstable_by(|(one, first), (other, second)| (one, &first.path).cmp(&(other, &second.path)));
    Ok(Chosen { skills: chosen.into_iter().map(|(_, skill)| skill).collect(), left_out, remarks })
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

/// The first of some skills, and how many there are besides.
fn list(skills: &[String]) -> String {
    let (named, rest) = skills.split_at(skills.len().min(NAMED));
    let more = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
    format!("{}{more}", named.join(", "))
}

/// A type as a `SKILL.md` names it: arbitrary text.
fn shown(sandbox: &str) -> String {
    let more = if sandbox.chars().nth(SHOWN).is_some() { "…" } else { "" };
    format!("{}{more}", sandbox.chars().take(SHOWN).collect::<String>().escape_debug())
}

/// Reads a `SKILL.md`. What matters is at its beginning, so of a very long one the rest is ignored.
fn read(tools: &Folder, path: &str) -> io::Result<Document> {
    let folder = tools.descend(Path::new(path)).map_err(|blocked| io::Error::other(super::sentence(&blocked)))?;
    let mut text = vec![];
    folder.read(OsStr::new(DOCUMENT))?.take(LONGEST).read_to_end(&mut text)?;
    Ok(Document::parse(&text))
}

/// The skill with its installer for a type of sandbox, if it has an installer.
fn with_installer(tools: &Folder, path: &str, sandbox_type: &str) -> Option<Skill> {
    ["deps".into(), Path::new("deps").join(sandbox_type)].into_iter().rev().find_map(|folder: PathBuf| {
        let name = OsStr::new("install.sh");
        let there = tools.descend(&Path::new(path).join(&folder)).ok()?;
        let Some(Kind::File { .. }) = there.kind(name).ok()? else { return None };
        // A shell reports why it cannot read the file.
        let interpreter = there.read(name).and_then(interpreter::of).unwrap_or_else(|_| vec!["sh".into()]);
        Some(Skill { path: path.into(), installer: folder.join(name), interpreter })
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

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
        chosen(tools.path(), &enabled(paths)).unwrap().skills.into_iter().map(|skill| skill.path).collect()
    }

    fn scanned(tools: &TempDir) -> Vec<String> {
        scan(&Folder::open(tools.path()).unwrap(), |_| true).paths
    }

    #[test]
    fn skills_lie_at_any_depth_and_links_and_housekeeping_hold_none() {
        let outside = tools(&[("skill/SKILL.md", "")]);
        let deep = format!("{}SKILL.md", "d/".repeat(DEEPEST));
        let too_deep = format!("{}SKILL.md", "e/".repeat(DEEPEST + 1));
        let tools = tools(&[
            ("SKILL.md", ""),
            ("fuzz/afl/SKILL.md", ""),
            ("fuzz/afl/nested/SKILL.md", ""),
            ("fuzz/SKILL.md", ""),
            ("fuzz.x/SKILL.md", ""),
            (".claude/skills/lint/SKILL.md", ""),
            ("fuzz/.agents/SKILL.md", ""),
            (".git/SKILL.md", ""),
            ("fuzz/.hg/x/SKILL.md", ""),
            ("lost+found/SKILL.md", ""),
            ("fuzz/..2026_01_01/SKILL.md", ""),
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
        let shown = ["fuzz", "fuzz.x", "fuzz/afl", "fuzz/afl/nested"];
        let hidden = [".claude/skills/lint", "fuzz/.agents"];
        assert_eq!(scanned(&tools), [&[deep], &shown[..], &hidden].concat(), "hidden folders come last");
    }

    #[test]
    fn too_much_in_a_hidden_folder_hides_nothing_that_lies_elsewhere() {
        let text = document("fuzz", "1");
        let tools = tools(&[("x/y/SKILL.md", &text), ("x/y/deps/install.sh", "")]);
        fs::create_dir(tools.path().join(".cache")).unwrap();
        for name in 0..=MOST_NAMES {
            fs::write(tools.path().join(format!(".cache/{name}")), "").unwrap();
        }
        let chosen = chosen(tools.path(), &enabled(&["all"])).unwrap();
        assert_eq!(chosen.skills.len(), 1);
        let expected = format!(
            "the search for skills ended in the hidden folder .cache: {} holds more than {MOST_NAMES} files",
            tools.path().display()
        );
        assert_eq!(chosen.remarks, [expected]);
        fs::rename(tools.path().join(".cache"), tools.path().join("cache")).unwrap();
        let failure = super::chosen(tools.path(), &enabled(&["all"])).unwrap_err();
        assert!(failure.how.starts_with("cannot look for skills: "), "{}", failure.how);
        assert_eq!(names(&tools, &["x"]), ["x/y"], "only what may be enabled is searched");
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
        fs::rename(tools.path().join("a"), tools.path().join(".a")).unwrap();
        assert_eq!(names(&tools, &[".a/one"]), [".a/one", ".a/one/more"]);
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
        let skill = |path: &str, installer: &str, interpreter: &str| Skill {
            path: path.into(),
            installer: installer.into(),
            interpreter: vec![interpreter.into()],
        };
        let chosen = chosen(tools.path(), &enabled(&["all"])).unwrap().skills;
        assert_eq!(chosen, [skill("a", "deps/fuzz/install.sh", "/bin/sh"), skill("b", "deps/install.sh", "sh")]);
    }

    #[test]
    fn a_skill_that_is_enabled_has_to_be_there() {
        let tools = tools(&[("a/SKILL.md", &document("fuzz", "1")), (".b/SKILL.md", "")]);
        let missing = chosen(tools.path(), &enabled(&["a", "fuzz/x"])).unwrap_err();
        let place = tools.path().display();
        let expected = format!("cannot enable the skill fuzz/x, which is not in {place}; there are: a, .b");
        assert_eq!((missing.step, missing.how), (None, expected));
        let nowhere = chosen(Path::new("/no/such"), &enabled(&["x"])).unwrap_err();
        assert!(nowhere.how.ends_with("which is not in /no/such; there are none"), "{}", nowhere.how);
        assert_eq!(chosen(Path::new("/no/such"), &enabled(&["all"])), Ok(Chosen::default()));
    }

    #[test]
    fn a_type_is_compared_without_regard_to_case() {
        for sandbox in ["Fuzz", "FUZZ", "\"fuzz\""] {
            let tools = tools(&[("a/SKILL.md", &document(sandbox, "1")), ("a/deps/install.sh", "")]);
            assert_eq!(names(&tools, &["all"]), ["a"], "{sandbox}");
        }
    }

    #[test]
    fn a_document_that_does_not_name_a_type_is_reported_where_its_installer_could_run() {
        let tools = tools(&[
            ("a/SKILL.md", "---\nshould_run_in_sandbox: fuzz\n"),
            ("a/deps/install.sh", ""),
            ("b/SKILL.md", "# for people"),
            ("c/SKILL.md", "---\nname: c\n---\n"),
            ("c/deps/main/install.sh", ""),
            ("d/SKILL.md", &document("fuzz", "1")),
            ("d/deps/install.sh", ""),
        ]);
        let Chosen { skills, left_out, remarks } = chosen(tools.path(), &enabled(&["all"])).unwrap();
        let why = "the front matter of its SKILL.md does not name a type of sandbox (should_run_in_sandbox)";
        assert_eq!(left_out, [LeftOut { path: "a".into(), why: why.into() }]);
        assert_eq!((skills.len(), remarks), (1, vec![]));
    }

    /// The user of these tests may be root, which may read everything: so the file is one that cannot be opened.
    #[test]
    fn a_document_that_cannot_be_read_is_reported_and_stops_nothing() {
        let tools =
            tools(&[("a/deps/install.sh", ""), ("b/SKILL.md", &document("fuzz", "1")), ("b/deps/install.sh", "")]);
        let folder = Folder::open(tools.path()).unwrap();
        symlink("../b/SKILL.md", tools.path().join("a/SKILL.md")).unwrap();
        assert!(read(&folder, "a").is_err());
        assert_eq!(names(&tools, &["all"]), ["b"]);
    }

    #[test]
    fn of_a_very_long_document_the_beginning_is_read() {
        let long = document("fuzz", "1") + &"x".repeat(2 * usize::try_from(LONGEST).unwrap());
        let tools = tools(&[("a/SKILL.md", &long), ("a/deps/install.sh", "")]);
        assert_eq!(names(&tools, &["all"]), ["a"]);
    }

    #[test]
    fn skills_of_other_types_are_listed_by_their_types() {
        let long = format!("\u{1b}[2J{}", "x".repeat(100));
        let tools = tools(&[
            ("a/SKILL.md", &document("tabels", "1")),
            ("a/deps/install.sh", ""),
            ("b/SKILL.md", &document(&long, "1")),
            ("b/deps/install.sh", ""),
            ("c/SKILL.md", &document("main", "1")),
        ]);
        let chosen = chosen(tools.path(), &enabled(&["all"])).unwrap();
        let expected = format!(
            "these skills are for other types of sandbox: a (tabels), b (\\u{{1b}}[2J{}…)",
            "x".repeat(SHOWN - "?[2J".len())
        );
        assert_eq!((chosen.remarks, chosen.left_out), (vec![expected], vec![]));
    }

    #[test]
    fn of_many_skills_that_are_left_out_some_are_named() {
        let files: Vec<_> =
            (0..12).flat_map(|n| ["SKILL.md", "deps/install.sh"].map(|name| (format!("s{n}/{name}"), ""))).collect();
        let tools = tools(&files.iter().map(|(path, text)| (path.as_str(), *text)).collect::<Vec<_>>());
        let chosen = chosen(tools.path(), &enabled(&["all"])).unwrap();
        assert_eq!(
            (chosen.left_out.len(), &chosen.remarks[..]),
            (NAMED, &["2 more skills are left out".to_string()][..])
        );
    }

    #[test]
    fn a_message_names_some_and_counts_the_rest() {
        let paths: Vec<_> = (0..25).map(|n| format!("s{n}")).collect();
        assert!(list(&paths).ends_with("s9 and 15 more"), "{}", list(&paths));
    }
}
