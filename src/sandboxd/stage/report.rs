//! The output of the stage Pod: a line per source in its log, and a report in its termination message.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::Tally;
use crate::protocol::staging::{Source, Staged, StagingReport, Volume};

/// The kubelet keeps at most this many bytes of a termination message.
const LIMIT: usize = 4096;

/// Stands for the part that was left out.
const ELLIPSIS: char = '…';

/// The report as JSON, shortened to what a termination message can hold: a message loses its end, a list of folders its last
/// entries.
pub fn text(mut report: StagingReport) -> String {
    if let StagingReport::Staged { volumes } = &mut report {
        // There may be very many entries: those that cannot fit in any case are removed at once, the others step by step.
        lists(volumes).for_each(|list| cut(list, LIMIT));
    }
    loop {
        let text = serde_json::to_string(&report).unwrap_or_default();
        if text.len() <= LIMIT || !shorten(&mut report, text.len() - LIMIT) {
            return text;
        }
    }
}

/// Removes at most `excess` bytes from the report; `false` if nothing more can be removed.
fn shorten(report: &mut StagingReport, excess: usize) -> bool {
    match report {
        StagingReport::Failed { message, fault: _ } => {
            if message.ends_with(ELLIPSIS) {
                message.pop();
            }
            // A character may take six bytes in JSON, and several bytes in the message.
            for _ in 0..=excess / 6 {
                message.pop();
            }
            message.push(ELLIPSIS);
            true
        }
        StagingReport::Staged { volumes } => {
            let longest = lists(volumes).max_by_key(|list| size_of(list));
            let Some(list) = longest.filter(|list| !is_cut_to_nothing(list)) else { return false };
            let size = size_of(list);
            cut(list, size - 1);
            true
        }
    }
}

fn lists(volumes: &mut BTreeMap<String, Staged>) -> impl Iterator<Item = &mut Vec<String>> {
    volumes.values_mut().flat_map(|staged| [&mut staged.roots, &mut staged.skills])
}

fn is_cut_to_nothing(list: &[String]) -> bool {
    list.first().is_none_or(|first| first.chars().eq([ELLIPSIS]))
}

/// The minimum length of a list in JSON.
fn size_of(list: &[String]) -> usize {
    list.iter().map(|name| name.len() + 3).sum()
}

/// Removes the last entries of a list until it is no longer than `limit`.
fn cut(list: &mut Vec<String>, limit: usize) {
    let mut size = size_of(list);
    if size <= limit {
        return;
    }
    let left_out = ELLIPSIS.to_string();
    if list.last() == Some(&left_out) {
        list.pop();
    } else {
        size += size_of(std::slice::from_ref(&left_out));
    }
    while size > limit
        && let Some(last) = list.pop()
    {
        size -= size_of(&[last]);
    }
    list.push(left_out);
}

/// The line about one source: `data: configMap poc -> poc: 3 files, 1.2 KB`.
pub fn line(volume: &Volume, source: &Source, tally: Tally) -> String {
    let Tally { written, bytes, same, kept } = tally;
    let path = if source.path.is_empty() { "." } else { &source.path };
    let files = if written == 1 { "file" } else { "files" };
    let mut line = format!("{}: {} -> {path}: {written} {files}, {}", volume.name, source.description, size(bytes));
    if same > 0 {
        let _ = write!(line, ", {same} there already");
    }
    if kept > 0 {
        let _ = write!(line, ", {kept} kept as they were");
    }
    line
}

/// A number of bytes in readable form.
pub fn size(bytes: u64) -> String {
    if bytes < 1000 {
        return format!("{bytes} B");
    }
    let mut tenths = bytes / 100;
    for unit in ["KB", "MB", "GB"] {
        if tenths < 10_000 {
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
        tenths /= 1000;
    }
    format!("{}.{} TB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::staging::{Access, Fault};

    fn tools(roots: Vec<String>, skills: Vec<String>) -> StagingReport {
        StagingReport::Staged {
            volumes: BTreeMap::from([("tools".to_owned(), Staged { files: 7, kept: 1, roots, skills })]),
        }
    }

    fn many(name: &str, count: usize) -> Vec<String> {
        (0..count).map(|number| format!("{name}-{number}")).collect()
    }

    fn read(text: &str) -> Staged {
        let StagingReport::Staged { mut volumes } = serde_json::from_str(text).unwrap() else { panic!("{text}") };
        volumes.remove("tools").unwrap()
    }

    #[test]
    fn a_short_report_is_left_whole() {
        for report in [
            tools(vec!["fuzz".into()], vec!["fuzz/afl".into()]),
            StagingReport::Failed { message: "no \"space\" left".into(), fault: Fault::Source },
            StagingReport::Failed { message: "closed".into(), fault: Fault::Root("data".into()) },
        ] {
            assert_eq!(serde_json::from_str::<StagingReport>(&text(report.clone())).unwrap(), report);
        }
    }

    #[test]
    fn a_long_message_keeps_its_beginning_and_stays_valid() {
        for letter in ["a", "ä", "\u{1}", "\"", "🦀"] {
            let report = |message| StagingReport::Failed { message, fault: Fault::Folder("data".into()) };
            let text = text(report(format!("image x: {}", letter.repeat(9000))));
            assert!(text.len() <= LIMIT, "{} bytes", text.len());
            assert!(text.len() > LIMIT - 16, "{letter}: only {} bytes", text.len());
            let StagingReport::Failed { message, fault } = serde_json::from_str(&text).unwrap() else {
                panic!("{text}")
            };
            assert_eq!(fault, Fault::Folder("data".into()));
            assert!(message.starts_with("image x: ") && message.ends_with(ELLIPSIS));
        }
    }

    #[test]
    fn a_long_list_of_roots_keeps_its_first_ones_and_says_that_there_are_more() {
        let text = text(tools(many("root", 1000), vec![]));
        assert!(text.len() <= LIMIT && text.len() > LIMIT - 32, "{} bytes", text.len());
        let staged = read(&text);
        assert_eq!((staged.files, staged.kept), (7, 1));
        assert_eq!(staged.roots[0], "root-0");
        assert_eq!(staged.roots.last().unwrap(), "…");
    }

    #[test]
    fn many_skills_leave_the_few_roots_alone_and_are_cut_likewise() {
        let text = text(tools(many("root", 20), many("root/skill", 100_000)));
        assert!(text.len() <= LIMIT && text.len() > LIMIT - 48, "{} bytes", text.len());
        let staged = read(&text);
        assert_eq!(staged.roots, many("root", 20));
        assert_eq!((staged.skills[0].as_str(), staged.skills.last().unwrap().as_str()), ("root/skill-0", "…"));
    }

    #[test]
    fn names_of_any_length_fit() {
        for letter in ["a", "ä", "\u{1}", "\""] {
            let long = vec![letter.repeat(5000), letter.repeat(300)];
            let text = text(tools(long.clone(), long));
            assert!(text.len() <= LIMIT, "{} bytes of {letter:?}", text.len());
            assert_eq!(read(&text).roots, ["…"]);
        }
    }

    #[test]
    fn a_failure_from_before_there_were_faults_is_one_of_a_source() {
        let report = StagingReport::Failed { message: "bad".into(), fault: Fault::Source };
        assert_eq!(text(report.clone()), r#"{"outcome":"failed","message":"bad"}"#);
        assert_eq!(serde_json::from_str::<StagingReport>(&text(report.clone())).unwrap(), report);
    }

    #[test]
    fn a_report_from_before_there_were_skills_is_read() {
        assert_eq!(read(r#"{"outcome":"staged","volumes":{"tools":{"files":1,"kept":0}}}"#).skills, [""; 0]);
    }

    #[test]
    fn a_line_reports_what_became_of_a_source() {
        let source = Source { description: "configMap poc".into(), mount_path: "/s".into(), path: "poc".into() };
        let volume = Volume {
            name: "data".into(),
            mount_path: "/v".into(),
            access: Access::Write,
            sources: vec![],
            top_roots: None,
            optional_roots: <_>::default(),
            restored: None,
        };
        let tally = Tally { written: 3, bytes: 1234, same: 0, kept: 0 };
        assert_eq!(line(&volume, &source, tally), "data: configMap poc -> poc: 3 files, 1.2 KB");
        let tally = Tally { written: 1, bytes: 9, same: 2, kept: 4 };
        let expected = "data: configMap poc -> .: 1 file, 9 B, 2 there already, 4 kept as they were";
        assert_eq!(line(&volume, &Source { path: String::new(), ..source }, tally), expected);
    }

    #[test]
    fn sizes_are_rounded_down_to_one_digit() {
        let sizes = [0, 999, 1000, 999_999, 1_000_000, 1_550_000_000, 12_000_000_000_000].map(size);
        assert_eq!(sizes, ["0 B", "999 B", "1.0 KB", "999.9 KB", "1.0 MB", "1.5 GB", "12.0 TB"]);
    }
}
