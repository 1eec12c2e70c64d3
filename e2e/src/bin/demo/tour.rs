//! The steps, in the order in which they are shown.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use contrast_e2e::harness::{
    Cluster, CoordinatorPod, MeshClient, OwnerKeys, Pod, PodSpec, envoy, no_network_because,
};

use crate::{
    Arguments, owners, replicas,
    steps::{Steps, only, say},
};

pub(crate) async fn tour(arguments: &Arguments) -> Result<()> {
    let Arguments {
        keep,
        tee,
        replicas,
        owners,
    } = *arguments;
    ensure!(
        replicas == 1 || owners.count == 1,
        "several owners are shown with one Coordinator"
    );
    let start = Instant::now();
    let directory = tempfile::Builder::new()
        .prefix("contrast-demo-")
        .tempdir()?;
    let files = directory.path().to_owned();
    if keep {
        let _ = directory.keep();
    }
    say("Contrast: Kubernetes pods as confidential VMs, and the proof of it.");
    say(&format!(
        "INSECURE DEMO: {} evidence comes from a software TEE, whose keys lie in a directory.\n",
        tee.name().to_uppercase()
    ));

    let cluster = Cluster::create(&files, 1)?.on(tee);
    let cluster = match no_network_because() {
        None => cluster.in_namespaces()?,
        Some(reason) => {
            say(&format!(
                "Traffic is not redirected, because {reason}: Envoy serves each pod's address, and programs dial loopback addresses.\n"
            ));
            cluster
        }
    };
    let mut steps = Steps::default();

    steps.run(
        "generate: pin images, inject, one policy per pod, manifest.json",
        || {
            cluster.generate()?;
            let workloads = cluster.workloads()?;
            Ok(workloads
                .values()
                .map(|spec| format!("{:<12} policy {}", spec.name, spec.policy_hash()))
                .collect())
        },
    )?;

    let keys = owners::create(&cluster, owners, &mut steps)?;
    match replicas {
        1 => one_coordinator(&cluster, &keys, &mut steps).await?,
        several => replicas::tour(&cluster, several.into(), &mut steps).await?,
    }
    say(&format!(
        "\nAll {} steps succeeded in {:.1} s.",
        steps.count,
        start.elapsed().as_secs_f32()
    ));
    say(
        "Where to look next: README.md (what it protects against), ARCHITECTURE.md (how), deploy/examples/votes (the YAML).",
    );
    if keep {
        say(&format!("Files of this run: {}", files.display()));
    }
    Ok(())
}

/// The story of a deployment with one Coordinator.
async fn one_coordinator(cluster: &Cluster, owners: &[OwnerKeys], steps: &mut Steps) -> Result<()> {
    let mut coordinator = steps.run_with("start the Coordinator", || {
        let coordinator = cluster.start_coordinator()?;
        let facts = vec![format!("user API {}", coordinator.user_api)];
        Ok((coordinator, facts))
    })?;

    steps.run(
        "set: attest the Coordinator, hand over the manifest",
        || {
            let set =
                cluster
                    .owner()
                    .contrast(&["set", "-c", &coordinator.user_api(), "resources"])?;
            Ok(only(
                &set.stdout,
                &["manifest SHA-256", "latest transition"],
            ))
        },
    )?;
    steps.run("verify: what a data owner runs", || {
        let verify = cluster
            .owner()
            .contrast(&["verify", "-c", &coordinator.user_api()])?;
        Ok(only(&verify.stdout, &["ok ", "verified"]))
    })?;

    if owners.len() > 1 {
        owners::approve(cluster, &coordinator.user_api(), owners, steps)?;
    }
    let workloads = cluster.workloads()?;
    let pods = pods(cluster, coordinator.mesh_api, steps).await?;
    impostor(cluster, &workloads["votes"], coordinator.mesh_api, steps)?;
    coordinator = recovery(cluster, coordinator, owners, steps)?;
    steps.run("a new pod enrols with the recovered Coordinator", || {
        enrol_again(cluster, &pods, coordinator.mesh_api)
    })?;
    Ok(())
}

const DEADLINE: Duration = Duration::from_secs(20);

/// Starts the sample application's pods, and uses it if there is an Envoy.
pub(crate) async fn pods(
    cluster: &Cluster,
    mesh_api: SocketAddr,
    steps: &mut Steps,
) -> Result<Vec<Pod>> {
    let workloads = cluster.workloads()?;
    let mut pods = Vec::new();
    for name in ["store", "votes", "api", "web"] {
        let spec = workloads
            .get(name)
            .with_context(|| format!("no workload {name}"))?;
        let pod = steps.run_with(&format!("start pod {name}"), || {
            let pod = cluster.start_pod_at(spec, mesh_api)?;
            let facts = vec![
                "its policy allows every container; attested, certificate and secret installed"
                    .to_owned(),
            ];
            Ok((pod, facts))
        })?;
        pods.push(pod);
    }
    match envoy() {
        Some(_) => application(cluster, &pods, steps).await?,
        None => say("   (no Envoy here: the application and its mTLS are left out)"),
    }
    Ok(pods)
}

/// Another pod like the first of `pods` enrols at `mesh_api` and must get the same secret.
pub(crate) fn enrol_again(
    cluster: &Cluster,
    pods: &[Pod],
    mesh_api: SocketAddr,
) -> Result<Vec<String>> {
    let mut spec = cluster.workloads()?["store"].clone();
    spec.name = "store-again".to_owned();
    let pod = cluster.enrol(&spec, mesh_api)?;
    let secret = "secrets/workload-secret-seed";
    let before = fs::read(pods.first().context("no pod")?.file(secret))?;
    ensure!(
        fs::read(pod.file(secret))? == before,
        "another workload secret"
    );
    Ok(vec![
        "same workload secret as before: its volumes would still open".to_owned(),
    ])
}

async fn application(cluster: &Cluster, pods: &[Pod], steps: &mut Steps) -> Result<()> {
    let [store, votes, api, web] = pods else {
        bail!("expected four pods")
    };
    let mesh_ca = cluster.owner().file("verify/mesh-ca.pem");
    let web_address = SocketAddr::from((web.address(), 8080));
    let api_address = SocketAddr::from((api.address(), 8081));

    steps
        .begin("vote through the mesh: browser -TLS-> web -mTLS-> api -mTLS-> votes -mTLS-> store");
    let browser = MeshClient::anonymous(&mesh_ca)?;
    let vote = browser
        .request(web_address, "web", "POST", "/vote/spaces")
        .await?;
    ensure!(
        vote.starts_with("HTTP/1.1 303"),
        "vote was not taken: {vote}"
    );
    let results = results(&browser, web_address).await?;
    ensure!(
        results.contains(r#""spaces":1"#),
        "vote was not counted: {results}"
    );
    let how = match cluster.has_namespaces() {
        true => {
            "the programs listen on [::] and dial http://api:8081, plain: the mesh takes their connections on the way"
        }
        false => "the programs listen on loopback and dial Envoy there",
    };
    steps.end(&[format!("results {results}"), how.to_owned()]);

    steps.begin("refuse a client without TLS");
    let refused = MeshClient::plaintext(api_address, "/results").await;
    steps.end(&[expect_refused(refused)?]);

    steps.begin("refuse a client without a mesh certificate");
    let refused = browser.request(api_address, "api", "GET", "/results").await;
    steps.end(&[expect_refused(refused)?]);

    steps.begin("accept a member of the mesh that `api` allows: web");
    let answer = with_certificate_of(web, &mesh_ca)?
        .request(api_address, "api", "GET", "/results")
        .await?;
    ensure!(
        answer.starts_with("HTTP/1.1 200"),
        "member was refused: {answer}"
    );
    steps.end(&["HTTP/1.1 200".to_owned()]);

    steps.begin("refuse a member with a valid mesh certificate that `api` does not allow: votes");
    let refused = with_certificate_of(votes, &mesh_ca)?
        .request(api_address, "api", "GET", "/results")
        .await;
    steps.end(&[expect_refused(refused)?]);

    if cluster.has_namespaces() {
        another_member_answers(cluster, [store, votes, api, web], &browser, steps).await?;
    }
    Ok(())
}

/// The host answers the name `votes` with the address of another pod, which has a certificate of this mesh, too.
async fn another_member_answers(
    cluster: &Cluster,
    [store, votes, _, web]: [&Pod; 4],
    browser: &MeshClient,
    steps: &mut Steps,
) -> Result<()> {
    let address = SocketAddr::from((web.address(), 8080));
    steps.begin("refuse a server with a valid mesh certificate that is another: the host's DNS says that `votes` is store's pod");
    cluster.serve("votes", &[store]);
    let refused = await_vote(browser, address, "HTTP/1.1 502").await?;
    let fact = format!(
        "the vote fails and reaches nobody: {}",
        refused.lines().last().unwrap_or_default()
    );
    cluster.serve("votes", &[votes]);
    await_vote(browser, address, "HTTP/1.1 303").await?;
    steps.end(&[fact, "with the right answer it goes on".to_owned()]);
    Ok(())
}

/// Votes until the answer starts with `status`: names are remembered for a few seconds.
async fn await_vote(browser: &MeshClient, web: SocketAddr, status: &str) -> Result<String> {
    let start = Instant::now();
    loop {
        let answer = browser.request(web, "web", "POST", "/vote/both").await?;
        if answer.starts_with(status) {
            return Ok(answer);
        }
        ensure!(start.elapsed() < DEADLINE, "still answered: {answer}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// The counts, as the browser sees them.
async fn results(browser: &MeshClient, web: SocketAddr) -> Result<String> {
    let answer = browser.request(web, "web", "GET", "/results").await?;
    Ok(answer.lines().last().unwrap_or_default().to_owned())
}

fn with_certificate_of(pod: &Pod, ca: &Path) -> Result<MeshClient> {
    let (chain, key) = (
        pod.file("tls-config/certChain.pem"),
        pod.file("tls-config/key.pem"),
    );
    MeshClient::with_certificate(ca, &chain, &key)
}

pub(crate) fn impostor(
    cluster: &Cluster,
    genuine: &PodSpec,
    mesh_api: SocketAddr,
    steps: &mut Steps,
) -> Result<()> {
    steps.run(
        "refuse a pod whose policy the host changed by one word",
        || {
            let refusal = format!("{}: expected", cluster.kind().policy_field());
            let mut changed = genuine.clone();
            changed.name = "impostor".to_owned();
            let text = String::from_utf8(changed.initdata)?;
            let tampered = text.replacen("/bin/votes", "/bin/vote5", 1);
            ensure!(tampered != text, "the policy does not name the program");
            changed.initdata = tampered.into_bytes();
            let mut pod = cluster.start_initializer_at(&changed, mesh_api)?;
            let process = pod.container("contrast-initializer")?;
            process.wait_until("a refusal", DEADLINE, |process| {
                process.output().contains(&refusal)
            })?;
            let output = process.output();
            ensure!(
                !pod.file("tls-config").exists(),
                "the impostor got a certificate"
            );
            let reason = output.lines().find(|line| line.contains(&refusal));
            Ok(vec![reason.unwrap_or_default().trim().to_owned()])
        },
    )
}

fn recovery(
    cluster: &Cluster,
    coordinator: CoordinatorPod,
    owners: &[OwnerKeys],
    steps: &mut Steps,
) -> Result<CoordinatorPod> {
    let owner = cluster.owner();
    let root_before = owner.read("verify/coordinator-root-ca.pem")?;
    let mesh_before = owner.read("verify/mesh-ca.pem")?;
    let coordinator =
        steps.run_with("kill the Coordinator and start it on the same disk", || {
            coordinator.kill()?;
            let coordinator = cluster.start_coordinator()?;
            let verify = owner.try_contrast(&["verify", "-c", &coordinator.user_api()])?;
            ensure!(verify.code != 0, "a Coordinator without its seed verified");
            let says = verify.stderr.lines().find(|line| line.contains("recover"));
            let facts = vec![
                says.context("verify does not mention recovery")?
                    .trim()
                    .to_owned(),
            ];
            Ok((coordinator, facts))
        })?;
    let title = match owners.len() {
        1 => "recover: one seed share owner hands back the seed".to_owned(),
        several => format!("recover: {several} seed share owners hand back the seed together"),
    };
    steps.run(&title, || {
        for keys in owners {
            let user_api = coordinator.user_api();
            let key = ["--seedshare-owner-key", &keys.seed_share];
            owner.contrast(&[&["recover", "-c", &user_api], &key[..]].concat())?;
        }
        owner.contrast(&["verify", "-c", &coordinator.user_api()])?;
        ensure!(
            owner.read("verify/coordinator-root-ca.pem")? == root_before,
            "another root CA"
        );
        ensure!(
            owner.read("verify/mesh-ca.pem")? != mesh_before,
            "still the old mesh CA"
        );
        Ok(vec!["verified again: same root CA, new mesh CA".to_owned()])
    })?;
    Ok(coordinator)
}

fn expect_refused(outcome: Result<String>) -> Result<String> {
    match outcome {
        Ok(answer) => bail!("it was answered: {answer}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}
