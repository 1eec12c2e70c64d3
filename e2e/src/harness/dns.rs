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

/// The cluster's DNS: answers A and AAAA queries for the names of services (RFC 1035, RFC 3596), nothing else.
#[derive(Debug)]
pub(super) struct Dns {
    address: SocketAddr,
    names: Arc<Mutex<Names>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Serves `names` on a UDP port of `address`, a free one if it is 0.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub(super) fn start(address: Ipv4Addr, port: u16, names: Names) -> Result<Self> {
        Self::serve(address, port, Arc::new(Mutex::new(names)))
    }

    /// Serves the same names, as they change, at another address.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub(super) fn also_at(&self, address: Ipv4Addr, port: u16) -> Result<Self> {
        Self::serve(address, port, Arc::clone(&self.names))
    }

    fn serve(address: Ipv4Addr, port: u16, names: Arc<Mutex<Names>>) -> Result<Self> {
        let socket = UdpSocket::bind((address, port))?;
        socket.set_read_timeout(Some(POLL))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let known = Arc::clone(&names);
        let thread = spawn(move || {
            let mut query = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut query) else {
                    continue;
                };
                let names = known.lock().unwrap_or_else(PoisonError::into_inner).clone();
                if let Some(answer) = query.get(..length).and_then(|query| answer(query, &names)) {
                    // A client that is gone needs no answer.
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Ok(Self {
            address,
            names,
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
        let mut names = self.names.lock().unwrap_or_else(PoisonError::into_inner);
        names.insert(name.to_owned(), addresses);
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

fn answer(query: &[u8], names: &Names) -> Option<Vec<u8>> {
    let id = query.get(..2)?;
    let mut labels = Vec::new();
    let mut rest = query.get(HEADER_BYTES..)?;
    loop {
        let (length, after) = rest.split_first()?;
        if *length == 0 {
            rest = after;
            break;
        }
        let (label, after) = after.split_at_checked(usize::from(*length))?;
        labels.push(String::from_utf8_lossy(label).to_ascii_lowercase());
        rest = after;
    }
    let kind = rest.get(..4)?;
    let question_end = query.len().checked_sub(rest.len())?.checked_add(4)?;
    let question = query.get(HEADER_BYTES..question_end)?;
    // Search domains of the machine may have been appended; the first label names the service.
    let found = labels.first().and_then(|name| names.get(name));
    let all = found.map(Vec::as_slice).unwrap_or_default();
    let wanted = all.iter().filter(|address| match address.is_ipv4() {
        true => kind == A,
        false => kind == AAAA,
    });
    let wanted: Vec<&IpAddr> = wanted.take(ADDRESSES_MAX).collect();
    // Response, recursion available; no such name where it is unknown.
    let code = if found.is_some() { 0x80 } else { 0x83 };
    let count = u8::try_from(wanted.len()).unwrap_or_default();
    let mut answer = [id, &[0x81, code, 0, 1, 0, count, 0, 0, 0, 0], question].concat();
    for address in wanted {
        // The name by reference, then type and class, time to live, length.
        answer.extend([0xc0, 0x0c]);
        answer.extend(kind);
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
    Some(answer)
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
        let found = answer(&query(b"api", A), &names).expect("an answer");
        assert!(found.ends_with(&[127, 77, 1, 12]));
        let found = answer(&query(b"api", AAAA), &names).expect("an answer");
        assert!(found.ends_with(&six.octets()));
        let unknown = answer(&query(b"xyz", A), &names).expect("an answer");
        assert_eq!(unknown[3] & 0x0f, 3);
        assert_eq!(answer(&[1, 2, 3], &names), None);
    }
}
