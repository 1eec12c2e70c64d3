//! The book: the pages that `docs/SUMMARY.md` lists, as HTML in `target/book`, with every link and diagram checked.
//!
//! Pages keep their place in the repository, so that their links work here and there. For mdBook they are laid, with what they
//! link to, into `target/book.stage`.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Component, Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail, ensure};

use crate::{process::run, tidy::find, tools, workspace_root};

const SUMMARY: &str = "docs/SUMMARY.md";
/// The first page. It moves one directory up, because mdBook shows it again as the root of the book.
const FIRST: &str = "docs/README.md";
/// Markdown that is no page of the book, and has its links checked too.
const OUTSIDE: [&str; 2] = ["README.md", SUMMARY];

/// Directories whose files pages name.
const SOURCES: [&str; 16] = [
    "cli",
    "coordinator",
    "crates",
    "deploy",
    "docs",
    "e2e",
    "fuzz",
    "initializer",
    "model",
    "node-installer",
    "port-forwarder",
    "proto",
    "service-mesh",
    "sim",
    "web",
    "xtask",
];

/// Builds `target/book`. What mdBook warns about, a broken link, a diagram that cannot be drawn and a page that nobody finds are errors.
pub(crate) fn build() -> Result<()> {
    let root = workspace_root();
    check_summary(&root)?;
    let tools = tools::book_tools()?;
    let pages = pages(&root)?;
    let (stage, book) = (root.join("target/book.stage"), root.join("target/book"));
    for directory in [&stage, &book] {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
    }
    lay_out(&root, &pages, &stage)?;
    copy(&tools.mermaid, &stage.join("src/mermaid.min.js"))?;
    render(&tools.mdbook, &stage, &book)?;

    let markdown = OUTSIDE
        .iter()
        .map(PathBuf::from)
        .chain(pages.iter().cloned());
    check_links(&tools.lychee, &root, markdown)?;
    check_links(&tools.lychee, &book, [PathBuf::from(".")].into_iter())?;
    let is_html = |path: &Path| {
        path.extension()
            .is_some_and(|extension| extension == "html")
    };
    check_loads_nothing(&find(&book, &is_html)?)?;
    check_diagrams(&root, &pages, &book)
}

/// Every page of `docs` is in the summary, once, and everything in the summary is there.
pub(crate) fn check_summary(root: &Path) -> Result<()> {
    let mut listed = BTreeSet::new();
    for page in pages(root)? {
        ensure!(
            root.join(&page).is_file(),
            "{SUMMARY} lists {}, which is not there",
            page.display()
        );
        ensure!(
            !listed.contains(&page),
            "{SUMMARY} lists {} twice",
            page.display()
        );
        listed.insert(page);
    }
    let is_page = |path: &Path| path.extension().is_some_and(|extension| extension == "md");
    for page in find(&root.join("docs"), &is_page)? {
        check_named_files(root, &page)?;
        let page = page.strip_prefix(root)?;
        ensure!(
            page == Path::new(SUMMARY) || listed.contains(page),
            "nobody finds {}: add it to {SUMMARY}",
            page.display()
        );
    }
    Ok(())
}

/// What a page names as a file of the repository is there: `crates/…`, `e2e/…`, as code and as a whole.
fn check_named_files(root: &Path, page: &Path) -> Result<()> {
    let text = fs::read_to_string(page)?;
    for code in text.split('`').skip(1).step_by(2) {
        let is_path = code
            .chars()
            .all(|character| character.is_ascii_alphanumeric() || "_-./".contains(character));
        let directory = code.split_once('/').map(|(directory, _)| directory);
        let of_sources = directory.is_some_and(|directory| SOURCES.contains(&directory));
        ensure!(
            !(is_path && of_sources) || root.join(code).exists(),
            "{} names `{code}`, which is not there",
            page.display()
        );
    }
    Ok(())
}

/// The pages of the book, relative to the root, in their order.
fn pages(root: &Path) -> Result<Vec<PathBuf>> {
    let summary = fs::read_to_string(root.join(SUMMARY)).context(SUMMARY)?;
    links(&summary)
        .map(|link| resolve(Path::new("docs"), link))
        .collect()
}

fn lay_out(root: &Path, pages: &[PathBuf], stage: &Path) -> Result<()> {
    let source = stage.join("src");
    fs::create_dir_all(&source)?;
    for name in ["book.toml", "diagrams.js"] {
        copy(&root.join("docs").join(name), &stage.join(name))?;
    }
    let summary = fs::read_to_string(root.join(SUMMARY))?;
    fs::write(
        source.join("SUMMARY.md"),
        relink(&summary, true)?.replace("](docs/index.md)", "](index.md)"),
    )?;
    for page in pages {
        let text =
            fs::read_to_string(root.join(page)).with_context(|| page.display().to_string())?;
        let directory = page.parent().unwrap_or_else(|| Path::new(""));
        for link in links(&text).filter(|link| !link.contains("://")) {
            let linked = resolve(directory, link)?;
            let is_page = linked
                .extension()
                .is_some_and(|extension| extension == "md");
            if is_page || !root.join(&linked).exists() {
                continue;
            }
            for file in files(&root.join(&linked))? {
                copy(&file, &source.join(file.strip_prefix(root)?))?;
            }
        }
        let moves = page == Path::new(FIRST);
        let mut place = source.join(if moves { Path::new("README.md") } else { page });
        if place.ends_with("README.md") {
            place.set_file_name("index.md");
        }
        fs::create_dir_all(place.parent().context("a page has a directory")?)?;
        fs::write(place, relink(&text, moves)?)?;
    }
    Ok(())
}

/// What relative links point to; fragments are cut, and links within the page left out.
fn links(markdown: &str) -> impl Iterator<Item = &str> {
    let behind = markdown.split("](").skip(1);
    let targets = behind
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target);
    targets
        .map(|target| target.split_once('#').map_or(target, |(path, _)| path))
        .filter(|path| !path.is_empty())
}

/// The text of a page in `directory` with its links as mdBook needs them: it calls the page of a directory index, and the
/// links that were relative to `docs` start at the root when the page `moves` there.
fn relink(markdown: &str, moves: bool) -> Result<String> {
    let mut parts = markdown.split("](");
    let mut relinked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        relinked.push_str("](");
        let (path, rest) = part.split_at(part.find([')', '#']).unwrap_or(part.len()));
        if !path.ends_with(".md") || path.contains("://") {
            relinked.push_str(part);
            continue;
        }
        let mut path = match moves {
            true => resolve(Path::new("docs"), path)?,
            false => PathBuf::from(path),
        };
        if path.ends_with("README.md") {
            path.set_file_name("index.md");
        }
        relinked.push_str(&path.to_string_lossy());
        relinked.push_str(rest);
    }
    Ok(relinked)
}

/// `link`, as it stands in a page in `directory`, from the root.
fn resolve(directory: &Path, link: &str) -> Result<PathBuf> {
    let mut resolved = PathBuf::new();
    for component in directory.join(link).components() {
        match component {
            Component::Normal(name) => resolved.push(name),
            Component::CurDir => {}
            Component::ParentDir if resolved.pop() => {}
            _ => bail!(
                "the link {link} in {} leaves the repository",
                directory.display()
            ),
        }
    }
    Ok(resolved)
}

fn files(path: &Path) -> Result<Vec<PathBuf>> {
    match path.is_dir() {
        true => find(path, &|_| true),
        false => Ok(vec![path.to_owned()]),
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to.parent().context("a file has a directory")?)?;
    fs::copy(from, to).with_context(|| format!("cannot copy {}", from.display()))?;
    Ok(())
}

fn render(mdbook: &Path, stage: &Path, book: &Path) -> Result<()> {
    let mut command = Command::new(mdbook);
    command.arg("build").arg("--dest-dir").arg(book).arg(stage);
    let output = command.output().context("cannot start mdbook")?;
    let said = String::from_utf8_lossy(&output.stderr);
    let bad = |line: &&str| line.contains("WARN") || line.contains("ERROR");
    let complaints: Vec<&str> = said.lines().filter(bad).collect();
    ensure!(
        output.status.success() && complaints.is_empty(),
        "mdbook ended with {}:\n{said}",
        output.status
    );
    Ok(())
}

/// Links between files, and to headings in them. Nobody outside is asked.
fn check_links(
    lychee: &Path,
    directory: &Path,
    files: impl Iterator<Item = PathBuf>,
) -> Result<()> {
    let mut command = Command::new(lychee);
    command
        .args([
            "--offline",
            "--include-fragments",
            "--no-progress",
            "--quiet",
            // The page for printing repeats all others, the other two have no place from which a link could be followed.
            "--exclude-path",
            "(print|toc|404)[.]html$",
        ])
        .args(files)
        .current_dir(directory);
    run(command).context("broken links")
}

/// A page that loads something from elsewhere would tell others who reads it, and breaks without them.
fn check_loads_nothing(html: &[PathBuf]) -> Result<()> {
    for page in html {
        let text = fs::read_to_string(page)?;
        let tags = text
            .split('<')
            .map(|tag| tag.split('>').next().unwrap_or_default());
        for tag in tags {
            let loads = ["script ", "link ", "img ", "iframe ", "source "]
                .iter()
                .any(|name| tag.starts_with(name));
            ensure!(
                !loads || !tag.contains("//"),
                "{} loads from elsewhere: <{tag}>",
                page.display()
            );
        }
    }
    Ok(())
}

/// Chromium draws each page that has diagrams, if it is there.
#[expect(clippy::print_stderr, reason = "a note for the person at the terminal")]
fn check_diagrams(root: &Path, pages: &[PathBuf], book: &Path) -> Result<()> {
    let mut expected = BTreeMap::new();
    for page in pages {
        let diagrams = fs::read_to_string(root.join(page))?
            .matches("\n```mermaid\n")
            .count();
        if diagrams > 0 {
            expected.insert(page, diagrams);
        }
    }
    ensure!(
        !expected.is_empty(),
        "no page has a diagram: this check is broken"
    );
    for (page, diagrams) in expected {
        let shown = book.join(page.to_string_lossy().replace("README.md", "index.md"));
        let shown = shown.with_extension("html");
        let mut chromium = Command::new("chromium");
        chromium
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--enable-logging=stderr",
                "--virtual-time-budget=20000",
                "--dump-dom",
            ])
            .arg(format!("file://{}", shown.display()));
        let Ok(output) = chromium.output() else {
            eprintln!("note: no chromium, so nobody looked whether the diagrams can be drawn");
            return Ok(());
        };
        let dom = String::from_utf8_lossy(&output.stdout);
        let drawn = dom.matches("<svg id=\"mermaid-").count();
        let refused = dom.matches("aria-roledescription=\"error\"").count();
        ensure!(
            drawn == diagrams && refused == 0,
            "{}: {} of {diagrams} diagrams were drawn. The browser says:\n{}",
            page.display(),
            drawn.saturating_sub(refused),
            console(&String::from_utf8_lossy(&output.stderr))
        );
    }
    Ok(())
}

/// What the page wrote to the browser's console, which may be several lines; the highlighter does not know Mermaid, and says so.
fn console(log: &str) -> String {
    let messages = log.split(":CONSOLE:").skip(1);
    let messages = messages.filter(|message| !message.contains("highlight"));
    messages.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::expect_used, reason = "tests may panic")]
    use super::*;

    #[test]
    fn links_keep_what_they_point_to() {
        let page =
            "[a](b.md) and [c](../model/README.md#e), [f](#g), [h](https://i/j.md), [k](l.json)";
        assert_eq!(
            relink(page, true).expect("links"),
            "[a](docs/b.md) and [c](model/index.md#e), [f](#g), [h](https://i/j.md), [k](l.json)"
        );
        assert_eq!(
            relink(page, false).expect("links"),
            "[a](b.md) and [c](../model/index.md#e), [f](#g), [h](https://i/j.md), [k](l.json)"
        );
    }

    #[test]
    fn a_link_out_of_the_repository_is_refused() {
        resolve(Path::new("docs"), "../../x.md").expect_err("it leaves the repository");
        assert_eq!(
            resolve(Path::new("docs/a"), "../../x.md").expect("inside"),
            Path::new("x.md")
        );
    }
}
