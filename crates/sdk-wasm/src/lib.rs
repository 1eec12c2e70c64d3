//! The SDK as a WebAssembly module with plain functions over linear memory, for pages and for languages that have no Rust
//! ([decision 21](../../../docs/decisions/0021-wasm-abi.md), [reference](../../../docs/reference/sdk.md)).
//!
//! The host asks for room with [`contrast_input`], writes the input there, calls [`contrast_verify`], and reads JSON from [`contrast_output`].
//! The module imports nothing: it cannot ask for the time, for randomness, or for the network.
//!
//! No pointer is ever read here. Rust owns all memory and gives out only where it is, so that the worst that a wrong call does is a wrong
//! answer for the caller who made it.

#![cfg_attr(
    not(test),
    warn(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]

mod judge;
mod slots;

use std::{
    ptr,
    sync::{Mutex, MutexGuard, PoisonError},
};

use judge::judge;
use slots::Slots;

/// Version of the functions and of the JSON around a report.
const ABI_VERSION: u32 = 1;

static SLOTS: Mutex<Slots> = Mutex::new(Slots::new());

fn slots() -> MutexGuard<'static, Slots> {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Version of this interface. A host that knows another one must not go on.
#[expect(unsafe_code, reason = "exported by its name, which is nobody else's")]
#[unsafe(no_mangle)]
pub extern "C" fn contrast_abi_version() -> u32 {
    ABI_VERSION
}

/// Makes room for `length` bytes of input and returns where, or null when there is no such input, it would be too large, or there is no
/// memory. Every call may move what is there; views of the memory have to be made anew.
///
/// | `slot` | input | largest, bytes |
/// | --- | --- | --- |
/// | 0 | body of the answer | 64 MiB |
/// | 1 | manifest, the file as it is | 16 MiB |
/// | 2 | nonce, 32 bytes | 32 |
/// | 3 | memory, JSON; may be left out | 64 KiB |
#[expect(unsafe_code, reason = "exported by its name, which is nobody else's")]
#[unsafe(no_mangle)]
pub extern "C" fn contrast_input(slot: u32, length: u32) -> *mut u8 {
    let mut slots = slots();
    match slots.make_room(slot, length) {
        Some(room) => room.as_mut_ptr(),
        None => ptr::null_mut(),
    }
}

/// Judges what was written, at `now` in milliseconds since 1970, as `Date.now()` has it. The inputs are dropped: the next call needs them anew.
///
/// Returns 0 when the verdict is `verified`, 1 when it is `refused`, and 2 when there is no verdict. Each has an output.
#[expect(unsafe_code, reason = "exported by its name, which is nobody else's")]
#[unsafe(no_mangle)]
pub extern "C" fn contrast_verify(now: f64) -> u32 {
    let mut slots = slots();
    let (code, output) = judge(&slots.take(), now);
    slots.output = output;
    code
}

/// Where the output of the last [`contrast_verify`] is: UTF-8, JSON.
#[expect(unsafe_code, reason = "exported by its name, which is nobody else's")]
#[unsafe(no_mangle)]
pub extern "C" fn contrast_output() -> *const u8 {
    slots().output.as_ptr()
}

/// Length of the output, in bytes.
#[expect(unsafe_code, reason = "exported by its name, which is nobody else's")]
#[unsafe(no_mangle)]
pub extern "C" fn contrast_output_length() -> u32 {
    u32::try_from(slots().output.len()).unwrap_or(0)
}
