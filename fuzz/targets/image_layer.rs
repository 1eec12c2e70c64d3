//! Any bytes are a layer or a typed error, and say the same each time; errors are fit for a terminal.
#![no_main]

use contrast_images::LayerFacts;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match (LayerFacts::of(bytes), LayerFacts::of(bytes)) {
        (Ok(first), Ok(second)) => assert_eq!(first, second),
        (Err(first), Err(second)) => {
            let (first, second) = (first.to_string(), second.to_string());
            assert_eq!(first, second);
            assert!(!first.contains(char::is_control), "{first:?}");
        }
        (first, second) => panic!("{first:?}, then {second:?}"),
    }
});
