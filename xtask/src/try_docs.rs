//! Types what a page says, and compares what is printed with what the page shows.
//!
//! All blocks ` ```sh ` of a page run in one shell, in order, from the root of the repository, as a reader would type them; the first that
//! fails ends it. ` ```sh,fails ` is a command that must fail, by itself and not because there is no such program. A ` ```text ` block
//! that follows is what is printed; `...` stands for any text, and alone in a line for any lines. ` ```sh,cluster ` needs what is not
//! here, and is only listed.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::{tidy::find, workspace_root};

/// Pages that are typed unless others are named.
const PAGES: [&str; 1] = ["docs/tutorial/first-deployment.md"];
/// Begins the line that tells one block's output from the next one's.
const MARK: &str = "=== block of line";
/// A page that hangs.
const SECONDS: &str = "180";
const ANY: &str = "...";
/// What follows a block that must fail. 126 and 127 are bash's own: it could not run the command, or did not find it.
const MUST_HAVE_FAILED: &str = "case $? in \
    0) echo 'expected a failure, and it succeeded'; exit 1 ;; \
    126 | 127) echo 'expected a failure, and the command cannot be run'; exit 1 ;; \
    esac";

/// Types `pages`, or those that are typed by default.
#[expect(
    clippy::print_stderr,
    reason = "a task that tells a person what it does"
)]
pub(crate) fn try_pages(pages: &[PathBuf]) -> Result<()> {
    let default = PAGES.map(PathBuf::from);
    let chosen = if pages.is_empty() { &default } else { pages };
    for page in chosen {
        let text = fs::read_to_string(workspace_root().join(page))
            .with_context(|| page.display().to_string())?;
        let (here, elsewhere): (Vec<Block>, Vec<Block>) = blocks(&text)
            .into_iter()
            .partition(|block| !block.elsewhere);
        for block in elsewhere {
            eprintln!(
                "not typed, because it needs a cluster: {}:{}",
                page.display(),
                block.line
            );
        }
        ensure!(!here.is_empty(), "{} has nothing to type", page.display());
        type_blocks(&here).with_context(|| page.display().to_string())?;
        eprintln!(
            "{}: {} blocks do what the page says",
            page.display(),
            here.len()
        );
    }
    let (mut others, mut untyped) = (0, 0);
    let root = workspace_root();
    for page in find(&root.join("docs"), &|path| {
        path.extension().is_some_and(|extension| extension == "md")
    })? {
        let count = blocks(&fs::read_to_string(&page)?).len();
        if count > 0 && !chosen.iter().any(|typed| root.join(typed) == page) {
            others += 1;
            untyped += count;
        }
    }
    eprintln!(
        "not typed: {untyped} blocks of {others} other pages. What they say of `contrast` is compared with its command line by a test"
    );
    Ok(())
}

#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// Where it begins in the page.
    line: usize,
    script: String,
    fails: bool,
    elsewhere: bool,
    /// What it prints, if the page says so.
    shown: Option<String>,
}

fn blocks(page: &str) -> Vec<Block> {
    let mut blocks = Vec::<Block>::new();
    let mut lines = page.lines().zip(1..);
    // Text is a block's output only if nothing but empty lines stands between.
    let mut follows = false;
    while let Some((line, number)) = lines.next() {
        let Some(language) = line.strip_prefix("```") else {
            follows &= line.is_empty();
            continue;
        };
        let inside = lines
            .by_ref()
            .map(|(line, _)| line)
            .take_while(|line| *line != "```");
        let content: String = inside.map(|line| format!("{line}\n")).collect();
        let mut words = language.split(',');
        match words.next() {
            Some("sh") => {
                let says: Vec<&str> = words.collect();
                blocks.push(Block {
                    line: number,
                    script: content,
                    fails: says.contains(&"fails"),
                    elsewhere: says.contains(&"cluster"),
                    shown: None,
                });
                follows = true;
            }
            Some("text") if follows => {
                if let Some(block) = blocks.last_mut() {
                    block.shown = Some(content);
                }
                follows = false;
            }
            _ => follows = false,
        }
    }
    blocks
}

fn script(blocks: &[Block]) -> String {
    let mut script = "set -euo pipefail\n".to_owned();
    for Block {
        line,
        script: typed,
        fails,
        ..
    } in blocks
    {
        script.push_str(&format!("printf '\\n{MARK} {line}\\n'\n"));
        match fails {
            false => script.push_str(typed),
            true => script.push_str(&format!("set +e\n{typed}{MUST_HAVE_FAILED}\nset -e\n")),
        }
    }
    script
}

fn type_blocks(blocks: &[Block]) -> Result<()> {
    let root = workspace_root();
    let directory = root.join("target/try-docs");
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    let (typed, printed) = (directory.join("typed.sh"), directory.join("printed"));
    fs::write(&typed, script(blocks))?;
    let output = File::create(&printed)?;
    // A group of its own, because a page may leave programs running.
    let mut shell = Command::new("timeout")
        .args(["--kill-after=5", SECONDS, "bash"])
        .arg(&typed)
        .env("TMPDIR", &directory)
        .current_dir(&root)
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()
        .context("cannot start `timeout bash`")?;
    let group = shell.id();
    let status = shell.wait()?;
    // Nobody may be left, and then this fails.
    let _ = Command::new("kill")
        .args(["--", &format!("-{group}")])
        .stderr(Stdio::null())
        .status();
    let printed = fs::read_to_string(&printed).context("what was printed is no UTF-8")?;
    compare(blocks, &printed)?;
    ensure!(
        status.success(),
        "the shell ended with {status} after:\n{}",
        tail(&printed)
    );
    fs::remove_dir_all(&directory)?;
    Ok(())
}

fn compare(blocks: &[Block], printed: &str) -> Result<()> {
    for block in blocks {
        let mark = format!("\n{MARK} {}\n", block.line);
        let Some((_, after)) = printed.split_once(&mark) else {
            // The shell ended before, and says why.
            return Ok(());
        };
        let next = format!("\n{MARK} ");
        let (found, complete) = match after.split_once(&next) {
            Some((found, _)) => (found, true),
            None => (after, false),
        };
        if let Some(shown) = &block.shown {
            let last = blocks.last().is_some_and(|last| last.line == block.line);
            ensure!(
                matches(shown, found) || (!complete && !last),
                "the block of line {} prints something else.\nexpected:\n{shown}\nfound:\n{found}",
                block.line
            );
        }
    }
    Ok(())
}

fn matches(shown: &str, found: &str) -> bool {
    let lines = |text: &str| -> Vec<String> {
        text.trim_end()
            .lines()
            .map(|line| line.trim_end().to_owned())
            .collect()
    };
    matches_lines(&lines(shown), &lines(found))
}

fn matches_lines(shown: &[String], found: &[String]) -> bool {
    match (shown.split_first(), found.split_first()) {
        (None, rest) => rest.is_none(),
        (Some((first, others)), _) if first == ANY => (0..=found.len()).any(|skipped| {
            found
                .get(skipped..)
                .is_some_and(|rest| matches_lines(others, rest))
        }),
        (Some((first, others)), Some((line, rest))) => {
            matches_line(first, line) && matches_lines(others, rest)
        }
        (Some(_), None) => false,
    }
}

fn matches_line(shown: &str, found: &str) -> bool {
    let Some((before, after)) = shown.split_once(ANY) else {
        return shown == found;
    };
    let Some(rest) = found.strip_prefix(before) else {
        return false;
    };
    let mut places = rest
        .char_indices()
        .map(|(place, _)| place)
        .chain([rest.len()]);
    places.any(|place| matches_line(after, rest.split_at(place).1))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let from = lines.len().saturating_sub(40);
    lines.get(from..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_text_and_any_lines_match_and_nothing_else() {
        for (shown, found) in [
            ("a\n", "a\n"),
            ("a ... c", "a b c"),
            ("...\nb", "a\n\nb\n"),
            ("a\n...", "a"),
            ("id ..., name ...", "id 7, name x"),
        ] {
            assert!(matches(shown, found), "{shown:?} {found:?}");
        }
        for (shown, found) in [
            ("a", "b"),
            ("a", "a\nb"),
            ("a\nb", "a"),
            ("a ... c", "a b d"),
            ("...\nb", "b\nc"),
            ("", "a"),
        ] {
            assert!(!matches(shown, found), "{shown:?} {found:?}");
        }
    }

    #[test]
    fn output_belongs_to_the_block_right_before_it() {
        let page = "x\n```sh\na\n```\n\n```text\nA\n```\n```sh,fails\nb\n```\ny\n```text\nB\n```\n```sh,cluster\nc\n```\n";
        let blocks = blocks(page);
        let [first, second, third] = blocks.as_slice() else {
            unreachable!("{blocks:?}");
        };
        assert_eq!((first.line, first.shown.as_deref()), (2, Some("A\n")));
        assert!(second.fails && second.shown.is_none());
        assert!(third.elsewhere);
    }

    /// Types a page of these blocks; the error's text, if there is one.
    fn typed(page: &str) -> Option<String> {
        let blocks = blocks(page);
        let script = script(&blocks);
        let output = Command::new("bash").args(["-c", &script]).output();
        let output = output.unwrap_or_else(|error| unreachable!("{error}"));
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let compared = compare(&blocks, &printed)
            .err()
            .map(|error| error.to_string());
        compared.or_else(|| (!output.status.success()).then(|| tail(&printed)))
    }

    #[test]
    fn a_page_that_says_something_else_is_found() {
        assert_eq!(
            typed("```sh\necho a\n```\n```text\na\n```\n```sh,fails\nfalse\n```\n"),
            None
        );
        let error = typed("```sh\necho a\n```\n```text\nb\n```\n");
        assert!(error.is_some_and(|error| error.contains("line 1 prints something else")));
        let error = typed("```sh\necho a; false\n```\n```sh\necho b\n```\n");
        assert!(error.is_some_and(|error| error.ends_with("a")));
        let error = typed("```sh,fails\ntrue\n```\n");
        assert!(error.is_some_and(|error| error.contains("it succeeded")));
        for command in ["no-such-program-anywhere", "/"] {
            let error = typed(&format!("```sh,fails\n{command}\n```\n"));
            assert!(
                error.is_some_and(|error| error.contains("the command cannot be run")),
                "{command}"
            );
        }
    }
}
