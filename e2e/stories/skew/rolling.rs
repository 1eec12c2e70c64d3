//! Three Coordinators.

use std::{fs, time::Duration};

use contrast_e2e::load::Deployment;

use crate::{
    joins::Joins,
    page::Page,
    world::{BOUND, DEADLINE, World},
};

const REPLICAS: usize = 3;
/// A StatefulSet replaces the highest number first.
const ORDER: [usize; REPLICAS] = [2, 1, 0];

/// Types the first half of the page: from the new `contrast` to a manifest with both Coordinators.
fn both_in_the_manifest(world: &mut World, page: &mut Page) {
    let this = world.this.clone();
    world.types(page, &this, "status");
    world.change_image();
    let generated = world.types(page, &this, "generate --keep-coordinator");
    assert!(
        generated.stdout.contains("kept Coordinator policy"),
        "{}",
        generated.stdout
    );
    world.documents.this = world.coordinator_document();
    assert_ne!(world.documents.this, world.documents.earlier);
    world.types(page, &this, "set");
}

#[test]
fn three_coordinators_are_replaced_one_by_one_and_nobody_waits() {
    let Some(mut world) = World::begin("rolling upgrade", 70, REPLICAS) else {
        return;
    };
    let (earlier, this) = (world.earlier.clone(), world.this.clone());
    let mut page = Page::section("Several Coordinators");
    // Lives through all of it.
    let mut pod = world.join(&earlier, 0);
    world.everybody_works_with_everybody(
        "both builds of everything work with the earlier Coordinators",
    );
    both_in_the_manifest(&mut world, &mut page);

    let joins = Joins::begin(Deployment::of(&world.cluster, &world.replicas).expect("deployment"));
    for replica in ORDER {
        world.replace(replica, &this);
        world.all_vote();
        if replica != ORDER[1] {
            let status = world.types(&mut page, &this, "status");
            assert!(status.stdout.contains("serving: "), "{}", status.stdout);
        }
        world.everybody_works_with_everybody(&format!("replica {replica} is replaced"));
    }
    let joined = joins.end();
    world.say(&format!("{joined:?}"));
    assert!(joined.count > 100, "{joined:?}");
    assert!(
        joined.longest_gap < BOUND + Duration::from_secs(2),
        "{joined:?}"
    );

    // One goes back, as long as the manifest has both, and forth again.
    world.replace(0, &earlier);
    world.all_vote();
    world.everybody_works_with_everybody("replica 0 is of the earlier build again");
    world.replace(0, &this);
    world.all_vote();

    world.types(&mut page, &this, "generate resources/");
    world.types(&mut page, &this, "set");
    world.types(&mut page, &this, "verify");
    page.end();
    world.all_vote();
    for replica in 0..REPLICAS {
        let seen = world.policies_seen_by(replica);
        assert!(seen.len() <= 1, "replica {replica} sees {seen:?}");
    }
    world.say("the old policy is dropped");
    let chain = pod.file("tls-config/certChain.pem");
    let before = fs::read_to_string(&chain).expect("chain");
    world.sets(&this);

    // What is no longer in the manifest is nobody any more.
    world.replace(2, &earlier);
    world.say("the earlier build was started again");
    let address = world.replicas.user_api(2).to_string();
    std::thread::sleep(BOUND + Duration::from_secs(1));
    assert!(!world.replicas.is_ready(2), "the earlier build serves");
    for command in ["status", "verify"] {
        let refused = world.runs(&this, &[command, "-c", &address]);
        assert_eq!(refused.code, 1, "{}{}", refused.stdout, refused.stderr);
    }
    let log = world.replicas.log(2);
    assert!(!log.contains("panicked"), "{log}");
    world.say("and is refused");
    world.replace(2, &this);
    world.say("replaced");
    world.all_vote();
    world.join(&this, 2);

    // The pod followed the manifest meanwhile.
    let initializer = pod.container("contrast-initializer").expect("initializer");
    let renewed = initializer.wait_until("a certificate of the latest manifest", DEADLINE, |_| {
        fs::read_to_string(&chain).is_ok_and(|now| now != before)
    });
    renewed.expect("renews");
    world.end();
}

#[test]
fn power_cut_in_the_middle_of_an_upgrade_costs_a_recovery_and_nothing_else() {
    let Some(mut world) = World::begin("power cut", 71, REPLICAS) else {
        return;
    };
    let (earlier, this) = (world.earlier.clone(), world.this.clone());
    let mut page = Page::section("Several Coordinators");
    world.join(&earlier, 0);
    both_in_the_manifest(&mut world, &mut page);
    world.replace(2, &this);
    world.all_vote();

    // Each in turn, whoever leads: it comes back as what it was.
    for replica in 0..REPLICAS {
        world.replicas.crash(replica).expect("crashes");
        std::thread::sleep(Duration::from_secs(1));
        world.all_vote();
    }
    world.say("each was killed and came back");

    // All at once; one of each build is recovered.
    for (replica, build) in [(0, &earlier), (2, &this)] {
        for replica in ORDER {
            world.replicas.kill(replica).expect("is killed");
        }
        for replica in ORDER {
            world.replicas.start(replica).expect("starts");
        }
        let address = world.replicas.user_api(replica).to_string();
        world.succeeds(build, &["recover", "-c", &address]);
        world.all_vote();
        world
            .everybody_works_with_everybody(&format!("power was cut, replica {replica} recovered"));
    }
    for replica in [1, 0] {
        world.replace(replica, &this);
        world.all_vote();
    }
    world.types(&mut page, &this, "status");
    world.types(&mut page, &this, "status");
    world.types(&mut page, &this, "generate resources/");
    world.types(&mut page, &this, "set");
    world.types(&mut page, &this, "verify");
    world.join(&this, 1);
    world.end();
}

#[test]
fn all_coordinators_go_back_as_the_page_says() {
    let Some(mut world) = World::begin("roll back", 72, REPLICAS) else {
        return;
    };
    let (earlier, this) = (world.earlier.clone(), world.this.clone());
    let yaml = world.cluster.owner().file("resources/coordinator.yml");
    let kept = fs::read(&yaml).expect("reads");
    world.join(&earlier, 0);
    both_in_the_manifest(&mut world, &mut Page::section("Several Coordinators"));
    for replica in ORDER {
        world.replace(replica, &this);
        world.all_vote();
    }
    world.everybody_works_with_everybody("all are replaced");

    // The earlier `contrast` with the earlier YAML.
    let mut page = Page::section("Back to the earlier version");
    fs::write(&yaml, &kept).expect("writes");
    world.types(&mut page, &earlier, "generate --keep-coordinator");
    assert_eq!(world.coordinator_document(), world.documents.earlier);
    world.types(&mut page, &earlier, "set");
    for replica in ORDER {
        world.replace(replica, &earlier);
        world.all_vote();
    }
    world.types(&mut page, &earlier, "status");
    world.everybody_works_with_everybody("all went back");
    world.types(&mut page, &earlier, "generate resources/");
    world.types(&mut page, &earlier, "set");
    world.types(&mut page, &earlier, "verify");
    page.end();
    let gone = world.this.clone();
    world.replace(1, &gone);
    std::thread::sleep(BOUND + Duration::from_secs(1));
    assert!(!world.replicas.is_ready(1), "the dropped build serves");
    world.replace(1, &earlier);
    world.all_vote();
    world.end();
}
