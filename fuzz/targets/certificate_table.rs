//! Entries never leave the table.
#![no_main]

use contrast_attestation::snp::CertificateTable;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(table) = CertificateTable::parse(bytes) {
        for (guid, content) in table.entries() {
            assert!(content.len() <= bytes.len());
            assert_eq!(table.get(guid), Some(content));
        }
    }
});
