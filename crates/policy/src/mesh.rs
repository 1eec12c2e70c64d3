/// The sidecar of the service mesh, as `generate` names it.
pub const SERVICE_MESH: &str = "contrast-service-mesh";
/// Its program.
pub const SERVICE_MESH_PROGRAM: &str = "/bin/service-mesh";
/// The command, whole, that the host may execute in the sidecar: its check of the pod itself.
pub const MESH_CHECK: [&str; 3] = [SERVICE_MESH_PROGRAM, "check", "--json"];
