//! Memory that the host writes its inputs to.

/// Number of inputs.
const COUNT: usize = 4;
/// Largest input of each slot, in bytes: answer (as much as the SDK reads), manifest, nonce, memory.
const LIMITS: [u32; COUNT] = [64 * 1024 * 1024, 16 * 1024 * 1024, 32, 64 * 1024];

/// Inputs and the output.
#[derive(Debug)]
pub(crate) struct Slots {
    inputs: Inputs,
    pub(crate) output: Vec<u8>,
}

/// What the host wrote; an input that it did not write is empty.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Inputs {
    pub(crate) answer: Vec<u8>,
    pub(crate) manifest: Vec<u8>,
    pub(crate) nonce: Vec<u8>,
    pub(crate) memory: Vec<u8>,
}

impl Slots {
    pub(crate) const fn new() -> Self {
        Self {
            inputs: Inputs {
                answer: Vec::new(),
                manifest: Vec::new(),
                nonce: Vec::new(),
                memory: Vec::new(),
            },
            output: Vec::new(),
        }
    }

    /// Zeroed room in place of what the slot held.
    pub(crate) fn make_room(&mut self, slot: u32, length: u32) -> Option<&mut [u8]> {
        let limit = LIMITS.get(usize::try_from(slot).ok()?)?;
        if length > *limit {
            return None;
        }
        let length = usize::try_from(length).ok()?;
        let input = match slot {
            0 => &mut self.inputs.answer,
            1 => &mut self.inputs.manifest,
            2 => &mut self.inputs.nonce,
            _ => &mut self.inputs.memory,
        };
        *input = Vec::new();
        input.try_reserve_exact(length).ok()?;
        input.resize(length, 0);
        Some(input)
    }

    /// Takes the inputs out, and drops the old output.
    pub(crate) fn take(&mut self) -> Inputs {
        self.output = Vec::new();
        std::mem::take(&mut self.inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_has_its_own_room_and_limit() {
        let mut slots = Slots::new();
        for (slot, limit) in (0..).zip(LIMITS) {
            assert!(slots.make_room(slot, limit + 1).is_none(), "slot {slot}");
        }
        assert!(slots.make_room(4, 1).is_none());
        for (slot, bytes) in (0..).zip([b"a", b"m", b"n", b"r"]) {
            slots
                .make_room(slot, 1)
                .expect("room")
                .copy_from_slice(bytes);
        }
        let wanted = Inputs {
            answer: b"a".to_vec(),
            manifest: b"m".to_vec(),
            nonce: b"n".to_vec(),
            memory: b"r".to_vec(),
        };
        assert_eq!(slots.take(), wanted);
        assert_eq!(slots.take(), Inputs::default());
    }

    #[test]
    fn room_that_is_made_anew_holds_nothing_of_before() {
        let mut slots = Slots::new();
        slots.make_room(2, 4).expect("room").fill(9);
        assert_eq!(slots.make_room(2, 2).expect("room"), [0, 0]);
    }
}
