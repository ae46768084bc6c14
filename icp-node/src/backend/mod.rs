//! Runtimes behind the port [`crate::runtime::Runtime`].
