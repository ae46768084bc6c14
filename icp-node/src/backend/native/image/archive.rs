//! Reads archives: what `docker save` writes, and OCI layouts as a folder or a tar file.

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use rustix::fs::OFlags;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{ProcessConfig, Reference};
use crate::backend::native::rooted::Rooted;

/// Most bytes of a document (an index, a manifest, a configuration).
const DOCUMENT_MAX: usize = 8 << 20;
/// Most indexes within indexes.
const DEPTH_MAX: u32 = 4;
const NAME_OCI: &str = "org.opencontainers.image.ref.name";
const NAME_CONTAINERD: &str = "io.containerd.image.name";

/// An image of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Found {
    /// `sha256:` and the digest of the configuration.
    pub(super) id: String,
    /// Complete names.
    pub(super) names: Vec<String>,
    pub(super) config: ProcessConfig,
    /// Each layer's path in the archive and the digest of its content, unpacked.
    pub(super) layers: Vec<(String, String)>,
}

#[derive(Deserialize)]
struct Configuration {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
    config: Option<ProcessConfig>,
    rootfs: RootFs,
}

#[derive(Deserialize)]
struct RootFs {
    #[serde(default)]
    diff_ids: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DockerManifest {
    config: String,
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

#[derive(Deserialize)]
struct Descriptor {
    digest: String,
    #[serde(default, rename = "mediaType")]
    media_type: String,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    platform: Option<Platform>,
}

#[derive(Deserialize)]
struct Platform {
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    os: String,
}

#[derive(Deserialize)]
struct Index {
    #[serde(default)]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Manifest {
    config: Descriptor,
    #[serde(default)]
    layers: Vec<Descriptor>,
}

fn bad(message: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.into())
}

/// The processor's name in images.
const fn architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") {
        "amd64"
    } else if cfg!(target_arch = "aarch64") {
        "arm64"
    } else {
        "unknown"
    }
}

/// Lower-case hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Opens a file of the archive that may be compressed.
pub(super) fn open_layer(dir: &Rooted, path: &str) -> io::Result<alloc::boxed::Box<dyn Read>> {
    let fd = dir.get(path, OFlags::RDONLY).map_err(|e| bad(format!("layer {path}: {e}")))?;
    decompress(File::from(fd))
}

/// Reads a file that may be compressed, found by its first bytes.
pub(super) fn decompress(mut file: File) -> io::Result<alloc::boxed::Box<dyn Read>> {
    let mut magic = Vec::new();
    file.by_ref().take(4).read_to_end(&mut magic)?;
    file.seek(SeekFrom::Start(0))?;
    let reader = BufReader::with_capacity(256 * 1024, file);
    match magic.as_slice() {
        [0x1f, 0x8b, ..] => Ok(alloc::boxed::Box::new(MultiGzDecoder::new(reader))),
        [0x28, 0xb5, 0x2f, 0xfd] => Err(bad("zstd compression is not supported yet: use gzip or none")),
        _ => Ok(alloc::boxed::Box::new(reader)),
    }
}

/// Passes bytes on and takes their digest.
pub(super) struct Hashing<R> {
    inner: R,
    digest: Sha256,
}

impl<R: Read> Hashing<R> {
    pub(super) fn new(inner: R) -> Self {
        Self { inner, digest: Sha256::new() }
    }

    /// Reads the rest and compares with `sha256:HEX`.
    pub(super) fn verify(mut self, expected: &str) -> io::Result<()> {
        io::copy(&mut self, &mut io::sink())?;
        let got = format!("sha256:{}", hex(&self.digest.finalize()));
        if got == expected {
            Ok(())
        } else {
            Err(bad(format!("the layer's digest is {got} and not {expected}")))
        }
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.digest.update(buf.get(..n).unwrap_or_default());
        Ok(n)
    }
}

struct Layout<'a>(&'a Rooted);

impl Layout<'_> {
    fn bytes(&self, path: &str) -> io::Result<Vec<u8>> {
        let data = self.0.read(path, DOCUMENT_MAX + 1).map_err(|e| bad(format!("{path}: {e}")))?;
        if data.len() > DOCUMENT_MAX {
            return Err(bad(format!("{path} is larger than {DOCUMENT_MAX} bytes")));
        }
        Ok(data)
    }

    fn has(&self, path: &str) -> bool {
        self.0.handle(path).is_ok()
    }

    fn blob<T: DeserializeOwned>(&self, digest: &str) -> io::Result<(T, Vec<u8>)> {
        let path = blob_path(digest)?;
        let data = self.bytes(&path)?;
        let got = hex(&Sha256::digest(&data));
        if !path.ends_with(&got) {
            return Err(bad(format!("{path}: the digest is sha256:{got}")));
        }
        let value = serde_json::from_slice(&data).map_err(|e| bad(format!("{path}: {e}")))?;
        Ok((value, data))
    }

    fn configuration(&self, data: &[u8], what: &str) -> io::Result<(ProcessConfig, Vec<String>)> {
        let c: Configuration = serde_json::from_slice(data).map_err(|e| bad(format!("{what}: {e}")))?;
        let fits = (c.os.is_empty() || c.os == "linux")
            && (c.architecture.is_empty() || c.architecture == architecture());
        if !fits {
            let (os, arch) = (&c.os, &c.architecture);
            return Err(bad(format!("the image is for {os}/{arch}, this node is linux/{}", architecture())));
        }
        Ok((c.config.unwrap_or_default(), c.rootfs.diff_ids))
    }

    fn docker(&self) -> io::Result<Vec<Found>> {
        let data = self.bytes("manifest.json")?;
        let list: Vec<DockerManifest> =
            serde_json::from_slice(&data).map_err(|e| bad(format!("manifest.json: {e}")))?;
        let mut found = Vec::new();
        for m in list {
            let data = self.bytes(&m.config)?;
            let (config, diff_ids) = self.configuration(&data, &m.config)?;
            found.push(Found {
                id: format!("sha256:{}", hex(&Sha256::digest(&data))),
                names: names(m.repo_tags.unwrap_or_default())?,
                config,
                layers: pair(m.layers, diff_ids)?,
            });
        }
        Ok(found)
    }

    fn index(&self, index: Index, depth: u32, inherited: &[String], out: &mut Vec<Found>) -> io::Result<()> {
        for d in index.manifests {
            let fits = d.platform.as_ref().is_none_or(|p| {
                (p.os.is_empty() || p.os == "linux")
                    && (p.architecture.is_empty() || p.architecture == architecture())
            });
            if !fits {
                continue;
            }
            // Some tools write only the tag; a name needs more.
            let full = d.annotations.get(NAME_CONTAINERD).cloned();
            let short = d.annotations.get(NAME_OCI).filter(|n| n.contains(['/', ':'])).cloned();
            let mut own = names(full.or(short).into_iter().collect())?;
            own.extend(inherited.iter().cloned());
            if d.media_type.ends_with("index.v1+json") || d.media_type.ends_with("manifest.list.v2+json") {
                let depth = depth.checked_sub(1).ok_or_else(|| bad("indexes are nested too deep"))?;
                let (inner, _) = self.blob::<Index>(&d.digest)?;
                self.index(inner, depth, &own, out)?;
                continue;
            }
            let (manifest, _) = self.blob::<Manifest>(&d.digest)?;
            let (_, data) = self.blob::<serde_json::Value>(&manifest.config.digest)?;
            let (config, diff_ids) = self.configuration(&data, &manifest.config.digest)?;
            let layers = manifest.layers.iter().map(|l| blob_path(&l.digest)).collect::<io::Result<_>>()?;
            let reference = own.first().and_then(|n| Reference::parse(n).ok());
            own.extend(reference.map(|r| format!("{}@{}", r.name(), d.digest)));
            out.push(Found {
                id: manifest.config.digest,
                names: own,
                config,
                layers: pair(layers, diff_ids)?,
            });
        }
        Ok(())
    }
}

fn blob_path(digest: &str) -> io::Result<String> {
    match digest.split_once(':') {
        Some(("sha256", hex)) if hex.len() == 64 && hex.bytes().all(|b| b.is_ascii_hexdigit()) => {
            Ok(format!("blobs/sha256/{hex}"))
        }
        _ => Err(bad(format!("{digest:?} is not a sha256 digest"))),
    }
}

fn pair(layers: Vec<String>, diff_ids: Vec<String>) -> io::Result<Vec<(String, String)>> {
    if layers.len() != diff_ids.len() {
        let (a, b) = (layers.len(), diff_ids.len());
        return Err(bad(format!("the manifest has {a} layers, the configuration {b}")));
    }
    Ok(layers.into_iter().zip(diff_ids).collect())
}

fn names(texts: Vec<String>) -> io::Result<Vec<String>> {
    let full = |t: &String| match Reference::parse(t) {
        Ok(reference) => Ok(reference.to_string()),
        Err(e) => Err(bad(format!("{t:?}: {e}"))),
    };
    texts.iter().map(full).collect()
}

/// The images of an unpacked archive.
///
/// # Errors
/// If it is neither kind of archive, or its documents are broken.
pub(super) fn find_images(dir: &Rooted) -> io::Result<Vec<Found>> {
    let layout = Layout(dir);
    let found = if layout.has("manifest.json") {
        layout.docker()?
    } else if layout.has("index.json") {
        let index = serde_json::from_slice(&layout.bytes("index.json")?)
            .map_err(|e| bad(format!("index.json: {e}")))?;
        let mut found = Vec::new();
        layout.index(index, DEPTH_MAX, &[], &mut found)?;
        found
    } else {
        return Err(bad(
            "not an image archive: neither manifest.json (docker save) nor index.json (OCI layout)",
        ));
    };
    if found.is_empty() {
        return Err(bad(format!("the archive has no image for linux/{}", architecture())));
    }
    Ok(found)
}

/// Unpacks an archive into a folder that [`find_images`] reads.
pub(super) fn extract(archive: &Path, to: &Rooted) -> io::Result<()> {
    super::unpack::apply_layer(to, decompress(File::open(archive)?)?)
}
