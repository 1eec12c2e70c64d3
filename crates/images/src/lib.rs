//! Container images: references and cached configurations.
