//! Routing of the application's answers back to Envoy, by iproute2.

use crate::{
    iptables::Family,
    redirection::{APPLICATION_V4, APPLICATION_V6, ROUTE_TABLE, RULE_PREFERENCE},
    tool::{ToolError, run},
};

const IP: &str = "ip";

/// The families that are routed.
fn families(ipv6: bool) -> &'static [Family] {
    match ipv6 {
        true => &[Family::V4, Family::V6],
        false => &[Family::V4],
    }
}

fn flag(family: Family) -> &'static str {
    match family {
        Family::V4 => "-4",
        Family::V6 => "-6",
    }
}

/// What the rule selects, in the words of `ip rule show`: answers of the application to connections that Envoy opened.
fn selector(family: Family) -> String {
    let application = match family {
        Family::V4 => APPLICATION_V4.to_string(),
        Family::V6 => APPLICATION_V6.to_string(),
    };
    format!("from {application} iif lo lookup {ROUTE_TABLE}")
}

/// Arguments for `ip` that make address and route; each may be repeated.
fn address_and_route(family: Family) -> Vec<String> {
    let mut commands = Vec::new();
    if family == Family::V6 {
        commands.push(format!(
            "-6 address replace {APPLICATION_V6}/128 dev lo nodad"
        ));
    }
    commands.push(format!(
        "{} route replace local default dev lo table {ROUTE_TABLE}",
        flag(family)
    ));
    commands
}

fn rule(family: Family, verb: &str) -> String {
    let family_flag = flag(family);
    match verb {
        "add" => format!(
            "{family_flag} rule add preference {RULE_PREFERENCE} {}",
            selector(family)
        ),
        _ => format!("{family_flag} rule {verb} preference {RULE_PREFERENCE}"),
    }
}

/// All commands as text.
pub(crate) fn print(ipv6: bool) -> String {
    let mut text = String::new();
    for family in families(ipv6) {
        for command in address_and_route(*family)
            .into_iter()
            .chain([rule(*family, "add")])
        {
            text.push_str("ip ");
            text.push_str(&command);
            text.push('\n');
        }
    }
    text
}

/// Makes addresses, routes and rules; what is right stays untouched. What an earlier call made for IPv6 goes if that is not wanted any more.
pub(crate) fn apply(ipv6: bool, has_ipv6: bool) -> Result<(), ToolError> {
    if has_ipv6 && !ipv6 {
        remove_family(Family::V6)?;
    }
    for family in families(ipv6) {
        for command in address_and_route(*family) {
            ip(&command)?;
        }
        let wanted = selector(*family);
        let found = rules(*family)?;
        if found.len() != 1 || found.first() != Some(&wanted) {
            remove_rules(*family, found.len())?;
            ip(&rule(*family, "add"))?;
        }
    }
    Ok(())
}

/// Removes what [`apply`] made.
pub(crate) fn remove(ipv6: bool) -> Result<(), ToolError> {
    families(ipv6).iter().copied().try_for_each(remove_family)
}

fn remove_family(family: Family) -> Result<(), ToolError> {
    remove_rules(family, rules(family)?.len())?;
    let family_flag = flag(family);
    if ip(&format!("{family_flag} route show table all"))?
        .contains(&format!("table {ROUTE_TABLE} "))
    {
        ip(&format!("{family_flag} route flush table {ROUTE_TABLE}"))?;
    }
    let address = format!("{APPLICATION_V6}/128");
    if family == Family::V6 && ip("-6 address show dev lo")?.contains(&address) {
        ip(&format!("-6 address del {address} dev lo"))?;
    }
    Ok(())
}

fn remove_rules(family: Family, count: usize) -> Result<(), ToolError> {
    for _ in 0..count {
        ip(&rule(family, "del"))?;
    }
    Ok(())
}

/// Rules with our preference, without it.
fn rules(family: Family) -> Result<Vec<String>, ToolError> {
    let listed = ip(&rule(family, "show"))?;
    let rules = listed.lines().map(|line| {
        let words = line.split_whitespace().skip(1);
        words.collect::<Vec<_>>().join(" ")
    });
    Ok(rules.collect())
}

fn ip(command: &str) -> Result<String, ToolError> {
    let arguments: Vec<&str> = command.split(' ').collect();
    run(IP, &arguments, "")
}
