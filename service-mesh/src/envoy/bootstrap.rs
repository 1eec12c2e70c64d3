//! `envoy.config.bootstrap.v3.Bootstrap`: static resources only, no discovery service, no statistics sink.

use super::{
    OTHER, Paths, cluster as clusters, listener as listeners,
    pb::{
        address, any, bootstrap, connections_monitor, core, heap_monitor, overload, pipe, seconds,
    },
};
use crate::{
    annotation::Protocol,
    model::{IngressPort, Mesh, Mode, Protection},
};
use std::{net::SocketAddr, time::Duration};

/// Connections that Envoy has open at once with clients and with the application together. Each takes memory of the sidecar; further ones are closed
/// at once instead of ending it.
const CONNECTIONS_MAX: i64 = 10_000;
/// Heap at which Envoy begins to defend itself, in bytes: below the memory limit that `generate` gives the sidecar.
const HEAP_BYTES_MAX: u64 = 80 * 1024 * 1024;

/// The bootstrap that does what `mesh` says.
///
/// Without an admin port the admin interface is a socket in the private directory, because readiness and draining
/// go through it; it is then not reachable for anyone else.
pub fn bootstrap(mesh: &Mesh, paths: &Paths) -> bootstrap::Bootstrap {
    let admin = match mesh.admin() {
        Some(admin) => address(admin),
        None => pipe(&paths.admin_socket(), 0o600),
    };
    bootstrap::Bootstrap {
        // Secret discovery needs a node, also from files. Nobody reads these names.
        node: Some(core::Node {
            id: "contrast-service-mesh".to_owned(),
            cluster: "contrast".to_owned(),
            ..Default::default()
        }),
        admin: Some(bootstrap::Admin {
            address: Some(admin),
            // Readiness must be answered when connections are used up.
            ignore_global_conn_limit: true,
            ..Default::default()
        }),
        static_resources: Some(resources(mesh, paths)),
        overload_manager: Some(overload_manager()),
        ..Default::default()
    }
}

fn resources(mesh: &Mesh, paths: &Paths) -> bootstrap::bootstrap::StaticResources {
    let marked = matches!(mesh.mode(), Mode::Transparent { .. });
    let (mut listeners, mut clusters) = match mesh.mode() {
        Mode::Explicit { pod, application } => {
            let place = |port: &IngressPort| {
                let pod = SocketAddr::new(pod?, port.port);
                let listener = listeners::explicit(port, pod, mesh, paths);
                let application = SocketAddr::new(application, port.port);
                Some((listener, clusters::application(port, application)))
            };
            mesh.ingress().iter().filter_map(place).unzip()
        }
        Mode::Transparent { ipv6 } => {
            let ports = mesh.ingress().iter();
            let ports = ports.filter(|port| port.protection != Protection::Plain);
            let named =
                ports.map(|port| clusters::original_destination(port.name.as_str(), port.protocol));
            let other = mesh
                .serves_other_ports()
                .then(|| clusters::original_destination(OTHER, Protocol::Tcp));
            let listeners = listeners::transparent(mesh, ipv6, paths);
            (listeners, named.chain(other).collect::<Vec<_>>())
        }
    };
    let egress = mesh.egress().iter();
    listeners.extend(egress.clone().map(|route| listeners::egress(route, mesh)));
    clusters
        .extend(egress.map(|route| clusters::remote(route, mesh.dns_resolver(), marked, paths)));
    bootstrap::bootstrap::StaticResources {
        listeners,
        clusters,
        ..Default::default()
    }
}

/// A sidecar that is short of memory takes no new connections, instead of being ended with all of them.
fn overload_manager() -> overload::OverloadManager {
    use overload::{
        OverloadAction, ResourceMonitor, ThresholdTrigger, Trigger, resource_monitor::ConfigType,
        trigger::TriggerOneof,
    };

    const HEAP: &str = "envoy.resource_monitors.fixed_heap";
    let monitor = |name: &str, config| ResourceMonitor {
        name: name.to_owned(),
        config_type: Some(ConfigType::TypedConfig(config)),
    };
    let action = |name: &str, value: f64| OverloadAction {
        name: name.to_owned(),
        triggers: vec![Trigger {
            name: HEAP.to_owned(),
            trigger_oneof: Some(TriggerOneof::Threshold(ThresholdTrigger { value })),
        }],
        ..Default::default()
    };
    overload::OverloadManager {
        refresh_interval: seconds(Duration::from_millis(250)),
        resource_monitors: vec![
            monitor(
                HEAP,
                any(&heap_monitor::FixedHeapConfig {
                    max_heap_size_bytes: HEAP_BYTES_MAX,
                    ..Default::default()
                }),
            ),
            monitor(
                "envoy.resource_monitors.global_downstream_max_connections",
                any(&connections_monitor::DownstreamConnectionsConfig {
                    max_active_downstream_connections: CONNECTIONS_MAX,
                }),
            ),
        ],
        actions: vec![
            action("envoy.overload_actions.shrink_heap", 0.9),
            action("envoy.overload_actions.stop_accepting_connections", 0.95),
        ],
        ..Default::default()
    }
}
