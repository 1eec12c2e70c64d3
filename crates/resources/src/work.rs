//! Counts bytes that searches look at, so that a test can tell work that grows with the text from work that grows faster.
//! Outside of tests nothing is counted.

#[cfg(not(test))]
pub(crate) const fn examined(_bytes: usize) {}

#[cfg(test)]
pub(crate) use count::examined;

#[cfg(test)]
pub(crate) mod count {
    use std::cell::Cell;

    thread_local! {
        static BYTES: Cell<usize> = const { Cell::new(0) };
    }

    pub(crate) fn examined(bytes: usize) {
        BYTES.with(|count| count.set(count.get().saturating_add(bytes)));
    }

    /// Bytes that searches of this thread looked at while `work` ran.
    pub(crate) fn bytes_of(work: impl FnOnce()) -> usize {
        BYTES.with(|count| count.set(0));
        work();
        BYTES.with(Cell::get)
    }
}
