//! The images of a node.
//!
//! ```text
//! ROOT/images/index.json       what is there
//! ROOT/images/rootfs/CHAIN     an unpacked image, named after the digest of its layers' digests
//! ROOT/images/tmp-N            an archive while it is loaded
//! ```

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use icp_core::base::Time;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::archive::{Found, Hashing, extract, find_images, hex, open_layer};
use super::unpack::apply_layer;
use super::{HOST, HOST_ID, ImageView, ProcessConfig, Reference, host_image, machine_programs};
use crate::backend::native::record;
use crate::backend::native::rooted::Rooted;
use crate::runtime::{Image, ImageInfo};

/// Longest `/etc/passwd` that is read.
const PASSWD_MAX: usize = 1 << 20;

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Stored {
    id: String,
    names: Vec<String>,
    chain: String,
    size_bytes: u64,
    config: ProcessConfig,
    last_used_micros: Option<i64>,
}

/// The images of a node.
#[derive(Debug)]
pub(crate) struct ImageStore {
    dir: PathBuf,
    images: Mutex<Vec<Stored>>,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

impl ImageStore {
    /// Opens the store of a folder, and clears what an interrupted load left.
    pub(crate) fn open(dir: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(dir.join("rootfs"))?;
        for (name, path) in record::entries(&dir).into_iter().chain(record::entries(&dir.join("rootfs"))) {
            if name.starts_with("tmp-") {
                fs::remove_dir_all(path)?;
            }
        }
        let mut images: Vec<Stored> = record::read(&dir.join("index.json")).unwrap_or_default();
        images.retain(|i| dir.join("rootfs").join(&i.chain).is_dir());
        Ok(Self { dir, images: Mutex::new(images) })
    }

    fn rootfs(&self, chain: &str) -> PathBuf {
        self.dir.join("rootfs").join(chain)
    }

    fn save(&self, images: &Vec<Stored>) -> io::Result<()> {
        record::write(&self.dir.join("index.json"), images)
    }

    /// Loads all images of an archive and answers their names. Blocks.
    ///
    /// # Errors
    /// If the archive is broken or cannot be unpacked; nothing of it is kept then.
    pub(crate) fn load(&self, archive: &Path) -> io::Result<Vec<String>> {
        if fs::metadata(archive)?.is_dir() {
            return self.load_folder(&Rooted::open(archive)?);
        }
        let tmp = self.fresh_folder(&self.dir)?;
        let result = Rooted::open(&tmp)
            .map_err(io::Error::from)
            .and_then(|dir| extract(archive, &dir).and_then(|()| self.load_folder(&dir)));
        let _ = fs::remove_dir_all(&tmp);
        result
    }

    fn fresh_folder(&self, within: &Path) -> io::Result<PathBuf> {
        for n in 0..10_000 {
            let path = within.join(format!("tmp-{}-{n}", std::process::id()));
            match fs::create_dir(&path) {
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|()| path),
            }
        }
        Err(io::Error::other("too many loads at once"))
    }

    fn load_folder(&self, dir: &Rooted) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for found in find_images(dir)? {
            let chain = hex(&Sha256::digest(
                found.layers.iter().map(|(_, id)| id.as_str()).collect::<Vec<_>>().join(" ").as_bytes(),
            ));
            if !self.rootfs(&chain).is_dir() {
                self.unpack(dir, &found, &chain)?;
            }
            let size_bytes = folder_bytes(&self.rootfs(&chain))?;
            let mut images = lock(&self.images);
            // A name stands for one image: the one that was loaded last.
            for image in images.iter_mut() {
                image.names.retain(|n| !found.names.contains(n));
            }
            match images.iter_mut().find(|i| i.id == found.id) {
                Some(known) => {
                    known.names.extend(found.names.iter().cloned());
                    known.chain = chain;
                }
                None => images.push(Stored {
                    id: found.id.clone(),
                    names: found.names.clone(),
                    chain,
                    size_bytes,
                    config: found.config,
                    last_used_micros: None,
                }),
            }
            self.save(&images)?;
            names.extend(found.names);
        }
        Ok(names)
    }

    fn unpack(&self, dir: &Rooted, found: &Found, chain: &str) -> io::Result<()> {
        let tmp = self.fresh_folder(&self.dir.join("rootfs"))?;
        let apply = || -> io::Result<()> {
            let root = Rooted::open(&tmp)?;
            fs::set_permissions(&tmp, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
            for (path, diff_id) in &found.layers {
                let mut stream = Hashing::new(open_layer(dir, path)?);
                apply_layer(&root, &mut stream)
                    .and_then(|()| stream.verify(diff_id))
                    .map_err(|e| io::Error::new(e.kind(), format!("layer {path}: {e}")))?;
            }
            match fs::rename(&tmp, self.rootfs(chain)) {
                Err(_) if self.rootfs(chain).is_dir() => fs::remove_dir_all(&tmp),
                other => other,
            }
        };
        let result = apply();
        if result.is_err() {
            let _ = fs::remove_dir_all(&tmp);
        }
        result
    }

    /// The image of a complete name or an id.
    fn find(&self, name: &str) -> Option<Stored> {
        lock(&self.images).iter().find(|i| i.id == name || i.names.iter().any(|n| n == name)).cloned()
    }

    /// Whether an image is usable, and what the agent needs to know of it.
    pub(crate) fn image(&self, reference: &Reference) -> Option<Image> {
        let name = reference.to_string();
        match self.find(&name) {
            Some(found) => Some(Image {
                id: found.id,
                user: found.config.user.unwrap_or_default(),
                pulled: false,
                size_bytes: found.size_bytes,
            }),
            None => (name == HOST).then(|| Image { id: HOST_ID.into(), ..Image::default() }),
        }
    }

    /// What a container's plan needs to know of an image.
    pub(crate) fn view(&self, reference: &Reference, now: Time) -> io::Result<Option<ImageView>> {
        let name = reference.to_string();
        let Some(found) = self.find(&name) else {
            return Ok((name == HOST).then(|| host_image(&machine_programs())));
        };
        let path = self.rootfs(&found.chain);
        let root = Rooted::open(&path)?;
        let text = |file: &str| {
            let data = root.read(file, PASSWD_MAX).unwrap_or_default();
            String::from_utf8_lossy(&data).into_owned()
        };
        if let Some(stored) = lock(&self.images).iter_mut().find(|i| i.id == found.id) {
            stored.last_used_micros = Some(now.as_micros());
        }
        let config = found.config;
        let pair = |line: &String| {
            let (name, value) = line.split_once('=')?;
            Some((name.to_string(), value.to_string()))
        };
        Ok(Some(ImageView {
            id: found.id,
            passwd: text("etc/passwd"),
            group: text("etc/group"),
            rootfs: Some(path),
            steps: Vec::new(),
            env: config.env.unwrap_or_default().iter().filter_map(pair).collect(),
            entrypoint: config.entrypoint.unwrap_or_default(),
            cmd: config.cmd.unwrap_or_default(),
            working_dir: config.working_dir.unwrap_or_default(),
            user: config.user.unwrap_or_default(),
            stop_signal: config.stop_signal.unwrap_or_default(),
        }))
    }

    /// All images.
    pub(crate) fn list(&self) -> Vec<ImageInfo> {
        let mut list: Vec<ImageInfo> = lock(&self.images)
            .iter()
            .map(|i| ImageInfo {
                id: i.id.clone(),
                names: i.names.clone(),
                size_bytes: i.size_bytes,
                last_used: i.last_used_micros.map(Time::from_micros),
                pinned: false,
            })
            .collect();
        list.push(ImageInfo {
            id: HOST_ID.into(),
            names: Vec::from([HOST.into()]),
            pinned: true,
            ..ImageInfo::default()
        });
        list
    }

    /// Forgets an image and removes what no other one needs. Blocks.
    pub(crate) fn remove(&self, id: &str) -> io::Result<()> {
        let mut images = lock(&self.images);
        images.retain(|i| i.id != id);
        self.save(&images)?;
        let used: BTreeSet<&str> = images.iter().map(|i| i.chain.as_str()).collect();
        for (name, path) in record::entries(&self.dir.join("rootfs")) {
            if !used.contains(name.as_str()) && !name.starts_with("tmp-") {
                fs::remove_dir_all(path)?;
            }
        }
        Ok(())
    }
}

fn folder_bytes(dir: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    let mut bytes = 0;
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let meta = entry.metadata()?;
        bytes += meta.blocks().saturating_mul(512);
        if meta.is_dir() {
            bytes += folder_bytes(&entry.path())?;
        }
    }
    Ok(bytes)
}
