//! Certificates end after the shortest time that a manifest may give them, and the Initializers renew them by themselves, while one connection
//! lasts longer than any of them.

use std::{
    collections::BTreeSet,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::sleep,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use contrast_e2e::harness::{
    Cluster, Pod, envoy,
    mesh::{Identity, presented},
    no_network_because,
};

use crate::{
    scene::turn,
    update::{files, set},
};

/// `MeshCertLifetime` of the manifest: the least that is valid.
const LIFETIME: Duration = Duration::from_secs(60);
const RENEWALS: usize = 2;
/// A renewal comes after two thirds of the lifetime at the latest, and takes a moment.
const RENEWAL_MAX: Duration = Duration::from_secs(50);
const PAUSE: Duration = Duration::from_millis(200);
const API_PORT: u16 = 8081;

/// Asks on one connection until `stop`, and counts the answers.
fn ask_on_one_connection(address: SocketAddr, stop: &AtomicBool) -> Result<u32> {
    let stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut writer = stream;
    let mut answers = 0;
    loop {
        // After the last renewal once more.
        let last = stop.load(Ordering::Relaxed);
        writer.write_all(b"GET /results HTTP/1.1\r\nhost: api\r\n\r\n")?;
        answer(&mut reader).with_context(|| format!("after {answers} answers"))?;
        answers += 1;
        if last {
            return Ok(answers);
        }
        sleep(PAUSE);
    }
}

fn answer(reader: &mut BufReader<TcpStream>) -> Result<()> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        ensure!(reader.read_line(&mut head)? > 0, "the connection ended");
    }
    ensure!(head.starts_with("HTTP/1.1 200"), "answered {head}");
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        is_length.then(|| value.trim().parse::<usize>().ok())?
    });
    let mut body = vec![0; length.context("no content-length")?];
    reader.read_exact(&mut body)?;
    Ok(())
}

/// The certificate that the API presents to a new connection with the web server's identity, DER.
fn certificate_of_api(cluster: &Cluster, observer: usize, api: &Pod, web: &Pod) -> Vec<u8> {
    let identity = Identity::installed(&web.file("tls-config")).expect("files");
    let client = identity.client().expect("client");
    let address = (api.address(), API_PORT).into();
    let presented =
        cluster.with_network(|network| presented(network, observer, address, client, "api"));
    presented.expect("namespaces").expect("a certificate")
}

#[test]
fn connection_outlives_the_certificates_that_began_it() {
    let _turn = turn();
    let missing = envoy().is_none().then(|| "there is no Envoy".to_owned());
    if let Some(reason) = no_network_because().or(missing) {
        eprintln!("lifetime: skipped, because {reason}");
        return;
    }
    let directory = tempfile::tempdir().expect("directory");
    let cluster = Cluster::create(directory.path(), 36).expect("cluster");
    let cluster = cluster.in_namespaces().expect("network");
    cluster.generate().expect("generates");
    let coordinator = cluster.start_coordinator().expect("starts");
    set(&cluster, &coordinator, |manifest| {
        manifest["MeshCertLifetime"] = format!("{}s", LIFETIME.as_secs()).into();
        manifest["MeshCAOverlap"] = "0s".into();
    });
    let workloads = cluster.workloads().expect("workloads");
    let start = |name: &str| {
        let pod = cluster.start_pod(&workloads[name], &coordinator);
        pod.expect("starts")
    };
    let (_store, api, web) = (start("store"), start("api"), start("web"));
    let observer = cluster.with_network(|network| network.add().expect("node"));
    let observer = observer.expect("namespaces");

    let begin = Instant::now();
    let stop = Arc::new(AtomicBool::new(false));
    let client = web.spawn({
        let (stop, address) = (Arc::clone(&stop), (api.address(), API_PORT).into());
        move || ask_on_one_connection(address, &stop)
    });
    let client = client.expect("thread");

    let chains = || [&api, &web].map(|pod| files(pod).0);
    let mut seen = vec![certificate_of_api(&cluster, observer, &api, &web)];
    for renewal in 1..=RENEWALS {
        let (before, start) = (chains(), Instant::now());
        // Both sides renew, each at a moment of its own.
        while chains().iter().zip(&before).any(|(now, old)| now == old) {
            let running = start.elapsed();
            assert!(running < RENEWAL_MAX, "renewal {renewal}: not in time");
            assert!(!client.is_finished(), "the connection ended");
            sleep(PAUSE);
        }
        sleep(Duration::from_secs(1));
        seen.push(certificate_of_api(&cluster, observer, &api, &web));
    }
    let distinct: BTreeSet<_> = seen.iter().collect();
    assert_eq!(distinct.len(), seen.len(), "a certificate was not replaced");
    assert!(
        begin.elapsed() > LIFETIME,
        "the first certificates are still valid"
    );
    stop.store(true, Ordering::Relaxed);
    let answers = client.join().expect("client").expect("namespace");
    let answers = answers.expect("the connection lasts");
    eprintln!("{answers} answers in {:?}", begin.elapsed());
    assert!(answers > 100, "only {answers} answers");
}
