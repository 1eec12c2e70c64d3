//! Pages of `docs/reference` that are made from the command line, and what other pages say about it.

use std::{fs, path::Path};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};
use contrast_cli::{args::Cli, exit};
use contrast_testbed::reference::{command_line, environment, hold};

/// With `UPDATE_REFERENCE=1` this and the next test write the pages.
#[cfg(feature = "software-tee")]
#[test]
fn every_command_and_argument_is_in_the_reference() {
    hold("cli.md", "commands", &command_line(Cli::command()));
    hold("environment.md", "contrast", &environment(&Cli::command()));
}

#[test]
fn every_exit_code_is_in_the_reference() {
    let mut rows = Vec::<String>::new();
    for line in exit::HELP.lines().skip(1) {
        match line
            .strip_prefix("  ")
            .and_then(|line| line.split_once(' '))
        {
            Some((code, meaning)) if !code.is_empty() => {
                rows.push(format!("| {code} | {}", meaning.trim()))
            }
            _ => rows
                .last_mut()
                .expect("a code before")
                .push_str(&format!(" {}", line.trim())),
        }
    }
    let rows: String = rows.into_iter().map(|row| row + " |\n").collect();
    let table = format!("| code | meaning |\n| --- | --- |\n{rows}");
    hold("errors.md", "exit codes", &table);
}

/// All Markdown of the repository's documentation.
fn pages() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut directories = vec![root.join("docs")];
    let mut pages = vec![root.join("README.md"), root.join("ARCHITECTURE.md")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("a directory of pages") {
            let path = entry.expect("entry").path();
            match path.is_dir() {
                true => directories.push(path),
                false if path.extension().is_some_and(|extension| extension == "md") => {
                    pages.push(path)
                }
                false => {}
            }
        }
    }
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).expect("text");
        (path.display().to_string(), text)
    };
    pages.iter().map(read).collect()
}

/// The calls of `contrast` in one line of a shell script.
fn calls(line: &str) -> Vec<Vec<String>> {
    let words = shlex::split(line).unwrap_or_else(|| panic!("not a line of a shell: {line}"));
    let ends = |word: &String| {
        ["|", "||", "&&", ";", "&", ">", "2>", "<", "then", "do"].contains(&word.as_str())
    };
    let commands = words.split(ends);
    let calls = commands.filter_map(|words| {
        let substituted = words.iter().position(|word| word.ends_with("$(contrast"));
        let first = words.iter().position(|word| !comes_before_a_command(word));
        let is_contrast = |at: &usize| {
            let word = words.get(*at).map_or("", String::as_str);
            word == "contrast" || word.ends_with("/contrast")
        };
        let start = substituted.or_else(|| first.filter(is_contrast))?;
        Some(words.get(start..)?.to_vec())
    });
    calls.filter(|words| words.len() > 1).collect()
}

/// `A=b contrast`, `if contrast`: another program's argument is no command, as in `helm install contrast`.
fn comes_before_a_command(word: &str) -> bool {
    let assigns = word.contains('=') && !word.starts_with('-');
    assigns || ["sudo", "if", "while", "until", "!", "time", "exec"].contains(&word)
}

/// Lines of the shell blocks of a page; what `\` continues is one line.
fn shell_lines(page: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut in_block = false;
    for line in page.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            in_block = !in_block && (language.starts_with("sh") || language.starts_with("console"));
        } else if in_block {
            lines.push(line.trim_start().trim_start_matches("$ ").to_owned());
        }
    }
    let script = lines.join("\n").replace("\\\n", " ");
    let lines = script.lines().map(str::to_owned);
    lines.filter(|line| line.contains("contrast ")).collect()
}

#[test]
fn commands_in_blocks_of_pages_are_accepted() {
    let mut checked = 0;
    let mut refused = String::new();
    for (page, text) in pages() {
        for call in shell_lines(&text).iter().flat_map(|line| calls(line)) {
            checked += 1;
            if let Err(error) = Cli::try_parse_from(&call) {
                // What a variable holds is not known here, nor the rest of a hash.
                let unknown = call.iter().any(|word| word.contains(['$', '…']));
                if unknown && error.kind() == ErrorKind::ValueValidation {
                    continue;
                }
                let why = error.to_string();
                refused.push_str(&format!(
                    "{page}: {}\n  {}\n",
                    call.join(" "),
                    why.lines().next().unwrap_or_default()
                ));
            }
        }
    }
    assert!(refused.is_empty(), "{refused}");
    assert!(checked >= 20, "only {checked} commands were found");
}

/// In running text values are missing, so names of commands and options are compared, and nothing else.
#[test]
fn commands_and_options_in_the_text_of_pages_exist() {
    let mut root = Cli::command();
    root.build();
    let mut checked = 0;
    let mut unknown = String::new();
    for (page, text) in pages() {
        for code in text
            .split('`')
            .skip(1)
            .step_by(2)
            .filter_map(|code| code.strip_prefix("contrast "))
        {
            checked += 1;
            let mut command = &root;
            for word in code.split_whitespace() {
                let name = word
                    .trim_start_matches("--")
                    .split('=')
                    .next()
                    .unwrap_or_default();
                let is_option = word.starts_with("--") && !name.is_empty();
                let known = command
                    .get_arguments()
                    .any(|argument| argument.get_long() == Some(name))
                    || name == "help"
                    || name == "version";
                if is_option && !known {
                    unknown.push_str(&format!("{page}: `contrast {code}`: {word}\n"));
                }
                if !is_option && command.has_subcommands() {
                    match command.find_subcommand(word) {
                        Some(subcommand) => command = subcommand,
                        None if word.starts_with(|first: char| first.is_ascii_lowercase()) => {
                            unknown.push_str(&format!("{page}: `contrast {code}`: {word}\n"));
                        }
                        None => {}
                    }
                }
            }
        }
    }
    assert!(unknown.is_empty(), "{unknown}");
    assert!(checked >= 50, "only {checked} mentions were found");
}
