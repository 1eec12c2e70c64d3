use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, spawn},
    time::Duration,
};

use anyhow::Result;

/// Addresses of services by their short names.
pub(super) type Names = BTreeMap<String, Vec<IpAddr>>;

/// Type A with class IN.
const A: [u8; 4] = [0, 1, 0, 1];
/// Type AAAA with class IN.
const AAAA: [u8; 4] = [0, 28, 0, 1];
/// Clients may remember an answer for so long.
const TTL_SECONDS: u8 = 1;
/// An answer then fits into what every client takes.
const ADDRESSES_MAX: usize = 8;
const HEADER_BYTES: usize = 12;
const POLL: Duration = Duration::from_millis(100);

#[derive(Debug)]
struct Zone {
    names: Names,
    /// How often each client asked for a service's IPv4 addresses since they last changed.
    lookups: BTreeMap<(String, IpAddr), usize>,
}

/// The cluster's DNS: answers A and AAAA queries for the names of services (RFC 1035, RFC 3596), nothing else.
#[derive(Debug)]
pub(super) struct Dns {
    address: SocketAddr,
    zone: Arc<Mutex<Zone>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Serves `names` on a UDP port of `address`, a free one if it is 0.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub(super) fn start(address: Ipv4Addr, port: u16, names: Names) -> Result<Self> {
        let socket = UdpSocket::bind((address, port))?;
        socket.set_read_timeout(Some(POLL))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let zone = Zone {
            names,
            lookups: BTreeMap::new(),
        };
        let zone = Arc::new(Mutex::new(zone));
        let known = Arc::clone(&zone);
        let thread = spawn(move || {
            let mut query = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut query) else {
                    continue;
                };
                let Some(question) = query.get(..length).and_then(Question::parse) else {
                    continue;
                };
                let mut zone = known.lock().unwrap_or_else(PoisonError::into_inner);
                let answer = question.answer(&zone.names);
                if question.kind == A {
                    let lookups = zone.lookups.entry((question.name, client.ip()));
                    *lookups.or_default() += 1;
                }
                drop(zone);
                // A client that is gone needs no answer.
                let _ = socket.send_to(&answer, client);
            }
        });
        Ok(Self {
            address,
            zone,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it answers.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Says from now on that `name` has these addresses.
    pub(super) fn set(&self, name: &str, addresses: Vec<IpAddr>) {
        let mut zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        zone.names.insert(name.to_owned(), addresses);
        for ((looked_up, _), count) in &mut zone.lookups {
            if looked_up == name {
                *count = 0;
            }
        }
    }

    /// Whether all that ever asked for `name` know its latest addresses: they asked twice since, and who asks again has
    /// read the answer before.
    pub(super) fn is_known(&self, name: &str) -> bool {
        let zone = self.zone.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lookups = zone.lookups.iter();
        lookups.all(|((looked_up, _), count)| looked_up != name || *count >= 2)
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The one question of a query.
struct Question<'a> {
    id: &'a [u8],
    /// The first label, in lower case: search domains of the machine may have been appended.
    name: String,
    /// Type and class.
    kind: &'a [u8],
    /// As it was sent.
    bytes: &'a [u8],
}

impl<'a> Question<'a> {
    fn parse(query: &'a [u8]) -> Option<Self> {
        let mut first = None;
        let mut rest = query.get(HEADER_BYTES..)?;
        loop {
            let (length, after) = rest.split_first()?;
            if *length == 0 {
                rest = after;
                break;
            }
            let (label, after) = after.split_at_checked(usize::from(*length))?;
            first.get_or_insert(label);
            rest = after;
        }
        let end = query.len().checked_sub(rest.len())?.checked_add(4)?;
        Some(Self {
            id: query.get(..2)?,
            name: String::from_utf8_lossy(first?).to_ascii_lowercase(),
            kind: rest.get(..4)?,
            bytes: query.get(HEADER_BYTES..end)?,
        })
    }

    fn answer(&self, names: &Names) -> Vec<u8> {
        let found = names.get(&self.name);
        let all = found.map(Vec::as_slice).unwrap_or_default();
        let wanted = all.iter().filter(|address| match address.is_ipv4() {
            true => self.kind == A,
            false => self.kind == AAAA,
        });
        let wanted: Vec<&IpAddr> = wanted.take(ADDRESSES_MAX).collect();
        // Response, recursion available; no such name where it is unknown.
        let code = if found.is_some() { 0x80 } else { 0x83 };
        let count = u8::try_from(wanted.len()).unwrap_or_default();
        let header = [0x81, code, 0, 1, 0, count, 0, 0, 0, 0];
        let mut answer = [self.id, &header, self.bytes].concat();
        for address in wanted {
            // The name by reference, then type and class, time to live, length.
            answer.extend([0xc0, 0x0c]);
            answer.extend(self.kind);
            answer.extend([0, 0, 0, TTL_SECONDS]);
            match address {
                IpAddr::V4(address) => {
                    answer.extend([0, 4]);
                    answer.extend(address.octets());
                }
                IpAddr::V6(address) => {
                    answer.extend([0, 16]);
                    answer.extend(address.octets());
                }
            }
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_name_is_answered_and_unknown_is_not() {
        let six = std::net::Ipv6Addr::new(0xfd64, 0, 0, 0, 0, 0, 0, 7);
        let addresses = vec![Ipv4Addr::new(127, 77, 1, 12).into(), six.into()];
        let names = Names::from([("api".to_owned(), addresses)]);
        let query = |name: &[u8], kind: [u8; 4]| {
            let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3];
            query.extend(name);
            query.push(0);
            query.extend(kind);
            query
        };
        let answer = |query: &[u8]| Question::parse(query).map(|question| question.answer(&names));
        let found = answer(&query(b"api", A)).expect("an answer");
        assert!(found.ends_with(&[127, 77, 1, 12]));
        let found = answer(&query(b"api", AAAA)).expect("an answer");
        assert!(found.ends_with(&six.octets()));
        let unknown = answer(&query(b"xyz", A)).expect("an answer");
        assert_eq!(unknown[3] & 0x0f, 3);
        assert_eq!(answer(&[1, 2, 3]), None);
    }
}
