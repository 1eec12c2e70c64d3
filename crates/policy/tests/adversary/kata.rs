//! The same verdicts with the engine that kata-agent 3.x embeds, used as the agent uses it.

use regorus_of_kata::{Engine, Value};

use crate::{
    FLAVOURS,
    honest::{Host, Request},
    pods,
};

struct Agent(Engine);

impl Agent {
    fn load(rego: &str) -> Self {
        let mut engine = Engine::new();
        engine.set_strict_builtin_errors(false);
        engine.set_gather_prints(true);
        engine
            .add_policy("agent_policy".to_owned(), rego.to_owned())
            .expect("loads");
        Self(engine)
    }

    /// Whether the agent allows it, and what it prints if not.
    fn allows(&mut self, request: &Request) -> (bool, Vec<String>) {
        self.0
            .set_input(Value::from_json_str(&request.body.to_string()).expect("JSON"));
        let query = format!("data.agent_policy.{}", request.kind);
        let results = self.0.eval_query(query, false).expect("evaluates");
        let prints = self.0.take_prints().expect("prints");
        let verdict = results.result[0].expressions[0].value.clone();
        let allowed = match &verdict {
            Value::Bool(allowed) => *allowed,
            verdict => verdict["allowed"] == Value::from(true),
        };
        if allowed && verdict["ops"] != Value::Undefined {
            let data = verdict["ops"][0]["value"].to_json_str().expect("JSON");
            self.0.clear_data();
            self.0
                .add_data_json(&format!("{{\"pstate\": {data}}}"))
                .expect("data");
        }
        (allowed, prints)
    }
}

#[test]
fn engine_of_kata_gives_the_same_verdicts_and_prints_one_reason() {
    for pod in pods::all() {
        let mut agent = Agent::load(&pod.rego());
        for request in Host::new(&pod, FLAVOURS[0]).life() {
            if request.kind == "CreateContainerRequest" {
                let mut changed = request.clone();
                changed.body["OCI"]["Process"]["Args"] = serde_json::json!(["/evil"]);
                changed.body["OCI"]["Process"]["Cwd"] = serde_json::json!("/evil");
                let (allowed, prints) = agent.allows(&changed);
                assert!(!allowed);
                assert_eq!(prints.len(), 1, "{prints:?}");
                assert!(prints[0].contains("C16 arguments: expected"), "{prints:?}");
            }
            let (allowed, prints) = agent.allows(&request);
            assert!(
                allowed,
                "{} {} {}: {prints:?}",
                pod.file, request.kind, request.container
            );
        }
    }
}
