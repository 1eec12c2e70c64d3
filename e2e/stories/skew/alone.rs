//! One Coordinator: it comes back with the same state directory, and a seed share owner hands the seed back.

use crate::{page::Page, world::World};

#[test]
fn one_coordinator_is_replaced_on_its_own_state_and_back() {
    let Some(mut world) = World::begin("one Coordinator", 73, 1) else {
        return;
    };
    let (earlier, this) = (world.earlier.clone(), world.this.clone());
    let mut page = Page::section("One Coordinator");
    world.join(&earlier, 0);
    world.everybody_works_with_everybody("both builds work with the earlier Coordinator");
    world.change_image();
    world.types(&mut page, &this, "generate --keep-coordinator");
    world.documents.this = world.coordinator_document();
    world.types(&mut page, &this, "set");

    world.replace(0, &this);
    let status = world.status(0);
    assert_eq!(status["role"], "waiting", "{status}");
    world.types(&mut page, &this, "recover");
    world.all_vote();
    world.types(&mut page, &this, "status");
    world.everybody_works_with_everybody("this build goes on with the state of the earlier one");

    // Back on what this build wrote, after a power cut, and forth.
    for build in [&earlier, &this] {
        world.replicas.kill(0).expect("is killed");
        world.install(0, build);
        world.replicas.start(0).expect("starts");
        let address = world.everywhere();
        world.succeeds(build, &["recover", "-c", &address]);
        world.all_vote();
        world.everybody_works_with_everybody("the other build goes on");
    }

    world.types(&mut page, &this, "generate resources/");
    world.types(&mut page, &this, "set");
    world.types(&mut page, &this, "verify");
    page.end();
    world.join(&this, 0);
    world.end();
}
