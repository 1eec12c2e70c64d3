use std::fmt;

/// What a pod with a given policy may do beyond being a workload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Hash)]
pub enum Role {
    /// Receives a mesh certificate and its workload secret. Written as the empty string.
    #[default]
    Workload,
    /// Additionally may hold the seed and the mesh CA key. Written `coordinator`; at least one
    /// policy has it, and several while Coordinators are upgraded one by one.
    Coordinator,
}

impl Role {
    /// Reads the `Role` field.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        match text {
            "" => Some(Self::Workload),
            "coordinator" => Some(Self::Coordinator),
            _ => None,
        }
    }

    /// The `Role` field's text.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Workload => "",
            Self::Coordinator => "coordinator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Workload => "workload",
            Self::Coordinator => "coordinator",
        })
    }
}
