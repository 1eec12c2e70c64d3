//! Any bytes are a document of an image, a registries.conf or a reference, or a typed error that is fit for a terminal; a
//! reference that is written out is read as the same.
#![no_main]

use contrast_images::{ImageName, RegistriesConf, check_document};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Err(error) = check_document(bytes) {
        let shown = error.to_string();
        assert!(!shown.contains(char::is_control), "{shown:?}");
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let _ = RegistriesConf::parse(text);
    if let Ok(name) = ImageName::parse(text) {
        assert_eq!(ImageName::parse(&name.to_string()), Ok(name));
    }
});
