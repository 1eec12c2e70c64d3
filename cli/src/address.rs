//! Where a Coordinator is: `HOST[:PORT]`.

use std::{fmt, str::FromStr};

/// Port of the Coordinator's user API.
pub const USER_API_PORT: u16 = 1313;

/// Host name or IP address of a Coordinator, with its user API port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoordinatorAddress {
    /// Host name, IPv4 address, or IPv6 address without brackets.
    pub host: String,
    /// TCP port; [`USER_API_PORT`] unless given.
    pub port: u16,
}

/// Text that is no `HOST[:PORT]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AddressError {
    /// Nothing before the port.
    #[error("the host is missing; expected HOST[:PORT]")]
    NoHost,
    /// The part after the colon is no port.
    #[error("`{found}` is no port; expected a number from 1 to 65535")]
    Port {
        /// What was given.
        found: String,
    },
    /// Something that belongs into a URL.
    #[error("expected HOST[:PORT] without scheme, path or spaces")]
    NotAnAddress,
    /// `[` without `]`.
    #[error("the bracket around the IPv6 address is not closed; expected [ADDRESS]:PORT")]
    Bracket,
}

impl FromStr for CoordinatorAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        if text.contains(['/', '@']) || text.contains(char::is_whitespace) {
            return Err(AddressError::NotAnAddress);
        }
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or(AddressError::Bracket)?;
            match rest.strip_prefix(':') {
                Some(port) => (host, Some(port)),
                None if rest.is_empty() => (host, None),
                None => return Err(AddressError::NotAnAddress),
            }
        } else if text.matches(':').count() > 1 {
            (text, None) // a bare IPv6 address
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        if host.is_empty() {
            return Err(AddressError::NoHost);
        }
        let port = match port {
            None => USER_API_PORT,
            Some(port) => match port.parse() {
                Ok(0) | Err(_) => {
                    return Err(AddressError::Port {
                        found: port.to_owned(),
                    });
                }
                Ok(port) => port,
            },
        };
        Ok(Self {
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for CoordinatorAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn port_defaults_to_the_user_api() {
        let shown = |text: &str| text.parse::<CoordinatorAddress>().expect(text).to_string();
        assert_eq!(shown("coordinator.example"), "coordinator.example:1313");
        assert_eq!(shown("10.0.0.7:99"), "10.0.0.7:99");
        assert_eq!(shown("::1"), "[::1]:1313");
        assert_eq!(shown("[::1]:7"), "[::1]:7");
        assert_eq!(shown("[::1]"), "[::1]:1313");
    }

    #[test]
    fn refuses_what_is_no_address() {
        let refused = |text: &str| text.parse::<CoordinatorAddress>().expect_err(text);
        assert_eq!(refused("https://host"), AddressError::NotAnAddress);
        assert_eq!(
            refused("host:port"),
            AddressError::Port {
                found: "port".into()
            }
        );
        assert_eq!(refused("host:0"), AddressError::Port { found: "0".into() });
        assert_eq!(
            refused("host:65536"),
            AddressError::Port {
                found: "65536".into()
            }
        );
        assert_eq!(refused(":1313"), AddressError::NoHost);
        assert_eq!(refused(""), AddressError::NoHost);
        assert_eq!(refused("[::1"), AddressError::Bracket);
        assert_eq!(refused("[::1]x"), AddressError::NotAnAddress);
    }
}
