//! What plugins say beside filtering and scoring; see [`Plugin`](crate::framework::Plugin).
//!
//! The default plugins say nothing there: the machine does what they stand for.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use icp_core::client::{ApiRequest, ObjectKey};

use super::{Scheduler, Unschedulable};
use crate::framework::{Bind, Permit, Plugin, Point, Reason, Rejection, Slot, Waiter, WaitingPods};
use crate::model::Pod;
use crate::plugins;
use crate::queue::Happened;

/// What became of asking for leave.
#[derive(Debug, Default)]
pub(crate) struct Leave {
    /// The pod does not get its node.
    pub(crate) rejected: Option<Rejection>,
    /// It waits for these plugins.
    pub(crate) pending: Vec<(&'static str, icp_core::base::Duration)>,
    /// Other pods that a plugin lets go.
    pub(crate) allowed: Vec<(ObjectKey, &'static str)>,
    /// Other pods that a plugin rejects.
    pub(crate) refused: Vec<(ObjectKey, &'static str, Reason)>,
}

impl Scheduler {
    /// The plugins of a pod's profile that are not the default ones, at a point.
    fn own(&mut self, pod: &Pod, point: Point) -> impl DoubleEndedIterator<Item = &dyn Plugin> + use<'_> {
        self.turn_to(pod);
        let slots: &[Slot] = if self.profile.has_own { &self.profile.slots } else { &[] };
        slots.iter().filter(move |s| s.at(point)).map(|s| &*s.plugin)
    }

    /// The plugin that holds a pod back, if one does.
    pub(crate) fn held_back(&mut self, pod: &Pod) -> Option<&'static str> {
        self.own(pod, Point::PreEnqueue).find_map(|p| p.pre_enqueue(pod).map(|_| p.name()))
    }

    /// Whether an event may give a pod a chance that `plugin` rejected.
    pub(crate) fn hinted(&self, plugin: &str, pod: &Pod, happened: &Happened<'_>) -> bool {
        let name = self.profile(&pod.scheduler_name).or_else(|| self.profiles().next());
        let other = self.others.iter().find(|p| Some(p.name.as_str()) == name);
        let slots = other.map_or(&self.profile.slots, |p| &p.slots);
        if let Some(slot) = slots.iter().find(|s| s.plugin.name() == plugin) {
            return slot.plugin.hint(pod, happened);
        }
        // The rejection is of another configuration, under which a history was written.
        let mut defaults = plugins::defaults().into_iter();
        defaults.find(|(p, _)| p.name() == plugin).is_none_or(|(p, _)| p.hint(pod, happened))
    }

    /// The rank of a pod among those that are ready.
    pub(crate) fn rank(&mut self, pod: &Pod) -> i64 {
        let by_plugin = self.own(pod, Point::QueueSort).find_map(|p| p.rank(pod));
        by_plugin.unwrap_or_else(|| -i64::from(pod.spec.priority))
    }

    /// The node on which a plugin makes room.
    pub(crate) fn post_filter(&mut self, pod: &Pod, none: &Unschedulable) -> Option<String> {
        self.turn_to(pod);
        if !self.profile.has_own {
            return None;
        }
        let cycle = self.cycle(pod);
        self.profile
            .slots
            .iter()
            .filter(|s| s.at(Point::PostFilter))
            .find_map(|s| s.plugin.post_filter(&cycle, none))
    }

    /// Tells plugins that a pod has a node; those that were told are told again if one of them objects.
    pub(crate) fn reserve(&mut self, pod: &Pod, node: &str) -> Result<(), Rejection> {
        let rejection = self
            .own(pod, Point::Reserve)
            .find_map(|p| p.reserve(pod, node).err().map(|rejected| rejected.by(p.name())));
        match rejection {
            None => Ok(()),
            Some(rejection) => {
                self.unreserve(pod, node);
                Err(rejection)
            }
        }
    }

    /// Tells plugins that a pod does not get its node, the last one first.
    pub(crate) fn unreserve(&mut self, pod: &Pod, node: &str) {
        self.own(pod, Point::Reserve).rev().for_each(|p| p.unreserve(pod, node));
    }

    /// Asks for leave to bind a pod.
    pub(crate) fn permit(&mut self, pod: &Pod, node: &str, waiters: &BTreeMap<ObjectKey, Waiter>) -> Leave {
        let mut leave = Leave::default();
        for plugin in self.own(pod, Point::Permit) {
            let mut waiting = WaitingPods::new(waiters);
            let answer = plugin.permit(pod, node, &mut waiting);
            let name = plugin.name();
            leave.allowed.extend(waiting.allowed.into_iter().map(|key| (key, name)));
            leave.refused.extend(waiting.rejected.into_iter().map(|(key, why)| (key, name, why)));
            match answer {
                Permit::Allow => {}
                Permit::Reject(rejected) => {
                    leave.rejected = Some(rejected.by(name));
                    break;
                }
                Permit::Wait(time) => leave.pending.push((name, time)),
            }
        }
        leave
    }

    /// What must succeed before a pod is bound.
    pub(crate) fn pre_bind(&mut self, pod: &Pod, node: &str) -> Result<Vec<ApiRequest>, Rejection> {
        let mut requests = Vec::new();
        for plugin in self.own(pod, Point::PreBind) {
            requests.extend(plugin.pre_bind(pod, node).map_err(|rejected| rejected.by(plugin.name()))?);
        }
        Ok(requests)
    }

    /// How a pod is bound, and by which plugin; nothing if it is the default one that binds.
    pub(crate) fn binder(
        &mut self,
        pod: &Pod,
        node: &str,
    ) -> Result<Option<(&'static str, Bind)>, Rejection> {
        for plugin in self.own(pod, Point::Bind) {
            match plugin.bind(pod, node).map_err(|rejected| rejected.by(plugin.name()))? {
                Bind::Skip => {}
                by => return Ok(Some((plugin.name(), by))),
            }
        }
        Ok(None)
    }

    /// Whether pods of a profile are bound by the default binder if no plugin binds them.
    pub(crate) fn binds_by_default(&mut self, pod: &Pod) -> bool {
        self.turn_to(pod);
        self.profile.binds
    }

    /// Tells plugins that a pod is bound.
    pub(crate) fn post_bind(&mut self, pod: &Pod, node: &str) {
        self.own(pod, Point::PostBind).for_each(|p| p.post_bind(pod, node));
    }
}
