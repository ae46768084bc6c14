//! Images on the node: archives are loaded into a store and unpacked once.

mod archive;
mod host;
mod reference;
mod store;
mod unpack;

use alloc::string::String;
use alloc::vec::Vec;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::plan::Step;

pub(crate) use host::{HOST, HOST_ID, host_image, machine_programs};
pub(crate) use reference::Reference;
pub(crate) use store::ImageStore;
pub(crate) use unpack::copy_tree;

/// What an image says about the processes that run from it (`config` of an OCI image configuration).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ProcessConfig {
    /// `uid`, `user`, `uid:gid`, `user:group`.
    pub(crate) user: Option<String>,
    pub(crate) env: Option<Vec<String>>,
    pub(crate) entrypoint: Option<Vec<String>>,
    pub(crate) cmd: Option<Vec<String>>,
    pub(crate) working_dir: Option<String>,
    pub(crate) stop_signal: Option<String>,
}

/// What a container's plan needs to know of its image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ImageView {
    /// What goes into `imageID` of a container status.
    pub(crate) id: String,
    /// The unpacked image; `None` for one that is put together in memory by `steps`.
    pub(crate) rootfs: Option<PathBuf>,
    pub(crate) steps: Vec<Step>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) entrypoint: Vec<String>,
    pub(crate) cmd: Vec<String>,
    pub(crate) working_dir: String,
    pub(crate) user: String,
    pub(crate) stop_signal: String,
    /// Its `/etc/passwd` and `/etc/group`.
    pub(crate) passwd: String,
    pub(crate) group: String,
}
