//! A transfer that goes on where it broke off.

use std::{
    io::{self, Read},
    thread,
    time::{Duration, Instant},
};

use super::{
    Endpoint, RegistryError,
    client::{Client, Stream},
};

/// So much must have come for a break to be forgiven as if it were the first.
const PROGRESS_BYTES: u64 = 1024 * 1024;

/// A blob, read from one place. What comes after a break is the rest of the same blob only if its digest says so, which who reads it
/// checks.
pub(super) struct Resuming<'a> {
    client: &'a Client,
    endpoint: Endpoint,
    path: String,
    size: u64,
    body: Box<dyn Read>,
    /// Bytes that were handed out.
    read: u64,
    /// As many when it broke off the last time.
    read_at_break: u64,
    breaks_left: usize,
    deadline: Instant,
}

impl<'a> Resuming<'a> {
    /// Begins; `None` if the blob is not there.
    pub(super) fn open(
        client: &'a Client,
        endpoint: &Endpoint,
        path: &str,
        size: u64,
    ) -> Result<Option<Self>, RegistryError> {
        let limits = client.limits();
        let attempts = u32::try_from(limits.attempts).unwrap_or(u32::MAX);
        let slowest = Duration::from_secs(size / limits.slowest.max(1));
        let time = slowest.saturating_add(limits.silence.saturating_mul(attempts));
        let now = Instant::now();
        let Some(Stream { body, .. }) = client.stream(endpoint, path, size, 0)? else {
            return Ok(None);
        };
        Ok(Some(Self {
            client,
            endpoint: endpoint.clone(),
            path: path.to_owned(),
            size,
            body,
            read: 0,
            read_at_break: 0,
            breaks_left: limits.attempts.saturating_sub(1),
            // Without a time that can be said no break is forgiven.
            deadline: now.checked_add(time).unwrap_or(now),
        }))
    }

    /// Asks for the rest. Whether there is a body to read on from.
    fn resume(&mut self) -> io::Result<bool> {
        if self.read.saturating_sub(self.read_at_break) >= PROGRESS_BYTES {
            self.breaks_left = self.client.limits().attempts.saturating_sub(1);
        }
        self.read_at_break = self.read;
        if self.breaks_left == 0 || Instant::now() >= self.deadline {
            return Ok(false);
        }
        self.breaks_left = self.breaks_left.saturating_sub(1);
        thread::sleep(self.client.limits().pause);
        let stream = self
            .client
            .stream(&self.endpoint, &self.path, self.size, self.read)
            .map_err(io::Error::other)?;
        let Some(Stream { mut body, from }) = stream else {
            return Ok(false);
        };
        // From the beginning, where the registry knows no parts.
        let known = self.read.saturating_sub(from);
        match io::copy(&mut (&mut body).take(known), &mut io::sink()) {
            Ok(skipped) if skipped == known => {}
            // Another break.
            _ => return self.resume(),
        }
        self.body = body;
        Ok(true)
    }
}

impl Read for Resuming<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let outcome = self.body.read(buffer);
            match &outcome {
                Ok(0) if self.read < self.size && !buffer.is_empty() => {}
                Ok(count) => {
                    self.read = self.read.saturating_add(*count as u64);
                    return outcome;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => return outcome,
                Err(_) => {}
            }
            if !self.resume()? {
                return outcome;
            }
        }
    }
}
