//! Programs, arguments, and `$(NAME)` in them.

use contrast_images::ImageConfig;
use serde_json::Value;

use super::{
    BuildError,
    environment::Environment,
    fields::{list, words},
};
use crate::{MESH_CHECK, Part, Template};

/// As Kubernetes has it: `command` replaces entrypoint and cmd, `args` replaces cmd.
pub(super) fn of(
    name: &str,
    container: &Value,
    config: Option<&ImageConfig>,
    digest: &str,
    environment: &Environment,
) -> Result<Vec<Template>, BuildError> {
    let unknown = |missing| BuildError::UnknownProgram {
        container: name.to_owned(),
        missing,
        digest: digest.to_owned(),
    };
    let filled = |key: &str| -> Vec<Template> {
        let written = words(&container[key]);
        written
            .iter()
            .map(|word| environment.expand(word))
            .collect()
    };
    let (command, args) = (filled("command"), filled("args"));
    let words: Vec<Template> = match (command.is_empty(), args.is_empty()) {
        (false, _) => command.into_iter().chain(args).collect(),
        (true, false) => {
            let config = config.ok_or_else(|| unknown("entrypoint"))?;
            fixed(&config.entrypoint).chain(args).collect()
        }
        (true, true) => {
            let config = config.ok_or_else(|| unknown("entrypoint and arguments"))?;
            fixed(&config.entrypoint)
                .chain(fixed(&config.cmd))
                .collect()
        }
    };
    match words.is_empty() {
        true => Err(unknown("entrypoint")),
        false => Ok(words),
    }
}

fn fixed(words: &[String]) -> impl Iterator<Item = Template> + '_ {
    words.iter().cloned().map(Template::Fixed)
}

/// Commands of probes and hooks, and the check of the service mesh. Kubernetes fills in only variables that are written out as values.
pub(super) fn exec_commands(container: &Value, is_mesh: bool) -> Vec<Vec<String>> {
    let value_of = |name: &str| {
        let variables = list(&container["env"]);
        let own = variables.iter().rev().find(|other| other["name"] == name)?;
        match own.get("valueFrom") {
            Some(_) => None,
            None => Some(vec![Part::Text(
                own["value"].as_str().unwrap_or_default().to_owned(),
            )]),
        }
    };
    let probe = |key: &str| -> Vec<String> {
        let command = words(&container[key]["exec"]["command"]);
        command
            .iter()
            .map(|word| match simplified(expand(word, &value_of)) {
                Template::Fixed(text) => text,
                Template::Parts(_) => word.clone(),
            })
            .collect()
    };
    let probes = ["livenessProbe", "readinessProbe", "startupProbe"].map(probe);
    let hooks = ["postStart", "preStop"]
        .map(|hook| words(&container["lifecycle"][hook]["exec"]["command"]));
    let mut commands: Vec<Vec<String>> = Vec::new();
    let check = is_mesh.then(|| MESH_CHECK.map(str::to_owned).to_vec());
    for command in probes.into_iter().chain(hooks).chain(check) {
        if !command.is_empty() && !commands.contains(&command) {
            commands.push(command);
        }
    }
    commands
}

/// `$(NAME)` becomes what `value_of` says, or stays; `$$` becomes `$` (`k8s.io/kubernetes/third_party/forked/golang/expansion`).
pub(super) fn expand(text: &str, value_of: &dyn Fn(&str) -> Option<Vec<Part>>) -> Vec<Part> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        parts.push(Part::Text(before.to_owned()));
        let literal = |text: &str| Part::Text(text.to_owned());
        if let Some(after) = after.strip_prefix('$') {
            parts.push(literal("$"));
            rest = after;
            continue;
        }
        let reference = after
            .strip_prefix('(')
            .and_then(|after| after.split_once(')'));
        rest = match reference {
            Some((name, behind)) => {
                match value_of(name) {
                    Some(value) => parts.extend(value),
                    None => parts.push(Part::Text(format!("$({name})"))),
                }
                behind
            }
            None => {
                parts.push(literal("$"));
                after
            }
        };
    }
    parts.push(Part::Text(rest.to_owned()));
    parts
}

/// Neighbouring texts joined; one text if there is nothing else.
pub(super) fn simplified(parts: Vec<Part>) -> Template {
    let mut joined: Vec<Part> = Vec::new();
    for part in parts {
        match (joined.last_mut(), part) {
            (Some(Part::Text(before)), Part::Text(text)) => before.push_str(&text),
            (_, Part::Text(text)) if text.is_empty() => {}
            (_, part) => joined.push(part),
        }
    }
    match joined.as_slice() {
        [] => Template::Fixed(String::new()),
        [Part::Text(text)] => Template::Fixed(text.clone()),
        _ => Template::Parts(joined),
    }
}
