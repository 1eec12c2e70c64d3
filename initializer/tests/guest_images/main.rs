//! `initializer pull-image` and `initializer serve-images` against Debian's `docker-registry`, with images that `skopeo` pushed.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test may panic, and says when it skips"
)]

mod agent;
mod pull_image;
mod serve_images;
mod support;
