//! What a pod needs to run without a namespace, and without root: the mesh in its explicit mode.
//!
//! Nothing is redirected there, so Envoy serves the pod's address itself, the sample programs listen on loopback only, and what they would
//! reach by name they reach at a loopback address of Envoy.

use std::net::{Ipv4Addr, SocketAddr};

/// Tells the sample programs to listen on loopback only.
pub(crate) const LISTEN_ON_LOOPBACK: &str = "SAMPLE_LISTEN_ON_LOOPBACK";
const EGRESS: &str = "CONTRAST_EGRESS_PROXY_CONFIG";

/// Changes the environment of a container of the pod at `address`, which declares `ports` and has the annotation `egress`.
pub(super) fn adapt(
    environment: &mut Vec<(String, String)>,
    address: Ipv4Addr,
    ports: impl Iterator<Item = u16>,
    egress: &str,
) {
    let (entries, aliases) = with_aliases(egress, address);
    for (name, value) in &mut *environment {
        if name == EGRESS {
            entries.clone_into(value);
            continue;
        }
        for (remote, alias) in &aliases {
            *value = value.replace(remote, &alias.to_string());
        }
    }
    let ports: Vec<String> = ports.map(|port| port.to_string()).collect();
    let more = [
        ("CONTRAST_INGRESS_MODE", "explicit".to_owned()),
        ("CONTRAST_POD_IP", address.to_string()),
        ("CONTRAST_INGRESS_PORTS", ports.join(",")),
        (LISTEN_ON_LOOPBACK, "true".to_owned()),
    ];
    environment.extend(more.map(|(name, value)| (name.to_owned(), value)));
}

/// The egress entries with a loopback address for each that is transparent, and these addresses by remote.
fn with_aliases(egress: &str, pod: Ipv4Addr) -> (String, Vec<(String, SocketAddr)>) {
    let mut aliases = Vec::new();
    let [.., last] = pod.octets();
    let entries = egress.split("##").zip(1..).map(|(entry, number)| {
        let parts: Vec<&str> = entry.split('#').collect();
        let [name, "transparent", remote, options @ ..] = parts.as_slice() else {
            return entry.to_owned();
        };
        let port = remote.rsplit(':').next().and_then(|port| port.parse().ok());
        let alias = SocketAddr::from((Ipv4Addr::new(127, 137, last, number), port.unwrap_or(0)));
        aliases.push(((*remote).to_owned(), alias));
        let alias = alias.to_string();
        [&[*name, &alias, *remote], options].concat().join("#")
    });
    (entries.collect::<Vec<_>>().join("##"), aliases)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transparent_entries_get_loopback_addresses_that_the_application_is_told() {
        let egress = "api#transparent#api:8081#identity=any##db#127.0.9.9:5#db:5";
        let variable = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let mut environment = vec![
            variable(EGRESS, egress),
            variable("API_URL", "http://api:8081/x"),
        ];
        adapt(
            &mut environment,
            Ipv4Addr::new(127, 77, 1, 12),
            [80, 443].into_iter(),
            egress,
        );
        let expected = [
            (
                EGRESS,
                "api#127.137.12.1:8081#api:8081#identity=any##db#127.0.9.9:5#db:5",
            ),
            ("API_URL", "http://127.137.12.1:8081/x"),
            ("CONTRAST_INGRESS_MODE", "explicit"),
            ("CONTRAST_POD_IP", "127.77.1.12"),
            ("CONTRAST_INGRESS_PORTS", "80,443"),
            (LISTEN_ON_LOOPBACK, "true"),
        ];
        assert_eq!(
            environment,
            expected.map(|(name, value)| variable(name, value))
        );
    }
}
