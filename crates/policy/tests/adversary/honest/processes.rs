//! What processes get: arguments, environment, capabilities; and the probes that are executed.

use serde_json::{Value, json};

use super::{ALL_CAPABILITIES, DEFAULT_CAPABILITIES, Host, UID, list, names, path_of};

impl Host<'_> {
    pub(super) fn environment(&self, container: &Value, image: &Value) -> Vec<(String, String)> {
        let mut env: Vec<(String, String)> = Vec::new();
        let put = |env: &mut Vec<(String, String)>, name: &str, value: &str| {
            env.retain(|(other, _)| other != name);
            env.push((name.to_owned(), value.to_owned()));
        };
        put(
            &mut env,
            "PATH",
            path_of("").split_once('=').map_or("", |(_, value)| value),
        );
        if container["tty"] == true {
            put(&mut env, "TERM", "xterm");
        }
        for variable in list(image, "Env") {
            let (name, value) = variable
                .as_str()
                .unwrap_or_default()
                .split_once('=')
                .unwrap_or_default();
            put(&mut env, name, value);
        }
        put(&mut env, "HOSTNAME", &self.hostname());
        for from in list(container, "envFrom") {
            let name = from["configMapRef"]["name"].as_str().unwrap_or_default();
            for (key, value) in self.pod.config("ConfigMap", name) {
                put(&mut env, &key, &String::from_utf8_lossy(&value));
            }
        }
        let own: Vec<(String, String)> = Vec::new();
        let mut known = own;
        for variable in list(container, "env") {
            let name = variable["name"].as_str().unwrap_or_default();
            let value = match variable.get("valueFrom") {
                None => expand(variable["value"].as_str().unwrap_or_default(), &known),
                Some(from) => self.value(from),
            };
            put(&mut env, name, &value);
            known.push((name.to_owned(), value));
        }
        if self.pod.spec()["enableServiceLinks"] != false {
            put(&mut env, "API_SERVICE_HOST", "10.0.0.9");
            put(&mut env, "API_PORT_80_TCP", "tcp://10.0.0.9:80");
        }
        put(&mut env, "KUBERNETES_SERVICE_HOST", "10.0.0.1");
        put(&mut env, "KUBERNETES_PORT_443_TCP_PROTO", "tcp");
        env
    }

    pub(super) fn value(&self, from: &Value) -> String {
        if let Some(key) = from.get("secretKeyRef") {
            let name = key["name"].as_str().unwrap_or_default();
            let values = self.pod.config("Secret", name);
            let value = values.get(key["key"].as_str().unwrap_or_default()).cloned();
            return String::from_utf8_lossy(&value.unwrap_or_default()).into_owned();
        }
        if from.get("resourceFieldRef").is_some() {
            return "4".to_owned();
        }
        match from["fieldRef"]["fieldPath"].as_str().unwrap_or_default() {
            "metadata.name" => self.name.clone(),
            "metadata.namespace" => self.pod.namespace.clone(),
            "metadata.uid" => UID.to_owned(),
            "spec.nodeName" => "node-1.example".to_owned(),
            "spec.serviceAccountName" => self.pod.spec()["serviceAccountName"]
                .as_str()
                .unwrap_or("default")
                .to_owned(),
            "metadata.labels['app']" => self.pod.template()["metadata"]["labels"]["app"]
                .as_str()
                .unwrap_or_default()
                .to_owned(),
            "status.podIP" => "10.244.0.14".to_owned(),
            "status.hostIP" => "192.0.2.7".to_owned(),
            other => other.to_owned(),
        }
    }

    pub(super) fn probes(&mut self, container: &Value, id_: &str) {
        let probes =
            ["livenessProbe", "readinessProbe", "startupProbe"].map(|probe| &container[probe]);
        let hooks = ["postStart", "preStop"].map(|hook| &container["lifecycle"][hook]);
        let commands: Vec<Value> = probes
            .into_iter()
            .chain(hooks)
            .map(|handler| handler["exec"]["command"].clone())
            .collect();
        for command in commands.into_iter().filter(Value::is_array) {
            let request = self.execution(container, id_, "probe-1", &command);
            self.push("ExecProcessRequest", id_, request);
            let body = json!({"container_id": id_, "exec_id": "probe-1"});
            self.push("WaitProcessRequest", id_, body);
        }
    }

    /// `contrast mesh check --pod`, in the sidecar of the service mesh.
    pub(super) fn mesh_check(&mut self, container: &Value, id_: &str) {
        let command = json!(["/bin/service-mesh", "check", "--json"]);
        let request = self.execution(container, id_, "check-1", &command);
        self.push("ExecProcessRequest", id_, request);
        if let Some(request) = self.requests.last_mut() {
            request.role = "check";
        }
        let body = json!({"container_id": id_, "exec_id": "check-1", "len": 32768});
        self.push("ReadStreamRequest", id_, body);
        let body = json!({"container_id": id_, "exec_id": "check-1"});
        self.push("WaitProcessRequest", id_, body);
    }

    fn execution(&self, container: &Value, id_: &str, name: &str, command: &Value) -> Value {
        let image = self.pod.image(container).clone();
        let created = self.requests.iter().rev().find(|request| {
            request.body["container_id"] == id_ && request.kind == "CreateContainerRequest"
        });
        let own = created
            .map(|request| request.body["OCI"]["Process"].clone())
            .unwrap_or_default();
        let environment = self.environment(container, &image);
        let variables: Vec<String> = environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        let process = json!({
            "Args": command, "Cwd": own["Cwd"], "Env": variables, "NoNewPrivileges": own["NoNewPrivileges"], "Terminal": false,
            "User": own["User"], "SelinuxLabel": "", "ApparmorProfile": "", "Rlimits": [], "Capabilities": null,
        });
        json!({"container_id": id_, "exec_id": name, "string_user": null, "process": process})
    }
}

pub(super) fn capabilities(security: &Value) -> Vec<String> {
    if security["privileged"] == true {
        return names(ALL_CAPABILITIES);
    }
    let given = |key: &str| -> Vec<String> {
        let names = security["capabilities"][key]
            .as_array()
            .cloned()
            .unwrap_or_default();
        names
            .iter()
            .filter_map(|name| name.as_str().map(|name| format!("CAP_{name}")))
            .collect()
    };
    let dropped = given("drop");
    let all = dropped.iter().any(|name| name == "CAP_ALL");
    let kept = names(DEFAULT_CAPABILITIES)
        .into_iter()
        .filter(|name| !all && !dropped.contains(name));
    kept.chain(given("add")).collect()
}

pub(super) fn arguments(container: &Value, image: &Value, env: &[(String, String)]) -> Vec<String> {
    let own = |key: &str| -> Vec<String> {
        let words = container[key].as_array().cloned().unwrap_or_default();
        words
            .iter()
            .filter_map(Value::as_str)
            .map(|word| expand(word, env))
            .collect()
    };
    let of_image = |key: &str| -> Vec<String> {
        list(image, key)
            .iter()
            .filter_map(|word| word.as_str().map(str::to_owned))
            .collect()
    };
    let (command, args) = (own("command"), own("args"));
    match (command.is_empty(), args.is_empty()) {
        (false, _) => [command, args].concat(),
        (true, false) => [of_image("Entrypoint"), args].concat(),
        (true, true) => [of_image("Entrypoint"), of_image("Cmd")].concat(),
    }
}

pub(super) fn expand(text: &str, env: &[(String, String)]) -> String {
    let escaped = text.replace("$$", "\u{1}");
    let filled = env.iter().fold(escaped, |text, (name, value)| {
        text.replace(&format!("$({name})"), value)
    });
    filled.replace('\u{1}', "$")
}
