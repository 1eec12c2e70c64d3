//! Options of the `port-forwarder` program. Every flag can be given by an environment variable; `--help` lists both.

use std::{
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU16,
    str::FromStr,
    time::Duration,
};

use contrast_telemetry::{drain, logging};

/// Forwards TCP connections to the Coordinator.
#[derive(Debug, Clone, clap::Parser)]
#[command(name = "port-forwarder", version)]
pub struct Config {
    /// What is forwarded where: PORT=HOST:PORT, or IP:PORT=HOST:PORT; several with commas. Without an IP it listens on
    /// 127.0.0.1, where `kubectl port-forward` arrives and other pods do not.
    #[arg(
        long,
        env = "CONTRAST_FORWARD",
        value_name = "[IP:]PORT=HOST:PORT",
        value_delimiter = ',',
        required = true
    )]
    pub forward: Vec<Route>,

    /// How many connections may be open at once for each listened port; more wait.
    #[arg(
        long,
        env = "CONTRAST_FORWARD_CONNECTIONS",
        default_value = "64",
        value_name = "COUNT"
    )]
    pub connections: NonZeroU16,

    /// How long open connections may go on after SIGTERM or SIGINT, in seconds.
    #[arg(long, env = "CONTRAST_DRAIN_DEADLINE", default_value = "5", value_name = "SECONDS", value_parser = drain::deadline)]
    pub drain_deadline: Duration,

    /// Logs.
    #[command(flatten)]
    pub logging: logging::Options,
}

/// One listened address and where its connections go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Where to listen.
    pub listen: SocketAddr,
    /// `HOST:PORT`, resolved anew for every connection.
    pub target: String,
}

/// A route is not `[IP:]PORT=HOST:PORT`.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// Nothing separates the two sides.
    #[error("expected [IP:]PORT=HOST:PORT, for example 1313=coordinator:1313, found no `=`")]
    NoTarget,
    /// The left side.
    #[error("`{0}` is no port to listen on: expected 1313, or 127.0.0.1:1313")]
    Listen(String),
    /// The right side.
    #[error("`{0}` is no address to forward to: expected HOST:PORT, for example coordinator:1313")]
    Target(String),
}

impl FromStr for Route {
    type Err = RouteError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (listen, target) = text.split_once('=').ok_or(RouteError::NoTarget)?;
        let address = match listen.parse::<u16>() {
            Ok(port) => Some(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
            Err(_) => listen.parse().ok(),
        };
        let named = target
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<NonZeroU16>().is_ok());
        if !named {
            return Err(RouteError::Target(target.to_owned()));
        }
        Ok(Self {
            listen: address.ok_or_else(|| RouteError::Listen(listen.to_owned()))?,
            target: target.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;

    #[test]
    fn definition_is_consistent() {
        Config::command().debug_assert();
    }

    #[test]
    fn reads_routes() {
        let arguments = [
            "port-forwarder",
            "--forward=1313=coordinator:1313,127.0.0.1:14=[::1]:1314",
        ];
        let config = Config::try_parse_from(arguments).expect("valid");
        let read: Vec<_> = config
            .forward
            .iter()
            .map(|route| (route.listen.to_string(), route.target.as_str()))
            .collect();
        assert_eq!(
            read,
            [
                ("127.0.0.1:1313".to_owned(), "coordinator:1313"),
                ("127.0.0.1:14".to_owned(), "[::1]:1314"),
            ]
        );
    }

    #[test]
    fn says_which_side_is_wrong() {
        for (text, said) in [
            ("1313", "found no `=`"),
            ("x=coordinator:1313", "`x` is no port to listen on"),
            ("70000=coordinator:1313", "`70000` is no port to listen on"),
            ("1313=coordinator", "`coordinator` is no address"),
            ("1313=coordinator:0", "`coordinator:0` is no address"),
            ("1313=:1313", "`:1313` is no address"),
        ] {
            let error = text.parse::<Route>().expect_err(text).to_string();
            assert!(error.contains(said), "{error}");
        }
    }
}
