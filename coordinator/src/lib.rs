//! The Coordinator: attests every pod of a deployment against its manifest.
