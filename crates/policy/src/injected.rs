/// The init container that fetches certificate and secret and opens the encrypted volume, as `generate` names it.
pub const INITIALIZER: &str = "contrast-initializer";
/// Where it has the host's file system with the file of the encrypted volume. It trusts nothing there, so that the volume needs no
/// `untrusted-volumes`.
pub const CIPHERTEXT_PATH: &str = "/ciphertext";
/// The sidecar of the service mesh, as `generate` names it.
pub const SERVICE_MESH: &str = "contrast-service-mesh";
/// Its program.
pub const SERVICE_MESH_PROGRAM: &str = "/bin/service-mesh";
/// The command, whole, that the host may execute in the sidecar: its check of the pod itself.
pub const MESH_CHECK: [&str; 3] = [SERVICE_MESH_PROGRAM, "check", "--json"];
