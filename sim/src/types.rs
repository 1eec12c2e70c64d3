use contrast_coordinator::cluster::{
    Answer, Command, Leader, LogEntry, Node, NodeId, NodeVote, Payload,
};

use crate::runtime::NodeRuntime;

openraft::declare_raft_types!(
    /// The cluster's types on the simulated runtime.
    pub SimTypes:
        D = Command,
        R = Answer,
        NodeId = NodeId,
        Node = Node,
        Term = u64,
        LeaderId = Leader,
        Vote = NodeVote,
        Payload = Payload,
        Entry = LogEntry,
        AsyncRuntime = NodeRuntime,
);
