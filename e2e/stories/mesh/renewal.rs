//! New certificates while connections last.

use std::{sync::Arc, time::Duration};

use contrast_e2e::harness::mesh::{Wire, echo, open};
use tokio::{sync::Barrier, task::JoinSet, time::sleep};

use crate::scene::{PORT, Scene, alias};

const CONNECTIONS: usize = 200;
const RENEWALS: usize = 5;

#[test]
fn renewal_loses_none_of_200_long_lived_connections() {
    let Some(mut scene) = Scene::begin("renewal", "") else {
        return;
    };
    let egress = scene.egress(PORT, "");
    let member = scene.member("client", &egress);
    let families = member.addresses.len();
    let opened = Arc::new(Barrier::new(CONNECTIONS + 1));
    let (renewed, rounds) = tokio::sync::watch::channel(0);
    let clients = scene.bed.network().spawn(member.node, {
        let opened = Arc::clone(&opened);
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("runtime");
            let mut clients = JoinSet::new();
            for number in 0..CONNECTIONS {
                let (opened, rounds) = (Arc::clone(&opened), rounds.clone());
                let address = alias(number % families, PORT);
                let client = async move {
                    let mut stream = open(address, &Wire::Plain).await?;
                    echo(&mut stream).await?;
                    opened.wait().await;
                    let mut exchanges = 0;
                    loop {
                        // After the last renewal once more.
                        let last = *rounds.borrow() == RENEWALS;
                        echo(&mut stream).await?;
                        exchanges += 1;
                        if last {
                            return anyhow::Ok(exchanges);
                        }
                        sleep(Duration::from_millis(100)).await;
                    }
                };
                clients.spawn_on(client, runtime.handle());
            }
            runtime.block_on(clients.join_all())
        }
    });
    let clients = clients.expect("thread");
    let waiting = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("runtime");
    let all_open = async { tokio::time::timeout(Duration::from_secs(30), opened.wait()).await };
    waiting
        .block_on(all_open)
        .expect("all connections are open");

    let before = scene.server_certificate();
    for round in 1..=RENEWALS {
        for (pod, name) in [(&scene.server, "server"), (&member, "client")] {
            let names = [&[name.to_owned()], pod.names().as_slice()].concat();
            let workload = format!("test/deployment/{name}");
            let renewal = scene.generation.issue(&workload, &names);
            pod.install(&renewal.expect("certificate"))
                .expect("installs");
        }
        std::thread::sleep(Duration::from_millis(500));
        renewed.send(round).expect("clients");
    }
    assert_ne!(
        scene.server_certificate(),
        before,
        "Envoy still presents its first certificate"
    );
    let exchanges: anyhow::Result<Vec<u32>> = clients
        .join()
        .expect("clients")
        .expect("namespace")
        .into_iter()
        .collect();
    let exchanges = exchanges.expect("a connection was lost");
    assert_eq!(exchanges.len(), CONNECTIONS);
    eprintln!(
        "{CONNECTIONS} connections, {} exchanges",
        exchanges.iter().sum::<u32>()
    );
}
