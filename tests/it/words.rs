//! The words of this project: what the field has a word for is called by it.

use std::{fs, path::Path};

use regex::Regex;

/// Words that were replaced, by what replaced them. Reasons, labels, keys of JSON, fields of logs and names of metrics are not words.
const REPLACED: [(&str, &str); 30] = [
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
    (r"takes? in", "observe"),
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
];

/// What is not prose: code names that stay, and what is compared or hashed elsewhere.
const EXEMPT: [&str; 2] = [r#""is let in""#, "`is let in`"];

fn lines(folder: &Path, found: &mut Vec<(String, usize, String)>) {
    let mut entries: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() {
            lines(&path, found);
        } else if path
            .extension()
            .is_some_and(|end| ["rs", "md", "yaml", "txt", "tpl"].contains(&end.to_str().unwrap()))
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
    for folder in ["src", "docs", "charts"] {
        lines(&root.join(folder), &mut all);
    }
    for file in ["README.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root.join(file)).unwrap_or_default();
        all.extend(text.lines().enumerate().map(|(at, line)| (file.to_string(), at + 1, line.to_string())));
    }
    let words: Vec<_> =
        REPLACED.iter().map(|(word, say)| (Regex::new(&format!(r"(?i)\b{word}\b")).unwrap(), say)).collect();
    let mut wrong = vec![];
    for (file, at, line) in all {
        // The names of tests are no prose; docs refer to them.
        if EXEMPT.iter().any(|exempt| line.contains(exempt))
            || line.trim_start().starts_with("fn ")
            || line.trim_start().starts_with("async fn ")
        {
            continue;
        }
        let names = Regex::new(r"`\w+`").unwrap();
        let prose = names.replace_all(&line, "");
        for (word, say) in &words {
            if word.is_match(&prose) {
                wrong.push(format!("{file}:{at}: {} (say: {say})", line.trim()));
            }
        }
    }
    assert!(wrong.is_empty(), "{} lines\n{}", wrong.len(), wrong.join("\n"));
}
