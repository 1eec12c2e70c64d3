use std::{net::SocketAddr, str::FromStr};

use clap::Args;

use super::{Discovery, Source, discovery::SourceError};
use crate::replica::message::Place;

/// Where this replica and the others are, as flags and environment variables of a program.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[group(id = "peer options")]
#[command(next_help_heading = "Replication")]
pub struct Options {
    /// Address of the peer API (gRPC over mutually attested TLS), for other replicas of this Coordinator.
    #[arg(
        long,
        env = "CONTRAST_PEER_API_ADDRESS",
        default_value = "0.0.0.0:7778",
        value_name = "IP:PORT"
    )]
    pub peer_api_address: SocketAddr,

    /// Where replicas may be, separated by commas: dns:NAME:PORT for all addresses of a name (a headless Service), HOST:PORT for a
    /// single one. Not trusted: every replica proves itself. Empty: this Coordinator is alone.
    #[arg(
        long,
        env = "CONTRAST_PEERS",
        default_value = "",
        value_name = "PEERS",
        hide_default_value = true
    )]
    pub peers: PeerList,

    /// HOST:PORT by which other replicas reach this one, the same after every restart [default: the bound address].
    #[arg(
        long,
        env = "CONTRAST_PEER_ADVERTISE_ADDRESS",
        value_name = "HOST:PORT",
        value_parser = advertised
    )]
    pub peer_advertise_address: Option<Place>,
}

/// The option cannot be followed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OptionsError {
    /// Others cannot reach `0.0.0.0`.
    #[error(
        "--peers is set, but the peer API is bound to {bound}, which is no address that other replicas can reach; expected \
         --peer-advertise-address (CONTRAST_PEER_ADVERTISE_ADDRESS) with this replica's stable DNS name, for a StatefulSet \
         POD.SERVICE.NAMESPACE.svc:{}", bound.port()
    )]
    NoAdvertisedAddress {
        /// What the peer API is bound to.
        bound: SocketAddr,
    },
}

impl Options {
    /// Where this replica is, given what its peer API is bound to.
    ///
    /// # Errors
    /// When there are others, and nothing says how they reach this one.
    pub fn own_place(&self, bound: SocketAddr) -> Result<Place, OptionsError> {
        match &self.peer_advertise_address {
            Some(place) => Ok(place.clone()),
            None if bound.ip().is_unspecified() && !self.peers.0.is_empty() => {
                Err(OptionsError::NoAdvertisedAddress { bound })
            }
            None => Ok(Place::new(&bound.to_string())),
        }
    }

    /// Finds the other replicas.
    pub fn discovery(&self) -> Discovery {
        Discovery::new(self.peers.0.clone())
    }
}

/// The value of `--peers`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerList(pub Vec<Source>);

impl FromStr for PeerList {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        let items = text.split(',').map(str::trim);
        let items = items.filter(|item| !item.is_empty());
        let sources: Vec<Source> = items.map(str::parse).collect::<Result<_, _>>()?;
        match sources.len() <= super::discovery::PLACES_MAX {
            true => Ok(Self(sources)),
            false => Err(SourceError::TooMany {
                found: sources.len(),
            }),
        }
    }
}

fn advertised(text: &str) -> Result<Place, SourceError> {
    match text.parse()? {
        Source::Place(place) => Ok(place),
        Source::Dns { .. } => Err(SourceError::Malformed {
            found: text.to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, FromArgMatches};

    use super::*;

    fn parse(arguments: &[&str]) -> Result<Options, clap::Error> {
        let command = Options::augment_args(clap::Command::new("coordinator"));
        let arguments = ["coordinator"].iter().chain(arguments);
        Options::from_arg_matches(&command.try_get_matches_from(arguments)?)
    }

    fn address(text: &str) -> SocketAddr {
        text.parse().expect("an address")
    }

    #[derive(clap::Parser)]
    struct Program {
        #[command(flatten)]
        _options: Options,
    }

    #[test]
    fn definition_is_consistent() {
        Program::command().debug_assert();
    }

    #[test]
    fn alone_is_the_default_and_needs_no_advertised_address() {
        let options = parse(&[]).expect("defaults");
        assert_eq!(options.peer_api_address, address("0.0.0.0:7778"));
        assert_eq!(options.peers, PeerList::default());
        let place = options.own_place(address("0.0.0.0:7778")).expect("alone");
        assert_eq!(place.as_str(), "0.0.0.0:7778");
    }

    #[test]
    fn unspecified_address_cannot_be_advertised_to_others() {
        let options = parse(&["--peers=dns:peers:7778"]).expect("parses");
        for bound in ["0.0.0.0:7778", "[::]:7778"] {
            let error = options.own_place(address(bound)).expect_err("refused");
            let text = error.to_string();
            assert!(text.contains("POD.SERVICE.NAMESPACE.svc:7778"), "{text}");
        }
        let bound = options.own_place(address("10.0.0.1:7778"));
        assert_eq!(bound.expect("reachable").as_str(), "10.0.0.1:7778");
        let name = "coordinator-0.peers.default.svc:7778";
        let options =
            parse(&["--peers=dns:peers:7778", "--peer-advertise-address", name]).expect("parses");
        let place = options.own_place(address("0.0.0.0:7778")).expect("named");
        assert_eq!(place.as_str(), name);
    }

    #[test]
    fn peers_are_names_and_places_and_nothing_else() {
        let options = parse(&["--peers=dns:peers.default.svc:7778, 10.0.0.1:7778,[fd00::1]:1"]);
        assert_eq!(
            options.expect("parses").peers.0,
            [
                Source::Dns {
                    name: "peers.default.svc".to_owned(),
                    port: 7778
                },
                Source::Place(Place::new("10.0.0.1:7778")),
                Source::Place(Place::new("[fd00::1]:1")),
            ]
        );
        for bad in [
            "peers",
            "dns:peers",
            "peers:0",
            "a b:1",
            "http://a:1",
            "a:70000",
            ":1",
            "fd00::1:7",
            "dns:[::1]:7",
            "a/b:1",
            "a@b:1",
        ] {
            let error = parse(&["--peers", bad]).expect_err(bad).to_string();
            assert!(
                error.contains("expected HOST:PORT or dns:NAME:PORT"),
                "{error}"
            );
        }
        let many = vec!["a:1"; 65].join(",");
        let error = parse(&["--peers", &many])
            .expect_err("too many")
            .to_string();
        assert!(error.contains("at most 64"), "{error}");
        let dns = parse(&["--peer-advertise-address=dns:a:1"]).expect_err("no place");
        assert!(dns.to_string().contains("dns:a:1"));
    }
}
