//! The table of codes. A code keeps its meaning; one that is given up is not used again.

use serde::Serialize;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The deployment does not work as written, or `generate` refuses it.
    Error,
    /// It works, and probably not as meant.
    Warning,
    /// It could be better.
    Advice,
}

impl Severity {
    /// The word in output.
    pub fn word(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Advice => "advice",
        }
    }
}

/// What a code means.
#[derive(Debug, PartialEq, Eq)]
pub struct Rule {
    /// `C` and three digits.
    pub code: &'static str,
    /// The code in words, in kebab case.
    pub name: &'static str,
    /// How bad.
    pub severity: Severity,
    /// What is wrong and why it matters.
    pub summary: &'static str,
    /// What to write instead.
    pub advice: &'static str,
}

impl Rule {
    /// Where the code is described, from the repository's root.
    pub fn reference(&self) -> String {
        format!("docs/reference/lint.md#{}", self.code.to_ascii_lowercase())
    }

    /// The rule with this code or name, in any case.
    pub fn find(text: &str) -> Option<&'static Self> {
        let text = text.trim();
        ALL.iter().copied().find(|rule| {
            rule.code.eq_ignore_ascii_case(text) || rule.name.eq_ignore_ascii_case(text)
        })
    }
}

macro_rules! rules {
    ($($constant:ident = $code:literal $name:literal $severity:ident $summary:literal $advice:literal;)*) => {
        $(
            #[doc = $summary]
            pub static $constant: Rule = Rule {
                code: $code, name: $name, severity: Severity::$severity, summary: $summary, advice: $advice,
            };
        )*
        /// All rules, by code.
        pub static ALL: &[&Rule] = &[$(&$constant),*];
    };
}

rules! {
    IMAGE_WITHOUT_DIGEST = "C001" "image-without-digest" Warning
        "The image has a tag and no digest. A tag means whatever the registry says today; `generate` pins it if it knows the digest, and refuses it otherwise."
        "Write `repository:tag@sha256:<digest>`.";
    IMAGE_MALFORMED = "C002" "image-malformed" Error
        "The image is missing, or is no image reference, so that no policy can be made."
        "Write `[registry/]repository[:tag]@sha256:<64 lower-case hex digits>`.";

    HOST_NAMESPACE = "C011" "host-namespace" Error
        "The pod shares namespaces with its host, or processes between its containers. A confidential pod has a kernel of its own; `generate` refuses it."
        "Remove `hostNetwork`, `hostPID`, `hostIPC` and `shareProcessNamespace`.";
    HOST_PATH = "C012" "host-path" Error
        "A volume is a path of the host, which could put anything there. `generate` refuses it."
        "Use an emptyDir, or a block device under `volumeDevices`.";
    SHARED_FILESYSTEM = "C013" "shared-filesystem-mount" Error
        "A file system of the host is mounted: the host reads, changes and rolls back its files. `generate` refuses it."
        "Use a claim with `volumeMode: Block` under `volumeDevices`; or, where the application expects nothing of the volume, name it in the annotation `untrusted-volumes` of the pod template.";
    PRIVILEGED = "C014" "privileged" Warning
        "The container is privileged: it rules over the guest, and with it over every other container and the certificates of its pod."
        "Remove `privileged`, and add the capabilities that are needed.";
    PRIVILEGE_ESCALATION = "C015" "privilege-escalation" Advice
        "The container runs as an ordinary user and may become root through set-user-ID programs. The policy binds the field as it is."
        "Set `allowPrivilegeEscalation: false` in the container's `securityContext`.";
    UNKNOWN_VOLUME = "C016" "unknown-volume" Error
        "A container mounts a volume that the pod does not have."
        "Declare it under `volumes`, or correct the name.";
    UNSUPPORTED_SUB_PATH = "C017" "unsupported-sub-path" Error
        "`subPathExpr`, or `subPath` of an emptyDir or untrusted volume, leads to nothing that the policy knows. `generate` refuses it."
        "Mount the whole volume.";

    UNKNOWN_ANNOTATION = "C021" "unknown-annotation" Error
        "An annotation or label below `contrast.edgeless.systems/` is not known, so it has no effect. `generate` refuses it."
        "Correct the name, or remove it.";
    INVALID_ANNOTATION = "C022" "invalid-annotation-value" Error
        "The value of an annotation is not one of those that it can have."
        "Write one of the values that the finding names; numbers and truth values need quotes.";
    ANNOTATION_WITHOUT_EFFECT = "C023" "annotation-without-effect" Error
        "An annotation stands where nobody reads it: on the workload instead of the pod template, or as a label, both of which `generate` refuses; or on a Coordinator that it does not apply to. `pod-role` may be a label of the pod template."
        "Move it to `metadata.annotations` of the pod template, or remove it.";

    MESH_WORKLOAD_UNKNOWN = "C030" "mesh-workload-unknown" Warning
        "`allow=` or `identity=` names a workload that none of the files defines as a confidential one. Nobody else has a certificate for it, so nobody is let in, or answers, by that name."
        "Correct it: `name` for the own namespace, `namespace/name`, or `namespace/kind/name` with the kind in lower case.";
    MESH_MALFORMED = "C031" "mesh-annotation-malformed" Error
        "An entry of `servicemesh-ingress` or `servicemesh-egress` does not follow the grammar; the sidecar would not start."
        "Ingress: `name#port#disable-tls`. Egress: `name#127.x.y.z:port#host:port` or `name#transparent#host:port`. Options stand behind a further `#`. Entries are separated by `##`.";
    EGRESS_WITHOUT_TARGET = "C032" "egress-without-target" Error
        "`servicemesh-egress` names no target. `generate` refuses the empty value."
        "Remove the annotation, or write `name#127.x.y.z:port#host:port` or `name#transparent#host:port`.";
    MESH_WITHOUT_INITIALIZER = "C033" "mesh-without-initializer" Warning
        "The pod has the service mesh and skips the Initializer, so nobody installs the certificates that the sidecar waits for."
        "Remove `skip-initializer`, or the annotations of the service mesh.";
    SERVICE_PORT_NOT_SERVED = "C034" "service-port-not-served" Warning
        "A Service leads to a port that the pod's service mesh does not serve: ingress is DISABLED, or the port is UDP and no ingress rule opens it. SCTP is never served."
        "Add an ingress rule: `name#port#true#udp` for UDP; TCP ports need none unless ingress is DISABLED.";
    SERVICE_NEEDS_CERTIFICATE = "C035" "service-needs-client-certificate" Warning
        "A Service for clients outside the cluster leads to a port without an ingress rule. The default asks for a client certificate of the mesh, which outsiders have not."
        "Add the ingress rule `name#port#false`: TLS without client certificate.";
    SERVICE_WITHOUT_MESH = "C036" "service-without-mesh" Advice
        "A Service leads to a confidential pod without the service mesh. Unless the application speaks TLS itself, the traffic is neither encrypted nor authenticated."
        "Add `servicemesh-ingress`; the empty value serves all TCP ports with client certificates.";
    DUPLICATE_PORT = "C037" "duplicate-port" Warning
        "Two containers of a pod declare one port, or two ports have one name. They share one network, so only one can listen, and a Service that names the port may lead to the other."
        "Give each its own port and name.";
    UNKNOWN_TARGET_PORT = "C038" "unknown-target-port" Error
        "A Service names a port that no container of the confidential pods it selects declares."
        "Use a name that stands under `ports` of a container, or the number.";
    EGRESS_TARGET_AMBIGUOUS = "C039" "egress-target-ambiguous" Warning
        "An egress entry dials a name that the certificates of several workloads carry. Each of them may answer in place of the one that is meant."
        "Name who is meant with `#identity=`.";
    EGRESS_TARGET_UNKNOWN = "C040" "egress-target-unknown" Warning
        "An egress entry dials a name that no workload of the files gets into its certificate: a typing error, a Service that is missing, or something outside of the mesh. The sidecar connects to nobody without that name, nor to anybody outside."
        "Correct the name, add the Service, or name the workload with `#identity=`. Dial what is outside of the mesh directly.";

    INJECTED_AT_ADMISSION = "C041" "injected-at-admission" Warning
        "Labels or annotations ask an admission controller to inject containers when the pod is created. The policy knows none of them, so the pod is refused by its guest."
        "Remove them for confidential pods, or inject before `generate`.";
    LIMIT_RANGE = "C042" "limit-range-default" Warning
        "A LimitRange gives limits to containers that have none. Limits decide how many CPUs and how much memory the VM has; the number of CPUs changes the launch measurement."
        "Set the limits of every container, and keep CPU defaults out of namespaces in which `generate` injects containers.";
    AUTOSCALED_RESOURCES = "C043" "autoscaled-resources" Warning
        "A VerticalPodAutoscaler changes the resources of a confidential pod when it is created, and with them the VM's CPUs and its launch measurement."
        "Set `updatePolicy.updateMode: \"Off\"`, and take its recommendations over by hand.";
    SERVICE_ACCOUNT_TOKEN = "C044" "service-account-token" Warning
        "The ServiceAccount turns its token off, and the pod does not say so itself. The policy is made from the pod and still allows the host to mount a token of its choice."
        "Set `automountServiceAccountToken: false` in the pod template, too.";

    COORDINATOR_MISSING = "C051" "coordinator-missing" Error
        "There are confidential pods and no Coordinator that could attest them. `generate` refuses it."
        "Add a Coordinator: a workload with the annotation, or the label of the pod template, `pod-role: coordinator`.";
    COORDINATOR_DUPLICATED = "C052" "coordinator-duplicated" Error
        "More than one workload is the Coordinator. `generate` refuses it."
        "Keep one. For several replicas, raise its `replicas`.";
    WORKLOAD_DUPLICATED = "C053" "workload-duplicated" Error
        "Two workloads have the same kind, namespace and name; the cluster would keep the last one."
        "Remove one, or give it another name.";
    UNSUPPORTED_KIND = "C054" "unsupported-kind" Warning
        "An object of a kind that is not known has a runtime class of Contrast in it. It gets no policy, and its pods do not start."
        "Name the place of its pod template with `--pod-template-path`, here and for `generate`.";
    NO_STABLE_NAME = "C055" "no-stable-name" Error
        "The workload has no `metadata.name`. Certificates and secrets need a name that stays the same. `generate` refuses it."
        "Write `metadata.name`.";

    PLAINTEXT_SECRET = "C061" "plaintext-secret" Warning
        "A confidential pod uses a Secret whose values stand in the YAML. The cluster's administrators can read them; as environment variables they stand in the policy, too."
        "Derive it from the workload secret, or fetch it with the mesh certificate from a store that runs confidentially.";
    SECRET_IN_ENVIRONMENT = "C062" "secret-in-environment" Warning
        "An environment variable has the name of a secret and a value in the YAML. It stands in the policy in clear."
        "Derive it from the workload secret, or fetch it with the mesh certificate from a store that runs confidentially.";
}
