//! Attested TLS: TLS 1.3 whose peers prove what they run.
