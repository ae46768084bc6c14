//! Equivalence classes of pods: equal specs, kept once.

use alloc::sync::Arc;
use alloc::vec::Vec;

use super::{Chunks, Index};
use crate::model::PodSpec;

/// A class of pods with equal specs. Valid as long as the cluster holds a pod of the class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassId(pub(crate) u32);

#[derive(Clone, Debug)]
struct Class {
    spec: Arc<PodSpec>,
    /// Pods that hold the class.
    refs: u32,
    /// Never used twice, unlike the slot.
    serial: u64,
}

/// The classes, by slot and by spec.
#[derive(Debug, Default)]
pub(super) struct Classes {
    slots: Chunks<Option<Class>, 64>,
    free: Vec<u32>,
    by_spec: Index<16>,
    /// The same by the address of the spec that is kept: most pods of a class share it.
    by_address: Index<16>,
    /// The one that was acquired last, which is often the next one too.
    last: u32,
    serial: u64,
}

impl Classes {
    /// The same classes for a snapshot.
    pub(super) fn share(&mut self) -> Self {
        Self {
            slots: self.slots.share(),
            free: self.free.clone(),
            by_spec: self.by_spec.share(),
            by_address: self.by_address.share(),
            last: self.last,
            serial: self.serial,
        }
    }

    fn address(spec: &Arc<PodSpec>) -> usize {
        Arc::as_ptr(spec).addr()
    }

    fn class(&self, slot: u32) -> Option<&Class> {
        self.slots.get(slot as usize)?.as_ref()
    }

    /// The class of `spec`, with one more holder.
    pub(super) fn acquire(&mut self, spec: &Arc<PodSpec>) -> ClassId {
        let same = |slot| self.class(slot).is_some_and(|c| Arc::ptr_eq(&c.spec, spec));
        let by_address = || self.by_address.hash(&Self::address(spec));
        let known = match self.last {
            last if same(last) => Some(last),
            _ => self.by_address.find(by_address(), same).or_else(|| self.slot_of(spec)),
        };
        if let Some(id) = known.map(ClassId) {
            self.last = id.0;
            if let Some(class) = self.slot_mut(id) {
                class.refs = class.refs.saturating_add(1);
            }
            return id;
        }
        self.serial += 1;
        let class = Class { spec: Arc::clone(spec), refs: 1, serial: self.serial };
        let id = match self.free.pop() {
            Some(slot) => ClassId(slot),
            None => {
                self.slots.push(None);
                ClassId(u32::try_from(self.slots.len() - 1).unwrap_or(u32::MAX))
            }
        };
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            *slot = Some(class);
        }
        self.by_spec.insert(self.by_spec.hash(&**spec), id.0);
        self.by_address.insert(self.by_address.hash(&Self::address(spec)), id.0);
        id
    }

    fn slot_of(&self, spec: &PodSpec) -> Option<u32> {
        self.by_spec.find(self.by_spec.hash(spec), |slot| self.class(slot).is_some_and(|c| *c.spec == *spec))
    }

    /// The spec that is kept for an equal one.
    pub(super) fn canonical(&self, spec: &PodSpec) -> Option<&Arc<PodSpec>> {
        self.class(self.slot_of(spec)?).map(|c| &c.spec)
    }

    /// One holder less; the last one takes the class with it.
    pub(super) fn release(&mut self, id: ClassId) {
        let Some(class) = self.slot_mut(id) else { return };
        class.refs = class.refs.saturating_sub(1);
        if class.refs == 0 {
            let spec = Arc::clone(&class.spec);
            self.by_spec.remove(self.by_spec.hash(&*spec), id.0);
            self.by_address.remove(self.by_address.hash(&Self::address(&spec)), id.0);
            if let Some(slot) = self.slots.get_mut(id.0 as usize) {
                *slot = None;
            }
            self.free.push(id.0);
        }
    }

    pub(super) fn spec(&self, id: ClassId) -> Option<&Arc<PodSpec>> {
        self.slots.get(id.0 as usize)?.as_ref().map(|c| &c.spec)
    }

    pub(super) fn serial(&self, id: ClassId) -> u64 {
        self.slots.get(id.0 as usize).and_then(Option::as_ref).map_or(0, |c| c.serial)
    }

    fn slot_mut(&mut self, id: ClassId) -> Option<&mut Class> {
        self.slots.get_mut(id.0 as usize)?.as_mut()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_reused_under_a_new_serial() {
        let mut classes = Classes::default();
        let spec = |cpu| Arc::new(PodSpec::asking(cpu, 0));
        let a = classes.acquire(&spec(1));
        assert_eq!(classes.acquire(&spec(1)), a);
        let serial = classes.serial(a);
        classes.release(a);
        assert!(classes.spec(a).is_some());
        classes.release(a);
        assert!(classes.spec(a).is_none());
        let b = classes.acquire(&spec(2));
        assert_eq!(b, a);
        assert_ne!(classes.serial(b), serial);
    }
}
