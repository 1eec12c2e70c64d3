//! The runtime policy of a pod: build it, evaluate it, explain it; and the initdata document that carries it.
//!
//! The policy is Rego, evaluated by kata-agent inside the guest for every request that comes from the host. The rules are the
//! same for every pod (`rules/agent.rego`); what differs is the data behind them, a [`PodPolicy`]. An [`Initdata`] document
//! wraps both; its SHA-256 is what the hardware reports and the manifest lists.
//!
//! What the rules enforce beyond today's genpolicy: containers are created in their declared order and each once at a time,
//! no container starts before the pod's gates (Initializer, service mesh) did, and declared environment variables must be
//! there.

mod build;
mod cases;
mod difference;
mod evaluate;
mod injected;
mod model;
mod rules;

pub use build::{BuildError, ConfigObjects, PodName, PodSource};
pub use cases::{CaseVerdict, RecordedCase, judge_cases};
pub use contrast_initdata::{INITDATA_ANNOTATION, Initdata, InitdataError};
pub use difference::{Change, Difference, differences};
pub use evaluate::{Decision, Engine, EvaluateError};
pub use injected::{CIPHERTEXT_PATH, INITIALIZER, MESH_CHECK, SERVICE_MESH, SERVICE_MESH_PROGRAM};
pub use model::{
    ContainerPolicy, Content, CopyPolicy, DataError, EnvFact, FilePolicy, ImagePolicy, MountKind,
    MountPolicy, Part, PodPolicy, ProcessPolicy, SandboxPolicy, Stage, Stream, Template,
};
