use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{JoinHandle, spawn},
    time::Duration,
};

use anyhow::Result;

const HEADER_BYTES: usize = 12;
const POLL: Duration = Duration::from_millis(100);

/// The cluster's DNS: answers A queries for the names of services (RFC 1035), nothing else.
#[derive(Debug)]
pub(super) struct Dns {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// Serves `names` on a free UDP port of `address`.
    ///
    /// # Errors
    /// When the port cannot be had.
    pub(super) fn start(address: Ipv4Addr, names: BTreeMap<String, Ipv4Addr>) -> Result<Self> {
        let socket = UdpSocket::bind((address, 0))?;
        socket.set_read_timeout(Some(POLL))?;
        let address = socket.local_addr()?;
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = spawn(move || {
            let mut query = [0; 512];
            while !stopped.load(Ordering::Relaxed) {
                let Ok((length, client)) = socket.recv_from(&mut query) else {
                    continue;
                };
                if let Some(answer) = query.get(..length).and_then(|query| answer(query, &names)) {
                    // A client that is gone needs no answer.
                    let _ = socket.send_to(&answer, client);
                }
            }
        });
        Ok(Self {
            address,
            stop,
            thread: Some(thread),
        })
    }

    /// Where it answers.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
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

fn answer(query: &[u8], names: &BTreeMap<String, Ipv4Addr>) -> Option<Vec<u8>> {
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
    let address = found.filter(|_| kind == [0, 1, 0, 1]);
    // Response, recursion available; no such name where it is unknown.
    let code = if found.is_some() { 0x80 } else { 0x83 };
    let count = u8::from(address.is_some());
    let mut answer = [id, &[0x81, code, 0, 1, 0, count, 0, 0, 0, 0], question].concat();
    if let Some(address) = address {
        // The name by reference, type A, class IN, time to live 5 s, four bytes.
        answer.extend([0xc0, 0x0c, 0, 1, 0, 1, 0, 0, 0, 5, 0, 4]);
        answer.extend(address.octets());
    }
    Some(answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_name_is_answered_and_unknown_is_not() {
        let names = BTreeMap::from([("api".to_owned(), Ipv4Addr::new(127, 77, 1, 12))]);
        let query = |name: &[u8]| {
            let mut query = vec![7, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3];
            query.extend(name);
            query.extend([0, 0, 1, 0, 1]);
            query
        };
        let found = answer(&query(b"api"), &names).expect("an answer");
        assert!(found.ends_with(&[127, 77, 1, 12]));
        let unknown = answer(&query(b"xyz"), &names).expect("an answer");
        assert_eq!(unknown[3] & 0x0f, 3);
        assert_eq!(answer(&[1, 2, 3], &names), None);
    }
}
