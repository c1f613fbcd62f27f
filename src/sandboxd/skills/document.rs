//! A `SKILL.md`, as far as it matters here: the type of sandbox that the skill runs in, and the skill's priority.
//!
//! It is read line by line, as the framework reads it. Other people write these files for other programs, and much of what they write
//! is not YAML. So every text can be parsed; at worst it does not name a type.

/// The key that names the type of sandbox.
pub const KEY: &str = "should_run_in_sandbox";

/// The contents of a `SKILL.md`.
#[derive(Debug, PartialEq, Eq)]
pub struct Document {
    /// The type of sandbox that the skill runs in.
    pub sandbox: Option<String>,
    /// The priority: the lowest comes first. A skill without a priority comes last.
    pub priority: i64,
}

impl Document {
    /// Parses a `SKILL.md`. Bytes that are not UTF-8 cannot be part of what matters.
    pub fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let text = text.trim_start_matches('\u{feff}');
        Self { sandbox: front_matter(text).and_then(sandbox), priority: priority(text).unwrap_or(i64::MAX) }
    }
}

/// The text between `---` on the first line and the next `---`.
fn front_matter(text: &str) -> Option<&str> {
    let mut lines = text.split_inclusive('\n');
    let first = lines.next().filter(|line| line.trim_end() == "---")?;
    let mut end = first.len();
    for line in lines {
        if line.trim_end() == "---" {
            return Some(&text[first.len()..end]);
        }
        end += line.len();
    }
    None
}

/// The first value of the key at the first level. It may be on the next line with content, which is then indented.
fn sandbox(front_matter: &str) -> Option<String> {
    let mut lines = front_matter.lines();
    let value = lines.find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (unquoted(key.trim_end()) == KEY).then(|| scalar(value))
    })?;
    if !value.is_empty() && !begins_a_block(value) {
        return Some(value.to_string());
    }
    lines
        .find(|line| !scalar(line).is_empty())
        .filter(|line| line.starts_with([' ', '\t']))
        .map(|line| scalar(line).into())
}

/// Whether the value is on the lines below: `|`, `>-` and so on.
fn begins_a_block(value: &str) -> bool {
    value.strip_prefix(['|', '>']).is_some_and(|rest| rest.chars().all(|c| matches!(c, '+' | '-' | '1'..='9')))
}

/// A value without its comment and quotes.
fn scalar(text: &str) -> &str {
    let text = text.trim();
    let mut signs = text.match_indices('#').map(|(at, _)| &text[..at]);
    let comment = signs.find(|before| before.is_empty() || before.ends_with(char::is_whitespace));
    unquoted(comment.unwrap_or(text).trim_end()).trim()
}

fn unquoted(text: &str) -> &str {
    let within = |quote| text.strip_prefix(quote)?.strip_suffix(quote);
    within('"').or_else(|| within('\'')).unwrap_or(text)
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
        let document = Document::parse(text.as_bytes());
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
        for text in [
            "",
            "# X",
            "---\n---\n",
            "---\nname: x\n---\n## Priority\n",
            "## Priority\nhigh\n1",
            "---\n# x\n---",
            "---\nshould_run_in_sandbox: fuzz\n",
            "---\nshould_run_in_sandbox:\nname: x\n---\n",
            "---\nshould_run_in_sandbox: # fuzz\n---\n",
            "---\nshould_run_in_sandbox: ''\n---\n",
            "---\nshould_run_in_sandbox: |\nname: x\n---\n",
            "---\n  should_run_in_sandbox: fuzz\n---\n",
            "---\n---\nshould_run_in_sandbox: fuzz\n",
        ] {
            assert_eq!(parse(text), (None, i64::MAX), "{text:?}");
        }
    }

    #[test]
    fn text_around_the_key_need_not_be_yaml() {
        for line in [
            "description: Review: what an editor does",
            "description: \"no end",
            "\tname:\tx",
            "name: x\nname: y",
            "- a list",
            ": : :\n  - }",
            "description: |\n  should_run_in_sandbox: main",
            "\u{1}",
        ] {
            let text = format!("---\n{line}\nshould_run_in_sandbox: fuzz\nshould_run_in_sandbox: main\n---\n");
            assert_eq!(parse(&text).0.as_deref(), Some("fuzz"), "{text:?}");
        }
        let latin = b"---\ndescription: caf\xe9\nshould_run_in_sandbox: fuzz\n---\n";
        assert_eq!(Document::parse(latin).sandbox.as_deref(), Some("fuzz"));
    }

    #[test]
    fn the_value_is_read_as_yaml_has_it() {
        for value in [
            " fuzz",
            "fuzz",
            "\tfuzz ",
            " 'fuzz'",
            " \"fuzz\"",
            " fuzz # the fuzzer",
            " \"fuzz\"\t# x",
            "\n\n  fuzz",
            " |\n  fuzz",
            " >-2 # x\n\n  fuzz",
        ] {
            assert_eq!(parse(&format!("---\n{KEY}:{value}\n---\n")).0.as_deref(), Some("fuzz"), "{value:?}");
        }
        assert_eq!(parse(&format!("---\n\"{KEY}\" : fuzz\n---\n")).0.as_deref(), Some("fuzz"));
        assert_eq!(parse(&format!("---\n{KEY}: [fuzz, main]\n---\n")).0.as_deref(), Some("[fuzz, main]"));
        assert_eq!(parse(&format!("---\n{KEY}: c#\n---\n")).0.as_deref(), Some("c#"));
    }
}
