//! What a runtime that starts finds of the one before.
#![expect(clippy::disallowed_methods, reason = "a shell: it waits for shims that are about to start")]

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;
use std::path::Path;

use super::container::{Container, read_end};
use super::pod::Pod;
use super::record::{self, ContainerRecord, ExitRecord, PodDir, PodRecord, ShimRecord, boot_id, entries};
use super::runtime::{Inner, lock};
use crate::runtime::{ContainerKey, PodUid};

/// How long a shim that has not started its process yet is waited for.
const STARTING: Duration = Duration::from_secs(10);
const STEP: Duration = Duration::from_millis(20);

/// Finds the pods in the runtime's folder and watches those that run.
pub(super) async fn load(inner: &Arc<Inner>) {
    let boot = boot_id();
    for (name, _) in entries(&inner.config.root.join("pods")) {
        let uid = PodUid::from(name.as_str());
        let Some(dir) = PodDir::new(&inner.config.root, &uid) else { continue };
        let mut record: Option<PodRecord> = record::read(&dir.record());
        let same_boot = record.as_ref().is_some_and(|r| r.boot == boot);
        let mut containers = Vec::new();
        for key in dir.containers() {
            containers.extend(container(&uid, &dir, key, same_boot).await);
        }
        let pod = Arc::new(Pod::new(uid.clone(), dir));
        let mut holder = None;
        if let Some(r) = &mut record {
            if !same_boot {
                r.holder = record::ProcessRecord::default();
            }
            if r.up && r.holder.is_there() {
                holder = Some(r.holder);
            } else {
                r.up = false;
            }
        }
        pod.adopt(record, containers.clone());
        lock(&inner.pods).insert(uid, pod.clone());
        for container in containers.into_iter().filter(|c| c.is_running()) {
            if holder.is_none() {
                // Its sandbox died while nobody looked.
                container.kill();
            }
            tokio::spawn(container.watch(Arc::downgrade(inner)));
        }
        if let Some(holder) = holder {
            pod.watch_holder(inner, holder);
        }
    }
}

async fn container(uid: &PodUid, dir: &PodDir, key: ContainerKey, same_boot: bool) -> Option<Arc<Container>> {
    let path = dir.container(&key)?;
    let kept: ContainerRecord = record::read(&path.join("container.json"))?;
    let shim = settled(&path, same_boot).await?;
    let exit = match record::read::<ExitRecord>(&path.join("exit.json")) {
        Some(end) => Some(end),
        None if same_boot && shim.shim.is_there() => None,
        None => Some(read_end(&path, shim, &super::container::open_process(shim.init))),
    };
    Some(Container::new(uid.clone(), key, path, kept, shim, exit.map(Into::into)))
}

/// The record of a shim once it has started its process or ended; `None` if it never came to that.
async fn settled(path: &Path, same_boot: bool) -> Option<ShimRecord> {
    let rounds = STARTING.as_millis() / STEP.as_millis();
    for _ in 0..rounds {
        let shim: ShimRecord = record::read(&path.join("shim.json"))?;
        if shim.init.pid != 0 || !same_boot || !shim.shim.is_there() {
            return Some(shim);
        }
        tokio::time::sleep(STEP).await;
    }
    record::read(&path.join("shim.json"))
}
