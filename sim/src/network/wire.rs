use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use contrast_attestation::PolicyHash;
use contrast_coordinator::replica::{
    message::{Place, Reply, Request},
    peers::{CallError, EvidenceSummary, PeerFailure, Trust},
};
use openraft::{AsyncRuntime, rt::Select2};
use tokio::sync::oneshot;

use super::{Endpoint, Identity, forge};
use crate::{
    checker::Checker,
    dice::Dice,
    journal::Journal,
    runtime::{Node, NodeRuntime, sleep_in_world, spawn_in_world},
};

/// How many questions the adversary keeps.
const RECORDED: usize = 4096;

type Answer = Result<Reply, CallError>;

/// One direction between two places.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Nothing passes while it is cut, what is under way included.
    pub cut: bool,
    /// How many of 1000 messages are lost.
    pub loss: u64,
    /// How many of 1000 questions arrive twice.
    pub doubles: u64,
    /// Least and greatest delay.
    pub delay: (Duration, Duration),
}

impl Default for Link {
    fn default() -> Self {
        Self {
            cut: false,
            loss: 0,
            doubles: 0,
            delay: (Duration::from_micros(200), Duration::from_millis(2)),
        }
    }
}

/// A process that answers.
#[derive(Clone)]
struct Process {
    node: Node,
    identity: Arc<Identity>,
    endpoint: Arc<dyn Endpoint>,
}

#[derive(Clone)]
struct Question {
    from: Arc<Identity>,
    to: Place,
    request: Request,
    trust: Trust,
}

#[derive(Default)]
struct Content {
    links: BTreeMap<(Place, Place), Link>,
    usual: Link,
    processes: BTreeMap<Place, Vec<Process>>,
    listed: Vec<Place>,
    hidden: BTreeSet<Place>,
    recorded: Vec<Question>,
    seen: u64,
    proven: BTreeMap<(Place, Place), EvidenceSummary>,
    coordinators: BTreeSet<PolicyHash>,
    denied: BTreeSet<PolicyHash>,
}

/// The network between all places. Clones are the same network.
#[derive(Clone)]
pub struct Network {
    content: Arc<Mutex<Content>>,
    dice: Arc<Dice>,
    journal: Journal,
    checker: Checker,
}

impl Network {
    /// A network without processes, all of whose links work.
    pub fn new(dice: Dice, journal: &Journal, checker: &Checker) -> Self {
        Self {
            content: Arc::default(),
            dice: Arc::new(dice),
            journal: journal.clone(),
            checker: checker.clone(),
        }
    }

    /// Lists a place in discovery.
    pub fn list(&self, place: &Place) {
        self.content().listed.push(place.clone());
    }

    /// Removes a place from discovery, or hides it for a while.
    pub fn hide(&self, place: &Place, hidden: bool) {
        let mut content = self.content();
        match hidden {
            true => content.hidden.insert(place.clone()),
            false => content.hidden.remove(place),
        };
    }

    /// Policies that some manifest of the deployment names as Coordinators. Secrets may go to these.
    pub fn allow_secrets_to(&self, policy: PolicyHash) {
        self.content().coordinators.insert(policy);
    }

    /// A manifest that is set for certain does not name this policy any more, nor will a later one: a replica that begins to answer
    /// from now on gives it no secrets.
    pub fn deny_secrets_to(&self, policy: PolicyHash) {
        self.content().denied.insert(policy);
    }

    /// Puts a process at its place. Processes there that have ended are forgotten; one that lives stays beside it, as a clone does.
    pub fn attach(&self, node: &Node, identity: Arc<Identity>, endpoint: Arc<dyn Endpoint>) {
        let mut content = self.content();
        let processes = content.processes.entry(identity.place.clone()).or_default();
        processes.retain(|process| process.node.is_alive());
        processes.push(Process {
            node: node.clone(),
            identity,
            endpoint,
        });
    }

    /// Forgets all processes and questions: at the end of a run, so that its memory is given back. Processes know the network, too.
    pub fn end(&self) {
        let mut content = self.content();
        content.processes.clear();
        content.recorded.clear();
    }

    /// Sets every link to `link`, those included that differ.
    pub fn set_all(&self, link: Link) {
        let mut content = self.content();
        content.links.clear();
        content.usual = link;
    }

    /// Changes the direction from one place to another.
    pub fn change(&self, from: &Place, to: &Place, change: impl FnOnce(&mut Link)) {
        let mut content = self.content();
        let usual = content.usual.clone();
        let key = (from.clone(), to.clone());
        change(content.links.entry(key).or_insert(usual));
    }

    pub(super) fn discover(&self) -> Vec<Place> {
        let content = self.content();
        let listed = content.listed.iter();
        listed
            .filter(|place| !content.hidden.contains(*place))
            .cloned()
            .collect()
    }

    pub(super) fn evidence(&self, at: &Place, of: &Place) -> Option<EvidenceSummary> {
        self.content()
            .proven
            .get(&(at.clone(), of.clone()))
            .cloned()
    }

    /// Asks; the channel breaks when no answer will come.
    pub(super) fn ask(
        &self,
        from: &Arc<Identity>,
        to: Place,
        request: Request,
        trust: Trust,
    ) -> oneshot::Receiver<Answer> {
        let (sender, receiver) = oneshot::channel();
        let question = Question {
            from: Arc::clone(from),
            to,
            request,
            trust,
        };
        self.record(&question);
        match &question.request {
            Request::Raft(call) => self.checker.watch(&from.name, call),
            Request::Join { cluster, node, .. }
            | Request::Confirm { cluster, node }
            | Request::Leave { cluster, node } => {
                self.checker.identify(&from.name, *cluster, *node);
            }
            _ => {}
        }
        let link = self.link(&from.place, &question.to);
        if self.dice.chance(link.doubles) {
            self.send(question.clone(), None);
        }
        self.send(question, Some(sender));
        receiver
    }

    /// Delivers a recorded question again, as it was, to whoever is at its place now. The answer is lost.
    pub fn replay(&self) {
        let question = self.dice.pick(&self.content().recorded).cloned();
        let Some(question) = question else { return };
        self.journal.event(format_args!(
            "network: {} of {} to {} arrives again",
            question.request.name(),
            question.from.name,
            question.to
        ));
        self.deliver(question, None);
    }

    /// Lets a stranger ask a recorded question, altered or not, at any place.
    pub fn forge(&self, stranger: &Arc<Identity>) {
        let content = self.content();
        let question = self.dice.pick(&content.recorded).cloned();
        let places: Vec<Place> = content.processes.keys().cloned().collect();
        drop(content);
        let (Some(mut question), Some(to)) = (question, self.dice.pick(&places)) else {
            return;
        };
        question.request = forge::alter(&self.dice, question.request);
        question.from = Arc::clone(stranger);
        question.to = to.clone();
        question.trust = Trust::Anyone;
        self.journal.event(format_args!(
            "network: {} asks {to} {}",
            stranger.name,
            question.request.name()
        ));
        // With somebody who listens, so that an answer is looked at.
        let (sender, receiver) = oneshot::channel();
        self.deliver(question, Some(sender));
        spawn_in_world(async move {
            drop(receiver.await);
        });
    }

    fn record(&self, question: &Question) {
        let mut content = self.content();
        content.seen += 1;
        // A fair sample of all that was ever sent.
        match content.recorded.len() < RECORDED {
            true => content.recorded.push(question.clone()),
            false => {
                let at = self.dice.within(0..content.seen) as usize;
                if let Some(place) = content.recorded.get_mut(at) {
                    *place = question.clone();
                }
            }
        }
    }

    fn send(&self, question: Question, answer: Option<oneshot::Sender<Answer>>) {
        let Some(delay) = self.passage(&question.from.place, &question.to) else {
            return;
        };
        let network = self.clone();
        spawn_in_world(async move {
            sleep_in_world(delay).await;
            if !network.link(&question.from.place, &question.to).cut {
                network.deliver(question, answer);
            }
        });
    }

    fn deliver(&self, question: Question, answer: Option<oneshot::Sender<Answer>>) {
        let Question {
            from,
            to,
            request,
            trust,
        } = question;
        let Some(process) = self.process_at(&to) else {
            let refused = CallError::Unreachable {
                place: to.clone(),
                reason: "connection refused".to_owned(),
            };
            return self.answer(&to, &from.place, Err(refused), answer);
        };
        if let Trust::CoordinatorOf(trusted) = &trust {
            if let Err(reason) = process.identity.check(trusted) {
                let error = CallError::NotBelieved {
                    place: to.clone(),
                    reason,
                };
                return self.answer(&to, &from.place, Err(error), answer);
            }
            self.prove(&from.place, &process.identity);
        }
        self.journal
            .detail((request.name(), &from.name, &process.identity.name));
        if matches!(request, Request::OfferKey { .. }) {
            let (content, to) = (self.content(), &process.identity);
            // Who offers may not know yet that a manifest is superseded, but it was one of this deployment.
            let believed = to.genuine && content.coordinators.contains(&to.policy);
            drop(content);
            self.watch("a mesh CA key was offered", &process.identity, believed);
        }
        self.serve(process, from, request, answer);
    }

    fn serve(
        &self,
        process: Process,
        from: Arc<Identity>,
        request: Request,
        answer: Option<oneshot::Sender<Answer>>,
    ) {
        let network = self.clone();
        let Process {
            node,
            identity,
            endpoint,
        } = process;
        let believed = self.may_have_secrets(&from);
        let handled = endpoint.handle(Arc::clone(&from), request);
        // A server may hear that its client has gone, and drop what it was doing for it.
        let hears = self.dice.chance(500);
        let task = async move {
            let (outcome, answer) = match answer {
                Some(mut answer) if hears => {
                    match NodeRuntime::select2(handled, answer.closed()).await {
                        Select2::First(outcome) => (outcome, Some(answer)),
                        Select2::Second(()) => return,
                    }
                }
                answer => (handled.await, answer),
            };
            // A process that ended within this very poll has said nothing.
            if Node::current().is_none_or(|node| !node.is_alive()) {
                return;
            }
            network.reply(&identity, (&from, believed), outcome, answer);
        };
        drop(node.spawn(task));
    }

    fn reply(
        &self,
        server: &Arc<Identity>,
        (client, believed): (&Arc<Identity>, bool),
        outcome: Result<Reply, PeerFailure>,
        answer: Option<oneshot::Sender<Answer>>,
    ) {
        match &outcome {
            Ok(Reply::Secrets(_)) => self.watch("the seed was given", client, believed),
            Ok(Reply::Key(Some(_))) => self.watch("a mesh CA key was given", client, believed),
            _ => {}
        }
        let place = server.place.clone();
        let outcome = outcome.map_err(|failure| match failure {
            PeerFailure::NotCoordinator(reason) => CallError::NotBelievedBy { place, reason },
            failure => CallError::Failed { place, failure },
        });
        self.answer(&server.place, &client.place, outcome, answer);
    }

    /// Sends an answer back, if it was asked for and gets through.
    fn answer(
        &self,
        from: &Place,
        to: &Place,
        outcome: Answer,
        answer: Option<oneshot::Sender<Answer>>,
    ) {
        let (Some(answer), Some(delay)) = (answer, self.passage(from, to)) else {
            return;
        };
        let (network, from, to) = (self.clone(), from.clone(), to.clone());
        spawn_in_world(async move {
            sleep_in_world(delay).await;
            if !network.link(&from, &to).cut {
                // Nobody may wait for it any more.
                drop(answer.send(outcome));
            }
        });
    }

    /// How long a message takes; `None` when it does not arrive.
    fn passage(&self, from: &Place, to: &Place) -> Option<Duration> {
        let link = self.link(from, to);
        let lost = link.cut || self.dice.chance(link.loss);
        let delay = self.dice.duration(link.delay.0..link.delay.1);
        (!lost).then_some(delay)
    }

    fn link(&self, from: &Place, to: &Place) -> Link {
        let content = self.content();
        let link = content.links.get(&(from.clone(), to.clone()));
        link.unwrap_or(&content.usual).clone()
    }

    fn process_at(&self, place: &Place) -> Option<Process> {
        let content = self.content();
        let alive: Vec<&Process> = content
            .processes
            .get(place)?
            .iter()
            .filter(|process| process.node.is_alive())
            .collect();
        self.dice.pick(&alive).map(|process| (*process).clone())
    }

    fn prove(&self, at: &Place, of: &Identity) {
        let key = (at.clone(), of.place.clone());
        self.content().proven.insert(key, of.summary());
    }

    fn may_have_secrets(&self, who: &Identity) -> bool {
        let content = self.content();
        let known = content.coordinators.contains(&who.policy);
        who.genuine && known && !content.denied.contains(&who.policy)
    }

    fn watch(&self, what: &str, to: &Identity, believed: bool) {
        if !believed {
            self.journal.broken(format_args!(
                "{what} to {}, which is no genuine Coordinator of the manifest",
                to.name
            ));
        }
    }

    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Network")
    }
}
