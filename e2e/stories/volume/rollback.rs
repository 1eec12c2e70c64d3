//! A host that puts back the disk of yesterday, before a Coordinator that remembers.

use contrast_e2e::{
    harness::{Cluster, PodSpec},
    vm::{Disk, FORWARDED, Machine, Options},
};

use crate::support::{Bench, Guest, OPEN_DEADLINE, SMALL};

/// The pod's Initializer, as `generate` configures it.
const INITIALIZER: &str = "CONTRAST_INSECURE_SOFTWARE_TEE=/tee CONTRAST_INSECURE_INITDATA=/initdata CRYPTSETUP_DEVICE=/dev/vda initializer";

struct Deployment {
    bench: Bench,
    cluster: Cluster,
    mesh_api: std::net::SocketAddr,
}

impl Deployment {
    fn boot(&self, name: &str, disk: &Disk, pod: &PodSpec) -> Guest {
        let directory = self.bench.directory.path();
        let forward = Some(self.mesh_api);
        let machine = Machine::boot(directory, name, &[disk], Options { forward });
        let mut machine = machine.expect("machine");
        machine.put("/initdata", &pod.initdata).expect("initdata");
        for entry in std::fs::read_dir(self.cluster.tee()).expect("TEE") {
            let entry = entry.expect("entry");
            let content = std::fs::read(entry.path()).expect("file");
            let path = format!("/tee/{}", entry.file_name().to_string_lossy());
            machine.put(&path, &content).expect("file");
        }
        Guest(machine)
    }
}

/// Starts the pod's Initializer; what it said, when it is not ready.
fn start(guest: &mut Guest, variables: &str) -> Result<(), String> {
    guest.succeed(&format!(
        "{variables} COORDINATOR_HOST={FORWARDED} {INITIALIZER} > /tmp/log 2>&1 & echo $! > /tmp/pid"
    ));
    let ended = format!(
        "COORDINATOR_HOST={FORWARDED} {INITIALIZER} --check-ready || ! kill -0 $(cat /tmp/pid) 2>/dev/null"
    );
    let waited = guest.0.wait_until(&ended, OPEN_DEADLINE);
    let log = guest.succeed("cat /tmp/log");
    waited.unwrap_or_else(|error| panic!("{error}: {log}"));
    match guest
        .0
        .run("kill -0 $(cat /tmp/pid)")
        .expect("command")
        .status
    {
        0 => Ok(()),
        _ => Err(log),
    }
}

#[test]
fn disk_of_yesterday_is_refused_and_reported() {
    let Some(bench) = Bench::set_up("rollback") else {
        return;
    };
    let cluster = Cluster::create(bench.directory.path(), 57).expect("cluster");
    cluster.generate().expect("generates");
    let coordinator = cluster.start_coordinator().expect("starts");
    let set = ["set", "-c", &coordinator.user_api(), "resources"];
    cluster.owner().contrast(&set).expect("sets");
    let workloads = cluster.workloads().expect("workloads");
    let [store, votes] = ["store", "votes"].map(|name| &workloads[name]);
    let mesh_api = coordinator.mesh_api;
    let deployment = Deployment {
        bench,
        cluster,
        mesh_api,
    };

    let disk = deployment.bench.disk("disk", SMALL);
    let mut guest = deployment.boot("monday", &disk, store);
    start(&mut guest, "").expect("opens");
    guest.succeed("echo monday > /state/day");
    guest.close();
    drop(guest);
    let monday = disk.copy("monday-disk").expect("copy");

    let mut guest = deployment.boot("tuesday", &disk, store);
    start(&mut guest, "").expect("opens");
    assert_eq!(guest.succeed("cat /state/day"), "monday\n");
    guest.succeed("echo tuesday > /state/day; sync");
    // The host copies the disk while it is open, and the pod goes on and ends well.
    let noon = disk.copy("noon-disk").expect("copy");
    guest.succeed("echo evening > /state/day");
    guest.close();
    drop(guest);
    let evening = disk.copy("evening-disk").expect("copy");

    for (name, old) in [("monday-again", &monday), ("noon-again", &noon)] {
        disk.restore(old).expect("restore");
        let before = disk.digest().expect("digest");
        let mut guest = deployment.boot(name, &disk, store);
        let said = start(&mut guest, "").expect_err("refused");
        assert!(said.contains("was rolled back"), "{said}");
        assert!(said.contains("secure-pv-rollback"), "{said}");
        drop(guest);
        assert_eq!(
            disk.digest().expect("digest"),
            before,
            "something was written"
        );
    }

    // Another workload of the deployment has another secret.
    disk.restore(&evening).expect("restore");
    let mut guest = deployment.boot("stranger", &disk, votes);
    let said = start(&mut guest, "").expect_err("refused");
    assert!(
        said.contains("not made with this workload secret"),
        "{said}"
    );
    drop(guest);

    // Whoever restores a backup says so, and the next start is strict again.
    disk.restore(&monday).expect("restore");
    let mut guest = deployment.boot("backup", &disk, store);
    start(&mut guest, "CRYPTSETUP_ROLLBACK=warn").expect("opens");
    let log = guest.succeed("cat /tmp/log");
    assert!(
        log.contains("the disk was rolled back; opening it"),
        "{log}"
    );
    assert_eq!(guest.succeed("cat /state/day"), "monday\n");
    guest.close();
    start(&mut guest, "").expect("opens");
    guest.close();
}
