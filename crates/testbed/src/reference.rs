//! Parts of `docs/reference` that are made from the programs' own definitions.

use std::{env, fs, net::SocketAddr, path::Path};

use clap::{Arg, Command};

/// Holds the part of a page of `docs/reference` between `<!-- NAME -->` and `<!-- end of NAME -->` to `expected`. With
/// `UPDATE_REFERENCE=1` it is written there.
///
/// # Panics
/// When the part is another, or the page lacks it.
pub fn hold(page: &str, name: &str, expected: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../docs/reference")
        .join(page);
    let text = fs::read_to_string(&path).expect("a page of the reference");
    let (begin, end) = (
        format!("<!-- {name} -->\n"),
        format!("<!-- end of {name} -->"),
    );
    let (before, rest) = text.split_once(&begin).expect("the part begins");
    let (found, after) = rest.split_once(&end).expect("the part ends");
    if env::var_os("UPDATE_REFERENCE").is_some() {
        fs::write(&path, format!("{before}{begin}{expected}{end}{after}")).expect("writes");
    } else {
        assert!(
            found == expected,
            "`{name}` in {} is out of date: run this test with UPDATE_REFERENCE=1",
            path.display()
        );
    }
}

/// The environment variables of a program and its subcommands, as a table.
pub fn environment(program: &Command) -> String {
    let mut rows = Vec::new();
    variables(program, &mut rows);
    rows.sort();
    rows.dedup();
    format!(
        "| variable | option | default | meaning |\n| --- | --- | --- | --- |\n{}",
        rows.concat()
    )
}

fn variables(command: &Command, rows: &mut Vec<String>) {
    for argument in command.get_arguments() {
        let Some(variable) = argument.get_env() else {
            continue;
        };
        rows.push(format!(
            "| `{}` | {} | {} | {} |\n",
            variable.to_string_lossy(),
            option(argument),
            default(argument).map_or_else(String::new, |value| format!("`{value}`")),
            meaning(argument)
        ));
    }
    for subcommand in command.get_subcommands() {
        variables(subcommand, rows);
    }
}

/// The ports that a program listens at unless it is told otherwise, as a table.
pub fn ports(program: &Command) -> String {
    let mut rows = Vec::new();
    for argument in program.get_arguments() {
        let address = default(argument).and_then(|value| value.parse::<SocketAddr>().ok());
        if let Some(address) = address {
            let row = format!(
                "| {} | {} | {} |\n",
                address.port(),
                option(argument),
                meaning(argument)
            );
            rows.push((address.port(), row));
        }
    }
    rows.sort();
    let rows: String = rows.into_iter().map(|(_, row)| row).collect();
    format!("| port | option | what |\n| --- | --- | --- |\n{rows}")
}

/// Every command of a program with its arguments, one section each.
pub fn command_line(mut program: Command) -> String {
    program.build();
    let mut sections = format!(
        "## Options of every command\n\n{}",
        arguments(&program, true)
    );
    for command in program.get_subcommands_mut() {
        section(command, &mut sections);
    }
    sections
}

fn section(command: &mut Command, sections: &mut String) {
    if command.is_hide_set() || command.get_name() == "help" {
        return;
    }
    let usage = command.render_usage().to_string();
    let usage = usage.trim_start_matches("Usage: ");
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let about = command
        .get_about()
        .map(ToString::to_string)
        .unwrap_or_default();
    sections.push_str(&format!(
        "\n## `{name}`\n\n{about}.\n\n```text\n{usage}\n```\n"
    ));
    let table = arguments(command, false);
    if !table.is_empty() {
        sections.push_str(&format!("\n{table}"));
    }
    for subcommand in command.get_subcommands_mut() {
        section(subcommand, sections);
    }
}

fn arguments(command: &Command, global: bool) -> String {
    let shown = command.get_arguments().filter(|argument| {
        !argument.is_hide_set()
            && argument.is_global_set() == global
            && !["help", "version"].contains(&argument.get_id().as_str())
    });
    let rows: String = shown
        .map(|argument| {
            let mut meaning = meaning(argument);
            if let Some(value) = default(argument) {
                meaning.push_str(&format!(" [default: `{value}`]"));
            }
            if let Some(variable) = argument.get_env() {
                meaning.push_str(&format!(" [environment: `{}`]", variable.to_string_lossy()));
            }
            format!("| {} | {meaning} |\n", option(argument))
        })
        .collect();
    match rows.is_empty() {
        true => rows,
        false => format!("| argument | meaning |\n| --- | --- |\n{rows}"),
    }
}

/// `-c`, `--coordinator HOST`, or the name of what stands in a place.
fn option(argument: &Arg) -> String {
    let takes_value = argument.get_action().takes_values();
    let value = match takes_value {
        true => argument.get_value_names().unwrap_or_default().join(" "),
        false => String::new(),
    };
    let value = cell(&value);
    let Some(long) = argument.get_long() else {
        return format!("`{value}`");
    };
    let short = argument
        .get_short()
        .map(|short| format!("`-{short}`, "))
        .unwrap_or_default();
    match takes_value {
        true => format!("{short}`--{long} {value}`"),
        false => format!("{short}`--{long}`"),
    }
}

/// The default, unless it is empty or that of a switch.
fn default(argument: &Arg) -> Option<String> {
    let values = argument.get_default_values().iter();
    let values: Vec<_> = values.map(|value| value.to_string_lossy()).collect();
    let default = cell(&values.join(","));
    let shown = argument.get_action().takes_values() && !default.is_empty();
    shown.then_some(default)
}

fn meaning(argument: &Arg) -> String {
    let help = argument
        .get_help()
        .map(ToString::to_string)
        .unwrap_or_default();
    let mut meaning = cell(&help);
    let values = argument.get_possible_values();
    let listed = argument.get_action().takes_values() && !argument.is_hide_possible_values_set();
    if listed && !values.is_empty() {
        let names: Vec<String> = values
            .iter()
            .map(|value| format!("`{}`", value.get_name()))
            .collect();
        meaning.push_str(&format!(" [one of {}]", names.join(", ")));
    }
    meaning
}

/// Text that does not end a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|")
        .replace('\n', " ")
        .replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use clap::{ArgAction, Command};

    use super::*;

    fn program() -> Command {
        Command::new("p")
            .arg(
                Arg::new("v")
                    .long("v")
                    .global(true)
                    .action(ArgAction::SetTrue)
                    .help("More"),
            )
            .arg(
                Arg::new("at")
                    .long("at")
                    .value_name("IP:PORT")
                    .default_value("0.0.0.0:17")
                    .env("P_AT")
                    .help("Where"),
            )
            .subcommand(
                Command::new("s").about("Does it").arg(
                    Arg::new("f")
                        .short('f')
                        .long("f")
                        .value_name("A|B")
                        .env("P_F")
                        .help("Which"),
                ),
            )
    }

    #[test]
    fn variables_of_subcommands_are_there_too() {
        assert_eq!(
            environment(&program()),
            "| variable | option | default | meaning |\n| --- | --- | --- | --- |\n\
             | `P_AT` | `--at IP:PORT` | `0.0.0.0:17` | Where |\n\
             | `P_F` | `-f`, `--f A\\|B` |  | Which |\n"
        );
    }

    #[test]
    fn ports_are_those_of_default_addresses() {
        let table =
            "| port | option | what |\n| --- | --- | --- |\n| 17 | `--at IP:PORT` | Where |\n";
        assert_eq!(ports(&program()), table);
    }

    #[test]
    fn options_of_every_command_are_listed_once() {
        let text = command_line(program());
        assert_eq!(text.matches("`--v`").count(), 1, "{text}");
        assert!(
            text.contains("\n## `p s`\n\nDoes it.\n\n```text\np s [OPTIONS]\n```\n"),
            "{text}"
        );
        assert!(
            text.contains("| `-f`, `--f A\\|B` | Which [environment: `P_F`] |\n"),
            "{text}"
        );
    }
}
