//! Asking one of several Coordinators, and asking again while that can help.
//!
//! The addresses are asked in the order in which they were given; the first one that answers is it. The next one is asked when
//! nobody answers or the one that does is unavailable or has no part in the deployment yet, never when evidence is refused or a
//! request is: an impostor must be noticed, not skipped.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::{
    address::CoordinatorAddress, call::CallError, diagnostic::Failure, dial::DialError,
    output::Spinner,
};

/// Between two rounds over all addresses.
const PAUSE: Duration = Duration::from_secs(1);
/// How long `verify`, `recover` and `status` go on while a Coordinator answers that it is unavailable: longer than an election.
const BRIEF: Duration = Duration::from_secs(10);

/// Why an attempt failed.
#[derive(Debug)]
pub enum AttemptError {
    /// No attested connection.
    Dial(DialError),
    /// The Coordinator did not do what it was asked.
    Call(CallError),
    /// Another attempt would fail in the same way.
    Final(Failure),
}

impl AttemptError {
    /// For a request that must not be repeated when it may have taken effect.
    pub fn once(error: CallError) -> Self {
        match error {
            CallError::Broken { .. } => Self::Final(error.into()),
            refused => Self::Call(refused),
        }
    }

    /// Whether the next address may do better.
    fn may_pass_elsewhere(&self) -> bool {
        match self {
            Self::Dial(DialError::Unresolved { .. }) => true,
            Self::Dial(error) => error.is_transient(),
            Self::Call(error) => error.is_transient() || error.is_of_one_replica(),
            Self::Final(_) => false,
        }
    }
}

impl From<DialError> for AttemptError {
    fn from(error: DialError) -> Self {
        Self::Dial(error)
    }
}

impl From<CallError> for AttemptError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<Failure> for AttemptError {
    fn from(failure: Failure) -> Self {
        Self::Final(failure)
    }
}

impl From<AttemptError> for Failure {
    fn from(error: AttemptError) -> Self {
        match error {
            AttemptError::Dial(error) => error.into(),
            AttemptError::Call(error) => error.into(),
            AttemptError::Final(failure) => failure,
        }
    }
}

/// Which Coordinator to ask now, and whether to ask on.
#[derive(Debug)]
pub struct Attempts<'a> {
    addresses: &'a [CoordinatorAddress],
    position: usize,
    deadline: Instant,
    /// Whether Coordinators that do not listen are waited for.
    waits_for_start: bool,
    /// Whether another round can help.
    again: bool,
    /// The failure of this round that says most.
    failure: Option<AttemptError>,
}

impl<'a> Attempts<'a> {
    /// Goes on for `total`, also while nobody listens. There must be at least one address.
    pub fn patient(addresses: &'a [CoordinatorAddress], total: Duration) -> Self {
        let now = Instant::now();
        Self {
            addresses,
            position: 0,
            deadline: now.checked_add(total).unwrap_or(now),
            waits_for_start: true,
            again: false,
            failure: None,
        }
    }

    /// Goes on for some seconds while a Coordinator answers that it is unavailable. There must be at least one address.
    pub fn brief(addresses: &'a [CoordinatorAddress]) -> Self {
        Self {
            waits_for_start: false,
            ..Self::patient(addresses, BRIEF)
        }
    }

    /// Asks one after the other until one answers, and says which one did.
    ///
    /// # Errors
    /// As [`Self::next`].
    pub async fn first<T>(
        mut self,
        spinner: &Spinner,
        mut ask: impl AsyncFnMut(&CoordinatorAddress) -> Result<T, AttemptError>,
    ) -> Result<(&'a CoordinatorAddress, T), AttemptError> {
        loop {
            let address = self.address();
            match ask(address).await {
                Ok(answer) => return Ok((address, answer)),
                Err(error) => self.next(error, spinner).await?,
            }
        }
    }

    /// Whom to ask now.
    pub fn address(&self) -> &'a CoordinatorAddress {
        &self.addresses[self.position]
    }

    /// Moves on after a failed attempt, with a pause when every address was asked.
    ///
    /// # Errors
    /// When another attempt cannot help, or time is over: the failure of this round that says most.
    pub async fn next(
        &mut self,
        error: AttemptError,
        spinner: &Spinner,
    ) -> Result<(), AttemptError> {
        if !error.may_pass_elsewhere() {
            return Err(error);
        }
        tracing::info!(address = %self.address(), ?error, "Coordinator is not available");
        self.again |= match &error {
            AttemptError::Dial(error) => self.waits_for_start && error.is_transient(),
            AttemptError::Call(error) => error.is_transient(),
            AttemptError::Final(_) => false,
        };
        let failure = match self.failure.take() {
            // A Coordinator that answers says more than one that does not.
            Some(call @ AttemptError::Call(_)) if matches!(error, AttemptError::Dial(_)) => call,
            _ => error,
        };
        self.position += 1;
        if self.position < self.addresses.len() {
            self.failure = Some(failure);
            return Ok(());
        }
        self.position = 0;
        if !std::mem::take(&mut self.again) || Instant::now() + PAUSE > self.deadline {
            return Err(failure);
        }
        spinner.message(&format!("waiting for {}", shown(self.addresses)));
        sleep(PAUSE).await;
        Ok(())
    }
}

/// The addresses for people.
pub fn shown(addresses: &[CoordinatorAddress]) -> String {
    let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
    match addresses.as_slice() {
        [one] => format!("the Coordinator at {one}"),
        several => format!("a Coordinator at {}", several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use contrast_attestation::VerifyError;
    use tonic::{Code, Status};

    use super::*;
    use crate::{diagnostic::Diagnose as _, exit::Exit};

    fn addresses(count: u16) -> Vec<CoordinatorAddress> {
        (1..=count)
            .map(|port| CoordinatorAddress {
                host: "c".into(),
                port,
            })
            .collect()
    }

    fn nobody(at: &CoordinatorAddress) -> AttemptError {
        AttemptError::Dial(DialError::Unreachable {
            address: at.clone(),
            source: io::ErrorKind::ConnectionRefused.into(),
        })
    }

    fn answer(code: Code) -> AttemptError {
        AttemptError::Call(CallError::new("answer", Status::new(code, "no")))
    }

    /// Ports that are asked until `attempts` gives up or ten were asked, and the failure.
    async fn asked(
        mut attempts: Attempts<'_>,
        outcome: impl Fn(&CoordinatorAddress) -> AttemptError,
    ) -> (Vec<u16>, Option<AttemptError>) {
        let spinner = Spinner::hidden();
        let mut ports = Vec::new();
        while ports.len() < 10 {
            let address = attempts.address();
            ports.push(address.port);
            if let Err(failure) = attempts.next(outcome(address), &spinner).await {
                return (ports, Some(failure));
            }
        }
        (ports, None)
    }

    #[tokio::test(start_paused = true)]
    async fn next_address_is_asked_when_nobody_listens_and_each_only_once() {
        let addresses = addresses(3);
        let (ports, failure) = asked(Attempts::brief(&addresses), nobody).await;
        assert_eq!(ports, [1, 2, 3]);
        assert!(matches!(failure, Some(AttemptError::Dial(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn patience_waits_for_coordinators_that_do_not_listen_yet() {
        let addresses = addresses(2);
        let patient = Attempts::patient(&addresses, Duration::from_secs(2));
        let start = Instant::now();
        let (ports, failure) = asked(patient, nobody).await;
        assert_eq!(ports, [1, 2, 1, 2, 1, 2]);
        assert!(failure.is_some());
        assert_eq!(start.elapsed(), Duration::from_secs(2));
    }

    #[tokio::test(start_paused = true)]
    async fn unavailable_coordinator_is_asked_again_and_explains_the_failure() {
        let addresses = addresses(2);
        let (ports, failure) = asked(Attempts::brief(&addresses), |at| match at.port {
            1 => answer(Code::Unavailable),
            _ => nobody(at),
        })
        .await;
        assert_eq!(ports.len(), 10);
        assert!(failure.is_none(), "gave up early: {failure:?}");
        let late = Attempts {
            deadline: Instant::now(),
            ..Attempts::brief(&addresses)
        };
        let (ports, failure) = asked(late, |at| match at.port {
            1 => answer(Code::Unavailable),
            _ => nobody(at),
        })
        .await;
        assert_eq!(ports, [1, 2]);
        assert!(
            matches!(failure, Some(AttemptError::Call(_))),
            "{failure:?}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_final_and_no_other_address_is_asked() {
        let addresses = addresses(2);
        let patient = || Attempts::patient(&addresses, Duration::from_secs(60));
        let (ports, _) = asked(patient(), |_| answer(Code::PermissionDenied)).await;
        assert_eq!(ports, [1]);
        let (ports, failure) = asked(patient(), |at| {
            AttemptError::Dial(DialError::Refused {
                address: at.clone(),
                source: VerifyError::NoReferenceValue {
                    found: contrast_attestation::Tee::Tdx,
                    available: "none".into(),
                },
            })
        })
        .await;
        assert_eq!(ports, [1], "an impostor was skipped");
        let failure = Failure::from(failure.expect("refused"));
        assert_eq!(failure.exit(), Exit::Negative);
    }

    #[test]
    fn a_request_that_may_have_taken_effect_is_not_repeated_when_it_must_not_be() {
        let broken = Status::from_error(Box::new(io::Error::other("reset")));
        let error = AttemptError::once(CallError::new("recover", broken));
        assert!(!error.may_pass_elsewhere());
        let unavailable = CallError::new("recover", Status::unavailable("election"));
        assert_eq!(unavailable.exit(), Exit::Unavailable);
        assert!(AttemptError::once(unavailable).may_pass_elsewhere());
    }
}
