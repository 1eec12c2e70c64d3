use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use contrast_telemetry::exposure::PUBLIC;
use prometheus_client::metrics::counter::Counter;

use super::QUEUE_LINES_MAX;

/// Pause before a line that could not be written is tried again.
const RETRY: Duration = Duration::from_millis(500);

/// Lines on their way to a thread that writes them. Nobody who adds one ever waits.
#[derive(Debug, Clone)]
pub(crate) struct Queue(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Arc<str>>,
    closing: bool,
    ended: bool,
}

impl Queue {
    /// Starts the thread. `failures` counts attempts that failed.
    ///
    /// # Errors
    /// When there can be no thread.
    pub(crate) fn start(out: impl Write + Send + 'static, failures: Counter) -> io::Result<Self> {
        let queue = Self(Arc::default());
        let shared = Arc::clone(&queue.0);
        thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || {
                write_all(&shared, out, &failures);
                shared.lock().ended = true;
                shared.changed.notify_all();
            })?;
        Ok(queue)
    }

    /// Lines that may be added now.
    pub(super) fn room(&self) -> usize {
        let state = self.0.lock();
        match state.closing {
            true => 0,
            false => QUEUE_LINES_MAX.saturating_sub(state.lines.len()),
        }
    }

    pub(super) fn add(&self, lines: Vec<Arc<str>>) {
        self.0.lock().lines.extend(lines);
        self.0.changed.notify_all();
    }

    /// Ends the thread when everything is written, or after `within`. True when everything was.
    pub(super) fn close(&self, within: Duration) -> bool {
        let mut state = self.0.lock();
        state.closing = true;
        self.0.changed.notify_all();
        let waited = self
            .0
            .changed
            .wait_timeout_while(state, within, |state| !state.ended);
        let (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        state.lines.is_empty()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next line, which stays in the queue until it is written; `None` when there will be no other.
    fn next(&self) -> Option<Arc<str>> {
        let state = self.lock();
        let waited = self
            .changed
            .wait_while(state, |state| state.lines.is_empty() && !state.closing);
        let state = waited.unwrap_or_else(PoisonError::into_inner);
        state.lines.front().cloned()
    }
}

/// Writes lines one after the other, each until it is written: a line that was begun must not be followed by another one.
fn write_all(shared: &Shared, mut out: impl Write, failures: &Counter) {
    let mut failing = false;
    while let Some(line) = shared.next() {
        let line = format!("{line}\n");
        let mut rest = line.as_bytes();
        while !rest.is_empty() {
            let error = match out.write(rest) {
                Ok(0) => io::Error::from(io::ErrorKind::WriteZero),
                Ok(written) => {
                    rest = rest.get(written..).unwrap_or_default();
                    failing = false;
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => error,
            };
            failures.inc();
            if !failing {
                tracing::error!(
                    exposure = PUBLIC,
                    "the audit log cannot be written; trying again, and counting what does not fit in memory"
                );
                tracing::error!(%error, "why the audit log cannot be written");
            }
            failing = true;
            let state = shared.lock();
            let paused = shared
                .changed
                .wait_timeout_while(state, RETRY, |state| !state.closing);
            let (state, _) = paused.unwrap_or_else(PoisonError::into_inner);
            if state.closing {
                return;
            }
        }
        shared.lock().lines.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes three bytes at a time, and fails while it is told to.
    #[derive(Debug, Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, bool)>>);

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut disk = self.0.lock().expect("locks");
            if disk.1 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let taken = bytes.len().min(3);
            disk.0.extend(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lines(texts: &[&str]) -> Vec<Arc<str>> {
        texts.iter().map(|text| Arc::from(*text)).collect()
    }

    #[test]
    fn line_that_could_not_be_written_is_written_later_and_in_order() {
        let (disk, failures) = (Disk::default(), Counter::default());
        disk.0.lock().expect("locks").1 = true;
        let queue = Queue::start(disk.clone(), failures.clone()).expect("starts");
        queue.add(lines(&["first", "second"]));
        while failures.get() == 0 {
            thread::yield_now();
        }
        assert_eq!(queue.room(), QUEUE_LINES_MAX - 2);
        disk.0.lock().expect("locks").1 = false;
        queue.add(lines(&["third"]));
        while queue.room() < QUEUE_LINES_MAX {
            thread::yield_now();
        }
        assert!(queue.close(Duration::from_secs(9)));
        assert_eq!(disk.0.lock().expect("locks").0, b"first\nsecond\nthird\n");
        assert_eq!(queue.room(), 0);
    }

    #[test]
    fn stop_does_not_wait_for_a_writer_that_fails() {
        let disk = Disk::default();
        disk.0.lock().expect("locks").1 = true;
        let queue = Queue::start(disk, Counter::default()).expect("starts");
        queue.add(lines(&["first"]));
        assert!(!queue.close(Duration::from_secs(9)));
    }
}
