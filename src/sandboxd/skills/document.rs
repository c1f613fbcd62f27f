//! A `SKILL.md`, as far as it matters here: the type of sandbox that the skill runs in, and the skill's priority.

use serde::Deserialize;

/// The contents of a `SKILL.md`.
#[derive(Debug, PartialEq, Eq)]
pub struct Document {
    /// The type of sandbox that the skill runs in.
    pub sandbox: Option<String>,
    /// The priority: the lowest comes first. A skill without a priority comes last.
    pub priority: i64,
}

#[derive(Default, Deserialize)]
struct FrontMatter {
    should_run_in_sandbox: Option<String>,
}

impl Document {
    /// Parses a `SKILL.md`.
    ///
    /// # Errors
    /// What is wrong with the front matter.
    pub fn parse(text: &str) -> Result<Self, String> {
        let text = text.trim_start_matches('\u{feff}');
        let FrontMatter { should_run_in_sandbox } = match front_matter(text)? {
            // `---` with nothing in between is not a YAML document.
            Some(yaml) if !yaml.trim().is_empty() => serde_yaml::from_str(yaml).map_err(|error| error.to_string())?,
            Some(_) | None => FrontMatter::default(),
        };
        Ok(Self { sandbox: should_run_in_sandbox, priority: priority(text).unwrap_or(i64::MAX) })
    }
}

/// The text between `---` on the first line and the next `---`.
fn front_matter(text: &str) -> Result<Option<&str>, String> {
    let mut lines = text.split_inclusive('\n');
    let Some(first) = lines.next().filter(|line| line.trim_end() == "---") else { return Ok(None) };
    let mut end = first.len();
    for line in lines {
        if line.trim_end() == "---" {
            return Ok(Some(&text[first.len()..end]));
        }
        end += line.len();
    }
    Err("its front matter has no end".into())
}

/// The number below the heading.
fn priority(text: &str) -> Option<i64> {
    let mut lines = text.lines().map(str::trim).skip_while(|line| !line.eq_ignore_ascii_case("## priority")).skip(1);
    lines.find(|line| !line.is_empty())?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> (Option<String>, i64) {
        let document = Document::parse(text).unwrap();
        (document.sandbox, document.priority)
    }

    #[test]
    fn a_document_says_where_and_when() {
        let text = "---\nname: afl\ndescription: >\n  many\n  lines\nshould_run_in_sandbox: fuzz\nreturns_json: true\n---\n\
                    # AFL\n\n## Priority\n\n  3 (early)\n\n## Requires Sandbox\nmain\n";
        assert_eq!(parse(text), (Some("fuzz".into()), 3));
        assert_eq!(parse(&text.replace('\n', "\r\n")), (Some("fuzz".into()), 3));
        assert_eq!(parse(&format!("\u{feff}{text}")), (Some("fuzz".into()), 3));
    }

    #[test]
    fn who_says_nothing_runs_nowhere_and_comes_last() {
        for text in
            ["", "# X", "---\n---\n", "---\nname: x\n---\n## Priority\n", "## Priority\nhigh\n1", "---\n# x\n---"]
        {
            assert_eq!(parse(text), (None, i64::MAX), "{text:?}");
        }
    }

    #[test]
    fn what_cannot_be_understood_is_not_guessed_at() {
        for (text, expected) in [
            ("---\nname: x\n", "its front matter has no end"),
            ("---\nshould_run_in_sandbox: [a]\n---\n", "should_run_in_sandbox: invalid type"),
            ("---\n: : :\n  - }\n---\n", ""),
            ("---\n- a list\n---\n", "invalid type"),
        ] {
            let error = Document::parse(text).unwrap_err();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
