//! Why a runtime call failed.

use alloc::string::String;

/// Why a runtime call failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// The image reference cannot be parsed.
    #[error("couldn't parse image name {image:?}: {message}")]
    InvalidImageName {
        /// The reference.
        image: String,
        /// Where it goes wrong.
        message: String,
    },
    /// The image is not there and the policy forbids to pull it.
    #[error("Container image {image:?} is not present with pull policy of Never")]
    ImageNeverPull {
        /// The reference.
        image: String,
    },
    /// The image is not there and could not be pulled.
    #[error("failed to pull image {image:?}: {message}")]
    ImagePull {
        /// The reference.
        image: String,
        /// What the registry or the loader said.
        message: String,
    },
    /// The spec asks for what cannot be (a user outside of the mapped ones, a missing mount source); the message
    /// names the field.
    #[error("{message}")]
    Config {
        /// Which field, and why.
        message: String,
    },
    /// The sandbox could not be made.
    #[error("failed to create pod sandbox: {message}")]
    Sandbox {
        /// What failed.
        message: String,
    },
    /// A volume could not be set up.
    #[error("{message}")]
    Volume {
        /// What failed.
        message: String,
    },
    /// A process could not be started (program missing, not executable, no such directory).
    #[error("failed to start: {message}")]
    Start {
        /// What failed.
        message: String,
    },
    /// A command or probe took too long.
    #[error("timed out after {millis} ms")]
    Timeout {
        /// How long was waited, in milliseconds.
        millis: u64,
    },
    /// Nothing of that name.
    #[error("{what} not found")]
    NotFound {
        /// What was looked for.
        what: String,
    },
    /// Another attempt of the same container runs.
    #[error("another attempt of container {container} is running")]
    Conflict {
        /// The container with the attempt that runs.
        container: String,
    },
    /// The runtime does not offer this; the message says what would.
    #[error("not supported by this runtime: {what}")]
    Unsupported {
        /// What was asked for.
        what: String,
    },
    /// The runtime does not answer now; the call may be made again.
    #[error("container runtime unavailable: {message}")]
    Unavailable {
        /// What failed.
        message: String,
    },
}

impl RuntimeError {
    /// The waiting reason that the container's status shows (`k8s.io/kubernetes/pkg/kubelet/container` and
    /// `pkg/kubelet/images`).
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::InvalidImageName { .. } => "InvalidImageName",
            Self::ImageNeverPull { .. } => "ErrImageNeverPull",
            Self::ImagePull { .. } => "ErrImagePull",
            Self::Config { .. } => "CreateContainerConfigError",
            Self::Sandbox { .. } => "CreatePodSandboxError",
            Self::Volume { .. } => "FailedMount",
            Self::Start { .. } => "RunContainerError",
            _ => "CreateContainerError",
        }
    }
}
