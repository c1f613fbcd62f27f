//! The words of this project: what the field has a word for is called by it.

use aigise_operator::plan::reserved;
use std::{fs, path::Path};

use regex::{Captures, Regex};

/// Words that were replaced, by what replaced them. Reasons, labels, keys of JSON, fields of logs and names of metrics are not words.
const REPLACED: [(&str, &str); 31] = [
    (r"wish(es|ed)?", "request"),
    (r"(tells?|told|telling)", "report, say, notify or enqueue"),
    (r"speaks? of", "refer to"),
    (r"(un)?heed(s|ed)?", "acknowledge"),
    (r"lets? (\w+ ){0,4}in", "exec access"),
    (r"mend(s|ed|ing)?", "fix"),
    (r"undone", "could not be written"),
    (r"room", "capacity, memory or resource requests"),
    (r"awake", "active"),
    (r"(at rest|rests|resting|rested)", "suspended, inactive or finished"),
    (r"meant", "effective"),
    (r"minded", "taken into account"),
    (r"law of the arrows", "module dependencies"),
    (r"takes? in (its|the|a|an)", "observe"),
    (r"landed", "outcome"),
    (r"absorb(s|ed)?", "record"),
    (r"teller", "dispatcher"),
    (r"intake", "store writer"),
    (r"(spoke|has_spoken)", "synced"),
    (r"announcer?", "event recorder"),
    (r"owned_once", "force_first_ready"),
    (r"has_lost(_something)?", "is_other_session, child_disappeared"),
    (r"is_let_in", "may_exec"),
    (r"check_left", "check_reserved_kept"),
    (r"errand", "copy task"),
    (r"greet(s|ed)?", "connect"),
    (r"verdicts?", "condition value"),
    (r"outlook", "kstatus"),
    (r"packed ?pod", "view"),
    (r"burst_of", "throttle"),
    (r"gates?", "init work, init supervisor"),
];

/// Not prose: code names that stay, and what is compared or hashed elsewhere.
const NO_PROSE: &str = r#"(?x) `\w+` | "is\ let\ in" | `is\ let\ in` | sandboxd\ gate | aigise-gate[\w-]* | aigise\.dev/gate | \bGATE\b
    | "gate[^"]*" | the-gate-is | gate\ ── | "(echo\ )?mended\b "#;

/// Where the words of earlier versions are kept on purpose, and what tests compare with.
const KEPT: [&str; 4] = ["words.rs", "reworded.rs", "stored", "walks"];

fn lines(folder: &Path, found: &mut Vec<(String, usize, String)>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if KEPT.iter().any(|name| path.ends_with(name)) {
            continue;
        }
        if path.is_dir() {
            lines(&path, found);
        } else if path
            .extension()
            .is_some_and(|end| ["rs", "md", "yaml", "txt", "tpl", "sh"].contains(&end.to_str().unwrap()))
        {
            let text = fs::read_to_string(&path).unwrap();
            let name = path.strip_prefix(env!("CARGO_MANIFEST_DIR")).unwrap().display().to_string();
            found.extend(text.lines().enumerate().map(|(at, line)| (name.clone(), at + 1, line.to_string())));
        }
    }
}

#[test]
fn what_the_field_has_a_word_for_is_called_by_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![];
    for folder in ["src", "docs", "charts", "tests"] {
        lines(&root.join(folder), &mut all);
    }
    for file in ["README.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        all.extend(text.lines().enumerate().map(|(at, line)| (file.to_string(), at + 1, line.to_string())));
    }
    let words: Vec<_> =
        REPLACED.iter().map(|(word, say)| (Regex::new(&format!(r"(?i)\b{word}\b")).unwrap(), *say)).collect();
    let (no_prose, is_no) = (Regex::new(NO_PROSE).unwrap(), Regex::new(r"(\w+) is no (\w+)").unwrap());
    let function = Regex::new(r"\bfn \w+").unwrap();
    let mut wrong = vec![];
    for (file, at, line) in all {
        let prose = no_prose.replace_all(&line, "");
        // The names of functions are sentences.
        let prose = function.replace_all(&prose, |name: &Captures| name[0].replace('_', " "));
        let found = words.iter().filter(|(word, _)| word.is_match(&prose)).map(|(_, say)| *say);
        let denied = is_no.captures_iter(&prose).filter(|found| {
            !found[1].eq_ignore_ascii_case("there") && !["longer", "more", "less"].contains(&&found[2])
        });
        for say in found.chain(denied.map(|_| "is not a (valid)")) {
            wrong.push(format!("{file}:{at}: {} (say: {say})", line.trim()));
        }
    }
    assert!(wrong.is_empty(), "{} lines\n{}", wrong.len(), wrong.join("\n"));
}

/// A decision is found from the code that it explains.
#[test]
fn every_adr_about_code_is_linked_from_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![];
    lines(&root.join("src"), &mut all);
    let text: String = all.into_iter().map(|(_, _, line)| line + "\n").collect();
    for entry in fs::read_dir(root.join("docs/adr")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // The README lists them; the cluster of the tests is made by scripts.
        if name != "README.md" && !name.starts_with("0002") {
            assert!(text.contains(&format!("docs/adr/{name}")), "{name} is linked from no code");
        }
    }
}

/// The files and folders that Markdown links to exist.
#[test]
fn every_link_of_the_docs_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = vec![];
    lines(&root.join("docs"), &mut all);
    let readme = fs::read_to_string(root.join("README.md")).unwrap();
    all.extend(readme.lines().enumerate().map(|(at, line)| ("README.md".to_string(), at + 1, line.to_string())));
    let mut dead = vec![];
    for (path, number, line) in &all {
        for (at, _) in line.match_indices("](") {
            let target = line[at + 2..].split(')').next().unwrap().split('#').next().unwrap();
            let is_file = !target.is_empty() && !target.contains("://");
            let folder = root.join(path).parent().unwrap().to_path_buf();
            if is_file && !folder.join(target).exists() {
                dead.push(format!("{path}:{number}: {target}"));
            }
        }
    }
    assert!(dead.is_empty(), "{}", dead.join("\n"));
}

/// The table of reserved names is the one that users read.
#[test]
fn the_docs_list_what_is_reserved() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = fs::read_to_string(root.join("docs/pod-template.md")).unwrap();
    let names = reserved::volumes().chain(reserved::CONTAINERS).chain(reserved::folders());
    let missing: Vec<_> = names.filter(|name| !text.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "{missing:?}");
}
